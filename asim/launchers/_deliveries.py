"""Output that a workload manager puts in its place after the end of a job (PBS), and that it could not.

The end of a job is known from its members' files, before that; so its id is asked about until the answer has its end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import anyio

from ._members import BatchJob
from .base import JobStatus

LOG = logging.getLogger("asim")
FOLLOWED = 120.0
"""Seconds for which a job that still has not ended for its workload manager is asked about."""
CLOSING = 10.0
"""Seconds that the end of an experiment waits for that."""


class Deliveries:
    """The jobs that have ended, and whose output may be on its way.

    :param name: the launcher's.
    :param words: those in a job's reason that tell that its output was not delivered; "": there are none, and no job is
        followed.
    """

    def __init__(self, name: str, words: str) -> None:
        self._name, self._words = name, words
        self._jobs: dict[str, tuple[BatchJob, float]] = {}
        self._news = anyio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def jobs(self) -> list[str]:
        """The ids to be asked about."""
        return list(self._jobs)

    def expect(self, job: BatchJob) -> None:
        """All members of this one have ended."""
        if self._words:
            self._jobs[job.id] = job, anyio.current_time()

    def answer(self, found: Mapping[str, JobStatus], asked: Iterable[str]) -> None:
        """The workload manager's; a job that it does not mention is over, and nothing more can be learnt."""
        now = anyio.current_time()
        for job, since in [self._jobs[name] for name in asked if name in self._jobs]:
            rows = [found[name] for name in (job.id, *job.tasks) if name in found]
            if all(row.state.terminal for row in rows) or now > since + FOLLOWED:
                self._over(job, [row.reason for row in rows if self._words in row.reason])

    def _over(self, job: BatchJob, reasons: list[str]) -> None:
        del self._jobs[job.id]
        if reasons:
            others = f" (and {len(reasons) - 1} of its tasks' besides)" if reasons[1:] else ""
            told = reasons[0][reasons[0].index(self._words) :]
            LOG.warning("%s job %s: %s%s", self._name, job.id, told, others)
        self._news.set()
        self._news = anyio.Event()

    async def done(self) -> None:
        """Wait until all have been told, but no longer than some seconds."""
        with anyio.move_on_after(CLOSING):
            while self._jobs:
                await self._news.wait()
