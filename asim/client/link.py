"""One connection of the blocking face."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import islice
from time import monotonic
from typing import Any

from .codec import Buffer, Command
from .options import UNIX, Options, host_and_port
from .replies import ReplyReader
from .servers import greetings, refused
from .steps import Lost

VECTOR = 64


class Link:
    """A connection that is made already; it is closed by every failure, so that nobody reads what is left of a reply.

    :param sock: connected.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = ReplyReader()
        self._expires = 0.0
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
        parts = [part for command in commands for part in command.parts]
        try:
            if len(parts) == 1:
                self._send(parts[0])
            else:
                self._send_all(parts)
        except BaseException as exc:  # noqa: BLE001  (also after Ctrl-C nobody may read what is left)
            raise self._lost(exc) from None

    def receive(self, count: int) -> list[Any]:
        """The next replies.

        :raises Lost: the connection broke, or they did not come in time.
        """
        replies: list[Any] = []
        try:
            while len(replies) < count:
                self._sock.settimeout(self._left())
                size = self._sock.recv_into(self._reader.get_buffer())
                if not size:
                    raise ConnectionResetError("the server closed the connection")
                replies += self._reader.feed(size)
        except BaseException as exc:  # noqa: BLE001  (also after Ctrl-C nobody may read what is left)
            raise self._lost(exc) from None
        return replies

    def _send(self, part: Buffer) -> None:
        self._sock.settimeout(self._left())
        self._sock.sendall(part)

    def _send_all(self, parts: Sequence[Buffer]) -> None:
        """Several parts in few system calls."""
        rest = [memoryview(part) for part in parts]
        while rest:
            self._sock.settimeout(self._left())
            taken = self._sock.sendmsg(list(islice(rest, VECTOR)))
            done = 0
            while done < len(rest) and taken >= len(rest[done]):
                taken -= len(rest[done])
                done += 1
            del rest[:done]
            if taken:
                rest[0] = rest[0][taken:]

    def _left(self) -> float:
        left = self._expires - monotonic()
        if left <= 0:
            raise TimeoutError("no reply in time")
        return left

    def _lost(self, exc: BaseException) -> BaseException:
        """Close, and say why; what is no error of the connection (Ctrl-C) goes on as it is."""
        self.close()
        if not isinstance(exc, Exception):
            return exc
        late = isinstance(exc, TimeoutError)
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
