"""AI.TENSORSET and AI.TENSORGET."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import redis

from .engine import ask, db, make_server, server

__all__ = ["db", "make_server", "server"]

NUMPY = {
    "FLOAT": np.float32, "DOUBLE": np.float64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16, "BOOL": np.bool_,
}  # fmt: skip
SIZES = [1, 1023, 1024, 32 * 1024 - 1, 32 * 1024, 100_000, 1 << 20, 2_000_000]
"""Around every size at which the server or the module changes its way."""


def put(db: Any, key: Any, data: bytes, *dims: int, dtype: str = "UINT8") -> Any:
    return db.execute_command("AI.TENSORSET", key, dtype, *(dims or [len(data)]), "BLOB", data)


def get(db: Any, key: Any) -> bytes:
    return db.execute_command("AI.TENSORGET", key, "BLOB")


@pytest.mark.parametrize("dtype", NUMPY)
def test_blob_of_every_type(db: redis.Redis, dtype: str) -> None:
    """What is stored as a blob comes back byte for byte, with its type and shape, whatever the case of the words."""
    array = (np.arange(24) % 2 if dtype == "BOOL" else np.arange(24) - 3 * (dtype[0] != "U")).astype(NUMPY[dtype])
    for name in (dtype, dtype.lower()):
        assert ask(db, "ai.tensorset", "t", name, 2, 3, 4, "blob", array.tobytes()) == b"OK"
        wanted = [b"dtype", dtype.encode(), b"shape", [2, 3, 4], b"blob", array.tobytes()]
        assert ask(db, "AI.TENSORGET", "t", "META", "BLOB") == wanted
        assert ask(db, "AI.TENSORGET", "t") == wanted


@pytest.mark.parametrize("dtype", NUMPY)
def test_values_of_every_type(db: redis.Redis, dtype: str) -> None:
    """Values are converted as numpy does, at both ends of the type's range, and come back as values."""
    kind = np.dtype(NUMPY[dtype])
    if kind.kind == "f":
        values = [0.5, -1e30, float("inf"), 0.1, float("-inf")]
    else:
        values = [0, 1] if dtype == "BOOL" else [int(np.iinfo(kind).min), 0, 1, int(np.iinfo(kind).max)]
    assert ask(db, "AI.TENSORSET", "t", dtype, len(values), "VALUES", *values) == b"OK"
    assert get(db, "t") == np.array(values, kind).tobytes()
    came = ask(db, "AI.TENSORGET", "t", "VALUES")
    assert [kind.type(float(value)) if kind.kind == "f" else value for value in came] == list(np.array(values, kind))
    meta = ask(db, "AI.TENSORGET", "t", "META", "VALUES")
    assert meta == [b"dtype", dtype.encode(), b"shape", [len(values)], b"values", came]


def test_strings(db: redis.Redis) -> None:
    """STRING tensors are NUL-terminated elements, as blob and as values, also empty ones."""
    assert ask(db, "AI.TENSORSET", "t", "STRING", 2, 2, "VALUES", "a", "", "süß", "d") == b"OK"
    blob = "a\0\0süß\0d\0".encode()
    assert get(db, "t") == blob
    assert put(db, "u", blob, 4, dtype="STRING") == b"OK"
    assert ask(db, "AI.TENSORGET", "u", "VALUES") == [b"a", b"", "süß".encode(), b"d"]
    wrong = "ERR Number of string elements in data blob does not match tensor length"
    for bad in (b"", b"a\0b\0", b"a\0b\0c\0d", b"a\0b\0c\0d\0e\0"):
        assert ask(db, "AI.TENSORSET", "t", "STRING", 4, "BLOB", bad) == wrong
    assert ask(db, "AI.TENSORSET", "t", "STRING", 1, "VALUES", b"a\0b") == "ERR invalid value"


def test_scalars_and_zeros(db: redis.Redis) -> None:
    """Without dimensions a tensor is a scalar; without content it is zeros."""
    assert ask(db, "AI.TENSORSET", "t", "DOUBLE", "VALUES", "2.5") == b"OK"
    assert ask(db, "AI.TENSORGET", "t", "META") == [b"dtype", b"DOUBLE", b"shape", []]
    assert ask(db, "AI.TENSORGET", "t", "VALUES") == [b"2.5"]
    assert ask(db, "AI.TENSORSET", "t", "INT16", 3, 5) == b"OK"
    assert get(db, "t") == bytes(30)
    assert ask(db, "AI.TENSORSET", "t", "STRING", 3) == b"OK"
    assert ask(db, "AI.TENSORGET", "t", "VALUES") == [b"", b"", b""]


