"""CONFIG SET of harmless parameters by a user who may not use CONFIG SET."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from .engine import ask, db, make_server, server

__all__ = ["db", "make_server", "server"]

RULES = ["reset", "on", "nopass", "~*", "&*", "+@all", "-@dangerous", "-config", "+config|get", "+asim.configset"]


@pytest.fixture
def user(db: redis.Redis, server: Any) -> Iterator[redis.Redis]:
    """A client with the rights of an application."""
    assert db.execute_command("ACL", "SETUSER", "app", *RULES)
    with server.client(username="app", password="any") as client:
        yield client


def value(db: redis.Redis, name: str) -> str:
    """What CONFIG GET says."""
    return str(db.config_get(name)[name])


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("maxmemory", "123456789"), ("maxmemory-policy", "allkeys-lru"), ("save", "900 1"),
        ("notify-keyspace-events", "xE"), ("slowlog-max-len", "55"), ("lazyfree-lazy-eviction", "yes"), ("hz", "20"),
        ("hash-max-ziplist-entries", "99"), ("list-compress-depth", "1"), ("lua-time-limit", "4000"),
        ("appendfsync", "no"),
    ],
)  # fmt: skip
def test_harmless(user: redis.Redis, db: redis.Redis, name: str, new: str) -> None:
    """Harmless parameters can be set, in any case, and take effect."""
    old = value(db, name)
    try:
        assert ask(user, "cOnFiG", "sEt", name.upper(), new) in (b"OK", True)
        assert value(db, name) == new
    finally:
        db.config_set(name, old)


@pytest.mark.parametrize(
    "name",
    ["dir", "dbfilename", "bind", "port", "requirepass", "masterauth", "replica-announce-ip", "cluster-announce-ip",
     "aclfile", "logfile", "unixsocket", "loadmodule", "protected-mode", "tls-cert-file", "proc-title-template",
     "oom-score-adj", "appendonly", "timeout", "client-output-buffer-limit", "client-query-buffer-limit", "slaveof", "enable-debug-command", "", "slowlog-", "maxmemory\0", "*", "max*"],
)  # fmt: skip
def test_harmful(user: redis.Redis, db: redis.Redis, name: str) -> None:
    """Everything else is refused, also through the back door and beside something harmless."""
    for words in (["CONFIG", "SET", name, "x"], ["CONFIG", "SET", "hz", "11", name, "x"]):
        assert "permission" in str(ask(user, *words)), words
    for client in (user, db):
        for words in ([name, "x"], ["hz", "11", name, "x"]):
            assert ask(client, "ASIM.CONFIGSET", *words) != b"OK"
    assert value(db, "hz") == "10"


def test_bad_values_and_forms(user: redis.Redis) -> None:
    """The server's own error comes through; a form that is no CONFIG SET is left alone."""
    assert "maxmemory" in str(ask(user, "CONFIG", "SET", "maxmemory", "a lot"))
    for words in (["hz"], [], ["hz", "10", "maxmemory-samples"]):
        assert any(text in str(ask(user, "CONFIG", "SET", *words)) for text in ("permission", "wrong number"))
    assert "permission" in str(ask(user, "CONFIG", "REWRITE"))
    assert "permission" in str(ask(user, "CONFIG", "RESETSTAT"))
    assert str(ask(user, "ASIM.CONFIGSET", "hz")).startswith("ERR wrong number of arguments")


def test_several_at_once(user: redis.Redis, db: redis.Redis) -> None:
    """Several harmless parameters go to the server in one command; a server that takes one at a time says so."""
    reply = ask(user, "CONFIG", "SET", "hz", "15", "maxmemory-samples", "7")
    if reply in (b"OK", True):
        assert (value(db, "hz"), value(db, "maxmemory-samples")) == ("15", "7")
        assert ask(user, "CONFIG", "SET", "hz", "10", "maxmemory-samples", "5")
    else:
        assert "wrong number of arguments" in str(reply)


def test_in_transactions_and_scripts(user: redis.Redis, db: redis.Redis) -> None:
    """MULTI takes the harmless form; a script takes none, as ever."""
    pipe = user.pipeline()
    pipe.execute_command("CONFIG", "SET", "hz", "12")
    assert pipe.execute()[0] in (b"OK", True)
    db.config_set("hz", "10")
    assert "not allowed from" in str(ask(db, "EVAL", "return redis.call('CONFIG', 'SET', 'hz', '12')", 0))


def test_administrators(db: redis.Redis) -> None:
    """Who may do everything notices nothing; CONFIG GET and other commands pass untouched."""
    assert db.config_set("appendfsync", "everysec")
    assert db.config_set("appendonly", "no")
    assert db.config_get("hz") == {"hz": "10"}
    assert db.set("SET", "hz")
    assert db.mset({"CONFIG": "SET", "hz": "1"})
    assert db.mget("CONFIG", "hz", "SET") == [b"SET", b"1", b"hz"]


def test_category(db: redis.Redis) -> None:
    """Servers with categories for modules have one named `ai`."""
    if b"ai" not in db.execute_command("ACL", "CAT") and "ai" not in db.execute_command("ACL", "CAT"):
        assert db.info("server")["redis_version"] < "7.4"
        return
    commands = {str(name, "ascii") if isinstance(name, bytes) else name for name in ask(db, "ACL", "CAT", "ai")}
    assert {"ai.tensorset", "ai.tensorget", "ai.modelexecute"} <= {name.lower() for name in commands}
