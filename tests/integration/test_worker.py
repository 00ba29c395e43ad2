"""Real worker processes, told what to do by a stand-in for the engine: answers, limits, crashes, and what they gave up."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asim.engine import protocol
from asim.engine.backends import WRONG_OUTPUTS
from asim.engine.protocol import CALL, DONE, DROP, FAILED, LOAD, PREPARE, RUN, Call
from tests.servers import until

from . import ml_models as models
from .ml_models import mlp, need, onnx_model
from .workers import Attached, Engine, Stored, arrays, engine_in, tensor

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
GIB = 1 << 30


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """The stand-in; what it started ends with the test."""
    with engine_in(tmp_path) as running:
        yield running


@pytest.fixture
def onnx(engine: Engine) -> Engine:
    """The same with a model of ONNX, which is number 1."""
    need("onnxruntime")
    engine.objects[1] = Stored("ONNX", models.onnx_mlp())
    return engine


def run(worker: Attached, thing: int = 1, *given: Any, expected: int = 1, **rest: Any) -> list[Any]:
    """The answer of a run."""
    return arrays(*worker.ask(RUN, thing, expected=expected, tensors=[tensor(one) for one in given], **rest))


def refused(worker: Attached, kind: int = RUN, thing: int = 1, **rest: Any) -> str:
    """The error of a task."""
    head, outputs = worker.ask(kind, thing, **rest)
    assert (head.status, outputs) == (FAILED, [])
    return head.text


def gone(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """The exit code of a worker that is to end, and what it printed."""
    said = process.communicate(timeout=30)[0]
    return process.returncode, said.decode()


# -- answers


def test_a_worker_introduces_itself(onnx: Engine) -> None:
    """It logs in as the workers' user and says who it is and what device it serves."""
    process = onnx.start(device="CPU:3")
    worker = onnx.attach()
    assert worker.login == [b"AUTH", b"asim-worker", b"secret"]
    assert (worker.hello.status, worker.hello.pid, worker.hello.device) == (protocol.HELLO, process.pid, "CPU:3")


BACKENDS = [
    pytest.param("ONNX", "onnxruntime", models.onnx_mlp),
    pytest.param("TORCH", "torch", models.torch_mlp, marks=pytest.mark.slow),
    pytest.param("TF", "tensorflow", models.tensorflow_mlp, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "module", "make"), BACKENDS)
def test_a_model_is_prepared_loaded_and_run(engine: Engine, backend: str, module: str, make: Any) -> None:
    """Every backend through a worker: the counts, the digest of what it received, and the framework's answer."""
    need(module)
    blob = make()
    names = (["x"], ["Identity"]) if backend == "TF" else ((), ())
    engine.objects[7] = Stored(backend, blob, inputs=names[0], outputs=names[1])
    worker = engine.worker()
    assert worker.ask(PREPARE, extra=backend.encode())[0].status == DONE
    head, _ = worker.ask(LOAD, 7)
    assert (head.status, head.counts, head.digest) == (DONE, (1, 1), hashlib.sha256(blob).digest())
    for rows in (2, 1):
        assert np.allclose(run(worker, 7, X[:rows])[0], mlp(X[:rows]), atol=1e-5)


def test_an_unknown_object_is_fetched(onnx: Engine) -> None:
    """A run of a model that this worker never saw fetches it, once; after a DROP again."""
    worker = onnx.worker()
    assert np.allclose(run(worker, 1, X)[0], mlp(X), atol=1e-5)
    kept = onnx.objects.pop(1)
    run(worker, 1, X)
    worker.ask(DROP, extra=(1).to_bytes(8, "little"))
    onnx.objects[1] = kept._replace(blob=b"nonsense")
    assert "Protobuf" in refused(worker) or "protobuf" in refused(worker)
    onnx.objects[1] = kept
    assert np.allclose(run(worker, 1, X)[0], mlp(X), atol=1e-5)


