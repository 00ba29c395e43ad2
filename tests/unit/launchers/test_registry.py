"""Which launchers there are: asim's own, a user's, and those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from asim import Experiment
from asim.errors import ConfigError, ConfigTypeError
from asim.launchers import registry
from asim.launchers.base import KNOWN, Capabilities
from asim.launchers.registry import capabilities_of, chosen, plugins

from .fakes import FakeDialect


class Own:
    """A launcher of somebody else's."""

    name = "own"
    capabilities = Capabilities(launcher="own", batch=False)


class OwnDialect(FakeDialect):
    """A workload manager of somebody else's."""

    def __init__(self) -> None:
        super().__init__("theirs")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of other packages."""
    found: list[EntryPoint] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [point for point in found if point.group == group]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    plugins.cache_clear()
    yield found
    plugins.cache_clear()


def point(name: str, value: str) -> EntryPoint:
    """What another package's metadata has."""
    return EntryPoint(name, value, "asim.launchers")


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "local"])
def test_workload_managers(name: str) -> None:
    """Each of asim's own has a language, takes batch jobs, and looks programs up where they run."""
    for word in (name, name.upper()):
        found = capabilities_of(word)
        assert (found.launcher, found.batch, found.local_programs) == (name, True, False)
        assert found.dialect is not None
        assert found.dialect.name == {"pals": "pbs"}.get(name, name)
        assert found.dialect.least >= 1 and found.dialect.most > found.dialect.least
        assert found.patience > Capabilities(launcher="x", batch=False).patience
    assert chosen(name)[1] is None


def test_each_experiment_has_a_language_of_its_own() -> None:
    """What a language learns of a site in one experiment does not appear in another by accident."""
    assert capabilities_of("pbs").dialect is not capabilities_of("pbs").dialect


def test_local() -> None:
    """Processes of this machine: no batch jobs, and no workload manager."""
    found = capabilities_of("local")
    assert (found.launcher, found.batch, found.dialect, found.local_programs) == ("local", False, None, True)
    assert chosen("local")[1] is None


def test_users_own() -> None:
    """An object that is a launcher is taken as it is."""
    own = Own()
    assert chosen(own) == (Own.capabilities, own)
    assert capabilities_of(own) is Own.capabilities


@pytest.mark.parametrize("wrong", [None, 5, object(), FakeDialect()])
def test_what_is_no_launcher(wrong: Any) -> None:
    """Anything else is an error that names the field and the value."""
    with pytest.raises(ConfigTypeError, match="launcher = "):
        capabilities_of(wrong)


def test_unknown_names(points: list[EntryPoint]) -> None:
    """An unknown name is an error that lists all known ones, with those of other packages."""
    points.append(point("flux", f"{__name__}:OwnDialect"))
    with pytest.raises(ConfigError, match=r"launcher = 'flax': must be auto or one of local, slurm, .*sge, flux"):
        capabilities_of("flax")


def test_a_dialect_of_another_package(points: list[EntryPoint]) -> None:
    """It is driven as asim's own are, under the name that its package gave."""
    points.append(point("flux", f"{__name__}:OwnDialect"))
    found = capabilities_of("flux")
    assert isinstance(found.dialect, OwnDialect)
    assert (found.launcher, found.batch) == ("flux", True)
    assert chosen("flux")[1] is None


def test_a_launcher_of_another_package(points: list[EntryPoint]) -> None:
    """It is asked for what it can do, and made for use."""
    points.append(point("cloud", f"{__name__}:Own"))
    assert capabilities_of("cloud") is Own.capabilities
    assert isinstance(chosen("cloud")[1], Own)


@pytest.mark.parametrize("kind", [Own, OwnDialect])
def test_made_once(points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    """What another package brings may take a licence or a port when it is made: an experiment makes one, and uses it."""
    made: list[object] = []

    def make() -> object:
        made.append(kind())
        return made[-1]

    monkeypatch.setattr(sys.modules[__name__], "make", make, raising=False)
    points.append(point("theirs", f"{__name__}:make"))
    how = Experiment("e", launcher="theirs")._launching
    assert len(made) == 1
    assert made[0] in (how.own, how.capabilities.dialect)


def test_a_package_that_brings_something_else(points: list[EntryPoint]) -> None:
    """What is neither is an error, and does not wait for the first job."""
    points.append(point("odd", "builtins:dict"))
    for look in (capabilities_of, chosen):
        with pytest.raises(ConfigTypeError, match="launcher = "):
            look("odd")


def test_asims_own_names_cannot_be_taken(points: list[EntryPoint]) -> None:
    """Another package cannot put itself in the place of one of asim's launchers."""
    points.append(point("slurm", f"{__name__}:Own"))
    assert capabilities_of("slurm").dialect is not None
    assert chosen("slurm")[1] is None


def test_packages_that_cannot_be_loaded(
    points: list[EntryPoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package that is broken costs a warning with its name, and nobody else's launcher."""
    (tmp_path / "broken_launcher.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    points += [point("broken", "broken_launcher:X"), point("missing", f"{__name__}:Nothing")]
    points.append(point("cloud", f"{__name__}:Own"))
    assert list(registry.plugins()) == ["cloud"]
    assert [record.args[0] for record in caplog.records if record.args] == ["broken", "missing"]  # type: ignore[index]
    assert "broken on purpose" in caplog.text
