"""Tasks and heads, in bytes: both halves must agree to the last one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.engine import protocol
from asim.engine.protocol import Call, Head, Tensor

dims = st.lists(st.integers(1, 5), max_size=4)
tensors = st.lists(st.tuples(st.integers(0, 9), dims, st.binary(max_size=40)), max_size=4)
texts = st.lists(st.text(max_size=8), max_size=3)


def test_the_bytes_of_a_task() -> None:
    """The layout that C writes, spelled out once: a change on one side alone would feed models with garbage."""
    data = protocol.write_task(1, 7, object=9, limit_ms=5, expected=2, rows=3, tensors=[(0, (3, 1), b"abcdefghijkl")])
    head = bytes.fromhex("01000000 05000000 0700000000000000 0900000000000000 01000000 02000000 00000000 03000000")
    tensor = bytes.fromhex("00 02 000000000000 0c00000000000000 0300000000000000 0100000000000000")
    assert data == head + bytes(8) + tensor + b"abcdefghijkl" + bytes(4)
    task = protocol.read_task(data)
    assert task == (1, 5, 7, 9, 2, 3, b"", [Tensor(0, (3, 1), 80, 12)], 96)
    assert protocol.read_tasks(data + data) == [task, (*task[:7], [Tensor(0, (3, 1), 176, 12)], 192)]


@given(tensors, st.binary(max_size=50))
def test_tasks_come_back(given_tensors: list[tuple[int, list[int], bytes]], extra: bytes) -> None:
    """Whatever the engine packs, the worker unpacks, each tensor's data aligned to 16 bytes."""
    task = protocol.read_task(protocol.write_task(protocol.CALL, 1, extra=extra, tensors=given_tensors))
    data = protocol.write_task(protocol.CALL, 1, extra=extra, tensors=given_tensors)
    assert task.extra == extra
    found = [(one.dtype, list(one.dims), data[one.at : one.at + one.size]) for one in task.tensors]
    assert found == given_tensors
    assert [one.at % 16 for one in task.tensors] == [0] * len(given_tensors)


@given(st.text(max_size=8), st.none() | st.integers(0, 100), texts, texts, st.booleans())
def test_calls_come_back(name: str, variadic: int | None, keys: list[str], args: list[str], entry: bool) -> None:
    """Names, keys and arguments keep their bytes, and "no list" is told from a list that begins at any input."""
    call = Call(function=name, variadic=variadic, keys=keys, args=args, entry_point=entry)
    assert protocol.call_of(protocol.write_call(call)) == call


def test_names_that_are_not_utf_8() -> None:
    """A key of any bytes survives: SmartRedis's cluster keys are such."""
    call = Call(function="f", keys=[b"{\xff\x80}.x".decode("utf-8", "surrogateescape")])
    assert protocol.call_of(protocol.write_call(call)).keys == call.keys


def test_drops_and_preparations() -> None:
    """The two small extra parts are read as they are written."""
    assert protocol.dropped((1).to_bytes(8, "little") + (2**40).to_bytes(8, "little")) == (1, 2**40)
    assert protocol.dropped(b"") == ()
    assert protocol.backend_of(b"ONNX") == "ONNX"


def test_heads_come_back() -> None:
    """Each kind of answer is read as it is written."""
    assert protocol.read_head(protocol.hello(5, "GPU:1")) == Head(status=protocol.HELLO, pid=5, device="GPU:1")
    outputs = [(0, (2, 3)), (9, (1,))]
    done = protocol.done(7, 11, [protocol.output(*one) for one in outputs])
    assert protocol.read_head(done) == Head(status=protocol.DONE, task=7, duration_us=11, outputs=outputs)
    loaded = protocol.loaded(8, 2, -1, bytes(range(32)))
    expected = Head(status=protocol.DONE, task=8, counts=(2, -1), digest=bytes(range(32)))
    assert protocol.read_head(loaded, protocol.LOAD) == expected


@pytest.mark.parametrize(
    ("text", "shown"), [("a\n  b\r\nc", "a b c"), ("x" * 5000, "x" * 2000), ("ä" * 1500, "ä" * 1000), ("", "")]
)
def test_errors_are_one_short_line(text: str, shown: str) -> None:
    """A line break would end the error reply and make the rest a reply of its own; half a character is none."""
    assert protocol.read_head(protocol.failed(3, text)) == Head(status=protocol.FAILED, task=3, text=shown)
