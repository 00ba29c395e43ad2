"""Open MPI and MPICH: one set of settings, each command's own words, and both commands run for real."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from asim.errors import ConfigError
from asim.settings import (
    MpiexecSettings,
    MpirunSettings,
    OrterunSettings,
    PalsMpiexecSettings,
    RunSettings,
    Step,
    StepContext,
)
from asim.settings.mpi import MpiSettings, flavor_of
from tests.conftest import missing

CALLS = {
    "set_tasks": 8,
    "set_tasks_per_node": 4,
    "set_hostlist": ["h1:2", "h2"],
    "set_hostlist_from_file": "/hosts",
    "set_cpu_binding_type": "core",
    "set_task_map": "node",
    "set_verbose_launch": True,
    "set_walltime": "7",
}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def flags(kind: type[MpiSettings], setter: str, flavor: str | None) -> list[str]:
    """What one setter writes."""
    settings = kind("x", flavor=flavor)  # type: ignore[arg-type]
    getattr(settings, setter)(CALLS[setter])
    return settings.format_run_args()


@pytest.mark.parametrize("kind", [MpirunSettings, MpiexecSettings])
@pytest.mark.parametrize(
    ("setter", "openmpi", "mpich"),
    [
        ("set_tasks", ["--n", "8"], ["-n", "8"]),
        ("set_tasks_per_node", ["--npernode", "4"], ["-ppn", "4"]),
        ("set_hostlist", ["--host", "h1:2,h2"], ["-hosts", "h1:2,h2"]),
        ("set_hostlist_from_file", ["--hostfile", "/hosts"], ["-f", "/hosts"]),
        ("set_cpu_binding_type", ["--bind-to", "core"], ["-bind-to", "core"]),
        ("set_task_map", ["--map-by", "node"], ["-map-by", "node"]),
        ("set_verbose_launch", ["--verbose"], ["-verbose"]),
        ("set_walltime", ["--timeout", "7"], []),
    ],
)
def test_flags(kind: type[MpiSettings], setter: str, openmpi: list[str], mpich: list[str]) -> None:
    """Each flavor has its own word; without one, the words are Open MPI's."""
    assert flags(kind, setter, "openmpi") == flags(kind, setter, None) == openmpi
    assert flags(kind, setter, "mpich") == mpich


@pytest.mark.parametrize(
    ("flavor", "args", "text"),
    [
        ("mpich", {"npernode": 2, "n": 4}, ["-ppn", "2", "-n", "4"]),
        ("mpich", {"ppn": 2, "genvall": None}, ["-ppn", "2", "-genvall"]),
        ("openmpi", {"ppn": 2, "hosts": "a,b", "f": "/h"}, ["--npernode", "2", "--host", "a,b", "--hostfile", "/h"]),
        (None, {"ppn": 2}, ["--ppn", "2"]),
        ("mpich", {"wdir": "/x", "n": 0, "verbose": False}, ["-n", "0"]),
    ],
)
def test_arguments_are_translated(flavor: str | None, args: dict[str, object], text: list[str]) -> None:
    """What a user wrote for one of them is right for the other; without a flavor it stays as it was written."""
    assert MpirunSettings("x", run_args=args, flavor=flavor).format_run_args() == text  # type: ignore[arg-type]


def test_what_mpich_lacks(caplog: pytest.LogCaptureFixture) -> None:
    """An argument that MPICH would refuse is left out, and that is said."""
    settings = MpirunSettings("x", run_args={"oversubscribe": None, "n": 2}, flavor="mpich")
    settings.set_broadcast()
    settings.set_cpus_per_task(3)
    assert settings.format_run_args() == ["-n", "2"]
    for name in ("oversubscribe", "preload-binary", "cpus-per-proc"):
        assert f"MPICH has no {name}" in caplog.text


def test_environment_and_directory(step) -> None:
    """Both are told in the flavor's words; MPICH can be given an empty value, and passes on the rest by itself."""
    env = {"A": "x y", "E": "", "P": None}
    done = step(MpirunSettings("x", env_vars=env), launcher="pbs")
    assert done.argv == ("mpirun", "--wdir", "/w/sim", "-x", "A=x y", "-x", "E", "-x", "P", "x")
    assert done.env == {"E": ""}
    done = step(MpirunSettings("x", env_vars=env, flavor="mpich"), launcher="pbs")
    assert done.argv == ("mpirun", "-wdir", "/w/sim", "-env", "A", "x y", "-env", "E", "", "x")
    assert done.env == {}


