"""Smoke in a flow, on a coarse grid in several ranks, with and without a network that knows what the grid cannot see.

1. The network learns from some other flows on a grid that is four times finer (seconds, with numpy), and is uploaded.
2. The ranks run three times: with a first-order scheme, with a second-order one, and with the network, which every rank
   calls in every step. It is evaluated in the database, where the ranks also exchange the rows at their borders.
3. All are compared with a run on the finer grid, and at the end, when the flow has turned back, with the beginning.

Run it with ``python examples/online_inference/smoke.py``; ``--help`` tells the options.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from case import CELLS, FLOW, PUFFS, STEPS
from closure import FINER, learn
from picture import Run, plot, show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from solver import HALO, Array, advance, coarsen, fluxes, limited, smoke

from asim import Client, DatabaseError, Ensemble, Experiment

PROGRAM = Path(__file__).resolve().with_name("rank.py")
SCHEMES = {"upwind": "first order", "limited": "second order", "network": "network"}
console = Console()


async def compare(results: Path, ranks: int, network: bytes) -> list[Run]:
    """Run the ranks with each scheme, one after the other, beside one database."""
    async with Experiment("online-inference", results) as exp:
        database = exp.create_database(port=0)
        await exp.generate(database, overwrite=True)
        await exp.start(database)
        async with exp.client() as client:
            return [await run(exp, client, members(exp, scheme, ranks, network)) for scheme in SCHEMES]


def members(exp: Experiment, scheme: str, ranks: int, network: bytes) -> Ensemble:
    """An ensemble whose members are the ranks, from ``network_0`` to ``network_3``."""
    params = {"scheme": scheme, "rank": list(range(ranks)), "ranks": ranks}
    settings = exp.create_run_settings(sys.executable, [str(PROGRAM)], env_vars={"OMP_NUM_THREADS": 1})
    ensemble = exp.create_ensemble(scheme, params, params_as_args=list(params), run_settings=settings, fail_fast=True)
    for member in ensemble:
        member.register_incoming_entity(ensemble)  # it reads what the others, and itself, have put
    if scheme == "network":  # calls of ranks that come while others wait for their turn are put together
        ensemble.add_ml_model("closure", "ONNX", network, batch_size=4 * CELLS**2)
    return ensemble


async def run(exp: Experiment, client: Client, ensemble: Ensemble) -> Run:
    """Start the ranks, show how far they are, and put their parts together."""
    group = await exp.start(ensemble, block=False)
    ended = asyncio.ensure_future(group.wait())
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(SCHEMES[ensemble.name], total=STEPS)
        while not ended.done():
            await asyncio.wait([ended], timeout=0.2)
            if await client.tensor_exists(f"{ensemble.name}_0.step"):
                progress.update(bar, completed=int((await client.get_tensor(f"{ensemble.name}_0.step"))[0]))
    if group.failed:
        job = group.failed[0]
        sys.exit(f"{job.name}: {job.status}, {job.reason}\n{job.stderr.read_text()}")
    half, end, seconds = [
        await asyncio.gather(*(client.get_tensor(f"{one.name}.{name}") for one in ensemble))
        for name in (f"field_{STEPS // 2}", f"field_{STEPS}", "seconds")
    ]
    per_step = float(np.max(seconds)) / STEPS
    return Run(SCHEMES[ensemble.name], np.concatenate(half), np.concatenate(end), per_step)


def reference() -> Run:
    """The same on the finer grid, without ranks."""
    field, half, began = smoke(CELLS * FINER, PUFFS), np.empty(0), time.perf_counter()
    rows, steps = slice(0, CELLS * FINER), STEPS * FINER
    for step in range(steps):
        padded = np.pad(field, HALO, mode="wrap")
        courant = FLOW.courant(rows, CELLS * FINER, (step + 0.5) / steps, 1 / steps)
        field = advance(padded, fluxes(padded, courant, limited))
        if step == steps // 2 - 1:
            half = field
    return Run("reference", half, field, (time.perf_counter() - began) / steps)


def main() -> None:
    """Read the command line, learn, run, compare."""
    parser = argparse.ArgumentParser(description="Smoke in a flow, with and without a network in the database.")
    parser.add_argument("--ranks", type=int, choices=(1, 2, 4, 8), default=4, help="default: %(default)s")
    parser.add_argument(
        "--results", type=Path, default=Path("online-inference"), metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    if absent := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        sys.exit(f"Not installed: {', '.join(absent)}. Install with: {sys.executable} -m pip install 'asim[demo]'")

    began = time.perf_counter()
    network = learn(CELLS, STEPS)
    print(
        f"The network has learned from 3 flows on {CELLS * FINER} x {CELLS * FINER} cells in {time.perf_counter() - began:.1f} s."
    )
    try:
        runs = asyncio.run(compare(options.results, options.ranks, network))
    except DatabaseError as error:
        sys.exit(str(error))
    report(options.results, network, [*runs, reference()], options.ranks)


def report(results: Path, network: bytes, runs: list[Run], ranks: int) -> None:
    """The table, the files, and where they are."""
    start = smoke(CELLS, PUFFS)
    half = coarsen(runs[-1].half, FINER)
    show(console, runs, half, start, ranks)
    plot(results / "smoke.png", runs, half, start)
    (results / "closure.onnx").write_bytes(network)
    fields: dict[str, Array] = {f"{one.name} {when}": getattr(one, when) for one in runs for when in ("half", "end")}
    np.savez_compressed(results / "fields.npz", allow_pickle=False, **fields)
    print(f"The results are in {results.resolve()}: smoke.png, fields.npz (what is in the picture), closure.onnx")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C: the experiment has stopped its members on the way out
        sys.exit("Interrupted. Nothing is left running.")
