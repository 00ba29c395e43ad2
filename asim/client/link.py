"""One connection of the blocking face."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct
from time import monotonic
from typing import Any

from .codec import Buffer, Command
from .options import UNIX, Options, host_and_port
from .replies import ReplyReader
from .servers import greetings, refused
from .steps import Lost

VECTOR = 64
TIMEVAL = Struct("ll")
"""Seconds and microseconds, as the kernel wants them."""


class Link:
    """A connection that is made already; it is closed by every failure, so that nobody reads what is left of a reply.

    :param sock: connected.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._reader = ReplyReader()
        self._expires = 0.0
        self._limit = 0.0
        self.closed = False

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self._sock.close()

    def send(self, commands: Sequence[Command], patience: float) -> None:
        """Send commands, whose replies may take ``patience`` seconds, counted from now.

        :raises Lost: the connection broke.
        """
        self._expires = monotonic() + patience
        try:
            self._send([part for command in commands for part in command.parts])
        except BaseException as exc:  # noqa: BLE001  (also after Ctrl-C nobody may read what is left)
            raise self._lost(exc) from None

    def receive(self, count: int) -> list[Any]:
        """The next replies.

        :raises Lost: the connection broke, or they did not come in time.
        """
        replies: list[Any] = []
        try:
            while len(replies) < count:
                self._set_limit()
                size = self._sock.recv_into(self._reader.get_buffer())
                if not size:
                    raise ConnectionResetError("the server closed the connection")
                replies += self._reader.feed(size)
        except BaseException as exc:  # noqa: BLE001  (also after Ctrl-C nobody may read what is left)
            raise self._lost(exc) from None
        return replies

    def fileno(self) -> int:
        """The socket's number, for waiting until there is something to :meth:`hear`."""
        return self._sock.fileno()

    def hear(self) -> list[Any]:
        """What the server said without being asked; none when that is not all of it, or nothing.

        :raises Lost: the connection broke.
        """
        try:
            size = self._sock.recv_into(self._reader.get_buffer(), 0, socket.MSG_DONTWAIT)
            if not size:
                raise ConnectionResetError("the server closed the connection")
            return self._reader.feed(size)
        except (BlockingIOError, InterruptedError):
            return []
        except BaseException as exc:  # noqa: BLE001  (also after Ctrl-C nobody may read what is left)
            raise self._lost(exc) from None

    def _send(self, parts: list[Buffer]) -> None:
        """Several parts in few system calls."""
        while parts:
            self._set_limit()
            taken = self._sock.send(parts[0]) if len(parts) == 1 else self._sock.sendmsg(parts[:VECTOR])
            done = 0
            while done < len(parts) and taken >= len(parts[done]):
                taken -= len(parts[done])
                done += 1
            del parts[:done]
            if taken:
                parts[0] = memoryview(parts[0])[taken:]

    def _set_limit(self) -> None:
        """Have the next call of the socket end with BlockingIOError in time, or a little later.

        The kernel counts, not Python, whose timeouts cost two more system calls each; and the kernel is told again only
        when what it knows is wrong by more than a tenth.

        :raises TimeoutError: the time is over.
        """
        left = self._expires - monotonic()
        if left <= 0:
            raise TimeoutError
        if not left <= self._limit <= left * 1.1:
            self._limit = left * 1.05
            limit = TIMEVAL.pack(*divmod(int(self._limit * 1e6) + 1, 1_000_000))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _lost(self, exc: BaseException) -> BaseException:
        """Close, and say why; what is no error of the connection (Ctrl-C) goes on as it is."""
        self.close()
        if not isinstance(exc, Exception):
            return exc
        late = isinstance(exc, (TimeoutError, BlockingIOError))
        return Lost("no reply in time" if late else str(exc) or repr(exc), sent=True, late=late)


def connect(address: str, options: Options) -> Link:
    """A new connection.

    :raises Lost: it could not be made.
    """
    try:
        link = Link(_socket(address, options.connect_timeout))
    except OSError as exc:
        raise Lost(f"cannot connect: {exc}", sent=False) from exc
    greeting = greetings(options)
    if greeting:
        link.send(greeting, options.timeout)
        try:
            refused(link.receive(len(greeting)))
        except Lost:
            link.close()
            raise
    return link


def _socket(address: str, timeout: float) -> socket.socket:
    """A connected socket."""
    if not address.startswith(UNIX):
        sock = socket.create_connection(host_and_port(address), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address.removeprefix(UNIX))
    except BaseException:
        sock.close()
        raise
    return sock
