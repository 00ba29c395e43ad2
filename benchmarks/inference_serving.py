"""Servers with inference workers, and the client processes of :mod:`inference`."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Self

from harness import HERE, Row
from inference_models import QUIET

sys.path.insert(0, str(HERE.parent))
from asim.database.security import worker_rule
from asim.engine.worker import Settings
from tests.servers import RedisServer
from tests.smartredis.caller import interpreter

WITHIN = 120.0
"""Seconds that anything may take."""
PROGRAM = "from asim.engine.worker import main; main()"
NO_SHARED_MEMORY = f"from asim.engine import connection; connection.server_of = lambda _: 0; {PROGRAM}"


class Served:
    """A server with the engine and workers for the CPU, for a ``with`` statement.

    :param workers: how many processes.
    :param threads: of a framework, inside of a run.
    :param shares: whether large inputs come in shared memory.
    """

    def __init__(self, workers: int = 1, threads: int = 1, shares: bool = True) -> None:
        self._workers, self._threads, self._shares = workers, threads, shares
        self._stack = ExitStack()
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.server = self._stack.enter_context(RedisServer(module_args=("WORKERS",) if self._workers else ()))
        self.address = f"unix://{self.server.socket}"
        self.db = self._stack.enter_context(self.server.client(socket_timeout=WITHIN))
        password = secrets.token_hex(16)
        if self._workers:
            self.db.execute_command("ACL", "SETUSER", *worker_rule(password))
        for _ in range(self._workers):
            self._start(password)
        return self

    def _start(self, password: str) -> None:
        """A worker as the node of a database starts it."""
        settings = Settings(
            socket=str(self.server.socket), password=password, device="CPU", parent=os.getpid(), intra_op=self._threads
        )
        program = PROGRAM if self._shares else NO_SHARED_MEMORY
        environ = {**QUIET, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": str(self._threads)}
        mine, its = socket.socketpair()
        with its:
            command = [sys.executable, "-P", "-c", program]
            self.workers.append(subprocess.Popen(command, stdin=its, env=environ))
        self._stack.enter_context(mine)
        mine.sendall(settings.to_line())
        mine.settimeout(WITHIN)
        if mine.recv(1) != b"+":
            raise SystemExit("a worker does not start")

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self._stack.close()

    @property
    def processes(self) -> list[int]:
        """The server and its workers."""
        return [self.server.pid, *(worker.pid for worker in self.workers)]

    def put(self, key: str, array: Any) -> None:
        """Store a float32 tensor."""
        self.db.execute_command("AI.TENSORSET", key, "FLOAT", *array.shape, "BLOB", array.tobytes())

    def get(self, key: str, shape: Sequence[int]) -> Any:
        """It, as an array."""
        import numpy as np

        return np.frombuffer(self.db.execute_command("AI.TENSORGET", key, "BLOB"), "f4").reshape(shape)

    def run(self, model: str, output: str, *more: Any) -> None:
        """Run a model once."""
        self.db.execute_command("AI.MODELEXECUTE", model, "INPUTS", 1, "x", "OUTPUTS", 1, output, *more)


class Clients:
    """Processes of every kind, started when they are first needed."""

    def __init__(self) -> None:
        self._running: dict[str, list[subprocess.Popen[str]]] = {}
        self.python = interpreter()

    def close(self) -> None:
        """End them."""
        for process in (one for some in self._running.values() for one in some):
            process.communicate()

    def run(self, kind: str, count: int, job: Row, watched: Sequence[int] = ()) -> Row:
        """Time one contender once, all of its processes at the same time.

        :param watched: processes whose processor time counts, too.
        """
        processes = self._of(kind, count)
        for number, process in enumerate(processes):
            self._say(process, json.dumps({**job, "key": f"{kind}.{number}"}))
        failed = [found for process in processes if "error" in (found := self._answer(process))]
        if failed:  # those that are ready wait for ever
            self.close()
            self._running.clear()
            return failed[0]
        before = _processor_time(watched)
        for process in processes:
            self._say(process, "go")
        answers = [self._answer(process) for process in processes]
        return _together(answers, _processor_time(watched) - before)

    def _of(self, kind: str, count: int) -> list[subprocess.Popen[str]]:
        some = self._running.setdefault(kind, [])
        python = str(self.python) if kind == "smartredis" else sys.executable
        environ = {**QUIET, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent), "SR_LOG_LEVEL": "QUIET",
                   "SR_LOG_FILE": os.devnull, "SR_SOCKET_TIMEOUT": "60000"}  # fmt: skip
        while len(some) < count:
            process = subprocess.Popen(
                [python, str(HERE / "inference_client.py"), kind],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ,
                start_new_session=True,
            )  # fmt: skip
            some.append(process)
        return some[:count]

    @staticmethod
    def _say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin
        print(line, file=process.stdin, flush=True)

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> Row:
        assert process.stdout
        return dict(json.loads(process.stdout.readline() or '{"error": "the process has died"}'))


def _processor_time(processes: Sequence[int]) -> float:
    """Seconds that all threads of processes have run."""
    threads = [thread for process in processes for thread in Path(f"/proc/{process}/task").iterdir()]
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _together(answers: Sequence[Row], cpu: float) -> Row:
    """Rates summed, latencies' medians, and the processor time of an operation."""
    for answer in answers:
        if "error" in answer:
            return {"error": answer["error"]}
    if "ops_s" not in answers[0]:
        return answers[0]
    middle = {name: median(answer[name] for answer in answers) for name in ("p50_us", "p99_us")}
    cpu += sum(answer["cpu_s"] for answer in answers)
    rate, ops = (sum(answer[name] for answer in answers) for name in ("ops_s", "ops"))
    return {"ops_s": rate, "cpu_us": cpu / ops * 1e6, **middle}


def job(served: Served, verb: str, model: str = "", **more: Any) -> Row:
    """What a client process is told."""
    plain = {"address": served.address, "size": 1024, "verb": verb, "model": model, "function": "", "tasks": 1}
    return {**plain, "warm": 0.03, **more}
