"""Durations and sizes, as users write them and as schedulers want them."""

from __future__ import annotations

import re
from datetime import timedelta

from .errors import ConfigError, ConfigTypeError, allowed

Seconds = int | float | timedelta
_SIZE = re.compile(r"(\d+) ?(?:([kmgt])i?)?b?", re.IGNORECASE)


def seconds(field: str, value: Seconds | None) -> float | None:
    """``value`` in seconds as a float, or None.

    :param field: the argument's name, for the error.
    :param value: seconds, or a ``timedelta``; must be positive.
    :raises ConfigError: when it is not a positive, finite duration.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigTypeError(allowed(field, value, "must be seconds (int or float) or a timedelta"))
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not 0 < number < float("inf"):
        raise ConfigError(allowed(field, value, "must be more than 0 and finite"))
    return number


def memory(field: str, text: str) -> int:
    """Text such as "512mb" or "4 GiB" in bytes; the units are powers of 1024.

    :param field: the argument's name, for the error.
    :raises ConfigError: it is something else.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ConfigError(allowed(field, text, 'must be a number of bytes, or text such as "512mb" or "4GiB"'))
    power: int = 1024 ** " kmgt".index((found[2] or " ").lower())
    return int(found[1]) * power


def clock(hours: int = 0, minutes: int = 0, seconds: int = 0) -> str:
    """``HH:MM:SS`` with as many hours as it takes: 30 hours are ``30:00:00``, never "1 day, 6:00:00"."""
    total = hours * 3600 + minutes * 60 + seconds
    return f"{total // 3600:02d}:{total // 60 % 60:02d}:{total % 60:02d}"
