"""Keeps the inference workers of one server going: as many per device as were asked for, from when the server wants them.

A thread waits for what devices the server wants, and wakes the main loop, which starts and reaps all processes: the kernel
ends a worker with the *thread* that started it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime

from ..database.config import ADMIN
from ..database.server_process import LOG_BYTES, LOG_FILES
from ..database.talk import Refused, Talk
from .isolation import default_memory
from .worker import READY, Settings

PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""Seconds before a worker that ended is started again: after the first time in a row, the second, …"""
STEADY = 10.0
"""Seconds after which the end of a worker is the first in a row."""
HOPELESS = 3
"""After so many in a row that ended without reaching the server, its clients are told."""
MOST_DEVICES = 32
"""So many devices have workers: any client can name more and more, and each would be processes."""
ATTACHED_WITHIN = 60.0
"""Seconds in which a worker must reach the server."""
TAIL = 600
"""Bytes of what a worker printed that clients are told."""
AGAIN = 1.0
"""Seconds until a lost connection to the server is made again."""
LONG = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the workers of a server are to be.

    :ivar socket: path of the server's Unix domain socket.
    :ivar secret: password of the user ``asim``; ``password``: that of the workers' user.
    :ivar per_device: processes per device; ``threads``: tasks at once in each.
    :ivar memory: bytes that each may use, 0: no limit, None: a share of what there is.
    :ivar log: file for what they print.
    """

    socket: str
    secret: str
    password: str
    log: str
    environ: Mapping[str, str]
    per_device: int = 1
    threads: int = 1
    inter_op: int = 0
    intra_op: int = 0
    memory: int | None = None
    cpus: Sequence[int] = ()


class Place:
    """Where there is to be a worker: one after the other, until it is the last."""

    def __init__(self, device: str, wanted: Wanted, workers: int) -> None:
        self.device, self._wanted = device, wanted
        memory = default_memory(workers) if wanted.memory is None else wanted.memory
        self._memory = memory
        self.pid = 0
        self.lost = 0  # in a row that did not reach the server
        self.attached = False
        self._ends = 0  # in a row
        self._since = self._due = 0.0
        self._control: socket.socket | None = None
        self._printed = 0

    def tend(self, now: float) -> float:
        """Do what is due; seconds until something may be due again."""
        if self.pid:
            self._look(now)
        if not self.pid and now >= self._due:
            self._start(now)
        if not self.pid:
            return max(self._due - now, 0.001)
        return LONG if self.attached else max(self._since + ATTACHED_WITHIN - now, 0.001)

    def _look(self, now: float) -> None:
        """See whether it has reached the server, and whether it has ended."""
        assert self._control is not None
        if not self.attached:
            with suppress(OSError):
                self.attached = self._control.recv(1, socket.MSG_DONTWAIT) == READY
            if self.attached:
                self.lost = 0
            elif now > self._since + ATTACHED_WITHIN:
                os.kill(self.pid, signal.SIGKILL)
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._ended(now, os.waitstatus_to_exitcode(status))

    def _ended(self, now: float, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._say(f"worker {self.pid} of {self.device} {how}")
        self.lost += not self.attached
        self._ends = 1 if now - self._since > STEADY else self._ends + 1
        self._due = now + PAUSES[min(self._ends, len(PAUSES)) - 1]
        self._forget()

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
        self.pid, self.attached, self._control = 0, False, None

    def _start(self, now: float) -> None:
        self._since = now
        try:
            self._control, its = socket.socketpair()
            with its, open(self._wanted.log, "ab", opener=_private) as log:
                self._printed = log.tell()
                argv = [sys.executable, "-P", "-m", "asim.engine.worker", self.device]
                self.pid = _spawn(argv, self._wanted.environ, its.fileno(), log.fileno())
                self._control.sendall(self._settings().to_line())
        except OSError as exc:
            self._say(f"a worker of {self.device} cannot be started: {exc}")
        if not self.pid:
            self._ends += 1
            self.lost += 1
            self._due = now + PAUSES[min(self._ends, len(PAUSES)) - 1]
            self._forget()

    def _settings(self) -> Settings:
        wanted = self._wanted
        return Settings(
            socket=wanted.socket,
            password=wanted.password,
            device=self.device,
            parent=os.getpid(),
            threads=wanted.threads,
            inter_op=wanted.inter_op,
            intra_op=wanted.intra_op,
            memory=self._memory,
            cpus=wanted.cpus,
        )

    def _say(self, text: str) -> None:
        try:
            with open(self._wanted.log, "a", encoding="utf-8") as file:
                file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} asim: {text}\n")
        except OSError:
            pass  # a full disk must not end a database

    def words(self) -> str:
        """What was printed since the last one was started, shortened."""
        try:
            with open(self._wanted.log, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                begin = self._printed if self._printed < end else 0  # nothing yet: what the one before said
                file.seek(max(begin, end - TAIL))
                return " ".join(file.read().decode("utf-8", "replace").split())
        except OSError as exc:
            return str(exc)

    def kill(self) -> None:
        """End it now."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._forget()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _spawn(argv: list[str], environ: Mapping[str, str], stdin: int, log: int) -> int:
    files = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    ignored = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGALRM]
    return os.posix_spawn(argv[0], argv, environ, file_actions=files, setsigmask=[], setsigdef=ignored)


