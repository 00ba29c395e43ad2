"""The pass up: evidence becomes job states; retries, dependencies and fail-fast follow from them.

Everything here happens in callbacks, in the loop, without awaiting; what has to be awaited is started in the owner's
task group.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import anyio

from ..entities import Model
from ..launchers.base import JobKey, JobStatus
from ..status import JobState
from .events import EventHub
from .gates import Gates
from .job import Job

LOG = logging.getLogger("asim")


class Monitor:
    """The states of all jobs of one experiment.

    :param submit: hands jobs to the launcher; it reports failures through :meth:`refused`.
    :param spawn: starts an owned task.
    :param cancel: asks the launcher to stop attempts.
    """

    def __init__(
        self,
        submit: Callable[[Sequence[Job]], Coroutine[Any, Any, None]],
        spawn: Callable[..., None],
        cancel: Callable[[Sequence[JobKey]], Coroutine[Any, Any, None]],
    ) -> None:
        self.hub = EventHub()
        self.jobs: list[Job] = []
        self.latest: dict[Model, Job] = {}
        self.busy: set[str] = set()  # names of jobs that have not ended, or are about to be registered
        self.decided: list[tuple[JobKey, JobStatus]] = []  # ends that the launcher has not seen
        self.closing = False
        self._submit, self._spawn, self._cancel = submit, spawn, cancel
        self._keys = itertools.count(1)
        self._live: dict[JobKey, Job] = {}  # attempts that the launcher has
        self._gates = Gates(self.latest)  # jobs that wait for others
        self._backing_off: dict[Job, anyio.CancelScope] = {}
        self._idle: anyio.Event | None = None
        self._open = 0

    # -- coming in

    def new_key(self) -> JobKey:
        return JobKey(next(self._keys))

    def register(self, jobs: Sequence[Job]) -> None:
        """Take note of all jobs of one start, so that they can be looked up and waited for."""
        self._open += len(jobs)
        self.jobs += jobs
        self.busy.update(job.name for job in jobs)
        self.latest.update((model, job) for job in jobs for model in (job.model, *job.spec.together))

    def admit(self, jobs: Sequence[Job]) -> list[Job]:
        """These are accepted now; returns those that can be submitted at once. The others follow when they may."""
        now = time.time()
        self._gates.share_no_more()
        for job in jobs:
            if job.status.terminal:
                continue  # a failure of an earlier one has cancelled it already
            if waits := job.spec.waits:
                self._gates.hold(job, waits)
            self._move(job, JobStatus(JobState.PENDING, now))
        free = [job for job in jobs if job not in self._gates.held and not job.status.terminal]
        self._settle()
        return [job for job in free if not job.status.terminal]

    def submitted(self, jobs: Iterable[Job]) -> None:
        """These are about to be handed to the launcher."""
        for job in jobs:
            self._live[JobKey(job.key)] = job

    def refused(self, jobs: Iterable[Job], reason: str) -> None:
        """The launcher did not take these."""
        now = time.time()
        for job in jobs:
            self._live.pop(JobKey(job.key), None)
            self._gates.drop(job)
            self._end(job, JobStatus(JobState.FAILED, now, reason=reason))
        self._settle()

    # -- evidence

    def evidence(self, news: Sequence[tuple[JobKey, JobStatus]]) -> None:
        """What the launcher saw."""
        for key, status in news:
            job = self._live.get(key)
            if job is None:
                continue  # late news of an attempt that is over
            if not status.time:  # nobody knows when it happened
                status = status._replace(time=time.time())
            if not status.state.terminal:
                self._move(job, status)
                if status.pid is not None and job.pid is None and status.state is job.status:
                    job._apply(status)  # the job's own word, after the scheduler's
                if status.reason and status.reason != job.reason and status.state is job.status:
                    self.announce(job, status.reason)
            else:
                del self._live[key]
                self._attempt_ended(job, status)
        self._settle()

    def lost(self, jobs: Iterable[Job], reason: str) -> None:
        """Nobody can say any more how these end."""
        now = time.time()
        for job in jobs:
            self._live.pop(JobKey(job.key), None)
            self._end(job, JobStatus(JobState.LOST, now, reason=reason))
        self._settle()

    def _attempt_ended(self, job: Job, status: JobStatus) -> None:
        retry = job.spec.retries
        again = False
        if status.state is JobState.FAILED and retry and not (self.closing or job._unwanted or job.status.terminal):
            try:
                again = retry.wanted(job.attempt, status.code)
            except Exception:
                LOG.exception("%s: retries: when", job.name)
        if retry and again:
            delay = retry.delay(job.attempt)
            LOG.info("%s: %s; attempt %d follows in %g s", job.name, status.reason, job.attempt + 1, delay)
            self._retry(job, status, delay)
        else:
            self._end(job, status, seen=True)

    def _retry(self, job: Job, status: JobStatus, delay: float) -> None:
        previous, job.status = job.status, JobState.PENDING
        job.attempt += 1
        job.key, job.reason, job.usage, job.returncode = self.new_key(), status.reason, status.usage, status.code
        self.hub.publish(job, previous, status.time, status.reason)
        scope = self._backing_off[job] = anyio.CancelScope()

        async def later() -> None:
            with scope:
                await anyio.sleep(delay)
            if self._backing_off.pop(job, None) is not None:
                self._gates.ready.append(job)
                self._settle()

        self._spawn(later)

    def _end(self, job: Job, status: JobStatus, *, seen: bool = False) -> None:
        if not status.state.follows(job.status):
            return
        if not seen:
            self.decided.append((JobKey(job.key), status))
        self._move(job, status)
        self._open -= 1
        self.busy.discard(job.name)
        if status.state not in (JobState.COMPLETED, JobState.CANCELLED):
            LOG.warning(
                "%s: %s%s; see %s", job.name, status.state, status.reason and f", {status.reason}", job.spec.stderr
            )
        if not self._open and self._idle is not None:
            self._idle.set()
            self._idle = None

    def _move(self, job: Job, status: JobStatus) -> None:
        previous = job.status
        if not status.state.follows(previous):
            return
        job._apply(status)
        self.hub.publish(job, previous, status.time, status.reason)
        self._gates.moved(job)
        if status.state.terminal:
            groups, job._groups = job.groups(), ()
            for group in groups:
                if group.done:
                    group._end_streams()
                elif group.fail_fast and status.state in (JobState.FAILED, JobState.TIMEOUT, JobState.LOST):
                    self._spawn(self.stop, list(group.jobs), f"{job.name} {status.state} and its group is fail-fast")

    def announce(self, job: Job, words: str) -> None:
        """Something to know about a job that still runs."""
        job.reason = words
        self.hub.publish(job, job.status, time.time(), words)

    def _settle(self) -> None:
        """Act on what the last evidence made possible or impossible. (A list, not a recursion: chains may be long.)"""
        gates = self._gates
        while gates.doomed:
            job = gates.doomed.pop()
            reason = gates.drop(job)
            if reason is not None:
                self._end(job, JobStatus(JobState.CANCELLED, time.time(), reason=reason))
        if gates.ready:
            ready, gates.ready = gates.ready, []
            self._spawn(self._submit, [job for job in ready if not job.status.terminal])

    # -- stopping and waiting

    async def stop(self, jobs: Sequence[Job], reason: str = "stopped before it started") -> None:
        """Stop these jobs wherever they stand, and wait until they are gone."""
        now = time.time()
        keys = []
        for job in jobs:
            job._unwanted = True
            if JobKey(job.key) in self._live:
                keys.append(JobKey(job.key))
            elif not job.status.terminal:
                self._forget(job)
                self._end(job, JobStatus(JobState.CANCELLED, now, reason=reason))
        if keys:
            await self._cancel(keys)
        self._settle()
        for job in jobs:
            await job.wait()

    def _forget(self, job: Job) -> None:
        self._gates.drop(job)
        scope = self._backing_off.pop(job, None)
        if scope is not None:
            scope.cancel()

    def close(self) -> None:
        """From now on nothing new is started; what waits is cancelled."""
        self.closing = True
        for job in [*self._gates.held, *self._backing_off, *self._gates.ready]:
            self._forget(job)
            self._end(job, JobStatus(JobState.CANCELLED, time.time(), reason="the experiment ended"))
        self._gates.ready.clear()

    def release(self) -> None:
        """The jobs that still run are on their own from now on: whoever waits for one is told so."""
        for job in self.live:
            job._release()

    async def work_done(self) -> None:
        """Wait until every job that is no database has ended."""
        while work := [job for job in self.unfinished if not job.is_database]:
            await work[0].wait()

    async def idle(self) -> None:
        """Wait until every job has ended."""
        while self._open:
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    def forget(self, models: Iterable[Model]) -> None:
        """Remember nothing of the jobs of these models that have ended."""
        gone = {model for model in models if model in self.latest and self.latest[model].status.terminal}
        self.jobs = [job for job in self.jobs if job.model not in gone]
        for model in gone:
            del self.latest[model]

    def has(self, keys: Iterable[JobKey]) -> bool:
        """Whether the launcher still has one of these."""
        return any(key in self._live for key in keys)

    @property
    def work(self) -> list[Job]:
        """The latest job of every model that is no shard of a database."""
        return [job for job in self.latest.values() if not job.is_database]

    @property
    def unfinished(self) -> list[Job]:
        """The jobs that have not ended."""
        return [job for job in self.jobs if not job.status.terminal]

    @property
    def live(self) -> list[Job]:
        """The jobs that the launcher has."""
        return list(self._live.values())
