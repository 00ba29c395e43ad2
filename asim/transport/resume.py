"""A stream that outlives its channel: what one end has not acknowledged is sent again over the next one.

The other half is :mod:`asim.agent.link`. Both ends count bytes; a new channel begins with what each has of the other's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from ..agent.protocol import frame
from ..errors import AgentError

ACK = 1 << 16
"""Bytes received that are acknowledged without anything else to say."""


class Channel(Protocol):
    """What carries the bytes for a while."""

    def write(self, data: bytes) -> None:
        """Send."""

    def close(self) -> None:
        """End it."""


class Resumable(asyncio.WriteTransport):
    """The transport of an :class:`~asim.transport.connection.AgentConnection` whose channels may be cut.

    Messages are written whole, so an acknowledgement may stand between any two writes.

    :param protocol: the connection.
    :param on_close: called when the connection has been closed, after the last message was handed over.
    :param keepalive: seconds between two signs of life to the agent, which then knows that somebody is there; 0: none.
    :ivar over: the agent has said its last word.
    :ivar closing: nothing more is written.
    :ivar attached: since when there is a channel, in monotonic time; None: there is none.
    """

    def __init__(self, protocol: asyncio.Protocol, on_close: Callable[[], None], keepalive: float = 0.0) -> None:
        super().__init__()
        self._keepalive = keepalive
        self._sign: asyncio.TimerHandle | None = None
        self._protocol, self._on_close = protocol, on_close
        self._channel: Channel | None = None
        self.attached: float | None = None
        self._kept, self._base = bytearray(), 0  # not acknowledged, and where in our stream that begins
        self.received = self._told = 0
        self._paused = self.over = self.closing = self._lost = False
        protocol.connection_made(self)

    # -- the connection's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closing:
            self._write(data)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self.received > self._told:
            self._told = self.received
            data = frame("ack", self.received) + data
        self._kept += data
        self._send(data)

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        """What a channel that is ending does not take is sent over the next one."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.write(bytes(data))

    def _live(self) -> None:
        """Say that somebody is here."""
        self._told = self.received
        self._write(frame("ack", self.received))
        self._go_on()

    def _go_on(self) -> None:
        """The next sign of life is due later, while there is a channel."""
        if self._sign is not None:
            self._sign.cancel()
            self._sign = None
        if self._keepalive and self._channel is not None and not self.closing:
            self._sign = asyncio.get_running_loop().call_later(self._keepalive, self._live)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        """Say that nothing more comes. The agent then ends the stream, or has no driver."""
        if not self.closing:
            self._write(frame("eof"))
            self.closing = True
            self._go_on()
            self._on_close()

    def acknowledged(self, count: int) -> None:
        """The agent has that many bytes. A message that says less than is known was sent again after a cut.

        :raises AgentError: it cannot have.
        """
        done = count - self._base
        if done > len(self._kept):
            raise AgentError(f"the agent has {count} bytes of {self._base + len(self._kept)}")
        if done > 0:
            del self._kept[:done]
            self._base = count

    def ended(self) -> None:
        """The agent's stream is complete: it waits for nothing but to know that."""
        self.over = True
        self._write(b"")

    # -- the channel's side

    def attach(self, channel: Channel, count: int) -> None:
        """Go on over a new channel, whose agent has ``count`` bytes and knows what we have."""
        if count < self._base:
            raise AgentError(f"the agent has forgotten what it had: {count} bytes of {self._base}")
        self.acknowledged(count)
        self._channel, self._told = channel, self.received
        self.attached = time.monotonic()
        if self._kept:
            self._send(self._kept)
        self.pause(False)
        self._go_on()

    def cut(self, channel: Channel) -> bool:
        """That channel carries nothing more. False when it was not the one in use."""
        if self._channel is not channel:
            return False
        self._channel = self.attached = None
        self._go_on()
        self.pause(True)
        return True

    def data_received(self, channel: Channel, data: bytes) -> None:
        """Bytes that arrived; those of an old channel will come again."""
        if self._channel is channel and not self._lost:
            self.received += len(data)
            self._protocol.data_received(data)
            if self.received - self._told >= ACK:
                self._write(b"")

    def pause(self, paused: bool, channel: Channel | None = None) -> None:
        """Whether the connection is to wait with what it wants to write; an old channel has no say."""
        if channel is not None and channel is not self._channel:
            return
        if paused != self._paused and not self._lost:
            self._paused = paused
            if paused:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def lose(self, error: Exception | None) -> None:
        """Tell the connection, once, that the stream has ended."""
        self.closing = True
        self._go_on()
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)
