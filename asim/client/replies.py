"""Replies from bytes, without any I/O: one incremental reader for both faces of the client.

The owner of a socket receives into :meth:`ReplyReader.get_buffer` and reports with :meth:`ReplyReader.feed`. Most bytes
go to hiredis. The blob of a tensor, and any other large string, lands in its own final memory instead: while one is
coming, ``get_buffer`` is what is missing of that memory, so the kernel writes into the array itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from hiredis import Reader

from .codec import LARGE, Array, Tensor

SCRATCH = LARGE + (1 << 14)
"""Holds the smallest string that lands in memory of its own, whole. More would only be copied from here to there."""
MAX_HEADER = 1024

_SHAPE = rb"(?::\d{1,19}\r\n)*"
_START = rb"\*6\r\n\$5\r\ndtype\r\n\$\d{1,2}\r\n"
_MIDDLE = rb"\r\n\$5\r\nshape\r\n\*\d{1,3}\r\n"
_HEADER = re.compile(_START + rb"([A-Z0-9]{1,16})" + _MIDDLE + rb"(" + _SHAPE + rb")\$4\r\nblob\r\n\$(\d{1,13})\r\n")
_BULK = re.compile(rb"\$(\d{1,13})\r\n")
_OK = b"+OK\r\n"
_PLUS, _COLON, _DOLLAR, _STAR = b"+:$*"
_MORE = object()


def _beginnings(atoms: Iterable[bytes]) -> re.Pattern[bytes]:
    """What matches every beginning of the text that the atoms match in a row."""
    pattern = b""
    for atom in reversed(list(atoms)):
        pattern = b"(?:" + atom + pattern + b")?"
    return re.compile(pattern)


def _chars(text: bytes) -> list[bytes]:
    """Literal text as one atom a character."""
    return [re.escape(bytes([char])) for char in text]


_HEADER_BEGUN = _beginnings(
    [
        *_chars(b"*6\r\n$5\r\ndtype\r\n$"), rb"\d{1,2}", *_chars(b"\r\n"), rb"[A-Z0-9]{1,16}",
        *_chars(b"\r\n$5\r\nshape\r\n*"), rb"\d{1,3}", *_chars(b"\r\n"), _SHAPE + rb"(?::\d{0,19}\r?\Z)?",
        *_chars(b"$4\r\nblob\r\n$"), rb"\d{1,13}", rb"\r",
    ]
)  # fmt: skip


class ErrorReply:
    """An error that the server answered; a value here, because a pipeline has replies of both kinds."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"ErrorReply({self.text!r})"


