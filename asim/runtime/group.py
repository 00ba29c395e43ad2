"""Handles to many jobs at once."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from datetime import datetime
from typing import Any

import anyio

from ..entities import Ensemble, Entity, Model
from ..errors import AgentError
from ..status import JobState, combined
from .events import BUFFER, EventStream
from .job import Control, Job, failure


class JobGroup(Sequence[Job]):
    """The jobs of one ``start``. Awaiting it waits for the end of all and gives it back."""

    def __init__(self, jobs: Sequence[Job], control: Control, *, fail_fast: bool = False) -> None:
        self.jobs = list(jobs)
        self.fail_fast = fail_fast
        self._control = control
        self._finished: list[Job] = [job for job in self.jobs if job.status.terminal]
        self._news: anyio.Event | None = None
        self._names: dict[str, Job] | None = None
        self._streams: list[EventStream] = []
        # a fail-fast group must do its work though nobody holds it; any other is of use only to who does
        me: Callable[[], JobGroup | None] = (lambda: self) if fail_fast else weakref.ref(self)
        for job in self.jobs:
            if not job.status.terminal:
                job._groups = (*[group for group in job._groups if group() is not None], me)

    # -- as a sequence

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __getitem__(self, key: Any) -> Any:
        """A job by its number, its name, or its model; a group by a slice or an ensemble."""
        if isinstance(key, slice):
            return JobGroup(self.jobs[key], self._control)
        if isinstance(key, Ensemble):
            return JobGroup([job for job in self.jobs if job.spec.ensemble is key], self._control)
        if isinstance(key, (str, Model)):
            if self._names is None:
                self._names = {job.name: job for job in self.jobs}
            return self._names[key if isinstance(key, str) else key.name]
        return self.jobs[key]

    # -- what it is

    @property
    def status(self) -> JobState:
        """While any runs, RUNNING; when all ended, the most alarming of their states."""
        return combined([job.status for job in self.jobs])

    @property
    def returncode(self) -> int | None:
        """0 when all COMPLETED; else the first exit code that is not 0, if there is one."""
        if self.status is JobState.COMPLETED:
            return 0
        return next((job.returncode for job in self.jobs if job.returncode), None)

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return len(self._finished) == len(self.jobs)

    @property
    def failed(self) -> list[Job]:
        """Those that ended in another state than COMPLETED."""
        return [job for job in self._finished if job.status is not JobState.COMPLETED]

    @property
    def started_at(self) -> datetime | None:
        """When the first started."""
        return min((job.started_at for job in self.jobs if job.started_at), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """When the last ended, once all have."""
        return max((job.ended_at for job in self.jobs if job.ended_at), default=None) if self.done else None

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per job, ready for ``pandas.DataFrame`` or ``polars.DataFrame``."""
        return [job.record() for job in self.jobs]

    # -- waiting and stopping

    async def wait(self, timeout: float | None = None) -> JobGroup:
        """Wait until all have ended.

        :param timeout: seconds; the jobs go on when it is over.
        :raises TimeoutError: they have not all ended by then.
        Cancellation: only the waiting ends.
        """
        with anyio.fail_after(timeout):
            while not self.done:
                await self._another()
        return self

    def __await__(self) -> Generator[Any, None, JobGroup]:
        return self.wait().__await__()

    async def as_completed(self) -> AsyncIterator[Job]:
        """The jobs in the order in which they end, those that have ended already first."""
        position = 0
        while position < len(self.jobs):
            while position == len(self._finished):
                await self._another()
            ready = self._finished[position:]
            position += len(ready)
            for job in ready:
                yield job

    async def _another(self) -> None:
        if self._control.detached:
            raise AgentError("jobs of this group were left running when their experiment ended")
        if self._news is None:
            self._news = anyio.Event()
        await self._news.wait()

    def events(self, buffer: int = BUFFER) -> EventStream:
        """The state changes of these jobs from now on; ends when all have ended. See ``Experiment.events``."""
        mine = set(self.jobs)
        stream = self._control.stream(mine.__contains__, buffer)
        if self.done:
            stream.end()
        else:
            self._streams = [*[other for other in self._streams if not other.ended], stream]
        return stream

    async def cancel(self) -> None:
        """Stop all that still run or wait, and wait until they are gone. See :meth:`Job.cancel`."""
        await self._control.cancel(self.jobs)

    def check(self) -> JobGroup:
        """Itself, if all COMPLETED.

        :raises JobFailed: some ended otherwise.
        """
        if self.failed:
            raise failure(self.failed)
        return self

    def __repr__(self) -> str:
        return f"<JobGroup of {len(self.jobs)} {self.status}>"

    # -- for the monitor

    def _job_ended(self, job: Job) -> None:
        self._finished.append(job)
        self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    def _end_streams(self) -> None:
        for stream in self._streams:
            stream.end()

    def of(self, entity: Entity) -> JobGroup:
        """The jobs of one model or ensemble among these, as a group."""
        found = self[entity]
        return found if isinstance(found, JobGroup) else JobGroup([found], self._control)


def fail_fast_ensembles(jobs: Sequence[Job], control: Control) -> None:
    """The members of each ensemble that wants it end when one of them fails."""
    scopes: dict[Ensemble, list[Job]] = {}
    for job in jobs:
        if job.spec.ensemble is not None and job.spec.ensemble.fail_fast:
            scopes.setdefault(job.spec.ensemble, []).append(job)
    for its_jobs in scopes.values():
        JobGroup(its_jobs, control, fail_fast=True)
