"""Many files over SFTP: only what differs, several at a time, whole or not at all, and on from where a cut link ended.

What a file contains is known by its SHA-256 at both ends, so nothing is taken for right because its time or size is.
"""

from __future__ import annotations

import contextlib
import errno
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
from .pieces import PIECE, Print, copied, next_piece, print_of, prints_of
from .sshlink import Connected, opened, was_cut
from .tries import Tries

Theirs = Print | str | None
"""What is known of a file there; why it cannot be read; None: it is not there."""
AT_ONCE = 8
"""Files on their way at the same time."""
BLOCK = 1 << 17
"""Bytes of one request, at most."""
PATHS = 2000
"""Files that are asked about at once: even a slow link carries their names long before the far side counts as silent."""
ROUNDS = 3
"""Times that a file is sent which, when all has arrived, is not what was sent."""
LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, ConnectionError)


class _Way:
    """An SFTP session, and how far files have got by it and those before."""

    def __init__(self, client: Any, reached: dict[str, int]) -> None:
        self.client, self.reached = client, reached
        self.folders: set[str] = set()

    def at(self, path: str, offset: int) -> None:
        """So much of a file is there."""
        self.reached[path] = max(offset, self.reached.get(path, 0))


async def put_files(connected: Connected, far: Far, files: Sequence[tuple[str, str]], patience: float) -> int:
    """See :meth:`asim.transport.ssh.SSHAgent.put`."""
    prints = await prints_of([here for here, _ in files])
    todo = [(here, there, one) for (here, there), one in zip(files, prints, strict=True)]
    sent = 0
    for _ in range(ROUNDS):
        theirs = await _far_prints(connected, far, [there for _, there, _ in todo], patience)
        todo = [row for row, their in zip(todo, theirs, strict=True) if their != row[2]]
        if not todo:
            return sent
        sent = max(sent, len(todo))
        await _each(connected, todo, _send, patience)
    theirs = await _far_prints(connected, far, [there for _, there, _ in todo], patience)
    for (_, there, mine), their in zip(todo, theirs, strict=True):
        if their != mine:
            raise FileActionError(f"it is not what was sent, or changes there: {there}", errno.EIO, there, "put")
    return sent


async def get_files(
    connected: Connected, far: Far, files: Sequence[tuple[str, str]], patience: float, gone_ok: bool = False
) -> int:
    """See :meth:`asim.transport.ssh.SSHAgent.get`."""
    todo, got = list(files), 0
    gone: list[FileActionError] = []
    failed: list[FileActionError] = []

    def fail(exc: FileActionError, there: str) -> None:
        (gone if exc.errno == errno.ENOENT and exc.filename == there else failed).append(exc)

    async def fetch(way: _Way, there: str, here: str, theirs: Print) -> None:
        nonlocal got
        try:
            if await _fetch(way, there, here, theirs):  # it may have grown since then: that is for the next time
                got += 1
            else:
                again.append((there, here))
        except FileActionError as exc:  # others are fetched all the same
            fail(exc, there)

    for _ in range(ROUNDS):
        rows: list[tuple[str, str, Print]] = []
        theirs = await _far_prints(connected, far, [there for there, _ in todo], patience)
        mine = await prints_of([here for _, here in todo], missing=True)
        for (there, here), their, my in zip(todo, theirs, mine, strict=True):
            if isinstance(their, tuple):
                rows += [(there, here, their)] if their != my else []
            else:
                code = errno.ENOENT if their is None else errno.EIO
                fail(FileActionError(f"{their or 'no such file'}: {there}", code, there, "get"), there)
        again: list[tuple[str, str]] = []
        await _each(connected, rows, fetch, patience)
        todo = again
    words = "it changes while it is fetched"
    failed += [FileActionError(f"{words}: {there}", errno.EIO, there, "get") for there, _ in todo]
    if failed := failed + ([] if gone_ok else gone):
        raise failed[0]
    return got


async def _each(
    connected: Connected, rows: Iterable[Any], one: Callable[..., Awaitable[None]], patience: float
) -> None:
    """Do something with each file, a few at a time, again with those that were under way when the link was cut.

    :raises AgentError: there is no file transfer, or its links are cut before it gets any further.
    :raises FileActionError: one of them cannot be read or written.
    """
    left, reached, tries = list(rows), dict[str, int](), Tries(patience)
    while left:
        live = await connected()
        done: list[Any] = []
        before = sum(reached.values())
        try:
            async with await opened(live, lambda live=live: sftp(live)) as client:  # type: ignore[misc]
                await _some(_Way(client, reached), left, done, one)
            return
        except (*LOST, asyncssh.Error) as exc:
            if not await was_cut(live):
                raise AgentError(f"{_trouble(exc)}: {exc}") from exc
            left = [row for row in left if row not in done]
            if left:
                await tries.again(exc, further=bool(done) or sum(reached.values()) > before)


