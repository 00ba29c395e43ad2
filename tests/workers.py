"""A worker whose every word a test decides: it speaks to the engine as :mod:`asim.engine.worker` does, and computes nothing."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Self

from asim.engine import protocol
from asim.engine.protocol import Task

from .servers import READY_WITHIN, RedisServer


class FakeWorker:
    """One connection that says it is a worker of ``device``."""

    def __init__(self, server: RedisServer, device: str = "CPU", pid: int = 1) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(READY_WITHIN)
        self.socket.connect(str(server.socket))
        self._file = self.socket.makefile("rb")
        self.task: Task | None = None
        self.data = b""
        self._more: list[Task] = []  # handed over together with the task
        self.send("ASIM.DONE", protocol.hello(pid, device))
        self.send("ASIM.NEXT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End, as a worker that was killed does."""
        self._file.close()
        self.socket.close()

    def send(self, *words: bytes | str) -> None:
        """One command."""
        items = [word.encode() if isinstance(word, str) else word for word in words]
        parts = [b"*%d\r\n" % len(items), *(b"$%d\r\n%s\r\n" % (len(item), item) for item in items)]
        self.socket.sendall(b"".join(parts))

    def reply(self) -> bytes:
        """One bulk string; an error's text otherwise."""
        line = self._file.readline()
        assert line, "the server closed the worker's connection"
        if not line.startswith(b"$"):
            return line.strip()
        return self._file.read(int(line[1:]) + 2)[:-2]

    def take(self) -> Task:
        """The next task."""
        if not self._more:
            self.data = self.reply()
            assert not self.data.startswith(b"-"), self.data
            self._more = protocol.read_tasks(self.data)
        self.task = self._more.pop(0)
        return self.task

    @property
    def left(self) -> int:
        """How many tasks came together with this one, and are still to be done."""
        return len(self._more)

    def _done(self, head: bytes, *outputs: bytes) -> None:
        self.send("ASIM.DONE", head, *outputs)
        if not self._more:
            self.send("ASIM.NEXT")

    def inputs(self) -> list[bytes]:
        """The data of the task's inputs."""
        assert self.task is not None
        return [self.data[tensor.at : tensor.at + tensor.size] for tensor in self.task.tensors]

    def answer(self, *outputs: tuple[int, Sequence[int], bytes], duration_us: int = 1_000_000) -> None:
        """Say that it is done: type, dimensions and data of each output; ask for the next task."""
        assert self.task is not None
        heads = [protocol.output(dtype, dims) for dtype, dims, _ in outputs]
        self._done(protocol.done(self.task.number, duration_us, heads), *(data for _, _, data in outputs))

    def echo(self, duration_us: int = 1_000_000) -> None:
        """Answer with the first ``expected`` inputs as they are."""
        assert self.task is not None
        tensors = self.task.tensors[: self.task.expected]
        data = self.inputs()
        self.answer(
            *((tensor.dtype, tensor.dims, data[i]) for i, tensor in enumerate(tensors)), duration_us=duration_us
        )

    def accept(self, inputs: int = 1, outputs: int = 1, digest: bytes = bytes(32)) -> None:
        """Say that what was to be loaded could be."""
        assert self.task is not None
        self._done(protocol.loaded(self.task.number, inputs, outputs, digest))

    def fail(self, text: str) -> None:
        """Say that it did not work."""
        assert self.task is not None
        self._done(protocol.failed(self.task.number, text))
