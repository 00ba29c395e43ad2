"""Text tables for logs, summaries and parameter files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .errors import ConfigError, allowed

# A cell is the list of its lines.
_Row = list[list[str]]


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], style: str = "github") -> str:
    r"""A table as text, columns as wide as their widest cell (in characters), without a line end at the end.

    :param rows: the cells, as many in each row as there are headers; None is an empty cell.
    :param headers: the titles of the columns, at least one.
    :param style: ``github`` (Markdown; in a cell a line break becomes ``<br>`` and ``|`` becomes ``\|``), ``grid``
        (boxes) or ``plain`` (columns two spaces apart).
    :raises ConfigError: when there is no such style, no column, or a row with more or fewer cells than headers.
    """
    if style not in _STYLES:
        raise ConfigError(allowed("style", style, f"must be one of {', '.join(map(repr, _STYLES))}"))
    if not headers:
        raise ConfigError(allowed("headers", headers, "must name at least one column"))
    for row in rows:
        if len(row) != len(headers):
            raise ConfigError(allowed("rows", row, f"every row must have {len(headers)} cells, like headers"))
    cells, write = _STYLES[style]
    texts = [[cells(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*texts, strict=True)]
    return "\n".join(write(texts[0], texts[1:], widths))


def _lines(cell: object) -> list[str]:
    return ("" if cell is None else str(cell)).splitlines() or [""]


def _one_line(cell: object) -> list[str]:
    return ["<br>".join(_lines(cell)).replace("|", r"\|")]


def _padded(row: _Row, widths: list[int]) -> list[list[str]]:
    """The lines of text that a row takes, each as its cells, padded to the width of their columns."""
    height = max(map(len, row))
    return [
        [(cell[at] if at < len(cell) else "").ljust(width) for cell, width in zip(row, widths, strict=True)]
        for at in range(height)
    ]


def _boxed(row: _Row, widths: list[int]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in _padded(row, widths)]


def _github(header: _Row, rows: list[_Row], widths: list[int]) -> list[str]:
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [*_boxed(header, widths), rule, *(line for row in rows for line in _boxed(row, widths))]


def _grid(header: _Row, rows: list[_Row], widths: list[int]) -> list[str]:
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [rule, *_boxed(header, widths), rule.replace("-", "=")]
    for row in rows:
        lines += [*_boxed(row, widths), rule]
    return lines


def _plain(header: _Row, rows: list[_Row], widths: list[int]) -> list[str]:
    return ["  ".join(cells).rstrip() for row in (header, *rows) for cells in _padded(row, widths)]


_Writer = Callable[[_Row, list[_Row], list[int]], list[str]]
_STYLES: dict[str, tuple[Callable[[object], list[str]], _Writer]] = {
    "github": (_one_line, _github),
    "grid": (_lines, _grid),
    "plain": (_lines, _plain),
}
