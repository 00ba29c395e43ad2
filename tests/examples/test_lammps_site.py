"""``examples/lammps_sweep`` on a real Slurm and over a real sshd: the same script, the same numbers.

The sweep is a small one: fewer members, atoms and steps.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from asim.database.server_program import find_server
from tests.conftest import missing
from tests.integration.ssh import SSHServer
from tests.integration.ssh import sshd as sshd
from tests.site.slurm import SlurmSite
from tests.site.slurm import slurm as slurm
from tests.site.slurm import slurm_site as slurm_site

from .conftest import EXAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.lammps, pytest.mark.timeout(240)]  # a run takes 5 to 30 s
FOLDER = EXAMPLES / "lammps_sweep"
SMALL = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import sweep
sweep.FOR_ALL |= {{"SIZE": 4, "STEPS": 100}}
sweep.SAMPLES = 11
sweep.TO_LEARN, sweep.TO_CHECK = {{"TEMP": [0.75, 3.0], "RHO": [0.75, 0.95]}}, {{"TEMP": [1.9], "RHO": [0.8, 0.9]}}
sweep.main()
"""
NUMBERS = ("temperature_lammps", "pressure_lammps", "total_energy", "temperature_network", "pressure_network")
SSH_CONFIG = """\
Host far
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {place}/id
  UserKnownHostsFile {known}
"""


@dataclass
class Run:
    """What one run printed, and its records."""

    output: str
    rows: list[dict[str, str]]

    def numbers(self) -> list[list[float]]:
        """The results of every member."""
        return [[float(row[name]) for name in NUMBERS] for row in self.rows]


def run(place: Path, *options: str, **environ: str) -> Run:
    """Run the script in an empty directory; its results are in ``results`` there."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    ended = subprocess.run(
        [sys.executable, "-c", SMALL, "--results", "results", *options],
        cwd=place, env={**inherited, **environ}, capture_output=True, encoding="utf-8", timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (place / "results/records.csv").open() as file:
        return Run(ended.stdout, list(csv.DictReader(file)))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, lammps: str) -> Run:
    """The same sweep on this machine."""
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            missing(f"{package} is not installed")
    return run(tmp_path_factory.mktemp("local"))


@pytest.fixture
def home(sshd: SSHServer, tmp_path: Path) -> Path:
    """A home whose SSH config file knows the other machine."""
    config = tmp_path / "home/.ssh/config"
    config.parent.mkdir(parents=True)
    config.write_text(SSH_CONFIG.format(port=sshd.port, place=sshd.place, known=sshd.known))
    return tmp_path / "home"


@pytest.fixture
def profile(sshd: SSHServer) -> Iterator[Path]:
    """The start-up file of login shells over there; gone afterwards."""
    path = sshd.home / ".bash_profile"
    yield path
    path.unlink(missing_ok=True)


def same(run: Run, local: Run) -> None:
    """Every member completed, and has the numbers that it has on this machine."""
    assert [(row["name"], row["status"]) for row in run.rows] == [(row["name"], "COMPLETED") for row in local.rows]
    for ours, theirs in zip(run.numbers(), local.numbers(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def tasks(site: SlurmSite) -> list[str]:
    """Names, numbers and states of the last six tasks of arrays, sorted."""
    lines = site.run("squeue", "-h", "-r", "-t", "all", "-S", "i", "-o", "%j %K %T").stdout.splitlines()
    return sorted([line for line in lines if " N/A " not in line][-6:])


TASKS = ["check 0 COMPLETED", "check 1 COMPLETED", *(f"melt {number} COMPLETED" for number in range(4))]


def test_on_slurm_by_its_launcher_alone(local: Run, slurm: SlurmSite, tmp_path: Path) -> None:
    """With ``--launcher slurm`` the members are tasks of two arrays, the database a step, and the numbers the same."""
    found = run(tmp_path, "--launcher", "slurm", SLURM_CONF=str(slurm.conf))
    same(found, local)
    assert tasks(slurm) == TASKS
    assert (tmp_path / "results/melt/melt_3/log.lammps").is_file()


def test_on_another_machine_by_its_name_alone(local: Run, sshd: SSHServer, home: Path, tmp_path: Path) -> None:
    """With ``--host`` all runs there, in the home there; the numbers are the same, and outputs and logs are here, too."""
    found = run(tmp_path, "--host", "far", HOME=str(home))
    same(found, local)
    assert {Path(row["cwd"]).parent.parent for row in found.rows} == {sshd.home / "lammps-sweep"}
    for row in found.rows:
        there = Path(row["cwd"], "log.lammps").read_bytes()
        folder = tmp_path / "lammps-sweep" / Path(row["cwd"]).relative_to(sshd.home / "lammps-sweep")
        assert there and (folder / "log.lammps").read_bytes() == there
        assert (folder / f"{row['name']}.out").exists()
    assert f"What LAMMPS read and wrote is in {sshd.home}/lammps-sweep on far" in found.output


def test_on_a_cluster_behind_its_login_node(
    local: Run, sshd: SSHServer, slurm: SlurmSite, home: Path, profile: Path, tmp_path: Path
) -> None:
    """Both together: arrays of a Slurm that only the other machine's login shells know."""
    profile.write_text(f"export SLURM_CONF={slurm.conf}\n")
    place = tmp_path / "there"
    found = run(tmp_path, "--host", "far", "--launcher", "slurm", "--exp-path", str(place), HOME=str(home))
    same(found, local)
    assert tasks(slurm) == TASKS
    assert (tmp_path / "lammps-sweep/check/check_1/log.lammps").is_file()
