"""Output that a workload manager puts in place after the end of a job: until when it is asked, and what is told."""

from __future__ import annotations

import anyio
import pytest

from asim.launchers import _deliveries
from asim.launchers._deliveries import FOLLOWED, Deliveries
from asim.launchers._members import BatchJob, Member
from asim.launchers.base import JobKey, JobStatus
from asim.status import JobState

WORDS = "Not delivered"
EXITING = JobStatus(JobState.RUNNING, 0.0, reason="exiting")
DONE = JobStatus(JobState.COMPLETED, 0.0, 0)
LOST = JobStatus(JobState.FAILED, 0.0, 3, f"code 3; {WORDS}: to /x")


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time."""
    found = [1000.0]
    monkeypatch.setattr(anyio, "current_time", lambda: found[0])
    return found


def job(*tasks: str) -> BatchJob:
    """One whose members have all ended."""
    return BatchJob("12", {}, {task: Member(JobKey(1), "12", True) for task in tasks})


def following(*tasks: str) -> Deliveries:
    """What is expected of that."""
    deliveries = Deliveries("fake", WORDS)
    deliveries.expect(job(*tasks))
    return deliveries


def test_not_delivered(caplog: pytest.LogCaptureFixture) -> None:
    """It is asked for until the workload manager says that the job has ended, and told once."""
    deliveries = following()
    deliveries.answer({"12": EXITING}, ["12"])
    assert (deliveries.jobs(), caplog.messages) == (["12"], [])
    deliveries.answer({"12": LOST}, ["12"])
    deliveries.answer({"12": LOST}, ["12"])
    assert (deliveries.jobs(), caplog.messages) == ([], [f"fake job 12: {WORDS}: to /x"])


@pytest.mark.parametrize("found", [{"12": DONE}, {}])
def test_delivered_or_forgotten(found: dict[str, JobStatus], caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is told of what went well, nor of what the workload manager does not know any more."""
    deliveries = following()
    deliveries.answer(found, ["12"])
    assert (len(deliveries), caplog.messages) == (0, [])


def test_an_answer_that_is_about_others() -> None:
    """That an answer does not mention a job proves nothing when it was not asked about it, or is not whole."""
    deliveries = following()
    deliveries.answer({"13": DONE}, ["13"])
    assert deliveries.jobs() == ["12"]


def test_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """Of an array all tasks are waited for, and it is told in one line how many."""
    deliveries = following("12_0", "12_1", "12_2")
    deliveries.answer({"12_0": LOST, "12_1": EXITING}, ["12"])
    assert caplog.messages == []
    deliveries.answer({"12_0": LOST, "12_1": LOST, "12_2": DONE}, ["12"])
    assert caplog.messages == [f"fake job 12: {WORDS}: to /x (and 1 of its tasks' besides)"]


def test_a_job_that_never_ends(now: list[float]) -> None:
    """It is not asked about for ever."""
    deliveries = following()
    now[0] += FOLLOWED + 1
    deliveries.answer({"12": EXITING}, ["12"])
    assert deliveries.jobs() == []


def test_where_nothing_of_the_kind_is_told() -> None:
    """No job is followed."""
    deliveries = Deliveries("fake", "")
    deliveries.expect(job())
    assert deliveries.jobs() == []


@pytest.mark.anyio
async def test_waiting_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is woken by the last answer, at once where there is nothing to wait for, and after some time anyway."""
    monkeypatch.undo()  # the real clock
    with anyio.fail_after(10):
        await Deliveries("fake", WORDS).done()
        deliveries = following()
        async with anyio.create_task_group() as group:
            group.start_soon(deliveries.done)
            await anyio.lowlevel.checkpoint()
            deliveries.answer({"12": DONE}, ["12"])
        monkeypatch.setattr(_deliveries, "CLOSING", 0.01)
        deliveries = following()
        await deliveries.done()
        assert len(deliveries) == 1
