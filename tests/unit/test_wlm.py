"""What is known about workload managers and allocations from variables alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from asim import wlm
from asim.errors import AllocationError, ConfigError, UnsupportedError
from asim.wlm import detect, pbs, slurm
from tests.conftest import BACKENDS

VARIABLES = [
    "SLURM_JOB_ID",
    "SLURM_JOBID",
    "SLURM_JOB_NODELIST",
    "SLURM_NODELIST",
    "SLURM_JOB_PARTITION",
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_TASKS_PER_NODE",
    "PBS_JOBID",
    "PBS_NODEFILE",
    "PBS_QUEUE",
    "LSB_JOBID",
    "JOB_ID",
    "SGE_ROOT",
]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment outside every allocation, and an empty PATH: the folder that is returned."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


@pytest.fixture(params=BACKENDS[:1])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Plain asyncio: nothing here depends on the loop."""
    return request.param


@pytest.mark.parametrize(
    ("commands", "variables", "launcher"),
    [
        ("", {}, "local"),
        ("sbatch qsub", {"SLURM_CONF": "/c"}, "slurm"),
        ("sbatch", {}, "local"),  # the commands alone, of a machine without a cluster
        ("bsub qsub", {}, "lsf"),
        ("qsub", {}, "pbs"),
        ("qsub qconf", {"SGE_ROOT": "/opt/sge"}, "sge"),
        ("qsub qconf", {}, "local"),
        ("qsub", {"SGE_ROOT": "/opt/sge"}, "sge"),
        ("sbatch", {"PBS_JOBID": "1.server"}, "pbs"),
        ("qsub", {"SLURM_JOB_ID": "1", "PBS_JOBID": "1"}, "slurm"),
        ("sbatch", {"LSB_JOBID": "1"}, "lsf"),
        ("sbatch", {"SGE_ROOT": "/opt/sge", "JOB_ID": "1"}, "sge"),
        ("sbatch", {"SGE_ROOT": "/opt/sge", "SLURM_CONF": "/c"}, "slurm"),
    ],
)
def test_detect_launcher(
    bare: Path, monkeypatch: pytest.MonkeyPatch, commands: str, variables: dict[str, str], launcher: str
) -> None:
    """The job that we are in decides, then the commands that are there and have a configuration."""
    monkeypatch.setattr(detect, "_there", lambda *_: False)
    for command in commands.split():
        (bare / command).write_text("#!/bin/sh\n")
        (bare / command).chmod(0o755)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wlm.detect_launcher() == launcher


def test_slurm_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that an allocation tells, through the general functions."""
    facts = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3,05],x2", "SLURM_JOB_PARTITION": "debug"}
    facts |= {"SLURM_NTASKS": "110", "SLURM_TASKS_PER_NODE": "24(x3),12,26"}
    for name, value in facts.items():
        monkeypatch.setenv(name, value)
    assert wlm.get_hosts() == ["n1", "n2", "n3", "n05", "x2"]
    assert wlm.get_queue() == "debug"
    assert wlm.get_tasks() == 110
    assert wlm.get_tasks_per_node() == {"n1": 24, "n2": 24, "n3": 24, "n05": 12, "x2": 26}


def test_pbs_allocation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line of the file of nodes for each process, in short names."""
    (tmp_path / "nodes").write_text("b2.site.org\nb2.site.org\na1.site.org\n")
    for name, value in {"PBS_JOBID": "7.s", "PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_QUEUE": "workq"}.items():
        monkeypatch.setenv(name, value)
    assert wlm.get_hosts() == ["a1", "b2"]
    assert wlm.get_queue("pbs") == "workq"
    assert wlm.get_tasks() == 3
    assert wlm.get_tasks_per_node() == {"b2": 2, "a1": 1}


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (slurm.get_hosts, "SLURM_JOB_NODELIST"),
        (slurm.get_queue, "SLURM_JOB_PARTITION"),
        (slurm.get_tasks, "SLURM_NTASKS"),
        (slurm.get_tasks_per_node, "SLURM_TASKS_PER_NODE"),
        (pbs.get_hosts, "PBS_NODEFILE"),
        (pbs.get_queue, "PBS_QUEUE"),
        (pbs.get_tasks, "PBS_NODEFILE"),
    ],
)
def test_outside_an_allocation(function, names: str) -> None:
    """The error names the variable that is missing."""
    with pytest.raises(AllocationError, match=names):
        function()


@pytest.mark.parametrize(("name", "value"), [("SLURM_NTASKS", "many"), ("SLURM_TASKS_PER_NODE", "2(y3)")])
def test_variables_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A variable that cannot be read is named with its value."""
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    monkeypatch.setenv(name, value)
    with pytest.raises(AllocationError, match=name):
        slurm.get_tasks() if name == "SLURM_NTASKS" else slurm.get_tasks_per_node()


def test_a_file_of_nodes_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the file's name and the reason."""
    monkeypatch.setenv("PBS_NODEFILE", "/nonexistent/nodes")
    with pytest.raises(AllocationError, match=r"PBS_NODEFILE = '/nonexistent/nodes': cannot be read: No such file"):
        pbs.get_tasks()


def test_other_launchers() -> None:
    """What is not known is refused by name."""
    with pytest.raises(UnsupportedError, match="launcher = 'lsf'"):
        wlm.get_hosts("LSF")
    with pytest.raises(UnsupportedError, match="launcher = 'local'"):
        wlm.get_hosts()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"nodes": 2}}, r"options\['nodes'\] = 2"),
        ({"options": {"--time": "1"}}, r"options\['time'\] = '1'"),
        ({"options": {"A": "x"}}, r"options\['A'\] = 'x'"),
        ({"options": {"quiet": True}}, r"options\['quiet'\] = True: salloc would not tell the allocation's id"),
        ({"options": {"-Q": None}}, r"options\['Q'\] = None: .*leave it out"),
        ({"options": {"--qui": ""}}, r"options\['qui'\] = ''"),
        ({"time": "1 day, 0:00:00"}, "time = '1 day, 0:00:00'"),
        ({"nodes": 0}, "nodes = 0"),
    ],
)
async def test_bad_requests(arguments: dict[str, object], message: str) -> None:
    """What can never work is refused before any command is run."""
    with pytest.raises(ConfigError, match=message):
        await slurm.get_allocation(**arguments)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_without_slurm() -> None:
    """Where the commands are missing, the error names the command."""
    with pytest.raises(AllocationError, match="salloc is not in PATH"):
        await slurm.get_allocation(options={"quiet": False, "qos": "q", "q": "q"})  # neither is silent
    with pytest.raises(AllocationError, match="sinfo is not in PATH"):
        await slurm.get_default_partition()


def test_a_slurm_under_a_prefix_of_its_own(bare: Path) -> None:
    """Its configuration is found beside its commands."""
    (bare / "sbatch").write_text("#!/bin/sh\n")
    (bare / "sbatch").chmod(0o755)
    (bare.parent / "etc").mkdir()
    (bare.parent / "etc/slurm.conf").touch()
    assert wlm.detect_launcher() == "slurm"
