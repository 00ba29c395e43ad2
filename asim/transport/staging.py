"""What attached files consist of, and where it goes on a far host."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence

from ..errors import FileActionError


def listed(sources: Sequence[str], root: str) -> tuple[dict[str, str], list[str], list[tuple[str, str]]]:
    """Where each source goes below ``root``; directories to make there; (here, there) of every file (blocking).

    What is in a directory is part of the name of its place, so that nothing is left there of what was in it before.
    """
    places: dict[str, str] = {}
    folders: list[str] = []
    files: list[tuple[str, str]] = []
    for path in sources:
        inner, names = _below(path) if os.path.isdir(path) else ([], [""])
        told = "\0".join((path, *inner, "", *names))
        place = f"{root}/{hashlib.sha256(os.fsencode(told)).hexdigest()[:16]}"
        there = places[path] = f"{place}/{os.path.basename(path)}"
        folders += [there + name for name in inner] or [place]
        files += [(path + name, there + name) for name in names]
    for here, _ in files:
        _regular(here)
    return places, folders, files


def _below(path: str) -> tuple[list[str], list[str]]:
    """The directories and files below one, as what is to be added to its path. Links are followed."""
    inner: list[str] = []
    names: list[str] = []
    for folder, _, found in os.walk(path, onerror=_refuse, followlinks=True):
        inner.append(folder[len(path) :])
        names += [f"{folder[len(path) :]}/{name}" for name in found]
    return sorted(inner), sorted(names)


def _regular(path: str) -> None:
    """Reading anything but a file (a pipe, say) may never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "not a file or directory", path)
    except OSError as exc:
        _refuse(exc)


def _refuse(error: OSError) -> None:
    raise FileActionError(f"{error.strerror}: {error.filename}", error.errno, error.filename, "stage") from error
