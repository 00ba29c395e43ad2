"""From operations to exchanges with servers: routing, redirections, sending again, errors; without any I/O.

:class:`Core` is the same for both faces of the client. It decides; a face performs what it yields (see
:mod:`asim.client.steps`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import count
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple

from ..errors import DatabaseConnectionError, DatabaseError, DatabaseTimeout, KeyNotFoundError
from .cluster import BUSY, SlotMap, redirect
from .codec import Command, command
from .effort import Effort
from .keys import Prefixes, slot_of
from .options import Options
from .replies import ErrorReply
from .steps import Blocking, Each, Exchange, Flow, Lost, Op, Outcome, Pause, Shards, Step, T

ASKING = command("ASKING", None)
SLOTS = command("CLUSTER SLOTS", None)
_MISSING = re.compile(r"(tensor|model|script) key is empty|no such key|cannot find run info", re.IGNORECASE)


class Job(NamedTuple):
    """One command on its way: where its reply belongs, and which server to ask."""

    position: int
    command: Command
    address: str
    asking: bool = False


class Core:
    """What a client knows and decides.

    :ivar options: what it was told.
    :ivar prefixes: what is put before names.
    :ivar chunk_size: the largest piece of a model in one argument, in bytes.
    """

    def __init__(self, options: Options, prefixes: Prefixes, clock: Callable[[], float] = monotonic) -> None:
        self.options = options
        self.prefixes = prefixes
        self.chunk_size = 511 << 20
        self._clock = clock
        self._slots: SlotMap | None = None
        self._stale = False
        self._made = count()
        self._mark = token_hex(6)

    def unique(self) -> bytes:
        """A word that no other client, and no other call, has."""
        return f"{self._mark}.{next(self._made)}".encode()

    def drive(self, op: Op[T]) -> Flow[T]:
        """An operation as what a face performs; returns the operation's result.

        :raises DatabaseError: a server answered with an error that the operation does not deal with.
        :raises DatabaseConnectionError: a server could not be reached in time, or it is unknown whether a command that
            must not be done twice was done.
        :raises DatabaseTimeout: a reply did not come in time.
        """
        resume: Callable[[Any], Step] = op.send
        value: Any = None
        while True:
            try:
                step = resume(value)
            except StopIteration as end:
                result: T = end.value
                return result
            outcomes = None
            if type(step) is Command and not self.options.cluster:  # nearly all steps: the shortest way through
                outcomes = yield [Exchange(step.address or self.options.address, (step,), self.options.timeout)]
                if type(outcomes[0]) is list and type(outcomes[0][0]) is not ErrorReply:
                    resume, value = op.send, outcomes[0][0]
                    continue
            try:
                value = yield from self._resolve(step, outcomes)
                resume = op.send
            except DatabaseError as error:
                resume, value = op.throw, error

    def _resolve(self, step: Step, outcomes: list[Outcome] | None) -> Flow[Any]:
        """What one step gives; the outcomes of its first attempt may be there already."""
        if isinstance(step, Command):
            reply = (yield from self._deliver((step,), outcomes))[0]
            if type(reply) is ErrorReply:
                raise error_for(step, reply.text)
            return reply
        if isinstance(step, (Pause, Blocking)):
            return (yield step)
        if isinstance(step, Shards):
            return (yield from self._map()).shards if self.options.cluster else ()
        if isinstance(step, Each):
            return with_errors(step.commands, (yield from self._deliver(step.commands)))
        replies = with_errors(step, (yield from self._deliver(step)))
        for reply in replies:
            if isinstance(reply, DatabaseError):
                raise reply
        return replies

    def _deliver(self, commands: Sequence[Command], outcomes: list[Outcome] | None = None) -> Flow[list[Any]]:
        """Send commands until each has its reply."""
        replies: list[Any] = [None] * len(commands)
        effort = Effort(self._clock, self.options.connect_timeout)
        waiting: list[tuple[int, Command]] = list(enumerate(commands))
        redirected: list[Job] = []
        while waiting or redirected:
            jobs = redirected + (yield from self._placed(waiting))
            waiting, redirected = [], []
            groups = _grouped(jobs)
            if outcomes is None:
                outcomes = yield [self._exchange(address, group) for address, group in groups.items()]
            for (address, group), outcome in zip(groups.items(), outcomes, strict=True):
                if isinstance(outcome, Lost):
                    waiting += self._lost(address, group, outcome, effort)
                else:
                    self._sort(address, group, outcome, replies, waiting, redirected)
            outcomes = None
            if waiting:
                yield self._pause(waiting, replies, effort)
            elif redirected:
                effort.redirected()
        return replies

    def _exchange(self, address: str, group: Sequence[Job]) -> Exchange:
        """A server's jobs as one exchange."""
        commands: list[Command] = []
        for job in group:
            if job.asking:
                commands.append(ASKING)
            commands.append(job.command)
        return Exchange(address, commands, self.options.timeout)

    def _sort(
        self,
        address: str,
        group: Sequence[Job],
        outcome: Sequence[Any],
        replies: list[Any],
        waiting: list[tuple[int, Command]],
        redirected: list[Job],
    ) -> None:
        """Put each reply in its place, or its command back on the way."""
        received = iter(outcome)
        for job in group:
            if job.asking:
                next(received)
            reply = replies[job.position] = next(received)
            if type(reply) is not ErrorReply:
                continue
            elsewhere = redirect(reply.text, address) if self.options.cluster else None
            if elsewhere is not None:
                redirected.append(Job(job.position, job.command, elsewhere.address, elsewhere.asking))
                if not elsewhere.asking and self._slots is not None:
                    self._slots.moved(elsewhere.slot, elsewhere.address)
            elif reply.text.startswith(BUSY):
                waiting.append((job.position, job.command))

    def _lost(self, address: str, group: Sequence[Job], lost: Lost, effort: Effort) -> list[tuple[int, Command]]:
        """What may be sent again after a connection was lost.

        :raises DatabaseError: nothing, for the reason in its text.
        """
        self._stale = True
        one = next((job.command for job in group if not job.command.again), group[0].command)
        text = f"{one.text}: {address}: {lost}"
        if lost.late:
            raise DatabaseTimeout(text, one.text) from lost
        if lost.final:
            raise DatabaseConnectionError(text, one.text) from lost
        if lost.sent and not one.again:
            raise DatabaseConnectionError(f"{text}; it may or may not have been done", one.text) from lost
        if effort.exhausted():
            raise DatabaseConnectionError(f"{text}; gave up after {effort.limit:g} s", one.text) from lost
        return [(job.position, job.command) for job in group]

    def _pause(self, waiting: Sequence[tuple[int, Command]], replies: Sequence[Any], effort: Effort) -> Pause:
        """Back off before commands are sent again; servers that are busy for too long are an error too."""
        if effort.exhausted():
            for index, one in waiting:
                if isinstance(replies[index], ErrorReply):
                    raise error_for(one, replies[index].text)
        return Pause(effort.delay())

    # -- places

    def _placed(self, commands: Sequence[tuple[int, Command]]) -> Flow[list[Job]]:
        """Commands with their servers."""
        if not self.options.cluster:
            return [Job(index, one, one.address or self.options.address) for index, one in commands]
        if not commands:
            return []
        slots = yield from self._map()
        return [Job(index, one, place(one, slots)) for index, one in commands]

    def _map(self) -> Flow[SlotMap]:
        """The map of the cluster; asked for when there is none, or when a server was lost."""
        if self._slots is None or self._stale:
            self._stale = False
            self._slots = yield from self._learn()
        return self._slots

    def _learn(self) -> Flow[SlotMap]:
        """Ask any server that is known for the map, until one has it.

        :raises DatabaseError: the server is none of a cluster, or none answers in time.
        """
        known = self._slots.addresses if self._slots else []
        effort = Effort(self._clock, self.options.connect_timeout)
        while True:
            failure: DatabaseError | None = None
            for address in dict.fromkeys((*known, self.options.address)):
                (outcome,) = yield [Exchange(address, (SLOTS,), self.options.timeout)]
                try:
                    return _slot_map(outcome, address)
                except DatabaseError as error:
                    failure = error
                    if error.reply and not error.reply.startswith(BUSY):
                        raise
            if failure is not None and effort.exhausted():
                raise failure
            yield Pause(effort.delay())


