"""One channel to an agent's daemon: noise, one line that says how things stand, and then the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncssh

from ..errors import AgentError
from .farshell import MARK, NOISE
from .resume import Resumable


class Session(asyncssh.SSHClientSession[bytes]):
    """Finds the line, and hands what follows to a stream.

    :param stream: what is carried.
    :param on_cut: called when the channel has ended.
    :ivar answer: the words of the line: "up" or "gone", the host's own name, and the rest.
    :ivar dead: the channel has ended.
    """

    def __init__(self, stream: Resumable, on_cut: Callable[[Session], None]) -> None:
        self._stream, self._on_cut = stream, on_cut
        self._head: bytearray | None = bytearray()
        self._errors, self.dead = bytearray(), False
        self.channel: Any = None
        self.answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def connection_made(self, chan: Any) -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: Any) -> None:
        if datatype:
            self._errors += data[: 4096 - len(self._errors)]
        elif self._head is None:
            self._stream.data_received(self.channel, data)
        else:
            self._head += data
            self._look()

    def _look(self) -> None:
        """Look for the line; what follows it waits for :meth:`begin`."""
        head = self._head
        if head is None or self.answer.done():
            return
        start = head.find(MARK)
        end = head.find(b"\n", start + len(MARK)) if start >= 0 else -1
        if end >= 0:
            line = bytes(head[start + len(MARK) : end]).decode(errors="surrogateescape")
            del head[: end + 1]
            self.answer.set_result([*line.split(" ", 2), "", ""][:3])
        elif len(head) > NOISE:
            self.answer.set_exception(AgentError(f"more than {NOISE} bytes came before the agent's answer"))

    def begin(self) -> None:
        """Hand over what has come since the line."""
        head, self._head = self._head, None
        if head:
            self._stream.data_received(self.channel, bytes(head))

    def pause_writing(self) -> None:
        self._stream.pause(True, self.channel)

    def resume_writing(self) -> None:
        self._stream.pause(False, self.channel)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            said = bytes(self._errors or self._head or b"")[-1000:].decode(errors="replace").strip()
            self.answer.set_exception(AgentError(f"the channel to the agent was closed: {exc or said}"))
            self.answer.exception()
        self.dead = True
        self._on_cut(self)
