"""What came of the sweep: a table, files, and a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console
from rich.table import Table
from surrogate import Array, question

from asim import DataSet, Experiment, JobGroup

TIMESTEP = 0.004  # of in.melt, in Lennard-Jones units, as all numbers here
Grid: TypeAlias = tuple[Array, Array, Array]
"""Temperatures, densities, and the network's temperature and pressure for them."""
console = Console()


class Member:
    """What one member sent, and what the network expects of it.

    :ivar record: its parameters, times and files.
    :ivar observed: LAMMPS' temperature and pressure, a row for each sample.
    :ivar expected: the network's.
    """

    def __init__(self, record: dict[str, Any], stream: Sequence[DataSet]) -> None:
        self.record = record
        self.temp, self.rho = float(record["param_TEMP"]), float(record["param_RHO"])
        self.steps = np.array([sample.get_meta_scalars("step")[0] for sample in stream])
        rows = np.array([sample.get_tensor("observed") for sample in stream])
        self.observed, self.energy = rows[:, :2], rows[:, 2]
        asked = [sample for sample in stream if "expected" in sample.get_tensor_names()]
        self.expected = np.array([sample.get_tensor("expected") for sample in asked])

    @property
    def questions(self) -> np.ndarray:
        """What the network is asked, a row for each sample."""
        return question(self.temp, self.rho, self.steps)

    def row(self, part: str) -> dict[str, Any]:
        """Its record, with the means over the second half of its run."""
        half = self.steps >= self.steps[-1] / 2
        found = {"part": part, "total_energy": float(self.energy[-1])}
        for number, name in enumerate(("temperature", "pressure")):
            found[f"{name}_lammps"] = float(self.observed[half, number].mean())
            found[f"{name}_network"] = float(self.expected[half, number].mean())
        return {**self.record, **found}


def report(
    results: Path, learned: Sequence[Member], checked: Sequence[Member], grid: Grid, elsewhere: str = ""
) -> None:
    """Print the table, write the files, and say where they are.

    :param elsewhere: where the members' own files are, if that is not below the results.
    """
    rows = [*(one.row("learned from") for one in learned), *(one.row("never seen") for one in checked)]
    show(rows)
    write(results, rows)
    plot(results / "surrogate.png", learned, checked, grid)
    errors = np.concatenate([one.expected - one.observed for one in checked])
    temperature, pressure = np.sqrt(np.mean(errors**2, axis=0))
    print(
        f"Of the {len(checked)} members that it had never seen, the network expected each sample with an error of "
        f"{temperature:.3f} in\ntemperature and {pressure:.2f} in pressure (root mean square). "
        "It was evaluated in the database while LAMMPS ran."
    )
    print(f"The results are in {results.resolve()}:")
    print("  surrogate.png               LAMMPS and the network")
    print("  records.csv, records.json   a row for every member: parameters, results, times, files")
    print("  surrogate.onnx              the network")
    folders = f"melt/melt_0 ... melt_{len(learned) - 1}, check/check_0 ... check_{len(checked) - 1}"
    print(f"What LAMMPS read and wrote is in {elsewhere}" if elsewhere else f"  {folders}   what LAMMPS read and wrote")


async def complain(exp: Experiment, group: JobGroup) -> str:
    """How many members failed, and the last lines that the first of them wrote, wherever that was."""
    job = group.failed[0]
    lines = [f"{len(group.failed)} of {len(group)} members failed, the first is {job.name}: {job.status}, {job.reason}"]
    for file, tail in (
        (job.stdout, [line async for line in exp.follow(job.model)]),
        (job.stderr, [line async for line in exp.follow(job.model, "stderr")]),
    ):
        lines += [f"The end of {file}:", *(f"  {line}" for line in tail[-10:])] if tail else []
    return "\n".join(lines)


def write(results: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The same rows as CSV and as JSON."""
    with (results / "records.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (results / "records.json").write_text(json.dumps(rows, indent=1, default=str) + "\n")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for every member, first those that the network learned from."""
    table = Table("Member", "TEMP", "RHO", title="Temperature and pressure, means over the second half of each run")
    for name in ("T\nLAMMPS", "T\nnetwork", "P\nLAMMPS", "P\nnetwork", "Seconds"):
        table.add_column(name, justify="right")
    for row, after in zip(rows, [*rows[1:], rows[-1]], strict=True):
        numbers = [
            f"{row[f'{name}_{who}']:.3f}" for name in ("temperature", "pressure") for who in ("lammps", "network")
        ]
        words = row["name"], str(row["param_TEMP"]), str(row["param_RHO"]), *numbers, f"{row['elapsed_s']:.2f}"
        table.add_row(*words, end_section=row["part"] != after["part"])
    console.print(table)


# -- the picture


def plot(path: Path, learned: Sequence[Member], checked: Sequence[Member], grid: Grid) -> None:
    """Two panels: what the checked members saw and what the network expected; and its map of the pressure."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")  # without pyplot it needs no display
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    streams(left, checked)
    surface(figure, right, learned, checked, grid)
    figure.savefig(path, dpi=150)


def streams(axes: Axes, checked: Sequence[Member]) -> None:
    """Temperature against time, of members that the network had not seen."""
    colours = colormaps["plasma"]
    markers = dict(zip(sorted({one.rho for one in checked}), "os", strict=True))
    for one in checked:
        time, colour = one.steps * TIMESTEP, colours(one.temp / 3.2)
        axes.plot(time, one.observed[:, 0], markers[one.rho], markersize=3.5, markerfacecolor="none", color=colour)
        axes.plot(time, one.expected[:, 0], linewidth=1.5, color=colour)
    handles = [
        Line2D([], [], color="k", ls="", marker=marker, markerfacecolor="none", label=f"LAMMPS, density {rho}")
        for rho, marker in markers.items()
    ]
    axes.legend(handles=[*handles, Line2D([], [], color="k", label="network, while LAMMPS ran")], frameon=False)
    axes.set(xlabel="Time [LJ units]", ylabel="Temperature [LJ units]", ylim=(0, None))
    axes.set_title("Six crystals that the network had never seen")


def surface(figure: Figure, axes: Axes, learned: Sequence[Member], checked: Sequence[Member], grid: Grid) -> None:
    """The pressure that the network expects at the end, with LAMMPS' own on top in the same colours."""
    temp, rho, answers = grid
    look: dict[str, Any] = {"norm": Normalize(-3, 9), "cmap": "viridis"}
    drawn = axes.contourf(temp, rho, answers[..., 1], levels=np.arange(-3, 9.1, 0.5), extend="both", **look)
    for members, marker, part in (learned, "o", "learned from"), (checked, "s", "never seen"):
        values = [one.row(part)["pressure_lammps"] for one in members]
        points = [one.temp for one in members], [one.rho for one in members]
        look |= {"marker": marker, "s": 90, "edgecolors": "white", "linewidths": 1.5, "zorder": 3}
        axes.scatter(*points, c=values, clip_on=False, **look)
    figure.colorbar(drawn, ax=axes, label="Pressure [LJ units]", ticks=range(-3, 10, 2))
    handles = [
        Line2D([], [], color="grey", ls="", marker=marker, markeredgecolor="k", markersize=9, label=f"LAMMPS, {part}")
        for marker, part in (("o", "learned from"), ("s", "never seen"))
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    axes.set(xlabel="Initial temperature [LJ units]", ylabel="Density [LJ units]")
    axes.set_title("Pressure: surface by the network, symbols by LAMMPS", pad=12)
