"""The driver's half of a stream that outlives its channels."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asim.agent.protocol import FrameDecoder, frame
from asim.errors import AgentError
from asim.transport.resume import ACK, Resumable


class Owner(asyncio.Protocol):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""

    def data_received(self, data: bytes) -> None:
        """More."""
        self.told.append(data)

    def pause_writing(self) -> None:
        """Wait."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Go on."""
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self.told.append(("lost", exc))


class Channel:
    """Remembers what was written; a broken one takes nothing."""

    def __init__(self, broken: bool = False) -> None:
        self.written, self.broken = b"", broken

    def write(self, data: bytes) -> None:
        """Take it."""
        if self.broken:
            raise BrokenPipeError
        self.written += data

    def close(self) -> None:
        """End."""


@pytest.fixture
def owner() -> Owner:
    """Whose stream it is."""
    return Owner()


@pytest.fixture
def stream(owner: Owner) -> Resumable:
    """A stream without a channel."""
    return Resumable(owner, lambda: None)


def test_what_is_not_acknowledged_is_sent_again(stream: Resumable) -> None:
    """A new channel begins with all that the agent does not have, and no more."""
    first, second = Channel(), Channel()
    stream.write(b"abc")
    stream.attach(first, 0)
    stream.write(b"def")
    stream.acknowledged(2)
    assert stream.cut(first)
    stream.write(b"ghi")
    stream.attach(second, 4)
    assert (first.written, second.written) == (b"abcdef", b"efghi")


def test_an_old_channel_has_no_say(stream: Resumable, owner: Owner) -> None:
    """Bytes, pauses and the end of a channel that was replaced change nothing."""
    old, new = Channel(), Channel()
    stream.attach(old, 0)
    stream.cut(old)
    stream.attach(new, 0)
    stream.data_received(old, b"old")
    stream.pause(True, old)
    assert not stream.cut(old)
    stream.data_received(new, b"new")
    assert owner.told == ["pause", "resume", b"new"] and stream.received == 3


def test_a_stale_acknowledgement_is_nothing(stream: Resumable) -> None:
    """One that was sent again after a cut says less than the new channel's beginning; one that says too much is an error."""
    stream.write(b"abcdef")
    stream.attach(Channel(), 5)
    stream.acknowledged(3)
    with pytest.raises(AgentError, match="7 bytes of 6"):
        stream.acknowledged(7)
    with pytest.raises(AgentError, match="forgotten"):
        stream.attach(Channel(), 4)


def test_a_channel_that_breaks_loses_nothing(stream: Resumable) -> None:
    """What a channel does not take is sent over the next one."""
    broken, good = Channel(broken=True), Channel()
    stream.attach(broken, 0)
    stream.write(b"abc")
    stream.cut(broken)
    stream.attach(good, 0)
    assert good.written == b"abc"


def test_what_arrives_is_acknowledged(stream: Resumable) -> None:
    """With the next message, or when it is much; never without anything new, so that two ends never talk for ever."""
    channel = Channel()
    stream.attach(channel, 0)
    stream.data_received(channel, b"x" * 10)
    assert channel.written == b""
    stream.write(frame("a"))
    stream.write(frame("b"))
    stream.data_received(channel, b"x" * ACK)
    stream.ended()
    assert FrameDecoder().feed(channel.written) == [["ack", 10], ["a"], ["b"], ["ack", ACK + 10]]


def test_the_end(stream: Resumable, owner: Owner) -> None:
    """After close nothing is written but that it is closed; the loss is told once."""
    channel = Channel()
    stream.attach(channel, 0)
    stream.close()
    stream.close()
    stream.write(b"late")
    assert channel.written == frame("eof") and stream.is_closing()
    stream.lose(None)
    stream.lose(AgentError("again"))
    stream.data_received(channel, b"late")
    stream.cut(channel)
    assert owner.told == [("lost", None)]
