"""A worker's connection to its server: blocking, without copies of what is large, and few microseconds for what is small."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from .shared import server_of

FIRST = 1 << 16
"""Bytes asked for at once: a whole small task."""
SMALL = 1 << 14
"""Up to so many bytes are copied together, and sent by the cheaper call."""
PIECES = 512
"""Pieces in one ``sendmsg``; the kernel takes 1024 (IOV_MAX)."""
BUFFER = 4 << 20
"""Bytes of the socket's own buffers, as far as the system allows."""
EAGER = 250e-6
"""Seconds for which a worker looks for the next task before it sleeps, if the last one came as soon: to wake a process
on an idle core takes longer than a small run."""
TAKEN = 1e-3
"""Seconds after which it is clear that another process wanted this core while it was looking."""
PATIENT = (0.05, 4.0)
"""Seconds for which it then sleeps at once: the first time, doubled each time that it happens again within a second, up
to the other number."""


class Refused(Exception):
    """The server answered an error."""


class Gone(Exception):
    """The server closed the connection."""


class Connection:
    """One connection to a Unix domain socket. Any method may raise :class:`Refused`, :class:`Gone` and OSError.

    :param eager: look for the next reply a little before sleeping. Not for one of several threads: they would get
        into each other's way.
    """

    def __init__(self, path: str, *, eager: bool = False) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self._socket.connect(path)
        self.server = server_of(self._socket)
        """The server's process, if this one can see its memory; else 0."""
        self._first = bytearray(FIRST)
        self._view = memoryview(self._first)
        self._rest = b""  # received, and not read yet
        self._kept: Any = None
        self._eager, self._soon = eager, False
        self._patience = self._patient_until = 0.0

    def command(self, *words: bytes) -> Any:
        """Send a command and wait for its reply: bytes, None, a number, the text of a status, or a list of those."""
        self.send(words)
        return self._reply()

    def send(self, words: Sequence[Any], then: bytes = b"") -> None:
        """Send a command; its words are anything contiguous that has bytes in it.

        :param then: bytes to be sent behind it.
        """
        self.send_all((words,), then)

    def send_all(self, commands: Sequence[Sequence[Any]], then: bytes = b"") -> None:
        """Send several commands in one message; like :meth:`send`."""
        parts: list[Any] = []
        whole = 0
        for words in commands:
            parts.append(b"*%d\r\n" % len(words))
            for word in words:
                size = len(word) if type(word) is bytes else word.nbytes
                whole += size
                if size <= SMALL:
                    parts.append(b"$%d\r\n%b\r\n" % (size, word))
                else:
                    parts += (b"$%d\r\n" % size, word, b"\r\n")
        parts.append(then)
        if whole <= SMALL:
            self._socket.sendall(b"".join(parts))
        else:
            self._send_parts([view for part in parts if (view := memoryview(part)).nbytes])

    def _send_parts(self, views: list[memoryview]) -> None:
        parts, first = [view.cast("B") for view in views], 0
        while first < len(parts):
            sent = self._socket.sendmsg(parts[first : first + PIECES])
            while first < len(parts) and sent >= len(parts[first]):
                sent -= len(parts[first])
                first += 1
            if sent:
                parts[first] = parts[first][sent:]

    def bulk(self) -> bytearray | memoryview:
        """Wait for a reply that is one string.

        Its data is aligned, may be written to, and stays as long as anybody holds it.
        """
        count, first = self._receive(), self._first
        end = first.find(b"\r\n", 0, 32)
        if first[0] != 36 or end < 0:  # no "$"
            self._rest = bytes(self._view[:count])
            return memoryview(bytearray(self._reply()))
        size = int(first[1:end])
        if count == end + size + 4:
            return first[end + 2 : count - 2]
        self._rest = bytes(self._view[end + 2 : count])
        return self._large(size, self._room(size + 2))

    def _receive(self) -> int:
        begin = now = perf_counter()
        while self._soon and now < begin + EAGER:
            try:
                return self._some(self._socket.recv_into(self._view, 0, socket.MSG_DONTWAIT))
            except BlockingIOError:
                os.sched_yield()
            last, now = now, perf_counter()
            if now > last + TAKEN:
                self._give_way(now)
                break
        count = self._socket.recv_into(self._view)
        now = perf_counter()
        self._soon = self._eager and now < begin + EAGER and now > self._patient_until
        return self._some(count)

    def _give_way(self, now: float) -> None:
        first, longest = PATIENT
        again = now < self._patient_until + 1.0
        self._patience = min(2 * self._patience, longest) if again else first
        self._patient_until = now + self._patience

    @staticmethod
    def _some(count: int) -> int:
        if not count:
            raise Gone
        return count

    def _large(self, size: int, room: Any) -> memoryview:
        view, have = memoryview(room)[: size + 2], self._rest[: size + 2]
        view[: len(have)] = have
        self._rest, at = self._rest[size + 2 :], len(have)
        while at < len(view):
            at += self._some(self._socket.recv_into(view[at:], 0, socket.MSG_WAITALL))
        return view[:size]

    def _room(self, size: int) -> Any:
        """Memory for a large task: that of the last one if nobody holds it any more, as new memory is slow."""
        kept = 0 if self._kept is None else len(self._kept)
        if not size <= kept <= 4 * size or sys.getrefcount(self._kept) > 2:
            self._kept = None  # let go of it before there is another
            self._kept = _fresh(size)
        return self._kept

    # -- any reply

    def _reply(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise Refused(rest.decode("utf-8", "replace"))
        if kind == b"$":
            return None if rest == b"-1" else self._string(int(rest))
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest.decode("utf-8", "replace")

    def _line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            self._more()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _string(self, size: int) -> bytes | memoryview:
        if size > SMALL:
            return self._large(size, _fresh(size + 2))
        while len(self._rest) < size + 2:
            self._more()
        found, self._rest = self._rest[:size], self._rest[size + 2 :]
        return found

    def _more(self) -> None:
        self._rest += bytes(self._view[: self._some(self._socket.recv_into(self._view))])

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


def _fresh(size: int) -> Any:
    import numpy as np

    return np.empty(size, np.uint8)  # not zeroed, unlike a bytearray