def _trouble(exc: Exception) -> str:
    if isinstance(exc, LOST):
        return "the file transfer was ended by the other side"
    return "no file transfer there" if isinstance(exc, asyncssh.ChannelOpenError) else "the file transfer failed"


async def _some(way: _Way, rows: list[Any], done: list[Any], one: Any) -> None:
    queue = iter(rows)
    failed: list[BaseException] = []

    async def worker() -> None:
        for row in queue:
            if failed and not isinstance(failed[-1], FileActionError):
                return
            try:
                await one(way, *row)
                done.append(row)
            except Exception as exc:  # noqa: BLE001  (the first is raised when the others have ended)
                failed.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(min(AT_ONCE, len(rows))):
            group.start_soon(worker)
    if failed:
        raise next((exc for exc in failed if not isinstance(exc, FileActionError)), failed[0])


async def _send(way: _Way, here: str, there: str, mine: Print) -> None:
    """One file there, under a name of its content until it is whole."""
    client, (folder, name) = way.client, os.path.split(there)
    part = os.fsencode(f"{folder}/.{name}.asim-part-{mine[1][:16]}")  # as bytes: a name need not be UTF-8
    try:
        if folder not in way.folders:
            await client.makedirs(os.fsencode(folder), exist_ok=True)
            way.folders.add(folder)
        have = await _size(client, part)
        offset = max(0, (have if have <= mine[0] else 0) - PIECE)  # the last part may have holes
        file = await to_thread.run_sync(open, here, "rb")
        try:
            mode = stat.S_IMODE((await to_thread.run_sync(os.fstat, file.fileno())).st_mode)
            flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | (0 if offset else asyncssh.FXF_TRUNC)
            attributes = asyncssh.SFTPAttrs(permissions=mode | stat.S_IWUSR)  # it may have to be gone on with
            async with client.open(part, flags, attributes, encoding=None, block_size=0) as target:
                block = min(client.limits.max_write_len, BLOCK)
                await copied(file, target, offset, block, lambda offset: way.at(there, offset))
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


async def _fetch(way: _Way, there: str, here: str, theirs: Print) -> bool:
    """One file here, as far as it was announced, under a name of its content until it is whole; whether it is that."""
    client, (folder, name) = way.client, os.path.split(here)
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
                while offset < theirs[0] and (data := (await next_piece(source, offset, block))[: theirs[0] - offset]):
                    await to_thread.run_sync(file.write, data)
                    offset += len(data)
                    way.at(there, offset)
        finally:
            await to_thread.run_sync(file.close)
        return await to_thread.run_sync(_place, part, here, theirs)
    except LOST:
        raise
    except asyncssh.SFTPNoSuchFile as exc:
        await to_thread.run_sync(lambda: part.unlink(missing_ok=True))
        raise FileActionError(f"no such file: {there}", errno.ENOENT, there, "get") from exc
    except asyncssh.SFTPError as exc:
        raise FileActionError(f"{exc.reason}: {there}", errno.EIO, there, "get") from exc
    except OSError as exc:
        raise FileActionError(f"{exc.strerror or exc}: {here}", exc.errno, here, "get") from exc


def _place(part: Path, here: str, theirs: Print) -> bool:
    """Put a fetched file in its place; what is not as announced is thrown away, to be fetched again."""
    if print_of(str(part)) == theirs:
        part.replace(here)
        return True
    part.unlink()
    return False


async def _size(client: Any, path: bytes) -> int:
    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
        return (await client.stat(path)).size or 0
    return 0


# -- what is where


async def _far_prints(connected: Connected, far: Far, paths: Sequence[str], patience: float) -> list[Theirs]:
    """The same there, by a program that remembers what it has looked at, and says that it works while it does.

    :raises AgentError: it said nothing for too long.
    """
    command = far.command("digests", f"{far.cache}/digests.json")
    found: list[Theirs] = []
    for start in range(0, len(paths), PATHS):
        script = f"{command} <<'ASIM-END'\n{json.dumps(paths[start : start + PATHS])}\nASIM-END\n"
        answer = await ask(connected, script, SLOW, talks=True, patience=patience)
        found += [(row[0], row[1]) if isinstance(row, list) else row for row in decoded(answer[1:])]
    return found
