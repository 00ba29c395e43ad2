"""Frames over one socket that never blocks. Part of the agent program: standard library only."""

import json
import os
import select
import struct

MAX_FRAME = 1 << 26


class ProtocolError(Exception):
    """The driver sent something that is not a frame of this protocol."""


def duration(seconds):
    if not 0 <= float(seconds) < float("inf"):
        raise ProtocolError("%r is no duration" % (seconds,))
    return float(seconds)


def pack(body):
    return struct.pack("!I", len(body)) + body


encode = json.JSONEncoder(separators=(",", ":")).encode


def dumps(value):
    return encode(value).encode("ascii")


class Records:
    """The file that tells how jobs started and ended. On a full disk lines are kept, and tried again."""

    def __init__(self, path):
        if b"\0" in path:
            raise ProtocolError("the name of the records file has a NUL in it")
        self.path, self.fd, self.unwritten = path, None, b""

    def add(self, line):
        self.unwritten += line + b"\n"

    def write(self):
        try:
            if self.unwritten and self.fd is None:
                self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            if self.unwritten:
                self.unwritten = self.unwritten[os.write(self.fd, self.unwritten) :]
        except OSError:
            pass


class Stream:
    def __init__(self, sock, poller):
        self.sock, self.poller, self.inbox, self.outbox = sock, poller, bytearray(), bytearray()
        self.fd = sock.fileno()
        sock.setblocking(False)
        poller.register(sock, select.POLLIN)

    def ready(self, fd):
        """Whether that descriptor's news is a message."""
        return fd == self.fd

    def receive(self):
        try:
            data = self.sock.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return data

    def frames(self):
        """The messages that have arrived. EOFError when the other end is gone; anything that is no frame is a ProtocolError."""
        self.inbox += self.receive()
        offset = 0
        while len(self.inbox) - offset >= 4:
            size = struct.unpack_from("!I", self.inbox, offset)[0]
            if size > MAX_FRAME:
                raise ProtocolError("a frame of %d bytes; at most %d are allowed" % (size, MAX_FRAME))
            if len(self.inbox) - offset - 4 < size:
                break
            frame = json.loads(self.inbox[offset + 4 : offset + 4 + size].decode("ascii"))
            offset += 4 + size
            if not isinstance(frame, list) or not frame:
                raise ProtocolError("a frame must be a JSON array that begins with a verb")
            yield frame
        del self.inbox[:offset]

    def tell(self, *message):
        self.add(dumps(message))

    def add(self, body):
        self.outbox += pack(body)

    def flush(self, last=False):
        """Send what fits without waiting; ``last``: wait until all of it is gone."""
        try:
            while self.outbox:
                self.sock.setblocking(last)
                del self.outbox[: self.sock.send(self.outbox)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.outbox.clear()
        self.poller.modify(self.sock, select.POLLIN | (select.POLLOUT if self.outbox else 0))

    def due(self):
        """Times at which something is to be done."""
        return []

    def late(self, _now):
        return False

    def finish(self):
        """Send the last of it."""
        self.flush(last=True)

    def close(self):
        self.poller.unregister(self.sock)
        self.sock.close()