class Supervisor:
    """The workers of one server."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._devices: Sequence[str] = ()
        self._places: dict[str, list[Place]] = {}
        self._told: set[str] = set()
        self._stopped = threading.Event()

    def listen(self) -> None:
        """Begin to wait for what the server wants."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Until the end. A connection that is lost, but not with the server, is made again."""
        while not self._stopped.is_set():
            try:
                self._attend()
            except OSError:
                self._stopped.wait(AGAIN)
            except Refused as exc:
                if "unknown command" in str(exc) or "no inference" in str(exc):
                    print(f"asim: no inference: {exc}", file=sys.stderr, flush=True)
                    return
                self._stopped.wait(AGAIN)  # it has no room, or is loading, or its cluster is down: that may pass

    def _attend(self) -> None:
        """One connection. SIGCHLD, which the main loop waits for anyway, wakes that."""
        with closing(Talk(self._wanted.socket, None)) as talk:
            talk("AUTH", ADMIN, self._wanted.secret)
            while True:
                found = talk("ASIM.WANTED", *self._devices)
                assert isinstance(found, list)
                self._devices = [str(name, "utf-8") for name in found if isinstance(name, bytes)]
                os.kill(os.getpid(), signal.SIGCHLD)

    def tend(self) -> float:
        """Start what is wanted, reap what has ended, start that again. Seconds until this should be done again."""
        now, pause = time.monotonic(), LONG
        devices = self._devices  # the listener may put others there meanwhile
        for device in devices:
            if device not in self._places and len(self._places) < MOST_DEVICES:
                self._places[device] = self._new(device)
            for place in self._places.get(device, ()):
                pause = min(pause, place.tend(now))
        self._judge(devices)
        if self._places:
            rotate(self._wanted.log)
        return pause

    def _new(self, device: str) -> list[Place]:
        workers = self._wanted.per_device * min(len(self._devices), MOST_DEVICES)
        return [Place(device, self._wanted, workers) for _ in range(self._wanted.per_device)]

    def _judge(self, devices: Sequence[str]) -> None:
        """Tell the server of which devices there will be no workers: once, until one reaches it."""
        news = {}
        for device in devices:
            lost = min(self._places.get(device, ()), key=lambda place: place.lost, default=None)
            if lost and lost.lost < HOPELESS:
                self._told.discard(device)
            elif device not in self._told:
                news[device] = lost.words() if lost else f"{MOST_DEVICES} other devices have some, and no more can"
        if news:
            self._told.update(news)
            threading.Thread(target=self._tell, args=(news,), daemon=True).start()

    def _tell(self, news: Mapping[str, str]) -> None:
        try:
            with closing(Talk(self._wanted.socket, ATTACHED_WITHIN)) as talk:
                talk("AUTH", ADMIN, self._wanted.secret)
                for device, words in news.items():
                    talk("ASIM.WORKER", "FAILED", device, words)
        except (OSError, Refused) as exc:
            shown = ", ".join(news)
            print(f"asim: the server could not be told that there are no workers: {shown}: {exc}", file=sys.stderr)
            self._told.difference_update(news)  # so it is tried again

    def stop(self) -> None:
        """End all workers now."""
        self._stopped.set()
        for places in self._places.values():
            for place in places:
                place.kill()


def rotate(log: str) -> None:
    """Copy a log that has become long, and make it empty: workers hold it open, so it cannot be renamed under them."""
    try:
        if os.stat(log).st_size < LOG_BYTES:
            return
        for number in range(LOG_FILES - 1, 0, -1):
            if os.path.exists(f"{log}.{number}"):
                os.replace(f"{log}.{number}", f"{log}.{number + 1}")
        with open(log, "r+b") as file, open(f"{log}.1", "wb") as copy:
            os.sendfile(copy.fileno(), file.fileno(), 0, LOG_BYTES)
            file.truncate(0)
    except OSError:
        pass  # a full disk must not end a database
