"""Slurm's words: every recording of a real one, and what is asked of it."""

from __future__ import annotations

from typing import Any

import pytest

from asim.errors import SubmitError, UnsupportedError
from asim.launchers._slurm_states import evidence
from asim.launchers.dialect import Batch, Completed, Dialect, SchedulerError
from asim.launchers.slurm import Slurm
from asim.settings import SbatchSettings
from asim.status import JobState
from tests.unit.launchers.recordings import Recordings

SLURM: Dialect = Slurm()
RECORDED = Recordings("slurm/22.05")
ROWS = [(kind, name) for kind, table in RECORDED.expected.items() for name in table]


def batch(settings: SbatchSettings | None = None, **changes: Any) -> Batch:
    """A submit of one script."""
    facts: dict[str, Any] = {
        "name": "jobs",
        "mark": "a-1",
        "script": "/run/a-1.sh",
        "settings": settings or SbatchSettings(),
    }
    return Batch(**facts | changes)


def said(code: int | None, stderr: str = "", stdout: str = "", argv: tuple[str, ...] = ("sbatch",)) -> Completed:
    return Completed(argv, code, stdout, stderr)


# -- recordings


def test_every_recording_is_read() -> None:
    """A recording that no test looks at would prove nothing."""
    assert sorted(name for _, name in ROWS) == RECORDED.names()
    assert len(ROWS) > 80


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[name for _, name in ROWS])
def test_recordings(kind: str, name: str) -> None:
    """What a real Slurm said is understood as it was meant."""
    assert RECORDED.seen(kind, name, SLURM) == RECORDED.expected[kind][name]


@pytest.mark.parametrize("name", [name for name in RECORDED.names() if name.startswith(("squeue-", "sacct-"))])
def test_recordings_are_answers_to_what_is_asked(name: str) -> None:
    """The columns of the recordings are those of the commands: otherwise they would say nothing about them."""
    if "bad-f" in name:
        return
    done = RECORDED.load(name)
    jobs = done.argv[-1].partition("=")[2].split(",")
    (command,) = SLURM.status(jobs) if "squeue" in name else SLURM.account(jobs)
    assert command.argv == done.argv


# -- submit


def test_submit() -> None:
    """One job is submitted by one sbatch that prints the id alone."""
    assert SLURM.submit(batch()).argv == ("sbatch", "--parsable", "/run/a-1.sh")


@pytest.mark.parametrize(("throttle", "array"), [(None, "--array=0-999"), (7, "--array=0-999%7")])
def test_submit_array(throttle: int | None, array: str) -> None:
    """Tasks are numbered from 0, at most so many run at once, and they do not wipe each other's output."""
    words = SLURM.submit(batch(size=1000, throttle=throttle)).argv
    assert words == ("sbatch", "--parsable", array, "--open-mode=append", "/run/a-1.sh")


def test_submit_to_other_clusters() -> None:
    """A job on another cluster would never be found again: refused, with the option's name."""
    with pytest.raises(UnsupportedError, match=r"batch_args\['clusters'\] = 'other'"):
        SLURM.submit(batch(SbatchSettings(batch_args={"clusters": "other"})))


def test_tasks_are_named_as_squeue_does() -> None:
    """The number in the script is the number in the id."""
    assert SLURM.task("12", 0) == "12_0"
    assert SLURM.index == "${SLURM_ARRAY_TASK_ID}"


LOST = [
    "Unable to contact slurm controller (send failure)",
    "Unable to contact slurm controller (receive failure)",
    "Message receive failure",
    "Header lengths are longer than data received",
    "Socket timed out on send/recv operation",
    "Zero Bytes were transmitted or received",
    "Unexpected message received",
    "Unspecified error",
    "Protocol authentication error",
    "Connection timed out",
    "Broken pipe",
]
"""What a real sbatch says when it has sent its request and hears nothing that it understands."""


@pytest.mark.parametrize("stdout", ["12\n", "12;cluster\n", "welcome to the cluster\n12\n"])
def test_submitted(stdout: str) -> None:
    """The id is found with a cluster's name behind it, and after a site's greetings."""
    assert SLURM.submitted(said(0, stdout=stdout)) == "12"


@pytest.mark.parametrize(
    "done",
    [
        said(None, "stopped after 60 s"),
        said(-9, "killed"),
        said(1),
        said(0, stdout="thank you\n"),
        said(1, "x: Connection reset by peer"),
        *(said(1, f"sbatch: error: Batch job submission failed: {text}\n") for text in LOST),
    ],
    ids=["time", "signal", "silent", "no id", "cut", *LOST],
)
def test_nobody_knows_whether_it_was_taken(done: Completed) -> None:
    """Without a clear word the job may be there: a second submit could start it twice."""
    with pytest.raises(SchedulerError):
        SLURM.submitted(done)


