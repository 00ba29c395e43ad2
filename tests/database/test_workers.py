"""Inference workers of real databases: started when they are wanted, started again when they end, and gone with their server."""

import os
import signal
import sys
from pathlib import Path

import anyio
import numpy as np
import psutil
import pytest
import redis

import asim
from asim import Experiment, Orchestrator
from asim.engine.build import module_file
from asim.errors import DatabaseError
from tests.integration import ml_models as models
from tests.integration.conftest import alive, until
from tests.integration.ml_models import mlp, need

from .conftest import CLUSTER, connect, node_pids, pids

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 60
X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def workers(db: Orchestrator, shard: int = 0) -> list[int]:
    """The process ids of a shard's workers."""
    children = psutil.Process(node_pids(db)[shard]).children()
    return sorted(one.pid for one in children if "asim.engine.worker" in _command(one))


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def said(db: Orchestrator) -> str:
    """What the workers' log has."""
    path = Path(db.checkpoint_file).parent / f"{db.name}_0" / "workers.log"
    return path.read_text() if path.exists() else ""


async def started(exp: Experiment, **options: object) -> Orchestrator:
    """A database that runs."""
    need("onnxruntime")
    db = exp.create_database(port=0, **options)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
    return db


async def infer(db: Orchestrator, name: str = "m", shard: int = 0) -> np.ndarray:
    """Store a model if it is not there, and run it."""
    async with asim.Client(db.get_address()[shard] if db.num_shards == 1 else db.get_address()) as client:
        with anyio.fail_after(DEADLINE):
            await client.put_tensor("x", X)
            if not await client.model_exists(name):
                await client.set_model(name, models.onnx_mlp(), "ONNX", "CPU")
            await client.run_model(name, inputs=["x"], outputs=["y"])
            return await client.get_tensor("y")


async def test_a_model_runs(exp: Experiment) -> None:
    """From the driver's upload to the framework's answer, and nothing is left when the database stops."""
    db = await started(exp)
    assert np.allclose(await infer(db), mlp(X), atol=1e-5)
    (worker,) = workers(db)
    await exp.stop(db)
    assert not alive(worker)


async def test_no_worker_without_a_model(exp: Experiment) -> None:
    """A database of tensors alone starts no worker: an interpreter per shard would be memory for nothing."""
    db = await started(exp)
    async with asim.Client(db.get_address()[0]) as client:
        await client.put_tensor("x", X)
        await client.get_tensor("x")
    assert workers(db) == []
    assert said(db) == ""
    node = psutil.Process(node_pids(db)[0])
    await until(lambda: node.num_threads() == 2)  # one waits for what the server wants
    assert workers(db) == []


async def test_a_killed_worker_is_replaced(exp: Experiment) -> None:
    """The run after a worker's death works, by another worker; the log tells."""
    db = await started(exp)
    await infer(db)
    for _ in range(3):
        (worker,) = workers(db)
        os.kill(worker, signal.SIGKILL)
        await until(lambda worker=worker: workers(db) not in ([], [worker]))
        assert np.allclose(await infer(db), mlp(X), atol=1e-5)
    assert said(db).count("of CPU was killed by SIGKILL") == 3


async def test_a_worker_killed_during_a_run(exp: Experiment) -> None:
    """The one who waits for that run gets an error, and the database goes on."""
    db = await started(exp, intra_op_threads=1)
    async with asim.Client(db.get_address()[0]) as client, anyio.create_task_group() as group:
        await client.put_tensor("n", np.array([10_000, 10_000, 1], np.int64))
        await client.set_model("slow", _slow_model(), "ONNX", "CPU")
        (worker,) = workers(db)
        group.start_soon(_kill_when_busy, worker)
        with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError):
            await client.run_model("slow", inputs=["n"], outputs=["y"])
    assert np.allclose(await infer(db), mlp(X), atol=1e-5)


def _slow_model() -> bytes:
    nodes = [("ConstantOfShape", ["n"], ["a"]), ("Einsum", ["a", "a"], ["y"], {"equation": "ijk,ljk->il"})]
    return models.onnx_model(nodes, [("n", 7, [3])], [("y", 1, None)])


async def _kill_when_busy(worker: int) -> None:
    """Once it has memory for the product, it computes that."""
    process = psutil.Process(worker)
    await until(lambda: process.memory_info().rss > 200 << 20)
    os.kill(worker, signal.SIGSEGV)


async def test_workers_end_with_their_node(exp: Experiment) -> None:
    """A node that is killed takes its server and its workers with it."""
    db = await started(exp)
    await infer(db)
    processes = [*workers(db), *pids(db)]
    os.kill(node_pids(db)[0], signal.SIGKILL)
    await until(lambda: not any(map(alive, processes)))


