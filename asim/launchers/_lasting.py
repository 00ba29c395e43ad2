"""The agent behind a workload manager's launcher: when it dies while batch jobs go on, another takes its place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio

from ..agent.protocol import Completed
from ..errors import AgentError, AsimError
from ..status import JobState
from .base import JobStatus, Sink

if TYPE_CHECKING:
    from ..transport.connection import Host
    from .local import LocalLauncher

LOG = logging.getLogger("asim")
OnSeen = Callable[[Sequence[tuple[str, str]]], None]


class LastingAgent:
    """Starts agents, one after the other.

    :param make: makes the launcher of an agent's processes.
    :param needed: whether anything but those processes depends on it.
    """

    def __init__(self, make: Callable[[], LocalLauncher], needed: Callable[[], bool]) -> None:
        self._make, self._needed = make, needed
        self.launcher = make()
        self.broken: AsimError | None = None
        self.closed = False
        self._mending = anyio.Lock()
        self._watches: dict[str, tuple[float, OnSeen]] = {}
        self._sink: Sink = lambda _: None
        self._on_lost: Callable[[AsimError], None] = lambda _: None
        self._wake: Callable[[], None] = lambda: None

    @property
    def host(self) -> Host:
        """The connection to the agent that there is now."""
        return self.launcher.host

    @property
    def reached(self) -> float | None:
        """See :func:`asim.launchers.base.reached`."""
        return self.launcher.reached

    async def open(
        self, sink: Sink, lost: Callable[[AsimError], None], wake: Callable[[], None]
    ) -> Mapping[str, object]:
        """Start the first.

        :param lost: called when it died and nothing but its processes depended on it.
        :param wake: called when it died, and :meth:`mend` is due.
        """
        self._sink, self._on_lost, self._wake = sink, lost, wake
        return await self.launcher.open(sink, self._gone)

    async def run(self, argv: Sequence[str], stdin: str, timeout: float) -> Completed:
        """Run a command. When the agent dies meanwhile, nobody can say what came of it: its code is None.

        :raises AgentError: and no other agent can be started.
        """
        launcher = self.launcher
        try:
            return await launcher.host.run(argv, stdin=stdin, timeout=timeout)
        except AgentError as exc:
            if self.closed:
                raise
            if self.launcher is launcher:
                self.broken = self.broken or exc
            await self.mend()
            return Completed(tuple(argv), None, "", str(exc))

    def watch(self, directory: str, seconds: float, on_seen: OnSeen) -> None:
        """As :meth:`asim.transport.host.Host.watch`, also by agents to come; they report everything again."""
        self._watches[directory] = (seconds, on_seen)
        self.host.watch(directory, seconds, on_seen)

    async def mend(self) -> None:
        """If it has died: see to what it left running, tell that this is lost, and start another.

        :raises AgentError: that is impossible.
        """
        async with self._mending:
            error, old = self.broken, self.launcher
            if error is None:
                return
            LOG.error("%s; looking after what it left running, and starting another", error)
            words = "; ".join(filter(None, (str(error), await old.recover(again=True))))
            self._sink([(key, JobStatus(JobState.LOST, 0.0, reason=words)) for key in old.alive])
            fresh = self._make()
            await fresh.open(self._sink, self._gone)
            self.launcher, self.broken = fresh, None
            for directory, (seconds, on_seen) in self._watches.items():
                fresh.host.watch(directory, seconds, on_seen)

    def _gone(self, error: AsimError) -> None:
        if self.closed or not self._needed():
            self._on_lost(error)
        else:
            self.broken = error
            self._wake()
