"""What a worker does with its tasks: a loop per connection, and the models that all of them share."""

from __future__ import annotations

import gc
import hashlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import protocol
from .backends import WRONG_OUTPUTS, BackendError, Threads, backend_of
from .connection import Connection
from .protocol import RUN, Task
from .shared import Shared

Answer = tuple[bytes, Sequence[Any]]
"""A head, and the data of outputs."""
_CODE = re.compile(r"[A-Z][A-Z0-9]*\b")
BACKGROUND = 1 << 20
"""Bytes from which on a digest is computed beside the loading."""


class Deadline:
    """Ends this process when a task takes longer than it may.

    By a timer whose signal has its default action: the kernel acts on that whatever the code of a framework does. This one
    is for a process that does one task at a time.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def start(self, owner: object, limit_ms: int) -> None:
        """Count from now."""
        signal.setitimer(signal.ITIMER_REAL, limit_ms / 1000)

    def stop(self, owner: object) -> None:
        """Stop counting."""
        signal.setitimer(signal.ITIMER_REAL, 0)


class Deadlines(Deadline):
    """The same for several threads: the earliest deadline counts."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._until: dict[object, float] = {}

    def start(self, owner: object, limit_ms: int) -> None:
        """Count from now."""
        with self._lock:
            self._until[owner] = time.monotonic() + limit_ms / 1000
            self._set()

    def stop(self, owner: object) -> None:
        """Stop counting."""
        with self._lock:
            del self._until[owner]
            self._set()

    def _set(self) -> None:
        left = min(self._until.values()) - time.monotonic() if self._until else 0.0
        signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6) if self._until else 0.0)


class Objects:
    """The models and scripts that are loaded, by number. An object never changes."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._loaded: dict[int, Any] = {}

    def get(self, number: int) -> Any:
        """One of them, or None."""
        return self._loaded.get(number)

    def load(self, number: int, fetched: Sequence[Any]) -> Any:
        """Load one from what ``ASIM.FETCH`` answered. May raise anything."""
        kind, backend, device, inputs, outputs, entry_points, blob = fetched
        texts = [[_text(name) for name in names] for names in (inputs, outputs, entry_points)]
        if _text(kind) == "SCRIPT":
            from .backends import script

            found: Any = script.load(blob, _text(device), texts[2], self._threads)
        else:
            found = backend_of(_text(backend)).load(blob, _text(device), texts[0], texts[1], self._threads)
        return self._loaded.setdefault(number, found)  # another thread may have been faster

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget some."""
        gone = [self._loaded.pop(number, None) for number in numbers]
        if any(getattr(one, "circular", False) for one in gone):
            gone.clear()
            gc.unfreeze()
            gc.collect()  # nothing else frees what refers to itself
            gc.freeze()


def _text(data: Any) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")


