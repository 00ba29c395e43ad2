"""Starting workers again and again: when, how often, and what is told to whom. The workers are shell scripts."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asim.engine import supervisor
from asim.engine.supervisor import ATTACHED_WITHIN, LONG, STEADY, Place, Supervisor, Wanted, rotate
from tests.servers import until


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what is run instead of a worker."""
    path = tmp_path / "worker"

    def write(script: str) -> None:
        path.write_text(f"#!/bin/sh\nread settings\n{script}\n")
        path.chmod(0o700)

    monkeypatch.setattr(sys, "executable", str(path))
    return write


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """What a server wants."""
    log = f"{tmp_path}/workers.log"
    return Wanted(socket=f"{tmp_path}/sock", secret="s", password="p", log=log, environ=dict(os.environ), memory=0)


@pytest.fixture
def place(wanted: Wanted) -> Iterator[Place]:
    """A place for a worker."""
    found = Place("CPU", wanted, 1)
    yield found
    found.kill()


def ended(place: Place) -> None:
    """Wait for the end of a worker, which is then still to be reaped."""
    os.waitid(os.P_PID, place.pid, os.WEXITED | os.WNOWAIT)


def test_pauses_grow(place: Place, program: Callable[[str], None]) -> None:
    """A worker that ends at once is started again at once, then after pauses that grow, up to 5 s: no busy loop."""
    program("exit 3")
    place.tend(100.0)
    now, pauses = 100.0, []
    for _ in range(9):
        ended(place)
        pauses.append(round(place.tend(now), 3) if place.pid else 0)
        now += 0 if place.pid else pauses[-1]
        if not place.pid:
            place.tend(now + 0.001)
    assert pauses[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_steady_worker_is_replaced_at_once(place: Place, program: Callable[[str], None]) -> None:
    """After a while of good work an end is the first again."""
    program("exit 3")
    place.tend(0.0)
    for now in (0.0, 0.0, 0.1):
        if place.pid:
            ended(place)
        place.tend(now)
    pid = place.pid
    ended(place)
    place.tend(0.1 + STEADY + 1)
    assert place.pid not in (0, pid)


def test_a_worker_that_reaches_the_server(place: Place, program: Callable[[str], None]) -> None:
    """It has said that it is connected: from then on nothing is due before it ends, and it was not lost."""
    program("printf + >&0; read more")
    assert 0 < place.tend(0.0) <= ATTACHED_WITHIN
    until(lambda: place.tend(1.0) == LONG)
    assert (place.attached, place.lost) == (True, 0)
    assert place.tend(ATTACHED_WITHIN + 100) == LONG


def test_a_worker_that_never_reaches_the_server(place: Place, program: Callable[[str], None], wanted: Wanted) -> None:
    """It is killed after a minute, and counts as lost."""
    program("read more")
    place.tend(0.0)
    place.tend(ATTACHED_WITHIN + 1)
    if not place.lost:  # else it was dead, and reaped, in the same moment
        ended(place)
        place.tend(ATTACHED_WITHIN + 1)
    assert place.lost == 1
    assert "of CPU was killed by SIGKILL" in Path(wanted.log).read_text()


def test_no_program(place: Place, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be started, that is logged, and tried again later."""
    monkeypatch.setattr(sys, "executable", "/nothing")
    assert 0 < place.tend(0.0) <= 0.1
    assert (place.pid, place.lost) == (0, 1)
    assert "a worker of CPU cannot be started" in Path(wanted.log).read_text()


def test_no_log(place: Place, wanted: Wanted) -> None:
    """A full disk must not end a database: there is no worker, and it is tried again."""
    Path(wanted.log).mkdir()
    assert 0 < place.tend(0.0) <= 0.1
    assert place.lost == 1
    assert "Is a directory" in place.words()


class Keeper:
    """A server that wants workers of one device, and keeps what it is told."""

    def __init__(self, path: str) -> None:
        self.told: list[list[bytes]] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                end = self._listening.accept()[0]
            except OSError:
                return
            self._ends.append(end)
            threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with end.makefile("rb") as file:
            while line := file.readline():
                words = [file.read(int(file.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
                if words == [b"ASIM.WANTED"]:
                    end.sendall(b"*1\r\n$3\r\nCPU\r\n")
                elif words[0] == b"AUTH":
                    end.sendall(b"+OK\r\n")
                elif words[0] == b"ASIM.WORKER":
                    self.told.append(words)
                    end.sendall(b"+OK\r\n")

    def close(self) -> None:
        """End every connection."""
        self._listening.shutdown(socket.SHUT_RDWR)
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._listening.close()


def test_clients_are_told_when_there_is_no_hope(wanted: Wanted, program: Callable[[str], None]) -> None:
    """After three ends in a row the server is told once, with what the worker printed, so that clients do not wait for ever."""
    program("echo numpy is broken; exit 1")
    keeper = Keeper(wanted.socket)
    workers = Supervisor(wanted)
    try:
        workers.listen()
        until(lambda: workers.tend() and keeper.told)
        for _ in range(3):
            workers.tend()
        (words,) = keeper.told
        assert words[:3] == [b"ASIM.WORKER", b"FAILED", b"CPU"]
        assert b"numpy is broken" in words[3]
        program("printf + >&0; read more")
        until(lambda: workers.tend() and not workers._told, 30)
    finally:
        workers.stop()
        keeper.close()


def test_a_device_that_is_wanted_just_now(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the listener hears of while the others are tended is no device for which there is no room."""
    workers = Supervisor(wanted)
    workers._devices = ["CPU"]
    told: list[object] = []
    monkeypatch.setattr(workers, "_tell", told.append)

    def tend(_place: Place, _now: float) -> float:
        workers._devices = ["CPU", "GPU:1"]
        return LONG

    monkeypatch.setattr(Place, "tend", tend)
    workers.tend()
    assert list(workers._places) == ["CPU"]
    workers.tend()
    assert list(workers._places) == ["CPU", "GPU:1"]
    assert not told and not workers._told


def test_what_could_not_be_told_is_told_again(
    wanted: Wanted, program: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """A server that takes no connection at first hears of it later: otherwise its clients would wait for ever."""
    program("echo numpy is broken; exit 1")
    workers = Supervisor(wanted)
    workers._devices = ["CPU"]
    heard: list[str] = []

    def failed() -> bool:
        workers.tend()
        heard.append(capfd.readouterr().err)
        return "".join(heard).count("the server could not be told that there are no workers: CPU") >= 2

    try:
        until(failed)
        with closing(Keeper(wanted.socket)) as keeper:
            until(lambda: workers.tend() and keeper.told)
            assert b"numpy is broken" in keeper.told[0][3]
    finally:
        workers.stop()


def test_a_module_without_workers(wanted: Wanted, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that does not know the command is left alone, and the node's log says why there is no inference."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(wanted.socket)
    listening.listen()
    workers = Supervisor(wanted)
    workers.listen()
    end = listening.accept()[0]
    end.sendall(b"+OK\r\n-ERR unknown command\r\n")
    until(lambda: "no inference: ERR unknown command" in capfd.readouterr().err)
    end.close()
    listening.close()


def test_logs_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that a worker holds open is copied and emptied; three old ones are kept."""
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    log = tmp_path / "w.log"
    with log.open("ab", buffering=0) as held:
        for number in range(5):
            held.write(b"%d" % number * 12)
            rotate(str(log))
        held.write(b"end")
    rotate(str(log))
    found = {path.name: path.read_bytes()[:3] for path in tmp_path.iterdir()}
    assert found == {"w.log": b"end", "w.log.1": b"444", "w.log.2": b"333", "w.log.3": b"222"}


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    """No log, no error: it comes with the first worker."""
    rotate(f"{tmp_path}/nothing")