@pytest.mark.parametrize("launcher", ["local", "pbs"])
def test_the_time_limit_of_mpich_is_a_variable(step, launcher: str) -> None:
    """It has no flag for it."""
    settings = MpirunSettings("x", flavor="mpich")
    settings.set_walltime("7")
    done = step(settings, launcher=launcher)
    assert done.env == {"MPIEXEC_TIMEOUT": "7"}
    assert "7" not in done.argv


def test_mpmd(step) -> None:
    """Every program has its flags, directory and environment in the flavor's words."""
    one = MpirunSettings("x", run_args={"n": 1}, env_vars={"A": "1"})
    one.make_mpmd(MpiexecSettings("y", run_args={"npernode": 2}, env_vars={"A": "2"}))
    done = step(one.with_flavor("mpich"), launcher="slurm")
    first = ("mpirun", "-wdir", "/w/sim", "-env", "A", "1", "-n", "1", "x")
    assert done.argv == (*first, ":", "-ppn", "2", "-wdir", "/w/sim", "-env", "A", "2", "y")


# --- which one it is


@pytest.mark.parametrize(
    ("text", "flavor"),
    [
        ("mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/", "openmpi"),
        ("mpirun.openmpi (OpenRTE) 4.1.4", "openmpi"),
        ("prterun (PRRTE) 3.0.2", "openmpi"),
        ("mpirun (IBM Spectrum MPI) 10.3", "openmpi"),
        ("HYDRA build details:\n    Version: 4.0.2", "mpich"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.9", "mpich"),
        ("mpiexec 1.0", None),
        ("", None),
    ],
)
def test_flavor_of(text: str, flavor: str | None) -> None:
    """The version tells whose command it is, or nothing."""
    assert flavor_of(text) == flavor


def test_with_flavor() -> None:
    """What is found out later is put in where nothing was said; what was said stays; nothing is changed in place."""
    plain, said = MpirunSettings("x"), MpirunSettings("x", flavor="openmpi")
    assert plain.with_flavor(None) is plain
    assert said.with_flavor("mpich") is said
    assert plain.with_flavor("mpich").flavor == "mpich"
    assert plain.flavor is None
    for other in (OrterunSettings("x"), PalsMpiexecSettings("x")):
        assert other.with_flavor("mpich") is other
    assert plain.with_flavor("mpich").copy().flavor == "mpich"


@pytest.mark.parametrize(
    ("kind", "flavor"), [(MpirunSettings, "lam"), (OrterunSettings, "mpich"), (PalsMpiexecSettings, "mpich")]
)
def test_unknown_flavor(kind: type[MpiSettings], flavor: str) -> None:
    """A flavor that this command cannot have is refused by name."""
    with pytest.raises(ConfigError, match=f"flavor = '{flavor}'"):
        kind("x", flavor=flavor)  # type: ignore[arg-type]


# --- for real


REAL = pytest.mark.parametrize(
    ("command", "flavor"), [("mpirun.openmpi", "openmpi"), ("mpirun.mpich", "mpich"), ("orterun", "openmpi")]
)


def kind_of(command: str) -> type[MpiSettings]:
    """The settings of a command."""
    return OrterunSettings if command == "orterun" else MpirunSettings


@pytest.fixture
def program(tmp_path: Path) -> str:
    """Writes what it was given into a file of its own, below the directory ``said``."""
    path = tmp_path / "program.sh"
    said = tmp_path / "said"
    said.mkdir()
    path.write_text(
        f'#!/bin/sh\n{{ pwd; printf "%s|" "$@"; echo; printf "%s\\n" "A=$A" "E=${{E-unset}}" "P=$P"; }} > {said}/$$.tmp\n'
        f"mv {said}/$$.tmp {said}/$$\n"
    )
    path.chmod(0o755)
    return str(path)


def run(step: Step, flavor: str, *, time: float = 30) -> int:
    """Run a step as a batch script would: in another directory than the one that it names."""
    if shutil.which(step.argv[0]) is None:
        missing(f"there is no {step.argv[0]}")
    env = {**os.environ, **AS_ROOT, "P": "passed on", "OMPI_MCA_rmaps_base_oversubscribe": "1", **step.env}
    done = subprocess.run(step.argv, check=False, env=env, cwd="/", capture_output=True, text=True, timeout=time)
    print(flavor, done.args, done.stdout, done.stderr)
    return done.returncode


def said(tmp_path: Path) -> list[list[str]]:
    """What each process wrote, in no order."""
    return sorted(path.read_text().splitlines() for path in (tmp_path / "said").iterdir())


def context(settings: RunSettings, command: str, tmp_path: Path) -> StepContext:
    """A job in a directory with a blank in its name."""
    cwd = tmp_path / "a place"
    cwd.mkdir(exist_ok=True)
    return StepContext(
        name="sim",
        cwd=str(cwd),
        stdout="/dev/null",
        stderr="/dev/null",
        exe=settings.exe,
        exe_args=tuple(settings.exe_args),
        run_command=command,
        launcher="pbs",  # type: ignore[arg-type]
    )


@REAL
def test_version_of_the_real_one(command: str, flavor: str) -> None:
    """The installed commands are told apart by their versions."""
    if shutil.which(command) is None:
        missing(f"there is no {command}")
    done = subprocess.run([command, "--version"], check=True, capture_output=True, text=True, timeout=30)
    assert flavor_of(done.stdout) == flavor


@REAL
def test_two_ranks(command: str, flavor: str, program: str, tmp_path: Path) -> None:
    """Two processes get their directory, arguments and variables whole: blanks, quotes, dollars, nothing."""
    odd = "x  y 'q' \"d\" $HOME ; *"
    env = {"A": odd, "E": "", "P": None}
    settings = kind_of(command)(program, ["a b", "$c"], env_vars=env).with_flavor(
        flavor_of({"mpich": "HYDRA"}.get(flavor, "Open MPI"))
    )
    settings.set_tasks(2)
    settings.set_tasks_per_node(2)
    settings.set_hostlist(["localhost:2"])
    settings.set_cpu_binding_type("none")
    assert run(settings.step(context(settings, command, tmp_path)), flavor) == 0
    one = [str(tmp_path / "a place"), "a b|$c|", f"A={odd}", "E=", "P=passed on"]
    assert said(tmp_path) == [one, one]


@REAL
def test_two_programs(command: str, flavor: str, program: str, tmp_path: Path) -> None:
    """Two programs of one command each have their own variables and arguments, and both their directory."""
    one = kind_of(command)(program, "one", run_args={"n": 1}, env_vars={"A": "1"}, flavor=flavor)  # type: ignore[arg-type]
    one.make_mpmd(kind_of(command)(program, "two", run_args={"n": 1}, env_vars={"A": "two words"}, flavor=flavor))  # type: ignore[arg-type]
    assert run(one.step(context(one, command, tmp_path)), flavor) == 0
    place = str(tmp_path / "a place")
    assert [lines[:3] for lines in said(tmp_path)] == [[place, "one|", "A=1"], [place, "two|", "A=two words"]]


@pytest.mark.slow
@REAL
def test_time_limit(command: str, flavor: str, tmp_path: Path) -> None:
    """A limit that was set ends the job, flag or variable."""
    settings = kind_of(command)("sleep", "20", run_args={"n": 1}, flavor=flavor)  # type: ignore[arg-type]
    settings.set_walltime("1")
    assert run(settings.step(context(settings, command, tmp_path)), flavor, time=15) != 0


@pytest.mark.slow
@REAL
def test_failing_rank(command: str, flavor: str, tmp_path: Path) -> None:
    """The exit code of a process that failed is the command's."""
    settings = kind_of(command)("sh", ["-c", "exit 3"], run_args={"n": 1}, flavor=flavor)  # type: ignore[arg-type]
    assert run(settings.step(context(settings, command, tmp_path)), flavor) == 3
