"""A model of ResNet-50's size: what the database adds to it, and what a second worker gives."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from harness import Row, median
from inference_models import IMAGE, Store
from inference_serving import Clients, Served, job
from inference_table import Goal, ratios, spread, values
from report import markdown

NAMES = {"ONNX": "resnet.onnx", "TORCH": "resnet.torch", "TF": "resnet.tf", "TFLITE": "resnet.tflite"}
THREADS = (1, 2)
SECONDS = 3.0
MOST_ROUNDS = 5
CLIENTS = 4
"""So many ask at the same time, so that no worker ever waits."""
ADDED = Goal("added to a call in process", 5, most=True, unit="%")
TWO = Goal("rate of two workers / of one", 1.6)
ALONE, RUN, ALL = "alone", "run", "put_run_get"


def measure(args: argparse.Namespace, store: Store, skipped: list[str]) -> Iterator[Row]:
    """Both comparisons, in every round."""
    np.save(store.path("image.npy"), np.random.default_rng(2).random(IMAGE, "f4"))
    backends = []
    for backend, name in NAMES.items():
        if store.get(name) is None:
            skipped.append(f"ResNet-50, {backend}: {store.missing[name]}")
        else:
            backends.append(backend)
    with ExitStack() as stack:
        threaded = {threads: stack.enter_context(Served(threads=threads)) for threads in THREADS}
        several = {1: threaded[1], 2: stack.enter_context(Served(workers=2))}
        clients = {threads: Clients() for threads in THREADS}  # torch is told its threads once in a process
        for served in {*threaded.values(), *several.values()}:
            _stored(served, store, backends)
        try:
            for number in range(min(args.rounds, MOST_ROUNDS)):
                yield from _round(number, store, backends, threaded, several, clients)
        finally:
            for some in clients.values():
                some.close()


def _stored(served: Served, store: Store, backends: Sequence[str]) -> None:
    served.put("x", np.load(store.path("image.npy")))
    for backend in backends:
        names = ["INPUTS", 1, "x", "OUTPUTS", 1, "Identity"] if backend == "TF" else []
        served.db.execute_command("AI.MODELSTORE", backend, backend, "CPU", *names, "BLOB", store.get(NAMES[backend]))


def _round(number, store, backends, threaded, several, clients) -> Iterator[Row]:
    todo = [("beside", backend, threads) for backend in backends for threads in THREADS]
    todo += [("beside", "ONNX_WAITING", threads) for threads in THREADS[1:] if "ONNX" in backends]
    todo += [(what, backend, count) for what in ("rate", "limit") for backend in backends for count in several]
    random.Random(number).shuffle(todo)
    for what, backend, count in todo:
        row = {"round": number, "case": what, "contender": backend, "count": count}
        model = backend.partition("_")[0]
        where = {"backend": backend, "path": str(store.path(NAMES[model])), "array": str(store.path("image.npy"))}
        if what == "beside":
            words = job(threaded[count], "run", model, threads=count, seconds=SECONDS, **where)
            yield _added({**row, **clients[count].run("beside", 1, words)})
            continue
        kind, processes = ("raw", CLIENTS) if what == "rate" else ("framework", count)
        words = job(several[count], "run", model, threads=1, seconds=SECONDS, **where)
        yield {**row, **clients[1].run(kind, processes, words)}


def _added(row: Row) -> Row:
    """With the median of what each turn says, in percent."""
    for name in (RUN, ALL):
        if name in row:
            row[f"{name}_added"] = (median(b / a for a, b in zip(row[ALONE], row[name], strict=True)) - 1) * 100
    if ALONE in row:
        row |= {name: median(row[name]) for name in (ALONE, RUN, ALL)}
    return row


def report(rows: Sequence[Row]) -> tuple[str, list[list[str]]]:
    """Tables, and the goals' lines."""
    table, lines, rates = [], [], []
    beside = dict.fromkeys((row["contender"], row["count"]) for row in rows if row["case"] == "beside")
    for backend, threads in sorted(beside):
        found = {
            name: values(rows, name, case="beside", contender=backend, count=threads)
            for name in (ALONE, RUN, ALL, f"{RUN}_added", f"{ALL}_added")
        }
        cells = [spread(one.values()) for one in found.values()]
        table.append([_named(backend), str(threads), *cells])
        for name, text in ((f"{RUN}_added", "run"), (f"{ALL}_added", "put, run, get")):
            what = f"ResNet-50, {_named(backend)}, {threads} thread{'s'[: threads > 1]}, {text}: {ADDED.text}"
            lines.append([what, *ADDED.line(found[name].values())[1:]])
    for backend in sorted({row["contender"] for row in rows if row["case"] == "rate"}):
        found = [values(rows, "ops_s", case=c, contender=backend, count=n) for c in ("rate", "limit") for n in (1, 2)]
        twice = [ratios(found[1], found[0]), ratios(found[3], found[2])]
        rates.append([backend, *(spread(one.values()) for one in found), *map(spread, twice)])
        lines.append([f"ResNet-50, {backend}: {TWO.text}", *TWO.line(twice[0])[1:]])
    head = ["", "threads", "in process ms", "run ms", "put, run, get ms", "run adds %", "put, run, get add %"]
    many = ["1/s", "1 worker", "2 workers", "in process, 1", "in process, 2", "2 workers / 1", "in process, 2 / 1"]
    return "\n".join([markdown(head, table), "", markdown(many, rates)]), lines


def _named(backend: str) -> str:
    return "ONNX beside threads that do not spin" if backend == "ONNX_WAITING" else backend
