"""Which class belongs to which launcher and run command, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

import asim.settings
from asim.errors import ConfigError, UnsupportedError
from asim.settings import (
    RUN_COMMANDS,
    AprunSettings,
    BsubBatchSettings,
    JsrunSettings,
    MpiexecSettings,
    MpirunSettings,
    OrterunSettings,
    PalsMpiexecSettings,
    QsubBatchSettings,
    RunSettings,
    SbatchSettings,
    SgeQsubBatchSettings,
    SrunSettings,
    batch_settings_class,
    candidates,
    run_settings_class,
)


@pytest.mark.parametrize(
    ("launcher", "command", "kind"),
    [
        ("slurm", "srun", SrunSettings),
        ("slurm", "/opt/x/srun", SrunSettings),
        ("slurm", "SRUN", SrunSettings),
        ("pbs", "aprun", AprunSettings),
        ("lsf", "jsrun", JsrunSettings),
        ("local", "mpirun", MpirunSettings),
        ("pbs", "mpiexec", MpiexecSettings),
        ("pals", "mpiexec", PalsMpiexecSettings),
        ("PALS", "/usr/bin/mpiexec", PalsMpiexecSettings),
        ("sge", "orterun", OrterunSettings),
        ("local", "", RunSettings),
        ("slurm", "mpiexec.hydra", RunSettings),
        ("slurm", "/opt/srun/", RunSettings),
    ],
)
def test_class_by_run_command(launcher, command, kind):
    """A word or the last part of a path decides; what is unknown is run literally."""
    assert run_settings_class(launcher, command) is kind


def test_every_class_starts_with_its_own_word():
    """The word in the table is the word that the class writes."""
    assert {word: kind("x").run_command for word, kind in RUN_COMMANDS.items()} == {word: word for word in RUN_COMMANDS}


def test_a_class_of_the_user_needs_only_its_tables(step):
    """A run command that asim does not know is two class attributes, and works under a workload manager."""

    class Prterun(RunSettings):
        FAMILY = "prte"
        FLAGS: ClassVar[Mapping[str, str]] = {"set_tasks": "-np"}

    settings = Prterun("x", run_command="prterun")
    settings.set_tasks(2)
    assert step(settings, launcher="slurm").argv == ("prterun", "-np", "2", "x")


def test_candidates():
    """The words tried for "auto", in order; an unknown launcher is named with the known ones."""
    assert candidates("slurm") == ("srun", "mpirun", "mpiexec")
    assert candidates("PBS") == ("aprun", "mpirun", "mpiexec")
    assert candidates("pals") == ("mpiexec",)
    assert candidates("lsf") == ("jsrun", "mpirun", "mpiexec")
    assert candidates("sge") == ("mpirun", "mpiexec")
    assert candidates("local") == ("",)
    with pytest.raises(ConfigError, match="launcher = 'cobalt'.*slurm"):
        candidates("cobalt")


def test_batch_classes():
    """Every workload manager has its class; the local launcher has none and says so."""
    kinds = [batch_settings_class(name) for name in ("slurm", "pbs", "pals", "lsf", "sge")]
    assert kinds == [SbatchSettings, QsubBatchSettings, QsubBatchSettings, BsubBatchSettings, SgeQsubBatchSettings]
    with pytest.raises(UnsupportedError, match="launcher = 'local': has no batch jobs"):
        batch_settings_class("local")


def test_public_names():
    """__all__ is complete and true."""
    assert all(hasattr(asim.settings, name) for name in asim.settings.__all__)
    assert {"RunSettings", "BatchSettings", "Step", "StepContext", "RUN_COMMANDS"} <= set(asim.settings.__all__)


def test_import_is_light_and_does_no_io():
    """Importing the settings loads nothing that could start processes, wait or open sockets."""
    package = str(Path(asim.settings.__file__).parents[1])
    # a bare parent package: what asim/__init__.py loads is not what is asked here
    code = f"import sys, types; asim = sys.modules['asim'] = types.ModuleType('asim'); asim.__path__ = [{package!r}]"
    code += "; from asim.settings import SrunSettings, SbatchSettings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "asim.settings" in loaded
    assert not {"asyncio", "subprocess", "socket", "anyio", "numpy", "shutil"} & set(loaded)
