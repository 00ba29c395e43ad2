"""Random clients and random workers on one engine: ``python -m tests.fuzz_workers STEPS [--seed N] [--module FILE]``.

Clients run models and scripts, store and delete them, change types of keys, move them between databases, let them expire, use
transactions, end each other, and leave; workers fetch models, use shared memory or none, answer rightly, wrongly, not at all,
or die. Whatever they do, the server lives, and every client that stays gets exactly one answer to each command.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from asim.engine import protocol
from asim.engine.protocol import CALL, LOAD, RUN, SHARED, Task

from .fuzz_engine import encoded
from .servers import RedisServer

DEVICES = ("CPU", "CPU:1", "GPU")
KEYS = ("a", "b", "c")
OBJECTS = ("m", "n", "s", "t")
MOST_CLIENTS, MOST_WORKERS = 40, 5
IDS, MANY = 200, 300_000
"""Connections whose numbers are below the first may be ended by others; the second is a tensor for shared memory."""
PATIENCE = 30.0


class End:
    """One connection."""

    def __init__(self, server: RedisServer) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(server.socket))
        self.data = b""

    def receive(self) -> bool:
        """Take what has come; False at the end."""
        if not select.select([self.socket], [], [], 0)[0]:
            return True
        with suppress(ConnectionResetError):
            data = self.socket.recv(1 << 20)
            self.data += data
            return bool(data)
        return False


class Caller(End):
    """A client with at most one command under way, or several in a pipeline."""

    waiting = 0

    def replies(self) -> list[str]:
        """The first lines of the answers that came."""
        found = []
        while self.waiting and (reply := one_reply(self.data)):
            line, self.data = reply
            found.append(line.decode("utf-8", "replace")[:50])
            self.waiting -= 1
        assert self.waiting or not self.data, f"an answer to nothing: {self.data!r}"
        return found


def one_reply(data: bytes) -> tuple[bytes, bytes] | None:
    """The first line of a reply, and what follows the reply; None while it is not complete."""
    line, end, rest = data.partition(b"\r\n")
    if not end:
        return None
    assert line[:1] in b"+-:$*", line
    if line[:1] == b"$" and line != b"$-1":
        size = int(line[1:]) + 2
        return (line, rest[size:]) if len(rest) >= size else None
    for _ in range(int(line[1:]) if line[:1] == b"*" else 0):
        if (item := one_reply(rest)) is None:
            return None
        rest = item[1]
    return line, rest


class Helper(End):
    """A worker; whether it ``shares`` the server's memory."""

    def __init__(self, server: RedisServer, device: str, shares: bool = False) -> None:
        super().__init__(server)
        self.tasks: list[Task] = []
        self.fetching = False
        self._files = f"/proc/{server.pid}/fd"
        self.socket.sendall(encoded(["ASIM.DONE", protocol.hello(1, device, shares)]) + protocol.NEXT)

    def tasks_come(self) -> bool:
        """Take tasks; False when the server has ended it."""
        if not self.receive() or self.data.startswith(b"-"):
            return False
        reply = one_reply(self.data)
        if reply and self.fetching:
            self.fetching, self.data = False, reply[1]
        elif reply and not self.tasks:
            body = self.data[len(reply[0]) + 2 : len(self.data) - len(reply[1]) - 2]
            self.tasks, self.data = self._read(body), reply[1]
        return True

    def _read(self, body: bytes) -> list[Task]:
        tasks = protocol.read_tasks(body)
        if tasks[0].kind != SHARED:
            return tasks
        with suppress(OSError), open(f"{self._files}/{tasks[0].number}", "rb") as file:
            return protocol.read_tasks(os.pread(file.fileno(), tasks[0].object, 0))
        return []  # it was ended meanwhile

    def answer(self, rng: random.Random, good: bool) -> None:
        """Answer the first task."""
        task, self.tasks = self.tasks[0], self.tasks[1:]
        head, *outputs = self.words(task, rng, good)
        head = protocol.keeping(head) if rng.random() < 0.1 else head
        message = encoded(["ASIM.DONE", head, *outputs])
        self.socket.sendall(message + (b"" if self.tasks else protocol.NEXT))

    def words(self, task: Task, rng: random.Random, good: bool) -> list[bytes]:
        """What it says."""
        choice = 0.0 if good else rng.random()
        if choice > 0.8:
            return [protocol.failed(task.number, "some words")]
        if task.kind == LOAD:
            count = rng.choice([-1, -1, 1, 2])
            return [protocol.loaded(task.number, count, -1, rng.randbytes(32))]
        if task.kind not in (RUN, CALL):
            return [protocol.done(task.number)]
        rows = task.rows or rng.randrange(1, 4)
        if choice > 0.7:
            rows += 1
        count = task.expected + (choice > 0.76)
        heads = [protocol.output(0, (rows, 2))] * count
        data = [bytes(8 * rows)] * count
        if choice > 0.78:
            data[0] = data[0][1:]
        return [protocol.done(task.number, rng.choice([1, 50, 10**6]), heads), *data]


