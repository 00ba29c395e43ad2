"""What goes wrong between an experiment and a real Slurm: every job ends in the right state, with a reason, and nothing is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from asim import Ensemble, RunSettings, SubmitError
from asim.launchers import _driver
from asim.runtime.group import JobGroup
from asim.settings.script import Pack
from tests.site.experiments import (
    C,
    F,
    Lab,
    P,
    R,
    X,
    accounted,
    anyio_backend,
    ends,
    lab,
    processes,
    until,
)

__all__ = ["accounted", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 40


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again for two minutes is tried for some seconds here."""
    monkeypatch.setattr(_driver, "PATIENCE", 8.0)


def held_up(lab: Lab, code: int = 0) -> list[str]:
    """A member that runs until it may end."""
    return ["-c", f"echo $SLURM_JOB_ID; while [ ! -e {lab.place}/go ]; do sleep 0.1; done; exit {code}"]


def waits(lab: Lab, code: int = 0) -> RunSettings:
    """The same, as run settings."""
    settings = lab.sh("")
    settings.exe_args = held_up(lab, code)
    return settings


async def running(group: JobGroup) -> None:
    """Wait until all have told that they run."""
    with anyio.fail_after(20):
        while any(job.pid is None for job in group):
            await anyio.sleep(0.02)


# -- a controller that is away


@pytest.fixture(params=[False, True], ids=["plain", "accounting"])
def either(request: pytest.FixtureRequest) -> Lab:
    """A site with accounting, and one without."""
    found: Lab = request.getfixturevalue("accounted" if request.param else "lab")
    return found


async def test_controller_that_does_not_answer(either: Lab) -> None:
    """While slurmctld answers nobody, members end, and are seen to; what only Slurm can say is told when it is back."""
    lab = either
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), pack="array")
        for code in (0, 3):
            ensemble.add_model(exp.create_model(f"m{code}", waits(lab, code)))
        line = f"while [ ! -e {lab.place}/go ]; do sleep 0.1; done; kill -9 $$"
        killed = exp.create_model("killed", lab.sh(line), batch_settings=lab.batch())
        group = await exp.start(ensemble, killed, block=False)
        await running(group)
        lab.site.pause(True)
        try:
            (lab.place / "go").touch()
            with anyio.fail_after(DEADLINE):
                await group[0]
                await group[1]
            assert group[2].status is R  # killed; only Slurm knows by whom
        finally:
            lab.site.pause(False)
        with anyio.fail_after(DEADLINE):
            await group.wait()
    assert ends(group) == [(C, 0), (F, 3), (F, -9)]
    assert "killed by SIGKILL" in group[2].reason
    await until(lambda: not lab.site.run("squeue", "-h").stdout, 20)


async def test_controller_away_while_jobs_are_stopped(lab: Lab) -> None:
    """A stop that meets no controller is tried again, and done when it is back."""
    lab.hook("scancel", f"[ -e {lab.place}/up ] || {{ echo 'scancel: error: {AWAY}' >&2; exit 1; }}")
    async with lab.experiment() as exp:
        group = await exp.start(exp.create_model("m", lab.sh("sleep 765.4"), batch_settings=lab.batch()), block=False)
        await running(group)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.cancel)
            await until(lambda: len(lab.calls("scancel")) >= 2, 10)
            assert group[0].status is R
            (lab.place / "up").touch()
            with anyio.fail_after(DEADLINE):
                await group.wait()
    assert [job.status for job in group] == [X]
    await until(lambda: not processes("765.4"))


