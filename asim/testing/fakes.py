"""A launcher without processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..agent.protocol import FileAction
from ..errors import AsimError, SubmitError
from ..launchers.base import Capabilities, JobKey, JobStatus, Sink, Usage
from ..status import JobState

if TYPE_CHECKING:
    from ..plan import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a fake job goes.

    :ivar state: the terminal state; None: it runs until it is cancelled.
    :ivar code: the exit code.
    :ivar after: seconds that it takes.
    """

    state: JobState | None = JobState.COMPLETED
    code: int | None = 0
    after: float = 0.0


class FakeLauncher:
    """A :class:`~asim.launchers.base.Launcher` whose jobs are timers.

    :param outcome: told a job's spec, says how it goes; by default every job completes at once.
    :param refuse: an error that every submit raises.
    :ivar submitted: the specs in the order in which they came.
    :ivar calls: the name of every verb that was called, in order.
    :ivar actions: the file actions that it was asked for (and did not do).
    """

    name = "fake"
    capabilities = Capabilities(launcher="fake", batch=False)

    def __init__(
        self, outcome: Callable[[JobSpec], Outcome] = lambda _: Outcome(), refuse: SubmitError | None = None
    ) -> None:
        self._outcome, self.refuse = outcome, refuse
        self.submitted: list[JobSpec] = []
        self.calls: list[str] = []
        self.actions: list[FileAction] = []
        self._running: dict[JobKey, asyncio.TimerHandle | None] = {}
        self._sink: Sink = lambda _: None
        self._lost: Callable[[AsimError], None] = lambda _: None

    async def open(self, sink: Sink, lost: Callable[[AsimError], None]) -> Mapping[str, object]:
        self.calls.append("open")
        self._sink, self._lost = sink, lost
        return {"host": "fake"}

    async def files(self, actions: Iterable[FileAction]) -> None:
        self.calls.append("files")
        self.actions += actions

    async def submit(self, jobs: Sequence[tuple[JobKey, JobSpec]]) -> None:
        self.calls.append("submit")
        if self.refuse is not None:
            raise self.refuse
        loop = asyncio.get_running_loop()
        for key, spec in jobs:
            self.submitted.append(spec)
            outcome = self._outcome(spec)
            self._running[key] = None
            loop.call_soon(self._start, key, outcome)

    async def serve(self) -> None:
        """Timers go on by themselves."""

    async def poll(self, keys: Collection[JobKey]) -> None:
        self.calls.append("poll")

    async def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        self.calls.append("cancel")
        for key in keys:
            self._end(key, JobStatus(JobState.CANCELLED, time.time(), -15, "stopped"))

    async def recover(self) -> None:
        self.calls.append("recover")
        self._running.clear()

    def abort(self) -> None:
        self.calls.append("abort")
        self.lose(AsimError("the fake was aborted"))

    async def close(self, keep: Collection[JobKey] | Literal["all"]) -> None:
        self.calls.append("close")
        for key in [key for key in self._running if keep != "all" and key not in keep]:
            self._end(key, JobStatus(JobState.CANCELLED, time.time(), -15, "stopped"))

    def lose(self, error: AsimError) -> None:
        """Behave as if the launcher could no longer see its jobs."""
        for timer in self._running.values():
            if timer is not None:
                timer.cancel()
        self._lost(error)

    # -- inside

    def _start(self, key: JobKey, outcome: Outcome) -> None:
        if key not in self._running:
            return  # cancelled before it started
        self._sink([(key, JobStatus(JobState.RUNNING, time.time(), pid=key))])
        if outcome.state is not None:
            end = JobStatus(outcome.state, 0.0, outcome.code, usage=Usage(0.0, 0.0, 0))
            self._running[key] = asyncio.get_running_loop().call_later(outcome.after, self._end, key, end)

    def _end(self, key: JobKey, status: JobStatus) -> None:
        if key not in self._running:
            return
        timer = self._running.pop(key)
        if timer is not None:
            timer.cancel()
        self._sink([(key, status._replace(time=time.time()))])
