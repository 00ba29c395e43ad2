"""The blocking face's connection: its deadline holds whatever the other side does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from asim.client.codec import command
from asim.client.link import Link
from asim.client.steps import Lost

PATIENCE = 0.2


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    """A connection, and the other side's socket."""
    mine, theirs = socket.socketpair()
    link = Link(mine)
    yield link, theirs
    link.close()
    theirs.close()


def lost(work: Callable[[], object]) -> float:
    """After how many seconds something ends because it is late."""
    began = time.monotonic()
    with pytest.raises(Lost) as caught:
        work()
    assert caught.value.late
    return time.monotonic() - began


def test_silence(ends: tuple[Link, socket.socket]) -> None:
    """No reply at all: the connection is given up when the time is over, and not before."""
    link, _ = ends
    link.send([command("PING", None)], PATIENCE)
    assert PATIENCE * 0.95 < lost(lambda: link.receive(1)) < PATIENCE + 2
    assert link.closed


def test_a_reply_byte_by_byte(ends: tuple[Link, socket.socket]) -> None:
    """Who sends a little now and then does not make the time longer."""
    link, theirs = ends
    link.send([command("GET", b"x")], PATIENCE)
    theirs.sendall(b"$1000\r\n")
    done = threading.Event()

    def dribble() -> None:
        with suppress(OSError):  # the connection is closed when it was given up
            while not done.wait(PATIENCE / 10):
                theirs.send(b"x")

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        assert lost(lambda: link.receive(1)) < PATIENCE + 2
    finally:
        done.set()
        thread.join()


def test_nobody_reads(ends: tuple[Link, socket.socket]) -> None:
    """A large payload that the other side does not read is given up, too."""
    link, _ = ends
    payload = memoryview(bytes(1 << 24))
    assert lost(lambda: link.send([command("SET", b"x", payload)], PATIENCE)) < PATIENCE + 2


def test_other_patience(ends: tuple[Link, socket.socket]) -> None:
    """Every exchange has its own time, whether longer or shorter than the one before."""
    link, theirs = ends
    for patience in (100.0, PATIENCE / 2, 50.0, PATIENCE / 4):
        theirs.sendall(b"+OK\r\n")
        link.send([command("PING", None)], patience)
        assert link.receive(1) == [b"OK"]
    link.send([command("PING", None)], PATIENCE / 2)
    assert lost(lambda: link.receive(1)) < PATIENCE + 2