def command(rng: random.Random) -> list[Any]:
    """A client's command."""
    name, key, out = rng.choice(OBJECTS), rng.choice(KEYS), rng.choice([*KEYS, "y", "z"])
    inputs = [rng.choice(KEYS) for _ in range(rng.randrange(1, 3))]
    limit = rng.choice([[], [], ["TIMEOUT", rng.choice([1, 5, 50, 60_000])]])
    batch = rng.choice(
        [
            [],
            ["BATCHSIZE", 4],
            ["BATCHSIZE", 8, "MINBATCHSIZE", 3],
            ["BATCHSIZE", 4, "MINBATCHSIZE", 4, "MINBATCHTIMEOUT", 3],
        ]
    )
    run = ["AI.MODELEXECUTE", name, "INPUTS", len(inputs), *inputs, "OUTPUTS", 1, out, *limit]
    blob = rng.randbytes(rng.choice([3, 3000, MANY]))
    store = ["AI.MODELSTORE", rng.choice("mn"), "ONNX", rng.choice(DEVICES), *batch, "BLOB", blob]
    tensor = ["AI.TENSORSET", key, "FLOAT", *rng.choice([(1, 2), (2, 2), (3, 2), (2, 3), (4,), (1, MANY)])]
    if rng.random() < 0.15:
        return other_command(rng)
    return rng.choices(
        [
            run, store, tensor,
            ["AI.SCRIPTRUN", name, "f", *limit, "INPUTS", *inputs, "OUTPUTS", out, "z"],
            ["AI.SCRIPTEXECUTE", name, "f", "INPUTS", len(inputs), *inputs, "ARGS", 1, "x", "OUTPUTS", 1, out],
            ["AI.SCRIPTSET", rng.choice("st"), rng.choice(DEVICES), "SOURCE", rng.randbytes(rng.choice([3, 2000]))],
            ["UNLINK", rng.choice([*KEYS, *OBJECTS])], ["SET", rng.choice([*KEYS, "y"]), "x"], ["FLUSHALL", "ASYNC"],
            ["RENAME", rng.choice("mn"), rng.choice("mn")], ["AI.MODELDEL", name], ["PING"],
            ["ASIM.WORKER", "FAILED", rng.choice(DEVICES), "why"], ["ASIM.PREPARE", "TORCH", rng.choice(DEVICES)],
        ],
        [40, 8, 20, 8, 4, 4, 3, 2, 0.3, 2, 1, 2, 0.3, 0.5],
    )[0]  # fmt: skip


def other_command(rng: random.Random) -> list[Any]:
    """What moves keys, ends clients, or makes transactions."""
    key, place = rng.choice([*KEYS, *OBJECTS, "y"]), rng.randrange(3)
    return rng.choices(
        [
            ["SELECT", place], ["PEXPIRE", key, rng.choice([1, 5, 50])], ["MOVE", key, place], ["SWAPDB", 0, place],
            ["COPY", key, rng.choice("mnst"), "DB", place, "REPLACE"], ["RESET"], ["MULTI"], ["EXEC"], ["DISCARD"],
            ["CLIENT", "KILL", "ID", rng.randrange(IDS)], ["CLIENT", "UNBLOCK", rng.randrange(IDS), "ERROR"],
            ["AI.MODELRUN", rng.choice("mn"), "INPUTS", key, key, "OUTPUTS", key, key],
        ],
        [6, 4, 2, 1, 4, 1, 3, 6, 1, 2, 1, 6],
    )[0]  # fmt: skip


