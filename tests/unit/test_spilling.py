"""Objects in memory become files by actions of the agent's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest

import asim.agent
from asim.agent.protocol import FileAction
from asim.database.objects import Content, upload_of
from asim.entities import Script
from asim.runtime.spilling import BLOCK, spill


@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_bytes_arrive_as_they_are(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the bytes, the file has them, under its name only when it is whole; what is there is not made again."""
    monkeypatch.syspath_prepend(str(Path(asim.agent.__file__).parent))
    from files import Files  # type: ignore[import-not-found]

    batches: list[list[FileAction]] = []

    async def files(actions: Iterable[FileAction]) -> None:
        work, listed = Files(), list(actions)
        batches.append(listed)
        work.add(listed, True)
        while not work.idle():
            work.step()

    data = os.urandom(size)
    upload = upload_of(Script(name="s", source="x"), "m", Content(data=data, size=size))
    path = tmp_path / "exp/.asim/digest.blob"
    for _ in range(2):
        anyio.run(spill, files, {str(path): upload})
    assert path.read_bytes() == data
    assert [entry.name for entry in path.parent.iterdir()] == ["digest.blob"]
    assert len(batches) == 1
    assert all(len(action[2]) <= 1 << 16 for action in batches[0] if action[0] == "data")
    path.write_bytes(b"")
    anyio.run(spill, files, {str(path): upload})
    assert path.read_bytes() == data
    for name in ("files", "text"):
        sys.modules.pop(name, None)
