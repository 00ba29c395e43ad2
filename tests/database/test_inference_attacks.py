"""Model files and clients that mean harm, against real workers: what they get is an error, and others notice nothing."""

import io
import os
import pickle
import statistics
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis

from asim import Experiment
from asim.engine.supervisor import MOST_DEVICES
from tests.integration import ml_models as models
from tests.integration.ml_models import need

from .conftest import connect, pids
from .inference import (
    Pings,
    Waiting,
    count,
    memory,
    mlp_works,
    prepared,
    said,
    started,
    store,
    workers,
)  # fmt: skip

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what counts is outside of it."""
    return "asyncio"


GIB = 1 << 30
ENDED = "the worker that ran this ended"
BACKENDS = [
    pytest.param("ONNX", "onnxruntime", models.onnx_mlp, id="onnx"),
    pytest.param("TORCH", "torch", models.torch_mlp, id="torch", marks=pytest.mark.slow),
    pytest.param(
        "TF", "tensorflow", models.tensorflow_mlp, id="tf", marks=[pytest.mark.slow, pytest.mark.timeout(120)]
    ),
    pytest.param("TFLITE", "ai_edge_litert", lambda: models.TFLITE, id="tflite", marks=pytest.mark.slow),
]


# -- files


def broken(backend: str, good: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are no models, each with what it is."""
    random = np.random.default_rng(1)
    yield "empty", b""
    yield "one byte", good[:1]
    yield "half", good[: len(good) // 2]
    yield "random", random.bytes(100_000)
    yield "random after a good beginning", good[:64] + random.bytes(len(good))
    yield "absurd sizes", absurd(backend, good)


def absurd(backend: str, good: bytes) -> bytes:
    """A small file that says that it is of terabytes."""
    if backend == "ONNX":
        shape = [("s", np.array([1 << 20, 1 << 22], np.int64))]
        return models.onnx_model([("ConstantOfShape", ["s"], ["y"])], [("x", 1, [1])], [("y", 1, None)], shape)
    if backend == "TORCH":
        return zipped(good, lambda name: name.endswith("/data/0"), GIB)
    if backend == "TF":
        return splat(1 << 40)
    return good[:4] + b"TFL3" + b"\xff\xff\xff\x7f" * 100


def splat(size: int) -> bytes:
    """A frozen graph with one number, and a shape that says how often."""
    need("tensorflow")
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    node = graph.node.add(name="c", op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.dtype = tf.float32.as_datatype_enum
    node.attr["value"].tensor.tensor_shape.dim.add(size=size)
    node.attr["value"].tensor.float_val.append(1)
    graph.node.add(name="Identity", op="Identity", input=["c"]).attr["T"].type = tf.float32.as_datatype_enum
    return bytes(graph.SerializeToString())


def zipped(good: bytes, which: Any, size: int) -> bytes:
    """An archive one of whose files unpacks to so many zeros."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(good)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for item in old.infolist():
            with new.open(item.filename, "w", force_zip64=True) as file:
                if which(item.filename):
                    for _ in range(size >> 20):
                        file.write(bytes(1 << 20))
                else:
                    file.write(old.read(item))
    return out.getvalue()


@pytest.mark.parametrize(("backend", "module", "make"), BACKENDS)
async def test_files_that_are_no_models(exp: Experiment, backend: str, module: str, make: Any) -> None:
    """Refused in the framework's words, within bounded memory; nothing is stored; others are answered meanwhile."""
    need(module)
    good = make()
    db = await started(exp, worker_memory="1gb")
    client = prepared(db)
    names = ("INPUTS", 1, "x", "OUTPUTS", 1, "Identity") if backend == "TF" else ()
    with Pings(db) as pings:
        for what, blob in broken(backend, good):
            answer = await Waiting(db, "AI.MODELSTORE", "bad", backend, "CPU", *names, "BLOB", blob).answer()
            if answer == b"OK":  # sizes inside may matter only to those who run it
                answer = await Waiting(db, "AI.MODELEXECUTE", "bad", "INPUTS", 1, "x", "OUTPUTS", 1, "y").answer()
                assert what == "absurd sizes" and client.delete("bad")
            assert isinstance(answer, str) and not client.exists("bad", "y"), what
            assert "crashed" not in answer, what
    print(f"{backend}: PING {statistics.median(pings.times):.2f} ms, at most {pings.worst:.1f}")
    assert pings.worst < 1000
    assert memory(workers(db)[0]) < 1.5 * GIB
    assert memory(pids(db)[0]) < 200 << 20
    assert mlp_works(client)
    assert store(client, "good", good, backend) == b"OK"


class Trap:
    """Makes a directory when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return exec, (f"import os; os.mkdir({self.path!r})",)


@pytest.mark.slow
async def test_pickles_run_no_code(exp: Experiment, home: Path) -> None:
    """A pickle, alone or inside a file of torch's, is refused by every backend, and its code has not run."""
    torch = need("torch")
    trap, out = Trap(home / "trapped"), io.BytesIO()
    torch.save(trap, out)
    poisoned = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(models.torch_mlp())) as old, zipfile.ZipFile(poisoned, "w") as new:
        for item in old.infolist():
            is_pickle = item.filename.endswith("/data.pkl")
            new.writestr(item.filename, pickle.dumps(trap, protocol=2) if is_pickle else old.read(item))
    db = await started(exp)
    client = prepared(db)
    for blob in (pickle.dumps(trap), out.getvalue(), poisoned.getvalue()):
        for backend in ("TORCH", "ONNX"):
            with pytest.raises(redis.ResponseError):
                store(client, "bad", blob, backend)
    assert not (home / "trapped").exists()
    pickle.loads(pickle.dumps(trap))
    assert (home / "trapped").exists()
    assert mlp_works(client)


@pytest.mark.slow
async def test_source_that_breaks_the_compiler(exp: Experiment) -> None:
    """A script that is nested too deep for torch's parser ends a worker, and is refused; so is one that is no code."""
    need("torch")
    db = await started(exp)
    client = prepared(db)
    deep = "def f(x):\n    return " + "(" * 200_000 + "x" + ")" * 200_000 + "\n"
    for source in (
        deep,
        "\0",
        "def f(x):",
        "import os\nos.system('true')",
        "x" * 1_000_000,
        "def f(x):\n    return y\n",
    ):
        answer = await Waiting(db, "AI.SCRIPTSET", "s", "CPU", "SOURCE", source).answer()
        assert isinstance(answer, str) and not client.exists("s"), source[:40]
    assert mlp_works(client)


HANGS = """
import torch


class Hangs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.count = 0

    @torch.jit.export
    def __getstate__(self):
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.count, self.training = 0, state[1]
        while self.count >= 0:
            self.count = (self.count + 1) % 1000

    def forward(self, x):
        return x
"""


@pytest.mark.slow
async def test_a_model_whose_loading_never_ends(exp: Experiment, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that runs when it is loaded has model_execution_timeout: then the upload is an error, and others are served."""
    need("torch")
    (home / "hangs.py").write_text(HANGS)
    monkeypatch.syspath_prepend(str(home))
    import hangs

    blob = models.saved(hangs.Hangs())
    db = await started(exp, model_execution_timeout=10_000)
    client = prepared(db)
    (worker,) = workers(db)
    answer = Waiting(db, "AI.MODELSTORE", "bad", "TORCH", "CPU", "BLOB", blob)
    await answer.is_blocked(db)
    assert ENDED in await answer.answer()
    assert mlp_works(client)
    assert workers(db) != [worker] and "SIGALRM" in said(db)
    assert not client.exists("bad")


# -- clients

ENGINE = ["NEXT", "DONE x", "FETCH", "WANTED", "WANTED CPU", "PREPARE ONNX CPU", "WORKER FAILED CPU x"]
OTHERS = [
    "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT KILL USER asim-worker", "CLIENT UNBLOCK 1", "CLIENT PAUSE 1000",
    "ACL LIST", "ACL USERS", "ACL GETUSER asim-worker", "ACL SETUSER asim-worker nopass", "ACL DELUSER asim-worker",
    "ACL SAVE", "ACL LOG", "CONFIG SET requirepass x", "MONITOR", "DEBUG SLEEP 10", "DEBUG SEGFAULT", "MODULE UNLOAD asim",
    "MODULE LIST", "SHUTDOWN",
]  # fmt: skip


async def test_an_application_is_no_worker(exp: Experiment) -> None:
    """It can neither pose as a worker or its keeper, not even in a transaction, nor disturb those, nor learn a password."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    for line in [*(f"ASIM.{words}" for words in ENGINE), *OTHERS]:
        with pytest.raises(redis.ResponseError, match="(?i)permission|not allowed|unknown"):
            connect(db).execute_command(*line.split())
        with pytest.raises(redis.ResponseError):
            connect(db).pipeline(transaction=True).execute_command(*line.split()).execute()
    for user in ("asim", "asim-worker"):
        for guess in ("", user, "x", "password"):
            with pytest.raises(redis.exceptions.AuthenticationError):
                connect(db, username=user, password=guess).ping()
    assert workers(db) == [worker]
    assert mlp_works(client)


async def test_a_worker_may_only_work(exp: Experiment) -> None:
    """Whoever takes over a worker's connection cannot read data, change anything, or fetch what it was not asked to run."""
    db = await started(exp)
    prepared(db)
    admin = connect(db, username="asim", password=db._handle.secret)
    admin.execute_command("ACL", "SETUSER", "asim-worker", ">known")  # its own password nobody can get
    words = ["PING", "GET k", "SET k v", "KEYS *", "AI.TENSORGET x BLOB", "AI.MODELGET mlp BLOB", "AI.INFO mlp", "INFO"]
    words += [
        "FLUSHALL",
        "CONFIG GET *",
        "CONFIG SET dir /tmp",
        "SUBSCRIBE c",
        "ASIM.WANTED",
        "ASIM.WORKER FAILED CPU x",
    ]
    words += ["ASIM.PREPARE ONNX CPU", "ACL LIST", "SHUTDOWN", "MULTI", "EVAL return(1) 0", "CLIENT LIST"]
    for line in words:
        thief = connect(db, username="asim-worker", password="known")
        with pytest.raises(redis.exceptions.NoPermissionError):
            thief.execute_command(*line.split())
    for line in ("ASIM.FETCH", "ASIM.NEXT", "ASIM.DONE x", "ASIM.DONE"):
        thief = connect(db, username="asim-worker", password="known")
        with pytest.raises(redis.ResponseError, match="(?i)worker|task|arguments"):
            thief.execute_command(*line.split())
    assert mlp_works(connect(db))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a worker gives up is Linux's to refuse")
async def test_what_can_be_seen_of_a_worker(exp: Experiment) -> None:
    """Its secret is in no argument, variable or file; its socket is its owner's; it can get no network, privilege or core."""
    db = await started(exp, worker_memory="2gb")
    prepared(db)
    (worker,) = workers(db)
    place, home = Path(f"/proc/{worker}"), Path(db.checkpoint_file).parent / f"{db.name}_0"
    admin = connect(db, username="asim", password=db._handle.secret)
    shown = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
    (digest,) = admin.acl_getuser("asim-worker")["passwords"]
    for word in (db._handle.secret, digest.lstrip("#")):
        assert word.encode() not in shown
        assert not [
            file
            for file in home.iterdir()
            if file.is_file() and word.encode() in file.read_bytes() and file.stat().st_mode & 0o077
        ]
    assert home.stat().st_mode & 0o077 == 0
    places = [home, *Path(os.environ["TMPDIR"]).glob("asim-workers-*")]  # there, if the path is too long
    assert all(one.stat().st_mode & 0o077 == 0 for one in places)
    assert all(file.stat().st_mode & 0o077 == 0 for one in places for file in one.iterdir() if file.is_socket())
    assert (home / "workers.log").stat().st_mode & 0o077 == 0
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    limits = (place / "limits").read_text()
    assert "Max core file size        0 " in limits and f"Max data size             {2 * GIB} " in limits
    assert (place / "oom_score_adj").read_text() == "1000\n"
    assert not psutil.Process(worker).net_connections("inet")


@pytest.mark.slow
async def test_devices_without_end(exp: Experiment) -> None:
    """A client that names more and more devices gets an error, and not more and more processes."""
    db = await started(exp)
    client = prepared(db)
    answers = []
    for i in range(MOST_DEVICES + 5):
        device = f"CPU:{i}"
        answers.append(await Waiting(db, "AI.MODELSTORE", "m", "ONNX", device, "BLOB", models.onnx_mlp()).answer())
    assert answers[: MOST_DEVICES - 1] == [b"OK"] * (MOST_DEVICES - 1)
    assert all(f"{MOST_DEVICES} devices have workers" in one for one in answers[MOST_DEVICES - 1 :])
    assert len(workers(db)) == MOST_DEVICES
    assert mlp_works(client)


async def test_ten_thousand_bad_requests(exp: Experiment) -> None:
    """Requests that are wrong in every way cost no worker anything."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    used = sum(psutil.Process(worker).cpu_times()[:2])
    pipe = client.pipeline(transaction=False)
    for i in range(2000):
        pipe.execute_command(*count("few", "y", model=f"no{i}"))
        pipe.execute_command("AI.MODELEXECUTE", "mlp", "INPUTS", 1, "none", "OUTPUTS", 1, "y")
        pipe.execute_command("AI.MODELEXECUTE", "mlp", "INPUTS", 2, "X", "X", "OUTPUTS", 1, "y")
        pipe.execute_command("AI.MODELEXECUTE", "X", "INPUTS", 1, "X", "OUTPUTS", 1, "y")
        pipe.execute_command("AI.MODELEXECUTE", "mlp", "INPUTS", 10**18, "X", "OUTPUTS", 1, "y")
    answers = pipe.execute(raise_on_error=False)
    assert all(isinstance(one, redis.ResponseError) for one in answers)
    assert workers(db) == [worker] and sum(psutil.Process(worker).cpu_times()[:2]) - used < 0.5
    assert mlp_works(client)
