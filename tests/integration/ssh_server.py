"""An SSH server whose behaviour a test can break at a chosen point: asyncssh's, with real shells and its own SFTP.

In the test's own loop, or as a program (``python -m tests.integration.ssh_server DIRECTORY``) that can be suspended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import asyncssh

from asim.transport.options import SSHOptions


class FaultyServer:
    """Lets everybody in who has its key, and runs what they ask for by ``sh -c``, as the current user.

    There is no sftp-server program to be run: files go through asyncssh's SFTP, so that a test can reach into it.
    A *stream* below is that of an agent: what its ``attach`` command reads ("in") and writes ("out").

    :ivar rewrite: from the command that is asked for to the one that is run.
    :ivar refuses: whether a request to run a command is refused.
    :ivar has_sftp: whether it has the SFTP subsystem.
    :ivar on_file: called with "read", "write" or "rename" and the offset, before SFTP does that; what it raises is
        answered. After a rename it is called with "renamed".
    :ivar cuts: bytes of a stream, by direction, after which every connection is dropped, once.
    :ivar reads: whether it reads the streams.
    :ivar said: a banner before anybody is let in; and ``dismissal``: the last words, instead of letting anybody in.
    :ivar met: how often somebody connected; and ``logins``: was let in.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.port = place, place / "home", 0
        self.rewrite: Callable[[str], str] = str
        self.refuses: Callable[[str], bool] = lambda _: False
        self.on_file: Callable[[str, int], object] = lambda _what, _offset: None
        self.has_sftp, self.said, self.dismissal, self.met, self.logins = True, "", "", 0, 0
        self.cuts: dict[str, int] = {}
        self.reads, self.connections = asyncio.Event(), set[Any]()
        self.reads.set()
        self._children: set[asyncio.subprocess.Process] = set()
        if not self.home.exists():
            self.home.mkdir(parents=True)
            for name in ("host", "id"):
                self.new_key(name)

    def public(self, name: str) -> str:
        """The public half of a key."""
        return asyncssh.read_private_key(self.place / name).export_public_key().decode()

    def new_key(self, name: str = "host") -> None:
        """Another key of that name. Only a server that is started afterwards shows it."""
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(self.place / name)

    async def start(self) -> None:
        """Listen; the second time on the same port."""
        self._acceptor = await asyncssh.listen(
            host="127.0.0.1",
            port=self.port,
            server_factory=lambda: _Server(self),
            server_host_keys=[str(self.place / "host")],
            authorized_client_keys=asyncssh.import_authorized_keys(self.public("id")),
            encoding=None,
        )
        self.port = self._acceptor.get_port()

    async def stop(self) -> None:
        """Listen no longer, drop all connections, and end what runs for them."""
        self._acceptor.close()
        self.cut()
        await self._acceptor.wait_closed()
        for child in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child._transport.close()  # of its pipes, which may be full
            await child.wait()
        self._children.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        (self.place / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {self.public('host')}")
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(10):
            await self.stop()

    def cut(self) -> None:
        """Drop every connection, without a word."""
        for connection in list(self.connections):
            connection.abort()

    def options(self, **others: Any) -> SSHOptions:
        """How it is reached."""
        files = {"known_hosts": str(self.place / "known_hosts"), "identity_files": str(self.place / "id")}
        return SSHOptions(**{"port": self.port, "config": (), "link_patience": 20.0, **files, **others})

    # -- what runs

    async def run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """One command, until it and all that has its output have ended, or the connection is gone."""
        command = self.rewrite(process.command).replace("/sftp-server", "/no-such-server")
        ways = ("in", "out") if " attach " in command else ("", "")
        child = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", command),
            **dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE),
            env={**os.environ, "HOME": str(self.home), "SHELL": "/bin/sh"},
            start_new_session=True,
        )
        self._children.add(child)
        feed = asyncio.create_task(self._carry(ways[0], process.stdin, child.stdin))
        talk = self._carry(ways[1], child.stdout, process.stdout), self._carry("", child.stderr, process.stderr)
        try:
            await asyncio.gather(*talk)
            process.exit(await child.wait() & 255)
            self._children.discard(child)
        finally:  # whoever asked may be gone; the program finds that out by itself
            feed.cancel()
            for number in range(3):
                child._transport.get_pipe_transport(number).close()

    async def _carry(self, way: str, source: Any, target: Any) -> None:
        """From one end to the other, as far as it is to come."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while data := await source.read(1 << 16):
                left = self.cuts.pop(way, None)
                target.write(data[:left])
                await target.drain()
                if left is not None and len(data) >= left:
                    self.cut()
                    break
                if left is not None:
                    self.cuts[way] = left - len(data)
                if way == "in":
                    await self.reads.wait()
        if isinstance(target, asyncio.StreamWriter):
            target.close()


class _Server(asyncssh.SSHServer):
    def __init__(self, owner: FaultyServer) -> None:
        self.owner = owner

    def connection_made(self, conn: Any) -> None:
        self.connection = conn
        self.owner.met += 1
        self.owner.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.connections.discard(self.connection)

    def begin_auth(self, username: str) -> bool:
        if self.owner.said:
            self.connection.send_auth_banner(self.owner.said)
        if self.owner.dismissal:
            raise asyncssh.ProtocolError(self.owner.dismissal)
        return True

    def auth_completed(self) -> None:
        self.owner.logins += 1

    def session_requested(self) -> Any:
        return _Session(self.owner)


class _Session(asyncssh.SSHServerProcess[bytes]):
    def __init__(self, owner: FaultyServer) -> None:
        super().__init__(owner.run, (lambda channel: _Files(channel, owner)) if owner.has_sftp else None, 3, False)
        self.owner = owner

    def exec_requested(self, command: str) -> bool:
        return not self.owner.refuses(command)


class _Files(asyncssh.SFTPServer):
    def __init__(self, channel: Any, owner: FaultyServer) -> None:
        super().__init__(channel)
        self.owner = owner

    def read(self, *given: Any) -> Any:
        return self.owner.on_file("read", given[1]) or super().read(*given)

    def write(self, *given: Any) -> Any:
        return self.owner.on_file("write", given[1]) or super().write(*given)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
        self.owner.on_file("rename", 0)
        super().posix_rename(oldpath, newpath)
        self.owner.on_file("renamed", 0)


async def _main() -> None:
    async with FaultyServer(Path(sys.argv[1])) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_main())
