"""What goals.py measures of asim besides whole ensembles. Each probe runs in a fresh process: ``probes.py NAME --root DIR``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asim

Found = dict[str, Any]
PARAMETERS = [f"p{number}" for number in range(4)]
TEMPLATE = "\n".join(
    f"line {number} value = ;p{number // 25};" if number % 25 == 0 else f"line {number} = constant"
    for number in range(100)
)


def experiment(args: argparse.Namespace, **options: Any) -> asim.Experiment:
    return asim.Experiment("bench", exp_path=args.root, launcher=args.launcher, **options)


async def warm(exp: asim.Experiment) -> None:
    """Bring the agent up."""
    await exp.start(exp.create_model("warm", exp.create_run_settings("/bin/true")))


async def notice(args: argparse.Namespace) -> Found:
    """How late ``job.wait()`` returns after a process's last act, and how long one no-op model takes in all."""
    delays, calls = [], []
    async with experiment(args) as exp:
        await warm(exp)
        for number in range(args.n):
            model = exp.create_model(f"m{number}", exp.create_run_settings(args.stamp, "30"))
            (job,) = await exp.start(model, block=False)
            await job.wait()
            now = time.time_ns()
            delays.append((now - int(job.stdout.read_text().split()[1])) / 1e6)
        for number in range(args.n // 2):
            model = exp.create_model(f"noop{number}", exp.create_run_settings("/bin/true"))
            begin = time.perf_counter()
            await exp.start(model, block=True)
            calls.append((time.perf_counter() - begin) * 1e3)
    return {"delays_ms": delays, "noop_ms": calls}


async def first(args: argparse.Namespace) -> Found:
    """How long after ``start`` of a new Experiment its first process runs."""
    async with experiment(args) as exp:
        model = exp.create_model("first", exp.create_run_settings(args.stamp, "0"))
        begin = time.time_ns()
        group = await exp.start(model)
        return {"first_ms": (int(group[0].stdout.read_text().split()[0]) - begin) / 1e6}


async def lag(args: argparse.Namespace) -> Found:
    """How late a coroutine that wants to run every millisecond does, idle and while an ensemble is made and run."""
    async with experiment(args, max_concurrent=args.in_flight) as exp:
        await warm(exp)
        idle = await _ticking(lambda: asyncio.sleep(1.0))
        busy = await _ticking(lambda: _ensemble(exp, args.n))
    return {"idle_ms": idle, "busy_ms": busy}


async def _ensemble(exp: asim.Experiment, n: int) -> None:
    ensemble = exp.create_ensemble("ens", replicas=n, run_settings=exp.create_run_settings("/bin/true"))
    await exp.generate(ensemble)
    await exp.start(ensemble, check=True)


async def _ticking(work: Callable[[], Coroutine[Any, Any, None]]) -> list[float]:
    late: list[float] = []

    async def tick() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - begin - 0.001) * 1e3)

    ticker = asyncio.create_task(tick())
    await work()
    ticker.cancel()
    return late


async def generate(args: argparse.Namespace) -> Found:
    """``generate`` of an ensemble, right after and before a bare loop of the same system calls."""
    template = Path(args.root, "in.txt")
    template.write_text(TEMPLATE)
    async with experiment(args) as exp:
        await warm(exp)
        ensemble = exp.create_ensemble(
            "ens",
            params={name: list(range(args.n)) for name in PARAMETERS},
            perm_strategy="step",
            run_settings=exp.create_run_settings("/bin/true"),
        )
        ensemble.attach_generator_files(to_configure=str(template))
        before = _bare(f"{args.root}/bare1", args.n)
        begin = time.perf_counter()
        await exp.generate(ensemble)
        total = time.perf_counter() - begin
        after = _bare(f"{args.root}/bare2", args.n)
    same = Path(args.root, "ens/ens_7/in.txt").read_bytes() == Path(args.root, "bare1/ens_7/in.txt").read_bytes()
    assert same, "the bare loop must write what generate writes"
    return {"generate_s": total, "bare_s": [before, after]}


def _bare(root: str, n: int) -> float:
    """The system calls alone: everything that is written was made before."""
    texts = []
    for number in range(n):
        text = TEMPLATE
        for name in PARAMETERS:
            text = text.replace(f";{name};", str(number))
        texts.append((f"{root}/ens_{number}", f"{root}/ens_{number}/in.txt", text.encode()))
    rows = {f"ens_{number}": dict.fromkeys(PARAMETERS, number) for number in range(n)}
    listing = (json.dumps(rows).encode(), "\n".join(map(str, rows.items())).encode())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    begin = time.perf_counter()
    os.mkdir(root)
    for directory, path, data in texts:
        os.mkdir(directory)
        _write(path, flags, data)
    for name, data in zip(("json", "txt"), listing, strict=True):
        _write(f"{root}/params.{name}", flags, data)
    return time.perf_counter() - begin


def _write(path: str, flags: int, data: bytes) -> None:
    fd = os.open(path, flags, 0o666)
    os.write(fd, data)
    os.close(fd)


async def cancel(args: argparse.Namespace) -> Found:
    """How long it takes to cancel many running processes, until all are gone."""
    async with experiment(args) as exp:
        sleeper = exp.create_run_settings("sleep", "600")
        ensemble = exp.create_ensemble("ens", replicas=args.n, run_settings=sleeper)
        group = await exp.start(ensemble, block=False)
        while not all(job.pid for job in group):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        begin = time.perf_counter()
        await group.cancel()
        total = time.perf_counter() - begin
    left = [job.pid for job in group if os.path.exists(f"/proc/{job.pid}")]
    assert not left, f"still there: {left}"
    assert all(job.status is asim.JobState.CANCELLED for job in group)
    return {"cancel_s": total}


PROBES = {probe.__name__: probe for probe in (notice, first, lag, generate, cancel)}


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of all lies."""
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("probe", choices=PROBES)
    parser.add_argument("--root", required=True)
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--launcher", default="local")
    parser.add_argument("--stamp", help="the program made of stamp.c")
    args = parser.parse_args()
    print("RESULT " + json.dumps(asyncio.run(PROBES[args.probe](args))), flush=True)


if __name__ == "__main__":
    main()
