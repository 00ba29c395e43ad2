"""What models and ensembles share: a name, a place, dependencies, policies."""

from __future__ import annotations

import weakref
from datetime import timedelta
from pathlib import Path

import pytest

from asim.entities import Ensemble, Entity, Model
from asim.errors import ConfigError, ConfigTypeError
from asim.policies import Retry

from .makers import ensemble, model

both = pytest.mark.parametrize("make", [model, ensemble])


@both
def test_name_is_checked(make: type[Entity]) -> None:
    """A name that could be no directory is refused."""
    with pytest.raises(ConfigError, match="name = 'a/b'"):
        make("a/b")


def test_type_and_repr() -> None:
    """An entity says what it is."""
    assert (model("a").type, ensemble("b").type) == ("Model", "Ensemble")
    assert (repr(model("a")), repr(ensemble("b"))) == ("<Model a>", "<Ensemble b>")


def test_entities_are_themselves() -> None:
    """Entities of one name are not equal, can be keys, and can be referred to weakly."""
    one, other = model("m"), model("m")
    assert one != other
    assert len({one, other}) == 2
    assert weakref.ref(one)() is one


# -- the place


@both
def test_no_path(make: type[Entity]) -> None:
    """Without a path and before generate there is none."""
    assert make("x").path is None


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("run", "run"),
        ("/abs/dir/", "/abs/dir"),
        (Path("a/b"), "a/b"),
        ("a/../b", "b"),
        ("./a//b", "a/b"),
        ("..a", "..a"),
    ],
)
def test_path(given: str | Path, path: str) -> None:
    """A path is kept in its shortest form, from the constructor and from the setter."""
    one = model()
    one.set_path(given)
    assert one.path == model(path=given).path == ensemble(path=given).path == path


@pytest.mark.parametrize("path", ["", "..", "../x", "a/../..", "a/../../b"])
def test_path_that_leads_out(path: str) -> None:
    """A relative path stays inside the experiment's directory."""
    with pytest.raises(ConfigError, match="m: path = .*: must be absolute, or lead to a place inside"):
        model().set_path(path)


def test_impossible_path() -> None:
    """A path with NUL, and what is no path, are refused; the old path stays."""
    one = model(path="before")
    with pytest.raises(ConfigError, match="m: path"):
        one.set_path("a\0b")
    with pytest.raises(ConfigTypeError, match="m: path = 3: must be a path"):
        one.set_path(3)  # type: ignore[arg-type]
    assert one.path == "before"


def test_given_path_before_generated_path() -> None:
    """The path that was given counts before the one that generate made."""
    one = model()
    one._generated = "/w/exp/m"
    assert one.path == "/w/exp/m"
    one.set_path("mine")
    assert one.path == "mine"


# -- policies


@both
def test_timeout(make: type[Model | Ensemble]) -> None:
    """A timeout is seconds or a timedelta, from the constructor and by assignment; None takes it away."""
    one = make("x", timeout=timedelta(minutes=1))
    assert one.timeout == 60.0
    one.timeout = 5
    assert one.timeout == 5.0
    one.timeout = None
    assert one.timeout is None
    with pytest.raises(ConfigError, match="x: timeout = 0"):
        one.timeout = 0
    with pytest.raises(ConfigTypeError, match="x: timeout"):
        make("x", timeout="1")  # type: ignore[arg-type]


@both
def test_retries(make: type[Model | Ensemble]) -> None:
    """Retries are an int or a Retry, from the constructor and by assignment."""
    one = make("x", retries=2)
    assert one.retries == Retry(times=2)
    one.retries = Retry(times=1, backoff=0)
    assert one.retries == Retry(times=1, backoff=0)
    one.retries = None
    assert one.retries is None
    with pytest.raises(ConfigTypeError, match="x: retries = 'a'"):
        one.retries = "a"  # type: ignore[assignment]


# -- dependencies


def test_after() -> None:
    """Dependencies add up in order, each with its condition; "completed" is the default."""
    one, a, b, group = model(), model("a"), model("b"), ensemble()
    one.after(a, group)
    one.after(b, when="running")
    assert one.dependencies == ((a, "completed"), (group, "completed"), (b, "running"))


def test_after_nothing() -> None:
    """Naming nothing changes nothing."""
    one = model()
    one.after()
    assert one.dependencies == ()


@both
def test_after_itself(make: type[Entity]) -> None:
    """Nothing waits for itself, and a refused call leaves the others out too."""
    one = make("x")
    with pytest.raises(ConfigError, match="x: after = 'x': cannot wait for itself"):
        one.after(model("a"), one)
    assert one.dependencies == ()


def test_bad_dependency() -> None:
    """What is no entity, and an unknown condition, are refused."""
    one = model()
    with pytest.raises(ConfigTypeError, match="m: after = 'a': must be a Model or an Ensemble"):
        one.after("a")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="when = 'done'"):
        one.after(model("a"), when="done")  # type: ignore[arg-type]
    assert one.dependencies == ()
