"""Tensors, models and scripts are values like any other: native commands, files, replicas and clusters work on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from ..restore import sealed
from ..servers import RedisCluster, RedisServer, until
from .engine import LABELS, ask, db, make_server, server, starter

__all__ = ["db", "make_server", "server"]

MAKER = Callable[..., RedisServer]
BIG = random.Random(7).randbytes(300_000)
TF = ["INPUTS", 2, "a", "b\0c", "OUTPUTS", 1, "out"]
GETTERS = {b"asim-tnsr": "AI.TENSORGET", b"asim-modl": "AI.MODELGET", b"asim-scrp": "AI.SCRIPTGET"}
COMMANDS: list[list[Any]] = [
    ["AI.TENSORSET", b"t\0", "FLOAT", 2, "VALUES", 1, 2],
    ["AI.TENSORSET", b"big", "UINT8", 3, len(BIG) // 3, "BLOB", BIG],
    ["AI.TENSORSET", b"scalar", "DOUBLE", "VALUES", 3],
    ["AI.TENSORSET", b"text", "STRING", 2, "VALUES", "a", ""],
    ["AI.TENSORSET", b"bool", "BOOL", 2, "VALUES", 1, 0],
    ["AI.MODELSTORE", b"m", "TORCH", "CPU", "BLOB", BIG],
    ["AI.MODELSTORE", b"tf", "TF", "GPU:1", "TAG", b"t\0", "BATCHSIZE", 4, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 9, *TF,
     "BLOB", BIG, BIG],
    ["AI.SCRIPTSET", b"s", "CPU", "SOURCE", "def f(x): return x"],
    ["AI.SCRIPTSTORE", b"s2", "GPU", "TAG", "v", "ENTRY_POINTS", 1, "f", "SOURCE", BIG],
    ["SET", b"plain", "x"],
]  # fmt: skip


def fill(db: redis.Redis) -> None:
    """One of everything."""
    for words in COMMANDS:
        assert ask(db, *words) in (b"OK", True)


def contents(db: redis.Redis) -> dict[bytes, Any]:
    """Every key with what its own command says of it."""
    return {key: ask(db, GETTERS.get(db.type(key), "GET"), key) for key in sorted(db.keys())}


def state(db: redis.Redis) -> tuple[Any, ...]:
    """What two equal databases share."""
    return contents(db), ask(db, "DEBUG", "DIGEST")


def test_native_commands(db: redis.Redis) -> None:
    """EXISTS, TYPE, OBJECT, RENAME, COPY, TTL, DEL and UNLINK treat every kind of value alike."""
    fill(db)
    before = contents(db)
    for key, value in before.items():
        assert db.exists(key) == 1
        assert db.type(key) in {*GETTERS, b"string"}
        assert ask(db, "OBJECT", "REFCOUNT", key) == 1
        assert db.rename(key, b"new")
        assert (db.exists(key), db.exists(b"new")) == (0, 1)
        assert ask(db, "COPY", "new", key) in (1, True)
        assert ask(db, "COPY", "new", key) in (0, False)
        assert ask(db, GETTERS.get(db.type(key), "GET"), key) == value
        digests = ask(db, "DEBUG", "DIGEST-VALUE", "new", key)
        assert digests[0] == digests[1]
        assert db.expire(b"new", 100)
        assert db.ttl(b"new") > 0
        assert db.unlink(b"new") == 1
    assert contents(db) == before
    assert db.delete(*before) == len(before)
    assert db.dbsize() == 0


def test_digests_differ(db: redis.Redis) -> None:
    """DEBUG DIGEST-VALUE sees type, shape, content and every option."""
    variants: list[list[Any]] = [
        ["AI.TENSORSET", "INT8", 4, "BLOB", b"abcd"], ["AI.TENSORSET", "UINT8", 4, "BLOB", b"abcd"],
        ["AI.TENSORSET", "INT8", 2, 2, "BLOB", b"abcd"], ["AI.TENSORSET", "INT8", 4, "BLOB", b"abce"],
        ["AI.MODELSTORE", "TORCH", "CPU", "BLOB", "x"], ["AI.MODELSTORE", "ONNX", "CPU", "BLOB", "x"],
        ["AI.MODELSTORE", "TORCH", "GPU", "BLOB", "x"], ["AI.MODELSTORE", "TORCH", "CPU", "BLOB", "y"],
        ["AI.MODELSTORE", "TORCH", "CPU", "TAG", "t", "BLOB", "x"],
        ["AI.MODELSTORE", "TORCH", "CPU", "BATCHSIZE", 2, "BLOB", "x"],
        ["AI.SCRIPTSET", "CPU", "SOURCE", "x"], ["AI.SCRIPTSET", "GPU", "SOURCE", "x"],
        ["AI.SCRIPTSET", "CPU", "TAG", "t", "SOURCE", "x"], ["AI.SCRIPTSTORE", "CPU", "ENTRY_POINTS", 1, "f", "SOURCE", "x"],
    ]  # fmt: skip
    for i, (name, *words) in enumerate(variants):
        assert ask(db, name, i, *words) == b"OK"
    digests = ask(db, "DEBUG", "DIGEST-VALUE", *range(len(variants)))
    assert len(set(digests)) == len(variants)


@pytest.mark.parametrize("kind", ["tensor", "model", "script"])
def test_memory_usage(db: redis.Redis, kind: str) -> None:
    """MEMORY USAGE is the size of the content and little more, and DEL gives it back."""
    for size in (100, 10_000, 3_000_000):
        store = {
            "tensor": ["AI.TENSORSET", "k", "UINT8", size, "BLOB", bytes(size)],
            "model": ["AI.MODELSTORE", "k", "TORCH", "CPU", "BLOB", bytes(size)],
            "script": ["AI.SCRIPTSET", "k", "CPU", "SOURCE", bytes(size)],
        }[kind]
        assert ask(db, *store) == b"OK"
        assert size < (db.memory_usage("k") or 0) < size * 1.01 + 400
    before = db.info("memory")["used_memory"]
    db.delete("k")
    until(lambda: db.info("memory")["used_memory"] < before - 2_900_000, what="the memory")


def test_dump_and_restore(db: redis.Redis) -> None:
    """DUMP and RESTORE make an equal value, and a value of its own."""
    fill(db)
    for key in contents(db):
        payload = db.dump(key)
        before = ask(db, GETTERS.get(db.type(key), "GET"), key)
        assert db.restore("copy", 0, payload, replace=True)
        db.delete(key)
        assert ask(db, GETTERS.get(db.type("copy"), "GET"), "copy") == before


def test_hostile_payloads(db: redis.Redis) -> None:
    """RESTORE of a payload that was cut or changed is refused, or makes a sound value; the server lives."""
    rng, tried, refused = random.Random(3), 0, 0
    fill(db)
    for key in (b"t\0", b"text", b"bool", b"scalar", b"s"):
        payload = db.dump(key)
        assert isinstance(payload, bytes)
        assert sealed(payload[:-10], payload) == payload
        body = payload[:-10]
        bodies = [body[:at] for at in range(10, len(body))]
        for _ in range(60):
            at = rng.randrange(10, len(body) - 1)  # neither the type nor the marker of the end
            bodies.append(body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :])
        for bad in bodies:
            tried += 1
            reply = ask(db, "RESTORE", "hostile", 0, sealed(bad, payload), "REPLACE")
            if isinstance(reply, str):
                refused += 1
                assert "Bad data format" in reply or "checksum" in reply, reply
            else:
                ask(db, GETTERS.get(db.type("hostile"), "GET"), "hostile")
    assert tried > refused > tried // 4


def test_rdb(make_server: MAKER, tmp_path: Path) -> None:
    """What SAVE wrote is there after a restart; DEBUG RELOAD changes nothing."""
    with make_server(directory=tmp_path) as server, server.client() as db:
        fill(db)
        before = state(db)
        assert db.save()
        ask(db, "DEBUG", "RELOAD")
        assert state(db) == before
        server.kill()
        server.start()
        assert state(db) == before


@pytest.mark.parametrize("preamble", ["no", "yes"])
def test_aof(make_server: MAKER, tmp_path: Path, preamble: str) -> None:
    """What the append-only file recorded is there after a restart, before it was rewritten and after."""
    args = ["--appendonly", "yes", "--aof-use-rdb-preamble", preamble, "--hz", "500"]
    with make_server(*args, directory=tmp_path) as server, server.client() as db:
        until(lambda: db.info("persistence")["aof_rewrite_in_progress"] == 0)
        fill(db)
        before = state(db)
        server.stop()
        server.start()
        assert state(db) == before
        db.bgrewriteaof()
        until(lambda: db.info("persistence")["aof_rewrite_in_progress"] == 0 and not _scheduled(db))
        assert db.info("persistence")["aof_last_bgrewrite_status"] == "ok"
        server.stop()
        server.start()
        assert state(db) == before


def _scheduled(db: redis.Redis) -> bool:
    return bool(db.info("persistence")["aof_rewrite_scheduled"])


def test_replication(make_server: MAKER) -> None:
    """A replica gets what was there, and what is stored, replaced and deleted afterwards."""
    now = ["--repl-diskless-sync-delay", "0"]
    with make_server(*now) as first, make_server(*now) as second, first.client() as db, second.client() as replica:
        fill(db)
        replica.execute_command("REPLICAOF", "127.0.0.1", first.port)
        until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica")
        assert state(replica) == state(db)
        for words in COMMANDS[::2]:
            ask(db, words[0], b"again" + words[1], *words[2:])
        db.pipeline().execute_command(*COMMANDS[1]).unlink("text").execute()
        assert ask(db, "AI.MODELDEL", "m") == b"OK"
        assert db.wait(1, 10_000) == 1
        assert state(replica) == state(db)
        assert ask(replica, "AI.TENSORSET", "x", "FLOAT", 1).startswith("You can't write")


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_cluster(label: str, tmp_path: Path) -> None:
    """In a cluster every shard answers for its own slots and points to the others for theirs."""
    made = starter(label, tmp_path)()
    with RedisCluster(2, binary=made.binary, module=made.module, env=made.env) as cluster, cluster.client() as db:
        for i in range(50):
            assert db.execute_command("AI.TENSORSET", f"t{i}", "INT8", 1, "VALUES", i) == b"OK"
        assert [db.execute_command("AI.TENSORGET", f"t{i}", "BLOB") for i in range(50)] == [
            bytes([i]) for i in range(50)
        ]
        with cluster.servers[0].client() as shard:
            replies = [ask(shard, "AI.TENSORGET", f"t{i}", "BLOB") for i in range(50)]
            assert {isinstance(reply, bytes) for reply in replies} == {True, False}
            assert all(
                "MOVED" in str(error) or "127.0.0.1" in str(error) for error in replies if isinstance(error, str)
            )
