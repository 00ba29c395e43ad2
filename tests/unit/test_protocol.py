"""The driver's half of the agent's protocol."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.agent import protocol
from asim.agent.protocol import FrameDecoder, ProcessSpec, files_frames, frame, spawn_frame
from asim.errors import AgentError

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("\udcff"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.tuples(st.text(), st.lists(anything, max_size=3)).map(lambda pair: [pair[0], *pair[1]]), max_size=5
)


def decode(data: bytes) -> Any:
    """The only message in ``data``."""
    (message,) = FrameDecoder().feed(data)
    return message


def pack(body: bytes) -> bytes:
    """A frame with any body."""
    return struct.pack("!I", len(body)) + body


def spec(key: int, argv: tuple[str, ...] = ("a",), env: Any = (), limit: float | None = None) -> ProcessSpec:
    """A process to start."""
    return ProcessSpec(key=key, argv=argv, env=env, cwd="/c", stdout=f"/o{key}", stderr="/e", limit=limit)


# -- frames


def test_a_frame() -> None:
    """A frame is the length in four bytes, big end first, and JSON in ASCII without blanks."""
    assert frame("stop", [1, 2], 0.5) == b'\x00\x00\x00\x12["stop",[1,2],0.5]'
    assert frame("é\udcff").isascii()


@given(messages, st.data())
def test_round_trip_in_pieces(sent: list[list[Any]], data: st.DataObject) -> None:
    """Messages arrive whole and in order, however their bytes are cut."""
    stream = b"".join(frame(*message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, received = FrameDecoder(), []
    for start, stop in pairwise([0, *cuts, len(stream)]):
        received += decoder.feed(stream[start:stop])
    assert received == sent


def test_message_is_given_as_soon_as_it_is_whole() -> None:
    """Nothing is given before the last byte, and what follows it is kept."""
    decoder, first, second = FrameDecoder(), frame("a", 1), frame("b")
    assert decoder.feed(first[:-1]) == []
    assert decoder.feed(bytearray(first[-1:] + second[:3])) == [["a", 1]]
    assert decoder.feed(second[3:]) == [["b"]]


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_garbage(pieces: list[bytes]) -> None:
    """Whatever bytes come, the decoder gives messages or raises AgentError, and nothing else."""
    decoder = FrameDecoder()
    try:
        received = [message for piece in pieces for message in decoder.feed(piece)]
    except AgentError:
        return
    assert all(isinstance(message, list) and isinstance(message[0], str) for message in received)


@given(st.binary(max_size=30) | anything.map(lambda value: json.dumps(value).encode()))
def test_bodies(body: bytes) -> None:
    """The body of a frame is a message, or it is an AgentError that shows it."""
    try:
        verb, *_ = decode(pack(body))
    except AgentError as error:
        verb, what = "", str(error)
    else:
        what = "the agent sent a message"
    assert isinstance(verb, str)
    assert what.startswith("the agent sent")


@pytest.mark.parametrize("body", [b"", b"{", b"[", b"\xff\xfe", b'["a"', b"[" * 200_000, b"9" * 5000, b'["a"] x'])
def test_no_json(body: bytes) -> None:
    """A body that is not JSON, however odd, is an AgentError that is not long."""
    with pytest.raises(AgentError, match="the agent sent something that is not JSON") as caught:
        decode(pack(body))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("body", [b"[]", b"{}", b"[1]", b"null", b'"ready"', b"[null]", b'[["a"]]'])
def test_no_message(body: bytes) -> None:
    """JSON that is not a list beginning with a verb is no message."""
    with pytest.raises(AgentError, match="which is not a message"):
        decode(pack(body))


def test_frame_that_is_too_long_to_receive() -> None:
    """A frame that says it is too long is refused at its head, not waited for."""
    with pytest.raises(AgentError, match=f"a frame of {protocol.MAX_FRAME + 1} bytes; at most {protocol.MAX_FRAME}"):
        FrameDecoder().feed(struct.pack("!I", protocol.MAX_FRAME + 1))
    assert FrameDecoder().feed(struct.pack("!I", protocol.MAX_FRAME)) == []


def test_frame_that_is_too_long_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message may be as long as the limit, and not longer."""
    monkeypatch.setattr(protocol, "MAX_FRAME", 10)
    assert len(frame("a" * 6)) == 14
    with pytest.raises(AgentError, match="a message of 11 bytes to the agent; at most 10 are allowed"):
        frame("a" * 7)


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "words"),
    [
        (1, "out", " err\n", "qsub ended with code 1: err"),
        (-9, "out\n", "\n", "qsub ended with code -9: out"),
        (2, "", "", "qsub ended with code 2"),
        (
            None,
            "",
            "no such executable: qsub",
            "qsub did not end in time or could not be run: no such executable: qsub",
        ),
        (1, "", "x" * 5000 + "end", "qsub ended with code 1: " + "x" * 1997 + "end"),
    ],
)
def test_how_a_command_ended(code: int | None, stdout: str, stderr: str, words: str) -> None:
    """The words have the command, its end, and the last of what it said, errors first."""
    assert protocol.Completed(("qsub", "-z"), code, stdout, stderr).words() == words