async def test_controller_away_while_submitting(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submit that meets no controller is tried again, and made once."""
    monkeypatch.setattr(_driver, "PATIENCE", 40.0)
    lab.hook(
        "sbatch",
        f"[ -e {lab.place}/up ] || {{ echo 'sbatch: error: Batch job submission failed: {AWAY}' >&2; exit 1; }}",
    )
    async with lab.experiment() as exp:
        model = exp.create_model("m", lab.sh("true"), batch_settings=lab.batch())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(exp.start, model)
            await until(lambda: len(lab.calls("sbatch")) >= 3, 20)
            (lab.place / "up").touch()
        assert exp.get_status(model) == [C]
    assert len(lab.jobs()) == 1


async def test_controller_that_stays_away(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submit that never finds a controller fails in Slurm's words."""
    monkeypatch.setattr(_driver, "PATIENCE", 1.0)
    lab.hook("sbatch", f"echo 'sbatch: error: Batch job submission failed: {AWAY}' >&2; exit 1")
    async with lab.experiment() as exp:
        model = exp.create_model("m", lab.sh("true"), batch_settings=lab.batch())
        with anyio.fail_after(DEADLINE), pytest.raises(SubmitError, match="Unable to contact slurm controller"):
            await exp.start(model)
        assert exp.get_status(model) == [F]
    assert len(lab.calls("sbatch")) > 1


AWAY = "Unable to contact slurm controller (connect failure)"
"""What the commands say when it is down, after 7 to 9 s of trying."""


# -- nodes that are lost


async def test_lost_node(lab: Lab) -> None:
    """A job whose node is lost FAILED, in Slurm's word for it; one that may run again does so and COMPLETED."""
    async with lab.experiment() as exp:
        lost = exp.create_model("lost", lab.sh("sleep 600"), batch_settings=lab.batch(nodelist="n4", no_requeue=None))
        tries = 'echo $SLURM_RESTART_COUNT; [ -n "$SLURM_RESTART_COUNT" ] || sleep 600'
        again = exp.create_model("again", lab.sh(tries), batch_settings=lab.batch(nodelist="n3", requeue=None))
        packed = Ensemble(
            "e", run_settings=lab.sh(tries), replicas=2, batch_settings=lab.batch(nodelist="n3", requeue=None)
        )
        group = await exp.start(lost, again, packed, block=False)
        await running(group)
        for node in ("n3", "n4"):
            lab.site.set_node(node, "down")
        with anyio.fail_after(DEADLINE):
            await group[0]
            for node in ("n3", "n4"):
                lab.site.set_node(node, "resume")
            await group.wait()
    assert (group[0].status, group[0].reason[:10]) == (F, "NODE_FAIL:")
    assert ends(group)[1:] == [(C, 0)] * 3
    assert [job.stdout.read_text() for job in group[1:]] == ["1\n"] * 3
    assert [job.attempt for job in group] == [1] * 4


async def test_preempted(lab: Lab) -> None:
    """A job that gives way and is not started again FAILED with the reason PREEMPTED."""
    async with lab.experiment() as exp:
        weak = exp.create_model(
            "weak", lab.sh("sleep 600"), batch_settings=lab.batch(partition="spare", exclusive=None, nodelist="n1")
        )
        strong = exp.create_model("strong", lab.sh("true"), batch_settings=lab.batch(exclusive=None, nodelist="n1"))
        first = await exp.start(weak, block=False)
        await running(first)
        with anyio.fail_after(DEADLINE):
            second = await exp.start(strong)
            await first.wait()
    assert (first[0].status, first[0].reason[:10]) == (F, "PREEMPTED:")
    assert second[0].status is C


# -- answers that are lost


@pytest.mark.parametrize(
    "words",
    ["echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1", "exit 0",
     "kill -9 $$"],
    ids=["timed-out", "silent", "killed"],
)  # fmt: skip
async def test_answer_that_is_lost(lab: Lab, words: str) -> None:
    """A submit that was taken without an answer is found by its mark, never repeated, and seen to its end."""
    lab.hook("sbatch", f'/usr/bin/sbatch "$@" > /dev/null 2>&1; {words}')
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh("exit 3"), replicas=2, pack="array")
        with anyio.fail_after(DEADLINE):
            group = await exp.start(ensemble)
    assert ends(group) == [(F, 3)] * 2
    assert len(lab.calls("sbatch")) == 1
    assert len({line.split()[0] for line in lab.jobs("%F %T")}) == 1


