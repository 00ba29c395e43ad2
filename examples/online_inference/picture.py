"""A table and a picture of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from solver import Array, coarsen


class Run(NamedTuple):
    """One run: the scheme, the fields at half time and at the end, and seconds for each step."""

    name: str
    half: Array
    end: Array
    seconds: float


def error(field: Array, truth: Array) -> float:
    """Mean absolute difference, relative to the mean of the truth; the field may be on a finer grid."""
    same = coarsen(field, len(field) // len(truth))
    return float(np.abs(same - truth).mean() / np.abs(truth).mean())


def show(console: Console, runs: Sequence[Run], half: Array, start: Array, ranks: int) -> None:
    """A line for each run; the last one is the reference."""
    table = Table(
        "Scheme", "Cells", "Ranks", title="Errors: at half time to the reference, at the end to the beginning"
    )
    for name in ("Half time", "End", "ms / step"):
        table.add_column(name, justify="right")
    for one in runs:
        at_half = "" if one is runs[-1] else f"{error(one.half, half):.1%}"
        size, parts = f"{len(one.half)} x {len(one.half)}", str(1 if one is runs[-1] else ranks)
        table.add_row(one.name, size, parts, at_half, f"{error(one.end, start):.1%}", f"{1000 * one.seconds:.1f}")
    console.print(table)


def plot(path: Path, runs: Sequence[Run], half: Array, start: Array) -> None:
    """All fields: the upper row at half time, the lower one at the end."""
    figure = Figure(figsize=(12, 6.2), layout="constrained")  # without pyplot it needs no display
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[call-arg, union-attr, unused-ignore]
    panels = figure.subplots(2, len(runs), sharex=True, sharey=True)
    panels[0, 0].set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for column, one in zip(panels.T, runs, strict=True):
        cells = len(one.half)
        for axes, field, truth in zip(column, (one.half, one.end), (half, start), strict=True):
            image = axes.imshow(field.T, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1, cmap="inferno")
            reference = one is runs[-1] and truth is half
            axes.set_title("taken as true" if reference else f"error {error(field, truth):.1%}", fontsize=10)
        column[0].set_title(f"{one.name}, {cells}$\\times${cells} cells\n{column[0].get_title()}", fontsize=11)
        column[1].set_xlabel("x")
    panels[0, 0].set_ylabel("half time: most distorted\ny")
    panels[1, 0].set_ylabel("end: should be as at the beginning\ny")
    figure.colorbar(image, ax=panels, label="Concentration of smoke", shrink=0.8, pad=0.02)
    figure.savefig(path, dpi=150)
