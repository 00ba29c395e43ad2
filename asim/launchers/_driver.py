"""All commands to one workload manager: submits, one bulk query a tick, cancels. The same for every dialect.

Experiments of one event loop that use the same workload manager share one :class:`Scheduler`, so that it is asked once
for all of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import anyio
from anyio.lowlevel import RunVar

from ..errors import AgentError, AsimError, SubmitError
from .base import JobStatus
from .dialect import Batch, Command, Completed, Dialect, SchedulerError

LOG = logging.getLogger("asim")
MIN_POLL, MAX_POLL = 1.0, 30.0
"""Seconds between two queries: half the age of the youngest change, but between these."""
AT_ONCE = 8
"""Commands to the workload manager at the same time."""
ANSWER = 120.0
"""Seconds that one command may take."""
SUBMIT = 180.0
"""Seconds that a submit may take: a full queue can hold it up for two minutes."""
PATIENCE = 120.0
"""Seconds for which a submit or a cancel is tried again when the workload manager is away or refuses for now."""
LOOKS = 3
"""Answers without a trace of a submit, after which it counts as not made."""


class Party(Protocol):
    """One experiment, as the scheduler sees it."""

    async def run(self, command: Command, timeout: float) -> Completed:
        """Run one of the workload manager's commands."""

    async def rest(self, seconds: float) -> bool:
        """Wait so long; False, and at once, when the experiment ends."""

    def watched(self) -> Sequence[str]:
        """The ids that it wants news of."""

    def answer(self, found: Mapping[str, JobStatus], asked: Sequence[str], posed: float, final: bool) -> None:
        """News; ``asked`` are the ids that a complete answer was to be about, ``final`` if it is the accounting's.

        :param posed: when the question was; what has happened since may not be in the answer.
        """

    def doubtful(self) -> Sequence[str]:
        """The ids about whose end the accounting must be asked."""


