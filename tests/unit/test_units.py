"""Durations and sizes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.errors import ConfigError, ConfigTypeError
from asim.units import clock, memory, seconds

parts = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (3, 3.0), (0.5, 0.5), (timedelta(minutes=1, milliseconds=500), 60.5), (10**15, 1e15)],
)
def test_seconds(value: float | timedelta | None, expected: float | None) -> None:
    """Seconds and timedeltas become float seconds; None stays None."""
    result = seconds("timeout", value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", [0, -1, 0.0, float("inf"), float("nan"), -float("inf"), timedelta(0), timedelta(-1)])
def test_seconds_out_of_range(value: float | timedelta) -> None:
    """A duration is more than 0 and finite; the error names the field."""
    with pytest.raises(ConfigError, match="timeout = .*must be more than 0 and finite"):
        seconds("timeout", value)


def test_seconds_too_large_for_a_float() -> None:
    """An int beyond every float is a ConfigError as well, not an OverflowError."""
    with pytest.raises(ConfigError, match="timeout"):
        seconds("timeout", 10**400)


@pytest.mark.parametrize("value", [True, "3", [1], b"1", 1j])
def test_seconds_of_another_type(value: object) -> None:
    """Anything else is a type error that shows the value."""
    with pytest.raises(ConfigTypeError, match="timeout = "):
        seconds("timeout", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "text"),
    [((0, 0, 0), "00:00:00"), ((1, 2, 3), "01:02:03"), ((30, 0, 0), "30:00:00"), ((0, 90, 61), "01:31:01")],
)
def test_clock(given: tuple[int, int, int], text: str) -> None:
    """Hours are as many as it takes, never days; too many minutes or seconds carry over."""
    assert clock(*given) == text


@given(parts, parts, parts)
def test_clock_reads_back(hours: int, minutes: int, secs: int) -> None:
    """The text read back is the same time, with minutes and seconds below 60."""
    read = [int(part) for part in clock(hours, minutes, secs).split(":")]
    assert read[0] * 3600 + read[1] * 60 + read[2] == hours * 3600 + minutes * 60 + secs
    assert max(read[1:]) < 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("17", 17), ("512mb", 512 << 20), ("4 GiB", 4 << 30), (" 1k ", 1024), ("2Tb", 2 << 40)],
)
def test_memory(text: str, expected: int) -> None:
    """Sizes are read as Redis reads "gb": a power of 1024; a wrong factor would starve or flood a host."""
    assert memory("m", text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1.5gb", "gb", "1 xb", "1e9"])
def test_memory_that_is_none(text: str) -> None:
    """Anything else is refused with the field's name, not taken for something near."""
    with pytest.raises(ConfigError, match="m = "):
        memory("m", text)
