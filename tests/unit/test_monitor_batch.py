"""Evidence of schedulers as the monitor takes it: times and places that nobody knows, reasons for waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from asim.launchers.base import JobKey, JobStatus
from asim.runtime.job import Job
from asim.runtime.monitor import Monitor
from asim.status import JobState

from .makers import model, planned

ONE = JobKey(1)


async def nothing(what: Sequence[Any]) -> None:
    """Does nothing."""


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
    """Starts nothing."""


@pytest.fixture
def world() -> tuple[Monitor, Job]:
    """A job that a launcher has."""
    monitor = Monitor(nothing, spawn, nothing)
    job = Job(planned(model()).jobs[0], ONE, SimpleNamespace(host="login"))  # type: ignore[arg-type]
    monitor.register([job])
    monitor.submitted(monitor.admit([job]))
    return monitor, job


def test_reasons_for_waiting(world: tuple[Monitor, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a job waits is told when it changes, not with every answer; it goes when the job runs."""
    monitor, job = world
    told: list[str] = []
    monkeypatch.setattr(monitor.hub, "publish", lambda job, previous, at, words: told.append(words))
    for reason in ("Resources", "Resources", "Priority", "", "Priority"):
        monitor.evidence([(ONE, JobStatus(JobState.PENDING, 0.0, reason=reason))])
    assert (told, job.reason, job.status) == (["Resources", "Priority"], "Priority", JobState.PENDING)
    monitor.evidence([(ONE, JobStatus(JobState.RUNNING, 5.0))] * 2)
    assert (told, job.reason) == (["Resources", "Priority", ""], "")


def test_times_that_nobody_knows(world: tuple[Monitor, Job]) -> None:
    """Where the scheduler has no time, it is that of the news."""
    monitor, job = world
    before = time.time()
    monitor.evidence([(ONE, JobStatus(JobState.RUNNING, 0.0))])
    monitor.evidence([(ONE, JobStatus(JobState.LOST, 0.0, reason="gone"))])
    assert job.started_at is not None and job.ended_at is not None
    assert before <= job.started_at.timestamp() <= job.ended_at.timestamp() <= time.time()


def test_where_a_member_runs(world: tuple[Monitor, Job]) -> None:
    """A member's own word about its start is taken, also when the scheduler's was earlier; the last word is the end's."""
    monitor, job = world
    assert job.host == "login"
    monitor.evidence([(ONE, JobStatus(JobState.RUNNING, 5.0))])
    monitor.evidence([(ONE, JobStatus(JobState.RUNNING, 6.0, pid=4711, host="node7"))])
    monitor.evidence([(ONE, JobStatus(JobState.RUNNING, 5.0)), (ONE, JobStatus(JobState.PENDING, 0.0, reason="x"))])
    assert (job.host, job.pid, job.status, job.reason) == ("node7", 4711, JobState.RUNNING, "")
    assert job.started_at is not None and job.started_at.timestamp() == 6.0
    monitor.evidence([(ONE, JobStatus(JobState.COMPLETED, 7.0, 0))])
    monitor.evidence([(ONE, JobStatus(JobState.RUNNING, 8.0, pid=1))])
    assert (job.status, job.host, job.pid) == (JobState.COMPLETED, "node7", 4711)
