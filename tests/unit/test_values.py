"""Values of parameters: allowed types, text, arguments."""

from __future__ import annotations

import argparse
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.errors import ConfigError, ConfigTypeError
from asim.values import check_params, expansion, format_argument, is_series, normalise_params, render

OWNER = "Model 'm'"
scalars = st.one_of(st.text(), st.integers(), st.floats(), st.booleans())
names = st.text(min_size=1)
NOT_VALUES: list[Any] = [None, {"a": 1}, {1, 2}, b"x", object(), [1, None], [[1]], np.zeros((2, 2)), np.bytes_(b"x")]


def shown(value: object) -> str:
    """The name of a parameter, the same in every process."""
    return type(value).__name__ if type(value) is object else repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        ("", ""),
        (5, "5"),
        (0.1, "0.1"),
        (True, "True"),
        (Decimal("1.50"), "1.50"),
        ([95, 100], "95 100"),
        ((1, "x", 2.5), "1 x 2.5"),
        (range(3), "0 1 2"),
        ([], ""),
        (np.int64(3), "3"),
        (np.float64(0.1), "0.1"),
        (np.bool_(True), "True"),
        (np.str_("s"), "s"),
        (np.longdouble(2), "2.0"),
        (np.array(7), "7"),
        (np.array([1, 2]), "1 2"),
        ([np.int8(1), np.float32(0.5)], "1 0.5"),
    ],
)
def test_render(value: object, text: str) -> None:
    """Every allowed value has one text; sequences are joined by a space, numpy reads like Python."""
    assert render(value) == text


@pytest.mark.parametrize("value", NOT_VALUES, ids=shown)
def test_other_values_are_refused(value: object) -> None:
    """What is neither a scalar nor a flat sequence is refused as a value, naming it and what is allowed."""
    with pytest.raises(ConfigTypeError, match="must be a str, int, float, bool or numpy scalar"):
        render(value)
    with pytest.raises(ConfigTypeError, match=r"Model 'm': params\['THERMO'\] = "):
        check_params(OWNER, {"THERMO": value})


def test_check_params_keeps_values() -> None:
    """The values come back as they were given, in a new dict."""
    params = {"THERMO": [95, 100], "H": np.float32(1), "s": "x"}
    checked = check_params(OWNER, params)
    assert checked is not params
    assert checked == params
    assert all(checked[name] is params[name] for name in params)


@pytest.mark.parametrize("params", [None, {}, "THERMO", ["THERMO", "H"], ("THERMO",)])
def test_check_params_without_values(params: object) -> None:
    """None, and bare names, give no values."""
    assert check_params(OWNER, params) == {}


@pytest.mark.parametrize("params", [{"": 1}, "", ["a", ""]])
def test_empty_names(params: object) -> None:
    """An empty name is refused, with the owner."""
    with pytest.raises(ConfigError, match="Model 'm': name in params = '': must not be empty"):
        check_params(OWNER, params)


@pytest.mark.parametrize("params", [5, {"a"}, {1: 2}, ["a", 1], b"x"])
def test_wrong_types_of_params(params: object) -> None:
    """Anything but a dict with str keys or names is a ``TypeError``."""
    with pytest.raises(ConfigTypeError, match=r"Model 'm': .*params"):
        check_params(OWNER, params)


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ([1, 2], [1, 2]),
        ((1,), [1]),
        (range(2), [0, 1]),
        (np.array([1.5, 2.5]), [1.5, 2.5]),
        ([[95, 100], [1, 2]], [[95, 100], [1, 2]]),
        ("abc", ["abc"]),
        (5, [5]),
        (True, [True]),
    ],
)
def test_expansion(value: object, items: list[object]) -> None:
    """Lists, tuples, ranges and 1-D arrays are sets of values; anything else, a str above all, is one value."""
    assert expansion("x", value) == items
    assert is_series(value) == (not isinstance(value, (str, int)))


def test_zero_dimensional_array_is_one_value() -> None:
    """A 0-D array is a scalar."""
    assert expansion("x", np.array(5)) == [5]


