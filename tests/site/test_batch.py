"""Batch jobs of experiments, on a real Slurm."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from asim import Ensemble, JobFailed, Retry, SubmitError
from asim.runtime.job import Job
from asim.settings.script import Pack
from tests.site.experiments import (
    C,
    F,
    Lab,
    P,
    R,
    T,
    X,
    accounted,
    anyio_backend,
    ends,
    lab,
    processes,
    state_of,
    until,
)

__all__ = ["accounted", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PACKS: list[Pack] = ["job", "array", "separate"]
ODD = ("a,b", "c  d ", "e\nf", "g'h", 'i"j', "k\\l", "$HOME `id` $(id)", "*", "", "ö\udcff", "-n")
ODD_ENV = {"ODD_A": "a,b", "ODD_B": " c\nd ", "ODD_C": "e'f\"g\\h", "ODD_D": "", "ODD_E": "$HOME=`id`"}
SHOW = (
    'import os, sys, json; print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k[:4] == "ODD_"}]))'
)


def check_times(job: Job, since: float) -> None:
    """Both times are there, in order, and between then and now. (Slurm tells whole seconds.)"""
    assert job.started_at is not None
    assert job.ended_at is not None
    earliest, latest = datetime.fromtimestamp(since - 1, UTC), datetime.fromtimestamp(time.time() + 1, UTC)
    assert earliest <= job.started_at <= job.ended_at <= latest


# -- the five ways to make an ensemble


async def test_run_settings_and_params(lab: Lab) -> None:
    """Case 1: members with parameters run by srun, each a job of its own outside an allocation."""
    async with lab.experiment() as exp:
        settings = exp.create_run_settings("/bin/sh", ["-c", 'echo $SLURM_JOB_ID "$@"', "sh"])
        ensemble = exp.create_ensemble("e", {"steps": [1, 2]}, run_settings=settings, params_as_args="steps")
        with anyio.fail_after(30):
            group = await exp.start(ensemble, check=True)
        told = [job.stdout.read_text().split() for job in group]
    assert settings.run_command.endswith("srun")
    assert len({words[0] for words in told}) == 2
    assert [words[1:] for words in told] == [["--steps=1"], ["--steps=2"]]


async def test_run_settings_and_replicas(lab: Lab) -> None:
    """Case 2: equal members."""
    async with lab.experiment() as exp:
        settings = exp.create_run_settings("/bin/sh", ["-c", "exit 5"])
        with anyio.fail_after(30):
            group = await exp.start(exp.create_ensemble("e", run_settings=settings, replicas=3))
    assert ends(group) == [(F, 5)] * 3


async def test_batch_settings_alone(lab: Lab) -> None:
    """Case 3: models that were added by hand run together in one batch job, each its own program with srun."""
    async with lab.experiment() as exp:
        ensemble = exp.create_ensemble(exp.create_batch_settings(nodes=2))
        for number in (1, 2):
            settings = exp.create_run_settings("/bin/sh", ["-c", f"echo $SLURM_JOB_ID $SLURMD_NODENAME; exit {number}"])
            settings.set_nodes(1)
            settings.set_tasks(1)
            ensemble.add_model(exp.create_model(f"model_{number}", settings, params={"THERMO": 95}))
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        told = [job.stdout.read_text().split() for job in group]
    assert ends(group) == [(F, 1), (F, 2)]
    assert told[0][0] == told[1][0]
    assert lab.jobs("%D %j") == ["2 ensemble"]
    assert len(lab.calls("sbatch")) == 1


async def test_batch_settings_and_params(lab: Lab) -> None:
    """Case 4: a batch job of members with parameters; the configured files are theirs."""
    (lab.place / "in.txt").write_text("value ;x;")
    async with lab.experiment() as exp:
        ensemble = exp.create_ensemble(
            "e", {"x": [3, 4]}, batch_settings=exp.create_batch_settings(), run_settings=lab.sh("cat in.txt")
        )
        ensemble.attach_generator_files(to_configure="in.txt")
        with anyio.fail_after(30):
            group = await exp.start(ensemble, check=True)
    assert [job.stdout.read_text() for job in group] == ["value 3", "value 4"]


@pytest.mark.parametrize("pack", PACKS)
async def test_batch_settings_and_replicas(lab: Lab, pack: Pack) -> None:
    """Case 5, packed in each way: every member has its own state, code, times, host and output; a failure is seen."""
    since = time.time()
    async with lab.experiment() as exp:
        line = "echo out of $PWD; echo err >&2; case $PWD in *_2) exit 7 ;; esac"
        ensemble = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh(line), replicas=4, pack=pack)
        await exp.generate(ensemble)
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        assert ends(group) == [(C, 0), (C, 0), (F, 7), (C, 0)]
        assert group[2].reason == "exit code 7"
        with pytest.raises(JobFailed, match=r"1 job\(s\) did not complete\ne_2: FAILED, exit code 7"):
            group.check()
        for job in group:
            assert job.stdout.read_text() == f"out of {job.cwd}\n"
            assert job.stderr.read_text() == "err\n"
            assert job.host == os.uname().nodename
            check_times(job, since)
    assert len(lab.calls("sbatch")) == (4 if pack == "separate" else 1)
    await until(lambda: {line.split()[1] for line in lab.jobs()} <= {"COMPLETED", "FAILED"})
    failed = [line for line in lab.jobs() if "FAILED" in line]
    assert len(failed) == 1  # the batch job of the failed member, or of them all: Slurm sees it, too


async def test_models_with_batch_settings(lab: Lab) -> None:
    """A model with batch settings is a batch job; in an ensemble without, only those members are that have their own."""
    async with lab.experiment() as exp:
        alone = exp.create_model("alone", lab.sh("echo $SLURM_JOB_NAME"), batch_settings=lab.batch(comment="x y"))
        ensemble = Ensemble("e", run_settings=lab.sh("echo ${SLURM_JOB_NAME-none}"), replicas=2)
        ensemble.add_model(exp.create_model("own", lab.sh("echo $SLURM_JOB_NAME"), batch_settings=lab.batch()))
        with anyio.fail_after(30):
            group = await exp.start(alone, ensemble, check=True)
        assert [job.stdout.read_text() for job in group] == ["alone\n", "none\n", "none\n", "own\n"]
    assert sorted(lab.jobs("%j %k")) == ["alone x y", "own (null)"]


# -- what arrives


@pytest.mark.parametrize("pack", PACKS)
async def test_odd_bytes(lab: Lab, pack: Pack) -> None:
    """Commas, blanks, line breaks, quotes and bytes that are no text arrive, in names, arguments and environment."""
    async with lab.experiment("ex p,'1\"%t") as exp:
        ensemble = Ensemble("e,n s'e\"m$x#%j", batch_settings=lab.batch(), pack=pack)
        plain = lab.python(SHOW, env_vars=ODD_ENV)
        plain.add_exe_args(list(ODD))
        step = exp.create_run_settings(plain.exe, plain.exe_args, env_vars=ODD_ENV, run_args={"exact": None, "n": 1})
        ensemble.add_model(exp.create_model("m, 'a\" b%A", plain))
        ensemble.add_model(exp.create_model("s, 'a\" $USER%t %%N#", step))
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        for job in group:
            assert (job.status, job.stderr.read_text()) == (C, "")
            assert json.loads(job.stdout.read_text()) == [list(ODD), ODD_ENV]
        names = [job.name for job in group]
    own = [f"{name}.batch" for name in names] if pack == "separate" else ["e,n s'e\"m$x#%j"]
    files = {path.name for kind in ("out", "err") for path in (lab.place / "ex p,'1\"%t").rglob(f"*.{kind}")}
    assert files == {f"{name}.{kind}" for name in (*names, *own) for kind in ("out", "err")}  # and no others


async def test_environment_is_the_drivers(lab: Lab) -> None:
    """Members get the driver's environment with their own changes; what is changed for one is not for another."""
    lab.environ.setenv("ODD_HERE", "yes\nit is")
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch())
        ensemble.add_model(exp.create_model("a", lab.python(SHOW, env_vars={"ODD_HERE": "mine"})))
        ensemble.add_model(exp.create_model("b", lab.python(SHOW)))
        with anyio.fail_after(30):
            group = await exp.start(ensemble, check=True)
        told = [json.loads(job.stdout.read_text())[1] for job in group]
    assert told == [{"ODD_HERE": "mine"}, {"ODD_HERE": "yes\nit is"}]


