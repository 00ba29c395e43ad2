"""An agent on this host: a child process of the driver, at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from anyio import to_thread

from ..errors import AgentError

AGENT = Path(__file__).parent.parent / "agent"
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from main import main; main(sys.argv[1:])"
END_WAIT = 2.0  # seconds for a process whose stream has ended to be gone


class LocalAgent:
    """The child process; ``connection`` talks to it.

    :param python: the interpreter that runs the agent.
    :param environ: the environment that started processes inherit.
    """

    def __init__(self, python: str, environ: Mapping[str, str]) -> None:
        self._python = python
        self._environ = dict(environ)
        self._child: subprocess.Popen[bytes] | None = None
        self.options: Mapping[str, object] = {}

    async def start(self, connection: asyncio.Protocol) -> None:
        """Start the child and connect.

        :raises AgentError: when the interpreter cannot be run.
        Cancellation: a child that was started meanwhile ends by itself, as its stream is closed.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._child = await to_thread.run_sync(self._popen, str(theirs.fileno()))
            await asyncio.get_running_loop().create_unix_connection(lambda: connection, sock=ours)
        except BaseException:
            ours.close()
            raise

    def _popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        fds = [int(arguments[0])] if arguments[0].isdigit() else []
        try:
            return subprocess.Popen(
                [self._python, "-I", "-S", "-E", "-c", RUN, str(AGENT), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                cwd="/",
                env=self._environ,
                start_new_session=True,  # Ctrl-C in the terminal is the driver's business
            )
        except OSError as exc:
            raise AgentError(f"cannot start the agent with {self._python}: {exc}") from exc

    @property
    def pid(self) -> int | None:
        """The agent's process id."""
        return self._child.pid if self._child else None

    async def last_words(self) -> str:
        """Wait until the child, whose stream has ended, is gone; what it wrote to its standard error."""
        child = self._child
        return "" if child is None else await to_thread.run_sync(_collect, child, abandon_on_cancel=True)

    def kill(self) -> None:
        """End the child by force."""
        if self._child is not None:
            self._child.kill()

    def detach(self) -> None:
        """Let the child live on without us. (subprocess itself reaps it later, if this process lives that long.)"""
        if self._child is not None:
            if self._child.stderr:
                self._child.stderr.close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # that it still runs is what was asked for
                self._child = None

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def rescue(self, run: str, grace: float, leaders: Iterable[int]) -> None:
        """After the agent died: stop what it left running, grandchildren too, and wait until all are gone."""
        child = await to_thread.run_sync(self._popen, "rescue", run, str(grace), *map(str, leaders))
        await to_thread.run_sync(_collect, child, None, abandon_on_cancel=True)

    async def read(self, path: str) -> bytes:
        """A file, whole; b"" when there is none."""
        return await to_thread.run_sync(_read, path)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


def _collect(child: subprocess.Popen[bytes], timeout: float | None = END_WAIT) -> str:
    try:
        _, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        _, errors = child.communicate()
    return os.fsdecode(errors or b"").strip()
