"""Retries and dependencies, as values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.errors import ConfigError, ConfigTypeError
from asim.policies import WHEN, Retry, check_when, retry_of

numbers = st.floats(0, 1e300) | st.integers(0, 10**6)


def test_defaults() -> None:
    """Three retries after 1, 2 and 4 seconds, of more never one after more than a minute."""
    retry = Retry()
    assert Retry(times=10).delay(10) == 60.0
    assert [retry.delay(attempt) for attempt in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [retry.wanted(attempt, 1) for attempt in (1, 2, 3, 4)] == [True, True, True, False]


def test_longest_wait() -> None:
    """No wait is longer than max_backoff, also the first."""
    assert Retry(backoff=100, max_backoff=7).delay(1) == 7
    assert Retry(backoff=1, factor=10, max_backoff=60).delay(3) == 60


@pytest.mark.parametrize(("factor", "waits"), [(1, [2, 2, 2]), (0.5, [2, 1, 0.5]), (0, [2, 0, 0])])
def test_factor(factor: float, waits: list[float]) -> None:
    """Waits may stay the same or grow shorter."""
    retry = Retry(backoff=2, factor=factor)
    assert [retry.delay(attempt) for attempt in (1, 2, 3)] == waits


@given(numbers, numbers, numbers, st.integers(1, 200))
def test_delay_is_in_range(backoff: float, factor: float, longest: float, attempt: int) -> None:
    """Whatever numbers are allowed, every wait is a number from 0 to max_backoff."""
    delay = Retry(backoff=backoff, factor=factor, max_backoff=longest, times=200).delay(attempt)
    assert not math.isnan(delay)
    assert 0 <= delay <= longest


def test_slow_growth_goes_on() -> None:
    """Each later wait is so many times longer, also after many attempts, until the longest is reached."""
    retry = Retry(times=1000, backoff=1, factor=1.01, max_backoff=100)
    assert retry.delay(101) == pytest.approx(1.01**100)
    assert retry.delay(1000) == 100


def test_predicate() -> None:
    """The predicate is told the exit code and decides, within the number of retries."""
    told: list[int | None] = []

    def when(code: int | None) -> bool:
        told.append(code)
        return code == 3

    retry = Retry(times=1, when=when)
    assert retry.wanted(1, 3)
    assert not retry.wanted(1, None)
    assert not retry.wanted(2, 3)
    assert told == [3, None]  # a retry that is not to be had is not asked about


def test_predicate_of_any_truth() -> None:
    """What the predicate returns counts as true or false."""
    assert Retry(when=lambda _: "yes").wanted(1, 1) is True  # type: ignore[arg-type, return-value]
    assert Retry(when=lambda _: None).wanted(1, 1) is False  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("field", ["backoff", "factor", "max_backoff"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_numbers_out_of_range(field: str, value: float) -> None:
    """A negative, infinite or undefined number is refused by its name."""
    with pytest.raises(ConfigError, match=f"retries: {field} = .*: must be 0 or more and finite"):
        Retry(**{field: value})


@pytest.mark.parametrize("field", ["backoff", "factor", "max_backoff"])
@pytest.mark.parametrize("value", ["1", None, True])
def test_numbers_of_another_type(field: str, value: object) -> None:
    """What is no number is a type error."""
    with pytest.raises(ConfigTypeError, match=f"retries: {field} = .*: must be a number"):
        Retry(**{field: value})  # type: ignore[arg-type]


def test_bad_times() -> None:
    """The number of retries is an int of 0 or more."""
    with pytest.raises(ConfigError, match="retries: times = -1: must be 0 or more"):
        Retry(times=-1)
    for value in (1.0, "1", True, None):
        with pytest.raises(ConfigTypeError, match="retries: times = .*: must be an int"):
            Retry(times=value)  # type: ignore[arg-type]


def test_retry_of() -> None:
    """None and a Retry stay; an int is how often, 0 too."""
    retry = Retry()
    assert retry_of("retries", None) is None
    assert retry_of("retries", retry) is retry
    assert retry_of("retries", 2) == Retry(times=2)
    assert retry_of("retries", 0) == Retry(times=0)


@pytest.mark.parametrize("value", [True, 1.5, "2", [1]])
def test_retry_of_another_type(value: object) -> None:
    """Anything else is a type error that names the field."""
    with pytest.raises(ConfigTypeError, match="m: retries = .*: must be an int or a Retry"):
        retry_of("m: retries", value)


def test_retry_of_negative() -> None:
    """A negative number is refused."""
    with pytest.raises(ConfigError, match="retries: times = -2"):
        retry_of("m: retries", -2)


def test_when() -> None:
    """The three conditions, and nothing else."""
    assert tuple(check_when(word) for word in WHEN) == ("completed", "ended", "running")
    for word in ("Completed", "", "started", None):
        with pytest.raises(ConfigError, match="when = .*: must be one of completed, ended, running"):
            check_when(word)  # type: ignore[arg-type]
