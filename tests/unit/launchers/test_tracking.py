"""What follows from the evidence about batch jobs: files of members, the scheduler's word, and the passing of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.launchers.base import JobKey, JobStatus
from asim.launchers.tracking import HELD, JUDGE, SETTLE, Evidence, Tracker
from asim.status import JobState

PENDING, RUNNING = JobStatus(JobState.PENDING, 0.0, reason="Priority"), JobStatus(JobState.RUNNING, 50.0)
COMPLETED = JobStatus(JobState.COMPLETED, 90.0, 0)
FAILED = JobStatus(JobState.FAILED, 90.0, 3, "FAILED: exit code 3")
NODE_FAIL = JobStatus(JobState.FAILED, 90.0, None, "NODE_FAIL: a node was lost")
OUT_OF_MEMORY = JobStatus(JobState.FAILED, 90.0, -125, "OUT_OF_MEMORY: it used more memory than it was given")
TIMEOUT = JobStatus(JobState.TIMEOUT, 90.0, None, "TIMEOUT: it reached its time limit")
CANCELLED = JobStatus(JobState.CANCELLED, 90.0, None, "CANCELLED: somebody cancelled it")
LOST_AFTER = 100.0
ONE, TWO, THREE = map(JobKey, (1, 2, 3))


def start(key: int, run: int = 0) -> tuple[str, str]:
    """The file of a member that started."""
    return f"{key}.{run}.start", "60.5 node7 4711\n"


def end(key: int, code: int, run: int = 0, words: str = "") -> tuple[str, str]:
    """The file of a member that ended."""
    return f"{key}.{run}.end", f"{code} 70.25 {words}\n"


class World:
    """A tracker, its time, and all that it said."""

    def __init__(self) -> None:
        self.now, self.said = 1000.0, Evidence()
        self.tracker = Tracker(LOST_AFTER)

    def job(self, *keys: JobKey, name: str = "12") -> World:
        """A job of one member, or of several at the same time."""
        self.said += self.tracker.add(name, keys, (), self.now)
        return self

    def array(self, *keys: JobKey, name: str = "12") -> World:
        """A job with a task for each."""
        self.said += self.tracker.add(name, keys, [f"{name}_{number}" for number in range(len(keys))], self.now)
        return self

    def files(self, *files: tuple[str, str]) -> World:
        """Members tell."""
        self.said += self.tracker.files(files, self.now)
        return self

    def answer(
        self, found: Mapping[str, JobStatus], asked: Sequence[str] | None = None, final: bool = False, took: float = 0.0
    ) -> World:
        """The scheduler tells, or its accounts; it was asked some seconds ago."""
        about = self.tracker.jobs() if asked is None else asked
        self.said += self.tracker.statuses(found, about, self.now - took, self.now, final)
        return self

    def tick(self, seconds: float = 0.0) -> World:
        """Time passes."""
        self.now += seconds
        self.said += self.tracker.settle(self.now)
        return self

    def judged(self) -> World:
        """The accounting is asked about everything that is in doubt, and knows nothing."""
        self.tracker.judged(self.tracker.doubtful(self.now))
        return self.tick()

    def settled(self) -> World:
        """The time for stragglers passes, and the accounting is asked."""
        return self.tick(SETTLE + 0.1).judged()

    def ends(self) -> dict[JobKey, JobStatus]:
        """The ends that were said; each member's once."""
        found = [(key, status) for key, status in self.said if status.state.terminal]
        assert len(dict(found)) == len(found)
        return dict(found)

    def end_of(self, key: JobKey = ONE) -> JobStatus | None:
        """How this one ended."""
        return self.ends().get(key)


@pytest.fixture
def world() -> World:
    """Nothing has happened."""
    return World()


# -- what members say


def test_a_member_starts(world: World) -> None:
    """Its file says when, where and as which process."""
    world.job(ONE).files(start(1))
    assert world.said == [(ONE, JobStatus(JobState.RUNNING, 60.5, pid=4711, host="node7"))]


