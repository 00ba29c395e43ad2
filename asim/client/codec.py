"""Commands to bytes, arrays to payloads and tensor replies to arrays, without any I/O.

A large payload is never copied: its buffer stands among the parts of the command as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from hiredis import pack_command
from numpy.typing import NDArray

from ..errors import ConfigError, ConfigTypeError, DatabaseError, allowed

Array = NDArray[Any]
Buffer = bytes | bytearray | memoryview
Arg = str | int | bytes | memoryview

LARGE = 1 << 16
"""From this size on, in bytes, a payload is sent from, and received in, its own memory."""

WIRE = {
    "float32": b"FLOAT", "float64": b"DOUBLE", "int8": b"INT8", "int16": b"INT16", "int32": b"INT32",
    "int64": b"INT64", "uint8": b"UINT8", "uint16": b"UINT16", "bool": b"BOOL",
}  # fmt: skip
"""numpy's name of a type -> the wire's. SmartRedis cannot read BOOL."""
NUMPY = {wire: np.dtype(name) for name, wire in WIRE.items()}
_KIND = {dtype: wire for wire, dtype in NUMPY.items()}
"""Asked before the names, which numpy puts together anew each time: a microsecond or two."""

NEAREST = {
    "float16": "float32",
    "longdouble": "float64",
    "float128": "float64",
    "uint32": "int64",
    "uint64": "int64 (or float64 for values of 2**63 and more)",
    "complex64": "float32 with .real and .imag as two tensors",
    "complex128": "float64 with .real and .imag as two tensors",
    "clongdouble": "float64 with .real and .imag as two tensors",
    "object": "an array of numbers",
}
NEAREST_KIND = {"M": "int64 (.astype('int64'))", "m": "int64 (.astype('int64'))", "V": "one tensor for each field"}


class Tensor(NamedTuple):
    """A tensor as it travels: the wire's type name, the shape, and the elements in row-major order."""

    kind: bytes
    shape: tuple[int, ...]
    data: Buffer | Array


class Command(NamedTuple):
    """One command, ready to be sent.

    ``parts`` are its bytes. ``verb`` and ``key`` are for errors, ``key`` also finds its server in a cluster, unless
    ``address`` names it. ``again``: it may be sent twice when a connection broke. ``alone``: the server does not serve
    its connection until it is done, so nobody should share it.
    """

    parts: tuple[Buffer, ...]
    verb: str
    key: bytes | None = None
    again: bool = True
    alone: bool = False
    address: str | None = None

    @property
    def text(self) -> str:
        """In short, for people."""
        key = "" if self.key is None else self.key.decode(errors="backslashreplace")
        if not key.isprintable():  # the tag of a shard is any two bytes
            key = key.encode("unicode_escape").decode()
        return f"{self.verb} {key}"[:200].rstrip()

    def __str__(self) -> str:
        return self.text


def command(
    verb: str, key: bytes | None, *args: Arg, again: bool = True, alone: bool = False, address: str | None = None
) -> Command:
    """A command whose words are those of ``verb``, then the key, then ``args``."""
    words: tuple[Arg, ...] = (*verb.split(), *args) if key is None else (*verb.split(), key, *args)
    return Command(encode(words), verb, key, again, alone, address)


def encode(words: Sequence[Arg]) -> tuple[Buffer, ...]:
    """The parts of a command: one, or more if it has large payloads, which stand among them as they are."""
    for word in words:
        if type(word) not in (str, int) and len(word) >= LARGE:  # type: ignore[arg-type]
            break
    else:
        return (pack_command(tuple(words)),)  # type: ignore[arg-type]
    return _encode_large(words)


def _encode_large(words: Sequence[Arg]) -> tuple[Buffer, ...]:
    """The same with large payloads as parts of their own."""
    parts: list[Buffer] = []
    small = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, (bytes, memoryview)) else str(word).encode()
        if len(data) < LARGE:
            small.append(b"$%d\r\n%b\r\n" % (len(data), bytes(data)))
            continue
        small.append(b"$%d\r\n" % len(data))
        parts += b"".join(small), data
        small = [b"\r\n"]
    return (*parts, b"".join(small))


