"""One SSH connection that is made again when it was cut, with host keys verified as OpenSSH users expect."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
from anyio import to_thread

from ..errors import AgentError
from .options import SSHOptions

T = TypeVar("T")
Connected = Callable[[], Awaitable[asyncssh.SSHClientConnection]]
"""Gives a connection that lives."""
CUT = (asyncssh.Error, OSError, EOFError)
"""What an operation raises when the link is cut under it (and what the far side's refusals are, too)."""
FIRST_DELAY, MOST_DELAY = 0.1, 10.0
"""Seconds between attempts to connect: each twice the one before."""
BUSY, RETRY, MOST_RETRY = 10.0, 0.05, 1.0
"""Seconds for which a server may refuse another channel (``MaxSessions``), and between attempts: each twice the one before."""
FAREWELL, NOTICED = 2.0, 0.1
"""Seconds for an orderly end, and in which a broken connection is known to be closed."""
USERS, SYSTEMS = [[f"{place}known_hosts{number}" for number in ("", "2")] for place in ("~/.ssh/", "/etc/ssh/ssh_")]
"""Files with host keys where no config file says others."""
UNANSWERED = 3
"""Questions for a sign of life without an answer, after which a link counts as cut."""


def target(host: str) -> tuple[str | None, str, int | None]:
    """``user@host:port`` in its parts; an IPv6 address with a port stands in brackets."""
    user, _, rest = host.rpartition("@")
    name, _, port = rest.rpartition(":")
    if rest.startswith("[") or (name and ":" not in name and port.isdigit()):
        bracketed = rest.endswith("]")
        name, number = (rest, None) if bracketed else (name, int(port))
        return user or None, name.strip("[]"), number
    return user or None, rest, None


async def was_cut(connection: asyncssh.SSHClientConnection) -> bool:
    """Whether an operation failed because its connection has ended, which may be known only a moment later."""
    try:
        async with asyncio.timeout(NOTICED):
            await connection.wait_closed()
    except TimeoutError:
        return False
    return True


async def opened(connection: asyncssh.SSHClientConnection, make: Callable[[], Awaitable[T]]) -> T:
    """What ``make`` makes with a new channel, tried again while the server has none to spare."""
    until, delay = asyncio.get_running_loop().time() + BUSY, RETRY
    while True:
        try:
            return await make()
        except asyncssh.ChannelOpenError:
            if await was_cut(connection) or asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, MOST_RETRY)


