"""A real Slurm over hosts with addresses of their own: what spans several of them finds its parts, and ends with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from asim import DatabaseError, Ensemble, Experiment, MpirunSettings, Orchestrator, RunSettings, SrunSettings
from asim.database.server_program import find_server
from asim.engine.build import module_file
from asim.runtime.job import Job
from tests.conftest import missing
from tests.site.cluster import HostCluster, cluster, cluster_site, lab
from tests.site.daemons import lacking
from tests.site.experiments import (
    Allocated,
    C,
    F,
    Lab,
    R,
    X,
    alive,
    allocation,
    anyio_backend,
    ends,
    processes,
    state_of,
    until,
)

__all__ = ["allocation", "anyio_backend", "cluster", "cluster_site", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
HOSTS = {"h1", "h2", "h3", "h4"}
DEADLINE = 50
PRODUCE = """
import socket, sys, numpy as np
from asim import SyncClient
number = int(sys.argv[1])
with SyncClient.from_env() as client:
    client.put_tensor("field", np.arange(1000.0) * number)
print(socket.gethostname())
"""
CONSUME = """
import os, socket, sys, numpy as np
from asim import SyncClient
with SyncClient.from_env() as client:
    total = 0.0
    for source in os.environ["SSKEYIN"].split(","):
        client.set_data_source(source)
        assert client.poll_tensor("field", 50, 600), source
        total += client.get_tensor("field").sum()
print(socket.gethostname(), total, os.environ["SR_DB_TYPE"])
"""
SUM = """
import ctypes, os, socket
mpi = ctypes.CDLL("libmpi.so.40", mode=ctypes.RTLD_GLOBAL)
it = lambda name: ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_" + name))
mpi.MPI_Init(None, None)
rank, total = ctypes.c_int(), ctypes.c_int()
mpi.MPI_Comm_rank(it("comm_world"), ctypes.byref(rank))
mpi.MPI_Allreduce(ctypes.byref(rank), ctypes.byref(total), 1, it("int"), it("op_sum"), it("comm_world"))
os.write(1, f"{total.value} {socket.gethostname()} {os.environ['GREETING']}{os.environ['EMPTY']}\\n".encode())  # at once: ranks share one file
mpi.MPI_Finalize()
"""
WHERE = """
import os, socket
os.write(1, f"{socket.gethostname()} {os.environ['SSDB']}\\n".encode())
"""
TOTAL = sum(range(1000)) * (1.0 + 2.0)


@pytest.fixture
def database(lab: Lab) -> None:
    """What a database and its clients need on the hosts."""
    lab.environ.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    if not module_file().exists():
        missing("the engine was not compiled")


def words(job: Job) -> list[str]:
    """What it has printed by now."""
    return job.stdout.read_text().split() if job.stdout.exists() else []


def coupled(exp: Experiment, settings: RunSettings, **options: object) -> tuple[Ensemble, Ensemble]:
    """Two producers, and two consumers that read what both of them have put."""
    producers = Ensemble("producers", run_settings=settings, replicas=2, **options)  # type: ignore[arg-type]
    consumers = Ensemble("consumers", run_settings=settings, replicas=2, **options)  # type: ignore[arg-type]
    for number, model in enumerate(producers.models, 1):
        model.run_settings.exe_args = ["-c", PRODUCE, str(number)]
        model.enable_key_prefixing()
    for model in consumers.models:
        model.run_settings.exe_args = ["-c", CONSUME]
        for producer in producers.models:
            model.register_incoming_entity(producer)
    return producers, consumers


def check(jobs: Sequence[Job]) -> None:
    """All four ran on different hosts, and both consumers read everything."""
    assert ends(list(jobs)) == [(C, 0)] * 4, [job.stderr.read_text() for job in jobs]
    assert {words(job)[0] for job in jobs} == HOSTS
    assert [words(job)[1:] for job in jobs if "consumers" in job.name] == [[str(TOTAL), "Clustered"]] * 2


def spread(site: HostCluster, db: Orchestrator) -> list[int]:
    """A cluster of three shards on three hosts, at their addresses; returns its processes."""
    names = {address: name for name, address in site.hosts.addresses.items()}
    told = [names[address.rpartition(":")[0]] for address in db.get_address()]
    assert told == db.hosts
    assert len(set(told)) == 3
    assert set(told) <= HOSTS
    assert db._handle is not None
    pids = [shard.pid for shard in db._handle.shards]  # type: ignore[attr-defined]
    spaces = {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}
    assert len({*spaces, os.readlink("/proc/self/ns/net")}) == 4
    return pids


def mpirun(site: HostCluster, lab: Lab) -> None:
    """From now on Open MPI looks for its hosts in their own network."""
    if gone := lacking("mpirun"):
        missing(gone)
    net = f"{site.hosts.addresses['hub'].rpartition('.')[0]}.0/24"
    for name, value in {"btl": "tcp,self", "oob_tcp_if_include": net, "btl_tcp_if_include": net}.items():
        lab.environ.setenv(f"OMPI_MCA_{name}", value)


def by_ssh(site: HostCluster, lab: Lab) -> None:
    """mpirun is to start its daemons itself."""
    lab.environ.setenv("OMPI_MCA_plm", "rsh")
    lab.environ.setenv("OMPI_MCA_plm_rsh_agent", f"ssh -F {site.hosts.config}")


def ranks(text: str) -> MpirunSettings:
    """A Python program on four ranks."""
    settings = MpirunSettings(sys.executable, ["-c", text], run_command="mpirun")
    settings.set_tasks(4)
    settings.set("allow-run-as-root")
    return settings


async def test_producers_and_consumers(cluster: HostCluster, lab: Lab, database: None) -> None:
    """Three shards by one srun on three hosts; tensors go from arrays on two hosts to arrays on the two others."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(db_nodes=3, interface="eth0", port=0)
            await exp.start(db)
            pids = spread(cluster, db)
            assert len(lab.calls("srun")) == 1
            wide = lab.batch(cpus_per_task=15)
            producers, consumers = coupled(exp, lab.python(""), batch_settings=wide, pack="array")
            later = await exp.start(consumers, block=False)
            for job in later:
                await state_of(job, R)
            first = await exp.start(producers)
            await later.wait()
            check([*first, *later])
            assert len(lab.calls("sbatch")) == 2
            async with exp.client(db) as client:  # from here too
                assert (await client.get_tensor("producers_1.field"))[-1] == 999.0 * 2
            await exp.stop(db)
            assert set(exp.get_status(db)) == {X}
            await until(lambda: not any(map(alive, pids)))
    await until(lambda: not lab.site.run("squeue", "-h").stdout)
    assert not processes("asim.database.node", str(lab.place))


