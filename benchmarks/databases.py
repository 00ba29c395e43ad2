"""How long databases take to start: ``python benchmarks/databases.py``. One JSON line per row, then a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from asim import Experiment
from asim.database.config import NodeConfig
from asim.database.server_program import find_server

SERVER = find_server(dict(os.environ)) or "redis-server"


def node(folder: Path) -> float:
    """From the start of the node's interpreter until the database is reported ready: the goal is 150 ms."""
    config = NodeConfig(name="o", run="r", directory=str(folder), ports=[0], interfaces=["lo"], secret="s")
    (folder / "c.json").write_text(config.to_json())
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-P", "-m", "asim.database.node", folder / "c.json", "0"])
    while not Path(config.report(0)).exists():
        time.sleep(0.0005)
    took = time.perf_counter() - began
    process.terminate()
    process.wait()
    return took


def bare(folder: Path) -> float:
    """From the start of redis-server itself until it accepts a connection: what nobody can avoid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        SERVER,
        "--port",
        str(port),
        "--dir",
        folder,
        "--save",
        "",
        "--daemonize",
        "no",
        "--logfile",
        folder / "log",
    ]
    began = time.perf_counter()
    process = subprocess.Popen(words)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as talk:
                talk.sendall(b"PING\r\n")
                if talk.recv(7) == b"+PONG\r\n":
                    break
        except OSError:
            time.sleep(0.0005)
    took = time.perf_counter() - began
    process.terminate()
    process.wait()
    return took


async def start(folder: Path, nodes: int) -> float:
    """``await exp.start(db)`` in an experiment whose agent runs."""
    async with Experiment("bench", exp_path=folder / "exp") as exp:
        await exp.start(exp.create_model("warm", exp.create_run_settings("/bin/true")))
        db = exp.create_database(port=0, db_nodes=nodes)
        began = time.perf_counter()
        await exp.start(db)
        return time.perf_counter() - began


async def model(folder: Path, beside: bool) -> float:
    """One /bin/true from start to end, with and without a database beside it."""
    async with Experiment("bench", exp_path=folder / "exp") as exp:
        await exp.start(exp.create_model("warm", exp.create_run_settings("/bin/true")))
        one = exp.create_model("m", exp.create_run_settings("/bin/true"))
        if beside:
            one.colocate_db_tcp(port=0)
        began = time.perf_counter()
        await exp.start(one)
        return time.perf_counter() - began


def awaited(work: Callable[..., Awaitable[float]], *arguments: object) -> Callable[[Path], float]:
    return lambda folder: asyncio.run(work(folder, *arguments))  # type: ignore[arg-type]


CASES: dict[str, tuple[Callable[[Path], float], str]] = {
    "redis-server alone answers PING": (bare, ""),
    "node: exec to ready": (node, "goal 150 ms"),
    "await exp.start(db), standalone": (awaited(start, 1), ""),
    "await exp.start(db), 3 shards, cluster_state:ok": (awaited(start, 3), "goal 1500 ms"),
    "model of /bin/true": (awaited(model, False), ""),
    "model of /bin/true with a colocated database": (awaited(model, True), ""),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):  # interleaved, so that what else the machine does falls on all
        for name, (case, _note) in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                times[name].append(case(Path(folder)) * 1000)
    version = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    print(
        f"| ms, {rounds} rounds, redis {version.removeprefix('v=')} | median | least | most | |\n|---|---|---|---|---|"
    )
    for name, found in times.items():
        print(f"| {name} | {statistics.median(found):.0f} | {min(found):.0f} | {max(found):.0f} | {CASES[name][1]} |")
    print(json.dumps({name: [round(value, 1) for value in found] for name, found in times.items()}))


if __name__ == "__main__":
    main()
