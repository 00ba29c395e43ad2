"""Uploads: a large model beside a SET of the same bytes; many objects to a cluster; the first answer of a new database."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness import HERE, Row
from inference_models import BIG, QUIET, SCRIPT, Store
from inference_serving import WITHIN, Served
from inference_table import Goal, ratios, spread, values
from report import markdown
from tensor_worker import _encoded

from asim import Experiment, MLModel, Script

SET, BARE, STORE, LOAD, UPLOAD = "SET", "MODELSTORE, no workers", "MODELSTORE", "load in process", "exp.upload"
PACE = 62_500_000
"""Bytes/s of the link on which a model of torch comes while torch is imported: half of a gigabit Ethernet's."""
COUNT, SHARDS = 50, 3
MOST_ROUNDS = 5
GOALS = {
    "bare": Goal("200 MB model, speed of storing / of SET", 0.8),
    "worker": Goal("200 MB model, checked by a worker, without onnxruntime's own loading: the same", 0.8),
    "upload": Goal("200 MB model by exp.upload, without onnxruntime's own loading: the same", 0.8),
    "preload": Goal("50 objects to 3 shards, time / that of the slowest single one", 2, most=True),
    "cold": Goal("cold start: from the start of the database to the first answer of an ONNX model", 1, True, unit="s"),
    "torch": Goal("cold torch: from the last byte to OK, less torch's own loading of the model", 0.3, True, unit="s"),
}


def measure(args: argparse.Namespace, store: Store, skipped: list[str]) -> Iterator[Row]:
    """Everything, in every round."""
    for name in ("big.onnx", "big.torch", "mlp.onnx", "resnet.onnx"):
        if store.get(name) is None:
            skipped.append(f"uploads: {store.missing[name]}")
            return
    for number in range(min(args.rounds, MOST_ROUNDS)):
        for found in (_large(store), _torch(store), _cold(store), _many(store)):
            yield from ({"round": number, **row} for row in found)


# -- a large model


def _large(store: Store) -> Iterator[Row]:
    """The same bytes as a string, as a model, and as one that a worker looks at; and what the worker's framework takes."""
    blob = store.get("big.onnx")
    with ExitStack() as stack:
        served, bare = stack.enter_context(Served()), stack.enter_context(Served(workers=0))
        small = store.get("mlp.onnx")
        served.db.execute_command("AI.MODELSTORE", "small", "ONNX", "CPU", "BLOB", small)  # onnxruntime is there now
        words = ["AI.MODELSTORE", "k", "ONNX", "CPU", "BLOB", blob]
        ways = [(SET, bare, ["SET", "k", blob]), (BARE, bare, words), (STORE, served, words)]
        random.shuffle(ways)
        for name, server, command in ways:
            _told(server, command)
            server.db.execute_command("DEL", "k")
            yield {"case": "large", "contender": name, "s": _told(server, command)}
            server.db.execute_command("DEL", "k")
    yield {"case": "large", "contender": LOAD, "s": _child("onnx", store.path("big.onnx"))["load"]}
    yield {"case": "large", "contender": UPLOAD, "s": asyncio.run(_uploaded(store))}


def _told(served: Served, words: Sequence[object], pace: float = 0) -> float:
    """Seconds from the first byte to OK; with ``pace``, from the last."""
    *head, blob = words
    start = b"*%d\r\n" % len(words) + _encoded(head).partition(b"\r\n")[2] + b"$%d\r\n" % len(blob)
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(WITHIN)
        talk.connect(str(served.server.socket))
        began = time.perf_counter()
        talk.sendall(start)
        if pace:
            view, step = memoryview(blob), 1 << 20
            for at in range(0, len(view), step):
                talk.sendall(view[at : at + step])
                time.sleep(max(0.0, began + (at + step) / pace - time.perf_counter()))
            began = time.perf_counter()
        else:
            talk.sendall(blob)
        talk.sendall(b"\r\n")
        answer = talk.recv(200)
        took = time.perf_counter() - began
    if answer != b"+OK\r\n":
        raise SystemExit(f"{words[0]}: {answer!r}")
    return took


