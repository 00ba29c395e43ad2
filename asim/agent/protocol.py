"""The driver's half of the agent's protocol: frames to bytes and bytes to frames, without any I/O.

The frames are described in :mod:`asim.agent.main`, which is the other half.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import AgentError

VERSION = 6
MAX_FRAME = 1 << 26

FileAction = tuple[Any, ...]
"""``(verb, path, ...)``: mkdir, mkdirs, write, template, render, append, data, sync, symlink, swap, rename, remove, copy.

Made by the functions of :mod:`asim.generate`, executed by the agent of the host where the path is.
"""

Environment = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process to start: everything resolved.

    :ivar limit: the run time in seconds after which it is stopped.
    :ivar free: it does not count for the cap on processes, and never waits for others to end.
    :ivar paced: it waits while several others of this kind are starting, as run commands should.
    """

    key: int
    argv: tuple[str, ...]
    env: Environment = ()
    cwd: str
    stdout: str
    stderr: str
    limit: float | None = None
    free: bool = False
    paced: bool = False


class Completed(NamedTuple):
    """How a command ended. Text is UTF-8 with surrogate escapes, so that no byte is lost.

    :ivar code: exit code; negative: the signal that ended it; None: it could not be started, or was stopped after its
        time (then ``stderr`` says so).
    """

    argv: tuple[str, ...]
    code: int | None
    stdout: str = ""
    stderr: str = ""

    def words(self) -> str:
        """What went wrong, for a message: the command, its exit code, and what it said."""
        said = (self.stderr.strip() or self.stdout.strip())[-2000:]
        how = "did not end in time or could not be run" if self.code is None else f"ended with code {self.code}"
        return f"{self.argv[0]} {how}" + (f": {said}" if said else "")


_encode = json.JSONEncoder(separators=(",", ":")).encode


def frame(*message: object) -> bytes:
    """One message as bytes.

    :raises AgentError: when it is longer than a frame may be.
    """
    body = _encode(message).encode("ascii")
    if len(body) > MAX_FRAME:
        raise AgentError(f"a message of {len(body)} bytes to the agent; at most {MAX_FRAME} are allowed")
    return struct.pack("!I", len(body)) + body


def spawn_frame(specs: Iterable[ProcessSpec]) -> bytes:
    """Many processes in one frame; an argv or environment that several share is sent once."""
    argvs: dict[tuple[str, ...], int] = {}
    envs: dict[Environment, int] = {}
    rows = [
        (
            spec.key,
            argvs.setdefault(spec.argv, len(argvs)),
            envs.setdefault(spec.env, len(envs)),
            spec.cwd,
            spec.stdout,
            spec.stderr,
            spec.limit,
            spec.free,
            spec.paced,
        )
        for spec in specs
    ]
    return frame("spawn", {"argv": list(argvs), "env": list(envs), "jobs": rows})


FRAME_ACTIONS = 200
FRAME_TEXT = 1 << 16
"""How many actions, and about how many characters of text, one frame of file actions has: little work at a time."""


def files_frames(number: int, actions: Iterable[FileAction]) -> Iterator[bytes]:
    """A batch of file actions in frames; the agent drops the rest of a batch after its first error."""
    part: list[FileAction] = []
    weight = 0
    for action in actions:
        if len(part) == FRAME_ACTIONS or weight > FRAME_TEXT:
            yield frame("files", number, part, False)
            part, weight = [], 0
        part.append(action)
        weight += sum(map(_weight, action))
    yield frame("files", number, part, True)


def _weight(item: object) -> int:
    """About how many characters something has as JSON."""
    if isinstance(item, (list, tuple)):
        return sum(map(_weight, item))
    return len(item) if isinstance(item, str) else 8


class FrameDecoder:
    """Bytes as they arrive, in whatever pieces, to messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[Sequence[Any]]:
        """The messages that ``data`` completes.

        :raises AgentError: when the bytes are not frames of this protocol.
        """
        self._buffer += data
        messages: list[Sequence[Any]] = []
        offset = 0
        while len(self._buffer) - offset >= 4:
            (size,) = struct.unpack_from("!I", self._buffer, offset)
            if size > MAX_FRAME:
                raise AgentError(f"the agent sent a frame of {size} bytes; at most {MAX_FRAME} are allowed")
            if len(self._buffer) - offset - 4 < size:
                break
            messages.append(self._message(self._buffer[offset + 4 : offset + 4 + size]))
            offset += 4 + size
        del self._buffer[:offset]
        return messages

    @staticmethod
    def _message(body: bytes | bytearray) -> Sequence[Any]:
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise AgentError(f"the agent sent something that is not JSON: {bytes(body[:80])!r}") from exc
        if not isinstance(message, list) or not message or not isinstance(message[0], str):
            raise AgentError(f"the agent sent {message!r:.80}, which is not a message")
        return message