@pytest.mark.parametrize(
    ("file", "status"),
    [
        (end(1, 0), JobStatus(JobState.COMPLETED, 70.25, 0)),
        (end(1, 1), JobStatus(JobState.FAILED, 70.25, 1, "exit code 1")),
        (end(1, 128), JobStatus(JobState.FAILED, 70.25, 128, "exit code 128")),
        (end(1, 193), JobStatus(JobState.FAILED, 70.25, 193, "exit code 193")),
        (end(1, 255), JobStatus(JobState.FAILED, 70.25, 255, "exit code 255")),
        (end(1, 255, words="time limit"), JobStatus(JobState.TIMEOUT, 70.25, 255, "stopped at its time limit")),
        (end(1, 143, words="time limit"), JobStatus(JobState.TIMEOUT, 70.25, -15, "stopped at its time limit")),
        (end(1, 137, words="time limit"), JobStatus(JobState.TIMEOUT, 70.25, -9, "stopped at its time limit")),
        (end(1, 0, words="time limit"), JobStatus(JobState.TIMEOUT, 70.25, 0, "stopped at its time limit")),
        (end(1, 3, words="time limit"), JobStatus(JobState.TIMEOUT, 70.25, 3, "stopped at its time limit")),
        (end(1, 126, words="cannot write  x"), JobStatus(JobState.FAILED, 70.25, None, "cannot write  x")),
        (("1.0.end", "0 70\n"), JobStatus(JobState.COMPLETED, 70.0, 0)),
        (("1.0.end", "0 70.%N\n"), JobStatus(JobState.COMPLETED, 70.0, 0)),
        (("1.0.end", "0 x\n"), JobStatus(JobState.COMPLETED, 0.0, 0)),
    ],
)
def test_a_member_ends_by_itself(file: tuple[str, str], status: JobStatus, world: World) -> None:
    """Its own word is believed at once, whether its start was seen or not."""
    world.job(ONE).files(file)
    assert world.said == [(ONE, status)]
    assert (len(world.tracker), world.tracker.jobs()) == (0, [])


def test_start_and_end_together(world: World) -> None:
    """Files of one look come in any order; a start is said before its end."""
    world.job(ONE, TWO).files(end(1, 0), end(2, 1), start(2), start(1))
    assert [(key, status.state.value) for key, status in world.said] == [
        (TWO, "RUNNING"), (ONE, "RUNNING"), (ONE, "COMPLETED"), (TWO, "FAILED"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [("9.0.end", "0 1\n"), ("x.0.end", "0 1\n"), ("1.x.end", "0 1\n"), ("1.0.other", "0 1\n"), ("1", ""), ("", ""),
     ("1.0.end", ""), ("1.0.end", "x y\n"), ("1.0.end", "-3 1\n"), ("t.1", "")],
)  # fmt: skip
def test_what_is_no_members_word(file: tuple[str, str], world: World) -> None:
    """Files of strangers, of members that are not ours, and such that make no sense prove nothing."""
    world.job(ONE).files(file)
    assert world.said == []
    assert world.tracker.keys == [ONE]


def test_odd_start_files(world: World) -> None:
    """A start file that was cut off is a start nevertheless."""
    world.job(ONE).files(("1.0.start", ""))
    assert world.said == [(ONE, JobStatus(JobState.RUNNING, 0.0))]


def test_members_that_tell_before_the_scheduler(world: World) -> None:
    """What is told between the submit and its answer is kept until the job is known; of refused ones it is dropped."""
    world.tracker.expect([ONE, TWO, THREE])
    world.files(start(1), end(1, 5), start(3))
    world.tracker.forget([THREE])
    assert world.said == []
    world.job(ONE, TWO)
    assert [status.state for _, status in world.said] == [JobState.RUNNING, JobState.FAILED]
    world.job(THREE, name="13")
    assert len(world.said) == 2


# -- killed members wait for the scheduler's word


def test_a_killed_member_is_held_back(world: World) -> None:
    """That a member was killed is no news until the scheduler could say why."""
    world.job(ONE).files(start(1), end(1, 137)).tick(SETTLE).answer({"12": RUNNING}).tick(1)
    assert world.ends() == {}


def test_the_last_signal(world: World) -> None:
    """Signals go up to 64, so that is what an exit code of 192 is: held back, and told as that signal."""
    world.job(ONE).files(start(1), end(1, 192))
    assert world.ends() == {}
    world.answer({"12": FAILED}).judged()
    assert world.end_of() == JobStatus(JobState.FAILED, 70.25, -64, "killed by SIGRTMAX")


def test_an_exit_code_that_is_no_signal_is_not_run_again(world: World) -> None:
    """A member that ended with 255 ended by itself, also when its job is put back into the queue."""
    world.job(ONE, TWO).files(start(1), start(2)).tick(60).answer({"12": PENDING}).files(end(1, 255), end(2, 137))
    assert world.ends() == {ONE: JobStatus(JobState.FAILED, 70.25, 255, "exit code 255")}


@pytest.mark.parametrize("file_first", [True, False])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (TIMEOUT, TIMEOUT._replace(code=-15)),
        (NODE_FAIL, NODE_FAIL._replace(code=-15)),
        (CANCELLED, CANCELLED._replace(code=-15)),
        (OUT_OF_MEMORY, OUT_OF_MEMORY),
        (FAILED, JobStatus(JobState.FAILED, 70.25, -15, "killed by SIGTERM")),
        (FAILED._replace(code=-15), JobStatus(JobState.FAILED, 70.25, -15, "killed by SIGTERM")),
        (COMPLETED, JobStatus(JobState.FAILED, 70.25, -15, "killed by SIGTERM")),
    ],
)
def test_why_a_member_was_killed(
    verdict: JobStatus, status: JobStatus, alone: bool, file_first: bool, world: World
) -> None:
    """The scheduler's reason and the member's own code; where the scheduler has none of its own, the member's words."""
    world.job(*([ONE] if alone else [ONE, TWO]))
    if file_first:
        world.files(start(1), end(1, 143)).answer({"12": verdict})
    else:
        world.files(start(1)).answer({"12": verdict}).files(end(1, 143))
    if verdict.state is JobState.FAILED:
        assert world.ends() == {}, "the accounting is to be asked, whichever of the two came first"
    assert world.judged().end_of() == status


