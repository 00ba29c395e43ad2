"""Names of experiments and entities: they become file names, so they have rules."""

from __future__ import annotations

from ..errors import ConfigError, ConfigTypeError, allowed

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
    size = len(check_text(field, name).encode("utf-8", "surrogateescape"))
    if not 0 < size <= LONGEST or "/" in name or name[0] == "." or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ConfigError(allowed(field, name, _RULES))
    return name


def check_text(field: str, value: str) -> str:
    """``value`` itself, if the operating system can take it as an argument or a path."""
    if "\0" in value:
        raise ConfigError(allowed(field, value, "must not contain NUL"))
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ConfigError(allowed(field, value, "has a surrogate that stands for no byte")) from None
    return value
