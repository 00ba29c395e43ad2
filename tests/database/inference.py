"""What the tests of inference's faults and attacks share: databases, models that take as long as they are told, clients that wait."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Self

import anyio
import numpy as np
import psutil
import redis

from asim import Experiment, Orchestrator
from tests.integration import ml_models as models
from tests.integration.conftest import until
from tests.integration.ml_models import need

from .conftest import connect, node_pids

DEADLINE = 60
FOREVER = 1 << 60
"""Rounds that :func:`counting_model` does not end within a test."""
X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


async def started(exp: Experiment, **options: object) -> Orchestrator:
    """A database that runs, whose workers compute in one thread."""
    need("onnxruntime")
    db = exp.create_database(**{"port": 0, "intra_op_threads": 1} | options)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
    return db


def workers(db: Orchestrator, shard: int = 0) -> list[int]:
    """The process ids of a shard's workers."""
    found = []
    for process in psutil.Process(node_pids(db)[shard]).children():
        try:
            if "asim.engine.worker" in process.cmdline():
                found.append(process.pid)
        except psutil.Error:  # it has just ended
            continue
    return sorted(found)


def said(db: Orchestrator) -> str:
    """What the workers' log has."""
    path = Path(db.checkpoint_file).parent / f"{db.name}_0" / "workers.log"
    return path.read_text() if path.exists() else ""


async def computes(worker: int, seconds: float = 0.1) -> None:
    """Wait until a worker has used so much time of a CPU: it is in the middle of a run."""
    process = psutil.Process(worker)
    before = sum(process.cpu_times()[:2])
    await until(lambda: sum(process.cpu_times()[:2]) > before + seconds)


def attached(db: Orchestrator) -> set[int]:
    """The connections of workers, as the server knows them."""
    rows = connect(db, username="asim", password=db._handle.secret).client_list()
    return {int(row["id"]) for row in rows if row["user"] == "asim-worker"}


async def kill(db: Orchestrator, worker: int) -> None:
    """End the only worker, and wait until the server knows."""
    before = attached(db)
    os.kill(worker, signal.SIGKILL)
    await until(lambda: not before & attached(db))


# -- models


def counting_model() -> bytes:
    """``y = x + n``, by adding 1 so many times: as long as is wanted, and nobody can interrupt it."""
    need("onnx")
    from onnx import TensorProto, helper

    def value(name: str, kind: int, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["old", "one"], ["new"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("old", TensorProto.FLOAT, [1])],
        [value("on", TensorProto.BOOL, []), value("new", TensorProto.FLOAT, [1])],
        [one],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        "g",
        [value("x", TensorProto.FLOAT, [1]), value("n", TensorProto.INT64, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def growing_model() -> bytes:
    """Zeros in the shape that it is given."""
    return models.onnx_model([("ConstantOfShape", ["n"], ["y"])], [("n", 7, [1])], [("y", 1, None)])


def store(client: redis.Redis, name: str, blob: bytes, backend: str = "ONNX", *options: object) -> Any:
    """AI.MODELSTORE, with the names that a frozen graph needs."""
    names = ("INPUTS", 1, "x", "OUTPUTS", 1, "Identity") if backend == "TF" else ()
    return client.execute_command("AI.MODELSTORE", name, backend, "CPU", *options, *names, "BLOB", blob)


def tensor(client: redis.Redis, name: str, array: np.ndarray) -> None:
    """AI.TENSORSET."""
    kind = {"f": "FLOAT", "l": "INT64"}[array.dtype.char]
    client.execute_command("AI.TENSORSET", name, kind, *array.shape, "BLOB", array.tobytes())


def number(client: redis.Redis, name: str) -> float:
    """The first element of a FLOAT tensor."""
    return float(struct.unpack_from("<f", client.execute_command("AI.TENSORGET", name, "BLOB"))[0])


def prepared(db: Orchestrator) -> redis.Redis:
    """A client, and in the database ``count`` and ``mlp``, x = 1, X, and the numbers of rounds few, many and forever."""
    client = connect(db, socket_timeout=DEADLINE)
    store(client, "count", counting_model())
    store(client, "mlp", models.onnx_mlp())
    tensor(client, "x", np.ones(1, np.float32))
    tensor(client, "X", X)
    for name, rounds in (("few", 3), ("many", 300_000), ("forever", FOREVER)):
        tensor(client, name, np.array([rounds], np.int64))
    return client


def count(rounds: str = "few", output: str = "y", *options: object, model: str = "count") -> tuple[object, ...]:
    """The command that runs that model."""
    return "AI.MODELEXECUTE", model, "INPUTS", 2, "x", rounds, "OUTPUTS", 1, output, *options


def mlp_works(client: redis.Redis) -> bool:
    """Whether the next request is served, rightly."""
    client.execute_command("AI.MODELEXECUTE", "mlp", "INPUTS", 1, "X", "OUTPUTS", 1, "Y")
    found = np.frombuffer(client.execute_command("AI.TENSORGET", "Y", "BLOB"), np.float32).reshape(2, 2)
    return np.allclose(found, models.mlp(X), atol=1e-5)


# -- clients


class Waiting:
    """A command that was sent, and whose answer is not asked for yet."""

    def __init__(self, db: Orchestrator, *words: object) -> None:
        host, _, port = db.get_address()[0].rpartition(":")
        self.connection = redis.Connection(host=host, port=int(port), socket_timeout=DEADLINE)
        self.connection.connect()
        self.connection.send_command("CLIENT", "ID")
        self.id = self.connection.read_response()
        self.connection.send_command(*words)

    def send(self, *words: object) -> Any:
        """Read an answer, and send another command."""
        said = self.connection.read_response()
        self.connection.send_command(*words)
        return said

    def result(self) -> Any:
        """The answer, or the error's text."""
        try:
            return self.connection.read_response()
        except redis.ResponseError as exc:
            return str(exc)
        finally:
            self.connection.disconnect()

    async def answer(self) -> Any:
        """The same, while everything else goes on."""
        with anyio.fail_after(DEADLINE):
            return await anyio.to_thread.run_sync(self.result)

    async def is_blocked(self, db: Orchestrator) -> None:
        """Wait until the server has taken it up."""
        admin = connect(db, username="asim", password=db._handle.secret)
        await until(lambda: self.id in [int(row["id"]) for row in admin.client_list() if "b" in row["flags"]])

    def leave(self) -> None:
        """Disconnect."""
        self.connection.disconnect()


class Pings:
    """How long the server takes to answer others, meanwhile; in milliseconds."""

    def __init__(self, db: Orchestrator) -> None:
        host, _, port = db.get_address()[0].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=DEADLINE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._over = threading.Event()
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.001):
            begin = time.perf_counter()
            self._socket.sendall(b"PING\r\n")
            assert self._socket.recv(7) == b"+PONG\r\n"
            self.times.append(1000 * (time.perf_counter() - begin))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(DEADLINE)
        self._socket.close()

    @property
    def worst(self) -> float:
        """The longest."""
        return max(self.times)


def memory(pid: int) -> int:
    """Bytes of a process that are in memory, at most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
