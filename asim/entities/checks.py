"""What the arguments of a database may be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, UnsupportedError, allowed
from ..settings import BatchSettings, RunSettings
from ..settings._text import checked
from ..settings.select import batch_settings_class, candidates, run_settings_class
from .mlobjects import whole


def nodes_of(name: str, db_nodes: int) -> int:
    """How many shards."""
    number = whole(f"{name}: db_nodes", db_nodes, least=1)
    if number == 2:
        what = "must be 1, or 3 and more: a Redis cluster needs at least 3 masters to agree"
        raise UnsupportedError(allowed(f"{name}: db_nodes", db_nodes, what))
    return number


def port_of(name: str, port: int, nodes: int) -> int:
    """The port of the first shard."""
    number = whole(f"{name}: port", port)
    most = 65535 if nodes == 1 else 65535 - 10_000 - nodes + 1
    if number > most:
        words = "" if nodes == 1 else " (the shards of a cluster also use their port + 10000)"
        raise ConfigError(allowed(f"{name}: port", port, f"must be 0 (any free one) to {most}{words}"))
    return number


def files_of(name: str, given: object, nodes: int) -> tuple[str, ...]:
    """The files to start from, one per shard, or none."""
    if given is None:
        return ()
    listed: Any = [given] if isinstance(given, (str, os.PathLike)) else given
    paths = tuple(checked(f"{name}: load_from", os.fspath(path)) for path in listed)
    if len(paths) != nodes:
        raise ConfigError(allowed(f"{name}: load_from", given, f"must be one RDB file per shard, that is {nodes}"))
    return paths


def socket_of(name: str, path: str | None, nodes: int) -> str:
    """The path of a Unix domain socket, or ""."""
    if path is None:
        return ""
    text = checked(f"{name}: unix_socket", path)
    if nodes > 1:
        raise UnsupportedError(allowed(f"{name}: unix_socket", path, "clients reach a cluster by TCP only"))
    if not re.fullmatch(r"[A-Za-z0-9.:,_\-/]{1,107}", text):
        what = "must be 1 to 107 of the characters A-Z a-z 0-9 . : , _ - /"
        raise ConfigError(allowed(f"{name}: unix_socket", path, what))
    return text


def run_settings_of(name: str, launcher: str, run_command: str, alloc: str | None) -> RunSettings:
    """How a shard is run. The program itself is put in when the start is planned."""
    words = candidates(launcher)
    command = checked(f"{name}: run_command", run_command)
    if command == "auto":
        command = words[0]
    elif command not in words:
        shown = ", ".join(repr(word) for word in words)
        raise ConfigError(allowed(f"{name}: run_command", run_command, f"with {launcher} it must be auto or {shown}"))
    kind = run_settings_class(launcher, command)
    extra: dict[str, Any] = {"alloc": alloc} if alloc else {}
    return kind("python3", run_command=command) if kind is RunSettings else kind("python3", **extra)


def batch_settings_of(name: str, launcher: str, batch: bool, given: Mapping[str, Any]) -> BatchSettings | None:
    """The batch job that it is, if it is one."""
    if batch:
        return batch_settings_class(launcher)(**{key: value for key, value in given.items() if value})
    for key in ("account", "time", "queue"):
        if given[key]:
            raise ConfigError(allowed(f"{name}: {key}", given[key], "is for a batch job; give batch=True, too"))
    return None