def test_killed_in_a_job_that_goes_on(world: World) -> None:
    """A member that was killed has failed when its job goes on; but only an answer that is newer than it proves that."""
    world.job(ONE, TWO).answer({"12": RUNNING}).files(end(1, 139)).tick(HELD + 1)
    assert world.ends() == {}
    world.answer({"12": RUNNING}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.FAILED, 70.25, -11, "killed by SIGSEGV")}
    assert world.tracker.keys == [TWO]


def test_killed_and_going_on_is_not_said_early(world: World) -> None:
    """Before that time it is not said, even with a new answer."""
    world.job(ONE, TWO).files(end(1, 139)).tick(HELD - 1).answer({"12": RUNNING}).tick()
    assert world.ends() == {}


# -- the scheduler's word


def test_waiting_and_running(world: World) -> None:
    """What is not the end is passed on, to all members of the job."""
    world.job(ONE, TWO).answer({"12": PENDING}).answer({"12": RUNNING})
    assert world.said == [(ONE, PENDING), (TWO, PENDING), (ONE, RUNNING), (TWO, RUNNING)]


@pytest.mark.parametrize("verdict", [COMPLETED, TIMEOUT])
def test_a_verdict_that_says_all(verdict: JobStatus, world: World) -> None:
    """After the files' time it is believed; there is nothing that the accounting could add."""
    world.job(ONE).answer({"12": verdict}).tick(SETTLE - 0.1)
    assert world.ends() == {}
    world.tick(0.2)
    assert (world.ends(), world.tracker.doubtful(world.now)) == ({ONE: verdict}, [])


def test_an_end_before_any_start_is_taken_back(world: World) -> None:
    """A job that is in the queue again after its end (requeued) has not ended."""
    world.job(ONE).answer({"12": NODE_FAIL}).answer({"12": PENDING}).settled()
    assert world.ends() == {}


@pytest.mark.parametrize("verdict", [FAILED, NODE_FAIL, OUT_OF_MEMORY])
def test_a_verdict_without_files(verdict: JobStatus, world: World) -> None:
    """A job of one member without files ended as the scheduler says, after the files' time and the accounting."""
    world.job(ONE).answer({"12": verdict}).tick(SETTLE - 0.1)
    assert (world.ends(), world.tracker.doubtful(world.now)) == ({}, [])
    world.tick(0.2)
    assert (world.ends(), world.tracker.doubtful(world.now)) == ({}, ["12"])
    world.judged()
    assert world.ends() == {ONE: verdict}


def test_cancelled_in_the_queue(world: World) -> None:
    """Nothing is waited for when a job was cancelled that had not begun; else its files are."""
    world.job(ONE).job(TWO, name="13").files(start(2)).answer({"12": CANCELLED, "13": CANCELLED}).tick(0)
    assert world.ends() == {ONE: CANCELLED}


def test_files_after_the_verdict(world: World) -> None:
    """The member's own word is stronger, and in time."""
    world.job(ONE).answer({"12": NODE_FAIL}).tick(1).files(end(1, 0)).settled()
    assert world.ends() == {ONE: JobStatus(JobState.COMPLETED, 70.25, 0)}


