"""Grid Engine's words: every recording of a real one, and what is asked of it."""

from __future__ import annotations

from typing import Any

import pytest

from asim.errors import SubmitError
from asim.launchers.dialect import Batch, Completed, Dialect, SchedulerError
from asim.launchers.sge import SGE
from asim.settings import SgeQsubBatchSettings
from asim.status import JobState
from tests.unit.launchers.recordings import Recordings

GRID: Dialect = SGE()
RECORDED = Recordings("sge/8.1.9")
ROWS = [(kind, name) for kind, table in RECORDED.expected.items() for name in table]
QACCT = """\
==============================================================
jobname      a.sh
jobnumber    7
taskid       undefined
end_time     {end}
failed       {failed}
exit_status  {status}
ru_wallclock {wall}
category     {category}
"""


def batch(**changes: Any) -> Batch:
    """A submit of one script."""
    facts: dict[str, Any] = {"name": "jobs", "mark": "a-1", "script": "/run/a-1.sh", "settings": SgeQsubBatchSettings()}
    return Batch(**facts | changes)


def record(
    failed: str = "0", status: str = "0", end: str = "-/-", wall: str = "1s", category: str = "NONE"
) -> Completed:
    """An answer of qacct about job 7."""
    text = QACCT.format(failed=failed, status=status, end=end, wall=wall, category=category)
    return Completed(("env", "qacct"), 0, text, "")


def listed(state: str, tasks: str = "") -> Completed:
    """An answer of qstat about job 7."""
    row = f"<JB_job_number>7</JB_job_number><JB_name>x</JB_name><state>{state}</state><tasks>{tasks}</tasks>"
    return Completed(
        ("env", "qstat"), 0, f"<job_info><queue_info><job_list>{row}</job_list></queue_info></job_info>", ""
    )


# -- recordings


def test_every_recording_is_read() -> None:
    """A recording that no test looks at would prove nothing."""
    assert sorted(name for _, name in ROWS) == RECORDED.names()
    assert len(ROWS) > 40


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[name for _, name in ROWS])
def test_recordings(kind: str, name: str) -> None:
    """What a real Grid Engine said is understood as it was meant."""
    assert RECORDED.seen(kind, name, GRID) == RECORDED.expected[kind][name]


# -- submit


def test_submit() -> None:
    """The job's name ends with the mark; the words of the command line win over the script's."""
    words = ("qsub", "-terse", "-N", "jobs.a-1", "/run/a-1.sh")
    assert GRID.submit(batch()).argv == words


@pytest.mark.parametrize(("name", "kept"), [("3rd", "_3rd.a-1"), ("a b/c:ü", "a_b_c__.a-1")])
def test_names_that_it_would_refuse(name: str, kept: str) -> None:
    """Such names end in "Error reading answer list", after which nobody knows whether the job is there."""
    assert GRID.submit(batch(name=name)).argv[3] == kept


@pytest.mark.parametrize(("throttle", "words"), [(None, ()), (3, ("-tc", "3"))])
def test_submit_array(throttle: int | None, words: tuple[str, ...]) -> None:
    """Tasks are numbered from 1 there, and from 0 here."""
    assert GRID.submit(batch(size=5, throttle=throttle)).argv[4:] == ("-t", "1-5", *words, "/run/a-1.sh")
    assert (GRID.task("7", 0), GRID.task("7", 4)) == ("7.1", "7.5")
    assert GRID.index == "$((SGE_TASK_ID - 1))"


@pytest.mark.parametrize(
    "done",
    [
        Completed(("qsub",), None, "", "late"),
        Completed(("qsub",), -15, "", ""),
        Completed(("qsub",), 0, "hi", ""),
        Completed(("qsub",), 1, "", "error: commlib error: got read error (closing h1/qmaster/1)"),
        Completed(
            ("qsub",), 1, "Unable to run job: failed receiving gdi request response for mid=1 (can't find it).\n"
        ),
    ],
)
def test_nobody_knows_whether_it_was_taken(done: Completed) -> None:
    """Without a clear word the job may be there: a second submit could start it twice."""
    with pytest.raises(SchedulerError):
        GRID.submitted(done)


def test_a_full_cell_is_tried_again() -> None:
    """qsub ends with 25 whatever the limit's words are."""
    with pytest.raises(SubmitError) as caught:
        GRID.submitted(Completed(("qsub",), 25, "", "Unable to run job: no more.\nExiting.\n"))
    assert caught.value.transient


# -- questions


def test_one_query_for_all() -> None:
    """Any number of jobs is one question about the queue, and at most a few about the accounts."""
    many = [f"{number}.1" for number in range(1, 10_000)]
    assert len(GRID.status(many)) == len(GRID.account(many)) == 1
    assert [command.argv[-1] for command in GRID.account(["3.1", "3.2", "4"])] == ["3", "4"]
    assert GRID.status([]) == GRID.account([]) == GRID.cancel([]) == []
    assert [job for command in GRID.cancel(many) for job in command.argv[1:]] == many


# -- answers


