"""An inference worker: ``python -P -m asim.engine.worker DEVICE``, started by the node of a database.

It reads one line from its standard input, a socket: :class:`Settings` as JSON, among them the password, which neither its
arguments nor its environment may show. It connects, answers one byte on that socket, gives up what it does not need
(:mod:`asim.engine.isolation`), and then does what the server asks (:mod:`asim.engine.tasks`) until that closes the
connection. Exit code 0: the server is gone; 1: the server refused it, or it could not start.

Light on imports until the server knows of it: numpy comes while the first task is being waited for, frameworks when
they are needed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NoReturn

from . import protocol
from .connection import Connection, Gone, Refused
from .isolation import end_with_parent, isolate

if TYPE_CHECKING:
    from .tasks import Loop

READY = b"+"
"""What the node is told when the worker is connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a worker is told.

    :ivar socket: path of the server's Unix domain socket.
    :ivar device: whose queue it works for, e.g. "CPU" or "GPU:0".
    :ivar parent: the process that started it.
    :ivar threads: how many tasks at once.
    :ivar inter_op: threads of a framework between operations, and ``intra_op`` inside of one; 0: as it likes.
    :ivar memory: bytes that it may use; 0: no limit.
    :ivar cpus: numbers of the CPUs that it is pinned to; empty: it is not.
    """

    socket: str
    password: str
    device: str
    parent: int
    threads: int = 1
    inter_op: int = 0
    intra_op: int = 0
    memory: int = 0
    cpus: Sequence[int] = ()

    def to_line(self) -> bytes:
        """As the line that a worker reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read_settings() -> Settings:
    """Read them from the standard input."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 1 << 16)
        if not data:
            raise SystemExit("asim.engine.worker is started by the node of a database, which tells it what to do")
        line += data
    return Settings(**json.loads(line))


def connect(settings: Settings) -> list[Connection]:
    """A connection per thread, each with its HELLO sent."""
    found = []
    for _ in range(settings.threads):
        connection = Connection(settings.socket, eager=settings.threads == 1)
        connection.command(b"AUTH", protocol.WORKER.encode(), settings.password.encode())
        connection.send(
            (b"ASIM.DONE", protocol.hello(os.getpid(), settings.device, bool(connection.server))), protocol.NEXT
        )
        found.append(connection)
    return found


def work(settings: Settings) -> NoReturn:
    """Connect, and do what is asked for. Ends the process."""
    if settings.cpus:
        os.sched_setaffinity(0, settings.cpus)
    connections = connect(settings)
    os.write(0, READY)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for problem in isolate(settings.memory):
        print(f"asim: this system does not let a worker give up {problem}", file=sys.stderr, flush=True)
    from .backends import Threads
    from .tasks import Deadline, Deadlines, Loop, Objects

    objects = Objects(Threads(settings.inter_op, settings.intra_op))
    deadlines = Deadline() if len(connections) == 1 else Deadlines()
    loops = [Loop(connection, objects, deadlines) for connection in connections]
    for loop in loops[1:]:
        threading.Thread(target=_run, args=(loop,), daemon=True).start()
    _run(loops[0])


def _run(loop: Loop) -> NoReturn:
    """A loop to its end, which is the end of the process, without the last words of frameworks."""
    code = 1
    try:
        loop.run()
    except (Gone, ConnectionError):
        code = 0
    except Refused as exc:
        print(f"asim: the server refuses this worker: {exc}", file=sys.stderr)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> NoReturn:
    """The program."""
    settings = read_settings()
    end_with_parent(settings.parent)
    try:
        work(settings)
    except (Gone, Refused, OSError) as exc:
        print(f"asim: a worker cannot use the server at {settings.socket}: {exc!r}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