class Scheduler:
    """One workload manager, seen from one host.

    :param dialect: its language.
    :param min_poll: least seconds between two queries.
    :param max_poll: most seconds between two queries.
    """

    def __init__(self, dialect: Dialect, min_poll: float = MIN_POLL, max_poll: float = MAX_POLL) -> None:
        self.dialect = dialect
        self.min_poll, self.max_poll = min_poll, max_poll
        self.patience = PATIENCE
        self._parties: dict[Party, tuple[float, float]] = {}
        self._limiter = anyio.CapacityLimiter(AT_ONCE)
        self._lock = anyio.Lock()
        self._asked_at = self._changed_at = anyio.current_time()
        self._took = 0.0
        self._failures = Counter[str]()
        self._judge_at = 0.0
        self._stirred = anyio.Event()

    # -- who takes part

    def join(self, party: Party, min_poll: float, max_poll: float) -> None:
        """From now on this one is asked for ids and told the answers. The most impatient one decides how often."""
        self._parties[party] = (min_poll, max_poll)
        self._agree()

    def leave(self, party: Party) -> None:
        """No longer."""
        self._parties.pop(party, None)
        self._agree()

    def _agree(self) -> None:
        if self._parties:
            self.min_poll, self.max_poll = map(min, zip(*self._parties.values(), strict=True))

    def stir(self) -> None:
        """Something has changed, or is about to: the next query comes soon."""
        self._changed_at = anyio.current_time()
        self._stirred.set()
        self._stirred = anyio.Event()

    # -- asking

    def pause(self) -> float:
        """Seconds until the next query is due."""
        now = anyio.current_time()
        pause = min(max((now - self._changed_at) / 2, self.min_poll), self.max_poll)
        pause = max(pause, 5 * self._took) * (1 << min(self._failures[self.dialect.name], 5))
        return self._asked_at + min(pause, max(self.max_poll, 5 * self._took)) - now

    async def wait(self, most: float) -> None:
        """Wait until the next query is due or ``most`` seconds have passed, whichever is first."""
        end = anyio.current_time() + most
        while (left := min(self.pause(), end - anyio.current_time())) > 0:
            with anyio.move_on_after(left):
                await self._stirred.wait()

    async def ask(self, by: Party) -> None:
        """One query for all parties, unless one of them has just made it."""
        async with self._lock:
            if self.pause() > 0:
                return
            shares = {party: list(party.watched()) for party in self._parties}
            ids = [job for share in shares.values() for job in share]
            began = anyio.current_time()
            stuck = await self._query(by, shares, ids) if ids else []
            self._asked_at = anyio.current_time()
            self._took = 0.0 if any(self._failures.values()) else self._asked_at - began
        for command in self.dialect.cancel(stuck) if stuck else ():
            with contextlib.suppress(SchedulerError):  # the next answer has it still
                self.dialect.cancelled(await by.run(command, ANSWER))

    async def _query(self, by: Party, shares: Mapping[Party, Sequence[str]], ids: Sequence[str]) -> list[str]:
        """Ask, and tell; returns what should be cancelled."""
        posed, dialect = anyio.current_time(), self.dialect
        found, whole = await self._read(by, dialect.name, dialect.status(ids), dialect.read_status)
        for party, share in shares.items():
            party.answer(found, share if whole else [job for job in share if job in found], posed, False)
        await self._judge(by, shares)
        ours = {*ids, *(job for job in found if not {job.partition(".")[0], job.partition("_")[0]}.isdisjoint(ids))}
        return sorted(ours.intersection(dialect.lingering(found)))

    async def _judge(self, by: Party, parties: Iterable[Party]) -> None:
        """Ask the accounting about what is in doubt. One that is down holds up nobody: it is asked less and less."""
        posed = anyio.current_time()
        if posed < self._judge_at:
            return
        doubts = {party: list(party.doubtful()) for party in parties}
        asked = [job for share in doubts.values() for job in share]
        who, questions = f"the accounting of {self.dialect.name}", self.dialect.account(asked) if asked else []
        verdicts, whole = await self._read(by, who, questions, self.dialect.read_account)
        if not whole:
            pause = min(self.max_poll, self.min_poll * (1 << min(self._failures[who], 5)))
            self._judge_at = anyio.current_time() + pause
            return
        for party, share in doubts.items():
            party.answer(verdicts, share, posed, True)

    async def _read(
        self, by: Party, who: str, questions: Sequence[Command], parse: Callable[[Completed], Mapping[str, JobStatus]]
    ) -> tuple[dict[str, JobStatus], bool]:
        """The answers, and whether they are complete.

        :param who: answers; failures are counted for each by itself.
        """
        found: dict[str, JobStatus] = {}
        errors: list[AsimError] = []

        async def one(command: Command) -> None:
            try:
                found.update(parse(await by.run(command, ANSWER)))
            except (SchedulerError, AgentError) as exc:
                errors.append(exc)

        async with anyio.create_task_group() as group:
            for command in questions:
                group.start_soon(one, command)
        for exc in errors:
            if isinstance(exc, AgentError):  # the scheduler was not even asked
                raise exc
        if by not in self._parties:  # it has left meanwhile, and its agent with it: that is no fault of the scheduler's
            return found, not errors
        if errors and not self._failures[who]:
            LOG.warning("%s does not answer, and is asked again: %s", who, errors[0])
        elif questions and not errors and self._failures[who]:
            LOG.info("%s answers again", who)
        if questions:
            self._failures[who] = self._failures[who] + 1 if errors else 0
        return found, not errors

    # -- submitting

    async def submit(self, by: Party, batch: Batch) -> str | None:
        """Submit once; returns the id, or None if nobody can say that it was taken (it must then be called off).

        Refusals that may pass (limits, a workload manager that is away) are tried again for :attr:`patience` seconds.

        :raises SubmitError: it was refused.
        Cancellation: it may have been taken; the caller must not be cancelled here.
        """
        command, pause = self.dialect.submit(batch), self.min_poll
        end = anyio.current_time() + self.patience
        while True:
            async with self._limiter:
                done = await by.run(command, SUBMIT)
            try:
                job = self.dialect.submitted(done)
            except SubmitError as exc:
                if not exc.transient or anyio.current_time() + pause > end:
                    raise
                LOG.warning("%s: %s; trying again in %g s", batch.name, exc, pause)
                if not await by.rest(pause):
                    raise
                pause = min(pause * 2, self.max_poll)
                continue
            except SchedulerError as exc:
                LOG.warning("%s: was it submitted? %s", batch.name, exc)
                return await self._search(by, batch, end)
            self.stir()
            return job

    async def _search(self, by: Party, batch: Batch, end: float) -> str | None:
        """The id of what was perhaps submitted."""
        misses, pause = 0, self.min_poll
        while misses < LOOKS and (misses == 0 or anyio.current_time() < end):
            if not await by.rest(pause):
                end = anyio.current_time()  # one look is all that there is time for
            pause = min(pause * 2, self.max_poll)
            try:
                found: dict[str, str] = {}
                for command in self.dialect.find([batch.mark]):
                    found.update(self.dialect.find_read(await by.run(command, ANSWER), [batch.mark]))
            except SchedulerError:
                if anyio.current_time() > end:
                    break
                continue
            if batch.mark in found:
                self.stir()
                return found[batch.mark]
            misses += 1
        return None

    # -- cancelling

    async def cancel(self, by: Party, ids: Iterable[str]) -> None:
        """End jobs and tasks, as many with one command as can be; tried again while the workload manager is away.

        :raises SchedulerError: it stayed away, or refuses; what other commands were about was cancelled.
        """
        errors: list[SchedulerError] = []
        end = anyio.current_time() + self.patience
        for command in self.dialect.cancel(list(ids)):
            try:
                await self._insist(by, command, end)
            except SchedulerError as exc:
                errors.append(exc)
        self.stir()
        if errors:
            raise errors[0]

    async def _insist(self, by: Party, command: Command, end: float) -> None:
        pause = self.min_poll
        while True:
            try:
                return self.dialect.cancelled(await by.run(command, ANSWER))
            except SchedulerError as exc:
                if not exc.transient or anyio.current_time() + pause > end:
                    raise
                await anyio.sleep(pause)
                pause = min(pause * 2, self.max_poll)


_shared: RunVar[dict[tuple[str, str], Scheduler]] = RunVar("asim schedulers")


def shared(dialect: Dialect, where: str) -> Scheduler:
    """The one for this workload manager on this host; experiments of one event loop get the same.

    :param where: the host, as the experiment names it.
    """
    known = _shared.get(None)
    if known is None:
        known = {}
        _shared.set(known)
    return known.setdefault((dialect.name, where), Scheduler(dialect))