def test_the_accounting_is_the_judge(world: World) -> None:
    """What it says replaces the queue's word, and nothing is waited for that it has judged."""
    world.job(ONE).answer({"12": FAILED}).tick(SETTLE + 0.1).answer({"12": OUT_OF_MEMORY}, final=True).tick()
    assert world.ends() == {ONE: OUT_OF_MEMORY}


def test_accounting_that_lags_behind(world: World) -> None:
    """An accounting that has not heard of the end, or of the start, does not undo the queue's word."""
    for stale in (RUNNING, PENDING):
        one = World().job(ONE).files(start(1)).tick(60).answer({"12": FAILED}).tick(SETTLE + 0.1)
        one.answer({"12": stale}, final=True).judged()
        assert one.ends() == {ONE: FAILED}


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (COMPLETED, COMPLETED),
        (TIMEOUT, TIMEOUT),
        (NODE_FAIL, NODE_FAIL),
        (CANCELLED, CANCELLED),
        (
            FAILED,
            JobStatus(
                JobState.LOST, 90.0, None, "its batch job ended with exit code 3, and nothing tells how this member did"
            ),
        ),
    ],
)
def test_a_verdict_about_several_members(verdict: JobStatus, status: JobStatus, world: World) -> None:
    """Of members that told nothing the job's end is theirs; but that one of them failed does not say which."""
    world.job(ONE, TWO, THREE).files(end(2, 4)).answer({"12": verdict}).settled()
    assert world.ends() == {ONE: status, TWO: JobStatus(JobState.FAILED, 70.25, 4, "exit code 4"), THREE: status}


# -- arrays


def test_tasks_have_their_own_rows(world: World) -> None:
    """Each task's row is about its member; the array's own about those without."""
    world.array(ONE, TWO, THREE).answer({"12_0": RUNNING, "12_1": FAILED, "12": PENDING}).settled()
    assert world.ends() == {TWO: FAILED}
    assert [(key, status) for key, status in world.said if key != TWO] == [(ONE, RUNNING), (THREE, PENDING)]


def test_an_arrays_row_is_not_about_tasks_that_began(world: World) -> None:
    """A task whose own row is gone is not waiting because the others are."""
    world.array(ONE, TWO).files(start(1)).tick(60).answer({"12": PENDING, "12_1": PENDING})
    world.files(end(1, 137)).answer({"12_0": TIMEOUT, "12_1": PENDING}).judged()
    assert [status for key, status in world.said if key == ONE and status == PENDING] == []
    assert world.ends() == {ONE: TIMEOUT._replace(code=-9)}


def test_an_arrays_end_is_everybodys(world: World) -> None:
    """Where only the array has a row, its end is that of all tasks that did not tell theirs."""
    world.array(ONE, TWO).files(start(1), end(2, 0)).answer({"12": CANCELLED}).settled()
    assert world.ends() == {ONE: CANCELLED, TWO: JobStatus(JobState.COMPLETED, 70.25, 0)}


def test_a_task_that_failed_is_not_lost(world: World) -> None:
    """The exit code of a task is its member's, with or without files."""
    world.array(ONE, TWO).answer({"12_0": FAILED, "12_1": RUNNING}).settled()
    assert world.ends() == {ONE: FAILED}


# -- run again


def test_a_job_that_is_run_again(world: World) -> None:
    """Files of the first run that come late prove nothing about a job that waits again; those of the second do."""
    world.job(ONE).files(start(1)).tick(60).answer({"12": PENDING}).files(end(1, 137))
    world.tick(HELD + 1).answer({"12": PENDING}).tick().answer({"12": RUNNING}).tick()
    assert world.ends() == {}
    world.files(start(1, 1), end(1, 0, 1))
    assert world.end_of() == JobStatus(JobState.COMPLETED, 70.25, 0)


def test_killed_and_then_run_again(world: World) -> None:
    """A member that was killed as its job was put back into the queue has not failed."""
    world.job(ONE).files(start(1), end(1, 143)).tick(5).answer({"12": PENDING}).tick(HELD + 1)
    world.answer({"12": PENDING}).tick()
    assert world.ends() == {}
    world.files(start(1, 1)).answer({"12": RUNNING}).files(end(1, 2, 1))
    assert world.end_of() == JobStatus(JobState.FAILED, 70.25, 2, "exit code 2")


