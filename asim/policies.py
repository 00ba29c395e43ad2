"""What happens when a job fails, or must wait: retries and dependencies, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import ConfigError, ConfigTypeError, allowed

When = Literal["completed", "ended", "running"]
WHEN: tuple[When, ...] = ("completed", "ended", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Start a failed job again.

    :param times: how often at most, after the first attempt.
    :param backoff: seconds before the first retry.
    :param factor: each later wait is so many times longer.
    :param max_backoff: the longest wait, in seconds.
    :param when: told the exit code (negative: the signal, None: it could not be started), says whether to retry.
        By default every failure is retried; a cancelled job or one at its time limit never is.
    """

    times: int = 3
    backoff: float = 1.0
    factor: float = 2.0
    max_backoff: float = 60.0
    when: Callable[[int | None], bool] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.times, bool) or not isinstance(self.times, int):
            raise ConfigTypeError(allowed("retries: times", self.times, "must be an int"))
        if self.times < 0:
            raise ConfigError(allowed("retries: times", self.times, "must be 0 or more"))
        for field in ("backoff", "factor", "max_backoff"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigTypeError(allowed(f"retries: {field}", value, "must be a number"))
            if not 0 <= value < float("inf"):
                raise ConfigError(allowed(f"retries: {field}", value, "must be 0 or more and finite"))

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (from 1) has failed."""
        try:
            return min(self.max_backoff, self.backoff * self.factor ** (attempt - 1))
        except OverflowError:
            return self.max_backoff if self.backoff else 0.0

    def wanted(self, attempt: int, code: int | None) -> bool:
        """Whether attempt number ``attempt`` (from 1), which failed with ``code``, is followed by another."""
        return attempt <= self.times and (self.when is None or bool(self.when(code)))


def retry_of(field: str, value: object) -> Retry | None:
    """``retries=`` as users give it: None, how often, or a :class:`Retry`."""
    if value is None or isinstance(value, Retry):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigTypeError(allowed(field, value, "must be an int or a Retry"))
    return Retry(times=value)


def check_when(value: str) -> When:
    """``when=`` of a dependency."""
    for known in WHEN:
        if value == known:
            return known
    raise ConfigError(allowed("when", value, f"must be one of {', '.join(WHEN)}"))
