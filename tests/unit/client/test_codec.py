"""Arrays to payloads and back, and commands to bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asim import ConfigError, ConfigTypeError, DatabaseError
from asim.client.codec import LARGE, NUMPY, Tensor, command, encode, from_array, to_array, to_tensor
from asim.client.replies import ReplyReader

from .test_replies import read

TYPES = st.sampled_from(["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?", ">f8", ">i4", ">u2"])


def back(tensor: Tensor) -> np.ndarray:
    """The array that a receiver makes of what is sent."""
    return to_array(Tensor(tensor.kind, tensor.shape, bytearray(tensor.data)), "AI.TENSORGET x")


@given(st.data(), TYPES)
def test_any_layout_is_sent_in_row_major_order(data: st.DataObject, dtype: str) -> None:
    """Fortran order, strides, reversed axes, foreign byte order, views, read-only arrays: the elements are the same."""
    shape = data.draw(arrays.array_shapes(max_dims=4, max_side=4))
    array = data.draw(arrays.arrays(np.dtype(dtype), shape))
    changes = {
        "as it is": lambda a: a,
        "Fortran": np.asfortranarray,
        "reversed": lambda a: a[::-1],
        "transposed": np.transpose,
        "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
        "subclass": lambda a: a.view(np.matrix) if a.ndim == 2 else a,
    }
    array = changes[data.draw(st.sampled_from(sorted(changes)))](array)
    array.flags.writeable = False
    got = back(from_array(array, "x"))
    assert got.flags.writeable
    assert got.flags.c_contiguous
    assert got.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(got, array)


def test_no_copy_where_none_is_needed() -> None:
    """An array in row-major order is sent from its own memory, and a received one uses the received memory."""
    array = np.arange(10.0)
    assert np.shares_memory(np.frombuffer(from_array(array, "x").data, np.uint8), array)
    memory = np.arange(80, dtype=np.uint8)
    got = to_array(Tensor(b"DOUBLE", (5, 2), memory), "x")
    assert np.shares_memory(got, memory)
    got[0, 0] = 1


@pytest.mark.parametrize("value", [np.array(3.5), np.float32(2), np.array(True)])
def test_no_dimensions(value: np.ndarray) -> None:
    """Arrays without a dimension, and numpy's scalars, travel as such."""
    got = back(from_array(value, "x"))
    assert got.shape == ()
    assert got == value


def test_text() -> None:
    """Arrays of text are STRING tensors."""
    array = np.array([["a", ""], ["äöü", "long words"]])
    tensor = from_array(array, "x")
    assert (tensor.kind, tensor.shape, bytes(tensor.data)) == (
        b"STRING", (2, 2), "a\0\0äöü\0long words\0".encode(),
    )  # fmt: skip
    np.testing.assert_array_equal(back(tensor), array)


@pytest.mark.parametrize(
    ("dtype", "nearest"),
    [("f2", "float32"), ("u4", "int64"), ("u8", "int64"), ("c8", "float32"), ("c16", "float64"), ("g", "float64"),
     ("O", "array of numbers"), ("M8[s]", "int64"), ("m8[s]", "int64"), ("S3", "float64"), ([("a", "f4")], "one tensor")],
)  # fmt: skip
def test_other_types_name_the_nearest(dtype: str, nearest: str) -> None:
    """A type that the wire does not know is an error that says what to use instead."""
    with pytest.raises(ConfigTypeError, match=r"dtype of 'x' = .*: use .*" + nearest):
        from_array(np.zeros(3, dtype), "x")


@pytest.mark.parametrize("value", [[1.0, 2.0], 3, "text", None, b"bytes"])
def test_what_is_no_array(value: object) -> None:
    """Lists and other things whose type would be a guess are refused."""
    with pytest.raises(ConfigTypeError, match="x = .*: must be a numpy array"):
        from_array(value, "x")


def test_empty_arrays_are_refused() -> None:
    """A dimension of zero has no form on the wire; the error shows the shape."""
    with pytest.raises(ConfigError, match=r"shape of 'x' = \(0, 3\): every dimension must be at least 1"):
        from_array(np.zeros((0, 3)), "x")


@pytest.mark.parametrize(
    "tensor",
    [Tensor(b"DOUBLE", (2,), b"x" * 15), Tensor(b"DOUBLE", (3,), b"x" * 16), Tensor(b"FLOAT16", (1,), b"xx"),
     Tensor(b"STRING", (2,), b"a\0")],
)  # fmt: skip
def test_replies_that_make_no_sense(tensor: Tensor) -> None:
    """Data that do not fit to type and shape are an error with the command, never a wrong array."""
    with pytest.raises(DatabaseError, match=r"AI.TENSORGET x: .* makes no sense"):
        to_array(tensor, "AI.TENSORGET x")


@pytest.mark.parametrize("reply", [b"OK", None, 5, [1, 2], [b"dtype", b"FLOAT", b"shape", None, b"blob", b""]])
def test_replies_that_are_no_tensors(reply: object) -> None:
    """Another reply is an error with the command."""
    with pytest.raises(DatabaseError, match="AI.TENSORGET x: the reply is no tensor"):
        to_tensor(reply, "AI.TENSORGET x")


def test_plain_arrays_are_tensors_too() -> None:
    """A reply that came by way of hiredis gives the same, writable array."""
    got = to_array(to_tensor([b"dtype", b"double", b"shape", [2], b"blob", bytes(16)], "x"), "x")
    assert got.flags.writeable
    assert got.shape == (2,)


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(), st.text(max_size=9)), min_size=1, max_size=6))
def test_commands_are_arrays_of_strings(words: list[bytes | int | str]) -> None:
    """What is sent is what a server reads: an array of the words."""
    expected = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    assert read(ReplyReader(), b"".join(encode(words)), [17]) == [expected]


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1])
def test_large_payloads_stand_alone(size: int) -> None:
    """A large payload is a part of its own, in its own memory; a small one is joined with the rest."""
    payload = memoryview(bytearray(size))
    parts = encode((b"SET", "k", payload, b"EX", 5))
    assert any(part is payload for part in parts) == (size >= LARGE)
    assert len(parts) == (3 if size >= LARGE else 1)
    assert read(ReplyReader(), b"".join(parts), [1 << 20]) == [[b"SET", b"k", bytes(size), b"EX", b"5"]]


def test_commands_in_short() -> None:
    """Errors show a command by its verb and its key, also when that is no text, and never its payload."""
    assert command("AI.CONFIG GET", None, "X").text == "AI.CONFIG GET"
    assert command("AI.TENSORGET", b"{\xed\xeb}.m").text == r"AI.TENSORGET {\xed\xeb}.m"
    assert len(command("GET", b"k" * 1000).text) == 200


def test_types_of_the_wire() -> None:
    """The table is RedisAI's, less text."""
    assert {kind.decode() for kind in NUMPY} == {
        "FLOAT",
        "DOUBLE",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "BOOL",
    }
