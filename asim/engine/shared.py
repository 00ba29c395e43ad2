"""Memory that the server and a worker both see: large inputs come in it. (The kernel's /proc is how a worker gets at it.)"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys

from .protocol import Task


def server_of(connection: socket.socket) -> int:
    """The process at the other end of a Unix domain socket, whose memory can be seen; 0: it cannot."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    (pid,) = struct.unpack_from("i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        os.stat(f"/proc/{pid}/fd/0")
    except OSError:
        return 0
    return int(pid)


class Shared:
    """What is mapped of one server's memory.

    :param pid: of the server.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._generation = pid, 0
        self._map: mmap.mmap | None = None
        self._view = memoryview(b"")

    def data(self, where: Task) -> memoryview:
        """The message that is there.

        :param where: the task that says so.
        """
        if self._map is None or where.expected != self._generation:
            self._map = None  # unmapped, if nobody uses it
            self._map, self._generation = self._open(where.number), where.expected
        self._view = memoryview(self._map)[: where.object]
        return self._view

    def _open(self, number: int) -> mmap.mmap:
        fd = os.open(f"/proc/{self._pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(fd, 0)
        finally:
            os.close(fd)

    def copy(self, number: int, size: int) -> memoryview:
        """What the server has put into a file for this worker alone: it stays as long as anybody uses it."""
        return memoryview(self._open(number))[:size]

    def kept(self) -> bool:
        """Whether somebody still uses the message: then the server must not write there any more."""
        try:
            self._view.release()
            used = sys.getrefcount(self._map) > 2  # numpy's arrays refer to the map, and export nothing of it
        except BufferError:
            used = True
        if used:
            self._map = None
        return used
