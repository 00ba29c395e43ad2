"""What every fake workload manager shares: its commands, their server, and the faults that a test can ask for."""

from __future__ import annotations

import json
import shutil
import socketserver
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from .jobs import Job, Machine, Start, Task

_CLIENT = """#!{python} -SI
import json, os, signal, socket, sys
def ask(request):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect({address!r})
        link.sendall(json.dumps(request).encode() + b"\\n")
        return json.loads(b"".join(iter(lambda: link.recv(65536), b"")))
request = {{"argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "cwd": os.getcwd(), "env": dict(os.environ)}}
answer = ask(request)
if answer.get("stdin"):
    request["stdin"] = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    answer = ask(request)
if answer["lost"]:
    os.kill(os.getpid(), signal.SIGKILL)
for stream, text in ((sys.stdout, answer["out"]), (sys.stderr, answer["err"])):
    stream.buffer.write(text.encode("utf-8", "surrogateescape"))
    stream.flush()
os._exit(answer["code"])
"""


class Answer(NamedTuple):
    """What a command prints, and its exit code."""

    code: int = 0
    out: str = ""
    err: str = ""


class Call(NamedTuple):
    """One command that was run: its words, its exit code, and when."""

    argv: tuple[str, ...]
    code: int
    time: float


@dataclass(frozen=True, slots=True)
class Request:
    """One command as it was called.

    :ivar stdin: what it read; None: it has not been asked for.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin: str | None = None


class NeedStdin(Exception):
    """Raised by a command that reads its standard input."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 512


class FakeScheduler(ABC):
    """The shared half; use :class:`FakePBS` or :class:`FakeLSF`, as a context manager.

    :param directory: where it keeps its files; made when it is not there.
    :param slots: how many single-slot tasks run at once.
    :param grace: seconds between the signals that end a job.
    :param scale: length of one second of the jobs' time limits.
    :param exiting: seconds between the end of a job's process and the end of the job.
    :ivar bin: the folder of its commands, to be put first in PATH.
    :ivar calls: every command that was run, in order.
    :ivar slow: seconds that every command takes before it does anything.
    :ivar jobs: its jobs by number.
    """

    COMMANDS: ClassVar[Mapping[str, str]] = {}
    """Command -> method."""
    SUBMIT: ClassVar[str] = ""

    def __init__(
        self,
        directory: str | Path,
        *,
        slots: int = 64,
        grace: float = 1.0,
        scale: float = 1.0,
        exiting: float = 0.0,
    ) -> None:
        self.directory = Path(directory)
        self.bin = self.directory / "bin"
        self.spool = self.directory / "spool"
        self.undelivered = self.directory / "undelivered"
        for folder in (self.bin, self.spool, self.undelivered):
            folder.mkdir(parents=True, exist_ok=True)
        self.calls: list[Call] = []
        self.slow = 0.0
        self.next_number = 1
        self._is_down = False
        self._refusals: list[Answer] = []
        self._to_lose = 0
        self._machine = Machine(slots, self._start, self._deliver, grace=grace, scale=scale, exiting=exiting)
        self.jobs = self._machine.jobs
        self._serve()

    # --- for tests

    def down(self) -> None:
        """From now on no command reaches the server. Jobs run on, and end."""
        self._is_down = True

    def up(self) -> None:
        """Commands reach the server again."""
        self._is_down = False

    def refuse(self, code: int, text: str, times: int = 1) -> None:
        """Refuse the next submits.

        :param code: exit code of the submit command.
        :param text: what it says.
        """
        self._refusals += [Answer(code, "", text)] * times

    def lose(self, times: int = 1) -> None:
        """The next submits are taken, but the command is killed before it prints anything."""
        self._to_lose = times

    def count(self, command: str) -> int:
        """How often a command was run."""
        return sum(call.argv[0] == command for call in self.calls)

    def close(self) -> None:
        """Kill what runs, and take the commands away from the server. They fail from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._machine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for subclasses

    @abstractmethod
    def _start(self, task: Task) -> Start:
        """How a task's process is started."""

    @abstractmethod
    def _deliver(self, task: Task) -> None:
        """Put the output of a task that has ended where it belongs."""

    @abstractmethod
    def _unreachable(self, argv: Sequence[str]) -> Answer:
        """What a command says while the server is down."""

    def _keep(self, text: str, name: str) -> Path:
        """The script as the server keeps it."""
        path = self.spool / name
        path.write_text(text, errors="surrogateescape")
        path.chmod(0o700)
        return path

    def _take(self, job: Job, indices: Sequence[int] | None) -> None:
        """Queue a job; with indices it is an array."""
        job.array = indices is not None
        job.tasks = [Task(job, index) for index in ([None] if indices is None else indices)]
        self._machine.add(job)

    # --- the server

    def _serve(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="asim-fake-", dir="/tmp")  # the address must be short
        address = f"{self._folder}/s"
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(json.dumps(fake._answer(json.loads(self.rfile.readline()))).encode())

        self._server = _Server(address, Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        for command in self.COMMANDS:
            path = self.bin / command
            path.write_text(_CLIENT.format(python=sys.executable, address=address))
            path.chmod(0o755)

    def _answer(self, message: Mapping[str, Any]) -> dict[str, object]:
        request = Request(tuple(message["argv"]), message["cwd"], message["env"], message.get("stdin"))
        if self.slow:
            time.sleep(self.slow)
        try:
            with self._machine.lock:
                answer, lost = self._do(request)
        except NeedStdin:
            return {"stdin": True}
        self.calls.append(Call(request.argv, -9 if lost else answer.code, time.time()))
        return {**answer._asdict(), "lost": lost}

    def _do(self, request: Request) -> tuple[Answer, bool]:
        command = request.argv[0]
        if self._is_down and "--version" not in request.argv:
            return self._unreachable(request.argv), False
        submits = command == self.SUBMIT
        if submits and self._refusals:
            return self._refusals.pop(0), False
        answer: Answer = getattr(self, self.COMMANDS[command])(request)
        lost = submits and answer.code == 0 and self._to_lose > 0
        self._to_lose -= lost
        return answer, lost