def test_run_again_between_two_queries(world: World) -> None:
    """A second start file says that the first end was none, though no answer showed the job waiting."""
    world.job(ONE).files(start(1), end(1, 137)).files(start(1, 1)).tick(HELD + 1).answer({"12": RUNNING}).tick()
    assert world.ends() == {}
    world.files(end(1, 137)).tick(HELD + 1).answer({"12": RUNNING}).tick()
    assert world.ends() == {}
    world.files(end(1, 0, 1))
    assert world.end_of() == JobStatus(JobState.COMPLETED, 70.25, 0)


def test_a_verdict_that_is_taken_back(world: World) -> None:
    """A job that failed with its node and waits again has not ended."""
    world.job(ONE).files(start(1)).tick(60).answer({"12": NODE_FAIL}).tick(1).answer({"12": PENDING}).settled()
    assert world.ends() == {}


def test_members_that_ended_before_their_job_was_run_again(world: World) -> None:
    """An end of its own is one, however late its file comes: the script does not run that member again."""
    world.job(ONE, TWO).files(start(1), start(2)).tick(60).answer({"12": PENDING}).files(end(1, 0), end(2, 137))
    assert world.ends() == {ONE: JobStatus(JobState.COMPLETED, 70.25, 0)}


def test_an_answer_that_is_older_than_the_start(world: World) -> None:
    """A member's start may overtake the answer that it waits: that is no second run, and its end counts."""
    world.job(ONE, TWO).files(start(1), start(2)).answer({"12": PENDING}).files(end(1, 139))
    world.answer({"12": RUNNING}).tick(HELD + 1).answer({"12": RUNNING}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.FAILED, 70.25, -11, "killed by SIGSEGV")}


def test_a_slow_answer_that_is_older_than_the_start(world: World) -> None:
    """What counts is when the question was asked, however late its answer comes: the member does not wait again."""
    world.job(ONE).answer({"12": PENDING}).files(start(1)).tick(20).answer({"12": PENDING}, took=21)
    assert [status.state for _, status in world.said] == [JobState.PENDING, JobState.RUNNING]
    world.files(end(1, 139)).answer({"12": FAILED}).judged()
    assert world.ends() == {ONE: JobStatus(JobState.FAILED, 70.25, -11, "killed by SIGSEGV")}


def test_a_slow_answer_of_a_job_that_is_run_again(world: World) -> None:
    """An answer to what was asked after the start is believed, however late it comes."""
    world.job(ONE).files(start(1)).tick(60).answer({"12": PENDING}, took=30).files(end(1, 137))
    assert (world.ends(), world.said[-1]) == ({}, (ONE, PENDING))


def test_a_slow_answer_does_not_prove_that_the_job_goes_on(world: World) -> None:
    """That it ran when the question was asked says nothing about later."""
    world.job(ONE, TWO).files(start(1), start(2), end(1, 139)).tick(HELD + 1).answer({"12": RUNNING}, took=HELD + 2)
    assert world.tick().ends() == {}
    world.answer({"12": RUNNING}).tick()
    assert world.ends().keys() == {ONE}


def test_an_old_answer_does_not_make_what_runs_wait(world: World) -> None:
    """A member that runs is not told as stopped before it started because an answer, or the accounts, are late."""
    for final, took in ((False, 21), (True, 0)):
        one = World().job(ONE, TWO).files(start(1), start(2)).tick(20).answer({"12": PENDING}, final=final, took=took)
        assert one.tracker.never_started([ONE]) == []
        assert [status.state for _, status in one.said] == [JobState.RUNNING] * 2


# -- an accounting that does not answer


@pytest.mark.parametrize(("killed", "code"), [(True, -15), (False, None)])
def test_the_accounting_is_down(killed: bool, code: int | None, world: World) -> None:
    """After a while without a word of it the queue's word counts, and the member's own."""
    world.job(ONE).files(start(1), *([end(1, 143)] if killed else [])).answer({"12": NODE_FAIL}).tick(SETTLE)
    assert world.tracker.doubtful(world.now) == ["12"]
    world.tick(JUDGE - 1)
    assert (world.ends(), world.tracker.doubtful(world.now)) == ({}, ["12"])
    world.tick(1)
    assert (world.ends(), world.tracker.jobs()) == ({ONE: NODE_FAIL._replace(code=code)}, [])


