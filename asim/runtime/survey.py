"""Looks up what a plan needs to know of this machine: programs, attached files, directories, objects. One thread hop."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from functools import lru_cache

from anyio import to_thread

from ..generate import Kind, Source
from ..plan import Facts, Needs
from ..settings.mpi import Flavor, flavor_of
from .contents import contents_of

PATIENCE = 10.0
"""Seconds that a start command may take to say whose it is."""


async def survey(needs: Needs, cwd: str, search_path: str) -> Facts:
    """What is there of what ``needs`` names. Cancellation: the thread finishes, its result is dropped."""
    return await to_thread.run_sync(look, needs, cwd, search_path)


def look(needs: Needs, cwd: str, search_path: str) -> Facts:
    """The blocking half of :func:`survey`."""
    programs = {word: path for word in needs.programs if (path := find_program(word, cwd, search_path))}
    flavors = {word: flavor for word in needs.mpi if word in programs and (flavor := flavor_at(programs[word]))}
    sources = {path: found for path, read in needs.sources.items() if (found := look_at(path, read))}
    taken = frozenset(path for path in needs.targets if os.path.lexists(path))
    real = {path: os.path.realpath(path) for path in (*needs.targets, *needs.protected)}
    contents = contents_of(needs.objects, cwd)
    return Facts(programs=programs, flavors=flavors, sources=sources, taken=taken, real=real, contents=contents)


def find_program(word: str, cwd: str, search_path: str) -> str | None:
    """An executable file: a word is looked for in ``search_path``, a path from ``cwd``. Absolute, or None."""
    path = shutil.which(os.path.join(cwd, word) if "/" in word else word, path=search_path)
    return os.path.abspath(os.path.join(cwd, path)) if path else None


def flavor_at(path: str) -> Flavor | None:
    """Whose MPI this start command is of, by what it says itself; None when it does not tell."""
    try:
        return _flavor(path, os.stat(path).st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=16)
def _flavor(path: str, _: int) -> Flavor | None:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return flavor_of((done.stdout + done.stderr).decode("utf-8", "replace"))


def look_at(path: str, read: bool) -> Source | None:
    """What is at ``path``; with ``read`` also the contents of files. None if nothing is."""
    try:
        linked = os.path.islink(path)
        info = os.stat(path)
        real = os.path.realpath(path) if linked else ""
        entries = dict(_below(path, "", read)) if stat.S_ISDIR(info.st_mode) else {}
        data = _read(path) if read and stat.S_ISREG(info.st_mode) else None
    except OSError:
        return None
    mode = stat.S_IMODE(info.st_mode)
    return Source(path=path, kind=_kind(info.st_mode), mode=mode, data=data, real=real, entries=entries)


def _below(root: str, prefix: str, read: bool) -> Mapping[str, Source]:
    found: dict[str, Source] = {}
    for entry in sorted(os.scandir(os.path.join(root, prefix)), key=lambda entry: entry.name):
        relative = f"{prefix}/{entry.name}" if prefix else entry.name
        info = entry.stat(follow_symlinks=False)
        kind = _kind(info.st_mode)
        data = _read(entry.path) if read and kind == "file" else None
        found[relative] = Source(path=entry.path, kind=kind, mode=stat.S_IMODE(info.st_mode), data=data)
        if kind == "dir":
            found.update(_below(root, relative, read))
    return found


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "link" if stat.S_ISLNK(mode) else "other"


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