@pytest.mark.parametrize("value", [[], (), range(0), np.array([])])
def test_empty_expansion(value: object) -> None:
    """A parameter without any value is an error that names it."""
    with pytest.raises(ConfigError, match=r"params\['THERMO'\] = .*at least one"):
        expansion("THERMO", value)


@pytest.mark.parametrize("value", [None, {"a": 1}, {1, 2}, [[[1]]], np.zeros((2, 2)), [1, None]])
def test_bad_expansion(value: object) -> None:
    """Values that no member could have are refused with the name of the parameter."""
    with pytest.raises(ConfigTypeError, match=r"params\['THERMO'\] = "):
        expansion("THERMO", value)


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("H", ["-H", "5 6"]),
        ("-H", ["-H", "5 6"]),
        ("-long", ["-long", "5 6"]),
        ("dt", ["--dt=5 6"]),
        ("g_param", ["--g_param=5 6"]),
        ("--g_param", ["--g_param=5 6"]),
        ("--x", ["--x=5 6"]),
        ("é", ["-é", "5 6"]),
    ],
)
def test_format_argument(name: str, items: list[str]) -> None:
    """Dashes and the length of the name decide the form; the value stays one piece."""
    assert format_argument(name, "5 6") == items


@pytest.mark.parametrize("name", ["-", "--", "---"])
def test_format_argument_needs_a_name(name: str) -> None:
    """Dashes alone name no option; ``--`` would even end the options."""
    with pytest.raises(ConfigError, match="params_as_args"):
        format_argument(name, "5")


def read_arguments(argv: list[str]) -> list[tuple[str, str]]:
    """What a getopt-like program makes of its command line."""
    rest = iter(argv)
    return [
        (item.partition("=")[0], item.partition("=")[2]) if item.startswith("--") else (item, next(rest))
        for item in rest
    ]


@given(st.lists(st.tuples(st.from_regex(r"(--?)?\w+", fullmatch=True), st.text())))
def test_arguments_are_read_back(params: list[tuple[str, str]]) -> None:
    """A program reads every name and value back, whatever the values hold."""
    argv = [item for name, text in params for item in format_argument(name, text)]
    assert [(name.lstrip("-"), text) for name, text in read_arguments(argv)] == [
        (name.lstrip("-"), text) for name, text in params
    ]


def test_argparse_reads_arguments_back() -> None:
    """argparse gets spaces, negative numbers, empty values and ``=`` through."""
    params = {"a": "1 2", "-b": "-5", "long": "", "--other": "x=y --z"}
    parser = argparse.ArgumentParser(add_help=False)
    for flag in ("-a", "-b", "--long", "--other"):
        parser.add_argument(flag)
    argv = [item for name, text in params.items() for item in format_argument(name, text)]
    assert list(vars(parser.parse_args(argv)).values()) == list(params.values())


@given(st.lists(st.integers(), min_size=1))
def test_array_renders_like_its_list(items: list[int]) -> None:
    """A list, a tuple and an array of the same numbers have the same text and the same expansion."""
    array = np.array(items, dtype=object)
    assert render(array) == render(items) == render(tuple(items))
    assert expansion("x", array) == expansion("x", items) == items


@given(st.one_of(scalars, st.lists(scalars)))
def test_whatever_is_checked_can_be_rendered(value: object) -> None:
    """Checked values always have a text, and a single value is the text of ``str``."""
    assert render(check_params(OWNER, {"x": value})["x"]) == (
        " ".join(map(str, value)) if isinstance(value, list) else str(value)
    )