async def _uploaded(store: Store) -> float:
    """``exp.upload`` of the same file, when onnxruntime is there."""
    with tempfile.TemporaryDirectory() as folder:
        async with Experiment("bench", exp_path=Path(folder) / "exp") as exp:
            db = exp.create_database(port=0, threads_per_queue=1, intra_op_parallelism=1)
            await exp.start(db)
            await exp.upload(db, _model("small", store.path("mlp.onnx")))
            began = time.perf_counter()
            await exp.upload(db, _model("big", store.path("big.onnx")))
            return time.perf_counter() - began


def _model(name: str, path: Path) -> MLModel:
    return MLModel(name=name, backend="ONNX", source=path)


PROGRAM = """
import json, sys, time
began = time.perf_counter()
import {module}
imported = time.perf_counter()
from inference_frameworks import in_process
in_process("{backend}", {small!r}, 1)
blob = open({path!r}, "rb").read()
loading = time.perf_counter()
in_process("{backend}", {path!r}, 1)
print(json.dumps({{"import": imported - began, "load": time.perf_counter() - loading}}))
"""


def _child(backend: str, path: Path) -> Row:
    """What a framework takes to be imported, and then to load this model (the file is in memory)."""
    import json

    module = {"onnx": "onnxruntime", "torch": "torch"}[backend]
    text = PROGRAM.format(
        module=module, backend=backend.upper(), path=str(path), small=str(path.parent / f"mlp.{backend}")
    )
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True, env=QUIET, timeout=WITHIN)
    return dict(json.loads(done.stdout))


# -- torch


def _torch(store: Store) -> Iterator[Row]:
    """A model of torch that comes by a slow link, to a worker that has just started: told beforehand, or not."""
    own = _child("torch", store.path("big.torch"))
    yield {"case": "torch", "contender": "in process", "import": own["import"], "load": own["load"]}
    for told in (True, False):
        with Served() as served:
            if told:
                served.db.execute_command("ASIM.PREPARE", "TORCH", "CPU")
            words = ["AI.MODELSTORE", "k", "TORCH", "CPU", "BLOB", store.get("big.torch")]
            took = _told(served, words, PACE)
        yield {"case": "torch", "contender": "told" if told else "not told", "s": took, "over": took - own["load"]}


# -- the first answer


def _cold(store: Store) -> Iterator[Row]:
    yield {"case": "cold", "contender": "all", **asyncio.run(_first_answer(store))}


async def _first_answer(store: Store) -> Row:
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        async with Experiment("bench", exp_path=Path(folder) / "exp") as exp:
            await exp.start(exp.create_model("warm", exp.create_run_settings("/bin/true")))  # the agent runs now
            db = exp.create_database(port=0)
            stamps = [time.perf_counter()]
            await exp.start(db)
            stamps.append(time.perf_counter())
            async with exp.client() as client:
                await client.set_model("m", store.get("mlp.onnx"), "ONNX")
                stamps.append(time.perf_counter())
                await client.put_tensor("x", np.ones((1, 16), "f4"))
                await client.run_model("m", ["x"], ["y"])
                await client.get_tensor("y")
                stamps.append(time.perf_counter())
    ready, stored, answered = (stamp - stamps[0] for stamp in stamps[1:])
    return {"ready": ready, "stored": stored, "answered": answered}


# -- many objects


def _objects(store: Store) -> list[MLModel | Script]:
    """The largest first: a network of ResNet-50's size, two of 20 MB, seven of 2 MB, 30 tiny ones and ten scripts."""
    found: list[MLModel | Script] = [_model("resnet", store.path("resnet.onnx"))]
    plain = store.get("mlp.onnx")
    for number, size in enumerate([20_000_000] * 2 + [2_000_000] * 7 + [0] * 30):
        # a field of protobuf that no reader knows: bytes that are to be sent, and no work for the framework
        padding = b"" if not size else b"\xfa\x3e" + _varint(size) + os.urandom(size)
        found.append(MLModel(name=f"m{number}", backend="ONNX", source=plain + padding))
    found += [Script(name=f"s{number}", source=SCRIPT + f"# {number}\n") for number in range(COUNT - len(found))]
    return found