class Fuzz:
    """One run."""

    def __init__(self, server: RedisServer, seed: int) -> None:
        self.server, self.rng = server, random.Random(seed)
        self.callers: list[Caller] = []
        self.helpers: list[Helper] = []
        self.answered: Counter[str] = Counter()

    def step(self) -> None:
        """One random act of somebody."""
        rng = self.rng
        choice = rng.random()
        if choice < 0.5:
            self.call()
        elif choice < 0.53 and self.callers:
            self.callers.pop(rng.randrange(len(self.callers))).socket.close()
        elif choice < 0.56 and len(self.helpers) < MOST_WORKERS:
            self.helpers.append(Helper(self.server, rng.choice(DEVICES), rng.random() < 0.5))
        elif choice < 0.57 and self.helpers:
            self.helpers.pop(rng.randrange(len(self.helpers))).socket.close()
        else:
            self.work(good=False)
        self.listen()

    def call(self) -> None:
        rng = self.rng
        free = [one for one in self.callers if not one.waiting]
        if not free:
            if len(self.callers) >= MOST_CLIENTS:
                return
            self.callers.append(Caller(self.server))
            free = self.callers[-1:]
        one = rng.choice(free)
        commands = [command(rng) for _ in range(rng.choice([1, 1, 1, 3]))]
        with suppress(BrokenPipeError):
            one.socket.sendall(b"".join(map(encoded, commands)))
        one.waiting = len(commands)

    def work(self, good: bool) -> None:
        for one in list(self.helpers):
            if not one.tasks_come():
                self.helpers.remove(one)
                one.socket.close()
        busy = [one for one in self.helpers if one.tasks and not one.fetching]
        if busy:
            one = self.rng.choice(busy)
            with suppress(BrokenPipeError):  # the server ended it, which the next look tells
                if one.tasks[0].kind in (RUN, CALL, LOAD) and self.rng.random() < 0.1:
                    one.fetching = True
                    one.socket.sendall(encoded(["ASIM.FETCH"]))
                else:
                    one.answer(self.rng, good)

    def listen(self) -> None:
        for one in list(self.callers):
            if not one.waiting:
                continue
            if one.receive():
                self.answered.update(one.replies())
            else:  # somebody has ended it
                self.callers.remove(one)
                one.socket.close()

    def finish(self) -> None:
        """Good workers for everything: then nobody may be left without an answer."""
        for one in self.helpers:  # they may be about to be ended
            one.socket.close()
        self.helpers = [Helper(self.server, device) for device in DEVICES]
        deadline = time.monotonic() + PATIENCE
        while any(one.waiting for one in self.callers):
            assert time.monotonic() < deadline, "clients without an answer"
            self.work(good=True)
            self.listen()

    def close(self) -> None:
        """End all connections."""
        for end in (*self.callers, *self.helpers):
            end.socket.close()


def run(steps: int, seed: int, **options: Any) -> tuple[Counter[str], int | None]:
    """The answers that clients got, and how the server ended."""
    with RedisServer(module_args=("WORKERS", "GRACE", "50"), **options) as server:
        fuzz = Fuzz(server, seed)
        try:
            for _ in range(steps):
                fuzz.step()
            fuzz.finish()
        finally:
            fuzz.close()
        return fuzz.answered, server.stop()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_workers", description=__doc__)
    parser.add_argument("steps", type=int, help="how many acts of somebody")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--server", help="another server program")
    parser.add_argument("--module", type=Path, help="another build of the engine")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    answers, code = run(options.steps, options.seed, binary=options.server, module=options.module or True)
    for line, count in answers.most_common():
        print(f"{count:9} {line}")
    print(f"{options.steps} steps, {answers.total()} answers, the server ended with {code}")
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