class _Client(asyncssh.SSHClient):
    """Remembers the key of a host that is not known, and what a server says before it lets anybody in."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None
        self._said = ""

    @property
    def words(self) -> str:
        """That, to be added to an error."""
        said = "".join(letter for letter in self._said if letter.isprintable() or letter == "\n").strip()
        return f". It says: {said}" if said else ""

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self._said = (self._said + msg)[:4000]

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


class Link:
    """The connection to one host.

    :param host: ``user@host``.
    :param options: how to reach it.
    :param on_state: called with the reason when the link is cut, and with None when there is a new one.
    :ivar check: raises AgentError if a new connection led to another machine; nobody is given such a one.
    """

    def __init__(self, host: str, options: SSHOptions, on_state: Callable[[str | None], None] | None = None) -> None:
        self.host, self.options = host, options
        self._on_state = on_state or (lambda _: None)
        self.check: Callable[[asyncssh.SSHClientConnection], Awaitable[None]] | None = None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._jumps: list[asyncssh.SSHClientConnection] = []
        self._lock = asyncio.Lock()
        self._address: tuple[str, int] | None = None  # where we were: another machine may have the same name
        self._was_up = self._closed = False

    @property
    def up(self) -> asyncssh.SSHClientConnection | None:
        """The connection, if it is not known to be cut."""
        live = self._connection
        return None if live is None or live.is_closed() else live

    async def get(self, patience: float = 0.0) -> asyncssh.SSHClientConnection:
        """A connection that lives: the one there is, or a new one, tried for so many seconds.

        :raises AgentError: the host cannot be reached.
        Cancellation: a connection that is being made is given up.
        """
        async with self._lock:
            if live := self.up:
                return live
            if self._was_up:
                self._was_up = False
                self._on_state(f"the link to {self.host} is cut")
            until, delay = asyncio.get_running_loop().time() + patience, FIRST_DELAY
            while True:
                try:
                    self._wanted()
                    live = await self._connect()
                except AgentError:
                    if self._closed or asyncio.get_running_loop().time() + delay > until:
                        raise
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, MOST_DELAY)
                else:
                    self._connection, self._was_up = live, True
                    self._wanted()
                    self._on_state(None)
                    return live

    def _wanted(self) -> None:
        if self._closed:
            self.cut()
            raise AgentError(f"the link to {self.host} was closed")

    async def close(self) -> None:
        """Close it for good. Cancellation: it is closed without a farewell."""
        self._closed = True
        for connection in [self._connection, *reversed(self._jumps)]:
            if connection is not None:
                connection.close()
                try:
                    async with asyncio.timeout(FAREWELL):
                        await connection.wait_closed()
                except TimeoutError:
                    connection.abort()

    def cut(self) -> None:
        """Drop the connection, as a broken network would."""
        if self._connection is not None:
            self._connection.abort()

    # -- inside

    async def _connect(self) -> asyncssh.SSHClientConnection:
        for connection in reversed(self._jumps):
            connection.abort()
        self._jumps.clear()
        tunnel: Any = ()
        for jump in self.options.jumps or await self._config_jumps():
            tunnel = await self._hop(jump, tunnel, last=False)
            self._jumps.append(tunnel)
        return await self._hop(self.host, tunnel, last=True)

    async def _config_jumps(self) -> list[str]:
        """Hosts on the way that a config file names; each is verified, and its refusal explained, like the last."""
        try:
            options, _ = await to_thread.run_sync(self._prepare, self.host, None, True, abandon_on_cancel=True)
        except (asyncssh.Error, OSError, ValueError) as exc:
            raise AgentError(f"{self.host} cannot be connected to: {exc}") from exc
        jumps = options.tunnel if isinstance(options.tunnel, str) and options.tunnel.lower() != "none" else ""
        return [jump for jump in jumps.split(",") if jump]

    async def _hop(self, host: str, tunnel: Any, *, last: bool) -> asyncssh.SSHClientConnection:
        """One connection, through ``tunnel`` if there is one."""
        client = _Client()
        known = None
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                options, known = await to_thread.run_sync(self._prepare, host, tunnel, last, abandon_on_cancel=True)
                sock = await self._same_address(options) if last else None
                connection = await asyncssh.connect(
                    target(host)[1],
                    options=options,
                    config=() if (paths := _paths(self.options.config)) is None else paths,
                    known_hosts=known,
                    client_factory=lambda: client,
                    sock=sock,
                )
        except TimeoutError:
            raise AgentError(f"{host} did not answer within {self.options.connect_timeout:g} s") from None
        except asyncssh.HostKeyNotVerifiable as exc:
            raise AgentError(_unknown(host, self.options, client.offered, options, known, exc)) from exc
        except asyncssh.PermissionDenied as exc:
            raise AgentError(f"{host} does not let {options.username} in: {exc.reason}{client.words}") from exc
        except (asyncssh.ConfigParseError, asyncssh.KeyImportError, ValueError) as exc:
            raise AgentError(f"{host} cannot be connected to: {exc}") from exc
        except CUT as exc:
            raise AgentError(f"{host} cannot be reached: {exc or type(exc).__name__}{client.words}") from exc
        try:
            if last and self.check:
                await self.check(connection)
        except BaseException:
            connection.abort()
            raise
        if last and not (options.tunnel or options.proxy_command):
            self._address = connection.get_extra_info("peername")[:2]
        return connection

    def _prepare(self, host: str, tunnel: Any, last: bool) -> tuple[Any, asyncssh.SSHKnownHosts]:
        """Options from all that was given and from config files, and the known hosts: files are read here."""
        user, name, port = target(host)
        own = self.options
        given = {
            "username": user or (own.username if last else None),
            "port": port or (own.port if last else None),
            "config": () if own.config is None else _paths(own.config) or None,  # (): what OpenSSH reads; None: nothing
            "client_keys": _paths(own.identity_files),
            "tunnel": tunnel or None,
            "agent_forwarding": own.agent_forwarding or None,
        }
        options = asyncssh.SSHClientConnectionOptions(
            host=name,
            connect_timeout=own.connect_timeout,
            keepalive_interval=own.keepalive,
            keepalive_count_max=UNANSWERED,
            **{key: value for key, value in given.items() if value is not None},
        )
        return options, asyncssh.import_known_hosts(_read(_known_files(own, options)))

    async def _same_address(self, options: Any) -> socket.socket | None:
        """A socket to the machine where we were, if there is a direct way to it; None: by name."""
        if self._address is None or options.tunnel or options.proxy_command:
            return None
        sock = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except OSError:
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise
        return sock


def _paths(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else [str(Path(name).expanduser()) for name in names]


def _known_files(own: SSHOptions, options: Any) -> Sequence[str]:
    """Where host keys are known from: a config file may name the user's files, the system's, both, or neither."""
    get = options.config.get
    return own.known_hosts or [*get("UserKnownHostsFile", USERS), *get("GlobalKnownHostsFile", SYSTEMS)]


def _read(paths: Sequence[str]) -> str:
    """All of these files that are there."""
    text = ""
    for path in paths:
        try:
            text += Path(path).expanduser().read_text(errors="surrogateescape") + "\n"
        except OSError:
            continue
    return text


def _unknown(host: str, own: SSHOptions, key: asyncssh.SSHKey | None, options: Any, known: Any, exc: Exception) -> str:
    """Why a host's key is refused, and what to do about it."""
    if key is None or known is None:
        return f"{host} is refused: {exc}"
    name, port = options.host_key_alias or options.host, options.port
    label = name if port == 22 else f"[{name}]:{port}"
    line = f"{label} {key.export_public_key().decode().strip()}"
    print_ = f"{key.get_algorithm()} {key.get_fingerprint()}"
    if others := known.match(name, "", port if port != 22 else None)[0]:
        had = ", ".join(other.get_fingerprint() for other in others)
        return (
            f"{host} is refused: its host key has changed. It shows {print_}; known is {had}. Somebody may be in "
            f"between. If the new key is right, remove the old one first: ssh-keygen -R '{label}'"
        )
    files = _known_files(own, options)
    return (
        f"{host} is refused: its host key is not known. It shows {print_}. If that is its key, add this line to "
        f"{files[0] if files else 'a file, and name that by ssh.known_hosts'}:\n{line}"
    )