@pytest.mark.parametrize(
    ("params", "as_args", "expected"),
    [
        (None, None, ({}, ())),
        ({"a": 1}, None, ({"a": 1}, ())),
        ({"a": 1, "b": 2}, ["b", "a"], ({"a": 1, "b": 2}, ("b", "a"))),
        ({"a": 1, "b": 2}, "b", ({"a": 1, "b": 2}, ("b",))),
        ({"a": 1}, ("a", "a"), ({"a": 1}, ("a",))),
        ({"a": 1}, [], ({"a": 1}, ())),
        ({"a": 1}, {}, ({"a": 1}, ())),
        ({"a": 1}, {"b": [2, 3]}, ({"a": 1, "b": [2, 3]}, ("b",))),
        ({"a": [1, 2]}, {"a": np.array([1, 2])}, ({"a": [1, 2]}, ("a",))),
        (None, {"b": 2, "a": 1}, ({"b": 2, "a": 1}, ("b", "a"))),
        ({}, {"b": 2}, ({"b": 2}, ("b",))),
        ([], {"b": 2}, ({"b": 2}, ("b",))),
        ("THERMO", {"THERMO": [95, 100, 105]}, ({"THERMO": [95, 100, 105]}, ("THERMO",))),
        (["a", "b"], {"b": 2, "a": 1}, ({"a": 1, "b": 2}, ("b", "a"))),
    ],
)
def test_normalise(params: object, as_args: object, expected: tuple[dict[str, Any], tuple[str, ...]]) -> None:
    """Every spelling comes out as one dict of values, in order, and the names of the arguments."""
    merged, arguments = normalise_params(OWNER, params, as_args)
    assert {name: render(value) for name, value in merged.items()} == {n: render(v) for n, v in expected[0].items()}
    assert list(merged) == list(expected[0])
    assert arguments == expected[1]


@pytest.mark.parametrize(
    ("params", "as_args", "error"),
    [
        ("THERMO", None, "Model 'm': params = 'THERMO': 'THERMO' must have a value"),
        ("THERMO", "THERMO", "Model 'm': params = 'THERMO': 'THERMO' must have a value"),
        (["a", "b"], {"a": 1}, r"Model 'm': params = \['a', 'b'\]: 'b' must have a value"),
        (["a"], {"a": 1, "x": 2}, r"Model 'm': params_as_args = \['x'\]: must be among the names in params: 'a'"),
        ({"a": 1}, ["x"], r"Model 'm': params_as_args = \['x'\]: must be among the names in params: 'a'"),
        (None, "x", r"Model 'm': params_as_args = \['x'\]: must be among the names in params: none"),
        ({"a": 1}, {"a": 2}, r"Model 'm': params_as_args\['a'\] = 2: must be left out or equal params\['a'\] = 1"),
        ({"a": 1}, {"a": 1.0}, "must be left out or equal"),
        ({"a": [5]}, {"a": 5}, "must be left out or equal"),
        ({"a": 1}, {"": 2}, "name in params_as_args = ''"),
    ],
)
def test_normalise_refuses(params: object, as_args: object, error: str) -> None:
    """A name without value, an unlisted name, a clash: the error says whose, which field and value, what is allowed."""
    with pytest.raises(ConfigError, match=error):
        normalise_params(OWNER, params, as_args)


@pytest.mark.parametrize("wrong", [5, {1: 2}, [None], {"a"}])
def test_normalise_wrong_types(wrong: object) -> None:
    """Other types are refused in both places."""
    with pytest.raises(ConfigTypeError, match=r"Model 'm': .*params\b"):
        normalise_params(OWNER, wrong, None)
    with pytest.raises(ConfigTypeError, match=r"Model 'm': .*params_as_args"):
        normalise_params(OWNER, {"a": 1}, wrong)


@given(st.dictionaries(names, scalars), st.dictionaries(names, scalars))
def test_normalise_is_idempotent_and_keeps_inputs(params: dict[str, object], extra: dict[str, object]) -> None:
    """Its result, put in again, gives itself; the user's dicts are unchanged and their values the same objects."""
    extra = {name: value for name, value in extra.items() if name not in params}
    before = (dict(params), dict(extra))
    merged, arguments = normalise_params(OWNER, params, extra)
    assert (params, extra) == before
    assert arguments == tuple(extra)
    assert all(merged[name] is value for name, value in [*params.items(), *extra.items()])
    assert normalise_params(OWNER, merged, arguments) == (merged, arguments)
