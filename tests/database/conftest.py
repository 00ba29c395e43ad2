"""What the tests of databases need, and share with the other tests with real processes."""

import os
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asim import Orchestrator
from asim.database.server_program import find_server
from asim.engine.build import module_file
from tests.chaos.conftest import anyio_backend as anyio_backend
from tests.conftest import missing
from tests.integration.conftest import exp as exp

CLUSTER = pytest.param(3, marks=pytest.mark.slow)
"""Three shards, where one shows the same in a third of the time."""


@pytest.fixture(autouse=True)
def needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server, the compiled engine, and a directory where ranks meet that no other test looks at."""
    (tmp_path / "meet").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "meet"))
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    if not module_file().exists():
        missing("the engine was not compiled")


def connect(db: Orchestrator, shard: int = 0, **options: object) -> redis.Redis:
    """As an application: without credentials."""
    host, _, port = db.get_address()[shard].rpartition(":")
    return redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0), **{"socket_timeout": 5, **options})


def config(db: Orchestrator, *names: str, shard: int = 0) -> dict[str, str]:
    """Options of a server, one by one, as redis 6.2 takes no more."""
    client = connect(db, shard)
    return {name: value for one in names for name, value in client.config_get(one).items()}


def pids(db: Orchestrator) -> list[int]:
    """The servers' process ids."""
    return [shard.pid for shard in db._handle.shards]


def node_pids(db: Orchestrator) -> list[int]:
    """The nodes' process ids."""
    return [shard.node_pid for shard in db._handle.shards]
