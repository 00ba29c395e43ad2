"""An agent on another host, over SSH: sent there if need be, run there as a daemon, and found again after a cut link."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import asyncssh
from anyio import to_thread

from ..errors import AgentError
from .farshell import SLOW, Far, ask, prepare, serve, shell
from .options import SSHOptions
from .package import package
from .resume import Resumable
from .sshchannel import Session
from .sshfiles import get_files, put_files
from .sshforward import Forwards
from .sshlink import CUT, Link, opened

KILL = "p=$(cat %s) && tr '\\0' ' ' </proc/$p/cmdline | grep -q %s && kill -9 $p; printf '\\nASIM-LINK done\\n'"
NAME = "printf '\\nASIM-LINK host %s\\n' \"$(uname -n)\"\n"
END_WAIT = 10.0
"""Seconds for what is asked of a far side when all is over."""


class SSHAgent:
    """An :class:`~asim.transport.host.Agent` at the far end of an SSH connection.

    :param host: ``user@host``, or a name of the config file.
    :param options: how to reach it.
    :param on_link: called with the reason when the link is cut, and with None when there is a new one.
    """

    def __init__(
        self, host: str, options: SSHOptions | None = None, on_link: Callable[[str | None], None] | None = None
    ) -> None:
        self.host, self._ssh = host, options or SSHOptions()
        self.options: Mapping[str, object] = {"patience": self._ssh.link_patience, "keepalive": self._ssh.keepalive}
        self.link = Link(host, self._ssh, on_link)
        self.token = secrets.token_hex(8)
        self._stream: Resumable | None = None
        self._far: Far | None = None
        self._place = ""
        self._restoring: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._copying = asyncio.Lock()
        self._forwards = Forwards(self._connected)

    @property
    def far(self) -> Far:
        """What is known of the far side.

        :raises AgentError: not connected yet.
        """
        if self._far is None:
            raise AgentError(f"{self.host} has not been connected to")
        return self._far

    # -- Agent

    async def start(self, connection: asyncio.Protocol) -> None:
        """Connect, send the agent's file if it is not there, start it, and attach.

        :raises AgentError: the host cannot be reached or verified, has no usable Python, or the agent cannot be run.
        Cancellation: a daemon that was started ends by itself, as nobody comes.
        """
        try:
            live = await self.link.get()
            name, data = await to_thread.run_sync(package)
            self._far = await prepare(live, self._ssh.python, self._ssh.cache, name, data)
            self.link.check = self._same_host
            self._place = await serve(live, self._far, self.token)
            self._stream = Resumable(connection, self._closing, self._ssh.keepalive)
            await self._attach(self._stream)
        except BaseException:
            await self.link.close()
            raise

    async def last_words(self) -> str:
        """What a daemon that has ended wrote to its log, if that can be had."""
        if self._ending is not None:
            await asyncio.wait([self._ending])
        words = b""
        with contextlib.suppress(AgentError, TimeoutError):
            async with asyncio.timeout(END_WAIT):
                words = await self.read(f"{self._place}/{self.token}.log", patience=0.0) if self._place else b""
        return words.decode(errors="replace").strip()

    def kill(self) -> None:
        """End the daemon by force, if it can be reached; without a link it ends after its patience."""
        if self._stream is not None and self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(self._stream))

    async def _end(self, stream: Resumable) -> None:
        if self._restoring is not None:
            self._restoring.cancel()
        stream.over = True
        with contextlib.suppress(AgentError, TimeoutError):
            async with asyncio.timeout(END_WAIT):
                live = await self.link.get()
                pid = shlex.quote(f"{self._place}/{self.token}.pid")
                await shell(live, KILL % (pid, self.token))
        stream.lose(None)

    def detach(self) -> None:
        """Leave the daemon alone; :meth:`close` does not touch it."""

    async def rescue(self, run: str, grace: float, leaders: Iterable[int]) -> None:
        """Stop all that a daemon which is gone left running there; without a link it does so itself.

        :raises AgentError: there is no link, or it cannot be done.
        """
        live = await self.link.get()
        command = self.far.command("rescue", run, str(grace), *map(str, leaders))
        mine = shlex.quote(f"{self._place}/{self.token}")
        script = f"{command} </dev/null && rm -f {mine}.sock {mine}.pid {mine}.log && printf '\\nASIM-LINK done\\n'"
        await shell(live, script, SLOW + grace)

    async def read(self, path: str, patience: float | None = None) -> bytes:
        """A file there, whole; b"" when there is none.

        :raises AgentError: there is no link, or it cannot be read.
        """
        code = "import base64,os,sys;p=sys.argv[1];d=open(p,'rb').read() if os.path.exists(p) else b'';"
        code += "print('\\nASIM-LINK file '+base64.b64encode(d).decode())"
        command = replace(self.far, agent="-c").command(code, path)
        wait = self._ssh.link_patience if patience is None else patience
        answer = await ask(lambda: self._connected(patience), command + " </dev/null", patience=wait)
        return base64.b64decode(answer[1])

    async def close(self) -> None:
        """Close forwards and the link. The daemon goes on, unless it was told to end."""
        if self._ending is not None:
            await asyncio.wait([self._ending])
        if self._restoring is not None:
            self._restoring.cancel()
        await self._forwards.close()
        await self.link.close()

    # -- files and ports

    async def put(self, files: Iterable[tuple[str, str]]) -> int:
        """Copy files there: (path here, absolute path there).

        Only what differs is sent, several at a time; each appears at once, whole. A transfer that a cut link interrupts
        goes on where it was.

        :returns: how many were sent.
        :raises AgentError: there is no link any more.
        :raises FileActionError: a file cannot be read here or written there.
        Cancellation: files that are done stay; partly sent ones are gone on with by the next ``put``.
        """
        async with self._copying:
            return await put_files(self._connected, self.far, list(files), self._ssh.link_patience)

    async def get(self, files: Iterable[tuple[str, str]], gone_ok: bool = False) -> int:
        """Copy files from there: (absolute path there, path here). As :meth:`put`.

        Of a file that grows meanwhile comes what it was at the beginning. What cannot be fetched is in no other's way.

        :param gone_ok: a file that is not there (any more) is no error.
        """
        async with self._copying:
            return await get_files(self._connected, self.far, list(files), self._ssh.link_patience, gone_ok)

    async def open_connection(self, host: str, port: int) -> tuple[Any, Any]:
        """(reader, writer) of a TCP connection from there to ``host``.

        :raises AgentError: it cannot be made.
        """
        try:
            return await (await self._connected()).open_connection(host, port, encoding=None)
        except CUT as exc:
            raise AgentError(f"no connection from {self.host} to {host}:{port}: {exc}") from exc

    async def forward(self, host: str, port: int) -> int:
        """A port of 127.0.0.1 here whose connections come out there and go to ``host``. Open until :meth:`close`."""
        return await self._forwards.open((host, port))

    async def forward_path(self, path: str) -> int:
        """A port of 127.0.0.1 here whose connections go to a Unix socket there."""
        return await self._forwards.open(path)

    # -- inside

    async def _connected(self, patience: float | None = None) -> asyncssh.SSHClientConnection:
        return await self.link.get(self._ssh.link_patience if patience is None else patience)

    async def _same_host(self, live: asyncssh.SSHClientConnection) -> None:
        """A name may stand for several machines, of which one has the agent, its files and its ports.

        :raises AgentError: this is another one.
        """
        self._right(" ".join((await shell(live, NAME))[1:]))

    def _right(self, host: str) -> None:
        if host != self.far.host:
            raise AgentError(f"the agent is on {self.far.host}, but {self.host} led to {host}")

    async def _attach(self, stream: Resumable) -> None:
        """A new channel to the daemon.

        :raises AgentError: no link.
        :raises _GoneError: there is no daemon any more.
        """
        live = await self.link.get()
        command = "exec " + self.far.command("attach", self._place, self.token, str(stream.received))

        async def make() -> tuple[Any, Any]:
            return await live.create_session(lambda: Session(stream, self._cut), command, encoding=None)

        try:
            async with asyncio.timeout(SLOW):
                channel, session = await opened(live, make)
                try:
                    kind, host, rest = await session.answer
                except BaseException:
                    channel.close()  # else every attempt leaves one, and a server has few
                    raise
        except TimeoutError:
            raise AgentError(f"{self.host} did not answer within {SLOW:g} s") from None
        except CUT as exc:
            raise AgentError(f"{self.host}: no channel to the agent: {exc}") from exc
        if kind == "up" and rest.isdigit():
            stream.attach(channel, int(rest))
            session.begin()
            if session.dead:
                stream.cut(channel)
                raise AgentError(f"{self.host}: the channel to the agent was closed")
            return
        channel.close()
        if kind != "gone":
            raise AgentError(f"{self.host} did not answer as expected: {kind} {host} {rest}"[:1000])
        self._right(host)
        raise _GoneError(f"the agent on {self.host} is gone: {rest}")

    def _cut(self, session: Session) -> None:
        """A channel has ended: find the daemon again, unless it has said its last word."""
        stream = self._stream
        if stream is None or not stream.cut(session.channel):
            return
        if stream.over:
            stream.lose(None)
        elif self._restoring is None or self._restoring.done():
            self._restoring = asyncio.get_running_loop().create_task(self._restore(stream))

    async def _restore(self, stream: Resumable) -> None:
        patience = self._ssh.link_patience
        until, delay = asyncio.get_running_loop().time() + patience, 0.05
        while True:
            left = until - asyncio.get_running_loop().time()
            try:
                await self.link.get(max(0.0, left))
                await self._attach(stream)
                return
            except _GoneError as exc:
                stream.lose(None if stream.over else exc)
                return
            except AgentError as exc:
                if asyncio.get_running_loop().time() + delay > until:
                    why = f"no link to {self.host} for {patience:g} s, so that its agent has given up: {exc}"
                    stream.lose(None if stream.over else AgentError(why))
                    return
            except Exception as exc:  # noqa: BLE001  (whatever it is, the owner must learn that nothing more comes)
                stream.lose(AgentError(f"the link to {self.host} cannot be made again: {exc!r}"))
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, 10.0)

    def _closing(self) -> None:
        """The connection was closed by its owner."""


class _GoneError(AgentError):
    """There is no daemon any more."""
