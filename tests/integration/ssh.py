"""Real SSH servers for tests, and links that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from asim.transport.options import SSHOptions
from tests.conftest import missing

SSHD = "/usr/sbin/sshd"


class SSHServer:
    """A private sshd on 127.0.0.1 that lets the current user in by a key; stopped by :meth:`stop`.

    :ivar home: what it says is the user's home.
    """

    def __init__(self, place: Path, *lines: str) -> None:
        self.place, self.home = place, place / "home"
        self.home.mkdir(parents=True)
        place.chmod(0o755)
        for name in ("host", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{place}/{name}"], check=True)
        shutil.copy(place / "id.pub", place / "authorized")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.known = place / "known_hosts"
        self.know(self.port)
        config = [
            f"ListenAddress 127.0.0.1:{self.port}",
            f"HostKey {place}/host",
            f"AuthorizedKeysFile {place}/authorized",
            f"PidFile {place}/sshd.pid",
            f"SetEnv HOME={self.home} SHELL=/bin/bash",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "StrictModes no",
            *lines,  # sshd takes the first value that it finds
            "MaxSessions 10",
            "Subsystem sftp internal-sftp" if not any(line.startswith("Subsystem") for line in lines) else "",
        ]
        (place / "config").write_text("\n".join(config) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [SSHD, "-D", "-f", f"{self.place}/config", "-E", f"{self.place}/log"]
        self._child = subprocess.Popen(command, start_new_session=True)
        self._wait()

    def restart(self) -> None:
        """End it and its sessions' processes, and start it again on the same port."""
        sessions = subprocess.run(["pgrep", "-P", str(self._child.pid)], capture_output=True, text=True, check=False)
        self.stop()
        for pid in sessions.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.start()

    def know(self, port: int) -> None:
        """Add its key for that port to the known hosts."""
        with self.known.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {(self.place / 'host.pub').read_text()}")

    def _wait(self) -> None:
        for _ in range(500):
            if self._child.poll() is not None:
                raise RuntimeError((self.place / "log").read_text())
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(0.02)
        raise RuntimeError("sshd does not listen")

    def options(self, port: int | None = None, **others: object) -> SSHOptions:
        """How it is reached."""
        given: dict[str, object] = {
            "port": port or self.port,
            "config": (),
            "known_hosts": [str(self.known)],
            "identity_files": [f"{self.place}/id"],
            "keepalive": 1.0,
            "connect_timeout": 10.0,
            "link_patience": 20.0,
        }
        return SSHOptions(**{**given, **others})  # type: ignore[arg-type]

    def stop(self) -> None:
        """End it, with the sessions that it has."""
        self._child.terminate()
        self._child.wait()


class Proxy:
    """A TCP port in front of another one, whose connections can be cut, and which can be shut for a while."""

    def __init__(self, port: int) -> None:
        self.target, self.port, self.shut, self.count, self.carried = port, 0, False, 0, 0
        self.silent = False  # carries nothing on the connections that there are
        self.limit: int | None = None  # bytes after which everything is cut, once
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Abort every connection, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        self.count += 1
        self.silent = False
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers |= {writer, far_writer}
        for pair in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(*pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 14):
                if self.silent:
                    await asyncio.get_running_loop().create_future()
                self.carried += len(data)
                if self.limit is not None and self.carried > self.limit:
                    self.limit = None
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()


def need_sshd() -> None:
    """Skip where there is no server program."""
    if not os.access(SSHD, os.X_OK):
        missing(f"there is no {SSHD} (Debian: openssh-server)")
    if os.geteuid() != 0:
        missing("a private sshd with another home needs root")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    """A server for all tests."""
    need_sshd()
    server = SSHServer(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()