# -- policies


@pytest.mark.parametrize("pack", PACKS)
async def test_a_dependency_that_failed(lab: Lab, pack: Pack) -> None:
    """What waits for a job that failed can never start: it ends, is not left in the queue, and the wait is not for ever."""
    failed = lab.site.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "false").stdout.strip()
    async with lab.experiment() as exp:
        batch = lab.batch(dependency=f"afterok:{failed}")
        ensemble = Ensemble("e", batch_settings=batch, run_settings=lab.sh("true"), replicas=2, pack=pack)
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        assert ends(group) == [(X, None)] * 2
        words = "DependencyNeverSatisfied: a job that it depends on did not end as it must"
        assert {job.reason for job in group} == {words}
        await until(lambda: all(line.endswith(" CANCELLED") for line in lab.jobs() if not line.startswith(failed)))


@pytest.mark.parametrize("pack", PACKS)
async def test_retries(lab: Lab, pack: Pack) -> None:
    """A member that failed is submitted again, alone; the output of the first attempt is kept."""
    async with lab.experiment() as exp:
        line = "echo $SLURM_JOB_ID; [ -e there ] || { : > there; exit 9; }"
        ensemble = Ensemble(
            "e",
            batch_settings=lab.batch(),
            run_settings=lab.sh(line),
            replicas=2,
            pack=pack,
            retries=Retry(times=1, backoff=0),
        )
        await exp.generate(ensemble)
        (Path(ensemble.models[1].path or exp.exp_path + "/e/e_1") / "there").touch()
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        assert ends(group) == [(C, 0), (C, 0)]
        assert [job.attempt for job in group] == [2, 1]
        first, second = Path(f"{group[0].stdout}.1").read_text(), group[0].stdout.read_text()
    assert first != second
    assert len(lab.calls("sbatch")) == (3 if pack == "separate" else 2)


