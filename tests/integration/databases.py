"""Databases for the tests of the client: one server and one cluster for a whole module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from asim.engine import installed
from asim.errors import AsimError

from ..conftest import missing
from ..servers import RedisCluster, RedisServer


def check() -> None:
    """Skip where there is no database."""
    if shutil.which("redis-server") is None:
        missing("there is no redis-server in PATH")
    try:
        installed.require_module()
    except AsimError as error:
        missing(str(error))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A single server."""
    check()
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three shards."""
    check()
    with RedisCluster(3) as running:
        yield running


@pytest.fixture(params=["tcp", "uds"])
def address(request: pytest.FixtureRequest, server: RedisServer) -> str:
    """The single server, empty, by both of its addresses."""
    with server.client() as client:
        client.flushall()
    return f"127.0.0.1:{server.port}" if request.param == "tcp" else f"unix://{server.socket}"
