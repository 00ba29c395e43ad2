"""Variables that a workload manager sets in its allocations."""

from __future__ import annotations

from ..config import Config
from ..errors import AllocationError


def variable(*names: str) -> str:
    """The first of these that is set and not empty.

    :raises AllocationError: none is; the text names them.
    """
    environ = Config.from_env().environ
    value = next((environ[name] for name in names if environ.get(name)), None)
    if value is None:
        raise AllocationError(f"this is not inside an allocation: {' and '.join(names)} not set")
    return value


def number(*names: str) -> int:
    """The same as a number.

    :raises AllocationError: none is set, or it is no number.
    """
    text = variable(*names)
    if not text.isdecimal():
        raise AllocationError(f"{' or '.join(names)} = {text!r}: is no number")
    return int(text)