async def test_dependencies(lab: Lab) -> None:
    """What waits for a batch job is submitted when that has completed, and never when it failed."""
    async with lab.experiment() as exp:
        first = exp.create_model("first", lab.sh("echo 1 > made"), batch_settings=lab.batch())
        second = exp.create_model("second", lab.sh("cat made; exit 4"), batch_settings=lab.batch())
        third = exp.create_model("third", lab.sh("true"), batch_settings=lab.batch())
        second.after(first)
        third.after(second)
        with anyio.fail_after(30):
            group = await exp.start(third, second, first)
        assert ends(group) == [(X, None), (F, 4), (C, 0)]
        assert group[1].stdout.read_text() == "1\n"
    assert len(lab.calls("sbatch")) == 2


@pytest.mark.parametrize("pack", PACKS)
async def test_timeout(lab: Lab, pack: Pack) -> None:
    """A member that runs longer than its own limit is TIMEOUT and gone, with its children; the others go on."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), pack=pack)
        stubborn = "sh -c 'trap \"\" TERM; exec sleep 654.321' & sleep 600"
        ensemble.add_model(exp.create_model("a", lab.sh(stubborn), timeout=0.5))
        ensemble.add_model(exp.create_model("b", lab.sh("sleep 1.5"), timeout=30))
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        assert [job.status for job in group] == [T, C]
        assert group[0].reason == "stopped at its time limit"
        await until(lambda: not processes("654.321"))


async def test_fail_fast(lab: Lab) -> None:
    """When one member fails, the others of its batch job are stopped."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), fail_fast=True)
        ensemble.add_model(exp.create_model("good", lab.sh("sleep 600")))
        ensemble.add_model(exp.create_model("bad", lab.sh("sleep 0.3; exit 1")))
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
    assert [job.status for job in group] == [X, F]


async def test_walltime(lab: Lab) -> None:
    """A job that Slurm ends at its limit is TIMEOUT, each member; the warning that was asked for reaches programs before."""
    async with lab.experiment() as exp:
        warned = "trap 'echo warned; exit 0' USR1; echo ready; sleep 600 & wait"
        # the limit is looked at every 30 s; the warning comes at the first look after there is less than a minute left
        asked = {"time": "10", "signal": "B:USR1@60"}
        groups = [
            await exp.start(
                Ensemble(
                    f"{name}-{pack}",
                    batch_settings=lab.batch(**settings),
                    run_settings=lab.sh(line),
                    replicas=2,
                    pack=pack,
                ),
                block=False,
            )
            for name, line, settings in (("over", "sleep 600", {}), ("warned", warned, asked))
            for pack in ("job", "array")
        ]
        over, told = [*groups[0], *groups[1]], [*groups[2], *groups[3]]
        for job in (*over, *told):
            await state_of(job, R)
        await until(lambda: all(job.stdout.exists() and job.stdout.read_text() for job in told))  # their traps are set
        for job in dict.fromkeys(map(lab.job_of, over)):
            lab.site.run("scontrol", "update", f"jobid={job}", "EndTime=now")
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 50))
        for job in dict.fromkeys(map(lab.job_of, told)):
            lab.site.run("scontrol", "update", f"jobid={job}", f"EndTime={soon}")
        with anyio.fail_after(50):
            for group in groups:
                await group.wait()
        assert [job.status for job in over] == [T] * 4
        assert all("TIMEOUT: it reached its time limit" in job.reason for job in over)
        assert [(job.status, job.stdout.read_text()) for job in told] == [(C, "ready\nwarned\n")] * 4


