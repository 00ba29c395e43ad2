"""Steps in an allocation of a real Slurm: run commands that the driver's agent starts, whose exits are the evidence."""

from __future__ import annotations

import time

import anyio
import pytest

from asim import Ensemble, MpirunSettings, SrunSettings
from asim.wlm import slurm as wlm
from tests.site.experiments import (
    Allocated,
    C,
    F,
    Lab,
    T,
    X,
    allocation,
    anyio_backend,
    ends,
    lab,
    processes,
    until,
)

__all__ = ["allocation", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
MEET = ": > $1/$SLURM_STEP_ID; while [ $(ls $1 | wc -l) -lt $2 ]; do sleep 0.05; done"


def step(*args: str, **options: object) -> SrunSettings:
    """A shell line as one task."""
    return SrunSettings("/bin/sh", ["-c", *args], run_args={"n": 1, "N": 1}, **options)  # type: ignore[arg-type]


async def test_many_at_once(lab: Lab, allocation: Allocated) -> None:
    """Members of an ensemble run side by side as steps, all at the same time, and no query is made to see their ends."""
    (lab.place / "meet").mkdir()
    async with lab.experiment() as exp:
        settings = step(f"{MEET}; echo $SLURM_JOB_ID; exit $((SLURM_STEP_ID % 3))", "sh", f"{lab.place}/meet", "24")
        began = time.time()
        with anyio.fail_after(30):
            group = await exp.start(Ensemble("e", run_settings=settings, replicas=24))
    assert sorted(job.returncode or 0 for job in group) == [0] * 8 + [1] * 8 + [2] * 8
    assert {job.status for job in group} == {C, F}
    assert {job.stdout.read_text() for job in group} == {f"{allocation.id}\n"}
    assert all(job.started_at and job.started_at.timestamp() > began - 0.01 for job in group)
    assert (len(lab.calls("srun")), len(lab.calls("squeue"))) == (24, 0)
    assert all(" --exact " in line for line in lab.calls("srun"))


async def test_ends(lab: Lab, allocation: Allocated) -> None:
    """A step that is killed, one that is too slow, one that is stopped and one whose program is missing are told apart."""
    async with lab.experiment() as exp:
        killed, slow = exp.create_model("k", step("kill -9 $$")), exp.create_model("t", step("sleep 321.1"), timeout=1)
        stopped = exp.create_model("s", step("sleep 321.1 & sleep 321.1"))
        absent = exp.create_model("a", SrunSettings("/nowhere/program", run_args={"n": 1, "N": 1}))
        other = exp.create_model("o", step("sleep 3"))
        group = await exp.start(killed, slow, stopped, absent, other, block=False)
        await until(lambda: len(processes("321.1")) >= 2)
        with anyio.fail_after(20):
            await exp.stop(stopped)
            await group.wait()
    assert ends(group)[0] == (F, 137)
    assert [job.status for job in group] == [F, T, X, F, C]
    assert "No such file or directory" in group[3].stderr.read_text()
    await until(lambda: not processes("321.1"))


async def test_end_of_experiment(lab: Lab, allocation: Allocated) -> None:
    """What runs when the experiment ends is stopped on all nodes, and the allocation is left as it was."""
    async with lab.experiment() as exp:
        settings = SrunSettings("sleep", "322.2", run_args={"N": 4, "ntasks-per-node": 1})
        group = await exp.start(exp.create_model("m", settings), block=False)
        await until(lambda: len(processes("322.2")) >= 5)  # four, and srun
    assert ends(group)[0][0] is X
    await until(lambda: not processes("322.2"))
    assert lab.site.run("squeue", "-h", "-o", "%i").stdout.split() == [allocation.id]


async def test_mpmd(lab: Lab, allocation: Allocated) -> None:
    """Two programs in one srun, each with its own arguments and environment; the worst code is the job's."""
    async with lab.experiment() as exp:
        first = SrunSettings("/bin/sh", ["-c", "echo one $V $SLURM_PROCID"], run_args={"n": 1}, env_vars={"V": "a"})
        second = SrunSettings("/bin/sh", ["-c", "echo two $V; exit 4"], run_args={"n": 2}, env_vars={"V": "b"})
        first.make_mpmd(second)
        with anyio.fail_after(30):
            group = await exp.start(exp.create_model("m", first))
    said = group[0].stdout.read_text() + group[0].stderr.read_text()
    assert sorted(line for line in said.splitlines() if line.startswith(("one", "two"))) == [
        "one a 0",
        "two b",
        "two b",
    ], said
    assert ends(group) == [(F, 4)]


async def test_allocation_of_ones_own(lab: Lab) -> None:
    """From outside, steps run in the allocation that was asked for, and it is given back."""
    job = await wlm.get_allocation(nodes=2, options={"ntasks": 2})
    try:
        async with lab.experiment() as exp:
            settings = step("echo $SLURM_JOB_ID $SLURMD_NODENAME", alloc=job)
            with anyio.fail_after(30):
                group = await exp.start(Ensemble("e", run_settings=settings, replicas=2))
        assert [job.stdout.read_text().split()[0] for job in group] == [job] * 2
    finally:
        await wlm.release_allocation(job)
    await until(lambda: lab.jobs("%i %T") == [f"{job} CANCELLED"] or lab.jobs("%i %T") == [f"{job} COMPLETED"])


async def test_mpirun(lab: Lab, allocation: Allocated) -> None:
    """mpirun in an allocation starts its processes where it is told, and its exit is the evidence."""
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        lab.environ.setenv(name, "1")
    async with lab.experiment() as exp:
        settings = MpirunSettings("/bin/sh", ["-c", "echo rank; exit 3"])
        settings.set_tasks(2)
        with anyio.fail_after(30):
            group = await exp.start(exp.create_model("m", settings))
    assert ends(group) == [(F, 3)], group[0].stderr.read_text()


async def test_starting_is_limited(lab: Lab, allocation: Allocated) -> None:
    """More members than may start at the same time all come to run at the same time, as they wait for no other's end; one
    that is stopped while it waits never starts.
    """
    (lab.place / "meet").mkdir()
    async with lab.experiment() as exp:
        meeting = step(f"{MEET}; exec sleep 323.3", "sh", f"{lab.place}/meet", "44")
        first = exp.create_ensemble("first", run_settings=meeting, replicas=40)
        late = [exp.create_model(f"late{number}", step("sleep 323.3")) for number in range(10)]
        last = exp.create_ensemble("last", run_settings=meeting, replicas=4)
        with anyio.fail_after(60):
            group = await exp.start(first, *late, last, block=False)
            await exp.stop(*late)
            stopped = [job for job in group if job.name.startswith("late")]
            assert [(job.status, job.returncode) for job in stopped] == [(X, None)] * 10
            await until(lambda: len(list((lab.place / "meet").iterdir())) == 44)
        assert len(lab.calls("srun")) == 44
    await until(lambda: not processes("323.3"))
