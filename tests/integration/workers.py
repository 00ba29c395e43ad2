"""A stand-in for the engine, which tells real workers what to do; and how to start those."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from asim.engine import protocol
from asim.engine.protocol import Head, Tensor
from asim.engine.worker import Settings

WITHIN = 60.0
"""Seconds in which a worker must answer: importing TensorFlow takes ten on a busy machine."""


class Stored(NamedTuple):
    """A model or script, as ``ASIM.FETCH`` answers it."""

    backend: str
    blob: bytes
    device: str = "CPU"
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    entry_points: Sequence[str] = ()
    kind: str = "MODEL"


def resp(value: Any) -> bytes:
    """A reply."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"$%d\r\n%s\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(map(resp, value))


class Attached:
    """One connection of a worker, from the engine's side."""

    def __init__(self, end: socket.socket, objects: dict[int, Stored]) -> None:
        end.settimeout(WITHIN)
        self._end, self._file, self._objects = end, end.makefile("rb"), objects
        self._number = 0
        self._held = 0
        words = self.words()
        self.login = words
        self._end.sendall(b"+OK\r\n")
        name, head = self.words()
        assert (name, self.words()) == (b"ASIM.DONE", [b"ASIM.NEXT"])
        self.hello = protocol.read_head(head)

    def words(self) -> list[bytes]:
        """The next command; [] when there is none any more."""
        line = self._file.readline()
        if not line:
            return []
        return [self._word() for _ in range(int(line[1:]))]

    def _word(self) -> bytes:
        size = int(self._file.readline()[1:])
        return self._file.read(size + 2)[:size]

    def send(self, kind: int, thing: int = 0, **rest: Any) -> None:
        """Give it a task."""
        self._number += 1
        self._held = thing
        self._end.sendall(resp(protocol.write_task(kind, self._number, object=thing, **rest)))

    def raw(self, data: bytes) -> None:
        """Send it anything."""
        self._end.sendall(data)

    def answer(self, kind: int = protocol.RUN) -> tuple[Head, list[bytes]]:
        """Its answer; it gets what it fetches meanwhile."""
        while (words := self.words()) and words[0] == b"ASIM.FETCH":
            one = self._objects[self._held]
            self._end.sendall(
                resp([one.kind, one.backend, one.device, one.inputs, one.outputs, one.entry_points, one.blob])
            )
        assert words, "the worker has gone"
        assert words[0] == b"ASIM.DONE"
        head = protocol.read_head(words[1], kind)
        assert head.task == self._number
        assert self.words() == [b"ASIM.NEXT"]
        return head, words[2:]

    def ask(self, kind: int, thing: int = 0, **rest: Any) -> tuple[Head, list[bytes]]:
        """Give it a task and wait for the answer."""
        self.send(kind, thing, **rest)
        return self.answer(kind)

    def close(self) -> None:
        """As a server that ends."""
        self._file.close()
        self._end.close()


class Engine:
    """Listens, has models, and knows the workers that it started."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "engine.sock")
        self.objects: dict[int, Stored] = {}
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(self.path)
        self._listening.listen()
        self._listening.settimeout(WITHIN)
        self.started: list[subprocess.Popen[bytes]] = []
        self.attached: list[Attached] = []
        self._controls: list[socket.socket] = []

    def start(self, **settings: Any) -> subprocess.Popen[bytes]:
        """Start a worker."""
        given = {"socket": self.path, "password": "secret", "device": "CPU", "parent": os.getpid(), **settings}
        mine, its = socket.socketpair()
        argv = [sys.executable, "-P", "-m", "asim.engine.worker", given["device"]]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        process = subprocess.Popen(argv, stdin=its, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
        its.close()
        mine.sendall(Settings(**given).to_line())
        self._controls.append(mine)
        self.started.append(process)
        return process

    def attach(self) -> Attached:
        """Wait for a connection of a worker."""
        self.attached.append(Attached(self._listening.accept()[0], self.objects))
        return self.attached[-1]

    def worker(self, **settings: Any) -> Attached:
        """Start a worker and wait for it."""
        self.start(**settings)
        return self.attach()

    def stop(self) -> None:
        """End everything."""
        for one in self.attached:
            one.close()
        for process in self.started:
            process.kill()
            process.wait(WITHIN)
            assert process.stdout is not None
            process.stdout.close()
        for control in [*self._controls, self._listening]:
            control.close()


@contextmanager
def engine_in(directory: Path) -> Iterator[Engine]:
    """An :class:`Engine` for a while."""
    engine = Engine(directory)
    try:
        yield engine
    finally:
        engine.stop()


def tensor(array: Any) -> tuple[int, tuple[int, ...], bytes]:
    """An array as a task has it."""
    from asim.engine.tensors import DTYPES

    return DTYPES.index(array.dtype), array.shape, array.tobytes()


def arrays(head: Head, outputs: Sequence[bytes]) -> list[Any]:
    """What was answered, as arrays."""
    from asim.engine.tensors import arrays_of

    assert head.status == protocol.DONE, head.text
    return [
        arrays_of(data, [Tensor(dtype, dims, 0, len(data))])[0]
        for (dtype, dims), data in zip(head.outputs, outputs, strict=True)
    ]