# -- stopping


async def test_cancel_one_packed(lab: Lab) -> None:
    """Stopping one member of a packed job leaves the others alone, and does not wait for their end."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh("sleep 543.21; true"), replicas=3)
        group = await exp.start(ensemble, block=False)
        for job in group:
            await state_of(job, R)
        await until(lambda: all(job.pid for job in group))  # the queue's word may come before they start
        with anyio.fail_after(20):
            await group[1].cancel()
        assert [job.status for job in group] == [R, X, R]
        assert group[1].reason == "stopped"
        assert lab.calls("scancel") == []
    assert [job.status for job in group] == [X] * 3
    assert len(lab.calls("scancel")) == 1
    await until(lambda: not processes("543.21"))


async def test_cancel_tasks(lab: Lab) -> None:
    """Tasks of an array are stopped by themselves, many with one command, waiting ones too."""
    async with lab.experiment(max_concurrent=2) as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh("sleep 600"), replicas=6, pack="array")
        group = await exp.start(ensemble, block=False)
        for job in group[:2]:
            await state_of(job, R)
        with anyio.fail_after(20):
            await exp.stop(*ensemble.models[1:4])
        assert [job.status for job in group[1:4]] == [X, X, X]
        await state_of(group[4], R)
        assert group[0].status is R
        assert len(lab.calls("scancel")) == 1


async def test_cancel_waiting(lab: Lab) -> None:
    """Jobs that wait say why; stopped, they never run, whether alone or one of several of a job."""
    async with lab.experiment() as exp:
        packed = Ensemble("e", batch_settings=lab.batch(hold=True), run_settings=lab.sh("true"), replicas=2)
        alone = exp.create_model("m", lab.sh("echo ran"), batch_settings=lab.batch(begin="now+1hour"))
        group = await exp.start(packed, alone, block=False)
        with anyio.fail_after(20):
            while [job.reason for job in group] != ["JobHeldUser", "JobHeldUser", "BeginTime"]:
                await anyio.sleep(0.05)
        assert [job.status for job in group] == [P, P, P]
        with anyio.fail_after(20):
            await group[0].cancel()
        assert [job.status for job in group] == [X, P, P]
        lab.site.run("scontrol", "release", lab.job_of(group[1]))
        with anyio.fail_after(20):
            await group[1]
            await group.cancel()
        assert [job.status for job in group] == [X, C, X]
        assert not group[0].stdout.exists()


@pytest.mark.parametrize("on_exit", ["stop", "wait"])
async def test_end_of_experiment(lab: Lab, on_exit: str) -> None:
    """At the end of an experiment what runs and what waits is stopped, or waited for."""
    with anyio.fail_after(40):
        async with lab.experiment(on_exit=on_exit) as exp:
            seconds = 600 if on_exit == "stop" else 1
            ensemble = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh(f"sleep {seconds}"), replicas=2)
            later = exp.create_model("later", lab.sh("true"), batch_settings=lab.batch(begin="now+2"))
            group = await exp.start(ensemble, later, block=False)
            for job in group[:2]:
                await state_of(job, R)
    assert [job.status for job in group] == ([X] * 3 if on_exit == "stop" else [C] * 3)
    await until(lambda: not lab.site.run("squeue", "-h").stdout)


async def test_detach(lab: Lab) -> None:
    """Detached batch jobs run on, and a later experiment tells how they ended from what they left."""
    async with lab.experiment(on_exit="detach") as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), pack="job")
        for name, line in (("good", "exit 0"), ("bad", "exit 6"), ("killed", "kill -9 $$")):
            ensemble.add_model(
                exp.create_model(name, lab.sh(f"while [ ! -e {lab.place}/go ]; do sleep 0.1; done; {line}"))
            )
        waiting = exp.create_model("waiting", lab.sh("true"), batch_settings=lab.batch(hold=True))
        group = await exp.start(ensemble, waiting, block=False)
        for job in group[:3]:
            with anyio.fail_after(20):
                while job.pid is None:  # until it told of itself
                    await anyio.sleep(0.05)
    assert {line.split()[1] for line in lab.jobs()} == {"RUNNING", "PENDING"}
    async with lab.experiment() as exp:
        rows = await exp.history()
    assert [(row["status"], row["started_at"] is None) for row in rows] == [("LOST", False)] * 3 + [("LOST", True)]
    assert all(" of slurm, which this driver did not see the end of" in row["reason"] for row in rows)
    (lab.place / "go").touch()
    await until(lambda: "RUNNING" not in str(lab.jobs()), 20)
    async with lab.experiment() as exp:
        rows = await exp.history()
    found = [(row["name"], row["status"], row["returncode"], row["reason"]) for row in rows[:3]]
    assert found == [
        ("good", "COMPLETED", 0, ""), ("bad", "FAILED", 6, "exit code 6"), ("killed", "FAILED", -9, "killed by SIGKILL"),
    ]  # fmt: skip
    assert all(row["started_at"] < row["ended_at"] and row["host"] == os.uname().nodename for row in rows[:3])
    assert rows[3]["status"] == "LOST"
    assert "job " in rows[3]["reason"]


# -- refusals and numbers


@pytest.mark.parametrize("pack", PACKS)
async def test_refused(lab: Lab, pack: Pack) -> None:
    """What sbatch refuses is an error in Slurm's words, at once; nothing is left behind."""
    async with lab.experiment() as exp:
        ensemble = Ensemble(
            "e", batch_settings=lab.batch(partition="nowhere"), run_settings=lab.sh("true"), replicas=2, pack=pack
        )
        with anyio.fail_after(10), pytest.raises(SubmitError, match="invalid partition specified: nowhere"):
            await exp.start(ensemble)
        assert exp.get_status(ensemble) == [F, F]
    assert lab.jobs() == []


