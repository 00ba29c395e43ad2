"""Objects in memory become files, for databases that are started beside a model and read files."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping

from anyio import to_thread

from ..agent.protocol import FileAction
from ..database.objects import Upload

BLOCK = 48 << 10
"""Bytes in one action: 64 KiB of base 64."""


async def spill(files: Callable[[Iterable[FileAction]], Awaitable[None]], spills: Mapping[str, Upload]) -> None:
    """Make the files that are not there yet; their names say what is in them, so one that is there is right.

    :param files: does file actions where jobs run.
    :param spills: path -> object.

    Cancellation: a file that is there is whole.
    """
    if spills:
        there = await to_thread.run_sync(existing, spills)
        for path, upload in spills.items():
            if path not in there:
                await files(_written(path, upload.content.data or b""))


def existing(spills: Mapping[str, Upload]) -> Collection[str]:
    """The paths of files of the right size (blocking)."""
    found = set()
    for path, upload in spills.items():
        try:
            if os.stat(path).st_size == upload.content.size:
                found.add(path)
        except OSError:
            continue
    return found


def _written(path: str, data: bytes) -> Iterator[FileAction]:
    folder, name = os.path.split(path)
    fresh = f"{folder}/.{name}.asim-new"
    yield from (("mkdirs", folder), ("remove", fresh), ("write", fresh, "", 0o600))
    view = memoryview(data)
    for start in range(0, len(view), BLOCK):
        yield ("data", fresh, b64encode(view[start : start + BLOCK]).decode("ascii"))
    yield ("rename", path, fresh)
