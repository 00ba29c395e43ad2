"""Slurm's words against a real Slurm."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from asim.errors import SubmitError
from asim.launchers.base import JobStatus
from asim.launchers.dialect import SchedulerError
from asim.launchers.slurm import Slurm
from asim.settings import SbatchSettings
from asim.status import JobState
from tests.servers import until
from tests.site.asking import Asker, states
from tests.site.slurm import SlurmSite

C, F, R, P, X = JobState.COMPLETED, JobState.FAILED, JobState.RUNNING, JobState.PENDING, JobState.CANCELLED


@pytest.fixture
def user(slurm: SlurmSite, tmp_path: Path) -> Asker:
    """A user of Slurm without accounting."""
    return Asker(Slurm(), slurm, tmp_path)


@pytest.fixture
def accounted(slurm_accounting: SlurmSite, tmp_path: Path) -> Asker:
    """A user of Slurm with accounting."""
    return Asker(Slurm(), slurm_accounting, tmp_path)


def asked(out: str = "/dev/null", **args: object) -> SbatchSettings:
    """Settings whose output goes nowhere."""
    return SbatchSettings(batch_args={"output": out} | {key.replace("_", "-"): value for key, value in args.items()})  # type: ignore[arg-type]


def every_end(user: Asker) -> dict[str, tuple[JobState, int | None, str]]:
    """Jobs with all the ends that come soon: id -> state, exit code, and what the reason begins with."""
    take = lambda text, **args: user.take(user.batch(text, asked(**args)))  # noqa: E731
    failed = take("exit 3")
    running, waiting = take(f"touch {user.directory}/runs; sleep 600"), take("sleep 600", hold=True)
    ends: dict[str, tuple[JobState, int | None, str]] = {
        take("true"): (C, 0, ""),
        failed: (F, 3, "FAILED: exit code 3"),
        take("kill -9 $$"): (F, -9, "FAILED: killed by SIGKILL"),
        take("true", out="/nonexistent/dir/out"): (F, None, "FAILED: its output file or directory cannot be used on n"),
        take("true", dependency=f"afterok:{failed}", kill_on_invalid_dep="yes"): (
            X,
            None,
            "CANCELLED: somebody cancelled it",
        ),
        waiting: (X, None, "CANCELLED: somebody cancelled it"),
    }
    user.until_states({running: R, waiting: P, failed: F})
    until((user.directory / "runs").exists, 20)  # RUNNING begins before the script does
    user.cancel(running, waiting)
    user.until_states({running: X, **{job: end[0] for job, end in ends.items()}})
    assert user.status(running)[running].code in (-15, 143)  # the shell's own death, or what it says of its child's
    return {**ends, running: (X, None, "CANCELLED: somebody cancelled it")}


def check(found: dict[str, JobStatus], ends: dict[str, tuple[JobState, int | None, str]], since: float) -> None:
    for job, (state, code, words) in ends.items():
        status = found[job]
        assert (status.state, status.reason[: len(words)]) == (state, words)
        assert code is None or status.code == code
        assert since - 2 < status.time < time.time() + 2  # whole seconds


def test_every_end(user: Asker) -> None:
    """Each way in which a job ends is told apart, with its code, its time and a reason in words."""
    since = time.time()
    ends = every_end(user)
    check(dict(user.status(*ends)), ends, since)
    assert user.account(*ends) == {}  # this site keeps no accounts


@pytest.mark.slow
def test_every_end_in_the_accounts(accounted: Asker) -> None:
    """The accounts say the same, also of jobs that the controller has forgotten."""
    since = time.time()
    ends = every_end(accounted)
    until(lambda: accounted.account(*ends).keys() == ends.keys(), 20)
    check(dict(accounted.account(*ends)), ends, since)


def test_an_answer_has_its_time(user: Asker) -> None:
    """Times are right whatever the zone of the host, and a job that runs is known since when."""
    user.site.env["TZ"] = "Asia/Tokyo"
    try:
        job = user.take(user.batch("sleep 600", asked()))
        found = user.until_states({job: R})
    finally:
        del user.site.env["TZ"]
    assert abs(found[job].time - time.time()) < 15


def test_filters_of_the_user_hide_nothing(user: Asker) -> None:
    """A user's default for squeue must not make jobs vanish."""
    user.site.env["SQUEUE_PARTITION"] = "low"
    try:
        job = user.take(user.batch("sleep 600", asked()))
        assert user.status(job)[job].state in (P, R)
        assert user.find(f"asim-{job}x") == {}
    finally:
        del user.site.env["SQUEUE_PARTITION"]


