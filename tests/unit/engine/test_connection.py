"""When a worker sleeps and when it looks for its next task, over a real socket."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asim.engine import connection as module
from asim.engine.connection import Connection

TASK = b"$4\r\ntask\r\n"


class Server:
    """The other end.

    :ivar looks: how often the worker has looked in vain.
    :ivar on_look: what happens meanwhile.
    """

    def __init__(self, listening: socket.socket, path: str, eager: bool) -> None:
        self.connection = Connection(path, eager=eager)
        self.end = listening.accept()[0]
        self.looks = 0
        self.on_look: Callable[[], None] = lambda: None

    def look(self) -> None:
        self.looks += 1
        self.on_look()

    def task(self) -> None:
        self.end.sendall(TASK)

    def take(self) -> None:
        assert bytes(self.connection.bulk()) == b"task"

    def take_later(self, seconds: float) -> None:
        """Take a task that comes so late."""
        timer = threading.Timer(seconds, self.task)
        timer.start()
        self.take()
        timer.join()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], Server]]:
    """Makes servers, whose workers look for very long and mind nothing."""
    monkeypatch.setattr(module, "EAGER", 30.0)
    monkeypatch.setattr(module, "TAKEN", 30.0)
    monkeypatch.setattr(module, "PATIENT", (30.0, 30.0))
    made: list[Server] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def make(eager: bool) -> Server:
            server = Server(listening, str(tmp_path / "s"), eager)
            monkeypatch.setattr(os, "sched_yield", server.look)
            made.append(server)
            return server

        yield make
    for server in made:
        server.connection.close()
        server.end.close()


def test_looks_for_the_next_task(serve: Callable[[bool], Server]) -> None:
    """After a task that came soon it does not sleep: it lets others go first until there is one more."""
    server = serve(True)
    server.task()
    server.take()
    server.on_look = lambda: server.task() if server.looks == 3 else None
    server.take()
    assert server.looks == 3


def test_sleeps_after_a_while(serve: Callable[[bool], Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a task it uses no processor time; nor does it look again before one has come soon."""
    server = serve(True)
    server.task()
    server.take()
    monkeypatch.setattr(module, "EAGER", 0.001)
    began = time.thread_time()
    server.take_later(0.3)
    assert server.looks > 0
    assert time.thread_time() - began < 0.1
    looks = server.looks
    server.take_later(0.01)
    assert server.looks == looks


def test_gives_way(serve: Callable[[bool], Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process has taken the core meanwhile it sleeps at once for a time, however soon tasks come."""
    server = serve(True)
    monkeypatch.setattr(module, "TAKEN", 0.0)
    server.task()
    server.take()
    server.on_look = server.task
    server.take()
    for _ in range(3):
        server.task()
        server.take()
    server.take_later(0.01)
    assert server.looks == 1


def test_gives_way_for_longer(serve: Callable[[bool], Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cores are always wanted it soon looks rarely; where that was long ago it looks again soon."""
    monkeypatch.setattr(module, "PATIENT", (0.5, 2.0))
    connection = serve(True).connection
    waits = []
    for now in (10.0, 10.5, 11.5, 13.5, 17.0):
        connection._give_way(now)
        waits.append(connection._patient_until - now)
    assert waits == [0.5, 1.0, 2.0, 2.0, 0.5]


def test_threads_sleep(serve: Callable[[bool], Server]) -> None:
    """One of several threads never looks: it would hold up the others."""
    server = serve(False)
    for _ in range(3):
        server.task()
        server.take()
    server.take_later(0.01)
    assert server.looks == 0