@pytest.mark.parametrize(
    ("letters", "state", "reason"),
    [
        ("r", JobState.RUNNING, ""),
        ("Rr", JobState.RUNNING, ""),
        ("hr", JobState.RUNNING, ""),
        ("t", JobState.PENDING, "t: it is being sent to its host"),
        ("Rt", JobState.PENDING, "Rt: it is being sent to its host"),
        ("qw", JobState.PENDING, "qw: waits"),
        ("hRwq", JobState.PENDING, "hRwq: held"),
        ("Rq", JobState.PENDING, "Rq: waits"),
        ("dt", JobState.RUNNING, "dt: it is being deleted"),
        ("S", JobState.RUNNING, "S: it is suspended"),
        ("ts", JobState.RUNNING, "ts: it is suspended"),
        ("z", JobState.RUNNING, "z: it has ended"),
        ("dRr", JobState.RUNNING, "dRr: it is being deleted"),
        ("Eqw", JobState.FAILED, "Eqw: it could not be started, and stays in the queue until it is deleted"),
        ("EhRqw", JobState.FAILED, "EhRqw: it could not be started, and stays in the queue until it is deleted"),
    ],
)
def test_states(letters: str, state: JobState, reason: str) -> None:
    """Each combination of letters has its meaning."""
    (status,) = GRID.read_status(listed(letters)).values()
    assert (status.state, status.reason) == (state, reason)


@pytest.mark.parametrize(
    ("tasks", "ids"),
    [("", ["7"]), ("3", ["7.3"]), ("1-3:1", ["7.1", "7.2", "7.3"]), ("2,5-9:2", ["7.2", "7.5", "7.7", "7.9"])],
)
def test_tasks(tasks: str, ids: list[str]) -> None:
    """One row about many tasks is evidence about each."""
    assert list(GRID.read_status(listed("qw", tasks))) == ids


def test_what_is_no_xml_is_no_answer() -> None:
    """A truncated list proves nothing about the jobs that it lacks."""
    with pytest.raises(SchedulerError, match="is no XML"):
        GRID.read_status(Completed(("env", "qstat"), 0, "<job_info><job_list>", ""))


def test_no_qstat_is_no_answer() -> None:
    """Where there is no qstat, trying again does not help."""
    with pytest.raises(SchedulerError, match="qstat ended with code 127") as caught:
        GRID.read_status(Completed(("env", "qstat"), 127, "", "env: 'qstat': No such file or directory"))
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("done", "state", "code", "begins"),
    [
        (record("19  : before writing exit_status", "0"), JobState.FAILED, None, "19 (before writing exit_status): its end was not"),
        (record("21  : in recognizing job", "0"), JobState.FAILED, None, "21 (in recognizing job): "),
        (record("27  : searching requested shell", "0"), JobState.FAILED, None, "27 (searching requested shell): its shell"),
        (record("8 : in prolog", "1"), JobState.FAILED, 1, "8 (in prolog): it failed, exit code 1"),
        (record("8 : in prolog", "255"), JobState.FAILED, 255, "8 (in prolog): it failed, exit code 255"),
        (record("100 : assumedly after job", "137 (Killed)", wall="61.2s", category="-l h_rt=60"), JobState.TIMEOUT, -9, "100 ("),
        (record("100 : assumedly after job", "137 (Killed)", wall="59s", category="-l h_rt=60"), JobState.FAILED, -9, "100 ("),
        (record("100 : assumedly after job", "138 (User defined signal 1)", wall="60", category="-l s_rt=60"), JobState.TIMEOUT, -10, "100 ("),
    ],
)  # fmt: skip
def test_ends(done: Completed, state: JobState, code: int | None, begins: str) -> None:
    """What the accounts say about an end, in states, codes and words."""
    (status,) = GRID.read_account(done).values()
    assert (status.state, status.code) == (state, code)
    assert status.reason.startswith(begins)


def test_a_run_that_is_followed_by_another_is_no_end() -> None:
    """A job that was put back in the queue has a record of its first run."""
    first, second = record("25 : rescheduling", "99"), record("0", "4")
    assert GRID.read_account(first) == {}
    (status,) = GRID.read_account(first._replace(stdout=first.stdout + second.stdout)).values()
    assert (status.state, status.code) == (JobState.FAILED, 4)


@pytest.mark.parametrize(
    "text", ["Sun Nov 22 12:59:55 2026", "11/22/2026 12:59:55", "11/22/2026 12:59:55.000", "2026-11-22 12:59:55.000000"]
)
def test_times(text: str) -> None:
    """The forms of several descendants are one time, in UTC."""
    (status,) = GRID.read_account(record(end=text)).values()
    assert status.time == 1795352395.0


def test_accounts_that_cannot_be_read() -> None:
    """A broken qacct proves nothing; one that has no such job says so."""
    with pytest.raises(SchedulerError, match="qacct ended with code -6"):
        GRID.read_account(Completed(("env", "qacct"), -6, "", ""))


def test_find_takes_whole_marks() -> None:
    """A mark that another one ends with is not taken for it."""
    text = QACCT.format(failed=0, status=0, end="", wall="", category="").replace("a.sh", "jobs.x-1")
    done = Completed(("env", "qacct", "-j", "*.1"), 0, text, "")
    assert GRID.find_read(done, ["x-1", "1"]) == {"x-1": "7"}
