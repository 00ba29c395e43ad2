"""A running redis-server: started so that it cannot outlive its node, watched, and stopped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

TICK = 1.0
"""Seconds between two looks at the log's size and the parent."""
LOG_BYTES, LOG_FILES = 10 << 20, 3
USUAL = ("default' is disabled", "Reading config from stdin")
"""In warnings that every server writes."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)


class ServerProcess:
    """One server.

    :param conf: its configuration. It reads that from its standard input: in a *path*, Redis takes ``*``, ``?`` and ``[``
        for a pattern, and where nothing matches it runs with its defaults, open to everybody.
    :param log: the file that it writes its log to; its output goes there, too.
    :param cpus: what it is pinned to, or nothing.
    """

    def __init__(self, program: str, conf: str, log: str, cpus: Collection[int]) -> None:
        self.log = log
        self.asked = False  # to end
        self.pid = _spawn([program, "-"], conf, log, cpus)

    def ended(self) -> int | None:
        """The exit code if it has ended (negative: the signal)."""
        pid, status = os.waitpid(self.pid, os.WNOHANG) if self.pid else (0, 0)
        if not pid:
            return None
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def watch(self, unwanted: Callable[[], bool], period: float, tend: Callable[[], float] | None = None) -> int:
        """Wait for the end. Returns the node's exit code.

        :param unwanted: asked every ``period`` seconds whether the server is to end.
        :param tend: sees to what belongs to a server that is to go on; says when it should be called again.
        """
        while True:
            pause = tend() if tend and not self.asked else period
            info = signal.sigtimedwait(SIGNALS, min(pause, period))
            code = self.ended()
            if code is not None:
                return self._verdict(code)
            told = info is not None and info.si_signo != signal.SIGCHLD
            if told or (not self.asked and unwanted()):
                self.stop()
            self._rotate_log()

    def _verdict(self, code: int) -> int:
        if self.asked or code == 0:
            return 0
        what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        print(f"redis-server {what}: {self.log_tail()}", file=sys.stderr)
        return 1

    def stop(self) -> None:
        """Ask it to end; what it is told to save, it saves."""
        if self.pid:
            self.asked = True
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it now."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def log_tail(self) -> str:
        """The last warnings that it wrote; else the last words that are neither notices nor statistics."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file if " * " not in line and line.strip()]
        except OSError:
            lines = []
        words = [line for line in lines if not line.startswith("[info]")]
        warnings = [line.partition(" # ")[2] for line in words if " # " in line and not any(map(line.count, USUAL))]
        return " | ".join((warnings or words)[-3:]) or "it wrote no log"

    def _rotate_log(self) -> None:
        """Redis opens its log anew for every line, so it may be renamed under it."""
        try:
            if os.stat(self.log).st_size < LOG_BYTES:
                return
            for number in range(LOG_FILES - 1, 0, -1):
                if os.path.exists(f"{self.log}.{number}"):
                    os.replace(f"{self.log}.{number}", f"{self.log}.{number + 1}")
            os.replace(self.log, f"{self.log}.1")
        except OSError:
            pass  # a full disk must not end a database


def _spawn(argv: list[str], conf: str, log: str, cpus: Collection[int]) -> int:
    """Start the server so that it ends with this process. (A fork, as a spawned process cannot ask the kernel for that.)"""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    _raise_limits()
    me = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            _become(argv, conf, fd, cpus, me)
        except BaseException as exc:  # noqa: BLE001  (nothing of the parent's may run in the child)
            os.write(fd, f"{argv[0]}: {exc}\n".encode())
            os._exit(127)
    os.close(fd)
    return pid


def _become(argv: list[str], conf: str, log: int, cpus: Collection[int], parent: int) -> NoReturn:
    _end_with_parent(parent)
    if cpus:
        os.sched_setaffinity(0, cpus)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for fd, number in ((os.open(conf, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(fd, number)
    os.execv(argv[0], argv)


def _end_with_parent(parent: int) -> None:
    """Linux: SIGTERM when the parent dies, also when it is killed."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)


def _raise_limits() -> None:
    """As many connections as this user may have."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass
