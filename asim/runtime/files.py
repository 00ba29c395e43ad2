"""Small files that the driver itself reads, writes and removes."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from anyio import to_thread


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet: ``path``, or ``stem_01`` … beside it (blocking: call it in a thread)."""
    target, number = path, 0
    while True:
        try:
            with target.open("x") as file:
                file.write(text)
            return
        except FileExistsError:
            number += 1
            target = path.with_name(f"{path.stem}_{number:02d}{path.suffix}")


def read_all(paths: Sequence[str]) -> list[bytes]:
    """What these files have in them; b"" for one that is not there (blocking)."""
    return [_read(Path(path)) for path in paths]


def read_from(path: str, offset: int) -> bytes:
    """What a file has from ``offset`` on; b"" if it is not there (blocking)."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


async def read_files(paths: Sequence[str]) -> list[bytes]:
    """The same in a thread."""
    return await to_thread.run_sync(read_all, paths)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def shown(data: bytes, size: int = 500) -> str:
    """The last words of a text, on one line."""
    return " ".join(data[-size:].decode("utf-8", "replace").split())


def remove_aside(directories: Sequence[str]) -> None:
    """Remove ``directory.1``, ``directory.2`` …: what an earlier deployment left (blocking)."""
    for path in map(Path, directories):
        for aside in path.parent.glob(f"{path.name}.*"):
            if aside.suffix[1:].isdigit() and aside.is_dir():
                shutil.rmtree(aside)