def test_the_accounting_has_not_been_asked_yet(world: World) -> None:
    """However long it is until the next query, the accounting is asked before anything is concluded."""
    world.job(ONE).files(start(1)).answer({"12": FAILED}).tick(10 * JUDGE)
    assert world.ends() == {}
    world.tracker.doubtful(world.now)
    world.tick().answer({"12": OUT_OF_MEMORY}, final=True).tick()
    assert world.ends() == {ONE: OUT_OF_MEMORY}


def test_a_doubt_that_was_taken_back(world: World) -> None:
    """A job that is run again and ends once more is asked about once more."""
    world.job(ONE).answer({"12": NODE_FAIL}).tick(SETTLE).tracker.doubtful(world.now)
    world.answer({"12": PENDING}).tick(JUDGE).answer({"12": NODE_FAIL}).tick(SETTLE)
    assert (world.ends(), world.tracker.doubtful(world.now)) == ({}, ["12"])


def test_the_accounting_is_down_and_the_queue_forgets(world: World) -> None:
    """A job whose end was told once is not lost because nothing tells of it any more."""
    quick = World()
    quick.tracker = Tracker(lost_after=5.0)
    quick.job(ONE).answer({"12": NODE_FAIL}).tick(1).answer({}).tick(6).answer({}).tick()
    assert quick.ends() == {ONE: NODE_FAIL}
    world.job(ONE).answer({"12": NODE_FAIL}).tick(1).answer({}).tracker.doubtful(world.now)
    world.tick(JUDGE).answer({}).tick()
    assert world.ends() == {ONE: NODE_FAIL}


def test_stopped_and_gone_and_the_accounting_is_down(world: World) -> None:
    """What was stopped and is gone was stopped, also if nobody can be asked."""
    world.job(ONE).answer({"12": PENDING}).tracker.to_cancel([ONE], 70.0)
    world.answer({}).tick(JUDGE - 1).answer({}).tick()
    assert world.ends() == {}
    world.tick(1).answer({}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.CANCELLED, 0.0, None, "stopped")}


def test_a_killed_member_that_was_stopped_and_is_missing(world: World) -> None:
    """A member that was killed after it was asked to stop was stopped, though no answer mentions its job."""
    world.job(ONE).files(start(1)).tracker.to_cancel([ONE], 70.0)
    world.files(end(1, 143)).answer({}).tick(LOST_AFTER + 1).answer({}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.CANCELLED, 70.25, -15, "stopped")}


# -- jobs that nobody mentions


def test_missing_doubtful_lost(world: World) -> None:
    """A job that is in no answer is asked about, and lost when it stays away for long, in words."""
    world.job(ONE).answer({"12": RUNNING})
    assert world.tracker.doubtful(world.now) == []
    world.answer({})
    assert world.tracker.doubtful(world.now) == ["12"]
    world.judged().tick(LOST_AFTER - 1).answer({}).judged()
    assert world.ends() == {}
    world.tick(2).answer({}).tick()
    words = "job 12 is in no answer of the scheduler any more, and nothing tells how it ended"
    assert world.ends() == {ONE: JobStatus(JobState.LOST, 0.0, None, words)}


def test_found_again(world: World) -> None:
    """One answer that mentions it starts the time again."""
    world.job(ONE).answer({}).tick(LOST_AFTER - 1).answer({"12": PENDING}).answer({}).tick(LOST_AFTER - 1).answer({})
    assert world.tick().ends() == {}


def test_never_lost_without_answers(world: World) -> None:
    """While the scheduler does not answer nobody is lost, however long; nor when it answers about others."""
    world.job(ONE).job(TWO, name="13").answer({}, asked=["12"]).tick(10 * LOST_AFTER)
    assert world.ends() == {}
    world.answer({"13": RUNNING}, asked=["13"]).tick(10 * LOST_AFTER)
    assert world.ends() == {}


def test_the_accounting_knows_the_missing(world: World) -> None:
    """A job that the queue has forgotten ended as the accounting says."""
    world.job(ONE).answer({}).answer({"12": FAILED}, final=True).settled()
    assert world.ends() == {ONE: FAILED}


def test_silence_of_the_accounting_is_not_missing(world: World) -> None:
    """That the accounting does not know a job says nothing about where it is."""
    world.job(ONE).answer({"12": RUNNING}).answer({}, final=True).tick(LOST_AFTER + 1).answer({}, final=True).tick()
    assert world.ends() == {}


def test_a_killed_member_of_a_missing_job(world: World) -> None:
    """What it told is better than nothing."""
    world.job(ONE).files(end(1, 137)).answer({}).tick(LOST_AFTER + 1).answer({}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.FAILED, 70.25, -9, "killed by SIGKILL")}