async def test_end_while_a_submit_is_under_way(lab: Lab) -> None:
    """A job that Slurm takes while the experiment ends, and answers later, does not run on."""
    lab.hook(
        "sbatch", f'/usr/bin/sbatch "$@" > {lab.place}/id; : > {lab.place}/taken; sleep 2; cat {lab.place}/id; exit 0'
    )
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            late = exp.create_model("late", lab.sh("sleep 391.4"), batch_settings=lab.batch())
            first = exp.create_model("first", lab.sh("true"))
            late.after(first)
            jobs = await exp.start(first, late, block=False)
            await until((lab.place / "taken").exists)
        assert jobs[1].status is X
        assert len(lab.jobs()) == 1
        await until(lambda: not lab.site.run("squeue", "-h").stdout)
        assert not processes("391.4")


async def test_submit_that_was_not_taken(lab: Lab) -> None:
    """When nobody knows of a submit it is called off: the job fails, and its script does nothing should it come after all."""
    lab.hook(
        "sbatch",
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
    )
    async with lab.experiment() as exp:
        model = exp.create_model("m", lab.sh(f": > {lab.place}/ran"), batch_settings=lab.batch())
        with (
            anyio.fail_after(DEADLINE),
            pytest.raises(SubmitError, match="does not say whether it was submitted, so it was"),
        ):
            await exp.start(model)
        assert exp.get_status(model) == [F]
        assert len(lab.calls("sbatch")) == 1
        lab.hook("sbatch", None)
        (script,) = Path(exp.exp_path, ".asim").glob("*.sh")
        lab.site.run("sbatch", "--wait", "-o", f"{lab.place}/late.out", str(script), check=False)
    assert not (lab.place / "ran").exists()
    assert "called off" in (Path(exp.exp_path) / "m.batch.err").read_text()


async def test_queries_that_fail(lab: Lab) -> None:
    """Answers that are none prove nothing: the job is seen to its end when there are answers again."""
    async with lab.experiment() as exp:
        group = await exp.start(
            exp.create_model("m", lab.sh(f"while [ ! -e {lab.place}/go ]; do sleep 0.1; done; kill -9 $$"),
                             batch_settings=lab.batch()), block=False,
        )  # fmt: skip
        await running(group)
        for text in ("echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1", "exit 1", "kill -9 $$"):
            lab.hook("squeue", text)
            asked = len(lab.calls("squeue"))
            with anyio.fail_after(20):
                while len(lab.calls("squeue")) == asked:
                    await anyio.sleep(0.05)
        (lab.place / "go").touch()
        lab.hook("squeue", None)
        with anyio.fail_after(DEADLINE):
            await group.wait()
    assert ends(group) == [(F, -9)]


# -- refusals


async def test_queue_that_refuses(lab: Lab) -> None:
    """A partition that takes no jobs refuses in Slurm's words; one that is only drained makes them wait with its reason."""
    async with lab.experiment() as exp:
        lab.site.run("scontrol", "update", "partitionname=short", "state=inactive")
        try:
            model = exp.create_model("m", lab.sh("true"), batch_settings=lab.batch(partition="short"))
            with anyio.fail_after(DEADLINE), pytest.raises(SubmitError, match="(?i)partition"):
                await exp.start(model)
        finally:
            lab.site.run("scontrol", "update", "partitionname=short", "state=down")
        try:
            waiting = exp.create_model("w", lab.sh("true"), batch_settings=lab.batch(partition="short"))
            group = await exp.start(waiting, block=False)
            with anyio.fail_after(DEADLINE):
                while group[0].reason != "PartitionDown":
                    await anyio.sleep(0.05)
            assert group[0].status is P
        finally:
            lab.site.run("scontrol", "update", "partitionname=short", "state=up")
        with anyio.fail_after(DEADLINE):
            await group.wait()
        assert group[0].status is C


