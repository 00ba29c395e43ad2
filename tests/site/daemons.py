"""What all private daemons share: they are children of the test process, and gone when it lets go of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers import until

READY_WITHIN = 40.0
"""Seconds until daemons must answer, on a busy machine."""
SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"

_WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""A test process that is killed takes its daemons with it."""


def lacking(*programs: str) -> str:
    """Which of these programs are not installed, in words; "" when all are."""
    gone = [name for name in programs if not shutil.which(name, path=os.environ.get("PATH", "") + ":" + SBIN)]
    return f"not installed: {', '.join(gone)}" if gone else ""


class Daemons:
    """Processes in the foreground, each with a log file; stopped in the reverse order.

    :param directory: for their logs.
    :param env: environment that they and all commands get.
    """

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self.directory, self.env = directory, dict(env)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *argv: str, prefix: Sequence[str] = (), **env: str) -> None:
        """Start one in a session of its own, so that the terminal's Ctrl-C is only the tests'."""
        assert name not in self.running, name
        with (self.directory / f"{name}.out").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*_WITH_US, *prefix, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**self.env, **env},
                cwd=self.directory, start_new_session=True,
            )  # fmt: skip

    def stop(self, name: str, within: float = 10) -> None:
        """SIGTERM, and after a while SIGKILL."""
        process = self.running.pop(name)
        process.terminate()
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """All of them, the last first."""
        for name in reversed(list(self.running)):
            self.stop(name)

    def run(self, *argv: str, check: bool = True, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """One command with their environment."""
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="surrogateescape",
            env={**self.env, **env}, timeout=timeout, check=False, cwd=self.directory,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}{self.logs()}"
        return done

    def logs(self, size: int = 2000) -> str:
        """The ends of the logs, for messages."""
        files = [*self.directory.glob("*.out"), *self.directory.glob("*.log"), *self.directory.glob("log/*")]
        return "".join(f"\n--- {file.name}\n{file.read_text(errors='replace')[-size:]}" for file in files)

    def ready(self, *argv: str, what: str, said: str = "", within: float = READY_WITHIN) -> None:
        """Wait until a command ends well (and says ``said``)."""

        def answers() -> bool:
            dead = [name for name, process in self.running.items() if process.poll() is not None]
            assert not dead, f"{dead} ended while waiting for {what}{self.logs()}"
            done = self.run(*argv, check=False)
            return done.returncode == 0 and (not said or done.stdout.strip() == said)

        try:
            until(answers, within, what)
        except AssertionError as error:
            raise AssertionError(f"{error}{self.logs()}") from None


def kill_jobs(directory: Path, mark: str, keeper: str) -> None:
    """End jobs that outlived their daemons: processes whose environment has this directory's path and ``mark``.

    A person's shell with the site's exports is none of them: it has no job's number.

    :param keeper: the program that looks after a job, which may have overwritten its environment; it is known by the
        files that it has open.
    """

    def one_round() -> list[int]:
        own = str(os.getpid())
        others = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and entry.name != own]
        pids = [int(entry.name) for entry in others if _is_job(entry, directory, mark, keeper)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return pids

    until(lambda: not one_round(), 10, "the end of jobs")  # one that was about to be started is seen in the next round


def _is_job(entry: Path, directory: Path, mark: str, keeper: str) -> bool:
    return _has(entry, f"{directory}/", mark) or (_name(entry) == keeper and _opened(entry, directory))


def _has(entry: Path, *texts: str) -> bool:
    try:
        environment = (entry / "environ").read_bytes()
    except OSError:
        return False
    return all(text.encode() in environment for text in texts)


def _name(entry: Path) -> str:
    try:
        return (entry / "comm").read_text().strip()
    except OSError:
        return ""


def _opened(entry: Path, directory: Path) -> bool:
    """Whether it has a file below this directory open."""
    with contextlib.suppress(OSError):
        return any(os.readlink(link).startswith(f"{directory}/") for link in (entry / "fd").iterdir())
    return False


def leave_on_sigterm() -> None:
    """From now on SIGTERM ends this program as Ctrl-C does: what was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())


def stay(exports: Mapping[str, str]) -> None:
    """For a site that is started by hand: print its environment, and stay until Ctrl-C or SIGTERM."""
    for name, value in exports.items():
        print(f"export {name}={value}")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        while True:
            signal.pause()