def _slot_map(outcome: Any, address: str) -> SlotMap:
    """The map in an outcome, or the error that it is."""
    if isinstance(outcome, Lost):
        kind = "final" if outcome.final else ""
        raise DatabaseConnectionError(f"{SLOTS.text}: {address}: {outcome}", SLOTS.text, kind) from outcome
    if isinstance(outcome[0], ErrorReply):
        raise error_for(SLOTS, outcome[0].text)
    return SlotMap(outcome[0], address)


def place(one: Command, slots: SlotMap) -> str:
    """The server of a command in a cluster; those without a key or an address may go to any."""
    if one.address is not None:
        return one.address
    return slots.address(slot_of(one.key)) if one.key is not None else slots.shards[0].address


def _grouped(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Jobs by server, in their order in the pipeline."""
    if len(jobs) == 1:
        return {jobs[0].address: [jobs[0]]}
    groups: dict[str, list[Job]] = {}
    for job in sorted(jobs):
        groups.setdefault(job.address, []).append(job)
    return groups


def with_errors(commands: Sequence[Command], replies: Sequence[Any]) -> list[Any]:
    """Replies with the errors among them as exceptions."""
    return [
        error_for(one, reply.text) if type(reply) is ErrorReply else reply
        for one, reply in zip(commands, replies, strict=True)
    ]


def error_for(one: Command, text: str) -> DatabaseError:
    """An error reply as an exception."""
    kind = KeyNotFoundError if _MISSING.search(text) else DatabaseError
    return kind(f"{one.text}: {text}", one.text, text)
