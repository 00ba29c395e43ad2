"""Databases that a real Slurm runs: as steps, as a batch job, as a cluster, and beside models."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from asim import DatabaseError, Ensemble, Experiment, Orchestrator, SrunSettings
from asim.database.server_program import find_server
from asim.engine.build import module_file
from asim.status import JobState
from tests.conftest import missing
from tests.site.experiments import (
    Allocated,
    C,
    Lab,
    R,
    X,
    alive,
    allocation,
    anyio_backend,
    ends,
    lab,
    until,
)

__all__ = ["allocation", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 50
USE = """
import os, sys, numpy as np
from asim import SyncClient
os.environ.pop("SSKEYOUT", None)
with SyncClient.from_env() as client:
    client.put_tensor("t", np.arange(4.0))
    print(client.get_tensor("t").sum(), os.environ["SR_DB_TYPE"], os.environ["SSDB"])
"""


@pytest.fixture(autouse=True)
def needed(lab: Lab) -> None:
    """A redis-server and the compiled engine; ranks meet where no other test looks."""
    (lab.place / "meet").mkdir()
    lab.environ.setenv("TMPDIR", str(lab.place / "meet"))
    lab.environ.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        lab.environ.setenv(name, "1")
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    if not module_file().exists():
        missing("the engine was not compiled")


def servers(db: Orchestrator) -> list[int]:
    """The servers' process ids."""
    assert db._handle is not None
    return [shard.pid for shard in db._handle.shards]  # type: ignore[attr-defined]


async def use(lab: Lab, exp: Experiment, db: Orchestrator, kind: str) -> None:
    """Models of every sort use a database; it is stopped, and nothing of it is left."""
    model = exp.create_model("batch", lab.python(USE), batch_settings=lab.batch())
    pids = servers(db)
    assert all(map(alive, pids))
    group = await exp.start(model)
    assert ends(group) == [(C, 0)], group[0].stderr.read_text()
    assert group[0].stdout.read_text().split() == ["6.0", kind, ",".join(db.get_address())]
    assert await db.is_active()
    await exp.stop(db)
    assert set(exp.get_status(db)) == {X}
    await until(lambda: not any(map(alive, pids)))


async def test_step(lab: Lab) -> None:
    """A database by srun, outside an allocation a job of its own; a batch job uses it."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(port=0)
            await exp.start(db)
            await use(lab, exp, db, "Standalone")
    await until(lambda: not lab.site.run("squeue", "-h").stdout)


async def test_batch(lab: Lab) -> None:
    """A database that is a batch job; the start waits while it is in the queue."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(port=0, batch=True, time="00:10:00")
            await exp.start(db)
            assert exp.get_status(db) == [R]
            assert [line.split()[0] for line in lab.jobs("%j %T")] == ["orchestrator"]
            await use(lab, exp, db, "Standalone")
    await until(lambda: not lab.site.run("squeue", "-h").stdout)


@pytest.mark.parametrize("command", ["srun", "mpirun"])
async def test_cluster_in_an_allocation(lab: Lab, allocation: Allocated, command: str) -> None:
    """Three shards by one command on three nodes; a member beside them and a batch job use it."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(port=0, db_nodes=3, run_command=command)
            await exp.start(db)
            assert exp.get_status(db) == [R] * 3
            assert len(set(db.get_address())) == 3
            settings = SrunSettings(lab.python(USE).exe, ["-c", USE], run_args={"n": 1, "N": 1, "overlap": None})
            group = await exp.start(Ensemble("e", run_settings=settings, replicas=2))
            assert ends(group) == [(C, 0)] * 2, group[0].stderr.read_text()
            assert group[0].stdout.read_text().split()[:2] == ["6.0", "Clustered"]
            pids = servers(db)
            if command == "srun":
                assert len([line for line in lab.calls("srun") if "asim.database.node" in line]) == 1
                told = lab.site.run("squeue", "-h", "-s", "-o", "%j %N").stdout.splitlines()
                assert [line.split()[1] for line in told if line.startswith("orchestrator")] == ["n[1-3]"]
        assert set(exp.get_status(db)) == {X}
        await until(lambda: not any(map(alive, pids)))


async def test_cluster_as_a_batch_job(lab: Lab) -> None:
    """A cluster in a batch job of three nodes."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(port=0, db_nodes=3, batch=True)
            await exp.start(db)
            assert lab.jobs("%D") == ["3"]
            await use(lab, exp, db, "Clustered")


async def test_beside(lab: Lab, allocation: Allocated) -> None:
    """A database beside a model, in a batch job and in a step of two tasks: found at SSDB, and gone with the model."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            inside = exp.create_model(
                "inside", lab.python(USE), batch_settings=lab.batch(time="5", partition="debug", overcommit=None)
            )
            step = exp.create_model("step", SrunSettings(lab.python(USE).exe, ["-c", USE], run_args={"n": 2, "N": 1}))
            for model in (step, inside):
                model.colocate_db_tcp(port=0)
            group = await exp.start(step)
            assert ends(group) == [(C, 0)], group[0].stderr.read_text()
            lines = group[0].stdout.read_text().splitlines()
            assert [line.split()[:2] for line in lines] == [["6.0", "Standalone"]] * 2
            allocation.end()
            group = await exp.start(inside)
            assert ends(group) == [(C, 0)], group[0].stderr.read_text()
    await until(lambda: not list((lab.place / "meet").glob("asim-*/*")))


async def test_that_cannot_start(lab: Lab) -> None:
    """Why a database cannot start is told in its own words, and nothing is left of it."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(port=0, batch=True, interface="nosuch0")
            with pytest.raises(DatabaseError, match="nosuch0"):
                await exp.start(db)
            assert exp.get_status(db) != [JobState.RUNNING]
    await until(lambda: not lab.site.run("squeue", "-h").stdout)
