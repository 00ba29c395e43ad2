"""Tables, CSV and a plot of a comparison's rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import Case, Contender, Row, chosen, median

STAGES = ("plan", "generate", "submit", "run", "notice", "collect")


def progress(row: Row) -> str:
    """One line about one run."""
    head = f"round {row['round'] + 1}: {row['n']:>6} x {row['task']} {row['contender']:<12}"
    if "error" in row:
        return f"{head} failed: {row['error'].splitlines()[-1] if row['error'] else 'no result'}"
    return f"{head} {row['total_s']:8.3f} s   {row['ratio']:7.2f} x C"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text, too."""
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    lines = [[*headers], ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def tables(about: Row, cases: Sequence[Case], contenders: Sequence[Contender], rows: Sequence[Row], full: bool) -> str:
    """Everything, as text."""
    parts = ["# asim: large ensembles\n", "\n".join(f"- {key}: {value}" for key, value in about.items())]
    for case in cases:
        parts.append(f"\n## {case}\n")
        parts.append(_comparison(case, contenders, rows, full))
        stages = _stage_table(case, contenders, rows)
        if stages:
            parts.append("\nwhere the time goes, ms per member:\n")
            parts.append(stages)
    failures = sorted({f"- {row['contender']}: {row['error'][-300:]}" for row in rows if "error" in row})
    if failures:
        parts += ["\n## Failed\n", *failures]
    return "\n".join(parts) + "\n"


def _comparison(case: Case, contenders: Sequence[Contender], rows: Sequence[Row], full: bool) -> str:
    headers = ["", "members", "runs", "total s (min-max)", "members/s", "x C loop", "driver CPU ms/member"]
    headers += ["helpers CPU ms/member", "peak MB driver/helpers", "bring-up s", "note"]
    lines = [_limit_line(case, rows)]
    ranked = []
    for contender in contenders:
        good = chosen(rows, contender.name, case)
        if good:
            ranked.append(
                (median(row["ratio"] for row in good), _line(contender, good, contender.size(case, full), case))
            )
        elif contender.runs_in(0, full):
            ranked.append((float("inf"), [contender.name, *["-"] * 9, "failed"]))
    return markdown(headers, [*lines, *(line for _, line in sorted(ranked))])


def _limit_line(case: Case, rows: Sequence[Row]) -> list[str]:
    near = [row for row in rows if (row["task"], row["in_flight"], row["n"]) == (case.task, case.in_flight, case.n)]
    if not near:
        return ["C loop", *["-"] * 10]
    totals = [row[key] for row in near for key in ("c_before_s", "c_after_s")]
    cpu = median(row["c_driver_cpu_s"] for row in near)
    head = ["C loop", str(case.n), str(len(totals)), *_times(totals, case.n), "1.00", f"{cpu / case.n * 1e3:.3f}"]
    return [*head, "-", "-", "-", "posix_spawn, one thread"]


def _times(totals: Sequence[float], n: int) -> list[str]:
    middle = median(totals)
    return [f"{middle:.3f} ({min(totals):.3f}-{max(totals):.3f})", f"{n / middle:.0f}"]


def _line(contender: Contender, good: Sequence[Row], size: int, case: Case) -> list[str]:
    def middle(key: str) -> float:
        return median(row.get(key, 0.0) for row in good)

    note = contender.note + (f"; {size} of {case.n} members, as it is slow" if size < case.n else "")
    return [
        contender.name,
        str(size),
        str(len(good)),
        *_times([row["total_s"] for row in good], size),
        f"{middle('ratio'):.2f}",
        f"{middle('driver_cpu_s') / size * 1e3:.3f}",
        f"{middle('helpers_cpu_s') / size * 1e3:.3f}",
        f"{middle('driver_rss_kb') / 1024:.0f} / {middle('helpers_rss_kb') / 1024:.0f}",
        f"{middle('bring_up_s'):.2f}",
        note.removeprefix("; "),
    ]


def _stage_table(case: Case, contenders: Sequence[Contender], rows: Sequence[Row]) -> str:
    lines = []
    for contender in contenders:
        good = [row for row in chosen(rows, contender.name, case) if "plan_s" in row]
        if good:
            cells = [_stage(good, stage) for stage in STAGES]
            lines.append([contender.name, *(f"{cell:.4f}" for cell in cells)])
    return markdown(["", *STAGES], lines) if lines else ""


def _stage(good: Sequence[Row], stage: str) -> float:
    return median(row.get(f"{stage}_s", 0.0) / row["n"] * 1e3 for row in good)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All rows, one line each."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def plot(cases: Sequence[Case], contenders: Sequence[Contender], rows: Sequence[Row], path: Path) -> bool:
    """The ratios to the C loop, and asim's stages. False when there is no matplotlib."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 0.9 + 0.28 * (len(contenders) + 1) * len(cases)))
    _plot_ratios(left, cases, contenders, rows)
    _plot_stages(right, cases, rows)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    return True


def _plot_ratios(axes: object, cases: Sequence[Case], contenders: Sequence[Contender], rows: Sequence[Row]) -> None:
    place: Callable[[int, int], float] = lambda case, one: case * (len(contenders) + 1) + one  # noqa: E731
    for number, contender in enumerate(contenders):
        good = {index: chosen(rows, contender.name, case) for index, case in enumerate(cases)}
        bars = [(place(index, number), median(row["ratio"] for row in found)) for index, found in good.items() if found]
        if bars:
            drawn = axes.barh([at for at, _ in bars], [ratio for _, ratio in bars], label=contender.name)
            axes.bar_label(drawn, [f"{ratio:.2f}" for _, ratio in bars], padding=2, fontsize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.margins(x=0.12)
    axes.set_xlabel("total time, multiples of the C loop beside it")
    if max((row["ratio"] for row in rows if "ratio" in row), default=0.0) > 8:
        axes.set_xscale("log")
        axes.set_xlim(left=0.5)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks([place(index, 0) + (len(contenders) - 1) / 2 for index in range(len(cases))], map(str, cases))
    axes.invert_yaxis()
    if axes.containers:
        _legend(axes)


def _plot_stages(axes: object, cases: Sequence[Case], rows: Sequence[Row]) -> None:
    shown = [(case, good) for case in cases if (good := chosen(rows, "asim", case))]
    left = [0.0] * len(shown)
    for stage in STAGES:
        widths = [100 * median(row[f"{stage}_s"] / row["total_s"] for row in good) for _, good in shown]
        axes.barh([str(case) for case, _ in shown], widths, left=left, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlabel("asim's stages, % of its total time")
    axes.invert_yaxis()
    if shown:
        _legend(axes)


def _legend(axes: object) -> None:
    axes.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
