"""Many files over SFTP: only what differs, several at a time, whole or not at all, and on from where a cut link ended.

What a file contains is known by its SHA-256 at both ends, so nothing is taken for right because its time or size is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import asyncssh
from anyio import to_thread

from ..errors import AgentError, FileActionError
from .farshell import SLOW, Far, ask, decoded, sftp
from .sshlink import Connected, opened, was_cut

Print = tuple[int, str]
"""Size and SHA-256."""
AT_ONCE = 8
"""Files on their way at the same time."""
PIECE = 4 << 20
"""Bytes that are read here and written there (or the other way round) in one go."""
BLOCK = 1 << 17
"""Bytes of one request, at most."""
PATHS = 2000
"""Files that are asked about at once: even a slow link carries their names long before the far side counts as silent."""
ROUNDS = 3
"""Times that a file is sent which, when all has arrived, is not what was sent."""
LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, ConnectionError)


async def put_files(connected: Connected, far: Far, files: Sequence[tuple[str, str]]) -> int:
    """See :meth:`asim.transport.ssh.SSHAgent.put`."""
    prints = await _prints([here for here, _ in files])
    todo = [(here, there, one) for (here, there), one in zip(files, prints, strict=True)]
    sent = 0
    for _ in range(ROUNDS):
        theirs = await _far_prints(connected, far, [there for _, there, _ in todo])
        todo = [row for row, their in zip(todo, theirs, strict=True) if their != row[2]]
        if not todo:
            return sent
        sent = max(sent, len(todo))
        await _each(connected, todo, _send)
    theirs = await _far_prints(connected, far, [there for _, there, _ in todo])
    for (_, there, mine), their in zip(todo, theirs, strict=True):
        if their != mine:
            raise FileActionError(f"it is not what was sent, or changes there: {there}", errno.EIO, there, "put")
    return sent


async def get_files(connected: Connected, far: Far, files: Sequence[tuple[str, str]]) -> int:
    """See :meth:`asim.transport.ssh.SSHAgent.get`."""
    todo, got = list(files), 0
    for turn in range(ROUNDS + 1):
        theirs = await _far_prints(connected, far, [there for there, _ in todo])
        for (there, _), their in zip(todo, theirs, strict=True):
            if their is None:
                raise FileActionError(f"no such file: {there}", errno.ENOENT, there, "get")
        mine = await _prints([here for _, here in todo], missing=True)
        rows = [(*row, their) for row, their, my in zip(todo, theirs, mine, strict=True) if their != my]
        if not rows:
            return got
        if turn == ROUNDS:
            break
        got = max(got, len(rows))
        await _each(connected, rows, _fetch)
        todo = [(there, here) for there, here, _ in rows]
    raise FileActionError(f"it changes while it is fetched: {todo[0][0]}", errno.EIO, todo[0][0], "get")


async def _each(connected: Connected, rows: Iterable[Any], one: Callable[..., Awaitable[None]]) -> None:
    """Do something with each file, a few at a time, again with those that were under way when the link was cut.

    :raises FileActionError: one of them cannot be read or written.
    """
    left = list(rows)
    while left:
        live = await connected()
        folders: set[str] = set()
        done: list[Any] = []
        try:
            async with await opened(live, lambda live=live: sftp(live)) as client:  # type: ignore[misc]
                await _some(client, folders, left, done, one)
        except LOST as exc:
            if not await was_cut(live):
                raise AgentError(f"the file transfer was ended by the other side: {exc}") from exc
        except asyncssh.ChannelOpenError as exc:
            if not await was_cut(live):
                raise AgentError(f"no file transfer there: {exc}") from exc
        except asyncssh.Error as exc:
            if not await was_cut(live):
                raise AgentError(f"the file transfer failed: {exc}") from exc
        left = [row for row in left if row not in done]


async def _some(client: Any, folders: set[str], rows: list[Any], done: list[Any], one: Any) -> None:
    queue = iter(rows)
    failed: list[BaseException] = []

    async def worker() -> None:
        for row in queue:
            if failed and not isinstance(failed[-1], FileActionError):
                return
            try:
                await one(client, folders, *row)
                done.append(row)
            except Exception as exc:  # noqa: BLE001  (the first is raised when the others have ended)
                failed.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(min(AT_ONCE, len(rows))):
            group.start_soon(worker)
    if failed:
        raise next((exc for exc in failed if not isinstance(exc, FileActionError)), failed[0])


async def _send(client: Any, folders: set[str], here: str, there: str, mine: Print) -> None:
    """One file there, under a name of its content until it is whole."""
    folder, name = os.path.split(there)
    part = os.fsencode(f"{folder}/.{name}.asim-part-{mine[1][:16]}")  # as bytes: a name need not be UTF-8
    try:
        if folder not in folders:
            await client.makedirs(os.fsencode(folder), exist_ok=True)
            folders.add(folder)
        have = await _size(client, part)
        offset = max(0, (have if have <= mine[0] else 0) - PIECE)  # the last part may have holes
        file = await to_thread.run_sync(open, here, "rb")
        try:
            mode = stat.S_IMODE((await to_thread.run_sync(os.fstat, file.fileno())).st_mode)
            flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | (0 if offset else asyncssh.FXF_TRUNC)
            attributes = asyncssh.SFTPAttrs(permissions=mode | stat.S_IWUSR)  # it may have to be gone on with
            async with client.open(part, flags, attributes, encoding=None, block_size=0) as target:
                await _copy(file, target, offset, min(client.limits.max_write_len, BLOCK))
            if not mode & stat.S_IWUSR:
                await client.chmod(part, mode)
        finally:
            await to_thread.run_sync(file.close)
        with contextlib.suppress(
            asyncssh.SFTPNoSuchFile
        ):  # somebody else has sent the same; what is there is looked at
            await client.posix_rename(part, os.fsencode(there))
    except LOST:
        raise
    except asyncssh.SFTPError as exc:
        raise FileActionError(f"{exc.reason}: {there}", errno.EIO, there, "put") from exc
    except OSError as exc:
        raise FileActionError(f"{exc.strerror or exc}: {here}", exc.errno, here, "put") from exc


async def _copy(file: Any, target: Any, offset: int, block: int) -> None:
    """Many requests are under way at once; they are answered in order, so what is there has no holes."""
    await to_thread.run_sync(file.seek, offset)
    while data := await to_thread.run_sync(file.read, PIECE):
        starts = range(0, len(data), block)
        await _together(target.write(data[start : start + block], offset + start) for start in starts)
        offset += len(data)


async def _next(source: Any, offset: int, block: int) -> bytes:
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


async def _fetch(client: Any, folders: set[str], there: str, here: str, theirs: Print) -> None:
    """One file here, under a name of its content until it is whole."""
    folder, name = os.path.split(here)
    part = Path(folder, f".{name}.asim-part-{theirs[1][:16]}-{os.getpid()}")
    try:
        await to_thread.run_sync(lambda: part.parent.mkdir(parents=True, exist_ok=True))
        file = await to_thread.run_sync(open, part, "ab")
        try:
            offset = await to_thread.run_sync(lambda: file.seek(0, os.SEEK_END))
            async with client.open(os.fsencode(there), asyncssh.FXF_READ, encoding=None, block_size=0) as source:
                block = min(client.limits.max_read_len, BLOCK)
                if not ((await source.stat()).permissions or 0) & (stat.S_IRWXG | stat.S_IRWXO):  # as private here
                    await to_thread.run_sync(part.chmod, 0o600)
                while data := await _next(source, offset, block):
                    await to_thread.run_sync(file.write, data)
                    offset += len(data)
        finally:
            await to_thread.run_sync(file.close)
        await to_thread.run_sync(_place, part, here, theirs)
    except LOST:
        raise
    except asyncssh.SFTPError as exc:
        raise FileActionError(f"{exc.reason}: {there}", errno.EIO, there, "get") from exc
    except OSError as exc:
        raise FileActionError(f"{exc.strerror or exc}: {here}", exc.errno, here, "get") from exc


def _place(part: Path, here: str, theirs: Print) -> None:
    """Put a fetched file in its place; what is not as announced is thrown away, to be fetched again."""
    if _print(str(part)) == theirs:
        part.replace(here)
    else:
        part.unlink()


async def _size(client: Any, path: bytes) -> int:
    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
        return (await client.stat(path)).size or 0
    return 0


# -- what is where


def _print(path: str) -> Print:
    sha = hashlib.sha256()
    size = 0
    with Path(path).open("rb") as file:
        while data := file.read(1 << 20):
            sha.update(data)
            size += len(data)
    return size, sha.hexdigest()


async def _prints(paths: Sequence[str], missing: bool = False) -> list[Print | None]:
    def all_of_them() -> list[Print | None]:
        found: list[Print | None] = []
        for path in paths:
            try:
                found.append(_print(path))
            except OSError as exc:
                if not missing:
                    raise FileActionError(f"{exc.strerror}: {path}", exc.errno, path, "put") from exc
                found.append(None)
        return found

    return await to_thread.run_sync(all_of_them, abandon_on_cancel=True)


async def _far_prints(connected: Connected, far: Far, paths: Sequence[str]) -> list[Print | None]:
    """The same there, by a program that remembers what it has looked at, and says that it works while it does.

    :raises AgentError: it said nothing for too long.
    """
    command = far.command("digests", f"{far.cache}/digests.json")
    found: list[Print | None] = []
    for start in range(0, len(paths), PATHS):
        script = f"{command} <<'ASIM-END'\n{json.dumps(paths[start : start + PATHS])}\nASIM-END\n"
        answer = await ask(connected, script, SLOW, talks=True)
        found += [None if row is None else (row[0], row[1]) for row in decoded(answer[1:])]
    return found