@pytest.mark.parametrize(
    ("text", "transient"),
    [
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            True,
        ),
        (
            "AssocGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
            True,
        ),
        (
            "AssocMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
            False,
        ),
        (
            "stream socket: Connection timed out\nsbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            True,
        ),
        (
            "auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error\nsbatch: error: Batch job submission failed: Protocol authentication error",
            True,
        ),
        ("Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("Batch job submission failed: Slurm backup controller in standby mode", True),
        ("Batch job submission failed: Requested node configuration is not available", False),
        ("Unable to open file /home/me/database/run.sh", False),
    ],
)
def test_refusals(text: str, transient: bool) -> None:
    """What passes is tried again, what does not is told at once."""
    with pytest.raises(SubmitError) as caught:
        SLURM.submitted(said(1, f"sbatch: error: {text}\n"))
    assert caught.value.transient == transient


# -- questions


def test_one_query_for_all() -> None:
    """Ten thousand jobs are one question."""
    assert len(SLURM.status([str(1_000_000 + number) for number in range(10_000)])) == 1


def test_more_than_one_argument_can_hold() -> None:
    """Questions about very many ids are split, and none is lost, cut or asked for twice."""
    jobs = [str(1_000_000 + number) for number in range(40_000)]
    for commands in (SLURM.status(jobs), SLURM.account(jobs)):
        asked = [job for command in commands for job in command.argv[-1].partition("=")[2].split(",")]
        assert asked == jobs
        assert len(commands) == 4
        assert all(len(word) < 131_072 for command in commands for word in command.argv)
    assert [job for command in SLURM.cancel(jobs) for job in command.argv[1:]] == jobs


def test_no_ids_no_question() -> None:
    """Without ids squeue would answer about everybody's jobs."""
    assert SLURM.status([]) == SLURM.account([]) == SLURM.cancel([]) == []


def test_the_users_filters_are_off() -> None:
    """A user whose environment limits squeue to one partition does not lose sight of the other jobs."""
    (command,) = SLURM.status(["1"])
    assert command.argv[0] == "env"
    assert "-uSQUEUE_PARTITION" in command.argv


# -- answers


@pytest.mark.parametrize(
    ("word", "state", "begins"),
    [
        ("BOOT_FAIL", JobState.FAILED, "BOOT_FAIL: "),
        ("OUT_OF_MEMORY", JobState.FAILED, "OUT_OF_MEMORY: it used more memory"),
        ("DEADLINE", JobState.TIMEOUT, "DEADLINE: "),
        ("REVOKED", JobState.PENDING, "REVOKED"),
        ("CONFIGURING", JobState.PENDING, "CONFIGURING"),
        ("SPECIAL_EXIT", JobState.PENDING, "SPECIAL_EXIT"),
        ("REQUEUE_HOLD", JobState.PENDING, "REQUEUE_HOLD"),
        ("STOPPED", JobState.RUNNING, "STOPPED"),
        ("SOMETHING_NEW", JobState.PENDING, "SOMETHING_NEW"),
    ],
)
def test_states_that_were_not_recorded(word: str, state: JobState, begins: str) -> None:
    """Each state of the manual has its meaning; one that nobody knows is no end."""
    status = evidence(word, "0:0", "100", "200")
    assert status.state is state
    assert status.reason.startswith(begins)
    assert status.code is None


def test_out_of_memory_keeps_its_signal() -> None:
    """How the kernel ended it is known."""
    assert evidence("OUT_OF_MEMORY", "0:9", "100", "200").code == -9


def test_a_restarted_job_says_so() -> None:
    """A job that runs for the third time tells that."""
    assert evidence("RUNNING", "0", "100", "NONE", restarts="2").reason == "requeued 2 times"


def test_a_codes_signal_may_have_dumped_core() -> None:
    """The wait status of a core dump is its signal, not 128 more."""
    assert evidence("FAILED", str(11 | 128), "1", "2").code == -11


def test_an_exit_code_that_sacct_may_have_changed_is_told() -> None:
    """sacct writes 139 as 11; whoever reads 11 is told."""
    (status,) = SLURM.read_account(said(0, stdout="7|FAILED|11:0|1|2|n1\n", argv=("sacct",))).values()
    assert (status.code, status.reason) == (11, "FAILED: exit code 11 (or 139: sacct writes both so)")


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "REQUEUED", "COMPLETING"])
def test_accounts_are_believed_about_ends_only(state: str) -> None:
    """They are seconds behind: a job that has begun may still wait there, and must not seem to have been put back."""
    answer = said(0, stdout=f"7|{state}|0:0|1|Unknown|n1\n8|COMPLETED|0:0|1|2|n1\n", argv=("sacct",))
    assert list(SLURM.read_account(answer)) == ["8"]


