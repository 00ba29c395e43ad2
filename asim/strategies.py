"""How the parameters of an Ensemble become the parameters of its members.

A strategy is a callable ``f(names, values, n_models)``: the names of the parameters, the values of each (a list of
lists, in the order of the names), and the number of sets asked for (0: not said). It returns a list of dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from numbers import Integral
from random import Random
from reprlib import repr as short
from typing import TypeAlias

from .errors import ConfigError, ConfigTypeError, UserStrategyError, allowed
from .values import expansion, is_series

Strategy: TypeAlias = Callable[[list[str], list[list[object]], int], list[dict[str, object]]]

MOST_COMBINATIONS = 1_000_000
"""The most combinations that are ever written out."""


def all_perm(names: list[str], values: list[list[object]], n_models: int = 0) -> list[dict[str, object]]:
    """All combinations, the last parameter changing fastest; ``n_models`` is ignored.

    :raises ConfigError: when there are more than :data:`MOST_COMBINATIONS`.
    """
    total = _combinations(values)
    if total > MOST_COMBINATIONS:
        raise ConfigError(
            allowed("params", names, f"have {total} combinations; at most {MOST_COMBINATIONS} are written out, ")
            + "perm_strategy='random' with replicas= draws from more"
        )
    return [dict(zip(names, chosen, strict=True)) for chosen in product(*values)]


def step(names: list[str], values: list[list[object]], n_models: int = 0) -> list[dict[str, object]]:
    """The first value of each parameter, then the second of each, and so on; ``n_models`` is ignored.

    :raises ConfigError: when the lists are not equally long; names them and their lengths.
    """
    lengths = dict(zip(names, map(len, values), strict=True))
    if len(set(lengths.values())) > 1:
        raise ConfigError(allowed("lengths of params", lengths, "must all be equal with perm_strategy='step'"))
    return [dict(zip(names, chosen, strict=True)) for chosen in zip(*values, strict=True)]


def random(
    names: list[str], values: list[list[object]], n_models: int = 0, *, seed: int | None = None
) -> list[dict[str, object]]:
    """``n_models`` different combinations, drawn at random without writing out the others.

    :param n_models: how many; 0, or as many as there are or more: all of them, in the order of :func:`all_perm`.
    :param seed: the same seed gives the same combinations in the same order; None: others each time.
    :raises ConfigError: when all are asked for and there are more than :data:`MOST_COMBINATIONS`.
    """
    total = _combinations(values)
    if 0 < n_models < total:
        return [_combination(names, values, index) for index in _draw(Random(seed), total, n_models)]
    if total > MOST_COMBINATIONS:
        what = f"must be from 1 to {total - 1}, for there are {total} combinations; all are only given up to "
        raise ConfigError(allowed("replicas", n_models or None, what + str(MOST_COMBINATIONS)))
    return all_perm(names, values)


_STRATEGIES: dict[str, Strategy] = {"all_perm": all_perm, "step": step, "random": random}


def resolve(strategy: str | Strategy) -> Strategy:
    """The callable behind the name of a strategy; a callable is taken as it is.

    :raises ConfigError: when there is no strategy of that name; lists those there are.
    :raises ConfigTypeError: when it is neither a str nor callable.
    """
    known = ", ".join(map(repr, _STRATEGIES))
    what = f"must be one of {known}, or a callable f(names, values, n_models) -> list of dicts"
    if callable(strategy):
        return strategy
    if not isinstance(strategy, str):
        raise ConfigTypeError(allowed("perm_strategy", strategy, what))
    if strategy not in _STRATEGIES:
        raise ConfigError(allowed("perm_strategy", strategy, what))
    return _STRATEGIES[strategy]


def expand(
    strategy: str | Strategy,
    params: Mapping[str, object],
    *,
    replicas: int | None,
    n_models: int | None,
    seed: int | None,
) -> list[dict[str, object]]:
    """The parameters of every member, in the order of the members; each a dict of its own.

    :param strategy: ``all_perm``, ``step``, ``random`` or a callable.
    :param params: name -> value(s). A list, tuple, range or 1-D array has several values; anything else is one value,
        which ``step`` gives to every member.
    :param replicas: how often each set is repeated, one after the other (default 1); with ``random`` the number of
        sets. Without params the number of members.
    :param n_models: with ``random`` the older name of ``replicas``; handed to a callable (0 if None); else ignored.
    :param seed: of ``random``.
    :raises ConfigError: when an argument is out of range, the strategy is unknown, or it cannot use these params.
    :raises UserStrategyError: when a callable returned something else than a list of dicts with names as keys. What the
        callable itself raises passes through.
    """
    chosen = resolve(strategy)
    repeats = _whole("replicas", replicas, 1)
    wanted = _whole("n_models", n_models, 0)
    seed = _whole("seed", seed, None)
    if not params:
        return [{} for _ in range(repeats or 1)]
    names = list(params)
    values = [expansion(name, value) for name, value in params.items()]
    if chosen is random:
        return random(names, values, _number_of_samples(repeats, wanted), seed=seed)
    if chosen is step:
        values = _broadcast(params, values)
    sets = chosen(names, values, wanted or 0)
    if chosen not in _STRATEGIES.values():
        _check_sets(chosen, sets)
    return [dict(one) for one in sets for _ in range(repeats or 1)]


def _number_of_samples(replicas: int | None, n_models: int | None) -> int:
    if replicas and n_models and replicas != n_models:
        raise ConfigError(allowed("n_models", n_models, f"must be left out or equal replicas = {replicas}"))
    return replicas or n_models or 0


def _broadcast(params: Mapping[str, object], values: list[list[object]]) -> list[list[object]]:
    """Single values as often as the lists are long. A list of one item is a list, and not made longer."""
    series = [is_series(given) for given in params.values()]
    longest = max(map(len, values))
    return [items if several else items * longest for items, several in zip(values, series, strict=True)]


def _check_sets(strategy: Strategy, sets: object) -> None:
    """Refuse what a user's strategy may return against its annotation."""
    if not isinstance(sets, list):
        problem = short(sets)
    else:
        wrong = [one for one in sets if not isinstance(one, dict) or any(type(name) is not str for name in one)]
        if not wrong:
            return
        problem = f"a list with {short(wrong[0])} in it"
    name = getattr(strategy, "__qualname__", repr(strategy))
    raise UserStrategyError(f"perm_strategy {name} returned {problem}: must be a list of dicts with str keys")


