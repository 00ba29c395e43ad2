"""What the engine and its inference workers say to each other: tasks, and the heads of answers. Pure bytes in and out.

A worker says ``ASIM.NEXT head`` first, the head being a HELLO, and gets its first task as the answer. From then on it sends
``ASIM.DONE head [output…]``, which has no answer, together with ``ASIM.NEXT``. All numbers are little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

HELLO, DONE, FAILED = range(3)
"""What a head says."""
RUN, CALL, LOAD, DROP, PREPARE, SHARED = range(1, 7)
"""What a task asks for. SHARED: the tasks are in shared memory (:mod:`asim.engine.shared`): ``number`` is the server's
number of its file, ``object`` the size of the message, ``expected`` a number that tells one file from the next."""
_KEPT = 1 << 8
TYPES = ("FLOAT", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "BOOL", "STRING")
"""Types of tensors, by their code."""
STRING = TYPES.index("STRING")
WORKER = "asim-worker"
"""The Redis user of the workers."""
TEXT_BYTES = 2000
"""The longest text of an error."""
NO_LIST = 0xFFFFFFFF
ALIGNMENT = 16
NEXT = b"*1\r\n$9\r\nASIM.NEXT\r\n"
"""The command that asks for the next task, as it is sent."""

_HEAD = Struct("<IIQQ")
_TASK = Struct("<IIQQIIII")
_INPUT = Struct("<BB6xQ")
_OUTPUT = Struct("<BB6x")
_LOADED = Struct("<ii32s")
_U32 = Struct("<I")
_DIMS = [Struct(f"<{number}q") for number in range(256)]


class Tensor(NamedTuple):
    """A tensor inside a task.

    :ivar at: where its data begins.
    :ivar size: of its data, in bytes.
    """

    dtype: int
    dims: tuple[int, ...]
    at: int
    size: int


class Task(NamedTuple):
    """What a worker is to do.

    :ivar limit_ms: milliseconds after which the worker must have answered, or be dead; 0: none.
    :ivar object: number of the model or script.
    :ivar expected: how many outputs are asked for.
    :ivar rows: of a merged batch, along the first dimension of every input; 0: it is not merged.
    :ivar extra: what only some kinds have; see :func:`call_of`, :func:`dropped` and :func:`backend_of`.
    :ivar end: where the next task begins.
    """

    kind: int
    limit_ms: int
    number: int
    object: int
    expected: int
    rows: int
    extra: bytes
    tensors: list[Tensor]
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a script's function.

    :ivar variadic: index of the first input that belongs to a list, given after ``$``; None: there was no ``$``.
    :ivar entry_point: whether the function takes all inputs as one list, then ``keys`` and ``args``.
    """

    function: str
    variadic: int | None = None
    keys: Sequence[str] = ()
    args: Sequence[str] = ()
    entry_point: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a worker answers; which fields mean something depends on ``status`` and on the task.

    :ivar duration_us: of the framework's call alone, in microseconds.
    :ivar outputs: type and dimensions of each output.
    :ivar counts: inputs and outputs of a model that was loaded, -1: not known; and the SHA-256 of what was received.
    """

    status: int
    task: int = 0
    duration_us: int = 0
    pid: int = 0
    device: str = ""
    outputs: Sequence[tuple[int, tuple[int, ...]]] = ()
    counts: tuple[int, int] = (-1, -1)
    digest: bytes = b""
    text: str = ""


def padded(size: int) -> int:
    """The next multiple of :data:`ALIGNMENT`."""
    return (size + ALIGNMENT - 1) & -ALIGNMENT


# -- the worker's side


def read_tasks(data: bytes | bytearray | memoryview) -> list[Task]:
    """Take a message apart: several short runs of one model may be in it, to be done in this order.

    :raises struct.error: it is too short.
    """
    found = [read_task(data)]
    while found[-1].end < len(data):
        found.append(read_task(data, found[-1].end))
    return found


def read_task(data: bytes | bytearray | memoryview, begin: int = 0) -> Task:
    """Take a task apart.

    :param begin: where it begins.
    :raises struct.error: it is too short.
    """
    kind, limit, number, thing, inputs, expected, extra, rows = _TASK.unpack_from(data, begin)
    body = begin + 40
    at = (body + extra + 15) & -16  # :func:`padded`, without the call: this is done for every run
    heads = []
    for _ in range(inputs):
        dtype, ndim, size = _INPUT.unpack_from(data, at)
        heads.append((dtype, _DIMS[ndim].unpack_from(data, at + 16), size))
        at += 16 + 8 * ndim
    at = (at + 15) & -16
    tensors = []
    for dtype, dims, size in heads:
        tensors.append(Tensor(dtype, dims, at, size))
        at = (at + size + 15) & -16
    more = bytes(data[body : body + extra]) if extra else b""
    return Task(kind, limit, number, thing, expected, rows, more, tensors, at)


def call_of(extra: bytes) -> Call:
    """The extra part of a CALL."""
    (function, *_), at = _texts(extra, 0)
    (variadic,) = _U32.unpack_from(extra, at)
    keys, at = _texts(extra, at + 4)
    args, at = _texts(extra, at)
    return Call(
        function=function,
        variadic=None if variadic == NO_LIST else variadic,
        keys=keys,
        args=args,
        entry_point=bool(_U32.unpack_from(extra, at)[0]),
    )


def _texts(data: bytes, at: int) -> tuple[list[str], int]:
    (count,) = _U32.unpack_from(data, at)
    at, found = at + 4, []
    for _ in range(count):
        (size,) = _U32.unpack_from(data, at)
        found.append(data[at + 4 : at + 4 + size].decode("utf-8", "surrogateescape"))
        at += 4 + size
    return found, at


def dropped(extra: bytes) -> tuple[int, ...]:
    """The extra part of a DROP: numbers of objects that are gone."""
    return Struct(f"<{len(extra) // 8}Q").unpack_from(extra)


def backend_of(extra: bytes) -> str:
    """The extra part of a PREPARE."""
    return extra.decode("ascii", "replace")


def hello(pid: int, device: str, shares: bool = False) -> bytes:
    """The head of a worker's first command.

    :param shares: whether it can read memory that it shares with the server.
    """
    name = device.encode()
    return _HEAD.pack(HELLO, shares, 0, 0) + _U32.pack(pid) + _U32.pack(len(name)) + name


def keeping(head: bytes) -> bytes:
    """The head of an answer to a task in shared memory, which is still in use."""
    return _U32.pack(_U32.unpack_from(head)[0] | _KEPT) + head[4:]


def done(task: int, duration_us: int = 0, outputs: Sequence[bytes] = ()) -> bytes:
    """The head for what was done.

    :param outputs: the :func:`output` of each.
    """
    rest = outputs[0] if len(outputs) == 1 else b"".join(outputs)
    return _HEAD.pack(DONE, len(outputs), task, duration_us) + rest


def output(dtype: int, dims: Sequence[int]) -> bytes:
    """The part of a head that describes an output."""
    return _OUTPUT.pack(dtype, len(dims)) + _DIMS[len(dims)].pack(*dims)


def loaded(task: int, inputs: int, outputs: int, digest: bytes) -> bytes:
    """The head for a model that was loaded."""
    return _HEAD.pack(DONE, 0, task, 0) + _LOADED.pack(inputs, outputs, digest)


def failed(task: int, text: str) -> bytes:
    """The head for a task that failed. Line breaks become blanks."""
    line = " ".join(text.split()).encode("utf-8", "replace")
    short = line[:TEXT_BYTES].decode("utf-8", "ignore").encode()
    return _HEAD.pack(FAILED, 0, task, 0) + short


# -- the engine's side, as its C code does it: for fakes and tests


def write_task(
    kind: int,
    number: int,
    *,
    object: int = 0,  # noqa: A002  (as in Task)
    limit_ms: int = 0,
    expected: int = 0,
    rows: int = 0,
    extra: bytes = b"",
    tensors: Sequence[tuple[int, Sequence[int], bytes]] = (),
) -> bytes:
    """A task. ``tensors``: type, dimensions and data of each."""
    parts = [_TASK.pack(kind, limit_ms, number, object, len(tensors), expected, len(extra), rows), extra]
    parts.append(_padding(40 + len(extra)))
    heads = b"".join(
        _INPUT.pack(dtype, len(dims), len(data)) + _DIMS[len(dims)].pack(*dims) for dtype, dims, data in tensors
    )
    parts += [heads, _padding(len(heads))]
    for _, _, data in tensors:
        parts += [data, _padding(len(data))]
    return b"".join(parts)


def write_call(call: Call) -> bytes:
    """The extra part of a CALL."""
    variadic = NO_LIST if call.variadic is None else call.variadic
    parts = [_listed([call.function]), _U32.pack(variadic), _listed(call.keys), _listed(call.args)]
    return b"".join([*parts, _U32.pack(call.entry_point)])


def _listed(texts: Sequence[str]) -> bytes:
    items = [text.encode("utf-8", "surrogateescape") for text in texts]
    return b"".join([_U32.pack(len(items)), *(_U32.pack(len(item)) + item for item in items)])


def _padding(size: int) -> bytes:
    return bytes(padded(size) - size)


def read_head(data: bytes, kind: int = RUN) -> Head:
    """Take a head apart.

    :param kind: of the task that it answers.
    """
    status, count, task, duration = _HEAD.unpack_from(data)
    rest = data[_HEAD.size :]
    if status == HELLO:
        pid, size = _U32.unpack_from(rest)[0], _U32.unpack_from(rest, 4)[0]
        return Head(status=status, pid=pid, device=rest[8 : 8 + size].decode())
    if status == FAILED:
        return Head(status=status, task=task, text=rest.decode())
    if kind == LOAD:
        inputs, outputs, digest = _LOADED.unpack(rest)
        return Head(status=status, task=task, counts=(inputs, outputs), digest=digest)
    found, at = [], 0
    for _ in range(count):
        dtype, ndim = _OUTPUT.unpack_from(rest, at)
        found.append((dtype, _DIMS[ndim].unpack_from(rest, at + 8)))
        at += 8 + 8 * ndim
    return Head(status=status, task=task, duration_us=duration, outputs=found)
