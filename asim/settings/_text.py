"""Checks of what users give, and the few ways in which command-line text is written. Everything here is pure."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath

from ..errors import ConfigError, ConfigTypeError, allowed
from ..values import check_text

Value = str | int | float | bool | None
"""What a flag may be given: ``None``, ``""`` and True are the bare flag, False leaves the flag out."""
Text = str | Sequence[str]

LOG = logging.getLogger("asim")


def checked(field: str, value: object) -> str:
    """``value`` when it is text that can be one item of an argument list.

    :raises ConfigTypeError: not a str.
    :raises ConfigError: it has a character that no program can be given.
    """
    if not isinstance(value, str):
        raise ConfigTypeError(allowed(field, value, "must be str"))
    return check_text(field, value)


def program(field: str, value: str | PathLike[str]) -> str:
    """A command word or path, which must not be empty."""
    text = checked(field, fspath(value) if isinstance(value, PathLike) else value)
    if not text.strip():
        raise ConfigError(allowed(field, value, "must not be empty"))
    return text


def words(field: str, value: Text | None) -> list[str]:
    """A str is split at blanks, as SmartSim does; the items of a sequence are taken as they are, one argument each."""
    if value is None:
        return []
    if isinstance(value, str):
        return checked(field, value).split()
    if not isinstance(value, Iterable):
        raise ConfigTypeError(allowed(field, value, "must be str or a sequence of str"))
    return [checked(f"{field}[{index}]", item) for index, item in enumerate(value)]


def names(field: str, value: Text) -> list[str]:
    """One name or several, none of them empty."""
    listed = [value.strip()] if isinstance(value, str) else words(field, value)
    if not listed or not all(listed):
        raise ConfigError(allowed(field, value, "must be one name or a list of names, none of them empty"))
    return listed


def whole(field: str, value: int | str, least: int = 0) -> int:
    """A whole number; digits in a str are accepted, as SmartSim does.

    :raises ConfigTypeError: not a whole number.
    :raises ConfigError: less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip().lstrip("+-").isdecimal():
        raise ConfigTypeError(allowed(field, value, "must be a whole number"))
    number = int(value)
    if number < least:
        raise ConfigError(allowed(field, value, f"must be at least {least}"))
    return number


def scalar(field: str, value: Value) -> Value:
    """A flag's value."""
    if value is None or isinstance(value, (int, float)):
        return value
    if not isinstance(value, str):
        raise ConfigTypeError(allowed(field, value, "must be str, int, float, bool or None"))
    return checked(field, value)


def env_name(name: object) -> str:
    """The name of an environment variable: not empty, without ``=`` and NUL."""
    text = checked("env_vars name", name)
    if not text or "=" in text:
        raise ConfigError(allowed("env_vars name", name, "must not be empty and must not contain '='"))
    return text


def environment(env: Mapping[str, Value] | None) -> dict[str, str | None]:
    """Checked copy of environment variables with their values as text; None stays None."""
    return {env_name(name): None if value is None else env_value(name, value) for name, value in (env or {}).items()}


def env_value(name: str, value: Value) -> str:
    """The value of an environment variable as text."""
    return str(scalar(f"env_vars[{name!r}]", value))


# --- flags: (key, text) -> items; text None is the bare flag


def flag_literal(key: str, text: str | None) -> list[str]:
    """The key as the user wrote it, then the value."""
    return [key] if text is None else [key, text]


def flag_gnu(key: str, text: str | None) -> list[str]:
    """``-k v`` for one letter, else ``--key=v``."""
    if len(key) == 1:
        return flag_literal(f"-{key}", text)
    return [f"--{key}" if text is None else f"--{key}={text}"]


def flag_long(key: str, text: str | None) -> list[str]:
    """``--key v``, whatever the key's length."""
    return flag_literal(f"--{key}", text)


def flag_short(key: str, text: str | None) -> list[str]:
    """``-key v``, whatever the key's length."""
    return flag_literal(f"-{key}", text)


def given(args: Mapping[str, Value]) -> dict[str, str | None]:
    """The flags that are on, with their text. 0 is a value; None, "" and True are bare flags; False leaves it out."""
    return {
        key: None if value is None or value is True or value == "" else str(value)
        for key, value in args.items()
        if value is not False
    }


# --- lines of a script


def command_words(argv: Sequence[str], env: Mapping[str, str | None] | None = None) -> list[str]:
    """One command that gives a program exactly ``argv``, with ``env`` set, or unset where None; not quoted yet."""
    if not env:
        return list(argv)
    unset = [word for name, value in env.items() if value is None for word in ("-u", name)]
    sets = [f"{name}={value}" for name, value in env.items() if value is not None]
    # env(1) would take a program with "=" in its path for one more variable; a shell in between does not
    inner = ("sh", "-c", 'exec "$0" "$@"') if "=" in argv[0] else ()
    return ["env", *unset, *sets, *inner, *argv]


def directive_value(field: str, value: str) -> str:
    """A value for a scheduler's comment line, quoted when it must be and is not yet.

    :raises ConfigError: it has a line break, which such a line cannot hold.
    """
    if "\n" in value or "\r" in value:
        raise ConfigError(allowed(field, value, "must not contain a line break"))
    if not set(value) & set(" \t'\"\\") or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return value
    return shlex.quote(value) if set(value) & set('"\\') else f'"{value}"'