def test_array(user: Asker) -> None:
    """Tasks have their own states; at most so many run; single ones are cancelled, running or waiting."""
    line = f"touch {user.directory}/task.$SLURM_ARRAY_TASK_ID; sleep 600"
    job = user.take(user.batch(line, asked(), size=6, throttle=2))
    tasks = [user.dialect.task(job, index) for index in range(6)]
    found = user.until_states({tasks[0]: R, tasks[1]: R, tasks[5]: P})
    assert states(found, tasks) == ["RUNNING"] * 2 + ["PENDING"] * 4
    assert found[tasks[5]].reason == "JobArrayTaskLimit"
    until((user.directory / "task.0").exists, 20)
    user.cancel(tasks[0], tasks[5])
    found = user.until_states({tasks[0]: X, tasks[2]: R, tasks[3]: P})
    until(lambda: len(list(user.directory.glob("task.*"))) == 3, 20)
    assert tasks[5] not in found  # Slurm forgets a task that was cancelled while it waited
    user.cancel(job)
    found = user.until_states(dict.fromkeys(tasks[:5], X))
    assert [found[task].code for task in tasks[:5]] == [-15, -15, -15, None, None]


def test_tasks_share_their_output_file(user: Asker, tmp_path: Path) -> None:
    """What one task of an array prints is not wiped by the next one."""
    job = user.take(user.batch('echo "task $SLURM_ARRAY_TASK_ID"', asked(out=str(tmp_path / "out")), size=4))
    user.until_states(dict.fromkeys((user.dialect.task(job, index) for index in range(4)), C))
    assert sorted((tmp_path / "out").read_text().splitlines()) == [f"task {index}" for index in range(4)]


def test_find(user: Asker, slurm: SlurmSite, tmp_path: Path) -> None:
    """Jobs of all kinds are found by their marks, below long paths with blanks, also when they have ended."""
    there = Asker(user.dialect, slurm, tmp_path / ("a b" * 60) / ("c|d" * 60))
    batches = [
        there.batch("sleep 600", asked()),
        there.batch("sleep 600", asked(), size=4, throttle=1),
        there.batch("true", asked()),
    ]
    batches.append(there.batch("#SBATCH --ntasks=1\n#SBATCH hetjob\n#SBATCH --ntasks=2\nsleep 600", asked()))
    jobs = [there.take(batch) for batch in batches]
    there.until_states({jobs[2]: C})
    assert there.find(*(batch.mark for batch in batches), "asim-none") == {
        batch.mark: job for batch, job in zip(batches, jobs, strict=True)
    }


def test_the_answer_of_a_submit_is_lost(user: Asker, slurm: SlurmSite) -> None:
    """The controller takes a job whose sbatch is gone before it hears that: it is found by its mark."""
    batch = user.batch("sleep 600", asked())
    slurm.pause(True)
    try:
        with subprocess.Popen(user.dialect.submit(batch).argv, env=slurm.env, stdout=-3, stderr=-3) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            process.kill()
    finally:
        slurm.pause(False)
    until(lambda: batch.mark in user.find(batch.mark), 20)


def test_heterogeneous_job(user: Asker) -> None:
    """A job of two parts is one job: it runs, and it is cancelled as a whole."""
    job = user.take(user.batch("#SBATCH --ntasks=1\n#SBATCH hetjob\n#SBATCH --ntasks=2\nsleep 600", asked()))
    assert list(user.until_states({job: R})) == [job]
    user.cancel(job)
    user.until_states({job: X})


def test_reasons_for_waiting(user: Asker) -> None:
    """Why a job waits is told in Slurm's words."""
    held = user.take(user.batch("true", asked(hold=True)))
    large = user.take(user.batch("true", asked(nodes=100)))
    wanted = {held: "JobHeldUser", large: "PartitionConfig"}
    until(lambda: {job: user.status(job)[job].reason for job in wanted} == wanted, 20)


@pytest.mark.slow
def test_a_node_is_lost(user: Asker, slurm: SlurmSite) -> None:
    """A job that cannot start again has failed, and says why; one that can waits again and runs again, and says that."""
    once = user.take(user.batch("sleep 600", asked(nodelist="n3", no_requeue=True)))
    again = user.take(user.batch("sleep 600", asked(nodelist="n3", requeue=True)))
    user.until_states({once: R, again: R})
    slurm.set_node("n3", "down")
    found = user.until_states({once: F, again: P})
    assert found[once].reason == "NODE_FAIL: a node was lost on n3"
    assert found[once].code is None
    assert found[again].reason.endswith("requeued 1 time")
    assert user.until_states({again: R})[again].reason == "requeued 1 time"