def _combinations(values: list[list[object]]) -> int:
    return prod(map(len, values))


def _combination(names: list[str], values: list[list[object]], index: int) -> dict[str, object]:
    """The combination at ``index`` of the product: its digits in the mixed radix of the lists' lengths."""
    digits: list[int] = []
    for items in reversed(values):
        index, digit = divmod(index, len(items))
        digits.append(digit)
    return {name: items[digit] for name, items, digit in zip(names, values, reversed(digits), strict=True)}


def _draw(rng: Random, total: int, count: int) -> list[int]:
    """``count`` different numbers below ``total``, in random order (Floyd's way).

    ``Random.sample(range(total))`` stops at ``sys.maxsize``, which twenty parameters of ten values exceed.
    """
    drawn: dict[int, None] = {}
    for last in range(total - count, total):
        number = rng.randrange(last + 1)
        drawn[last if number in drawn else number] = None
    numbers = list(drawn)
    rng.shuffle(numbers)
    return numbers


def _whole(field: str, value: object, least: int | None) -> int | None:
    """``value`` as an int (numpy's too), or None when it is None."""
    if value is None:
        return None
    what = "must be an int" if least is None else f"must be an int of at least {least}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigTypeError(allowed(field, value, what))
    if least is not None and value < least:
        raise ConfigError(allowed(field, value, what))
    return int(value)
