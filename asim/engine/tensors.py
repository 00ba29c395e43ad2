"""Between the tensors of the wire and numpy's arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .backends import BackendError
from .protocol import STRING, Tensor, output

Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(name) for name in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?")]
"""numpy's types, by the code of the wire."""
_CODES = {dtype.num: code for code, dtype in enumerate(DTYPES) if dtype.kind != "b"}
_CODES[np.dtype(np.longlong).num] = _CODES[np.dtype("i8").num]  # the other 8 bytes
_CASTS = {
    "bool": "u1",  # and not BOOL, which SmartRedis's clients cannot read
    "float16": "f4",
    "bfloat16": "f4",
    "uint32": "i8",
    "int4": "i1",
    "uint4": "u1",
}
"""What has no type of its own on the wire."""
_HEADS = 1024
"""Shapes whose heads are remembered."""


def arrays_of(data: bytes | bytearray | memoryview, tensors: Sequence[Tensor]) -> list[Array]:
    """The inputs of a task, without copies; a STRING tensor becomes an array of str.

    :raises BackendError: a STRING tensor is not UTF-8.
    """
    return [
        np.ndarray(dims, DTYPES[dtype], data, at) if dtype != STRING else _strings(data, dims, at, size)
        for dtype, dims, at, size in tensors
    ]


def _strings(data: bytes | bytearray | memoryview, dims: tuple[int, ...], at: int, size: int) -> Array:
    try:
        words = bytes(data[at : at + size]).decode().split("\0")[:-1]
    except UnicodeDecodeError as exc:
        raise BackendError(f"ERR a STRING tensor is not UTF-8: {exc}") from exc
    if len(words) != math.prod(dims):
        raise BackendError(f"ERR a STRING tensor of shape {list(dims)} has {len(words)} elements")
    found = np.empty(len(words), object)
    found[:] = words
    return found.reshape(dims)


class Packer:
    """Turns outputs into what is sent. Not for several threads."""

    def __init__(self) -> None:
        self._heads: dict[Any, bytes] = {}

    def pack(self, arrays: Sequence[Array], rows: int) -> tuple[list[bytes], list[Any]]:
        """The heads and the data of outputs.

        :param rows: what the first dimension must be; 0: anything.
        :raises BackendError: an output that the wire has no type for, or of another shape.
        """
        heads, data = [], []
        for index, array in enumerate(arrays):
            if rows and (not array.ndim or array.shape[0] != rows):
                raise BackendError("ERR Model did not generate the expected batch size")
            key = (array.dtype.num, array.shape)
            head = self._heads.get(key)
            if head is None or not array.flags.c_contiguous:
                head, array = self._new(key, wire(array, index))
            heads.append(head)
            data.append(array)
        return heads, data

    def _new(self, key: Any, ready: tuple[int, tuple[int, ...], Any]) -> tuple[bytes, Any]:
        code, dims, data = ready
        head = output(code, dims)
        if _CODES.get(key[0]) == code:  # it needs no cast the next time
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head, data


def wire(array: Array, index: int) -> tuple[int, tuple[int, ...], Any]:
    """An output's type, its dimensions, and its data, row by row.

    bool becomes UINT8, 16-bit floats FLOAT, uint32 and uint64 INT64, text STRING, and a scalar an array of one.

    :param index: which output it is, for errors.
    :raises BackendError: another type, a value that does not fit, or no elements.
    """
    dims = array.shape or (1,)
    if not array.size:
        raise BackendError(f"ERR output {index} of the model is empty, of shape {list(array.shape)}; no tensor can be")
    if array.dtype.kind in "OUS":
        return STRING, dims, _joined(array, index)
    cast = _cast(array, index)
    return _CODES[cast.dtype.num], dims, np.ascontiguousarray(cast).reshape(dims)


def _cast(array: Array, index: int) -> Array:
    if array.dtype.num in _CODES:
        return array
    name = array.dtype.name
    if name == "uint64":
        if (array >> np.uint64(63)).any():
            raise BackendError(f"ERR output {index} of the model has values of uint64 that INT64 has no room for")
        return array.astype(np.int64)
    to = _CASTS.get(name, "f4" if name.startswith("float8") else None)
    if to is None:
        raise BackendError(f"ERR output {index} of the model is of the type {name}, which no tensor here can have")
    return array.astype(to)


def _joined(array: Array, index: int) -> bytes:
    words = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    if any(b"\0" in word for word in words):
        raise BackendError(
            f"ERR output {index} of the model has text with NUL in it, which ends an element of a STRING"
        )
    return b"".join(word + b"\0" for word in words)