def test_unknown_jobs(world: World) -> None:
    """Answers about jobs and tasks that are not ours, or not any more, are ignored."""
    world.job(ONE).files(end(1, 0))
    world.answer({"12": FAILED, "99": FAILED}, asked=["12", "99"]).settled()
    assert world.ends() == {ONE: JobStatus(JobState.COMPLETED, 70.25, 0)}
    world.tracker.judged(["12", "99"])
    assert world.tracker.doubtful(world.now) == []


# -- stopping


def test_what_is_cancelled() -> None:
    """Whole jobs by their ids, tasks by theirs, single members of a job by their script."""
    world = World().job(ONE).array(TWO, THREE, JobKey(4), name="13").job(JobKey(5), JobKey(6), name="14")
    cancel = partial(world.tracker.to_cancel, when=70.0)
    assert cancel([ONE]) == (["12"], [])
    assert cancel([THREE]) == (["13_1"], [])
    assert cancel([TWO, THREE, JobKey(4)]) == (["13"], [])
    assert cancel([JobKey(5)]) == ([], [5])
    assert cancel([JobKey(6), JobKey(5)]) == (["14"], [])
    assert cancel([JobKey(7)]) == ([], [])
    assert cancel(map(JobKey, range(1, 8))) == (["12", "13", "14"], [])  # type: ignore[arg-type]


def test_what_has_ended_is_not_cancelled() -> None:
    """When the others have ended, those that are left are the whole job."""
    world = World().array(ONE, TWO, name="13").job(THREE, JobKey(4), name="14").files(end(1, 0), end(3, 0))
    assert world.tracker.to_cancel([TWO, ONE], 70.0) == (["13"], [])
    assert world.tracker.to_cancel([JobKey(4)], 70.0) == (["14"], [])


def test_members_that_are_not_to_start(world: World) -> None:
    """In a job that waits a member is cancelled at once, as it will find it; in one that runs its script says so."""
    world.job(ONE, TWO).tracker.to_cancel([ONE], 70.0)
    world.said += world.tracker.never_started([ONE, THREE])
    assert world.ends() == {ONE: JobStatus(JobState.CANCELLED, 0.0, None, "stopped before it started")}
    world.files(start(2)).tracker.to_cancel([TWO], 70.0)
    assert world.tracker.never_started([TWO]) == []
    running = World().job(ONE, TWO).answer({"12": RUNNING})
    assert running.tracker.never_started([ONE]) == []


@pytest.mark.parametrize("verdict", [CANCELLED, FAILED, NODE_FAIL])
@pytest.mark.parametrize("killed", [True, False])
def test_asked_members_are_cancelled(verdict: JobStatus, killed: bool, world: World) -> None:
    """Whatever the scheduler makes of the end of what was stopped: it was stopped."""
    world.job(ONE).files(start(1)).tracker.to_cancel([ONE], 70.0)
    world.files(*([end(1, 143)] if killed else [])).answer({"12": verdict}).settled()
    ended = world.end_of()
    assert ended is not None
    assert (ended.state, ended.reason) == (JobState.CANCELLED, "stopped")
    assert ended.code == (-15 if killed else verdict.code if verdict is CANCELLED else None)


def test_an_asked_member_of_several_is_believed_at_once(world: World) -> None:
    """Its script stopped it, and no scheduler knows more about that."""
    world.job(ONE, TWO).files(start(1), start(2)).tracker.to_cancel([ONE], 70.0)
    world.files(end(1, 143))
    assert world.ends() == {ONE: JobStatus(JobState.CANCELLED, 70.25, -15, "stopped")}


def test_asked_but_faster(world: World) -> None:
    """A member that ended by itself before it was asked to stop did not get cancelled."""
    world.job(ONE, TWO).files(start(1), start(2)).tracker.to_cancel([ONE, TWO], 70.5)
    world.files(end(1, 0), end(2, 7))
    assert world.ends() == {
        ONE: JobStatus(JobState.COMPLETED, 70.25, 0),
        TWO: JobStatus(JobState.FAILED, 70.25, 7, "exit code 7"),
    }


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("alone", [True, False])
def test_asked_and_graceful(code: int, alone: bool, world: World) -> None:
    """A member that ends by itself because it was asked to was stopped, whatever its exit code."""
    keys = [ONE] if alone else [ONE, TWO]
    world.job(*keys).files(start(1)).tracker.to_cancel(keys, 70.0)
    world.files(end(1, code)).answer({"12": CANCELLED}).settled()
    assert world.ends()[ONE] == JobStatus(JobState.CANCELLED, 70.25, code, "stopped")


