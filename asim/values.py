"""The values of parameters: what is allowed, how they are written, which of them are arguments.

numpy is never imported: its scalars and arrays are known by ``ndim``, ``item()`` and ``tolist()``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any, TypeAlias, TypeVar

from .errors import ConfigError, ConfigTypeError, allowed

T = TypeVar("T")
# A str, int, float, bool or numpy scalar; Any because numpy is not imported here.
Scalar: TypeAlias = str | int | float | bool | Any

_VALUES = "must be a str, int, float, bool or numpy scalar, or a list, tuple, range or 1-D array of these"
_NAMES = "must be a dict name -> value, or the name or list of names of parameters"


_TEXT_IS_STR = frozenset({str, int, float, bool})


def check_params(owner: str, params: object) -> dict[str, object]:
    """The parameters of a Model, with the values as they were given.

    :param owner: whose parameters they are, for the errors.
    :param params: a dict name -> value, a value being a scalar or a sequence of scalars; or None; or bare names, which
        carry no values and give an empty dict (:func:`normalise_params` joins them with their values).
    :raises ConfigError: when a name is empty.
    :raises ConfigTypeError: when a name is no str, or a value is of another type.
    """
    checked = dict(params) if isinstance(params, Mapping) else {}
    _names(owner, "params", params)
    for name, value in checked.items():
        _check_value(f"{owner}: params[{name!r}]", value)
    return checked


def render(value: object) -> str:
    """``value`` as the text that goes into files and commands; the items of a sequence are joined by one space.

    :raises ConfigTypeError: when it is neither a scalar nor a sequence of scalars.
    """
    if type(value) in _TEXT_IS_STR:
        return str(value)
    _check_value("value", value)
    items = _items(value)
    return str(_plain(value)) if items is None else " ".join(str(_plain(item)) for item in items)


def is_series(value: object) -> bool:
    """Whether an Ensemble takes ``value`` for several values: a list, a tuple, a range or a 1-D array."""
    return _items(value) is not None


def expansion(name: str, value: object) -> list[object]:
    """The values that a parameter of an Ensemble takes.

    :param name: the parameter, for the errors.
    :param value: a list, tuple, range or 1-D array: its items, each a value of a Model; anything else is one value.
    :returns: at least one value.
    :raises ConfigError: when there are no items.
    :raises ConfigTypeError: when something in it is no value of a Model.
    """
    items = _items(value)
    if items is None:
        items = [value]
    if not items:
        raise ConfigError(allowed(f"params[{name!r}]", value, "must have at least one value"))
    for item in items:
        _check_value(f"params[{name!r}]", item)
    return items


def format_argument(name: str, text: str) -> list[str]:
    """The items of argv that give parameter ``name`` the value ``text``: ``-x V`` are two, ``--name=V`` is one.

    ``-x`` and names of one character (``x``) make two items, ``--name`` and longer names (``name``) one. A value with
    spaces stays in one piece.

    :raises ConfigError: when the name has nothing but dashes.
    """
    if not name.strip("-"):
        raise ConfigError(allowed("params_as_args", name, "must have more than dashes to be an argument"))
    if name.startswith("--"):
        return [f"{name}={text}"]
    if name.startswith("-"):
        return [name, text]
    return [f"-{name}", text] if len(name) == 1 else [f"--{name}={text}"]


def normalise_params(owner: str, params: object, params_as_args: object) -> tuple[dict[str, object], tuple[str, ...]]:
    """Bring the spellings of ``params`` and ``params_as_args`` into one form.

    :param owner: whose parameters they are, for the errors.
    :param params: a dict name -> value(s), None, or just the name(s), whose values are in ``params_as_args`` then.
    :param params_as_args: None, the name(s) of the parameters that are arguments, or a dict of these with values, which
        is merged into ``params``.
    :returns: all parameters with the values as they were given (a new dict), and the names that are arguments, in order
        and each once. The values themselves are checked by :func:`check_params` or :func:`expansion`.
    :raises ConfigError: when a name has no value, is not listed, is empty, or has two different values.
    :raises ConfigTypeError: when either is of another type.
    """
    listed = _names(owner, "params", params)
    arguments = _names(owner, "params_as_args", params_as_args)
    merged: dict[str, object] = dict(params) if isinstance(params, Mapping) else {}
    values: Mapping[str, object] = params_as_args if isinstance(params_as_args, Mapping) else {}
    if not values or (listed and not merged):
        _check_listed(owner, arguments, listed)
    _check_clashes(owner, merged, values)
    merged |= {name: values[name] for name in dict.fromkeys((*listed, *values)) if name in values}
    missing = [name for name in listed if name not in merged]
    if missing:
        raise ConfigError(f"{owner}: " + allowed("params", params, f"{_quoted(missing)} must have a value, in a dict"))
    return merged, arguments


def _check_listed(owner: str, arguments: tuple[str, ...], listed: tuple[str, ...]) -> None:
    unlisted = [name for name in arguments if name not in listed]
    if unlisted:
        what = f"must be among the names in params: {_quoted(listed) or 'none'}"
        raise ConfigError(f"{owner}: " + allowed("params_as_args", unlisted, what))


def _check_clashes(owner: str, params: Mapping[str, object], params_as_args: Mapping[str, object]) -> None:
    for name in params_as_args:
        if name in params and _identity(params[name]) != _identity(params_as_args[name]):
            field = f"params_as_args[{name!r}]"
            what = f"must be left out or equal params[{name!r}] = {params[name]!r}"
            raise ConfigError(f"{owner}: " + allowed(field, params_as_args[name], what))


def _names(owner: str, field: str, given: object) -> tuple[str, ...]:
    """The names in a dict, in a list or tuple, or that are one str; each once."""
    if given is None:
        return ()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (Mapping, list, tuple)):
        raise ConfigTypeError(f"{owner}: " + allowed(field, given, _NAMES))
    for name in names:
        if not isinstance(name, str):
            raise ConfigTypeError(f"{owner}: " + allowed(f"name in {field}", name, "must be a str"))
        if not name:
            raise ConfigError(f"{owner}: " + allowed(f"name in {field}", name, "must not be empty"))
    return tuple(dict.fromkeys(names))


def _check_value(field: str, value: object) -> None:
    items = _items(value)
    if not all(_is_scalar(item) for item in ([value] if items is None else items)):
        raise ConfigTypeError(allowed(field, value, _VALUES))


def _is_scalar(value: object) -> bool:
    return isinstance(_plain(value), (str, Number))


def _plain(value: Any) -> Any:
    """A numpy scalar (also a 0-D array) as Python's own; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _items(value: Any) -> list[object] | None:
    """The items of a list, tuple, range or 1-D array (as Python's own values); None for anything else."""
    if isinstance(value, (list, tuple, range)):
        return list(value)
    return list(value.tolist()) if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist") else None


def _identity(value: object) -> object:
    """Equal for values that expand and are written alike; arrays have no usable ``==``."""
    items = _items(value)
    return str(_plain(value)) if items is None else [_identity(item) for item in items]


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)


def plain(value: object) -> object:
    """``value`` as what JSON can hold: numbers and text stay, sequences become lists, any other number its text."""
    if type(value) in _TEXT_IS_STR:
        return value
    items = _items(value)
    if items is not None:
        return [plain(item) for item in items]
    scalar = _plain(value)
    return scalar if isinstance(scalar, (str, int, float, bool)) else str(scalar)


def one_of(field: str, value: T, choices: Sequence[T]) -> T:
    """One of a few words.

    :raises ConfigError: it is another.
    """
    if value not in choices:
        raise ConfigError(allowed(field, value, f"must be one of {', '.join(map(str, choices))}"))
    return value


def check_text(field: str, value: str) -> str:
    """``value`` itself, if the operating system can take it as an argument or a path.

    :raises ConfigError: it has a NUL, or a surrogate that stands for no byte.
    """
    if "\0" in value:
        raise ConfigError(allowed(field, value, "must not contain a NUL character"))
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ConfigError(allowed(field, value, "has a surrogate that stands for no byte")) from None
    return value
