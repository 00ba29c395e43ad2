"""Looks at what ML objects hold: files that must exist, functions whose text must be had. Blocking."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import stat
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..database.objects import Content
from ..entities.mlobjects import Function, MLObject, Script
from ..errors import ConfigError, ConfigTypeError, MissingFileError, allowed

BLOCK = 1 << 20


def contents_of(objects: Iterable[tuple[MLObject, bool]], cwd: str) -> dict[int, Content]:
    """What each object holds, by its ``id``; one that cannot be had has a ``problem``.

    :param objects: each with whether the digest of what is in memory is wanted.
    :param cwd: where relative paths begin.
    """
    return {id(thing): _content(thing, cwd, digest) for thing, digest in objects}


def _content(thing: MLObject, cwd: str, digest: bool) -> Content:
    try:
        if isinstance(thing.source, Path):
            field = f"{thing.name}: {'script' if isinstance(thing, Script) else 'model'}_path"
            return _file(field, os.path.normpath(os.path.join(cwd, thing.source)))
        data = _memory(thing)
    except ConfigError as exc:
        return Content(problem=exc)
    return Content(data=data, size=len(data), digest=hashlib.sha256(data).hexdigest() if digest else "")


def _file(field: str, path: str) -> Content:
    try:
        found = os.stat(path)
    except OSError as exc:
        missing = isinstance(exc, (FileNotFoundError, NotADirectoryError))
        kind, what = (MissingFileError, "no such file") if missing else (ConfigError, f"cannot be read: {exc.strerror}")
        raise kind(allowed(field, path, what)) from exc
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(allowed(field, path, "must be a file"))
    if not found.st_size:
        raise ConfigError(allowed(field, path, "is empty"))
    return Content(path=path, size=found.st_size)


def _memory(thing: MLObject) -> bytes:
    if isinstance(thing.source, bytes):
        return thing.source
    text: Any = thing.source
    if isinstance(thing, Function) and callable(text):
        text = source_of(f"{thing.name}: function", text)
    data: bytes = text.encode("utf-8", "surrogateescape")
    return data


def source_of(field: str, function: Callable[..., Any]) -> str:
    """The text of a function, without what it is indented by.

    :raises ConfigTypeError: its text is not to be had, or would mean something else when it stands alone.
    """
    what = _unfit(function)
    if not what:
        try:
            text = textwrap.dedent(inspect.getsource(function))
            what = _unfit_text(text)
        except (OSError, TypeError, SyntaxError):
            what = "its source cannot be found in a file; give the source text instead"
    if what:
        raise ConfigTypeError(allowed(field, getattr(function, "__qualname__", function), what))
    return text


def _unfit(function: Callable[..., Any]) -> str:
    if not inspect.isfunction(function):
        return f"must be a function made by def, not {type(function).__name__}; or give source text"
    if function.__name__ == "<lambda>":
        return "a lambda has no name by which it could be called; make it by def"
    if function.__code__.co_freevars:
        names = ", ".join(function.__code__.co_freevars)
        return f"uses variables of the function around it ({names}), but only its own text is uploaded"
    return ""


def _unfit_text(text: str) -> str:
    """A decorator changes what a function does, and TorchScript's text has none."""
    node = ast.parse(text).body[0]
    if not isinstance(node, ast.FunctionDef):
        return "must be a plain function made by def"
    if node.decorator_list:
        names = ", ".join(f"@{ast.unparse(one)}" for one in node.decorator_list)
        return f"must have no decorators ({names}), as only its own text is uploaded"
    return ""


def digest_of(content: Content) -> str:
    """SHA-256 of what an object holds, in hexadecimal digits.

    :raises OSError: its file cannot be read.
    """
    if content.data is not None:
        return hashlib.sha256(content.data).hexdigest()
    with open(content.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(content: Content) -> tuple[object, ...]:
    """What changes when the contents do, without reading them."""
    if content.data is not None:
        return (content.data,)
    found = os.stat(content.path)
    return (content.path, found.st_ino, found.st_size, found.st_mtime_ns)
