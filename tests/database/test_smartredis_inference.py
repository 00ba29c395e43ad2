"""Unmodified SmartRedis programs run models and scripts in asim's databases; every result is the framework's own.

And several GPUs, which this machine may not have: workers of GPUs are fakes there, and what is seen is which of them is asked.
"""

from __future__ import annotations

import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import redis
from anyio import to_thread

from asim import Experiment
from asim.engine.protocol import CALL, LOAD, RUN, call_of
from tests.conftest import missing
from tests.integration import ml_models
from tests.servers import RedisCluster, RedisServer
from tests.smartredis import caller
from tests.workers import FakeWorker

pytestmark = pytest.mark.timeout(180)
SLOW = pytest.mark.slow
INPUT = [[0.5, -1.0, 2.0], [3.0, 0.25, -0.125]]


def python() -> Path:
    """SmartRedis' interpreter."""
    return caller.interpreter() or missing("there is no Python with SmartRedis (make smartredis)")


def in_onnxruntime(blob: bytes, x: np.ndarray) -> np.ndarray:
    """What the framework itself computes."""
    session = ml_models.need("onnxruntime").InferenceSession(blob)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def in_torch(blob: bytes, x: np.ndarray) -> np.ndarray:
    """What the framework itself computes."""
    import io

    torch = ml_models.need("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(torch.jit.load(io.BytesIO(blob))(torch.from_numpy(x)).detach())


def in_tflite(blob: bytes, x: np.ndarray) -> np.ndarray:
    """What the framework itself computes."""
    ml_models.need("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    one = Interpreter(model_content=blob)
    one.resize_tensor_input(one.get_input_details()[0]["index"], x.shape)
    one.allocate_tensors()
    one.set_tensor(one.get_input_details()[0]["index"], x)
    one.invoke()
    return np.asarray(one.get_tensor(one.get_output_details()[0]["index"]))


def in_tensorflow(blob: bytes, x: np.ndarray) -> np.ndarray:
    """What the framework itself computes."""
    tf = ml_models.need("tensorflow")
    graph_def = tf.compat.v1.GraphDef.FromString(blob)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return np.asarray(session.run("Identity:0", {"x:0": x}))


MODELS: dict[str, tuple[Callable[[], bytes], Callable[[bytes, np.ndarray], np.ndarray], dict[str, Any]]] = {
    "ONNX": (ml_models.onnx_mlp, in_onnxruntime, {}),
    "TFLITE": (lambda: ml_models.TFLITE, in_tflite, {}),
    "TORCH": (ml_models.torch_mlp, in_torch, {}),
    "TF": (ml_models.tensorflow_mlp, in_tensorflow, {"inputs": ["x"], "outputs": ["Identity"]}),
}
PLACES = ["tcp", *(pytest.param(place, marks=SLOW) for place in ("uds", "cluster", "colocated-tcp", "colocated-uds"))]
SOME = ("ONNX", "TFLITE")
"""Backends that are quick to import: the fast suite's."""


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what counts is outside of it."""
    return "asyncio"


def prepared(backends: tuple[str, ...], tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Models in files, as tasks for the program; and what they compute."""
    x, tasks, expected = np.array(INPUT, np.float32), [], {}
    for backend in backends:
        make, own, nodes = MODELS[backend]
        (tmp_path / backend).write_bytes(make())
        expected[backend] = own(make(), x)
        file = str(tmp_path / backend)
        tasks.append(
            {"name": backend, "backend": backend, "file": file, "arrays": [INPUT], "dtype": "float32", **nodes}
        )
    return tasks, expected


@pytest.mark.anyio
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("backends", [SOME, pytest.param(tuple(MODELS), marks=SLOW)], ids=["light", "all"])
async def test_every_operation(exp: Experiment, tmp_path: Path, place: str, backends: tuple[str, ...]) -> None:
    """Models and scripts, stored by the program and by the driver: run, read, deleted, and the results are right."""
    program = Path(caller.__file__).with_name("inference.py")
    tasks, results = tmp_path / "tasks.json", tmp_path / "results.json"
    app = exp.create_model("app", exp.create_run_settings(str(python()), [str(program), str(tasks), str(results)]))
    app.disable_key_prefixing()
    models, expected = await to_thread.run_sync(prepared, backends, tmp_path)
    for task in models:
        nodes = {name: task[name] for name in ("inputs", "outputs") if name in task}
        app.add_ml_model(f"{task['name']}-driver", task["backend"], model_path=task["file"], **nodes)
    with_scripts = "TORCH" in backends
    if with_scripts:
        app.add_function("fn", "def four(x):\n    return 4 * x\n")
    asked = {
        "models": models, "uploaded": {name: [f"{name}-driver"] for name in backends}, "place": str(tmp_path),
        "scripts": with_scripts, "uploaded_scripts": [["fn", "four"]],
    }  # fmt: skip
    tasks.write_text(json.dumps(asked))
    databases = []
    if place.startswith("colocated"):
        app.colocate_db_tcp(port=0) if place.endswith("tcp") else app.colocate_db_uds(str(tmp_path / "s.sock"))
    else:
        options = {"unix_socket": str(tmp_path / "s.sock")} if place == "uds" else {}
        databases = [exp.create_database(port=0, db_nodes=3 if place == "cluster" else 1, **options)]
        if place == "uds":
            app.run_settings.update_env({"SSDB": f"unix://{tmp_path}/s.sock"})
    group = await exp.start(*databases, app)
    assert group["app"].returncode == 0, group["app"].stderr.read_text()
    found = json.loads(results.read_text())
    assert "error" not in found, found["error"]
    for backend in backends:
        for values in found[backend]:
            np.testing.assert_allclose(values, expected[backend], rtol=1e-5, atol=1e-6)
        assert len(found[backend]) == 3
    assert found["info"]["backend"] == backends[0]
    assert (found["info"]["tag"], found["info"]["reset"]) == ("from file", "0")
    if with_scripts:
        assert found["scripts"] == [4.0, 8.0]


class GPU(threading.Thread):
    """A fake worker that accepts and echoes until it is closed, and remembers what it was asked for."""

    def __init__(self, server: RedisServer, device: str) -> None:
        super().__init__(daemon=True)
        self.device, self.did = device, []  # type: str, list[int]
        self._worker = FakeWorker(server, device)
        self._worker.socket.settimeout(None)
        self.start()

    def run(self) -> None:
        """Until the connection ends."""
        worker = self._worker
        try:
            while True:
                task = worker.take()
                self.did.append(task.kind)
                if task.kind == LOAD:
                    worker.accept(-1, -1)
                elif task.kind in (RUN, CALL):
                    assert task.kind == RUN or call_of(task.extra).function == "f"
                    worker.echo()
                else:
                    worker.answer()
        except (AssertionError, OSError, ValueError):
            worker.close()  # the server has gone

    def close(self) -> None:
        """End it, and wait for that."""
        self._worker.socket.shutdown(socket.SHUT_RDWR)
        self.join(10)

    def runs(self) -> int:
        """How many runs it did since the last look."""
        count = sum(kind in (RUN, CALL) for kind in self.did)
        self.did.clear()
        return count


@pytest.fixture(params=["tcp", pytest.param("uds", marks=SLOW), pytest.param("cluster", marks=SLOW)])
def several(request: pytest.FixtureRequest) -> Iterator[Several]:
    """Servers with two GPUs each, whose workers are fakes."""
    interpreter, cluster = python(), request.param == "cluster"
    with ExitStack() as stack:
        running = stack.enter_context(
            RedisCluster(3, module_args=("WORKERS",)) if cluster else RedisServer(module_args=("WORKERS",))
        )
        servers = running.servers if isinstance(running, RedisCluster) else [running]
        dbs = [stack.enter_context(server.client()) for server in servers]
        gpus = [[GPU(server, f"GPU:{number}") for server in servers] for number in range(2)]
        stack.callback(lambda: [gpu.close() for some in gpus for gpu in some])
        address = running.addresses[0] if isinstance(running, RedisCluster) else f"127.0.0.1:{running.port}"
        if request.param == "uds":
            address = f"unix://{servers[0].socket}"
        sr = caller.SmartRedis(interpreter, SSDB=address, SR_DB_TYPE="Clustered" if cluster else "Standalone")
        stack.callback(sr.close)
        sr.put_tensor("x", np.array([1.0, 2.0], np.float32))
        yield Several(sr, dbs, gpus)


class Several(NamedTuple):
    """SmartRedis, clients of the servers, and each server's worker for each of two GPUs."""

    sr: Any
    dbs: list[redis.Redis]
    gpus: list[list[GPU]]


def test_several_gpus(several: Several) -> None:
    """SmartRedis' operations for several GPUs: a copy on each, one for the whole, and runs go where the client says."""
    sr, dbs, gpus = several
    sr.set_model_multigpu("m", b"a model", "TORCH", 0, 2)
    sr.set_script_multigpu("s", "def f(x): return x", 0, 2)
    check_several(several, "m", ["s"])
    sr.run_model("m", ["x"], ["w"])
    assert [runs(some) for some in gpus] == [1, 0]
    np.testing.assert_array_equal(sr.get_tensor("w"), np.array([1, 2], np.float32))
    sr.delete_model_multigpu("m", 0, 2)
    sr.delete_script_multigpu("s", 0, 2)
    assert stored(dbs) == []


def test_several_gpus_from_files(several: Several, tmp_path: Path) -> None:
    """The same where SmartRedis reads a model and a script from files, sends a function, and cuts the model in pieces."""
    sr, dbs, _ = several
    blob, source = b"0123456789" * 250, "def f(x):\n    return x\n"
    (tmp_path / "m").write_bytes(blob)
    (tmp_path / "s.py").write_text(source)
    sr.set_model_chunk_size(1000)
    with dbs[0].monitor() as monitor:
        sr.set_model_from_file_multigpu("m", str(tmp_path / "m"), "TORCH", 0, 2)
        seen = next(said for _ in range(100) if "MODELSTORE" in (said := monitor.next_command()["command"]))
    assert [len(piece) for piece in seen.split()[-3:]] == [1000, 1000, 500]
    sr.set_script_from_file_multigpu("s", str(tmp_path / "s.py"), 0, 2)
    sr.set_function_multigpu("f", {"function": "f"}, 0, 2)
    check_several(several, "m", ["s", "f"])
    for gpu in ("", ".GPU:0", ".GPU:1"):
        assert sr.get_model(f"m{gpu}") == blob
        assert sr.get_script(f"s{gpu}") == source
        assert sr.get_script(f"f{gpu}").startswith("def f(x):")
    sr.delete_model_multigpu("m", 0, 2)
    for name in ("s", "f"):
        sr.delete_script_multigpu(name, 0, 2)
    assert stored(dbs) == []


def check_several(several: Several, model: str, scripts: list[str]) -> None:
    """What is stored, for which devices, and which of them runs it."""
    sr, dbs, gpus = several
    names = [f"{name}{gpu}" for name in (model, *scripts) for gpu in ("", ".GPU:0", ".GPU:1")]
    assert stored(dbs) == sorted(names * len(dbs))
    for gpu in range(2):
        metas = [db.execute_command("AI.MODELGET", key, "META") for db in dbs for key in db.scan_iter(f"*m.GPU:{gpu}")]
        assert [meta[3] for meta in metas] == [b"GPU:%d" % gpu] * len(dbs)
    assert [runs(some) for some in gpus] == [0, 0]
    for offset in range(4):
        sr.run_model_multigpu(model, offset, 0, 2, ["x"], ["y"])
        for script in scripts:
            sr.run_script_multigpu(script, "f", ["x"], ["z"], offset, 0, 2)
        each = 1 + len(scripts)
        assert [runs(some) for some in gpus] == [each * (offset % 2 == 0), each * (offset % 2)]


def stored(dbs: list[redis.Redis]) -> list[str]:
    """The names of models and scripts, without the prefixes of shards."""
    listed = [row[0] for db in dbs for kind in ("MODEL", "SCRIPT") for row in db.execute_command(f"AI._{kind}SCAN")]
    return sorted(key.rpartition(b"}.")[2].decode() for key in listed)


def runs(gpus: list[GPU]) -> int:
    """How many runs they did since the last look."""
    return sum(gpu.runs() for gpu in gpus)