SHAPE = "ERR invalid or negative value found in tensor shape"
LENGTH = "ERR data length does not match tensor shape and type"
ONE_BLOB = "ERR a single binary string should come after the BLOB argument in 'AI.TENSORSET' command"
COUNT = "ERR wrong number of values was given in 'AI.TENSORSET' command"
ARITY = "ERR wrong number of arguments for 'AI.TENSOR{}' command"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["t"], ARITY.format("SET")),
        (["t", "FLOAT16", 1], "ERR invalid data type"),
        (["t", "FLOATS", 1], "ERR invalid data type"),
        (["t", b"INT\x18", 1], "ERR invalid data type"),
        (["t", "", 1], "ERR invalid data type"),
        (["t", "FLOAT", 0, "BLOB", b""], SHAPE),
        (["t", "FLOAT", -1, "BLOB", b""], SHAPE),
        (["t", "FLOAT", "1x", "BLOB", b"1234"], SHAPE),
        (["t", "FLOAT", "", "BLOB", b"1234"], SHAPE),
        (["t", "FLOAT", 1 << 32, 1 << 32, "BLOB", b""], SHAPE),
        (["t", "FLOAT", 1 << 63, "BLOB", b""], SHAPE),
        (["t", "DOUBLE", 1 << 60, "BLOB", b""], LENGTH),
        (["t", "DOUBLE", 1 << 60], SHAPE),
        (["t", "FLOAT", 1 << 40], SHAPE),
        (["t", "FLOAT", *[1] * 65, "BLOB", b"1234"], SHAPE),
        (["t", "FLOAT", 2, "BLOB", b"1234"], LENGTH),
        (["t", "FLOAT", 1, "BLOB", b"12345"], LENGTH),
        (["t", "FLOAT", 1, "BLOB"], ONE_BLOB),
        (["t", "FLOAT", 1, "BLOB", b"1234", "x"], ONE_BLOB),
        (["t", "FLOAT", 2, "VALUES", 1], COUNT),
        (["t", "FLOAT", 2, "VALUES", 1, 2, 3], COUNT),
        (["t", "FLOAT", 1, "VALUES", "one"], "ERR invalid value"),
        (["t", "INT8", 1, "VALUES", 128], "ERR invalid value"),
        (["t", "UINT16", 1, "VALUES", -1], "ERR invalid value"),
        (["t", "INT64", 1, "VALUES", 1 << 63], "ERR invalid value"),
        (["t", "INT32", 1, "VALUES", "1.5"], "ERR invalid value"),
        (["t", "BOOL", 1, "VALUES", 2], "ERR BOOL tensor elements must be 0 or 1"),
        (["t", "BOOL", 2, "BLOB", b"\1\2"], "ERR BOOL tensor elements must be 0 or 1"),
    ],
)
def test_what_cannot_be_stored(db: redis.Redis, words: list[Any], error: str) -> None:
    """Each bad input has its own error, and leaves the key as it was."""
    put(db, "t", b"old")
    assert ask(db, "AI.TENSORSET", *words) == error
    assert get(db, "t") == b"old"


def test_getting_errors(db: redis.Redis) -> None:
    """A missing key, a key of another type and unknown words are told apart."""
    missing = "ERR tensor key is empty or in a different shard"
    assert ask(db, "AI.TENSORGET", "t", "META", "BLOB") == missing
    db.set("s", "x")
    assert ask(db, "AI.TENSORGET", "s").startswith("WRONGTYPE Operation against a key")
    assert ask(db, "AI.TENSORSET", "s", "FLOAT", 1).startswith("WRONGTYPE Operation against a key")
    assert db.get("s") == b"x"
    assert ask(db, "AI.TENSORGET", "t", "BLOBS") == "ERR unsupported data format"
    assert ask(db, "AI.TENSORGET", "t", "BLOB", "VALUES") == "ERR both BLOB and VALUES specified"
    assert ask(db, "AI.TENSORGET") == ARITY.format("GET")