def _varint(number: int) -> bytes:
    found = []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _many(store: Store) -> Iterator[Row]:
    """All of them, and the slowest of them alone, each to a new cluster: as the first upload, and after another one."""
    objects = _objects(store)
    for warm in (False, True):
        scripts = [Script(name="slowest", source=SCRIPT)]
        alone = {
            "resnet": asyncio.run(_preloaded(store, objects[:1], warm)),
            "script": asyncio.run(_preloaded(store, scripts, warm)),
        }
        everything = asyncio.run(_preloaded(store, objects, warm))
        slowest = max(alone.values())
        case = "warm" if warm else "cold"
        yield {"case": "preload", "contender": case, "s": everything, "slowest": slowest, "ratio": everything / slowest}


async def _preloaded(store: Store, objects: Sequence[MLModel | Script], warm: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        async with Experiment("bench", exp_path=Path(folder) / "exp") as exp:
            db = exp.create_database(port=0, db_nodes=SHARDS)
            await exp.start(db)
            if warm:
                await exp.upload(db, _model("before", store.path("mlp.onnx")), Script(name="first", source=SCRIPT))
            began = time.perf_counter()
            await exp.upload(db, *objects)
            return time.perf_counter() - began


# -- tables


def report(rows: Sequence[Row]) -> tuple[str, list[list[str]]]:
    """Tables, and the goals' lines."""

    def of(case: str, contender: str, key: str = "s") -> dict[int, float]:
        return values(rows, key, case=case, contender=contender)

    large = {name: of("large", name) for name in (SET, BARE, STORE, LOAD, UPLOAD)}
    rest = {
        name: {number: large[name][number] - large[LOAD][number] for number in large[name]} for name in (STORE, UPLOAD)
    }
    speed = {name: ratios(large[SET], large[name]) for name in (BARE, STORE, UPLOAD)}
    less = {name: ratios(large[SET], rest[name]) for name in rest}
    table = [
        [name, spread(found.values()), spread(speed.get(name, ())), spread(less.get(name, ()))]
        for name, found in large.items()
    ]
    parts = [f"A model of {BIG // 10**6} MB, s\n", markdown(["", "s", "speed / SET", "the same, less the load"], table)]
    parts += ["\nA model of torch that comes by a slow link to a new worker, s\n", _torch_table(of)]
    cold = [spread(of("cold", "all", key).values()) for key in ("ready", "stored", "answered")]
    parts += ["\nA new database, s from its start\n", markdown(["ready", "model stored", "answered"], [cold])]
    kinds = [
        [case, *(spread(of("preload", case, key).values()) for key in ("s", "slowest", "ratio"))]
        for case in ("cold", "warm")
    ]
    head = ["workers", f"{COUNT} objects", "the slowest alone", "ratio"]
    parts += [f"\n{COUNT} objects to {SHARDS} shards, s\n", markdown(head, kinds)]
    lines = [
        GOALS["bare"].line(speed[BARE]), GOALS["worker"].line(less[STORE]),
        GOALS["upload"].line(less[UPLOAD]),
        *([f"{case} workers: {line[0]}", *line[1:]] for case in ("cold", "warm")
          for line in [GOALS["preload"].line(of("preload", case, "ratio").values())]),
        GOALS["cold"].line(of("cold", "all", "answered").values()),
        GOALS["torch"].line(of("torch", "told", "over").values()),
    ]  # fmt: skip
    return "\n".join(parts), lines


def _torch_table(of) -> str:
    own = {key: spread(of("torch", "in process", key).values()) for key in ("import", "load")}
    told = [spread(of("torch", name).values()) for name in ("told", "not told")]
    head = ["import in process", "load in process", "last byte to OK, told by ASIM.PREPARE", "not told"]
    return markdown(head, [[own["import"], own["load"], *told]])