async def test_several_workers(exp: Experiment) -> None:
    """As many processes and threads per device as were asked for; each CPU device has its own."""
    db = await started(exp, workers_per_device=2, threads_per_queue=3, intra_op_threads=1)
    await infer(db)
    await until(lambda: len(workers(db)) == 2)
    client = connect(db)
    client.execute_command("AI.MODELSTORE", "n", "ONNX", "CPU:1", "BLOB", models.onnx_mlp())
    await until(lambda: len(workers(db)) == 4)
    devices = [psutil.Process(pid).cmdline()[-1] for pid in workers(db)]
    assert sorted(devices) == ["CPU", "CPU", "CPU:1", "CPU:1"]
    admin = connect(db, username="asim", password=db._handle.secret)
    await until(lambda: [row["user"] for row in admin.client_list()].count("asim-worker") == 12)


async def test_connections_that_are_cut(exp: Experiment) -> None:
    """Whoever kills all connections loses no inference: workers and their keeper come back."""
    db = await started(exp)
    await infer(db)
    admin = connect(db, username="asim", password=db._handle.secret)
    admin.client_kill_filter(skipme=True)
    client = connect(db)
    blob = models.onnx_mlp()
    with anyio.fail_after(DEADLINE):
        assert client.execute_command("AI.MODELSTORE", "n", "ONNX", "CPU:1", "BLOB", blob) == b"OK"
        assert np.allclose(await infer(db), mlp(X), atol=1e-5)


@pytest.mark.parametrize("shards", [CLUSTER])
async def test_every_shard_has_its_own(exp: Experiment, shards: int) -> None:
    """The shards of a cluster have workers of their own, over sockets of their own."""
    db = await started(exp, db_nodes=shards)
    for shard in range(shards):
        client = connect(db, shard)
        client.execute_command("AI.MODELSTORE", _key_of(client, shard), "ONNX", "CPU", "BLOB", models.onnx_mlp())
        assert len(workers(db, shard)) == 1


def _key_of(client: redis.Redis, shard: int) -> str:
    first, last = [(0, 5460), (5461, 10922), (10923, 16383)][shard]
    names = (f"k{number}" for number in range(1000))
    return next(name for name in names if first <= client.execute_command("CLUSTER", "KEYSLOT", name) <= last)


async def test_a_deep_directory(home: Path) -> None:
    """Where the shard's directory is too deep for a socket, that is elsewhere, for this user only, and gone at the end."""
    deep = home / ("d" * 60) / ("e" * 60)
    async with Experiment("exp", exp_path=str(deep), stop_grace=0.5) as exp:
        db = await started(exp)
        assert np.allclose(await infer(db), mlp(X), atol=1e-5)
        (place,) = Path(os.environ["TMPDIR"]).glob("asim-workers-*")
        assert place.stat().st_mode & 0o777 == 0o700
    assert not place.exists()


async def test_the_databases_own_socket(exp: Experiment, tmp_path: Path) -> None:
    """A database that has a socket already gives its workers that one."""
    db = await started(exp, unix_socket=f"{tmp_path}/db.sock")
    assert np.allclose(await infer(db), mlp(X), atol=1e-5)
    assert not list(Path(db.checkpoint_file).parent.glob("*/workers.sock"))


async def test_what_applications_and_workers_may(exp: Experiment) -> None:
    """An application cannot pose as a worker or its keeper; a worker can do nothing but its work."""
    db = await started(exp)
    client = connect(db)
    for words in ("NEXT", "DONE x", "FETCH", "WANTED", "PREPARE ONNX CPU", "WORKER FAILED CPU x"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*f"ASIM.{words}".split())
    admin = connect(db, username="asim", password=db._handle.secret)
    rule = admin.acl_getuser("asim-worker")
    assert rule["keys"] == []
    assert not rule["channels"]
    commands = {str(name).lower() for name in rule["commands"]} - {"-@all"}
    assert commands == {"+asim.done", "+asim.fetch", "+asim.next"}
    worker = connect(db, username="asim-worker", password="wrong")
    with pytest.raises(redis.exceptions.AuthenticationError):
        worker.ping()


async def test_a_model_beyond_its_time(exp: Experiment) -> None:
    """A run that takes longer than model_execution_timeout is an error, and the database goes on with a new worker."""
    db = await started(exp, model_execution_timeout=500, intra_op_threads=1)
    async with asim.Client(db.get_address()[0]) as client:
        await client.put_tensor("n", np.array([10_000, 10_000, 1], np.int64))
        await client.set_model("slow", _slow_model(), "ONNX", "CPU")
        with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError):
            await client.run_model("slow", inputs=["n"], outputs=["y"])
    assert np.allclose(await infer(db), mlp(X), atol=1e-5)


