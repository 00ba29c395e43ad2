"""A few commands to a server, blocking, with nothing but a socket: what a node needs before anybody else can connect.

(``asim.SyncClient`` could do it, but importing numpy and hiredis takes longer than a server needs to start.)
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TypeAlias

Reply: TypeAlias = "str | int | bytes | list[Reply] | None"
Address: TypeAlias = "tuple[str, int] | str"
"""``(ip, port)`` or the path of a Unix domain socket."""


class Refused(Exception):
    """The server answered an error."""


class Talk:
    """One connection. Any method may raise OSError, and :class:`TimeoutError` after ``timeout`` seconds; None: there is none."""

    def __init__(self, address: Address, timeout: float | None) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self._socket = socket.socket(family, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def __call__(self, *words: str) -> Reply:
        """One command.

        :raises Refused: the server's error.
        """
        self.begin(words)
        return self.answer()

    def begin(self, words: Sequence[str], more: int = 0) -> None:
        """Send the first words of a command, of which ``more`` are still to come by :meth:`send`."""
        items = [word.encode("utf-8", "surrogateescape") for word in words]
        parts = [b"*%d\r\n" % (len(items) + more), *(b"$%d\r\n%s\r\n" % (len(item), item) for item in items)]
        self.send(b"".join(parts))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def answer(self) -> Reply:
        """The answer to a command.

        :raises Refused: the server's error.
        """
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2].decode("utf-8", "replace")
        if kind == b"-":
            raise Refused(rest)
        if kind == b"$":
            return None if rest == "-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
        self._socket.close()