@pytest.mark.parametrize("placement", ["step", "agent"])
async def test_inside_an_allocation(
    cluster: HostCluster, lab: Lab, allocation: Allocated, database: None, placement: str
) -> None:
    """The same as steps and as processes of agents: these call the driver from other hosts, at an address of its."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(db_nodes=3, interface="eth0", port=0)
            await exp.start(db)
            pids = spread(cluster, db)
            before = len(lab.calls("srun"))
            settings = SrunSettings(lab.python("").exe, run_args={"n": 1, "N": 1, "c": 15, "exact": None})
            options = {"placement": placement}
            producers, consumers = coupled(exp, settings, **options)
            group = await exp.start(producers, consumers)
            check(list(group))
            assert len(lab.calls("srun")) - before == (4 if placement == "step" else 1)
            if placement == "agent":
                assert {job.host for job in group} == HOSTS
        await until(lambda: not any(map(alive, pids)))


async def test_loopback_is_refused(lab: Lab, database: None) -> None:
    """Shards on several hosts that listen on loopback reach nobody: refused, with the argument's name; nothing stays."""
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(db_nodes=3, port=0)
            with pytest.raises(DatabaseError, match=r"interface.*'lo'.*h1, h2, h3"):
                await exp.start(db)
            assert R not in exp.get_status(db)
    await until(lambda: not lab.site.run("squeue", "-h").stdout)
    assert not processes("asim.database.node", str(lab.place))


async def test_lost_host(cluster: HostCluster, lab: Lab) -> None:
    """When a host is lost, the job there FAILS in words about it, the one beside goes on, and the next finds its way."""
    line = "hostname; sleep 765.7 & wait"
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            models = [
                exp.create_model(name, lab.sh(line), batch_settings=lab.batch(nodelist=name, no_requeue=None))
                for name in ("h3", "h4")
            ]
            group = await exp.start(*models, block=False)
            for job in group:
                await state_of(job, R)
            await until(lambda: [words(job) for job in group] == [["h3"], ["h4"]])
            cluster.lose("h4")
            await group[1]
            assert group[1].status is F
            assert group[1].reason.startswith("NODE_FAIL: a node was lost")
            assert "h4" in group[1].reason
            assert group[0].status is R
    assert group[0].status is X


async def test_mpirun_by_ssh(cluster: HostCluster, lab: Lab) -> None:
    """Without a workload manager: mpirun reaches its hosts by ssh, and the ranks on four of them speak to each other."""
    mpirun(cluster, lab)
    by_ssh(cluster, lab)
    settings = ranks(SUM)
    settings.update_env({"GREETING": "a, 'b'", "EMPTY": ""})
    settings.set_hostlist(cluster.names)
    with anyio.fail_after(DEADLINE):
        async with Experiment("mpi", stop_grace=2) as exp:
            group = await exp.start(exp.create_model("ranks", settings))
            assert ends(group) == [(C, 0)], group[0].stderr.read_text()
            assert sorted(group[0].stdout.read_text().splitlines()) == [f"6 {name} a, 'b'" for name in cluster.names]
            settings.exe_args = ["-c", "import time; time.sleep(765.8)"]
            group = await exp.start(exp.create_model("stopped", settings), block=False)
            await until(lambda: len(processes("sleep(765.8)")) == 5, 20)
            await exp.stop(group[0].model)
            assert group[0].status is X
            await until(lambda: not processes("765.8"))


@pytest.mark.parametrize("way", ["srun", "ssh"])
async def test_mpirun_in_an_allocation(
    cluster: HostCluster, lab: Lab, allocation: Allocated, database: None, way: str
) -> None:
    """A database by mpirun leaves room for the ranks of another mpirun on its hosts, and these know where it is."""
    mpirun(cluster, lab)
    if way == "ssh":
        by_ssh(cluster, lab)
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            db = exp.create_database(db_nodes=3, interface="eth0", port=0, run_command="mpirun")
            db.run_settings.set("allow-run-as-root")
            await exp.start(db)
            pids = spread(cluster, db)
            settings = ranks(WHERE)
            settings.set_tasks_per_node(1)
            group = await exp.start(exp.create_model("ranks", settings))
            assert ends(group) == [(C, 0)], group[0].stderr.read_text()
            told = sorted(group[0].stdout.read_text().splitlines())
            assert told == [f"{name} {','.join(db.get_address())}" for name in sorted(HOSTS)]
        await until(lambda: not any(map(alive, pids)))
