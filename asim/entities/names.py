"""Names of experiments and entities: they become file names, so they have rules."""

from __future__ import annotations

from ..errors import ConfigError, ConfigTypeError, allowed
from ..values import check_text

RESERVED = frozenset({"asim_params.json", "asim_params.txt", "smartsim_params.txt"})
LONGEST = 200
"""Bytes; a file system allows 255, and ``.out``, ``.err.12`` or a temporary suffix is added."""

_RULES = f"must be 1 to {LONGEST} bytes, without '/' or control characters, and must not begin with '.'"


def check_name(field: str, name: object) -> str:
    """``name`` itself, if it may be a file name.

    :raises ConfigTypeError: not a str.
    :raises ConfigError: empty, too long, with a slash or a control character, or with a leading dot.
    """
    if not isinstance(name, str):
        raise ConfigTypeError(allowed(field, name, "must be a str"))
    if name in RESERVED:
        raise ConfigError(allowed(field, name, "is the name of a file that asim itself writes"))
    size = len(check_text(field, name).encode("utf-8", "surrogateescape"))
    if not 0 < size <= LONGEST or "/" in name or name[0] == "." or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ConfigError(allowed(field, name, _RULES))
    return name
