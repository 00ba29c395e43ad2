"""Grid Engine's words against a real Grid Engine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from asim.errors import SubmitError, UnsupportedError
from asim.launchers.dialect import Batch, SchedulerError
from asim.launchers.sge import SGE
from asim.settings import BatchContext, SgeQsubBatchSettings
from asim.settings.script import Places
from asim.status import JobState
from tests.servers import until
from tests.site.asking import Asker, states
from tests.site.sge import SgeSite

pytestmark = pytest.mark.slow
C, F, R, P = JobState.COMPLETED, JobState.FAILED, JobState.RUNNING, JobState.PENDING


@pytest.fixture
def user(sge: SgeSite, tmp_path: Path) -> Asker:
    """A user of Grid Engine."""
    return Asker(SGE(), sge, tmp_path)


def asked(out: str = "/dev/null", **args: object) -> SgeQsubBatchSettings:
    """Settings whose output goes nowhere."""
    return SgeQsubBatchSettings(batch_args={"o": out, "j": "y", **args})  # type: ignore[arg-type]


def test_every_end(user: Asker) -> None:
    """Each way in which a job ends is told apart in the accounts, with its code and a reason in words."""
    take = lambda text, **args: user.take(user.batch(text, asked(**args)))  # noqa: E731
    since = time.time()
    ends = {
        take("true"): (C, 0, ""),
        take("exit 3"): (F, 3, "exit_status 3"),
        take("kill -9 $$"): (F, -9, "100 (assumedly after job): it was killed or deleted"),
        take("sleep 600", l="h_rt=0:0:2"): (JobState.TIMEOUT, -9, "37 (qmaster enforced"),
    }
    until(lambda: user.account(*ends).keys() == ends.keys(), 40)
    found = user.account(*ends)
    for job, (state, code, words) in ends.items():
        assert (found[job].state, found[job].code, found[job].reason[: len(words)]) == (state, code, words)
        assert since - 2 < found[job].time < time.time() + 2
    assert user.status(*ends).keys() & ends.keys() == set()


def test_paths_of_output_files(user: Asker, tmp_path: Path) -> None:
    """What Grid Engine would replace in a path is refused; all else stays, and the output is there."""
    places = Places(ends=str(tmp_path), stops=str(tmp_path), mark="m")
    base = BatchContext(name="job", stdout="", stderr="", places=places)
    names = ["%j%J %t", "a$b$USE$.out", "^x^&;|(y)", "a\\b"]
    jobs = []
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        out = f"{tmp_path}/{name}/{name}"
        script = tmp_path / f"{number}.sh"
        directives = SgeQsubBatchSettings().directives(replace(base, stdout=out, stderr=f"{out}.err"))
        script.write_text("\n".join(["#!/bin/sh", *directives, "echo out; echo err >&2"]))
        settings = SgeQsubBatchSettings()
        jobs.append(user.take(Batch(name="job", mark=f"m{number}", script=str(script), settings=settings)))
    until(lambda: user.account(*jobs).keys() == set(jobs), 40)
    assert [[(tmp_path / name / f"{name}{end}").read_text() for end in ("", ".err")] for name in names] == [
        ["out\n", "err\n"]
    ] * 4


@pytest.mark.parametrize("word", ["$USER", "$HOME", "$JOB_ID", "$JOB_NAME", "$HOSTNAME", "$TASK_ID", "$$USER", "#"])
def test_paths_that_would_be_others(user: Asker, tmp_path: Path, word: str) -> None:
    """What is refused is what a real one replaces."""
    out = tmp_path / f"out{word}x"
    with pytest.raises(UnsupportedError):
        SgeQsubBatchSettings().directives(
            BatchContext(name="job", stdout=str(out), stderr="/dev/null", places=Places(ends="", stops="", mark="m"))
        )
    job = user.take(user.batch(f"#$ -o '{out}'\ntrue", SgeQsubBatchSettings(batch_args={"j": "y"})))
    until(lambda: job in user.account(job) or states(user.status(job), [job]) == ["FAILED"], 40)
    assert not out.exists()


def test_a_job_that_cannot_start(user: Asker) -> None:
    """An output file that cannot be opened leaves the job in the queue for ever: that is a failure, and it is told why."""
    job = user.take(user.batch("true", asked(out="/nonexistent/dir/out")))
    assert user.until_states({job: F})[job].reason.startswith("Eqw: it could not be started")
    until(lambda: job in user.account(job), 20)
    assert user.account(job)[job].reason == "26 (opening input/output file): its output files cannot be opened"
    user.cancel(job)
    until(lambda: job not in user.status(job), 20)


def test_array(user: Asker) -> None:
    """Tasks have their own states and numbers from 0; at most so many run; single ones are cancelled."""
    job = user.take(
        user.batch('sleep 600 & echo "$((SGE_TASK_ID - 1))" > "$0.task"; wait', asked(), size=5, throttle=2)
    )
    tasks = [user.dialect.task(job, index) for index in range(5)]
    found = user.until_states({tasks[0]: R, tasks[1]: R, tasks[4]: P})
    assert states(found, tasks) == ["RUNNING"] * 2 + ["PENDING"] * 3
    user.cancel(tasks[0], tasks[4])
    until(lambda: tasks[0] not in user.status(job) and tasks[4] not in user.status(job), 20)
    user.cancel(job, job)
    until(lambda: not user.status(job), 20)
    until(lambda: set(tasks[:2]) <= user.account(job).keys(), 20)
    ended = user.account(job)
    assert {ended[task].code for task in tasks[:2]} == {-9}
    assert tasks[4] not in ended  # what was deleted while it waited is nowhere


def test_find(user: Asker) -> None:
    """Jobs are found by their marks while they wait, run, and when they have ended."""
    batches = [user.batch("sleep 600", asked()), user.batch("true", asked(h=True)), user.batch("true", asked())]
    batches.append(user.batch("sleep 600", asked(), size=3, throttle=1))
    jobs = [user.take(batch) for batch in batches]
    user.until_states({jobs[0]: R, jobs[1]: P})
    until(lambda: jobs[2] in user.account(jobs[2]), 20)
    assert user.find(*(batch.mark for batch in batches), "asim-none") == {
        batch.mark: job for batch, job in zip(batches, jobs, strict=True)
    }


def test_the_master_is_down(user: Asker, sge: SgeSite) -> None:
    """Nothing is concluded from silence, and what ended meanwhile is known afterwards."""
    ends, stays = user.take(user.batch("sleep 2; exit 4", asked())), user.take(user.batch("sleep 600", asked()))
    user.until_states({ends: R, stays: R})
    sge.down()
    with pytest.raises(SchedulerError, match="unable to send message to qmaster") as caught:
        user.status(ends, stays)
    assert caught.value.transient
    with pytest.raises(SubmitError) as refused:
        user.take(user.batch("true", asked()))
    assert refused.value.transient
    with pytest.raises(SchedulerError):
        user.cancel(stays)
    sge.up()
    until(lambda: ends in user.account(ends), 60)
    assert user.account(ends)[ends].code == 4
    assert user.status(stays)[stays].state is R


def test_unknown_jobs_are_no_error(user: Asker) -> None:
    """Ids that are not known are absent, and cancelling them is no error."""
    job = user.take(user.batch("sleep 600", asked()))
    user.until_states({job: R})
    assert user.account("999999", job) == {}
    user.cancel("999999", job)
    until(lambda: job not in user.status(job), 20)


@pytest.mark.parametrize("args", [{"q": "nowhere.q"}, {"l": "nosuch=1"}, {"P": "noproject"}])
def test_refused(user: Asker, args: dict[str, str]) -> None:
    """What it will never take is an error at once, with its words."""
    with pytest.raises(SubmitError, match="Unable to run job: ") as caught:
        user.take(user.batch("true", asked(**args)))
    assert not caught.value.transient


def test_over_the_limit(user: Asker, sge: SgeSite) -> None:
    """A user who has as many jobs as are allowed may try again later."""
    sge.configure(max_u_jobs=1)
    try:
        user.take(user.batch("true", asked(h=True)))
        with pytest.raises(SubmitError, match="only 1 jobs are allowed per user") as caught:
            user.take(user.batch("true", asked(h=True)))
        assert caught.value.transient
    finally:
        sge.configure(max_u_jobs=0)


def test_slots_on_several_hosts(user: Asker, tmp_path: Path) -> None:
    """A parallel environment gives slots, and its file of hosts names them."""
    settings = asked()
    settings.set_pe_type("mpi")
    settings.set_ncpus(3)
    job = user.take(user.batch(f"cat $PE_HOSTFILE > {tmp_path}/hosts", settings))
    until(lambda: job in user.account(job), 30)
    assert {line.split()[0] for line in (tmp_path / "hosts").read_text().splitlines()} == {"h1", "h2"}