async def test_user_over_limit(accounted: Lab) -> None:
    """Submits beyond a limit of the user are made when earlier jobs have ended; nothing fails, and nothing is submitted twice."""
    lab = accounted
    lab.site.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=2")
    try:
        async with lab.experiment() as exp:
            ensemble = Ensemble(
                "e", batch_settings=lab.batch(), run_settings=lab.sh("sleep 0.5"), replicas=4, pack="separate"
            )
            with anyio.fail_after(DEADLINE):
                group = await exp.start(ensemble)
        assert ends(group) == [(C, 0)] * 4
        assert len(lab.jobs()) == 4
        assert len(lab.calls("sbatch")) > 4
    finally:
        lab.site.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=-1")


@pytest.mark.parametrize("pack", ["job", "array"])
async def test_output_that_cannot_be_written(lab: Lab, pack: Pack) -> None:
    """A member whose output file cannot be written says so, and is not run; the others are."""
    async with lab.experiment() as exp:
        ensemble = Ensemble(
            "e", batch_settings=lab.batch(), run_settings=lab.sh(f"echo x >> {lab.place}/ran"), replicas=2, pack=pack
        )
        await exp.generate(ensemble)
        Path(exp.exp_path, "e", "e_0", "e_0.out").mkdir()  # root may write everywhere, but not into a directory
        with anyio.fail_after(DEADLINE):
            group = await exp.start(ensemble)
    assert ends(group) == [(F, None), (C, 0)]
    assert group[0].reason == f"cannot write {group[0].stdout}"
    assert (lab.place / "ran").read_text() == "x\n"


async def test_directory_that_is_gone(lab: Lab) -> None:
    """A batch script whose own output cannot be opened is told in words."""
    async with lab.experiment() as exp:
        model = exp.create_model("m", lab.sh("true"), batch_settings=lab.batch(hold=True))
        group = await exp.start(model, block=False)
        with anyio.fail_after(DEADLINE):
            while group[0].reason != "JobHeldUser":
                await anyio.sleep(0.05)
            Path(exp.exp_path, "m.batch.out").mkdir()
            lab.site.run("scontrol", "release", lab.job_of(group[0]))
            await group.wait()
    assert ends(group) == [(F, None)]
    assert "its output file or directory cannot be used on n" in group[0].reason


# -- the driver's own parts


async def test_agent_that_is_killed(lab: Lab) -> None:
    """When the driver's agent dies, processes are lost and stopped; batch jobs are seen to their ends all the same."""
    async with lab.experiment() as exp:
        batch = Ensemble("e", batch_settings=lab.batch(), run_settings=waits(lab, 5), replicas=2)
        single = exp.create_model("s", waits(lab, 6), batch_settings=lab.batch())
        process = exp.create_model("p", lab.sh("sleep 876.5"))
        group = await exp.start(batch, single, process, block=False)
        await running(group)
        (agent,) = [pid for pid in processes("/asim/agent") if parent(pid) == os.getpid()]
        os.kill(agent, signal.SIGKILL)
        with anyio.fail_after(DEADLINE):
            await group[3]
        (lab.place / "go").touch()
        with anyio.fail_after(DEADLINE):
            await group.wait()
        assert ends(group) == [(F, 5), (F, 5), (F, 6), (group[3].status, None)]
        assert str(group[3].status) == "LOST"
        assert not processes("876.5")
        with anyio.fail_after(DEADLINE):
            assert ends(await exp.start(exp.create_model("later", lab.sh("true"), batch_settings=lab.batch()))) == [
                (C, 0)
            ]


def parent(pid: int) -> int:
    """Its parent's process id."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


async def test_cancelled_by_hand(lab: Lab) -> None:
    """What somebody else cancels is CANCELLED, with Slurm's words, whether it waits or runs."""
    async with lab.experiment() as exp:
        waiting = exp.create_model("w", lab.sh("true"), batch_settings=lab.batch(hold=True))
        packed = Ensemble("e", batch_settings=lab.batch(), run_settings=lab.sh("sleep 600"), replicas=2)
        group = await exp.start(waiting, packed, block=False)
        await running(group[1:])
        lab.site.run("scancel", "-u", "root")
        with anyio.fail_after(DEADLINE):
            await group.wait()
    assert [job.status for job in group] == [X] * 3
    assert all(job.reason.startswith("CANCELLED: somebody cancelled it") for job in group)
