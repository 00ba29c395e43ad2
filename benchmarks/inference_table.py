"""Goals and tables of :mod:`inference`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness import Row, median
from report import markdown


class Goal(NamedTuple):
    """What a median must be, at least or at most.

    :ivar peer: what RedisAI reaches, measured elsewhere.
    """

    text: str
    limit: float
    most: bool = False
    peer: str = ""
    unit: str = "x"

    def line(self, values: Iterable[float]) -> list[str]:
        """A line of the table of goals."""
        found = sorted(values)
        wanted = f"{'at most' if self.most else 'at least'} {self.limit:g} {self.unit}"
        if not found:
            return [self.text, wanted, self.peer, "-", "not measured"]
        good = median(found) <= self.limit if self.most else median(found) >= self.limit
        return [self.text, wanted, self.peer, spread(found), "met" if good else "**missed**"]


def goals(lines: Sequence[Sequence[str]]) -> str:
    """The table of goals."""
    return markdown(["", "goal", "RedisAI", "median (middle half)", ""], lines)


def spread(values: Iterable[float]) -> str:
    """The median, and the middle half of the values."""
    found = sorted(values)
    if not found:
        return "-"
    quarter = len(found) // 4
    return f"{short(median(found))} ({short(found[quarter])}-{short(found[-1 - quarter])})"


def short(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def values(rows: Sequence[Row], key: str, **wanted: object) -> dict[int, float]:
    """What these rows have of ``key``, by round."""
    return {
        row["round"]: row[key]
        for row in rows
        if key in row and all(row.get(name) == value for name, value in wanted.items())
    }


def ratios(one: dict[int, float], other: dict[int, float]) -> list[float]:
    """The rounds' ratios: what else the machine does falls on both halves of one."""
    return sorted(one[number] / other[number] for number in one if number in other)