def test_a_job_gives_way(user: Asker) -> None:
    """Preemption is no failure of the program: it is told as what it is, or the job waits again."""
    ends = user.take(user.batch("sleep 600", asked(partition="spare", nodelist="n4", exclusive=True)))
    waits = user.take(user.batch("sleep 600", asked(partition="low", nodelist="n2", exclusive=True)))
    user.until_states({ends: R, waits: R})
    for node in ("n2", "n4"):
        user.take(user.batch("sleep 600", asked(nodelist=node, exclusive=True)))
    found = user.until_states({ends: F, waits: P})
    assert found[ends].reason.startswith("PREEMPTED: ")
    assert found[waits].reason.endswith("requeued 1 time")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_controller_is_down(user: Asker, slurm: SlurmSite) -> None:
    """Nothing is concluded from silence, and what ended meanwhile is known afterwards."""
    ends, stays = user.take(user.batch("sleep 1; exit 4", asked())), user.take(user.batch("sleep 600", asked()))
    user.until_states({ends: R, stays: R})
    slurm.down()
    with pytest.raises(SchedulerError, match="Unable to contact slurm controller") as caught:
        user.status(ends, stays)
    assert caught.value.transient
    with pytest.raises(SubmitError) as refused:
        user.take(user.batch("true", asked()))
    assert refused.value.transient
    with pytest.raises(SchedulerError):
        user.cancel(stays)
    slurm.up()
    found = user.until_states({ends: F, stays: R})
    assert (found[ends].code, found[ends].reason) == (4, "FAILED: exit code 4")


def test_forgotten_jobs_are_no_error(user: Asker) -> None:
    """Ids that Slurm does not know are absent, alone and beside others."""
    job = user.take(user.batch("sleep 600", asked()))
    assert user.status("999999") == {}
    assert list(user.status("999999", job, "999998")) == [job]
    user.cancel("999999", job, job)
    user.until_states({job: X})
    user.cancel(job)


@pytest.mark.parametrize("args", [{"partition": "nowhere"}, {"time": "soon"}, {"dependency": "afterok:x"}])
def test_refused(user: Asker, args: dict[str, str]) -> None:
    """What Slurm will never take is an error at once, with its words."""
    with pytest.raises(SubmitError, match="sbatch: error: ") as caught:
        user.take(user.batch("true", asked(**args)))
    assert not caught.value.transient


def test_a_closed_partition_may_open(user: Asker) -> None:
    """A partition that is drained takes jobs again some day."""
    with pytest.raises(SubmitError) as caught:
        user.take(user.batch("true", asked(partition="closed")))
    assert caught.value.transient


def test_the_number_of_commands(user: Asker) -> None:
    """A thousand members cost one submit and one query, and one command to cancel."""
    job = user.take(user.batch("sleep 600", asked(hold=True), size=1000, throttle=50))
    assert len(user.status(job)) == 1000
    user.cancel(job)
    assert len(user.commands) == 3
    found = user.until_states({user.dialect.task(job, 999): X})
    assert {status.state for status in found.values()} == {X}


@pytest.mark.slow
def test_over_the_limit_of_submits(accounted: Asker) -> None:
    """A user who has as many jobs as are allowed may try again later; one who asks for too much may not."""
    site = accounted.site
    qos = ("sacctmgr", "-i", "modify", "qos", "normal", "set")
    site.run(*qos, "maxsubmitjobsperuser=1", "maxwall=5", "flags=DenyOnLimit")
    try:
        until(lambda: _refusal(accounted, hold=True, time="1") is True, 20)
        assert _refusal(accounted, time="60") in (True, False)
        accounted.site.run("scancel", "-u", "root")
        site.run(*qos, "maxsubmitjobsperuser=-1")
        until(lambda: _refusal(accounted, time="60") is False, 20)
    finally:
        site.run(*qos, "maxsubmitjobsperuser=-1", "maxwall=-1", "flags=-1")


def _refusal(user: Asker, **args: object) -> bool | None:
    """None: taken. Otherwise whether it may be taken later."""
    try:
        user.take(user.batch("true", asked(**args)))
    except SubmitError as error:
        return error.transient
    return None


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_time_limit(accounted: Asker) -> None:
    """A job at its limit is TIMEOUT, in the queue and in the accounts. (Slurm's limits are whole minutes.)"""
    job = accounted.take(accounted.batch("sleep 600", asked(time="1")))
    found = accounted.until_states({job: JobState.TIMEOUT}, within=150)
    assert found[job].reason == "TIMEOUT: it reached its time limit on n1"
    until(lambda: job in accounted.account(job), 20)
    assert accounted.account(job)[job].state is JobState.TIMEOUT


@pytest.mark.slow
def test_the_accounts_are_down(accounted: Asker) -> None:
    """Accounts that do not answer are not accounts without this job."""
    job = accounted.take(accounted.batch("true", asked()))
    accounted.until_states({job: C})
    accounted.site.stop("slurmdbd")
    try:
        with pytest.raises(SchedulerError, match="sacct ended with code 1") as caught:
            accounted.account(job)
        assert caught.value.transient
        assert accounted.status(job)[job].state is C
    finally:
        accounted.site.start("slurmdbd", "slurmdbd", "-D")
        accounted.site.ready("sacctmgr", "-n", "show", "cluster", what="slurmdbd")
