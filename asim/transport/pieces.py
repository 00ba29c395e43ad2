"""Files piece by piece: what is in them, and their way to and from an open file on the far side."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from anyio import to_thread

from ..errors import FileActionError

Print = tuple[int, str]
"""Size and SHA-256."""
PIECE = 4 << 20
"""Bytes that are read here and written there (or the other way round) in one go."""


async def copied(file: Any, target: Any, offset: int, block: int, at: Callable[[int], None]) -> None:
    """Write the rest of a file to one there, and tell how far it is.

    Many requests are under way at once; they are answered in order, so what is there has no holes.
    """
    await to_thread.run_sync(file.seek, offset)
    while data := await to_thread.run_sync(file.read, PIECE):
        starts = range(0, len(data), block)
        await _together(target.write(data[start : start + block], offset + start) for start in starts)
        offset += len(data)
        at(offset)


async def next_piece(source: Any, offset: int, block: int) -> bytes:
    """The next bytes of a file there; b"" at its end."""
    parts = await _together(source.read(block, offset + start) for start in range(0, PIECE, block))
    data = b""
    for part in parts:
        data += part
        if len(part) < block:  # the end, or a server that gives less at a time
            break
    return data


async def _together(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """All of their results, when all have ended; the first error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def print_of(path: str) -> Print:
    """What a file here contains (blocking)."""
    sha = hashlib.sha256()
    size = 0
    with Path(path).open("rb") as file:
        while data := file.read(1 << 20):
            sha.update(data)
            size += len(data)
    return size, sha.hexdigest()


async def prints_of(paths: Sequence[str], missing: bool = False) -> list[Print | None]:
    """The same of many; None for one that cannot be read.

    :param missing: whether there may be such files.
    :raises FileActionError: there is one, and there may not be.
    """

    def all_of_them() -> list[Print | None]:
        found: list[Print | None] = []
        for path in paths:
            try:
                found.append(print_of(path))
            except OSError as exc:
                if not missing:
                    raise FileActionError(f"{exc.strerror}: {path}", exc.errno, path, "put") from exc
                found.append(None)
        return found

    return await to_thread.run_sync(all_of_them, abandon_on_cancel=True)
