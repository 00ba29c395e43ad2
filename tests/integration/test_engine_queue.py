"""What the engine does with runs: queues, batches, deadlines, answers. The worker is a fake, so that every order is certain."""

from __future__ import annotations

import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path
from termios import TIOCOUTQ
from typing import Any

import numpy as np
import pytest
import redis

from asim import DatabaseTimeout, SyncClient
from asim.engine.protocol import CALL, DROP, LOAD, PREPARE, RUN, call_of, done, dropped, output

from ..servers import RedisServer, until
from ..workers import FakeWorker
from .engine import SANITIZED, make_server

__all__ = ["make_server"]

FLOAT = 0


@pytest.fixture(scope="module")
def shared(make_server: Callable[..., RedisServer]) -> Iterator[RedisServer]:
    """A server whose engine has workers, which nobody starts."""
    with make_server("--maxclients", "20000", module_args=("WORKERS", "GRACE", "300")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """The same server, empty."""
    with shared.client() as client:
        client.flushall()
    return shared


@pytest.fixture
def worker(server: RedisServer) -> Iterator[FakeWorker]:
    """An idle worker."""
    with FakeWorker(server) as worker:
        yield worker


@pytest.fixture
def db(server: RedisServer) -> Iterator[redis.Redis]:
    """A client."""
    with server.client() as client:
        yield client


class Waiting:
    """A command under way in a thread of its own."""

    def __init__(self, server: RedisServer, *words: Any) -> None:
        self.client = server.client(retry=None)
        self.client.ping()
        self.id = self.client.client_id()
        self.said: Any = None
        self._thread = threading.Thread(target=self._run, args=words, daemon=True)
        self._thread.start()

    def _run(self, *words: Any) -> None:
        try:
            self.said = self.client.execute_command(*words)
        except (redis.RedisError, OSError) as exc:
            self.said = str(exc)
        self.client.close()

    def result(self) -> Any:
        """Its answer, or the text of its error."""
        self._thread.join(15)
        assert not self._thread.is_alive(), "no answer"
        return self.said


def queued(server: RedisServer, *words: Any) -> Waiting:
    """Start a command, and wait until the server has blocked its client."""
    waiting = Waiting(server, *words)
    with server.client() as db:
        until(lambda: waiting.said is not None or f"id={waiting.id} " in blocked(db), what="a blocked client")
    return waiting


def blocked(db: redis.Redis) -> str:
    """The list of the clients that are blocked."""
    said = db.execute_command("CLIENT LIST")
    rows = [f"id={row['id']} flags={row['flags']}" for row in said]
    return "\n".join(row for row in rows if "b" in row.partition("flags=")[2])


def connects(one: socket.socket, server: RedisServer) -> bool:
    """Whether the server's backlog has room."""
    try:
        one.connect(str(server.socket))
    except BlockingIOError:
        return False
    return True


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def put(db: redis.Redis, key: str, *values: float, shape: tuple[int, ...] = ()) -> None:
    db.execute_command("AI.TENSORSET", key, "FLOAT", *(shape or (len(values),)), "BLOB", floats(*values))


def get(db: redis.Redis, key: str) -> tuple[list[int], tuple[float, ...]]:
    _, _, _, shape, _, blob = db.execute_command("AI.TENSORGET", key, "META", "BLOB")
    return shape, struct.unpack(f"<{len(blob) // 4}f", blob)


def store(server: RedisServer, worker: FakeWorker, name: str, *options: Any, inputs: int = 1, outputs: int = 1) -> None:
    """Store a model that the worker accepts."""
    waiting = Waiting(server, "AI.MODELSTORE", name, "TORCH", "CPU", *options, "BLOB", b"model " + name.encode())
    take(worker, LOAD)
    worker.accept(inputs, outputs)
    assert waiting.result() in (b"OK", True, "OK")


def take(worker: FakeWorker, kind: int) -> Any:
    """The next task of this kind; others (forget this, get ready for that) are agreed to."""
    while (task := worker.take()).kind != kind:
        assert task.kind in (DROP, PREPARE), task
        worker.answer()
    return task


def run(server: RedisServer, name: str, inputs: str, output: str, *options: Any) -> Waiting:
    words = inputs.split()
    return queued(server, "AI.MODELEXECUTE", name, "INPUTS", len(words), *words, "OUTPUTS", 1, output, *options)


def test_run(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """A run is handed to the worker with its inputs; what the worker answers is stored before the client is told."""
    store(server, worker, "m")
    put(db, "x", 1, 2)
    waiting = run(server, "m", "x", "y")
    task = take(worker, RUN)
    assert (task.expected, task.rows, worker.inputs()) == (1, 0, [floats(1, 2)])
    worker.answer((FLOAT, (2, 1), floats(3, 4)), duration_us=7)
    assert waiting.result() == b"OK"
    assert get(db, "y") == ([2, 1], (3.0, 4.0))
    info = db.execute_command("AI.INFO", "m")
    pairs = dict(zip(info[::2], info[1::2], strict=True))
    assert (pairs[b"calls"], pairs[b"errors"], pairs[b"samples"], pairs[b"duration"]) == (1, 0, 2, 7)
    assert (pairs[b"state"], pairs[b"digest"]) == (b"ready", b"00" * 32)


def test_inputs_are_pinned(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """Inputs that change, go, or become something else while their run waits: it uses what was there when it was asked for."""
    store(server, worker, "m", inputs=3)
    for key in ("a", "b", "c"):
        put(db, key, 1)
    first, second = run(server, "m", "a b c", "y"), run(server, "m", "a b c", "z")
    put(db, "a", 9)
    db.delete("b", "m")
    db.set("c", "text")
    for waiting in (first, second):
        take(worker, RUN)
        assert worker.inputs() == [floats(1)] * 3
        worker.echo()
        assert waiting.result() == b"OK"


def test_worker_fetches(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """A worker is given the object of its task, also when its key is gone; without a task it is refused."""
    waiting = Waiting(
        server, "AI.MODELSTORE", "m", "TF", "CPU", "INPUTS", 1, "i", "OUTPUTS", 2, "o", "p", "BLOB", b"by\0tes"
    )
    take(worker, LOAD)
    worker.send("ASIM.FETCH")
    assert [worker._file.readline() for _ in range(3)] == [b"*7\r\n", b"$5\r\n", b"MODEL\r\n"]
    said = b"".join(worker._file.readline() for _ in range(15))
    assert said == b"$2\r\nTF\r\n$3\r\nCPU\r\n*1\r\n$1\r\ni\r\n*2\r\n$1\r\no\r\n$1\r\np\r\n*0\r\n$6\r\nby\0tes\r\n"
    worker.accept()
    assert waiting.result() == b"OK"
    with FakeWorker(server, "CPU:7") as idle:
        db.execute_command("ASIM.PREPARE", "ONNX", "CPU:7")
        assert take(idle, PREPARE).extra == b"ONNX"
    assert "no task" in str(Waiting(server, "ASIM.FETCH").result())


@pytest.mark.parametrize("kind", ["model", "script"])
def test_refused(server: RedisServer, worker: FakeWorker, db: redis.Redis, kind: str) -> None:
    """What a worker cannot load is not stored, an earlier object stays, and the client hears the backend's words."""
    words = {
        "model": ("AI.MODELSTORE", "k", "ONNX", "CPU", "BLOB", b"x"),
        "script": ("AI.SCRIPTSET", "k", "CPU", "SOURCE", "x"),
    }[kind]
    for text in ("bad protobuf", "still bad"):
        waiting = Waiting(server, *words)
        take(worker, LOAD)
        worker.fail(text)
        assert waiting.result() == text
        assert db.exists("k") == 0


def test_batches(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """Requests that fit are one tensor for the worker, until BATCHSIZE is reached, and each client gets its rows."""
    store(server, worker, "m", "BATCHSIZE", 4)
    store(server, worker, "busy")
    put(db, "x", 0)
    plug = run(server, "busy", "x", "y")
    take(worker, RUN)
    for i in range(5):
        put(db, f"x{i}", i, 10 + i, shape=(1, 2))
    put(db, "two", 7, 7, 8, 8, shape=(2, 2))
    put(db, "odd", 1, 2, 3, shape=(1, 3))
    waiting = [run(server, "m", key, f"y-{key}") for key in ("x0", "odd", "two", "x1", "x2", "x3", "x4")]
    worker.echo()
    assert plug.result() == b"OK"
    task = take(worker, RUN)
    assert (task.rows, task.tensors[0].dims) == (4, (4, 2))  # 1 + 2 + 1
    assert worker.inputs() == [floats(0, 10, 7, 7, 8, 8, 1, 11)]
    worker.echo()
    assert take(worker, RUN).tensors[0].dims == (1, 3)  # then its turn has come
    worker.echo()
    assert take(worker, RUN).tensors[0].dims == (3, 2)
    worker.echo()
    assert [one.result() for one in waiting] == [b"OK"] * 7
    assert get(db, "y-two") == ([2, 2], (7.0, 7.0, 8.0, 8.0))
    assert [get(db, f"y-x{i}") for i in range(5)] == [([1, 2], (float(i), 10.0 + i)) for i in range(5)]


def test_bad_batch(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """A model that does not keep the rows apart: each client of the batch is told so, and nothing is stored."""
    store(server, worker, "m", "BATCHSIZE", 2, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 10000)
    put(db, "x", 1, 2, shape=(1, 2))
    waiting = [run(server, "m", "x", f"y{i}") for i in range(2)]
    take(worker, RUN)
    worker.answer((FLOAT, (1,), floats(5)))
    assert [one.result() for one in waiting] == ["Model did not generate the expected batch size"] * 2
    assert db.exists("y0", "y1") == 0


def test_lone_request_waits_no_longer(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """With MINBATCHSIZE a request that stays alone runs after MINBATCHTIMEOUT, and soon if that is 0."""
    put(db, "x", 1, shape=(1, 1))
    # the engine aims 1 ms earlier, by a clock of whole milliseconds, so as not to be late
    for options, least in ((("MINBATCHTIMEOUT", 60), 0.058), ((), 0.0)):
        store(server, worker, "m", "BATCHSIZE", 8, "MINBATCHSIZE", 4, *options)
        begun = time.monotonic()
        waiting = run(server, "m", "x", "y")
        take(worker, RUN)
        assert least <= time.monotonic() - begun < least + 2
        worker.echo()
        assert waiting.result() == b"OK"


def test_enough_requests_wait_not_at_all(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """MINBATCHSIZE requests run at once, however long they might have waited."""
    store(server, worker, "m", "BATCHSIZE", 8, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 3_600_000)
    put(db, "x", 1, shape=(1, 1))
    waiting = [run(server, "m", "x", f"y{i}") for i in range(2)]
    assert take(worker, RUN).rows == 2
    worker.echo()
    assert [one.result() for one in waiting] == [b"OK"] * 2


def test_models_take_turns(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """One request for a model is served before the long queue of another one is."""
    store(server, worker, "many")
    store(server, worker, "one")
    put(db, "x", 1)
    waiting = [run(server, "many", "x", f"y{i}") for i in range(5)]
    waiting.append(run(server, "one", "x", "z"))
    objects = []
    for _ in waiting:
        objects.append(take(worker, RUN).object)
        worker.echo()
    assert [one.result() for one in waiting] == [b"OK"] * 6
    assert objects.index(max(objects, key=lambda thing: -objects.count(thing))) <= 2


def test_short_runs_go_together(server: RedisServer, db: redis.Redis) -> None:
    """Runs known to be short are handed over several at a time, as many as take 300 us; each has an answer of its own."""
    put(db, "x", 1)
    with FakeWorker(server) as worker:
        store(server, worker, "m")
        waiting = [run(server, "m", "x", f"y{i}") for i in range(6)]
        left = []
        for number in range(6):
            take(worker, RUN)
            left.append(worker.left)
            if number == 2:
                worker.fail("odd")
            else:
                worker.echo(99)  # us
        assert left == [0, 2, 1, 0, 1, 0]
        assert [one.result() for one in waiting] == [b"OK", b"OK", "odd", b"OK", b"OK", b"OK"]


def test_lost_together(server: RedisServer, db: redis.Redis) -> None:
    """A worker that ends with several runs of a model in hand has died once, not once for each."""
    put(db, "x", 1)
    with FakeWorker(server) as worker:
        store(server, worker, "m")
        waiting = [run(server, "m", "x", f"y{i}") for i in range(5)]
        take(worker, RUN)
        worker.echo(1)
        take(worker, RUN)
        assert worker.left == 3
    assert waiting[0].result() == b"OK"
    assert ["ended" in one.result() for one in waiting[1:]] == [True] * 4
    info = db.execute_command("AI.INFO", "m")
    assert dict(zip(info[::2], info[1::2], strict=True))[b"state"] == b"ready"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_timeout(server: RedisServer, worker: FakeWorker, db: redis.Redis, state: str) -> None:
    """TIMEOUT counts queueing and running; its end is an error, and no result appears afterwards."""
    store(server, worker, "m")
    put(db, "x", 1)
    plug = run(server, "m", "x", "y") if state == "queued" else None
    patience = 30 if plug else 500
    waiting = run(server, "m", "x", "late", "TIMEOUT", patience)
    task = take(worker, RUN)
    assert waiting.result() == f"TIMEDOUT: not done within {patience} ms"
    worker.echo()
    if plug:
        assert plug.result() == b"OK"
        assert task.limit_ms == 600_000
    else:
        assert 500 <= task.limit_ms <= 2 * 500  # a while longer than anybody waits
    again = run(server, "m", "x", "again")
    take(worker, RUN)  # so the answer to the late one was seen
    worker.echo()
    assert again.result() == b"OK"
    assert db.exists("late") == 0


def test_client_leaves(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """The queued runs of a client that disconnects are never given to a worker."""
    store(server, worker, "m")
    put(db, "x", 1)
    plug = run(server, "m", "x", "y")
    take(worker, RUN)
    gone = [run(server, "m", "x", f"gone{i}") for i in range(3)]
    last = run(server, "m", "x", "last")
    for waiting in gone:
        db.execute_command("CLIENT", "KILL", "ID", waiting.id)
        waiting.result()
    worker.echo()
    assert plug.result() == b"OK"
    take(worker, RUN)
    worker.echo()
    assert last.result() == b"OK"
    assert db.exists("gone0", "gone1", "gone2") == 0
    assert db.exists("last") == 1


def test_worker_dies(server: RedisServer, db: redis.Redis) -> None:
    """A run whose worker ends is an error; queued ones wait for the next worker; the third death in a row is the last."""
    put(db, "x", 1)
    with FakeWorker(server) as first:
        store(server, first, "m")
        store(server, first, "other")
        lost = run(server, "m", "x", "y")
        take(first, RUN)
        kept = run(server, "other", "x", "z")
    assert "the worker that ran this ended" in lost.result()
    with FakeWorker(server) as second:
        take(second, RUN)
        second.echo()
        assert kept.result() == b"OK"
    for _ in range(2):
        with FakeWorker(server) as next_one:
            waiting = run(server, "m", "x", "y")
            take(next_one, RUN)
            behind = run(server, "m", "x", "y2")
        assert "the worker that ran this ended" in waiting.result()
        if _ == 0:
            db.execute_command("CLIENT", "KILL", "ID", behind.id)
    assert "quarantined" in behind.result()
    assert "quarantined" in run(server, "m", "x", "y").result()
    info = db.execute_command("AI.INFO", "m")
    assert dict(zip(info[::2], info[1::2], strict=True))[b"state"] == b"quarantined"
    with FakeWorker(server) as last:
        store(server, last, "m")  # a new one under the same name
        good = run(server, "m", "x", "y")
        take(last, RUN)
        last.echo()
        assert good.result() == b"OK"


@pytest.mark.parametrize(
    "words",
    [
        [b""],
        [b"\x01" + bytes(23)],
        ["number"],
        ["count"],
        ["size"],
        ["dtype"],
        ["rank"],
    ],
)
def test_nonsense(server: RedisServer, db: redis.Redis, words: list[Any]) -> None:
    """An answer that makes no sense is an error for the client, and the end of that worker."""
    with FakeWorker(server) as worker, ExitStack() as stack:
        store(server, worker, "m")
        put(db, "x", 1)
        waiting = run(server, "m", "x", "y")
        number = take(worker, RUN).number
        head = struct.pack("<IIQQ", 1, 1, number, 0)
        output = struct.pack("<BB6xq", FLOAT, 1, 1)
        answers: dict[str, list[bytes]] = {
            "number": [struct.pack("<IIQQ", 1, 1, number + 1, 0) + output, floats(1)],
            "count": [head + output],
            "size": [head + output, b"123"],
            "dtype": [head + struct.pack("<BB6xq", 99, 1, 1), floats(1)],
            "rank": [head + struct.pack("<BB6x", FLOAT, 200), floats(1)],
        }
        stack.callback(worker.close)
        worker.send("ASIM.DONE", *(answers[words[0]] if isinstance(words[0], str) else words))
        assert worker.reply().startswith(b"-ERR this is no answer")
        assert "makes no sense" in waiting.result()
    assert db.ping()


def test_output_taken(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """An output's key that holds something else is refused at once; if it comes meanwhile, nothing is overwritten."""
    store(server, worker, "m")
    put(db, "x", 1)
    db.set("text", "mine")
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert run(server, "m", "x", "text").result() in (wrong, wrong.removeprefix("WRONGTYPE "))
    waiting = run(server, "m", "x", "later")
    take(worker, RUN)
    db.set("later", "mine")
    worker.echo()
    assert "wrong kind of value" in waiting.result()
    assert db.get("later") == b"mine"


def test_all_outputs_or_none(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """Where one output's key came to hold something else, the others are not stored either, whichever it is."""
    store(server, worker, "m", inputs=3, outputs=3)
    put(db, "x", 1)
    put(db, "y", 7)
    for outputs in (("y", "new", "text"), ("text", "y", "new")):
        waiting = queued(server, "AI.MODELRUN", "m", "INPUTS", "x", "x", "x", "OUTPUTS", *outputs)
        take(worker, RUN)
        db.set("text", "mine")
        worker.echo()
        assert "wrong kind of value" in waiting.result()
        assert (get(db, "y"), db.exists("new"), db.get("text")) == (([1], (7.0,)), 0, b"mine")
        db.delete("text")


@pytest.mark.slow
@pytest.mark.skipif(bool(SANITIZED), reason="the sanitizers' memory has no limit")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit the memory of another process")
def test_no_memory_for_one_output(make_server: Callable[..., RedisServer]) -> None:
    """Where there is memory for a client's first output and not for its second, its first key is left as it was."""
    row, count = 16 << 20, 12  # 16 MiB; such outputs
    with make_server(module_args=("WORKERS",)) as server, FakeWorker(server) as worker, server.client() as db:
        store(server, worker, "m", "BATCHSIZE", 2, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 60_000, outputs=count + 2)
        put(db, "x", 1, shape=(1, 1))
        names = [[f"{client}-{i}" for i in range(count + 2)] for client in range(2)]
        for some in names:
            put(db, some[0], 7)
        waiting = [queued(server, "AI.MODELRUN", "m", "INPUTS", "x", "OUTPUTS", *some) for some in names]
        assert take(worker, RUN).rows == 2
        small, large = (FLOAT, (2, 1), floats(5, 6)), (FLOAT, (2, row // 4), bytes(2 * row))
        halt(worker, server, small, *[large] * count, small)
        limit = virtual(server.pid) + (64 << 20)  # each client's part would be another 192 MiB
        resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))
        worker.socket.sendall(b"\r\n")
        worker.send("ASIM.NEXT")
        assert [one.result() for one in waiting] == ["could not save tensor"] * 2
        assert [get(db, some[0]) for some in names] == [([1], (7.0,))] * 2
        assert [db.exists(*some[1:]) for some in names] == [0, 0]


def halt(worker: FakeWorker, server: RedisServer, *outputs: tuple[int, tuple[int, ...], bytes]) -> None:
    """Answer, but for the last two bytes; returns when the server has read the others."""
    assert worker.task
    head = done(worker.task.number, 1, [output(dtype, dims) for dtype, dims, _ in outputs])
    words = [b"ASIM.DONE", head, *(data for _, _, data in outputs)]
    said = b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)])
    worker.socket.sendall(said[:-2])
    until(lambda: ioctl(worker.socket, TIOCOUTQ, bytes(4)) == bytes(4), what="the end of what the server has to read")
    with server.client() as db:
        db.ping()


def virtual(pid: int) -> int:
    """Bytes of addresses that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def test_many_wait(files: None, server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """10,000 queued runs: the server answers others meanwhile, and each run is answered."""
    store(server, worker, "m", "BATCHSIZE", 5000)
    put(db, "x", 1, shape=(1, 1))
    plug = run(server, "m", "x", "plug")
    take(worker, RUN)
    count = 10_000
    words = ["AI.MODELEXECUTE", "m", "INPUTS", 1, "x", "OUTPUTS", 1, "y", "TIMEOUT", 60_000]
    command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(str(w)), str(w).encode()) for w in words)
    clients = []
    try:
        for _ in range(count):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(15)
            until(lambda one=one: connects(one, server), what="a place in the backlog")
            one.sendall(command)
            clients.append(one)
        until(lambda: db.info("clients")["blocked_clients"] >= count, 30, "10,000 blocked clients")
        begun = time.monotonic()
        assert db.ping()
        assert time.monotonic() - begun < 1
        worker.echo()
        assert plug.result() == b"OK"
        done = 0
        while done < count:
            done += take(worker, RUN).rows
            worker.echo()
        assert all(one.recv(64) == b"+OK\r\n" for one in clients)
    finally:
        for one in clients:
            one.close()


def test_no_worker_can_start(server: RedisServer, db: redis.Redis) -> None:
    """Where no worker can be started, those who wait and those who come are told why, until one attaches."""
    with FakeWorker(server, "CPU:3") as worker:
        waiting = Waiting(server, "AI.MODELSTORE", "m", "TORCH", "CPU:3", "BLOB", b"x")
        take(worker, LOAD)
        worker.accept()
        waiting.result()
    put(db, "x", 1)
    waiting = run(server, "m", "x", "y")
    assert db.execute_command("ASIM.WORKER", "FAILED", "CPU:3", "no memory") == b"OK"
    for said in (waiting.result(), run(server, "m", "x", "y").result()):
        assert said == "no inference worker for CPU:3: no memory"
    with FakeWorker(server, "CPU:3") as worker:
        waiting = run(server, "m", "x", "y")
        take(worker, RUN)
        worker.echo()
        assert waiting.result() == b"OK"


def test_wanted(server: RedisServer) -> None:
    """Whoever starts workers hears of every device that needs some, once."""
    with server.client() as db:
        known = [name.decode() for name in db.execute_command("ASIM.WANTED")]
        waiting = queued(server, "ASIM.WANTED", *known)
        db.execute_command("ASIM.PREPARE", "TORCH", "CPU:5")
        assert set(waiting.result()) == {b"CPU:5", *(name.encode() for name in known)}


def test_forgotten(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """A worker, also an idle one, is told which objects are gone; those that still wait are not among them."""
    store(server, worker, "m")
    put(db, "x", 1)
    waiting = run(server, "m", "x", "y")
    number = take(worker, RUN).object
    db.delete("m")
    worker.echo()
    assert waiting.result() == b"OK"
    told: set[int] = set()
    while number not in told:
        task = worker.take()
        assert task.kind == DROP
        told |= set(dropped(task.extra))
        worker.answer()


def test_calls(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """What a function's call asks for arrives whole, in both forms of the command."""
    waiting = Waiting(server, "AI.SCRIPTSET", "s", "CPU", "SOURCE", "def f(x): return x")
    take(worker, LOAD)
    worker.accept()
    waiting.result()
    for key in ("a", "b", "c"):
        put(db, key, 1)
    waiting = queued(
        server, "AI.SCRIPTRUN", "s", "f", "TIMEOUT", 9999, "INPUTS", "a", "$", "b", "c", "OUTPUTS", "y", "z"
    )
    task = take(worker, CALL)
    call = call_of(task.extra)
    assert (call.function, call.variadic, call.entry_point, task.expected, len(task.tensors)) == ("f", 1, False, 2, 3)
    worker.echo()
    assert waiting.result() == b"OK"
    words = ["KEYS", 1, "k", "INPUTS", 2, "a", "b", "ARGS", 2, "one", b"\xff", "OUTPUTS", 1, "y"]
    waiting = queued(server, "AI.SCRIPTEXECUTE", "s", "f", *words)
    call = call_of(take(worker, CALL).extra)
    assert (call.keys, call.args, call.entry_point, call.variadic) == (["k"], ["one", "\udcff"], True, None)
    worker.echo()
    assert waiting.result() == b"OK"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("AI.MODELEXECUTE none INPUTS 1 x OUTPUTS 1 y", "model key is empty"),
        ("AI.MODELEXECUTE x INPUTS 1 x OUTPUTS 1 y", "wrong kind of value"),
        ("AI.MODELEXECUTE m INPUTS 1 none OUTPUTS 1 y", "tensor key is empty or in a different shard"),
        ("AI.MODELEXECUTE m INPUTS 0 OUTPUTS 1 y a b", "Input count must be a positive integer"),
        ("AI.MODELEXECUTE m INPUTS x x OUTPUTS 1 y", "Invalid argument for input_count"),
        ("AI.MODELEXECUTE m INPUTS 9 x OUTPUTS 1 y", "number of input keys"),
        ("AI.MODELEXECUTE m INPUTS 2 x x OUTPUTS 1 y", "Number of keys given as INPUTS here does not match"),
        ("AI.MODELEXECUTE m INPUTS 1 x OUTPUTS 2 y z", "Number of keys given as OUTPUTS here does not match"),
        ("AI.MODELEXECUTE m INPUTS 1 x TIMEOUT 5 a", "Invalid argument: a"),
        ("AI.MODELEXECUTE m OUTPUTS 1 y TIMEOUT 5 a", "Invalid argument: a"),
        ("AI.MODELEXECUTE m OUTPUTS 1 y TIMEOUT 500 TIMEOUT 500", "INPUTS not specified"),
        ("AI.MODELEXECUTE m INPUTS 1 x OUTPUTS 1 y TIMEOUT", "No value provided for TIMEOUT"),
        ("AI.MODELEXECUTE m INPUTS 1 x OUTPUTS 1 y TIMEOUT 0", "Invalid value for TIMEOUT"),
        ("AI.MODELRUN m x y", "INPUTS not specified"),
        ("AI.MODELRUN m INPUTS x", "OUTPUTS not specified"),
        ("AI.MODELRUN m INPUTS x INPUTS x OUTPUTS y", "INPUTS given twice"),
        ("AI.SCRIPTRUN none f INPUTS x OUTPUTS y", "script key is empty"),
        ("AI.SCRIPTEXECUTE none f INPUTS 1 x OUTPUTS 1 y", "script key is empty"),
    ],
)
def test_refusals(server: RedisServer, worker: FakeWorker, db: redis.Redis, words: str, said: str) -> None:
    """Wrong requests are answered at once, in RedisAI's words, and no worker hears of them."""
    store(server, worker, "m")
    put(db, "x", 1)
    with pytest.raises(redis.ResponseError, match=said):
        db.execute_command(*words.split())


def test_no_transactions(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """A run cannot wait inside a transaction or a script, so it is refused there; a model can be stored there, unseen."""
    store(server, worker, "m")
    put(db, "x", 1)
    with db.pipeline(transaction=True) as pipe:
        pipe.execute_command("AI.MODELEXECUTE", "m", "INPUTS", 1, "x", "OUTPUTS", 1, "y")
        pipe.execute_command("AI.MODELSTORE", "n", "ONNX", "CPU", "BLOB", "x")
        said = pipe.execute(raise_on_error=False)
    assert "within a transaction" in str(said[0])
    assert said[1] == b"OK"


def test_dbs(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """Outputs and models are stored in the database of the client that asked."""
    with server.client(db=3) as third:
        waiting = Waiting(server, "AI.MODELSTORE", "m", "TORCH", "CPU", "BLOB", "x")
        take(worker, LOAD)
        worker.accept()
        assert waiting.result() == b"OK"
        assert (db.exists("m"), third.exists("m")) == (1, 0)
        assert db.execute_command("MOVE", "m", 3) == 1
        put(third, "x", 1)
        thread_said: list[Any] = []
        thread = threading.Thread(
            target=lambda: thread_said.append(
                third.execute_command("AI.MODELEXECUTE", "m", "INPUTS", 1, "x", "OUTPUTS", 1, "y")
            )
        )
        thread.start()
        take(worker, RUN)
        worker.echo()
        thread.join(15)
        assert thread_said == [b"OK"]
        assert (db.exists("y"), third.exists("y")) == (0, 1)


def test_client_is_told_of_the_end_of_its_patience(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """asim's client raises DatabaseTimeout when TIMEOUT is over, and its connection goes on."""
    store(server, worker, "m")
    with SyncClient(f"unix://{server.socket}", model_timeout_ms=100) as client:
        client.put_tensor("x", np.ones(1, np.float32))
        with pytest.raises(DatabaseTimeout, match="not done within 100 ms"):
            client.run_model("m", ["x"], ["y"])
        assert client.tensor_exists("x")
        assert not client.tensor_exists("y")


def test_results_outlive_the_server(make_server: Callable[..., RedisServer]) -> None:
    """Outputs and models are in the append-only file, which a server without workers reads."""
    with make_server("--appendonly", "yes", "--appendfsync", "always", module_args=("WORKERS",)) as server:
        with FakeWorker(server) as worker, server.client() as db:
            store(server, worker, "m", "BATCHSIZE", 2)
            put(db, "x", 1, 2, shape=(1, 2))
            waiting = [run(server, "m", "x", f"y{i}") for i in range(2)]
            for _ in range(2):
                if any(one.said is None for one in waiting):
                    take(worker, RUN)
                    worker.answer((FLOAT, (worker.task.rows or 1, 300), floats(*range(300)) * (worker.task.rows or 1)))
            assert [one.result() for one in waiting] == [b"OK"] * 2
        server.kill()
        server.module_args = ()
        server.start()
        with server.client() as db:
            assert get(db, "y1") == ([1, 300], tuple(map(float, range(300))))
            assert db.execute_command("AI.MODELGET", "m", "META")[7] == 2


@pytest.mark.slow
def test_results_reach_replicas(make_server: Callable[..., RedisServer]) -> None:
    """A replica, which has no workers, gets the outputs of its master's runs, and the models."""
    with (
        make_server("--repl-diskless-sync-delay", "0", module_args=("WORKERS",)) as server,
        FakeWorker(server) as worker,
        server.client() as db,
    ):
        store(server, worker, "m")
        with make_server("--replicaof", "127.0.0.1", str(server.port)) as replica, replica.client() as other:
            until(lambda: other.info("replication")["master_link_status"] == "up", what="the replica's link")
            store(server, worker, "n")
            put(db, "x", 1)
            waiting = run(server, "m", "x", "y")
            take(worker, RUN)
            worker.echo()
            assert waiting.result() == b"OK"
            assert db.wait(1, 5000) == 1
            assert sorted(other.keys()) == [b"m", b"n", b"x", b"y"]
            assert get(other, "y") == ([1], (1.0,))


def test_inputs_without_end(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """Naming one large tensor many times does not make the server copy it as often."""
    store(server, worker, "m", inputs=-1)
    db.execute_command("AI.TENSORSET", "x", "FLOAT", 1 << 26)  # 256 MiB of zeros
    with pytest.raises(redis.ResponseError, match="inputs of a run must not be larger than 4 GiB"):
        db.execute_command("AI.MODELRUN", "m", "INPUTS", *["x"] * 20, "OUTPUTS", "y")


def test_no_batch_beyond_memory(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """Merging stops at 64 MiB, whatever BATCHSIZE says."""
    store(server, worker, "m", "BATCHSIZE", 1_000_000)
    db.execute_command("AI.TENSORSET", "x", "FLOAT", 1, 10 << 20)  # 40 MiB
    put(db, "small", 1)
    plug = run(server, "m", "small", "plug")
    take(worker, RUN)
    waiting = [run(server, "m", "x", f"y{i}") for i in range(3)]
    worker.echo()
    assert plug.result() == b"OK"
    assert take(worker, RUN).rows == 2
    worker.fail("enough")
    take(worker, RUN)
    worker.fail("enough")
    assert [one.result() for one in waiting] == ["enough"] * 3


def test_more_wanted_than_fit(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """A MINBATCHSIZE above BATCHSIZE cannot be reached, so BATCHSIZE is enough; and no patience is too long."""
    store(server, worker, "m", "BATCHSIZE", 2, "MINBATCHSIZE", 4, "MINBATCHTIMEOUT", (1 << 63) - 1)
    put(db, "x", 1, shape=(1, 1))
    waiting = [run(server, "m", "x", f"y{i}", "TIMEOUT", (1 << 63) - 1) for i in range(2)]
    assert take(worker, RUN).rows == 2
    worker.echo()
    assert [one.result() for one in waiting] == [b"OK"] * 2


@pytest.mark.parametrize("how", ["UNLINK", "FLUSHALL ASYNC", "AI.MODELDEL"])
def test_forgotten_in_the_background(server: RedisServer, worker: FakeWorker, db: redis.Redis, how: str) -> None:
    """An idle worker hears of a large model that is gone, also where another thread of the server frees it."""
    waiting = Waiting(server, "AI.MODELSTORE", "m", "TORCH", "CPU", "BLOB", bytes(20 << 20))
    number = take(worker, LOAD).object
    worker.accept()
    assert waiting.result() == b"OK"
    db.execute_command(*(how.split() if " " in how else [how, "m"]))
    told: set[int] = set()
    while number not in told:
        task = worker.take()
        assert task.kind == DROP
        told |= set(dropped(task.extra))
        worker.answer()


def test_devices_without_end(make_server: Callable[..., RedisServer]) -> None:
    """After 32 devices no more get a queue, and the client is told."""
    with make_server(module_args=("WORKERS",)) as server, server.client() as db:
        for number in range(32):
            db.execute_command("ASIM.PREPARE", "TORCH", f"CPU:{number}")
        for words in (["ASIM.PREPARE", "TORCH", "CPU:32"], ["AI.SCRIPTSET", "s", "CPU:32", "SOURCE", "x"]):
            with pytest.raises(redis.ResponseError, match="32 devices have workers, and no more can"):
                db.execute_command(*words)
        assert db.execute_command("ASIM.PREPARE", "TORCH", "CPU:31") == b"OK"


def test_innocent_beside_a_guilty_one(server: RedisServer, db: redis.Redis) -> None:
    """Of two models that ran in one process when it ended, nobody knows which did it, so neither is counted."""
    put(db, "x", 1)
    with FakeWorker(server) as worker:
        store(server, worker, "m")
        store(server, worker, "n")
    for _ in range(3):
        with FakeWorker(server) as one, FakeWorker(server) as other:
            waiting = [run(server, name, "x", "y") for name in "mn"]
            take(one, RUN)
            take(other, RUN)
        assert all("ended" in each.result() for each in waiting)
    for name in "mn":
        info = db.execute_command("AI.INFO", name)
        assert dict(zip(info[::2], info[1::2], strict=True))[b"state"] == b"ready"


def test_outputs_count_as_changes(server: RedisServer, worker: FakeWorker, db: redis.Redis) -> None:
    """What a run stores counts for the next save to disk."""
    store(server, worker, "m")
    put(db, "x", 1)
    before = db.info("persistence")["rdb_changes_since_last_save"]
    waiting = run(server, "m", "x", "y")
    take(worker, RUN)
    worker.echo()
    assert waiting.result() == b"OK"
    assert db.info("persistence")["rdb_changes_since_last_save"] > before


def test_worker_that_does_not_end(make_server: Callable[..., RedisServer]) -> None:
    """A worker that is past its time, and still there, is killed by the server; what waits goes to the next one."""
    args = ("WORKERS", "MODEL_EXECUTION_TIMEOUT", "100", "OVERDUE", "100")
    with make_server(module_args=args) as server, server.client() as db:
        put(db, "x", 1)
        stopped = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        try:
            with FakeWorker(server, pid=stopped.pid) as worker:
                store(server, worker, "m")
                lost = run(server, "m", "x", "y")
                take(worker, RUN)
                kept = run(server, "m", "x", "z")
                assert "did not end in time" in lost.result()
                assert stopped.wait(15) == -signal.SIGKILL
            with FakeWorker(server) as other:
                take(other, RUN)
                other.echo()
                assert kept.result() == b"OK"
        finally:
            stopped.kill()
            stopped.wait(15)