class ReplyReader:
    """Bytes as they arrive, in whatever pieces, to replies.

    Replies are what hiredis makes of them (bytes, int, None, list), :class:`ErrorReply`, or :class:`Tensor`.
    """

    def __init__(self) -> None:
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._end = 0
        self._deep = False
        """Inside a reply that hiredis has begun."""
        self._owed = 0
        """How many bytes of the line end after a landed blob are still to come."""
        self._missing: memoryview | None = None
        self._landing: tuple[tuple[bytes, tuple[int, ...]] | None, Array] | None = None
        self._known: tuple[bytes, tuple[bytes, tuple[int, ...]], int] = (b"no header", (b"", ()), 0)
        """The last tensor's header and what it says: who fetches tensors mostly fetches others of the same shape."""
        self._reader = Reader(replyError=ErrorReply, errors="surrogateescape", notEnoughData=_MORE)  # type: ignore[arg-type]

    @property
    def landing(self) -> bool:
        """Whether a large string is coming, so that it is worth receiving again at once."""
        return self._missing is not None or self._owed > 0

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._view[self._end :] if self._missing is None else self._missing

    def feed(self, size: int) -> list[object]:
        """The replies that are complete with the ``size`` bytes that were received into the buffer.

        :raises Exception: the bytes are no replies; nothing more can be read from this connection.
        """
        replies: list[object] = []
        if self._missing is not None:
            self._missing = self._missing[size:]
            if not self._missing:
                replies.append(self._landed())
            return replies
        self._end += size
        self._keep(self._scan(replies))
        return replies

    def _keep(self, start: int) -> None:
        """The unread rest, a header whose end is missing, moves to the front."""
        rest = self._end - start
        if rest and start:
            self._view[:rest] = bytes(self._view[start : self._end])
        self._end = rest

    def _scan(self, replies: list[object]) -> int:
        """Read what is in the scratch memory; returns the position of the first byte that has to wait."""
        data, end = self._scratch, self._end
        position = self._line_end(0)
        if self._deep:
            position = self._parse(position, replies)
        while position < end:
            first = data[position]
            if first == _PLUS and data.startswith(_OK, position, end):
                replies.append(b"OK")
                position += 5
            elif first == _COLON and (stop := data.find(b"\r\n", position, end)) > 0:
                replies.append(int(data[position + 1 : stop]))
                position = stop + 2
            else:
                after = self._large(first, position, replies) if first in (_STAR, _DOLLAR) else 0
                if after < 0:
                    break
                position = after or self._parse(position, replies)
        return min(position, end)

    def _parse(self, position: int, replies: list[object]) -> int:
        """Give the rest to hiredis, which stays in charge until a reply ends where the received bytes end."""
        self._reader.feed(self._view[position : self._end])  # type: ignore[arg-type]
        while True:
            reply = self._reader.gets()
            if reply is _MORE:
                self._deep = True
                break
            replies.append(reply)
            # Looked at between replies: in the middle of an array hiredis may have nothing left to read either.
            if not self._reader.has_data():
                self._deep = False
                break
        return self._end

    def _large(self, first: int, position: int, replies: list[object]) -> int:
        """Begin a reply that lands in its own memory; returns where it ends, 0 if it is none, -1 if more is needed."""
        if first == _DOLLAR:
            bulk = _BULK.match(self._scratch, position, self._end)
            if bulk is None or int(bulk[1]) < LARGE:
                return 0
            return self._land(None, int(bulk[1]), bulk.end(), replies)
        text, what, size = self._known
        if self._scratch.startswith(text, position, self._end):
            return self._land(what, size, position + len(text), replies)
        header = _HEADER.match(self._scratch, position, self._end)
        if header is not None:
            what = bytes(header[1]), tuple(map(int, header[2].replace(b":", b"").split()))
            self._known = bytes(header[0]), what, int(header[3])
            return self._land(what, int(header[3]), header.end(), replies)
        begun = self._end - position < MAX_HEADER and _HEADER_BEGUN.fullmatch(self._scratch, position, self._end)
        return -1 if begun else 0

    def _land(self, what: tuple[bytes, tuple[int, ...]] | None, size: int, start: int, replies: list[object]) -> int:
        """Take what is there of ``size`` bytes, and arrange that the rest is received into its place."""
        stop = start + size
        if what is not None and size < LARGE and stop <= self._end:
            replies.append(Tensor(*what, self._scratch[start:stop]))
            self._owed = 2
            return self._line_end(stop)
        place = np.empty(size, np.uint8)
        memory = memoryview(place)  # type: ignore[arg-type]
        here = min(size, self._end - start)
        memory[:here] = self._view[start : start + here]
        self._landing = (what, place)
        if here < size:
            self._missing = memory[here:]
            return self._end
        replies.append(self._landed())
        return self._line_end(stop)

    def _landed(self) -> object:
        """The reply whose memory is full."""
        assert self._landing is not None
        what, place = self._landing
        self._landing, self._missing, self._owed = None, None, 2
        return place.tobytes() if what is None else Tensor(*what, place)

    def _line_end(self, position: int) -> int:
        """Step over what is there of the line end that follows a blob."""
        owed = min(self._owed, self._end - position)
        if owed and self._scratch[position : position + owed] != b"\r\n"[2 - self._owed :][:owed]:
            raise ValueError("a string of another length than the server said")
        self._owed -= owed
        return position + owed
