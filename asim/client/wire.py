"""One connection of the async face: many tasks' commands go out in turn, replies come back in the same order.

It works on the socket itself, not through an asyncio transport: a transport copies what it cannot send at once, and
after a cancellation nobody could say which bytes of an array are still to be read. Here large payloads go from the
array to the kernel, and from the kernel into the array, without a copy in between.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from .codec import Buffer, Command
from .replies import ReplyReader
from .steps import Lost, Outcome

BURST = 1 << 22
"""How many bytes, about, are moved in one go before other work of the event loop gets its turn."""
VECTOR = 64


class Request:
    """Commands that were given to a wire, and the replies that have come so far.

    :ivar future: gets the outcome: the list of all replies, or :class:`Lost`.
    :ivar begun: whether the kernel has a part of it.
    """

    __slots__ = ("begun", "expires", "future", "missing", "replies")

    def __init__(self, future: asyncio.Future[Outcome], missing: int, expires: float) -> None:
        self.future = future
        self.missing = missing
        self.expires = expires
        self.begun = False
        self.replies: list[Any] = []


class Wire:
    """A connection that is made already.

    :param sock: connected, and not blocking.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._loop = loop
        self._reader = ReplyReader()
        self._waiting: deque[Request] = deque()
        self._outgoing: deque[tuple[Buffer, Request]] = deque()
        self._flush: asyncio.Handle | None = None
        self._blocked = False
        self._watch: asyncio.TimerHandle | None = None
        self.lost: Lost | None = None
        loop.add_reader(sock, self._readable)

    def discard(self) -> None:
        """Close the socket, and nothing else: the event loop is closed, and nobody waits."""
        self.lost = Lost("its event loop is closed", sent=False)
        self._sock.close()

    @property
    def load(self) -> int:
        """How many requests are under way."""
        return len(self._waiting)

    def request(self, commands: Sequence[Command], patience: float) -> Request:
        """Send commands; nothing of another request comes between them.

        :param patience: seconds that the replies may take; then the connection is given up, because the replies that
            may still come belong to nobody.
        """
        expires = self._loop.time() + patience
        request = Request(self._loop.create_future(), len(commands), expires)
        if self.lost is not None:
            request.future.set_result(Lost(str(self.lost), sent=False))
            return request
        idle = not self._waiting
        self._waiting.append(request)
        for command in commands:
            for part in command.parts:
                self._outgoing.append((part, request))
        if idle:
            self._send()
        elif self._flush is None and not self._blocked:
            # Others are waiting for replies, so this one is in no hurry: what comes in the meantime goes along with it.
            self._flush = self._loop.call_soon(self._send)
        if self._watch is None:
            self._watch = self._loop.call_at(expires, self._expire)
        return request

    def abandon(self, request: Request) -> None:
        """Nobody waits for a request any more; its replies will be dropped.

        The caller may change its arrays from now on. So what is not sent is taken back, or, if the server has a part of
        it already, the rest is copied.
        """
        if not request.missing or self.lost is not None:
            return
        if not request.begun:
            self._outgoing = deque(entry for entry in self._outgoing if entry[1] is not request)
            self._waiting.remove(request)
            return
        for index, (part, owner) in enumerate(self._outgoing):
            if owner is request:
                self._outgoing[index] = (bytes(part), request)

    def close(self, lost: Lost | None = None) -> None:
        """End the connection; requests under way are lost."""
        if self.lost is not None:
            return
        self.lost = lost or Lost("the client was closed", sent=True)
        self._loop.remove_reader(self._sock)
        if self._blocked:
            self._loop.remove_writer(self._sock)
        for handle in (self._flush, self._watch):
            if handle is not None:
                handle.cancel()
        self._sock.close()
        for request in self._waiting:
            if not request.future.done():
                request.future.set_result(self.lost)
        self._waiting.clear()
        self._outgoing.clear()

    # -- called by the event loop

    def _send(self) -> None:
        """Send as much as the kernel takes, and arrange for the rest."""
        self._flush = None
        budget = BURST
        try:
            while self._outgoing and budget > 0:
                budget -= self._send_some()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            self.close(Lost(str(exc), sent=True))
            return
        if bool(self._outgoing) != self._blocked:
            self._blocked = not self._blocked
            if self._blocked:
                self._loop.add_writer(self._sock, self._send)
            else:
                self._loop.remove_writer(self._sock)

    def _send_some(self) -> int:
        """One system call; returns how many bytes it took."""
        if len(self._outgoing) == 1:
            taken = self._sock.send(self._outgoing[0][0])
        else:
            taken = self._sock.sendmsg([part for part, _ in islice(self._outgoing, VECTOR)])
        rest = taken
        while rest > 0:
            part, request = self._outgoing.popleft()
            request.begun = True
            if len(part) > rest:
                self._outgoing.appendleft((memoryview(part)[rest:], request))
            rest -= len(part)
        return taken

    def _readable(self) -> None:
        """Receive what is there, and give each request its replies."""
        budget = BURST
        try:
            while budget > 0:
                size = self._sock.recv_into(self._reader.get_buffer())
                if not size:
                    raise ConnectionResetError("the server closed the connection")
                for reply in self._reader.feed(size):
                    self._take(reply)
                if not self._reader.landing:
                    break
                budget -= size
        except (BlockingIOError, InterruptedError):
            pass
        except Exception as exc:  # noqa: BLE001  (whatever it is, nothing more can be read from this connection)
            self.close(Lost(str(exc) or repr(exc), sent=True))

    def _take(self, reply: object) -> None:
        """A reply belongs to the request that has waited for the longest time."""
        request = self._waiting[0]
        request.replies.append(reply)
        request.missing -= 1
        if not request.missing:
            self._waiting.popleft()
            if not request.future.done():
                request.future.set_result(request.replies)

    def _expire(self) -> None:
        """Give the connection up if the oldest request has waited for too long."""
        self._watch = None
        if not self._waiting:
            return
        now = self._loop.time()
        if self._waiting[0].expires > now:
            self._watch = self._loop.call_at(self._waiting[0].expires, self._expire)
            return
        for request in self._waiting:
            if request.expires <= now and not request.future.done():
                request.future.set_result(Lost("no reply in time", sent=True, late=True))
        self.close(Lost("given up, because a reply that came before took too long", sent=True))