def test_large_things(onnx: Engine) -> None:
    """Megabytes go in and out unchanged, and so does a model whose digest is computed beside its loading."""
    weights = np.random.default_rng(1).random((1000, 1000), np.float32)
    blob = onnx_model([("MatMul", ["x", "w"], ["y"])], [("x", 1, ["n", 1000])], [("y", 1, None)], [("w", weights)])
    onnx.objects[2] = Stored("ONNX", blob)
    worker = onnx.worker()
    assert worker.ask(LOAD, 2)[0].digest == hashlib.sha256(blob).digest()
    for rows in (2000, 3, 2001, 900):
        given = np.random.default_rng(rows).random((rows, 1000), np.float32)
        assert np.allclose(run(worker, 2, given)[0], given @ weights, rtol=1e-3)


def test_many_outputs(onnx: Engine) -> None:
    """More pieces than one call of the kernel takes are sent all the same."""
    names = [f"y{number}" for number in range(600)]
    blob = onnx_model(
        [("Identity", ["x"], [name]) for name in names], [("x", 1, None)], [(name, 1, None) for name in names]
    )
    onnx.objects[2] = Stored("ONNX", blob)
    given = np.arange(1000, dtype=np.float32)
    found = run(onnx.worker(), 2, given, expected=600)
    assert len(found) == 600
    assert all((one == given).all() for one in found)