def test_asked_and_gone(world: World) -> None:
    """A scheduler may forget at once what was cancelled while it waited: then nothing else can have become of it."""
    world.job(ONE).answer({"12": PENDING}).tracker.to_cancel([ONE], 70.0)
    world.answer({}).judged()
    assert world.ends() == {}
    world.tick(SETTLE).answer({}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.CANCELLED, 0.0, None, "stopped")}


def test_asked_and_held(world: World) -> None:
    """A task that was stopped has been cancelled, also when the scheduler never says a word about it."""
    world.array(ONE, TWO).files(start(1)).tracker.to_cancel([ONE], 70.0)
    world.files(end(1, 143)).tick(HELD + 1).answer({"12_1": RUNNING}).tick()
    assert world.ends() == {ONE: JobStatus(JobState.CANCELLED, 70.25, -15, "stopped")}


# -- when to look again


def test_when_something_is_due(world: World) -> None:
    """The time for stragglers is what is waited for, and never no time at all."""
    world.job(ONE)
    assert world.tracker.due(world.now) > 60
    world.answer({"12": FAILED})
    assert world.tracker.due(world.now) == SETTLE
    world.tracker.judged(["12"])
    assert world.tracker.due(world.now) == SETTLE
    assert 0 < world.tracker.due(world.now + 60) < 1


def test_who_only_waits_for_the_accounting_wakes_nobody(world: World) -> None:
    """When the time for stragglers has passed the next thing is that the accounting was waited for long enough."""
    world.job(ONE).answer({"12": FAILED}).tick(SETTLE)
    assert world.tracker.due(world.now) > 60  # it is asked with the next query
    world.tracker.doubtful(world.now)
    assert world.tracker.due(world.now + 10) == JUDGE - 10
    world.tracker.judged(["12"])
    assert world.tracker.due(world.now) < 1


# -- any order


KEYS = [ONE, TWO, THREE]
CODES = st.sampled_from([0, 1, 137, 143])
STATES = st.sampled_from([PENDING, RUNNING, COMPLETED, FAILED, NODE_FAIL, TIMEOUT, CANCELLED])
JOBS = st.sampled_from(["12", "12_0", "12_1", "12_2", "13"])
STEPS = st.one_of(
    st.tuples(st.just("start"), st.sampled_from([1, 2, 3, 4]), st.integers(0, 2)),
    st.tuples(st.just("end"), st.sampled_from([1, 2, 3, 4]), st.integers(0, 2), CODES, st.sampled_from(["", "time limit"])),
    st.tuples(st.just("answer"), st.dictionaries(JOBS, STATES, max_size=4), st.booleans()),
    st.tuples(st.just("tick"), st.floats(0, 200)),
    st.tuples(st.just("cancel"), st.sets(st.sampled_from(KEYS))),
    st.tuples(st.just("judged")),
)  # fmt: skip


def take(world: World, step: Sequence[object]) -> None:
    """One thing that happens."""
    match step:
        case ("start", int(key), int(number)):
            world.files(start(key, number))
        case ("end", int(key), int(number), int(code), str(words)):
            world.files(end(key, code, number, words))
        case ("answer", dict(found), bool(final)):
            world.answer(found, final=final)
        case ("tick", float(seconds)):
            world.tick(seconds)
        case ("cancel", set(keys)):
            _, told = world.tracker.to_cancel(keys, 70.0)
            world.said += world.tracker.never_started(told)
        case _:
            world.judged()


@given(
    array=st.booleans(), steps=st.lists(STEPS, max_size=25), verdict=STATES.filter(lambda status: status.state.terminal)
)
def test_any_order_of_evidence(array: bool, steps: list[Sequence[object]], verdict: JobStatus) -> None:
    """Whatever comes in whatever order, every member ends once, and not later than the scheduler's last word."""
    world = World()
    (world.array if array else world.job)(*KEYS)
    for step in steps:
        take(world, step)
        assert set(world.tracker.keys) == set(KEYS) - world.ends().keys()
    tasks = {f"12_{number}": verdict for number in range(3)} if array else {}
    world.answer({"12": verdict, **tasks}).settled()
    assert world.ends().keys() == set(KEYS)
    assert (len(world.tracker), world.tracker.jobs()) == (0, [])
    assert all(status.reason for status in world.ends().values() if status.state is not JobState.COMPLETED)
