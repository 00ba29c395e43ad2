"""The reply reader: any cut of the byte stream gives the same replies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asim.client.codec import LARGE, Tensor
from asim.client.replies import SCRATCH, ErrorReply, ReplyReader


def tensor(kind: bytes = b"FLOAT", shape: tuple[int, ...] = (2, 3), data: bytes = b"x" * 24) -> bytes:
    """A tensor reply as the server sends it."""
    dims = b"".join(b":%d\r\n" % length for length in shape)
    head = b"*6\r\n$5\r\ndtype\r\n$%d\r\n%b\r\n$5\r\nshape\r\n*%d\r\n" % (len(kind), kind, len(shape))
    return head + dims + b"$4\r\nblob\r\n$%d\r\n%b\r\n" % (len(data), data)


def read(reader: ReplyReader, data: bytes, sizes: list[int]) -> list[Any]:
    """The replies in some bytes that come in pieces of these sizes, again and again."""
    replies: list[Any] = []
    position = turn = 0
    while position < len(data):
        place = reader.get_buffer()
        size = min(len(place), len(data) - position, sizes[turn % len(sizes)])
        place[:size] = data[position : position + size]
        replies += reader.feed(size)
        position, turn = position + size, turn + 1
    return [plain(reply) for reply in replies]


def plain(reply: Any) -> Any:
    """A reply that can be compared."""
    if isinstance(reply, ErrorReply):
        return ("error", reply.text)
    if isinstance(reply, Tensor):
        return (reply.kind, reply.shape, bytes(reply.data))
    if isinstance(reply, list) and len(reply) == 6 and reply[0] == b"dtype" and isinstance(reply[3], list):
        return (reply[1], tuple(reply[3]), reply[5])
    return [plain(one) for one in reply] if isinstance(reply, list) else reply


bulks = st.binary(max_size=60).map(lambda data: (b"$%d\r\n%b\r\n" % (len(data), data), data))
numbers = st.integers(-(2**63), 2**63 - 1).map(lambda number: (b":%d\r\n" % number, number))
flat = st.one_of(
    st.just((b"+OK\r\n", b"OK")),
    st.just((b"+PONG\r\n", b"PONG")),
    st.just((b"$-1\r\n", None)),
    st.just((b"-ERR no such key\r\n", ("error", "ERR no such key"))),
    bulks,
    numbers,
)
shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)
tensors = st.tuples(st.sampled_from([b"FLOAT", b"INT8", b"UINT16"]), shapes, st.binary(max_size=400)).map(
    lambda one: (tensor(*one), (one[0], one[1], one[2]))
)
large = st.integers(LARGE, LARGE + 3).map(
    lambda size: (tensor(b"INT8", (size,), b"\r\n" * (size // 2) + b"z" * (size % 2)),
                  (b"INT8", (size,), b"\r\n" * (size // 2) + b"z" * (size % 2)))
)  # fmt: skip
big_bulks = st.integers(LARGE, LARGE + 3).map(lambda size: (b"$%d\r\n%b\r\n" % (size, b"$" * size), b"$" * size))
lists = st.lists(st.one_of(flat, tensors), max_size=7).map(
    lambda items: (b"*%d\r\n" % len(items) + b"".join(data for data, _ in items), [value for _, value in items])
)
streams = st.lists(st.one_of(flat, tensors, lists), max_size=12)
pieces = st.lists(st.integers(1, 70), min_size=1, max_size=5)


@given(streams, pieces)
def test_any_cut_gives_the_same_replies(stream: list[tuple[bytes, Any]], sizes: list[int]) -> None:
    """Whatever the pieces in which the bytes arrive, the replies are those that were sent, in order."""
    assert read(ReplyReader(), b"".join(data for data, _ in stream), sizes) == [value for _, value in stream]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.one_of(flat, tensors, large, big_bulks, lists), max_size=5),
    st.lists(st.sampled_from([1, 3, 57, 1000, LARGE - 1, LARGE, LARGE + 77, SCRATCH]), min_size=1, max_size=4).filter(
        lambda sizes: max(sizes) > 50
    ),
)
def test_large_strings_land_whole(stream: list[tuple[bytes, Any]], sizes: list[int]) -> None:
    """Strings that are received in their own memory are whole, wherever the bytes are cut, and what follows is too."""
    assert read(ReplyReader(), b"".join(data for data, _ in stream), sizes) == [value for _, value in stream]


@given(st.lists(st.sampled_from([(2, 3), (3, 2), (6,)]), max_size=8), pieces)
def test_headers_seen_before(shapes: list[tuple[int, ...]], sizes: list[int]) -> None:
    """A header that is the same as the last one, or nearly, is read as what it says."""
    got = read(ReplyReader(), b"".join(tensor(shape=shape) for shape in shapes), sizes)
    assert got == [(b"FLOAT", shape, b"x" * 24) for shape in shapes]


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_other_arrays_of_six(size: int) -> None:
    """An array that begins like a tensor and goes on otherwise is given at once, as a plain array."""
    other = b"*6\r\n$5\r\ndtype\r\n$5\r\nFLOAT\r\n$5\r\nshape\r\n*1\r\n:1\r\n$6\r\nvalues\r\n*1\r\n$1\r\n5\r\n"
    names = b"*6\r\n$5\r\ndtype\r\n$2\r\nno\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n"
    reader = ReplyReader()
    assert read(reader, other, [size]) == [(b"FLOAT", (1,), [b"5"])]
    assert read(reader, names, [size]) == [[b"dtype", b"no", b"a", b"b", b"c", b"d"]]
    assert read(reader, tensor(), [size]) == [(b"FLOAT", (2, 3), b"x" * 24)]


def test_kernel_writes_into_the_array() -> None:
    """While a large tensor comes, the buffer is a part of the reply's own memory: there is no copy to make."""
    size = 1 << 20
    data = tensor(b"DOUBLE", (size // 8,), bytes(size))
    reader = ReplyReader()
    assert read(reader, data[:1000], [1000]) == []
    assert reader.landing
    place = reader.get_buffer()
    assert 0 < len(place) < size
    place[:] = b"\1" * len(place)
    (reply,) = reader.feed(len(place))
    assert isinstance(reply, Tensor)
    assert np.shares_memory(np.frombuffer(place, np.uint8), np.asarray(reply.data))
    assert read(reader, b"\r\n+OK\r\n", [1]) == [b"OK"]


def test_wrong_lengths_are_noticed() -> None:
    """A string that does not end where the server said is an error, not the beginning of the next reply."""
    data = tensor(b"INT8", (LARGE,), bytes(LARGE))[:-2] + b"xy"
    with pytest.raises(ValueError, match="another length"):
        read(ReplyReader(), data, [1 << 20])


def test_what_is_no_reply_is_an_error() -> None:
    """Bytes of another protocol are refused."""
    with pytest.raises(Exception, match="Protocol error"):
        read(ReplyReader(), b"HTTP/1.1 200 OK\r\n", [100])