@pytest.mark.slow
def test_a_model_that_keeps_its_input(engine: Engine) -> None:
    """A stateful module sees what it was given, although the worker uses the memory of large tasks again."""
    torch = need("torch")

    class Last(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.zeros(1)

        def forward(self, x):  # type: ignore[no-untyped-def]
            found = self.last
            self.last = x
            return found

    engine.objects[1] = Stored("TORCH", models.saved(Last()))
    worker = engine.worker()
    given = [np.full(100_000, number, np.float32) for number in range(1, 4)]
    run(worker, 1, given[0])
    assert (run(worker, 1, given[1])[0] == 1).all()
    assert (run(worker, 1, given[2])[0] == 2).all()


def test_errors_of_a_run(onnx: Engine) -> None:
    """Wrong counts, types and batches are errors in the right words, and the worker goes on."""
    worker = onnx.worker()
    assert refused(worker, expected=2, tensors=[tensor(X)]) == WRONG_OUTPUTS
    assert "INPUTS here does not match" in refused(worker, expected=1, tensors=[tensor(X)] * 2)
    assert "Unexpected input data type" in refused(worker, expected=1, tensors=[tensor(X.astype("f8"))])
    assert (
        refused(worker, expected=1, rows=3, tensors=[tensor(X)]) == "ERR Model did not generate the expected batch size"
    )
    assert "MXNET" in refused(worker, PREPARE, extra=b"MXNET")
    assert np.allclose(run(worker, 1, X, rows=2)[0], mlp(X), atol=1e-5)


@pytest.mark.slow
def test_a_script_is_called(engine: Engine) -> None:
    """A function of TorchScript gets its tensors; errors with a code in front cannot send a client elsewhere."""
    need("torch")
    source = "def f(x, xs: List[Tensor]):\n    return x + xs[0], len(xs) * x\ndef g(x):\n    assert 1 == 2, 'MOVED 1 a:1'\n    return x\n"
    engine.objects[5] = Stored("TORCH", source.encode(), kind="SCRIPT")
    worker = engine.worker()
    assert worker.ask(LOAD, 5)[0].counts == (-1, -1)
    extra = protocol.write_call(Call(function="f", variadic=1))
    found = arrays(*worker.ask(CALL, 5, expected=2, extra=extra, tensors=[tensor(X)] * 3))
    assert (found[0] == 2 * X).all()
    assert (found[1] == 2 * X).all()
    text = refused(worker, CALL, 5, expected=1, extra=protocol.write_call(Call(function="g")), tensors=[tensor(X)])
    assert "MOVED 1 a:1" in text
    assert not text.startswith("MOVED")


def test_two_threads_share_a_model(onnx: Engine) -> None:
    """Each thread has a connection; what one loaded, the other has."""
    onnx.start(threads=2)
    first, second = onnx.attach(), onnx.attach()
    assert first.hello == second.hello
    run(first, 1, X)
    del onnx.objects[1]
    assert np.allclose(run(second, 1, X)[0], mlp(X), atol=1e-5)


# -- ends


def test_the_end_of_the_server(onnx: Engine) -> None:
    """A server that goes takes its workers with it, silently."""
    process = onnx.start()
    worker = onnx.attach()
    run(worker, 1, X)
    worker.close()
    assert gone(process) == (0, "")


def test_a_worker_that_is_refused(onnx: Engine) -> None:
    """An error instead of a task ends the worker, with the server's words."""
    process = onnx.start()
    onnx.attach().raw(b"-ERR you are broken\r\n")
    code, said = gone(process)
    assert (code, "refuses this worker: ERR you are broken" in said) == (1, True)


def test_no_server(tmp_path: Path, engine: Engine) -> None:
    """A worker that finds no server ends and says which socket it tried."""
    code, said = gone(engine.start(socket=f"{tmp_path}/nothing"))
    assert (code, f"{tmp_path}/nothing" in said) == (1, True)


def test_started_by_hand() -> None:
    """Somebody who starts the program by hand is told who does that."""
    done = subprocess.run(
        [sys.executable, "-m", "asim.engine.worker"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, "is started by the node" in done.stderr) == (1, True)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_takes_too_long(onnx: Engine, threads: int) -> None:
    """The kernel ends a worker at its task's limit, whatever the framework is doing; a task that is done has none."""
    size = np.array([10_000, 10_000, 1], np.int64)  # many seconds of a matrix product
    nodes = [("ConstantOfShape", ["n"], ["a"]), ("Einsum", ["a", "a"], ["y"], {"equation": "ijk,ljk->il"})]
    onnx.objects[2] = Stored("ONNX", onnx_model(nodes, [("n", 7, [3])], [("y", 1, None)]))
    process = onnx.start(threads=threads)
    workers = [onnx.attach() for _ in range(threads)]
    run(workers[0], 1, X, limit_ms=200)
    workers[0].send(RUN, 2, expected=1, tensors=[tensor(size)], limit_ms=300)
    with pytest.raises(AssertionError, match="the worker has gone"):  # but first it gets the model, which it loads
        workers[0].answer()
    assert gone(process)[0] == -signal.SIGALRM


def test_the_earliest_limit_counts() -> None:
    """With two tasks at once, the second one's shorter limit is not lost, and neither is the first's after that."""
    from asim.engine.tasks import Deadlines

    set_before = signal.getsignal(signal.SIGALRM)
    deadlines = Deadlines()
    try:
        deadlines.start("a", 50_000)
        deadlines.start("b", 20_000)
        assert 19 < signal.getitimer(signal.ITIMER_REAL)[0] <= 20
        deadlines.stop("b")
        assert 49 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
        deadlines.stop("a")
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, set_before)


def test_workers_end_with_their_node(onnx: Engine, tmp_path: Path) -> None:
    """A node that is killed leaves no worker behind, not even one that is busy."""
    code = (
        "import os, socket, subprocess, sys\n"
        "from asim.engine.worker import Settings\n"
        "mine, its = socket.socketpair()\n"
        "subprocess.Popen([sys.executable, '-m', 'asim.engine.worker', 'CPU'], stdin=its)\n"
        f"mine.sendall(Settings(socket={onnx.path!r}, password='p', device='CPU', parent=os.getpid()).to_line())\n"
        "mine.recv(1); mine.recv(1)\n"
    )
    node = subprocess.Popen([sys.executable, "-c", code])
    try:
        worker = onnx.attach()
        run(worker, 1, X)
    finally:
        node.kill()
        node.wait(30)
    until(lambda: not _runs(worker.hello.pid), what="the end of the worker")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(engine: Engine, threads: int) -> list[Attached]:
    """The connections of a worker with so many threads, which computes in one of them."""
    engine.start(threads=threads, intra_op=1)
    return [engine.attach() for _ in range(threads)]


def slow_to_load() -> bytes:
    """A model that adds 0 to its input; onnxruntime finds out, by a large matrix product, when it loads it."""
    nodes = [
        ("ConstantOfShape", ["n"], ["a"]),
        ("MatMul", ["a", "a"], ["b"]),
        ("ReduceMax", ["b"], ["c"], {"keepdims": 0}),
        ("Add", ["x", "c"], ["y"]),
    ]
    return onnx_model(nodes, [("x", 1, None)], [("y", 1, None)], [("n", np.array([3000, 3000], np.int64))])


@pytest.mark.parametrize("threads", [1, 2])
def test_loading_is_not_counted_for_a_run(onnx: Engine, threads: int) -> None:
    """A new worker that has to load a model first, for longer than the run may take, loads it and runs it."""
    onnx.objects[2] = Stored("ONNX", slow_to_load())
    worker = started(onnx, threads)[0]
    assert worker.ask(PREPARE, extra=b"ONNX")[0].status == DONE
    limit_ms = 150
    begin = time.monotonic()
    assert (run(worker, 2, X, limit_ms=limit_ms)[0] == X).all()
    assert time.monotonic() - begin > limit_ms / 1000  # else this shows nothing
    assert (run(worker, 2, X, limit_ms=limit_ms)[0] == X).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failed_loading_leaves_no_limit_behind(onnx: Engine, threads: int) -> None:
    """After a run whose model cannot be loaded, the run's limit does not end what has none."""
    onnx.objects[2] = Stored("ONNX", slow_to_load())
    onnx.objects[3] = Stored("ONNX", b"nonsense")
    worker = started(onnx, threads)[0]
    assert refused(worker, RUN, 3, expected=1, tensors=[tensor(X)], limit_ms=150)
    assert worker.ask(LOAD, 2)[0].status == DONE


# -- what a worker gave up

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a worker gives up is Linux's to refuse")


@linux
def test_what_a_worker_gave_up(onnx: Engine) -> None:
    """No new privileges, a filter of system calls, no core dumps, first to be killed, a limit of memory; no secrets shown."""
    process = onnx.start(memory=2 * GIB)
    worker = onnx.attach()
    run(worker, 1, X)
    place = Path(f"/proc/{process.pid}")
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    limits = (place / "limits").read_text()
    assert "Max core file size        0 " in limits
    assert f"Max data size             {2 * GIB} " in limits
    assert (place / "oom_score_adj").read_text() == "1000\n"
    assert b"secret" not in (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
    ends = [os.readlink(one) for one in (place / "fd").iterdir()]
    assert sum(end.startswith("socket:") for end in ends) == 1  # the database's
    assert ends.count("/dev/null") == 1


PROBE = """
import ctypes, socket, sys
from asim.engine.isolation import isolate
assert isolate(0) == [], isolate(0)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET):
    try:
        socket.socket(family)
    except PermissionError:
        continue
    sys.exit(f"a socket of {family}")
socket.socket(socket.AF_UNIX).close()
socket.socketpair()[0].close()
libc = ctypes.CDLL(None, use_errno=True)
for call in (libc.ptrace, libc.process_vm_readv, libc.process_vm_writev):
    if call(0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        sys.exit(f"{call} is allowed")
if libc.syscall(425, 1, 0) != -1 or ctypes.get_errno() != 1:
    sys.exit("io_uring is allowed, which can make sockets")
import subprocess
sys.exit(subprocess.call([sys.executable, "-c", "import socket\\ntry: socket.socket()\\nexcept OSError: pass\\nelse: raise SystemExit(3)"]))
"""


@linux
def test_no_networks_and_no_other_processes() -> None:
    """Code in a model can open no network, read no other process's memory, and neither can what it starts."""
    done = subprocess.run([sys.executable, "-c", PROBE], check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


class Trap:
    """Makes a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def archives(trap: Trap) -> Iterator[bytes]:
    """Files that run code when they are read by a pickle loader."""
    torch = need("torch")
    yield pickle.dumps(trap)
    out = io.BytesIO()
    torch.save(trap, out)
    yield out.getvalue()
    for name in ("data.pkl", "constants.pkl"):  # a real module, with one of its records replaced
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(models.torch_mlp())) as old, zipfile.ZipFile(out, "w") as new:
            for item in old.infolist():
                data = pickle.dumps(trap, protocol=2) if item.filename.endswith(f"/{name}") else old.read(item)
                new.writestr(item.filename, data)
        yield out.getvalue()


@pytest.mark.slow
def test_pickles_run_no_code(engine: Engine, tmp_path: Path) -> None:
    """A .pt file with code in a pickle is refused, and the code has not run; the traps do work where they are unpickled."""
    worker = engine.worker()
    for number, blob in enumerate(archives(Trap(tmp_path / "trapped"))):
        engine.objects[number + 1] = Stored("TORCH", blob)
        assert refused(worker, LOAD, number + 1)
    assert not (tmp_path / "trapped").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "trapped")))
    assert (tmp_path / "trapped").exists()


@linux
def test_a_model_that_wants_all_memory(onnx: Engine) -> None:
    """A tensor larger than the limit is an error reply; worker and host go on."""
    blob = onnx_model([("ConstantOfShape", ["n"], ["y"])], [("n", 7, [1])], [("y", 1, None)])
    onnx.objects[2] = Stored("ONNX", blob)
    worker = onnx.worker(memory=GIB)
    assert refused(worker, RUN, 2, expected=1, tensors=[tensor(np.array([GIB], np.int64))])
    assert np.allclose(run(worker, 1, X)[0], mlp(X), atol=1e-5)


@linux
@pytest.mark.slow
def test_a_zip_bomb(engine: Engine) -> None:
    """A small file that unpacks to gigabytes is an error reply, and the worker goes on."""
    torch = need("torch")
    layer = torch.nn.Linear(2, 2, bias=False)
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(models.saved(layer))) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for item in old.infolist():
            with new.open(item.filename, "w", force_zip64=True) as file:
                if "/data/" in item.filename:
                    for _ in range(1024):
                        file.write(bytes(1 << 20))
                else:
                    file.write(old.read(item))
    engine.objects[1] = Stored("TORCH", out.getvalue())
    engine.objects[2] = Stored("TORCH", models.torch_mlp())
    assert len(out.getvalue()) < 4 << 20
    worker = engine.worker(memory=GIB)
    assert refused(worker, LOAD, 1)
    assert np.allclose(run(worker, 2, X)[0], mlp(X), atol=1e-5)


def test_pinned(onnx: Engine) -> None:
    """A worker stays on the CPUs that its database is pinned to."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system pins no processes")
    cpu = min(os.sched_getaffinity(0))
    worker = onnx.worker(cpus=[cpu])
    run(worker, 1, X)
    assert os.sched_getaffinity(worker.hello.pid) == {cpu}


def test_memory_of_a_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of a worker is of what its control group may use, not of what the host has."""
    from asim.engine import isolation

    whole = isolation.default_memory(1)
    assert 0 < isolation.default_memory(3) <= whole // 3
    assert whole <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    monkeypatch.setattr(isolation, "_limits", lambda: iter([__file__ + ".none"]))
    assert isolation.default_memory(1) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def test_a_socket_is_all_that_is_needed(engine: Engine) -> None:
    """`socket` in this file is real: a reply in many small pieces is put together."""
    need("onnxruntime")
    from asim.engine.connection import Connection

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(engine.path + "2")
    listening.listen()
    connection = Connection(engine.path + "2")
    end = listening.accept()[0]
    for piece in (b"*3\r\n$2\r\nab\r\n:", b"12\r\n", b"$-1\r\n"):
        end.sendall(piece)
    assert connection.command(b"X") == [b"ab", 12, None]
    end.sendall(b"+OK\r\n")
    assert connection.command(b"X") == "OK"
    connection.close()
    end.close()
    listening.close()
