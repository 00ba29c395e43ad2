"""How long a lone client waits for a batch that does not come."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence

import numpy as np
from harness import Row
from inference_models import MLP, Store
from inference_serving import Served
from inference_table import Goal, spread, values
from report import markdown

TIMEOUTS = (2, 20, 100)
"""MINBATCHTIMEOUT, in milliseconds."""
CALLS = 10
GOAL = Goal(
    "lone client, MINBATCHSIZE 4: longest wait, less MINBATCHTIMEOUT and the longest plain run", 1, True, "", "ms"
)


def measure(args: argparse.Namespace, store: Store, skipped: list[str]) -> Iterator[Row]:
    """The same model with several patiences, and without; in turns."""
    blob = store.get("mlp.onnx")
    if blob is None:
        skipped.append(f"MINBATCHSIZE: {store.missing['mlp.onnx']}")
        return
    with Served() as served:
        served.put("x", np.ones((1, MLP[0]), "f4"))
        for timeout in (0, *TIMEOUTS):
            batch = ["BATCHSIZE", 8, "MINBATCHSIZE", 4, "MINBATCHTIMEOUT", timeout] if timeout else []
            served.db.execute_command("AI.MODELSTORE", f"m{timeout}", "ONNX", "CPU", *batch, "BLOB", blob)
            served.run(f"m{timeout}", "y")
        for number in range(args.rounds):
            order = [*(0, *TIMEOUTS) * CALLS]
            random.Random(number).shuffle(order)
            times: dict[int, list[float]] = {}
            for timeout in order:
                began = time.perf_counter()
                served.run(f"m{timeout}", "y")
                times.setdefault(timeout, []).append((time.perf_counter() - began) * 1e3)
            for timeout, found in times.items():
                over = max(found) - timeout - max(times[0])
                middle = {"median_ms": sorted(found)[CALLS // 2], "longest_ms": max(found), "over_ms": over}
                yield {"round": number, "case": "waiting", "contender": timeout, **middle}


def report(rows: Sequence[Row]) -> tuple[str, list[list[str]]]:
    """A table, and the goal's lines."""
    table, over = [], []
    for timeout in (0, *TIMEOUTS):
        found = [values(rows, key, contender=timeout) for key in ("median_ms", "longest_ms")]
        table.append([f"{timeout} ms" if timeout else "none", *(spread(one.values()) for one in found)])
        over += values(rows, "over_ms", contender=timeout).values() if timeout else []
    return markdown(["MINBATCHTIMEOUT", "median ms", f"longest of {CALLS} ms"], table), [GOAL.line(over)]
