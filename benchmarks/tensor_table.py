"""Tables and goals of :mod:`tensors`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import geometric_mean
from typing import NamedTuple

from harness import Row, median
from report import markdown

KIB64 = 1 << 16


class Goal(NamedTuple):
    """That ``contender`` reaches at least ``factor`` times the rate of ``against``."""

    text: str
    group: str
    contender: str
    against: str
    factor: float
    least: int
    most: int


ANY = 1 << 40
GOALS = [
    Goal("engine at 1 KiB", "engine", "AI.TENSOR*", "SET/GET", 0.75, 1024, 1024),
    Goal("engine from 64 KiB", "engine", "AI.TENSOR*", "SET/GET", 0.95, KIB64, ANY),
    Goal("Client, 1 task, beside redis-py", "clients, 1 task", "asim", "redis-py", 0.85, 0, ANY),
    Goal("Client, 32 tasks, beside redis-py", "clients, 32 tasks", "asim", "redis-py", 0.85, 0, ANY),
    Goal("Client, 1 task, beside SmartRedis", "clients, 1 task", "asim", "smartredis", 1.0, KIB64, ANY),
    Goal("SyncClient beside SmartRedis", "clients, 1 task", "asim-sync", "smartredis", 1.0, KIB64, ANY),
    Goal("Client, 32 tasks, beside a SmartRedis client", "clients, 32 tasks", "asim", "smartredis", 1.0, 0, ANY),
]


class Line(NamedTuple):
    """Same group, size, verb and transport: each contender's rates, by round."""

    group: str
    size: int
    verb: str
    by: str
    rates: dict[str, dict[int, float]]

    def rate(self, contender: str) -> float | None:
        rates = self.rates.get(contender)
        return median(rates.values()) if rates else None

    def ratios(self, contender: str, against: str) -> list[float]:
        """The rounds' ratios: what else the machine does falls on both halves of one."""
        mine, theirs = self.rates.get(contender, {}), self.rates.get(against, {})
        return sorted(mine[number] / theirs[number] for number in mine if number in theirs)


def named(size: int) -> str:
    """Such as ``64 KiB``."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1 << 10 else f"{size} B"


def lines(rows: Sequence[Row]) -> list[Line]:
    """The rows, sorted and put together."""
    found: dict[tuple[str, int, str, str], Line] = {}
    for row in rows:
        key = row["group"], row["size"], row["verb"], row["by"]
        line = found.setdefault(key, Line(*key, {}))
        if "error" not in row:
            line.rates.setdefault(row["contender"], {})[row["round"]] = row["ops_s"]
    return sorted(found.values(), key=lambda line: (line.group, line.size, line.verb != "put", line.by != "UDS"))


def report(about: Row, rows: Sequence[Row], skipped: Sequence[str]) -> str:
    """Everything, as text."""
    found = lines(rows)
    parts = ["# asim: tensor traffic\n", *(f"- {key}: {value}" for key, value in about.items())]
    for group in dict.fromkeys(line.group for line in found):
        parts += [f"\n## {group}, operations/s\n", _table([line for line in found if line.group == group])]
    parts += ["\n## Goals\n", *_goals(found)]
    failed = sorted({f"- {row['contender']}, {named(row['size'])}: {row['error']}" for row in rows if "error" in row})
    parts += ["\n## Failed\n", *failed] if failed else []
    parts += ["\n## Skipped\n", *(f"- {reason}" for reason in skipped)] if skipped else []
    return "\n".join(parts) + "\n"


def _table(some: Sequence[Line]) -> str:
    """The lines of one group."""
    contenders = sorted({contender for line in some for contender in line.rates}, key=_place)
    goals = [goal for goal in GOALS if some[0].group.startswith(goal.group)]
    pairs = list(dict.fromkeys((goal.contender, goal.against) for goal in goals))
    headers = ["", *contenders, *(f"{one} / {other}" for one, other in pairs)]
    table = []
    for line in some:
        rates = [line.rate(contender) for contender in contenders]
        cells = [f"{line.verb} {named(line.size)} {line.by}", *(_short(rate) for rate in rates)]
        table.append([*cells, *(_ratio(line, goals, *pair) for pair in pairs)])
    return markdown(headers, table)


def _place(contender: str) -> tuple[bool, bool, str]:
    return not contender.startswith(("asim", "AI.")), contender.startswith("smart"), contender


def _short(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def _ratio(line: Line, goals: Sequence[Goal], contender: str, against: str) -> str:
    """The median of the ratios and the middle half of them; in bold where the median misses its goal."""
    ratios = line.ratios(contender, against)
    if not ratios:
        return "-"
    ratio = median(ratios)
    factors = [goal.factor for goal in goals if _counts(goal, line) and goal[2:4] == (contender, against)]
    text = f"**{ratio:.2f}**" if any(ratio < factor for factor in factors) else f"{ratio:.2f}"
    return f"{text} ({_quarter(ratios):.2f}-{-_quarter([-one for one in reversed(ratios)]):.2f})"


def _quarter(ordered: Sequence[float]) -> float:
    """What a quarter of the values, which are in order, lies before."""
    return ordered[len(ordered) // 4]


def _counts(goal: Goal, line: Line) -> bool:
    return line.group.startswith(goal.group) and goal.least <= line.size <= goal.most


def _goals(found: Sequence[Line]) -> Iterator[str]:
    """One line a goal: met only if every line of the tables meets it."""
    for goal in GOALS:
        measured = [
            (median(ratios), ratios, line)
            for line in found
            if _counts(goal, line) and (ratios := line.ratios(goal.contender, goal.against))
        ]
        what = f"- {goal.text}, at least {goal.factor:g} x: "
        if not measured:
            yield what + "not measured"
            continue
        good = sum(ratio >= goal.factor for ratio, _, _ in measured)
        clear = sum(_quarter([-one for one in reversed(ratios)]) > -goal.factor for _, ratios, _ in measured)
        least, _, line = min(measured, key=lambda one: one[0])
        mean = geometric_mean(ratio for ratio, _, _ in measured)
        where = f"{line.verb} {named(line.size)} {line.by}, {line.group}"
        verdict = "met" if good == len(measured) else "not met"
        missed = f"{len(measured) - good} of {len(measured)} lines miss it, {clear} clearly"
        yield f"{what}**{verdict}**; {missed}; mean {mean:.2f}, least {least:.2f} ({where})"