# -- arrays


def from_array(data: Any, name: str) -> Tensor:
    """An array as a tensor: in row-major order and the machine's byte order, copied only if it is not so already.

    :param name: the tensor's name, for errors.
    :raises ConfigTypeError: it is no array, or has elements that the wire does not know; says what is nearest.
    :raises ConfigError: a dimension is zero.
    """
    if type(data) is not np.ndarray:
        data = _as_array(data, name)
    kind = _KIND.get(data.dtype) or WIRE.get(data.dtype.name)
    if kind is None:
        return _strings(data, name)
    if data.size == 0:
        raise ConfigError(allowed(f"shape of {name!r}", data.shape, "every dimension must be at least 1"))
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="), order="C")
    elif not data.flags.c_contiguous:
        data = data.copy(order="C")
    return Tensor(kind, data.shape, memoryview(data).cast("B"))


def _as_array(data: Any, name: str) -> Array:
    """Objects that are arrays in all but name (numpy's scalars, CPU tensors of other libraries)."""
    if not hasattr(data, "__array__"):
        raise ConfigTypeError(allowed(name, type(data).__name__, "must be a numpy array"))
    return np.asarray(data)


def _strings(data: Array, name: str) -> Tensor:
    """An array of text as a STRING tensor: every element in UTF-8, ended by a zero byte."""
    if data.dtype.kind != "U":
        nearest = NEAREST.get(data.dtype.name) or NEAREST_KIND.get(data.dtype.kind, "float64")
        known = ", ".join(WIRE)
        raise ConfigTypeError(allowed(f"dtype of {name!r}", str(data.dtype), f"use {nearest}; allowed are {known}"))
    words = [str(word) for word in data.ravel()]
    if any("\0" in word for word in words):
        raise ConfigError(allowed(name, "text with a zero byte", "must have none"))
    return Tensor(b"STRING", data.shape, b"".join(word.encode() + b"\0" for word in words))


def to_array(tensor: Tensor, asked: Command | str) -> Array:
    """A received tensor as a writable array that uses the received memory.

    :param asked: for errors; put into words only then.
    :raises DatabaseError: the data do not fit to the type and the shape.
    """
    kind, shape, data = tensor
    dtype = NUMPY.get(kind)
    try:
        if dtype is None:
            return _text_array(tensor)
        if isinstance(data, bytes):  # memory that numpy would make read-only
            data = bytearray(data)
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as exc:
        raise DatabaseError(
            f"{asked}: a {kind!r} tensor of shape {shape} that makes no sense: {exc}", str(asked)
        ) from exc


def _text_array(tensor: Tensor) -> Array:
    """A STRING tensor as an array of text."""
    if tensor.kind != b"STRING":
        raise ValueError("unknown type")
    words = bytes(tensor.data).decode(errors="surrogateescape").split("\0")[:-1]
    return np.array(words, dtype=np.str_).reshape(tensor.shape)


def to_tensor(reply: Any, asked: Command | str) -> Tensor:
    """A reply to ``AI.TENSORGET key META BLOB``, landed or as a plain array of six, as a tensor.

    :raises DatabaseError: it is something else.
    """
    if type(reply) is Tensor:
        return reply
    try:
        _, kind, _, shape, _, data = reply
        return Tensor(kind.upper(), tuple(map(int, shape)), data)
    except (TypeError, ValueError, AttributeError) as exc:
        raise DatabaseError(f"{asked}: the reply is no tensor: {reply!r:.100}", str(asked)) from exc


def size_of(shape: Sequence[int], kind: bytes) -> int | None:
    """How many bytes such a tensor has; None for types whose elements differ in length."""
    return prod(shape) * NUMPY[kind].itemsize if kind in NUMPY else None