class Loop:
    """One connection's tasks, one after the other.

    :param objects: shared with other loops, as ``deadlines``.
    """

    def __init__(self, connection: Connection, objects: Objects, deadlines: Deadline) -> None:
        self._connection, self._objects, self._deadlines = connection, objects, deadlines
        from .tensors import Packer, arrays_of  # numpy: imported when the server knows of this worker already

        self._arrays_of, self._packer = arrays_of, Packer()
        self._shared = Shared(connection.server)
        self._others: dict[int, Callable[[Task, Any], Answer]] = {
            protocol.CALL: self._call,
            protocol.LOAD: self._load,
            protocol.DROP: self._drop,
            protocol.PREPARE: self._prepare,
        }

    def run(self) -> None:
        """Until the connection ends.

        :raises Gone: the server closed it.
        :raises Refused: the server takes this worker for broken.
        """
        while True:
            data = self._connection.bulk()
            tasks = protocol.read_tasks(data)
            shared = tasks[0].kind == protocol.SHARED
            if shared:
                data = self._shared.data(tasks[0])
                tasks = protocol.read_tasks(data)
            answers = self.answers(tasks, data)
            del data  # its memory may be used again
            if shared and self._shared.kept():
                answers = [(protocol.keeping(head), outputs) for head, outputs in answers]
            self._connection.send_all([(b"ASIM.DONE", head, *outputs) for head, outputs in answers], protocol.NEXT)
            del answers

    def answers(self, tasks: Sequence[Task], data: bytes | bytearray | memoryview) -> list[Answer]:
        """Do tasks, each within its time.

        :param data: where their tensors are.
        """
        limit, found = 0, []
        for task in tasks:
            if task.limit_ms != limit:  # those that came together mostly have the same, which counts for all of them
                self._limit(limit := task.limit_ms)
            try:
                found.append(self._run(task, data) if task.kind == RUN else self._others[task.kind](task, data))
            except Exception as exc:  # noqa: BLE001  (frameworks raise anything)
                found.append((protocol.failed(task.number, words_of(exc)), ()))
        if limit:
            self._limit(0)
        return found

    def _limit(self, limit_ms: int) -> None:
        if limit_ms:
            self._deadlines.start(self, limit_ms)
        else:
            self._deadlines.stop(self)

    def _run(self, task: Task, data: Any) -> Answer:
        runner = self._objects.get(task.object) or self._fetched(task)
        if runner.outputs is not None and runner.outputs != task.expected:
            raise BackendError(WRONG_OUTPUTS)
        arrays = self._arrays_of(data, task.tensors)
        begin = time.perf_counter_ns()
        found = runner.run(arrays)
        took = (time.perf_counter_ns() - begin) // 1000
        if len(found) != task.expected:
            raise BackendError(WRONG_OUTPUTS)
        heads, outputs = self._packer.pack(found, task.rows)
        return protocol.done(task.number, took, heads), outputs

    def _call(self, task: Task, data: Any) -> Answer:
        script = self._objects.get(task.object) or self._fetched(task)
        call = protocol.call_of(task.extra)
        arrays = self._arrays_of(data, task.tensors)
        begin = time.perf_counter_ns()
        found = script.call(call, arrays, task.expected)
        took = (time.perf_counter_ns() - begin) // 1000
        heads, outputs = self._packer.pack(found, task.rows)
        return protocol.done(task.number, took, heads), outputs

    def _fetched(self, task: Task) -> Any:
        """Load what a run needs while none of the run's time counts: a new worker's first one may need minutes for that.

        The server's own alarm goes on: it kills this process a minute after the end of the run's time.
        """
        with self._uncounted(task):
            return self._objects.load(task.object, self._fetch())

    def _fetch(self) -> list[Any]:
        fetched: list[Any] = self._connection.command(b"ASIM.FETCH")
        if isinstance(fetched[6], list):  # it is large
            fetched[6] = self._shared.copy(*fetched[6])
        return fetched

    @contextmanager
    def _uncounted(self, task: Task) -> Iterator[None]:
        """Stop the task's time; afterwards it has all of it."""
        if task.limit_ms:
            self._deadlines.stop(self)
        try:
            yield
        finally:
            if task.limit_ms:
                self._deadlines.start(self, task.limit_ms)

    def _load(self, task: Task, data: Any) -> Answer:
        fetched = self._fetch()
        with self._uncounted(task):  # the import, which only a new worker's first task needs
            backend_of(_text(fetched[1])).prepare()
        digest = Digest(fetched[6])
        runner = self._objects.get(task.object) or self._objects.load(task.object, fetched)
        gc.freeze()  # what a framework made need not be looked through again and again
        counts = [-1 if count is None else count for count in (runner.inputs, runner.outputs)]
        return protocol.loaded(task.number, counts[0], counts[1], digest.result()), ()

    def _drop(self, task: Task, data: Any) -> Answer:
        self._objects.drop(protocol.dropped(task.extra))
        return protocol.done(task.number), ()

    def _prepare(self, task: Task, data: Any) -> Answer:
        backend_of(protocol.backend_of(task.extra)).prepare()
        return protocol.done(task.number), ()


class Digest:
    """The SHA-256 of a blob; of a large one computed in a thread meanwhile."""

    def __init__(self, blob: Any) -> None:
        self._hash, self._thread = hashlib.sha256(), None
        if len(blob) < BACKGROUND:
            self._hash.update(blob)
        else:
            self._thread = threading.Thread(target=self._hash.update, args=(blob,), daemon=True)
            self._thread.start()

    def result(self) -> bytes:
        """The digest, when it is complete."""
        if self._thread is not None:
            self._thread.join()
        return self._hash.digest()


def words_of(exc: BaseException) -> str:
    """What a client is told of an exception: its own text.

    The first word of an error is its code for Redis's clients, some of which go to another server on ``MOVED``: what is
    not asim's own and looks like a code gets one in front.
    """
    if isinstance(exc, BackendError):
        return str(exc)
    if isinstance(exc, MemoryError):
        return "ERR not enough memory; a worker may use what worker_memory says"
    text = str(exc) or type(exc).__name__
    return f"ERR {text}" if _CODE.match(text) else text