async def test_refused_beside_others(lab: Lab) -> None:
    """When only some batch jobs are refused, the others run, and those fail with the reason."""
    async with lab.experiment() as exp:
        bad = exp.create_model("bad", lab.sh("true"), batch_settings=lab.batch(partition="nowhere"))
        good = exp.create_model("good", lab.sh("true"), batch_settings=lab.batch())
        with anyio.fail_after(20):
            group = await exp.start(bad, good)
    assert ends(group) == [(F, None), (C, 0)]
    assert "could not be submitted: " in group[0].reason
    assert "invalid partition specified: nowhere" in group[0].reason


async def test_thousand_members(lab: Lab) -> None:
    """1000 members as an array are one submit, and never more than one query for every tick, while they wait and run."""
    async with lab.experiment(max_concurrent=100) as exp:
        line = "exit $((SLURM_ARRAY_TASK_ID % 2))"
        ensemble = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh(line), replicas=1000, pack="array")
        began = time.monotonic()
        group = await exp.start(ensemble, block=False)
        with anyio.fail_after(30):
            for job in group[:100]:
                await job.wait()
        took = time.monotonic() - began
        assert ends(group[:100]) == [(C, 0), (F, 1)] * 50
        assert len(lab.calls("sbatch")) == 1
        assert len(lab.calls("squeue")) <= took / 0.2 + 1
        with anyio.fail_after(30):
            await group.cancel()
    assert {job.status for job in group} == {C, F, X}
    assert len(lab.calls("scancel")) == 1
    await until(lambda: not lab.site.run("squeue", "-h").stdout, 20)


@pytest.mark.timeout(250)
async def test_five_hundred_stopped_at_once(lab: Lab) -> None:
    """500 batch jobs, most of them waiting, are stopped at once by a few commands, and all are CANCELLED."""
    async with lab.experiment() as exp:
        ensemble = Ensemble(
            "e", batch_settings=lab.batch(), run_settings=lab.sh("sleep 432.1"), replicas=500, pack="separate"
        )
        with anyio.fail_after(100):
            group = await exp.start(ensemble, block=False)
        await state_of(group[0], R)
        with anyio.fail_after(100):
            await group.cancel()
    assert {job.status for job in group} == {X}
    assert len(lab.calls("sbatch")) == 500
    assert len(lab.calls("scancel")) <= 3
    await until(lambda: not processes("432.1"))
