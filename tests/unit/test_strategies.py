"""How parameters become the parameters of members."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim import strategies
from asim.errors import ConfigError, ConfigTypeError, UserStrategyError
from asim.strategies import Strategy, expand, resolve

PARAMS: dict[str, object] = {"a": [1, 2], "b": ["x", "y", "z"]}
params_dicts = st.dictionaries(
    st.text(min_size=1), st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1, max_size=4
)


def members(
    strategy: str | Strategy,
    params: dict[str, Any],
    *,
    replicas: Any = None,
    n_models: Any = None,
    seed: Any = None,
) -> list[dict[str, object]]:
    """``expand`` with its defaults."""
    return expand(strategy, params, replicas=replicas, n_models=n_models, seed=seed)


def test_all_perm_order() -> None:
    """All combinations, the last parameter changing fastest."""
    assert [tuple(member.values()) for member in members("all_perm", PARAMS)] == list(
        itertools.product([1, 2], ["x", "y", "z"])
    )


def test_single_values_and_arrays() -> None:
    """A str is one value, not its letters; ranges and arrays have several."""
    found = members("all_perm", {"s": "abc", "r": range(2), "n": np.array([1.5])})
    assert found == [{"s": "abc", "r": 0, "n": 1.5}, {"s": "abc", "r": 1, "n": 1.5}]


def test_step() -> None:
    """Values are taken side by side; a single value goes to every member."""
    assert members("step", {"a": [1, 2], "b": ("x", "y"), "c": "same"}) == [
        {"a": 1, "b": "x", "c": "same"},
        {"a": 2, "b": "y", "c": "same"},
    ]


def test_step_of_single_values() -> None:
    """With single values only there is one member."""
    assert members("step", {"a": 1, "b": "x"}) == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize("params", [{"a": [1, 2], "b": [1, 2, 3]}, {"a": [1, 2], "b": [1]}])
def test_step_refuses_unequal_lists(params: dict[str, list[int]]) -> None:
    """Lists of unequal length, one item included, are an error that names them and their lengths."""
    lengths = {name: len(values) for name, values in params.items()}
    with pytest.raises(ConfigError, match=re.escape(str(lengths))):
        members("step", params)


@pytest.mark.parametrize("strategy", ["all_perm", "step"])
def test_replicas_repeat_each_set(strategy: str) -> None:
    """Each set is repeated, one after the other, each time as a dict of its own."""
    found = members(strategy, {"a": [1, 2]}, replicas=2, n_models=7)
    assert found == [{"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}]
    assert found[0] is not found[1]


@pytest.mark.parametrize("strategy", ["all_perm", "step", "random", lambda *given: []])
def test_without_params_replicas_are_members(strategy: Any) -> None:
    """Without params there are ``replicas`` members, whatever the strategy."""
    assert members(strategy, {}, replicas=3) == [{}, {}, {}]
    assert members(strategy, {}) == [{}]


@pytest.mark.parametrize("wrong", [0, -1])
def test_replicas_out_of_range(wrong: int) -> None:
    """There is at least one replica."""
    with pytest.raises(ConfigError, match=f"replicas = {wrong}: must be an int of at least 1"):
        members("all_perm", PARAMS, replicas=wrong)


@pytest.mark.parametrize("field", ["replicas", "n_models", "seed"])
@pytest.mark.parametrize("wrong", [True, 1.5, "2"])
def test_counts_must_be_ints(field: str, wrong: object) -> None:
    """Counts and seeds are ints; a bool is not taken for one."""
    with pytest.raises(ConfigTypeError, match=f"{field} = {wrong!r}: must be an int"):
        members("random", PARAMS, **{field: wrong})


def test_numpy_counts() -> None:
    """numpy's ints count like Python's."""
    found = members("random", PARAMS, replicas=np.int64(2), seed=np.int32(5))
    assert found == members("random", PARAMS, n_models=2, seed=5)


def test_negative_n_models() -> None:
    """``n_models`` may be 0 (not said) but not negative."""
    with pytest.raises(ConfigError, match="n_models = -1"):
        members("random", PARAMS, n_models=-1)


def test_both_counts_of_random() -> None:
    """Both names of the number of samples may be given when they agree."""
    assert len(members("random", PARAMS, replicas=4, n_models=4)) == 4
    with pytest.raises(ConfigError, match="n_models = 3: must be left out or equal replicas = 4"):
        members("random", PARAMS, replicas=4, n_models=3)


@pytest.mark.parametrize("asked", [{}, {"n_models": 0}, {"replicas": 6}, {"replicas": 100}])
def test_random_gives_all(asked: dict[str, int]) -> None:
    """Not saying how many, or as many as there are, gives all combinations in their order."""
    assert members("random", PARAMS, **asked) == members("all_perm", PARAMS)


def test_random_of_a_vast_product() -> None:
    """A sample of 10^12 combinations, or of 10^30, is there at once."""
    for digits in (12, 30):
        params = {f"p{i}": range(10) for i in range(digits)}
        found = members("random", params, replicas=1000, seed=1)
        assert len({tuple(member.values()) for member in found}) == 1000


def test_vast_products_are_not_written_out() -> None:
    """Too many combinations to write out are an error, at once, that says what to do."""
    params = {f"p{i}": range(10) for i in range(12)}
    with pytest.raises(ConfigError, match="replicas = None: must be from 1 to 999999999999"):
        members("random", params)
    with pytest.raises(ConfigError, match=r"1000000000000 combinations.*'random'"):
        members("all_perm", params)


def test_random_covers_everything() -> None:
    """Over many seeds every combination is drawn as the only sample, and as the first of several."""
    for asked in (1, 3):
        draws = [members("random", PARAMS, replicas=asked, seed=seed) for seed in range(200)]
        assert {tuple(draw[0].values()) for draw in draws} == set(itertools.product([1, 2], ["x", "y", "z"]))


@given(params_dicts, st.data(), st.integers())
def test_samples_are_valid_and_unique(params: dict[str, list[int]], data: st.DataObject, seed: int) -> None:
    """Every sample is a combination of the values, none comes twice, and there are as many as asked for."""
    everything = members("all_perm", params)
    asked = data.draw(st.integers(1, len(everything)))
    found = members("random", params, replicas=asked, seed=seed)
    assert len(found) == len({tuple(member.items()) for member in found}) == asked
    assert all(member in everything for member in found)


@given(params_dicts, st.integers(1, 20), st.integers())
def test_same_seed_same_sample(params: dict[str, list[int]], asked: int, seed: int) -> None:
    """A seed fixes the sample and its order."""
    assert members("random", params, replicas=asked, seed=seed) == members("random", params, n_models=asked, seed=seed)


@given(params_dicts, st.integers(1, 3))
def test_all_perm_is_the_product(params: dict[str, list[int]], replicas: int) -> None:
    """There are product-of-lengths times replicas members, each with every parameter in the order of params."""
    found = members("all_perm", params, replicas=replicas)
    assert len(found) == replicas * len(list(itertools.product(*params.values())))
    assert all(list(member) == list(params) for member in found)
    assert [tuple(member.values()) for member in found[::replicas]] == list(itertools.product(*params.values()))


def test_unknown_strategy() -> None:
    """An unknown name is an error that lists the known ones, also without params."""
    with pytest.raises(ConfigError, match="perm_strategy = 'best': must be one of 'all_perm', 'step', 'random'"):
        members("best", {})


def test_strategy_of_a_wrong_type() -> None:
    """A strategy is a name or a callable."""
    with pytest.raises(ConfigTypeError, match="perm_strategy = 5"):
        resolve(5)  # type: ignore[arg-type]


def test_built_in_strategies_resolve_to_callables() -> None:
    """The names stand for callables, which can be given themselves."""
    assert resolve("all_perm") is strategies.all_perm
    assert members(strategies.random, PARAMS, replicas=2, seed=3) == members("random", PARAMS, replicas=2, seed=3)
    assert members(strategies.step, {"a": [1, 2], "b": 5}) == [{"a": 1, "b": 5}, {"a": 2, "b": 5}]


def test_user_strategy() -> None:
    """A user's callable gets names, lists of values and n_models; replicas repeat what it returns."""
    seen: list[object] = []

    def first(names: list[str], values: list[list[object]], n_models: int) -> list[dict[str, object]]:
        seen.append((names, values, n_models))
        return [dict(zip(names, (column[0] for column in values), strict=True))] * 2

    found = members(first, PARAMS, n_models=9, replicas=2)
    assert found == [{"a": 1, "b": "x"}] * 4
    assert len({id(member) for member in found}) == 4
    members(first, {"c": "single"})
    assert seen == [(["a", "b"], [[1, 2], ["x", "y", "z"]], 9), (["c"], [["single"]], 0)]


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (None, "None"),
        (({"a": 1},), r"\(\{'a': 1\},\)"),
        ({"a": 1}, r"\{'a': 1\}"),
        ([{"a": 1}, 5], "a list with 5 in it"),
        ([{1: 2}], r"a list with \{1: 2\} in it"),
        ([{np.str_("a"): 2}], "a list with .* in it"),
    ],
)
def test_user_strategy_returning_something_else(returned: Any, shown: str) -> None:
    """The error names the strategy and shows what it returned."""

    def mine(names: list[str], values: list[list[object]], n_models: int) -> Any:
        return returned

    with pytest.raises(UserStrategyError, match=f"mine returned {shown}: must be a list of dicts"):
        members(mine, PARAMS)


def test_user_strategy_without_a_name() -> None:
    """A callable object is named by its repr."""

    class Odd:
        def __call__(self, *given: object) -> Any:
            return 1

        def __repr__(self) -> str:
            return "<odd>"

    with pytest.raises(UserStrategyError, match="<odd> returned 1"):
        members(Odd(), PARAMS)


def test_user_exception_passes_through() -> None:
    """What the user's code raises arrives unchanged."""
    error = ZeroDivisionError("mine")

    def failing(names: list[str], values: list[list[object]], n_models: int) -> list[dict[str, object]]:
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        members(failing, PARAMS)
    assert caught.value is error


@pytest.mark.parametrize("strategy", [strategies.all_perm, strategies.step, strategies.random])
def test_built_ins_are_strategies(strategy: Callable[..., list[dict[str, object]]]) -> None:
    """The built-in strategies can be called like a user's, n_models left out."""
    assert strategy(["a"], [[1]]) == [{"a": 1}]
