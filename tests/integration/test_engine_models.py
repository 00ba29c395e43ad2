"""AI.MODEL*, AI.SCRIPT*, AI.INFO, AI.CONFIG, and the commands that are known but not served."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from .engine import ask, db, make_server, server

__all__ = ["db", "make_server", "server"]

TF = ["INPUTS", 2, "a", "b\0c", "OUTPUTS", 1, "out"]
NO_BLOB = "ERR Insufficient arguments, missing model BLOB"
SOURCE = "def f(x):\n    return x\n"


def pairs(reply: list[Any]) -> dict[str, Any]:
    """A flat reply as a dict."""
    return {key.decode(): value for key, value in zip(reply[::2], reply[1::2], strict=True)}


def test_model_and_its_meta(db: redis.Redis) -> None:
    """Everything that a model was stored with comes back, with the labels that clients expect."""
    options = ["TAG", b"t\0g", "BATCHSIZE", 8, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 5]
    assert ask(db, "AI.MODELSTORE", "m", "tf", "gpu:1", *options, *TF, "BLOB", b"gra", b"", b"ph") == b"OK"
    meta = {
        "backend": b"TF", "device": b"GPU:1", "tag": b"t\0g", "batchsize": 8, "minbatchsize": 2,
        "inputs": [b"a", b"b\0c"], "outputs": [b"out"], "minbatchtimeout": 5,
    }  # fmt: skip
    assert pairs(ask(db, "AI.MODELGET", "m", "META")) == meta
    assert (
        pairs(ask(db, "AI.MODELGET", "m"))
        == {**meta, "blob": b"graph"}
        == pairs(ask(db, "AI.MODELGET", "m", "META", "BLOB"))
    )
    assert ask(db, "AI.MODELGET", "m", "BLOB") == b"graph"


def test_model_is_one_bulk(db: redis.Redis) -> None:
    """A model bigger than the chunk size comes back in one piece, and as it was, however it was cut."""
    blob = bytes(range(256)) * 1000
    assert ask(db, "AI.CONFIG", "MODEL_CHUNK_SIZE", 1000) == b"OK"
    try:
        assert ask(db, "AI.CONFIG", "GET", "MODEL_CHUNK_SIZE") == 1000
        chunks = [blob[at : at + 1000] for at in range(0, len(blob), 1000)]
        for parts in (chunks, [blob]):
            assert ask(db, "AI.MODELSTORE", "m", "TORCH", "CPU", "BLOB", *parts) == b"OK"
            assert ask(db, "AI.MODELGET", "m", "BLOB") == blob
    finally:
        ask(db, "AI.CONFIG", "MODEL_CHUNK_SIZE", 511 << 20)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["TORCH"], "ERR wrong number of arguments for 'AI.MODELSTORE' command"),
        (["CAFFE", "CPU", "BLOB", "x"], "ERR unsupported backend"),
        (["TORCH", "TPU", "BLOB", "x"], "ERR Invalid DEVICE"),
        (["TORCH", "CPU:", "BLOB", "x"], "ERR Invalid DEVICE"),
        (["TORCH", "CPU:x", "BLOB", "x"], "ERR Invalid DEVICE"),
        (["TORCH", "GPU:123456", "BLOB", "x"], "ERR Invalid DEVICE"),
        (["TORCH", "GPUS", "BLOB", "x"], "ERR Invalid DEVICE"),
        (["TORCH", "CPU"], NO_BLOB),
        (["TORCH", "CPU", "BLOB"], NO_BLOB),
        (["TORCH", "CPU", "TAG", "t"], NO_BLOB),
        (["TORCH", "CPU", "TAG"], "ERR Invalid argument, expected BLOB"),
        (["TORCH", "CPU", "BLOBS", "x"], "ERR Invalid argument, expected BLOB"),
        (["TORCH", "CPU", "MINBATCHSIZE", 1, "BLOB", "x"], "ERR MINBATCHSIZE specified without BATCHSIZE"),
        (["TORCH", "CPU", "BATCHSIZE", 1, "MINBATCHTIMEOUT", 1, "BLOB", "x"],
         "ERR MINBATCHTIMEOUT specified without MINBATCHSIZE"),
        (["TORCH", "CPU", "BATCHSIZE", "x", "BLOB", "x"], "ERR Invalid argument for BATCHSIZE"),
        (["TORCH", "CPU", "BATCHSIZE", -1, "BLOB", "x"], "ERR Invalid argument for BATCHSIZE"),
        (["TORCH", "CPU", "BATCHSIZE"], "ERR Invalid argument for BATCHSIZE"),
        (["TORCH", "CPU", "BATCHSIZE", 2, "MINBATCHSIZE", "x", "BLOB", "x"], "ERR Invalid argument for MINBATCHSIZE"),
        (["TORCH", "CPU", "BATCHSIZE", 2, "MINBATCHSIZE", 1, "MINBATCHTIMEOUT", "", "BLOB", "x"],
         "ERR Invalid argument for MINBATCHTIMEOUT"),
        (["TORCH", "CPU", "INPUTS", 1, "a", "BLOB", "x"], "ERR INPUTS argument should not be specified for this backend"),
        (["ONNX", "CPU", "OUTPUTS", 1, "a", "BLOB", "x"], "ERR OUTPUTS argument should not be specified for this backend"),
        (["TF", "CPU", "BLOB", "x"], "ERR INPUTS not specified for TF"),
        (["TF", "CPU", "INPUTS", 1, "a", "BLOB", "x"], "ERR OUTPUTS not specified for TF"),
        (["TF", "CPU", "INPUTS", 0, "OUTPUTS", 1, "a", "BLOB", "x"], "ERR Invalid argument for input_count"),
        (["TF", "CPU", "INPUTS", 99, "a", "BLOB", "x"], "ERR Invalid argument for input_count"),
        (["TF", "CPU", "INPUTS", 1, "a", "OUTPUTS", "x", "BLOB", "x"], "ERR Invalid argument for output_count"),
    ],
)  # fmt: skip
def test_what_is_no_model(db: redis.Redis, words: list[Any], error: str) -> None:
    """Each bad input has its own error, and nothing is stored."""
    assert ask(db, "AI.MODELSTORE", "m", *words) == error
    assert db.exists("m") == 0


def test_deleting_and_missing(db: redis.Redis) -> None:
    """A missing model or script is an error also where it is deleted; another type is WRONGTYPE and stays."""
    store = {"MODEL": ["STORE", "TORCH", "CPU", "BLOB", "x"], "SCRIPT": ["SET", "CPU", "SOURCE", SOURCE]}
    for kind, (verb, *words) in store.items():
        for get in ("GET", "DEL"):
            assert ask(db, f"AI.{kind}{get}", "k") == f"ERR {kind.lower()} key is empty"
        db.set("s", "x")
        for bad in ("GET", "DEL"):
            assert ask(db, f"AI.{kind}{bad}", "s").startswith("WRONGTYPE")
        assert ask(db, f"AI.{kind}{verb}", "s", *words).startswith("WRONGTYPE")
        assert ask(db, f"AI.{kind}{verb}", "k", *words) == b"OK"
        assert ask(db, f"AI.{kind}GET", "k", "METAL") == "ERR unsupported data format"
        assert ask(db, f"AI.{kind}DEL", "k") == b"OK"
        assert db.exists("k", "s") == 1


def test_scripts(db: redis.Redis) -> None:
    """Both ways to store a script; its source, device, tag and entry points come back."""
    assert ask(db, "AI.SCRIPTSET", "s", "CPU", "SOURCE", SOURCE) == b"OK"
    assert ask(db, "AI.SCRIPTGET", "s", "SOURCE") == SOURCE.encode()
    assert pairs(ask(db, "AI.SCRIPTGET", "s", "META")) == {"device": b"CPU", "tag": b"", "Entry Points": []}
    words = ["GPU", "TAG", "t", "ENTRY_POINTS", 2, "f", "g", "SOURCE", SOURCE]
    assert ask(db, "AI.SCRIPTSTORE", "s", *words) == b"OK"
    wanted = {"device": b"GPU", "tag": b"t", "Entry Points": [b"f", b"g"], "source": SOURCE.encode()}
    assert pairs(ask(db, "AI.SCRIPTGET", "s")) == wanted


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["SET", "k", "CPU", "SOURCE"], "ERR wrong number of arguments for 'AI.SCRIPTSET' command"),
        (["SET", "k", "CPU", "SOURCE", "x", "y"], "ERR wrong number of arguments for 'AI.SCRIPTSET' command"),
        (["SET", "k", "TPU", "SOURCE", "x"], "ERR Invalid DEVICE"),
        (["SET", "k", "CPU", "TEXT", "x"], "ERR Insufficient arguments, missing script SOURCE"),
        (["SET", "k", "CPU", "TAG", "t", "SOURCES", "x"], "ERR Insufficient arguments, missing script SOURCE"),
        (["STORE", "k", "CPU", "SOURCE", "x"], "ERR wrong number of arguments for 'AI.SCRIPTSTORE' command"),
        (["STORE", "k", "CPU", "TAG", "t", "SOURCE", "x", "y"], "ERR Insufficient arguments, missing script ENTRY_POINTS"),
        (["STORE", "k", "CPU", "ENTRY_POINTS", 9, "f", "SOURCE", "x"], "ERR Invalid argument for entry_points_count"),
        (["STORE", "k", "CPU", "ENTRY_POINTS", 2, "f", "SOURCE", "x"], "ERR Insufficient arguments, missing script SOURCE"),
    ],
)  # fmt: skip
def test_what_is_no_script(db: redis.Redis, words: list[Any], error: str) -> None:
    """Each bad input has its own error, and nothing is stored."""
    assert ask(db, f"AI.SCRIPT{words[0]}", *words[1:]) == error
    assert db.exists("k") == 0


def test_info(db: redis.Redis) -> None:
    """AI.INFO tells 11 things of models and scripts, also with RESETSTAT and under a new name."""
    ask(db, "AI.MODELSTORE", "{\0\0}.m", "ONNX", "CPU", "TAG", "v1", "BLOB", "x")
    ask(db, "AI.SCRIPTSET", "s", "GPU", "SOURCE", SOURCE)
    zero = {"duration": 0, "samples": 0, "calls": 0, "errors": 0, "state": b"ready", "digest": b""}
    model = {"key": b"{\0\0}.m", "type": b"MODEL", "backend": b"ONNX", "device": b"CPU", "tag": b"v1", **zero}
    script = {"key": b"s", "type": b"SCRIPT", "backend": b"TORCH", "device": b"GPU", "tag": b"", **zero, "samples": -1}
    for reset in ([], ["RESETSTAT"]):
        reply = ask(db, "AI.INFO", "{\0\0}.m", *reset)
        assert (len(reply), pairs(reply)) == (22, model)
        assert pairs(ask(db, "AI.INFO", "s", *reset)) == script
    db.rename("s", "s2")
    assert pairs(ask(db, "AI.INFO", "s2")) == {**script, "key": b"s2"}
    db.set("plain", "x")
    for key in ("s", "plain"):
        assert ask(db, "AI.INFO", key) == "ERR cannot find run info for key"


def test_scan(db: redis.Redis) -> None:
    """The scans list every model or script of this server with its tag, and nothing else."""
    assert ask(db, "AI._MODELSCAN") == []
    for i in range(300):
        ask(db, "AI.MODELSTORE", f"m{i}", "TORCH", "CPU", "TAG", f"t{i}", "BLOB", "x")
        ask(db, "AI.SCRIPTSET", f"s{i}", "CPU", "SOURCE", SOURCE)
        db.set(f"x{i}", "x")
    assert sorted(ask(db, "AI._MODELSCAN")) == sorted([f"m{i}".encode(), f"t{i}".encode()] for i in range(300))
    assert sorted(ask(db, "AI._SCRIPTSCAN")) == sorted([f"s{i}".encode(), b""] for i in range(300))


def test_config(db: redis.Redis) -> None:
    """AI.CONFIG answers what clients ask; loading a backend is agreed to and not done."""
    assert ask(db, "AI.CONFIG", "GET", "MODEL_CHUNK_SIZE") == 535822336
    assert ask(db, "AI.CONFIG", "GET", "BACKENDSPATH") == b""
    assert ask(db, "AI.CONFIG", "BACKENDSPATH", "/some/where") == b"OK"
    assert ask(db, "AI.CONFIG", "GET", "BACKENDSPATH") == b"/some/where"
    assert ask(db, "AI.CONFIG", "BACKENDSPATH", "") == b"OK"
    assert ask(db, "AI.CONFIG", "GET", "ANYTHING") is None
    assert ask(db, "AI.CONFIG", "LOADBACKEND", "TORCH", "/no/such/file.so") == b"OK"
    for bad in (0, -1, "x", ""):
        assert ask(db, "AI.CONFIG", "MODEL_CHUNK_SIZE", bad) == "ERR MODEL_CHUNK_SIZE: invalid chunk size"
    for words in (["GET"], ["LOADBACKEND", "x"], ["OTHER", "x"]):
        assert ask(db, "AI.CONFIG", *words) == "ERR unsupported subcommand"


def test_not_served(db: redis.Redis) -> None:
    """Without workers, runs are refused in words; and so are DAGs everywhere."""
    none = "ERR this server has no inference workers"
    assert ask(db, "AI.MODELSTORE", "m", "TORCH", "CPU", "BLOB", "x") == b"OK"
    assert ask(db, "AI.SCRIPTSET", "s", "CPU", "SOURCE", "x") == b"OK"
    assert ask(db, "AI.MODELEXECUTE", "m", "INPUTS", 1, "a", "OUTPUTS", 1, "b") == none
    assert ask(db, "AI.MODELRUN", "m", "INPUTS", "a", "OUTPUTS", "b") == none
    assert ask(db, "AI.SCRIPTRUN", "s", "f", "INPUTS", "a", "OUTPUTS", "b") == none
    assert ask(db, "AI.SCRIPTEXECUTE", "s", "f", "INPUTS", 1, "a", "OUTPUTS", 1, "b") == none
    for name in ("DAGEXECUTE", "DAGEXECUTE_RO", "DAGRUN", "DAGRUN_RO"):
        assert ask(db, f"AI.{name}", "LOAD", 1, "a", "|>") == "ERR AI.DAG commands are not supported"


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["AI.TENSORSET", "k", "FLOAT", 1], "k"),
        (["AI.TENSORGET", "k", "META"], "k"),
        (["AI.MODELSTORE", "k", "TORCH", "CPU", "BLOB", "x"], "k"),
        (["AI.MODELDEL", "k"], "k"),
        (["AI.SCRIPTSET", "k", "CPU", "SOURCE", "x"], "k"),
        (["AI.INFO", "k"], "k"),
        (["AI.MODELEXECUTE", "m", "INPUTS", 2, "a", "b", "OUTPUTS", 1, "c", "TIMEOUT", 5], "m a b c"),
        (["AI.MODELEXECUTE", "m", "INPUTS", 9, "a", "b", "OUTPUTS", 1, "c"], "m a b OUTPUTS 1 c"),
        (["AI.MODELRUN", "m", "TIMEOUT", 3, "INPUTS", "a", "b", "OUTPUTS", "c"], "m a b c"),
        (["AI.SCRIPTRUN", "s", "f", "INPUTS", "a", "$", "b", "OUTPUTS", "c", "d"], "s a b c d"),
        (["AI.SCRIPTRUN", "s", "f", "INPUTS", "a", "TIMEOUT", 5, "OUTPUTS", "$"], "s a $"),
        (["AI.SCRIPTEXECUTE", "s", "f", "KEYS", 1, "{s}", "INPUTS", 1, "a", "ARGS", 2, "x", "y", "OUTPUTS", 1, "c"],
         "s {s} a c"),
    ],
)  # fmt: skip
def test_keys(db: redis.Redis, words: list[Any], keys: str) -> None:
    """The server knows which arguments are keys: cluster slots and access rules depend on it."""
    assert ask(db, "COMMAND GETKEYS", *words) == keys.split()