def test_overwriting(db: redis.Redis) -> None:
    """A new tensor takes the place of an old one with all it had, also its time to live."""
    put(db, "t", b"old")
    db.expire("t", 100)
    assert put(db, "t", b"newer") == b"OK"
    assert (get(db, "t"), db.ttl("t")) == (b"newer", -1)
    assert ask(db, "AI.MODELGET", "t").startswith("WRONGTYPE")


@pytest.mark.parametrize("size", SIZES)
def test_kept_arguments(db: redis.Redis, size: int) -> None:
    """The bytes stay as they were sent, whatever comes later: one by one, pipelined, in MULTI and in a script."""
    rng, blobs = random.Random(size), {}
    pipe = db.pipeline(transaction=False)
    group = db.pipeline(transaction=True)
    for how in range(3):
        for i in range(3):
            key, blob = f"{how}:{i}", rng.randbytes(size)
            blobs[key] = blob
            put((db, pipe, group)[how], key, blob)
    assert [pipe.execute(), group.execute()] == [[b"OK"] * 3] * 2
    blobs["script"] = rng.randbytes(size)
    script = "return redis.call('AI.TENSORSET', KEYS[1], 'UINT8', #ARGV[1], 'BLOB', ARGV[1])"
    assert db.eval(script, 1, "script", blobs["script"]) == b"OK"
    for i in range(8):
        db.set("noise", rng.randbytes(size + i))
        db.eval("return redis.call('SET', 'noise', ARGV[1])", 0, rng.randbytes(min(size, 1000)))
    for key, blob in blobs.items():
        assert get(db, key) == blob, key


def test_freed_in_the_background(db: redis.Redis) -> None:
    """Storing and unlinking again and again, alone and in one transaction, gives the memory back."""
    blob = bytes(5 << 20)
    before = db.info("memory")["used_memory"]
    for transaction in (False, True):
        for _ in range(3):
            pipe = db.pipeline(transaction=transaction)
            for _ in range(2):
                put(pipe, "t", blob)
                pipe.execute_command("COPY", "t", "u")
                pipe.unlink("t", "u")
            pipe.execute()
            put(db, "t", blob)
            db.flushall(asynchronous=True)
    from ..servers import until

    until(lambda: db.info("memory")["used_memory"] < before + (4 << 20), what="the memory")


def test_any_byte_in_a_key(db: redis.Redis) -> None:
    """Keys may contain any byte, as the prefixes of shards do."""
    keys = [b"{\0\0}.t", b"\0", b"", bytes(range(256)), b"a\0b", b"a\0c"]
    for i, key in enumerate(keys):
        assert put(db, key, bytes([i])) == b"OK"
    assert [get(db, key) for key in keys] == [bytes([i]) for i in range(len(keys))]


def test_pipelines_keep_their_order(db: redis.Redis) -> None:
    """Replies of a pipeline come in the order of its commands, errors in their places."""
    pipe = db.pipeline(transaction=False)
    for i in range(500):
        put(pipe, f"t{i % 7}", bytes([i % 256]) * (1 + i))
        pipe.execute_command("AI.TENSORGET", f"t{i % 7}", "BLOB")
        pipe.execute_command("AI.TENSORGET", "none")
    replies = pipe.execute(raise_on_error=False)
    for i in range(500):
        assert replies[3 * i : 3 * i + 2] == [b"OK", bytes([i % 256]) * (1 + i)]
        assert isinstance(replies[3 * i + 2], redis.ResponseError)


def test_out_of_memory(make_server: Any) -> None:
    """Over maxmemory a tensor is refused with the server's own error, and nothing is lost."""
    with make_server("--maxmemory", "20mb") as server, server.client() as db:
        put(db, "kept", b"x" * 100)
        seen = [ask(db, "AI.TENSORSET", f"t{i}", "UINT8", 1 << 20, "BLOB", bytes(1 << 20)) for i in range(40)]
        assert any(str(reply).startswith(("OOM", "ERR command not allowed", "command not allowed")) for reply in seen)
        assert get(db, "kept") == b"x" * 100
