"""Environment variables in the style of every run command."""

from __future__ import annotations

import pytest

from asim.settings import (
    AprunSettings,
    JsrunSettings,
    MpirunSettings,
    PalsMpiexecSettings,
    RunSettings,
    SrunSettings,
)

ENV = {"A": "1", "B": "x=y z", "N": None, "E": "", "Z": 0}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RunSettings, ["A=1", "B=x=y z", "N=", "E=", "Z=0"]),
        (SrunSettings, ["--export", "ALL,A=1,B=x=y z,N,E=,Z=0"]),
        (AprunSettings, ["-e", "A=1", "-e", "B=x=y z", "-e", "N=", "-e", "E=", "-e", "Z=0"]),
        (MpirunSettings, ["-x", "A=1", "-x", "B=x=y z", "-x", "N", "-x", "E", "-x", "Z=0"]),
        (PalsMpiexecSettings, ["--env", "A=1", "--env", "B=x=y z", "--env", "Z=0", "--envlist", "N,E"]),
        (JsrunSettings, ["-E", "A=1", "-E", "B=x=y z", "-E", "N", "-E", "E", "-E", "Z=0"]),
    ],
)
def test_environment_styles(kind, text):
    """Every class writes its environment in its own style; "0" is a value everywhere."""
    assert kind("x", env_vars=ENV).format_env_vars() == text
    assert kind("x").format_env_vars() == []


@pytest.mark.parametrize("value", ["a,b", "it's", 'say "x"', "a\nb", "back\\slash"])
def test_srun_passes_awkward_values_through_its_own_environment(value, step):
    """--export would split or unquote these: only the name is listed, and srun itself gets the value."""
    done = step(SrunSettings("x", env_vars={"K": value, "L": "1"}), launcher="slurm")
    assert done.argv[-3:] == ("--export", "ALL,K,L=1", "x")
    assert done.env == {"K": value}


@pytest.mark.parametrize(
    ("kind", "launcher"), [(MpirunSettings, "slurm"), (PalsMpiexecSettings, "pals"), (JsrunSettings, "lsf")]
)
def test_empty_value_is_not_lost(kind, launcher, step):
    """Where a name alone means "pass on", an empty value goes into the command's own environment; None does not."""
    assert step(kind("x", env_vars={"E": "", "N": None, "A": "1"}), launcher=launcher).env == {"E": ""}
