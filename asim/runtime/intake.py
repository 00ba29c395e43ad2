"""How jobs get to the launcher: written down first, then handed over, a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ..errors import AsimError
from ..launchers.base import JobKey
from ..plan import JobSpec
from ..status import JobState
from .holder import Holder
from .job import Job
from .journal import Diary
from .monitor import Monitor

T = TypeVar("T")
SLICE = 256
"""Jobs dealt with between two chances for other tasks to run."""


class Intake:
    """Takes the jobs of one experiment.

    :param monitor: follows them from then on.
    :param holder: has the launcher.
    :param diary: where they are written down.
    """

    def __init__(self, monitor: Monitor, holder: Holder, diary: Diary) -> None:
        self._monitor, self._holder, self._diary = monitor, holder, diary

    async def accept(self, jobs: Sequence[Job]) -> None:
        """New jobs; those that must wait for others are handed over later.

        :raises AsimError: one was refused; the others are stopped.
        """
        await self._write_down((JobKey(job.key), job.spec, job.attempt) for job in jobs)
        self._monitor.register(jobs)
        try:
            together: list[Job] = []  # a batch job, or an array, must have all its members in one submit
            for part in slices(jobs):
                free = self._monitor.admit(part)
                together += [job for job in free if job.spec.batch is not None]
                await self._hand_over([job for job in free if job.spec.batch is None])
            await self._hand_over(together)
        except Exception as exc:  # nobody gets the handles: what was accepted is stopped
            self._monitor.refused([job for job in jobs if job.status is JobState.NEW], str(exc))
            await self._monitor.stop(jobs)
            raise

    async def submit(self, jobs: Sequence[Job]) -> None:
        """Jobs that waited (for others, or after a failure) and may go now."""
        try:
            again = [(JobKey(job.key), job.spec, job.attempt) for job in jobs if job.attempt > 1]
            if again:
                await self._write_down(again)
            await self._hand_over([job for job in jobs if not job.status.terminal])
        except AsimError as exc:
            if self._monitor.closing:
                await self._monitor.stop(jobs, "the experiment ended")
            else:
                self._monitor.refused(jobs, f"could not be submitted: {exc}")

    async def _write_down(self, jobs: Iterable[tuple[JobKey, JobSpec, int]]) -> None:
        await self._diary.started(await self._holder.opened(), jobs)

    async def _hand_over(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        launcher = await self._holder.opened()
        jobs = [job for job in jobs if not job.status.terminal]  # they may have been stopped meanwhile
        self._monitor.submitted(jobs)
        try:
            await launcher.submit([(JobKey(job.key), job.spec) for job in jobs])
            if late := [JobKey(job.key) for job in jobs if job._unwanted]:  # the stop may have overtaken them
                await launcher.cancel(late, self._holder.grace)
        except AsimError as exc:
            self._monitor.refused(jobs, f"could not be submitted: {exc}")
            raise


def slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few at a time, so that the loop is never held up for long."""
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
