"""Text tables."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.errors import ConfigError
from asim.tables import table

ROWS: list[list[object]] = [["model", 10], ["m", None]]
cells = st.one_of(st.none(), st.integers(), st.text())


def test_github() -> None:
    """The Markdown style, with its rule under the header."""
    assert table(ROWS, ["name", "n"]) == "| name  | n  |\n|-------|----|\n| model | 10 |\n| m     |    |"


def test_grid() -> None:
    """The boxed style stacks the lines of a cell."""
    assert table([["a\nbc", 1]], ["x", "y"], "grid").splitlines() == [
        "+----+---+",
        "| x  | y |",
        "+====+===+",
        "| a  | 1 |",
        "| bc |   |",
        "+----+---+",
    ]


def test_plain() -> None:
    """The plain style has no lines and no blanks at the ends of lines."""
    assert table(ROWS, ["name", "n"], "plain") == "name   n\nmodel  10\nm"


def test_github_cells_cannot_break_out() -> None:
    """Line breaks and pipes in a cell stay inside it."""
    assert table([["a|b\r\nc"]], ["h|"]) == "| h\\|       |\n|-----------|\n| a\\|b<br>c |"


@pytest.mark.parametrize("style", ["github", "grid", "plain"])
def test_without_rows(style: str) -> None:
    """A table without rows still has its header."""
    assert "name" in table([], ["name"], style)


def test_unknown_style() -> None:
    """An unknown style is an error that lists the styles there are."""
    with pytest.raises(ConfigError, match="style = 'html': must be one of 'github', 'grid', 'plain'"):
        table([], ["x"], "html")


def test_no_columns() -> None:
    """A table has columns."""
    with pytest.raises(ConfigError, match="headers"):
        table([], [])


@pytest.mark.parametrize("row", [[], [1, 2]])
def test_uneven_rows(row: list[int]) -> None:
    """A row of another length than the header's is an error that shows it."""
    with pytest.raises(ConfigError, match=re.escape(f"rows = {row}: every row must have 1 cells")):
        table([row], ["x"])


@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_github_shape(rows: list[tuple[object, object]]) -> None:
    """Whatever is in the cells, there is one line per row, all equally long, with three bars that are not escaped."""
    lines = table(rows, ["a", "b"]).splitlines()
    assert len(lines) == len(rows) + 2
    assert len({len(line) for line in lines}) == 1
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_grid_shape(rows: list[tuple[object, object]]) -> None:
    """All lines of a grid are equally long, and there is a rule around every row."""
    lines = table(rows, ["a", "b"], "grid").splitlines()
    assert len({len(line) for line in lines}) == 1
    assert sum(line.startswith("+") for line in lines) == len(rows) + 2
