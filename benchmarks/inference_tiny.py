"""Tiny models: what is measured is everything but the model. Each run beside a put of 1 KiB by the same clients."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from harness import Row, median
from inference_frameworks import in_process
from inference_models import MLP, SCRIPT, Store
from inference_serving import Clients, Served, job
from inference_table import Goal, ratios, spread, values
from report import markdown

PUT = "put 1 KiB"
BATCHED = "ONNX, BATCHSIZE 32"
NAMES = {"ONNX": "mlp.onnx", "TORCH": "mlp.torch", "TF": "mlp.tf", "TFLITE": "mlp.tflite", "SCRIPT": "double.script"}
MODELS = [*NAMES, BATCHED]
IN_PROCESS = "in process"


@dataclass(frozen=True)
class Group:
    """What is compared: clients of one kind, so many ``processes`` with so many ``tasks`` each."""

    name: str
    kind: str
    processes: int = 1
    tasks: int = 1

    @property
    def value(self) -> str:
        """What counts of a row."""
        return "p50_us" if self.processes * self.tasks == 1 else "ops_s"


GROUPS = [
    Group(IN_PROCESS, "framework"),
    Group("1 raw client", "raw"),
    Group("1 SmartRedis client", "smartredis"),
    Group("1 asim.SyncClient", "asim-sync"),
    Group("1 asim.Client", "asim"),
    Group("8 raw clients", "raw", 8),
    Group("32 raw clients", "raw", 32),
    Group("8 SmartRedis clients", "smartredis", 8),
    Group("32 SmartRedis clients", "smartredis", 32),
    Group("8 asim.Client", "asim", 8),
    Group("1 asim.Client, 8 tasks", "asim", 1, 8),
    Group("1 asim.Client, 32 tasks", "asim", 1, 32),
]
GOALS = [
    ("1 raw client", "ONNX", Goal("1 raw client, p50 of a run / of a put", 2.8, True, "2.2-2.4")),
    ("1 SmartRedis client", "ONNX", Goal("1 SmartRedis client, the same", 2.0, True, "1.6-1.75")),
    ("8 SmartRedis clients", "ONNX", Goal("8 SmartRedis clients, rate of runs / of puts", 0.85, peer="0.8-0.9")),
    ("8 raw clients", "ONNX", Goal("8 raw clients, the same", 0.4, peer="0.37")),
    ("32 raw clients", BATCHED, Goal("32 raw clients, BATCHSIZE 32, the same", 0.6, peer="0.45 (unbatched)")),
]


def measure(args: argparse.Namespace, store: Store, skipped: list[str]) -> Iterator[Row]:
    """Every group in every round, in shuffled order; what is compared right after one another, shuffled too."""
    clients = Clients()
    groups = [group for group in GROUPS if clients.python or group.kind != "smartredis"]
    if not clients.python:
        skipped.append("SmartRedis: there is no Python with it (make smartredis, or ASIM_SMARTREDIS_PYTHON)")
    with Served() as served:
        try:
            models = list(_stored(served, store, skipped))
            for number in range(args.rounds):
                shuffle = random.Random(number).shuffle
                shuffle(groups)
                for group in groups:
                    contenders = [PUT, *models]
                    if group.kind == "framework":
                        contenders = [name for name in models if name != BATCHED]
                    shuffle(contenders)
                    for name in contenders:
                        words = _job(served, args, store, group, name)
                        found = clients.run(group.kind, group.processes, words, served.processes)
                        yield {"section": "tiny", "round": number, "case": group.name, "contender": name, **found}
        finally:
            clients.close()


def _job(served: Served, args: argparse.Namespace, store: Store, group: Group, name: str) -> Row:
    where = {"backend": name, "path": str(store.path(NAMES.get(name, ""))), "array": str(store.path("x.npy"))}
    function = "double" if name == "SCRIPT" else ""
    verb = "put" if name == PUT else "run"
    return job(served, verb, name, tasks=group.tasks, seconds=args.seconds, function=function, threads=1, **where)


def _stored(served: Served, store: Store, skipped: list[str]) -> Iterator[str]:
    """The models that are there now, each of whose answers was compared with its framework's own."""
    array = np.random.default_rng(1).normal(size=(1, MLP[0])).astype("f4")
    served.put("x", array)
    np.save(store.path("x.npy"), array)
    store.path(NAMES["SCRIPT"]).write_text(SCRIPT)
    for name in MODELS:
        backend = name.partition(",")[0]
        blob = store.get(NAMES[backend])
        if blob is None:
            skipped.append(f"{name}: {store.missing[NAMES[backend]]}")
            continue
        _store(served, name, backend, blob)
        wanted = in_process(backend, store.path(NAMES[backend]), 1)(array)
        np.testing.assert_allclose(served.get("y", wanted.shape), wanted, rtol=1e-5, err_msg=name)
        yield name


def _store(served: Served, name: str, backend: str, blob: bytes) -> None:
    """Store one and run it once."""
    tell = served.db.execute_command
    if name == "SCRIPT":
        tell("AI.SCRIPTSET", name, "CPU", "SOURCE", blob)
        tell("AI.SCRIPTRUN", name, "double", "INPUTS", "x", "OUTPUTS", "y")
        return
    batch = ["BATCHSIZE", 32] if name == BATCHED else []
    names = ["INPUTS", 1, "x", "OUTPUTS", 1, "Identity"] if name == "TF" else []
    tell("AI.MODELSTORE", name, backend, "CPU", *batch, *names, "BLOB", blob)
    served.run(name, "y")


def report(rows: Sequence[Row]) -> tuple[str, list[list[str]]]:
    """Tables, and the goals' lines."""
    contenders = [name for name in [PUT, *MODELS] if any(row["contender"] == name for row in rows)]
    found = [group for group in GROUPS if any(row["case"] == group.name for row in rows)]
    plain = [[group.name, _unit(group), *(_median(rows, group, name) for name in contenders)] for group in found]
    clients = [group for group in found if group.kind != "framework"]
    beside = [[group.name, *(spread(_beside(rows, group, name)) for name in contenders[1:])] for group in clients]
    costs = [[group.name, *(_median(rows, group, name, "cpu_us") for name in contenders)] for group in clients]
    parts = [
        "Medians: latency of one client, rate of several\n", markdown(["", "", *contenders], plain),
        "\nBeside a put: medians of the rounds' ratios, and the middle half of them\n",
        markdown(["", *contenders[1:]], beside),
        "\nProcessor time of one operation: clients, server and worker together, us\n",
        markdown(["", *contenders], costs),
    ]  # fmt: skip
    by_name = {group.name: group for group in GROUPS}
    lines = [goal.line(_beside(rows, by_name[case], name)) for case, name, goal in GOALS]
    return "\n".join(parts), [[f"tiny ONNX model, {line[0]}", *line[1:]] for line in lines]


def _unit(group: Group) -> str:
    return "us" if group.value == "p50_us" else "1/s"


def _median(rows: Sequence[Row], group: Group, name: str, key: str = "") -> str:
    found = values(rows, key or group.value, case=group.name, contender=name).values()
    return f"{median(found):.0f}" if found else "-"


def _beside(rows: Sequence[Row], group: Group, name: str) -> list[float]:
    one, put = (values(rows, group.value, case=group.name, contender=which) for which in (name, PUT))
    return ratios(one, put)