async def test_nonsense_is_refused_when_it_is_stored(exp: Experiment) -> None:
    """A file that is no model is an error of the upload, in the framework's words, and is not stored."""
    db = await started(exp)
    async with asim.Client(db.get_address()[0]) as client:
        with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError, match="(?i)protobuf"):
            await client.set_model("m", b"nonsense" * 10, "ONNX", "CPU")
        assert not await client.model_exists("m")


RANK = """
import os, numpy as np
from asim import SyncClient
with SyncClient(os.environ["SSDB"]) as client:
    client.put_tensor("x", np.ones((2, 3), np.float32))
    with open(os.environ["MODEL"], "rb") as file:
        client.set_model("m", file.read(), "ONNX", "CPU")
    client.run_model("m", inputs=["x"], outputs=["y"])
    print(client.get_tensor("y").tolist())
"""


@pytest.mark.parametrize("kind", ["tcp", "uds"])
async def test_beside_a_model(exp: Experiment, tmp_path: Path, kind: str) -> None:
    """A colocated database runs models, too; its workers end with the program that it was for."""
    need("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(models.onnx_mlp())
    settings = exp.create_run_settings(sys.executable, ["-c", RANK], env_vars={"MODEL": f"{tmp_path}/m.onnx"})
    model = exp.create_model("m", settings)
    if kind == "tcp":
        model.colocate_db_tcp(port=0, workers_per_device=1, intra_op_threads=1)
    else:
        model.colocate_db_uds(unix_socket=f"{tmp_path}/s", worker_memory="4gb")
    with anyio.fail_after(DEADLINE):
        (job,) = await exp.start(model)
    assert job.returncode == 0, job.stderr.read_text()
    found = np.array(eval(job.stdout.read_text()))
    assert np.allclose(found, mlp(np.ones((2, 3), np.float32)), atol=1e-5)


async def test_nobody_tries_the_engines_commands_on_another_module(exp: Experiment) -> None:
    """A database with a module of the user's own has no workers, and the node does not ask for any."""
    db = await started(exp, module=str(module_file()))
    assert psutil.Process(node_pids(db)[0]).num_threads() == 1
    with pytest.raises(redis.ResponseError, match="(?i)inference"):
        _run_without(db)


def _run_without(db: Orchestrator) -> None:
    client = connect(db)
    client.execute_command("AI.TENSORSET", "x", "FLOAT", 2, 3, "BLOB", X.tobytes())
    client.execute_command("AI.MODELSTORE", "m", "ONNX", "CPU", "BLOB", models.onnx_mlp())
    client.execute_command("AI.MODELEXECUTE", "m", "INPUTS", 1, "x", "OUTPUTS", 1, "y")


async def test_a_model_that_keeps_its_input(exp: Experiment) -> None:
    """A stateful module finds what it was given, although large inputs come in memory that is used again."""
    torch = need("torch")

    class Last(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.zeros(1)

        def forward(self, x):  # type: ignore[no-untyped-def]
            found = self.last.sum().reshape(1)
            self.last = x
            return found

    blob = await anyio.to_thread.run_sync(models.saved, Last())
    db = await started(exp)
    async with exp.client(db) as client:
        with anyio.fail_after(DEADLINE):
            await client.set_model("last", blob, "TORCH", "CPU")
            found = []
            for number in range(1, 5):
                await client.put_tensor("x", np.full(1_000_000, number, np.float32))
                await client.run_model("last", ["x"], ["y"])
                found.append(float((await client.get_tensor("y"))[0]))
    assert found == [0, 1_000_000, 2_000_000, 3_000_000]


async def test_a_cluster_that_was_down(exp: Experiment) -> None:
    """When a cluster's state was bad for a while, workers come afterwards all the same."""
    db = await started(exp, db_nodes=3)
    with connect(db, 0, username="asim", password=db._handle.secret) as admin:
        admin.execute_command("CLUSTER DELSLOTS", 0)
        await until(lambda: b"cluster_state:fail" in _state(admin), DEADLINE)
        admin.execute_command("CLUSTER ADDSLOTS", 0)
        await until(lambda: b"cluster_state:ok" in _state(admin), DEADLINE)
        async with exp.client(db) as client:
            with anyio.fail_after(DEADLINE):
                await client.put_tensor("x", X)
                await client.set_model("m", models.onnx_mlp(), "ONNX", "CPU")
                await client.run_model("m", ["x"], ["y"])
                assert np.allclose(await client.get_tensor("y"), mlp(X), atol=1e-5)


def _state(admin: redis.Redis) -> bytes:
    said = admin.execute_command("CLUSTER INFO")
    return said if isinstance(said, bytes) else f"cluster_state:{said['cluster_state']}".encode()