def test_a_cut_list_of_tasks_stands_for_the_array() -> None:
    """Tasks that squeue leaves out are not lost: the line is about the array."""
    line = "12_[1,3,5,7,9,11,13,15,17,19,21,23,25,27,...]".ljust(48) + "PENDING".ljust(16) + "Resources"
    assert list(SLURM.read_status(said(0, stdout=line + "\n"))) == ["12"]


def test_no_sacct_means_no_accounts() -> None:
    """A login node without sacct has none; a broken one is something else."""
    assert SLURM.read_account(said(127, "env: 'sacct': No such file or directory", argv=("env", "sacct"))) == {}
    with pytest.raises(SchedulerError, match="sacct ended with code 1") as caught:
        SLURM.read_account(
            said(1, "sacct: error: Munge encode failed: No such file or directory", argv=("env", "sacct"))
        )
    assert caught.value.transient


def test_no_squeue_is_no_answer() -> None:
    """Without squeue nothing is known, and trying again does not help."""
    with pytest.raises(SchedulerError) as caught:
        SLURM.read_status(said(127, "env: 'squeue': No such file or directory", argv=("env", "squeue")))
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("scancel: error: Kill job error on job id 9: Invalid job id specified", True),
        ("scancel: error: Kill job error on job id 9: Job/step already completing or completed", True),
        ("scancel: error: Kill job error on job id 9: Access/permission denied", False),
    ],
)
def test_cancelled(text: str, fine: bool) -> None:
    """A job that has ended before is no error in the Slurms that tell; one that goes on is."""
    if fine:
        SLURM.cancelled(said(1, text, argv=("scancel", "9")))
        return
    with pytest.raises(SchedulerError, match="permission denied"):
        SLURM.cancelled(said(1, text, argv=("scancel", "9")))


def test_one_that_is_over_does_not_decide_for_the_others() -> None:
    """A controller that goes down between two jobs of one scancel is asked again."""
    text = "scancel: error: Kill job error on job id {}: {}\n"
    told = text.format(8, "Invalid job id specified") + text.format(9, "Unable to contact slurm controller")
    with pytest.raises(SchedulerError) as caught:
        SLURM.cancelled(said(1, told, argv=("scancel", "8", "9")))
    assert caught.value.transient


# -- finding


def test_find_takes_whole_marks() -> None:
    """A mark that another one begins with is not taken for it."""
    live, _ = SLURM.find(["a-1", "a-10"])
    answer = Completed(live.argv, 0, "7 /run/a-10.sh\n8_[0-9] /run/x a-1/a-2.sh\n9_3 /run/a-1-jobs.sh\n", "")
    assert SLURM.find_read(answer, ["a-1", "a-10", "a-2"]) == {"a-10": "7", "a-1": "9", "a-2": "8"}


def test_find_without_accounts() -> None:
    """A site without accounts has no say; squeue's silence is no answer."""
    live, accounts = SLURM.find(["a"])
    assert SLURM.find_read(Completed(accounts.argv, 1, "", "Slurm accounting storage is disabled\n"), ["a"]) == {}
    with pytest.raises(SchedulerError):
        SLURM.find_read(Completed(live.argv, 1, "", "slurm_load_jobs error: Socket timed out"), ["a"])


def test_no_arrays_of_heterogeneous_jobs() -> None:
    """Slurm has none: that is said before anything is submitted."""
    settings = SbatchSettings()
    settings.add_het_component(SbatchSettings(2))
    assert SLURM.submit(batch(settings)).argv[0] == "sbatch"
    with pytest.raises(UnsupportedError, match="pack = 'array'"):
        SLURM.submit(batch(settings, size=3))


# -- dependencies


def test_what_waits_for_ever() -> None:
    """A dependency that failed ends a job, and it is taken out of the queue: an array whole only if all its tasks are."""
    row = lambda state, reason: evidence(state, "0:0", "N/A", "N/A", "", reason)  # noqa: E731
    never, waits = row("PENDING", "DependencyNeverSatisfied"), row("PENDING", "Dependency")
    assert (never.state, waits.state) == (JobState.CANCELLED, JobState.PENDING)
    assert never.reason == "DependencyNeverSatisfied: a job that it depends on did not end as it must"
    found = {"1": never, "2": waits, "3_0": never, "3_1": never, "4_0": waits, "4_1": never}
    assert SLURM.lingering(found) == ["1", "3", "4_1"]
    gone = row("CANCELLED", "DependencyNeverSatisfied")
    assert SLURM.lingering({"1": gone}) == []