# -- what is in them


def test_spawn() -> None:
    """Argument lists and environments are sent once each; a job refers to them by number."""
    first, second = ("a", "b"), ("c",)
    env = (("A", "1"), ("B", None))
    verb, batch = decode(
        spawn_frame(
            [
                spec(1, first),
                spec(2, second, env),
                spec(3, first, env, limit=2.5),
                replace(spec(4, first), free=True),
                replace(spec(5, first), paced=True),
            ]
        )
    )
    assert verb == "spawn"
    assert batch["argv"] == [["a", "b"], ["c"]]
    assert batch["env"] == [[], [["A", "1"], ["B", None]]]
    assert batch["jobs"] == [
        [1, 0, 0, "/c", "/o1", "/e", None, False, False],
        [2, 1, 1, "/c", "/o2", "/e", None, False, False],
        [3, 0, 1, "/c", "/o3", "/e", 2.5, False, False],
        [4, 0, 0, "/c", "/o4", "/e", None, True, False],
        [5, 0, 0, "/c", "/o5", "/e", None, False, True],
    ]


@given(st.lists(st.tuples(st.lists(st.text(), min_size=1, max_size=2), st.text(max_size=1)), max_size=8))
def test_spawn_tables(jobs: list[tuple[list[str], str]]) -> None:
    """Looked up in the tables, every job has its own arguments and environment, and no table has anything twice."""
    _, batch = decode(spawn_frame(spec(key, tuple(argv), (("V", value),)) for key, (argv, value) in enumerate(jobs)))
    assert [batch["argv"][row[1]] for row in batch["jobs"]] == [argv for argv, _ in jobs]
    assert [batch["env"][row[2]] for row in batch["jobs"]] == [[["V", value]] for _, value in jobs]
    assert len(batch["argv"]) == len({tuple(argv) for argv, _ in jobs})
    assert len(batch["env"]) == len({value for _, value in jobs})


texts = st.sampled_from(["", "x" * 30, "y" * 70])
actions = st.lists(
    st.one_of(
        st.just(("mkdir", "/d")),
        st.tuples(st.just("write"), st.just("/f"), texts),
        st.tuples(st.just("template"), st.just("/t"), st.just(0), st.lists(texts, min_size=1, max_size=4).map(tuple)),
        st.tuples(st.just("render"), st.just("/r"), st.just(0), st.lists(texts, max_size=4), st.just(0o644)),
    ),
    max_size=25,
)


def size(action: Any) -> int:
    """The characters of text in an action."""
    return sum(len(item) if isinstance(item, str) else size(item) for item in action if not isinstance(item, int))


@given(actions)
def test_files(given_actions: list[Any]) -> None:
    """A batch is cut into frames in order; the last one, and no other, says it is; none has much work in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "FRAME_ACTIONS", 5)
        patch.setattr(protocol, "FRAME_TEXT", 100)
        frames = [decode(part) for part in files_frames(7, iter(given_actions))]
    assert [one[:2] for one in frames] == [["files", 7]] * len(frames)
    assert json.dumps([action for one in frames for action in one[2]]) == json.dumps(given_actions)
    assert [one[3] for one in frames] == [False] * (len(frames) - 1) + [True]
    assert all(len(one[2]) <= 5 and sum(map(size, one[2][:-1])) <= 100 for one in frames)


def test_files_without_actions() -> None:
    """An empty batch is one empty frame, so that its end is told."""
    assert [decode(part) for part in files_frames(1, ())] == [["files", 1, [], True]]


def test_files_are_few_frames() -> None:
    """Small actions share frames: a batch is not cut more often than it must be."""
    batch = [("mkdir", "/d")] * (2 * protocol.FRAME_ACTIONS + 1)
    assert [len(decode(part)[2]) for part in files_frames(1, batch)] == [
        protocol.FRAME_ACTIONS,
        protocol.FRAME_ACTIONS,
        1,
    ]


def test_many_large_templates_fit() -> None:
    """Templates count with their text: many of them never make a frame that is too long to send."""
    batch = [("template", f"/t{number}", number, ("x" * protocol.FRAME_TEXT,)) for number in range(20)]
    assert max(len(part) for part in files_frames(1, batch)) < 4 * protocol.FRAME_TEXT


def test_files_are_cut_as_they_are_made() -> None:
    """Actions are asked for a frame at a time, so that a large batch is never whole in memory."""
    remaining = iter([("mkdir", "/d")] * (4 * protocol.FRAME_ACTIONS))
    next(files_frames(1, remaining))
    assert len(list(remaining)) >= 2 * protocol.FRAME_ACTIONS
