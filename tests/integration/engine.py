"""Servers with the engine, for the tests of its commands: one of each program that this machine has, per file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from asim.errors import MissingFileError

from .. import sanitized
from ..conftest import missing
from ..servers import RedisServer, binaries, fresh_module

SANITIZED = sanitized.chosen()
PROGRAMS = {label: path for label, path in binaries().items() if not (SANITIZED and label.startswith("valkey"))}
LABELS = sorted(PROGRAMS) or ["no redis-server"]


def debug_args(label: str) -> list[str]:
    """What makes DEBUG usable; 6.2 has it anyway and does not know the option."""
    return [] if label.startswith("redis-6") else ["--enable-debug-command", "yes"]


def starter(label: str, base: Path) -> Callable[..., RedisServer]:
    """Makes servers with the engine, each in a directory of its own below ``base``."""
    if label not in PROGRAMS:
        missing("there is no redis-server in PATH")
    try:
        module = SANITIZED / "asim_engine.so" if SANITIZED else fresh_module()
    except MissingFileError as error:
        missing(str(error))
    env = sanitized.environment(SANITIZED) if SANITIZED else {}
    counter = iter(range(1000))

    def make(*args: str, **options: Any) -> RedisServer:
        place = options.pop("directory", base / f"server{next(counter)}")
        return RedisServer(
            PROGRAMS[label],
            **{"module": module, "env": env, **options},
            directory=place,
            args=[*debug_args(label), *args],
        )

    return make


SLOW = [pytest.mark.slow]
NEWEST = next((label for label in reversed(LABELS) if label.startswith("redis")), LABELS[0])
PARAMS = [pytest.param(label, marks=[] if label == NEWEST else SLOW) for label in LABELS]
"""The newest Redis in the fast suite, all others in the slow one."""


@pytest.fixture(scope="module", params=PARAMS)
def make_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RedisServer]:
    """Makes servers, to be entered with ``with``."""
    return starter(request.param, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def server(make_server: Callable[..., RedisServer]) -> Iterator[RedisServer]:
    """One server for the tests of a file."""
    with make_server() as running:
        yield running


@pytest.fixture
def db(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an empty server, which must still live afterwards."""
    with server.client() as client:
        client.flushall()
        yield client
        assert client.ping()


def ask(db: redis.Redis, *words: Any) -> Any:
    """The reply, plain; an error reply is its text."""
    try:
        return db.execute_command(*words)
    except redis.ResponseError as error:
        return error_text(error)


def error_text(error: redis.ResponseError) -> str:
    """The text as the server sent it, where its code is ERR or WRONGTYPE; redis-py cuts off the codes that it knows."""
    text = str(error)
    return text if type(error) is not redis.ResponseError or text.startswith(("WRONGTYPE", "NOPERM")) else f"ERR {text}"
