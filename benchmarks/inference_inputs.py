"""Large inputs of a model that does nothing: through shared memory, and through the socket."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from harness import Row, median
from inference_models import Store
from inference_serving import Served
from inference_table import ratios, spread, values
from report import markdown

SIZES = [1 << power for power in (18, 20, 22, 24, 26)]
CALLS = {size: 3 if size >= 1 << 24 else 15 for size in SIZES}
WAYS = ("shared memory", "socket", "copy")


def measure(args: argparse.Namespace, store: Store, skipped: list[str]) -> Iterator[Row]:
    """All sizes by both ways, and a copy of the array."""
    blob = store.get("first.onnx")
    if blob is None:
        skipped.append(f"large inputs: {store.missing['first.onnx']}")
        return
    with ExitStack() as stack:
        ways = {name: stack.enter_context(Served(shares=name == WAYS[0])) for name in WAYS[:2]}
        for served in ways.values():
            served.db.execute_command("AI.MODELSTORE", "first", "ONNX", "CPU", "BLOB", blob)
        for number in range(args.rounds):
            todo = [(size, way) for size in SIZES for way in WAYS]
            random.Random(number).shuffle(todo)
            for size, way in todo:
                array = np.random.default_rng(number).random((1, size // 4), "f4")
                call = _call(ways[way], array) if way in ways else array.copy
                yield {"round": number, "case": size, "contender": way, "ms": median(_times(call, CALLS[size]))}


def _call(served: Served, array):
    served.put("x", array)
    served.run("first", "y")
    np.testing.assert_array_equal(served.get("y", (1, 1)), array[:, :1])
    return lambda: served.run("first", "y")


def _times(call, count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1e3)
    return found


def report(rows: Sequence[Row]) -> tuple[str, list[list[str]]]:
    """A table."""
    table = []
    for size in SIZES:
        found = [values(rows, "ms", case=size, contender=way) for way in WAYS]
        name = f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"
        table.append([name, *(spread(one.values()) for one in found), spread(ratios(found[1], found[0]))])
    return markdown(["ms", *WAYS, "socket / shared"], table), []
