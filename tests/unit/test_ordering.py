"""Dependencies: every target known, no circle."""

from __future__ import annotations

import random
from collections.abc import Collection
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.entities import Ensemble, Entity, Model
from asim.errors import ConfigError
from asim.members import members
from asim.ordering import check_dependencies

from .makers import ensemble, model, settings


def check(*entities: Model | Ensemble, known: Collection[Entity] = ()) -> None:
    """Check the dependencies of a start of these."""
    check_dependencies(members(entities), known)


def chain(length: int) -> list[Model]:
    """Models of which each waits for the next."""
    shared = settings()
    models = [model(f"m{number}", run_settings=shared) for number in range(length)]
    for one, following in pairwise(models):
        one.after(following)
    return models


# -- what is allowed


def test_no_dependencies() -> None:
    """Entities that wait for nothing can always start."""
    check(model("a"), ensemble())


def test_chain_diamond_and_repetition() -> None:
    """Chains, two ways to one target, and the same target twice are no circles."""
    a, b, c, d = (model(name) for name in "abcd")
    b.after(a)
    c.after(a)
    d.after(b, c)
    d.after(a, when="running")
    d.after(a, when="ended")
    for order in ((a, b, c, d), (d, c, b, a)):
        check(*order)


def test_ensembles() -> None:
    """A model may wait for an ensemble, an ensemble for a model or another ensemble, a member for another member."""
    first, second, last = ensemble("first"), ensemble("second"), model("last")
    second.after(first)
    last.after(first, second[0])
    first[1].after(first[0])
    check(last, second, first)


def test_target_that_was_started_before() -> None:
    """What was started before, alone or as members of an ensemble, need not be started again."""
    old, group, new = model("old"), ensemble(), model("new")
    new.after(old, group)
    check(new, known=[old, *group])


def test_members_started_one_by_one() -> None:
    """An ensemble is known when all its members are, some started now, some before."""
    group, new = ensemble(), model("new")
    new.after(group)
    check(new, group[0], known=[group[1]])


def test_old_dependencies_do_not_count() -> None:
    """A target that was started before has what it waited for behind it: no circle can go through it."""
    old, group, new = model("old"), ensemble(), model("new")
    new.after(old, group)
    old.after(new)
    group.after(new)
    check(new, known=[old, *group])


# -- unknown targets


def test_unknown_model() -> None:
    """A target that is started neither now nor before is refused; the error names both."""
    one = model()
    one.after(model("ghost"))
    with pytest.raises(ConfigError, match="m: after = 'ghost': is neither among what is started here nor"):
        check(one)


@pytest.mark.parametrize("kind", ["model", "ensemble"])
def test_unknown_ensemble(kind: str) -> None:
    """An ensemble of which not all members are known is refused; the error names who waits, and the ensemble."""
    ghost = ensemble("ghost")
    one: Model | Ensemble = model("one") if kind == "model" else ensemble("one")
    one.after(ghost)
    with pytest.raises(ConfigError, match="one(_0)?: after = 'ghost(_1)?'"):
        check(one, known=[ghost[0]])


def test_unknown_target_of_a_member() -> None:
    """What one member waits for must be known as well."""
    group = ensemble()
    group[1].after(model("ghost"))
    with pytest.raises(ConfigError, match="e_1: after = 'ghost'"):
        check(group)


# -- circles


def test_itself_through_another() -> None:
    """Two that wait for each other; the error goes round once, beginning and ending with the same."""
    a, b = model("a"), model("b")
    a.after(b)
    b.after(a, when="running")
    with pytest.raises(ConfigError, match="circle: (a waits for b waits for a|b waits for a waits for b)$"):
        check(a, b)


def test_itself() -> None:
    """A circle of one (which the entity itself refuses first) is found here, too."""
    a = model("a")
    a._after = ((a, "ended"),)
    with pytest.raises(ConfigError, match="circle: a waits for a$"):
        check(a)


def test_circle_beside_a_way_in() -> None:
    """The error has only what is on the circle, not the way to it."""
    way, a, b, c = (model(name) for name in ("way", "a", "b", "c"))
    way.after(a)
    a.after(b)
    b.after(c)
    c.after(a)
    with pytest.raises(ConfigError, match="after = 'a': .*circle: a waits for b waits for c waits for a$"):
        check(way, a, b, c)


def test_member_that_waits_for_its_ensemble() -> None:
    """A member cannot wait for all members."""
    group = ensemble()
    group[0].after(group)
    with pytest.raises(ConfigError, match="circle: (e_0 waits for e waits for e_0|e waits for e_0 waits for e)$"):
        check(group)


def test_ensemble_that_waits_for_its_member() -> None:
    """All members cannot wait for one of them."""
    group = ensemble()
    group.after(group[1])
    with pytest.raises(ConfigError, match="circle: e_1 waits for e_1$"):
        check(group)


def test_ensembles_that_wait_for_each_other() -> None:
    """A circle goes through ensembles and their members."""
    one, other = ensemble("one"), ensemble("other")
    one.after(other)
    other[1].after(one)
    with pytest.raises(ConfigError, match="round in a circle: .*one.*other"):
        check(one, other)


def test_circle_through_an_ensemble_started_member_by_member() -> None:
    """A circle through an ensemble is found also when its members are started one by one."""
    group, one = ensemble(), model("one")
    one.after(group)
    group[0].after(one)
    with pytest.raises(ConfigError, match="round in a circle"):
        check(one, *group)


def test_long_chain() -> None:
    """10,000 in a row are no problem, in either order; closed to a circle they are one, and no recursion error."""
    models = chain(10_000)
    check(*models)
    check(*reversed(models))
    models[-1].after(models[0])
    with pytest.raises(ConfigError, match="round in a circle"):
        check(*models)


@given(st.integers(2, 12), st.randoms(use_true_random=False), st.data())
def test_random_graphs(size: int, rng: random.Random, data: st.DataObject) -> None:
    """A graph whose arrows all point one way is accepted in any order; one arrow back along a path is refused."""
    shared = settings()
    models = [model(f"m{number}", run_settings=shared) for number in range(size)]
    for number in range(1, size):
        for target in {rng.randrange(number) for _ in range(2)}:
            models[number].after(models[target])
    order = data.draw(st.permutations(models))
    check(*order)
    end = models[-1]
    start = end
    while start.dependencies:
        start = rng.choice(start.dependencies)[0]  # type: ignore[assignment]
    start.after(end)
    with pytest.raises(ConfigError, match="round in a circle"):
        check(*order)
