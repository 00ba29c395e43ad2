"""Agents that something else than srun starts: Grid Engine's qrsh in a real job; ssh and mpirun over virtual hosts.

There is no PBS here. Its jobs are told to the driver by their variables and their file of nodes; ssh and mpirun are real,
pbsdsh is a stand-in that begins with an empty environment, as that of PBS does.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import textwrap
from collections import Counter
from pathlib import Path

import anyio
import pytest

from asim import Ensemble, Experiment, MpirunSettings, RunSettings, SubmitError
from asim.launchers import nodes
from asim.runtime.job import Job
from asim.settings import SgeQsubBatchSettings
from tests.conftest import missing
from tests.site.asking import Asker
from tests.site.daemons import lacking
from tests.site.experiments import (
    Allocated,
    C,
    F,
    Lab,
    R,
    allocation,
    anyio_backend,
    ends,
    lab,
    processes,
    state_of,
    until,
    wait_until,
)
from tests.site.hosts import VirtualHosts
from tests.site.sge import SgeSite

__all__ = ["allocation", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 50
SHOW = 'printf "%s|" "$(hostname)" "$A" "$PATH" "$NCPUS" "$(env | grep -c "^OMPI_COMM_\\|^PMI_\\|^PMIX_\\|^SSH_")"'
VALUE = 'it\'s "a"\nÄ $HOME'


class Job4:
    """A job of PBS or Torque on four virtual hosts, with the driver in it, on this machine.

    :param slots: lines of the file of nodes for each host.
    """

    def __init__(self, hosts: VirtualHosts, place: Path, environ: pytest.MonkeyPatch, slots: int = 2) -> None:
        self.hosts, self.place, self.environ = hosts, place, environ
        self.bin, self.log = place / "bin", place / "commands.log"
        self.bin.mkdir()
        nodes = place / "node file"
        nodes.write_text("".join(f"{name}\n" * slots for name in hosts.names))
        own = [name for name in os.environ if name.startswith(("SLURM_", "PBS_", "OMPI_", "HYDRA_", "SSH_"))]
        for name in [*own, "NCPUS", "ASIM_AGENT_STARTER"]:
            environ.delenv(name, raising=False)
        known = {"PBS_JOBID": "88.head", "PBS_NODEFILE": str(nodes), "A": VALUE}
        for name, value in {**known, "PATH": f"{self.bin}:{os.environ['PATH']}"}.items():
            environ.setenv(name, value)
        environ.chdir(place)
        self.program("ssh", f'exec {shutil.which("ssh")} -F {hosts.config} "$@"')

    def program(self, name: str, text: str) -> None:
        """A command that is counted."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> {self.log}\n{text}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """The commands of this name so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split(" ", 1)[0] == name]

    def experiment(self, name: str = "an exp", launcher: str = "torque") -> Experiment:
        """One with a blank in its paths, which a shell between here and there would split."""
        return Experiment(name, launcher=launcher, stop_grace=2)

    def agents(self) -> dict[str, int]:
        """Host -> the process of its agent."""
        spaces = {os.stat(f"/run/netns/{self.hosts.space(name)}").st_ino: name for name in self.hosts.names}
        found = {}
        for pid in processes("asim/agent", "node", str(self.place)):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0] == os.fsencode(sys.executable) and words[1:4] == [b"-I", b"-S", b"-E"]:
                found[spaces.get(os.stat(f"/proc/{pid}/ns/net").st_ino, "")] = pid
        return found

    # -- the ways

    def by(self, way: str) -> None:
        """From now on agents are started so."""
        if way == "pbsdsh":
            self._pbsdsh()
        elif way == "openmpi":
            self._open_mpi()
        elif way == "mpich":
            self._mpich()

    def _pbsdsh(self) -> None:
        enter = shlex.join(self.hosts.inside("HOST")).replace("HOST", '"$h"')
        find = 'h=$(sed -n "$(($2 + 1))p" "$PBS_NODEFILE"); shift 3'
        self.program("pbsdsh", f'{find}\nexec env -i PBS_TASKNUM=7 PATH=/usr/bin:/bin:/usr/sbin:/sbin {enter} "$@"')

    def _open_mpi(self) -> None:
        real, net = self._mpirun("mpirun.openmpi"), f"{self.hosts.addresses['hub'].rpartition('.')[0]}.0/24"
        self.program("mpirun", f'exec {real} "$@"')
        values = {"plm": "rsh", "plm_rsh_agent": "ssh", "oob_tcp_if_include": net, "btl_tcp_if_include": net}
        for name, value in {**values, "btl": "tcp,self"}.items():
            self.environ.setenv(f"OMPI_MCA_{name}", value)
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
            self.environ.setenv(name, "1")

    def _mpich(self) -> None:
        self.program("mpirun", f'exec {self._mpirun("mpirun.mpich")} "$@"')
        for name, value in {"LAUNCHER": "ssh", "LAUNCHER_EXEC": f"{self.bin}/ssh", "IFACE": self.hosts.bridge}.items():
            self.environ.setenv(f"HYDRA_{name}", value)

    def _mpirun(self, name: str) -> str:
        if gone := lacking(name):
            missing(gone)
        self.environ.setenv("ASIM_AGENT_STARTER", "mpirun")
        return shutil.which(name) or name


@pytest.fixture
def job(hosts: VirtualHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job4:
    """Four hosts with two slots each."""
    return Job4(hosts, tmp_path, monkeypatch)


def shell(text: str, replicas: int, **options: object) -> Ensemble:
    """Members that agents start."""
    settings = RunSettings("/bin/sh", ["-c", text])
    return Ensemble("e", run_settings=settings, replicas=replicas, placement="agent", **options)  # type: ignore[arg-type]


def heard(member: Job) -> str:
    """What it has printed."""
    return member.stdout.read_text().strip()


WAYS = {"ssh": ("ssh", 4), "pbsdsh": ("pbsdsh", 4), "openmpi": ("mpirun", 1), "mpich": ("mpirun", 1)}


@pytest.mark.parametrize("way", WAYS)
async def test_every_way(job: Job4, way: str) -> None:
    """Agents on all hosts, by as many commands as it takes; members have the driver's environment, and nothing stays."""
    job.by(way)
    program, times = WAYS[way]
    line = f"{SHOW}; while [ ! -e {job.place}/go ]; do sleep 0.05; done"
    with anyio.fail_after(DEADLINE):
        async with job.experiment() as exp:
            group = await exp.start(shell(line, 10), block=False)
            for member in group[:8]:
                await state_of(member, R)
            assert [member.status is R for member in group] == [True] * 8 + [False] * 2
            assert set(job.agents()) == set(job.hosts.names)
            assert not [*job.place.glob("*/.asim/.asim-*")]
            (job.place / "go").touch()
            await group.wait()
        assert ends(group) == [(C, 0)] * 10
        await until(lambda: not processes("asim/agent", str(job.place)))
    assert len([line for line in job.calls(program) if "--version" not in line]) == times
    rows = [heard(member).split("|") for member in group]
    assert set(Counter(row[0] for row in rows[:8]).values()) == {2}
    assert {tuple(row[1:5]) for row in rows} == {(VALUE, os.environ["PATH"], "2", "0")}


@pytest.mark.parametrize("way", ["ssh", "openmpi"])
async def test_mpirun_in_members(job: Job4, way: str) -> None:
    """A member's own mpirun starts its ranks on its node, also when agents were started by an mpirun."""
    job._open_mpi()
    job.environ.setenv("ASIM_AGENT_STARTER", {"ssh": "ssh", "openmpi": "mpirun"}[way])
    settings = MpirunSettings("/bin/sh", ["-c", "echo $OMPI_COMM_WORLD_SIZE $(hostname)"])
    settings.set_tasks(2)
    with anyio.fail_after(DEADLINE):
        async with job.experiment() as exp:
            group = await exp.start(Ensemble("e", run_settings=settings, replicas=4, placement="agent"))
    assert ends(group) == [(C, 0)] * 4, [member.stderr.read_text() for member in group]
    assert [heard(member) for member in group] == ["\n".join([f"2 {member.host}"] * 2) for member in group]
    assert {member.host for member in group} == set(job.hosts.names)


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_that_is_killed(job: Job4, way: str) -> None:
    """Its members FAIL, and those on other hosts go on, also where one program has started all agents and gives up."""
    job.by(way)
    with anyio.fail_after(DEADLINE):
        async with job.experiment() as exp:
            group = await exp.start(shell(f"while [ ! -e {job.place}/go ]; do sleep 0.217; done", 8), block=False)
            for member in group:
                await state_of(member, R)
            os.kill(job.agents()["h3"], signal.SIGKILL)
            lost = [member for member in group if member.host == "h3"]
            for member in lost:
                await member
            (job.place / "go").touch()
            await group.wait()
    assert len(lost) == 2
    assert {(member.status, member.reason) for member in lost} == {(F, "NODE_FAIL: its agent on h3 is gone")}
    assert {member.status for member in group if member not in lost} == {C}


async def test_a_host_that_cannot_be_reached(job: Job4) -> None:
    """ssh's own words are told, at once; it asks for nothing, and what was started elsewhere is stopped."""
    with open(os.environ["PBS_NODEFILE"], "a") as file:
        file.write("nowhere.invalid\n")
    with anyio.fail_after(DEADLINE):
        async with job.experiment() as exp:
            with pytest.raises(SubmitError, match=r"of 5 agents.*ssh ended with code 255: .*nowhere\.invalid"):
                await exp.start(shell("true", 2))
            await until(lambda: not job.agents() and not processes("BatchMode", str(job.place)))


async def test_srun_that_starts_nothing(lab: Lab, allocation: Allocated, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often agents do not call in time, no srun stays behind in the allocation."""
    monkeypatch.setattr(nodes, "WITHIN", 1.0)
    lab.hook("srun", "exec srun.slurm --overlap --nodes 4 sleep 316.3")
    (lab.place / "bin" / "srun.slurm").symlink_to(shutil.which("srun", path=lab.site.env["PATH"]) or "")
    with anyio.fail_after(DEADLINE):
        async with lab.experiment() as exp:
            for times in (1, 2):
                with pytest.raises(SubmitError, match=r"0 of 4 agents.*did not call within 1 s"):
                    await exp.start(shell("true", 2))
                assert len(lab.calls("srun")) == times
            await until(lambda: not processes("316.3"), 20)


# -- Grid Engine

DRIVER = """
import anyio, json, os, pathlib, sys
from asim import Ensemble, Experiment, RunSettings
place, line = pathlib.Path(sys.argv[1]), sys.argv[2]
async def main():
    async with Experiment("an exp", launcher="auto") as exp:
        ensemble = Ensemble("e", run_settings=RunSettings("/bin/sh", ["-c", line]), replicas=7, placement="agent")
        group = await exp.start(ensemble, block=False)
        with anyio.fail_after(30):
            while sum(str(job.status) == "RUNNING" for job in group) < 5:
                await anyio.sleep(0.05)
        early = [str(job.status) for job in group]
        (place / "go.new").write_text("")
        (place / "go.new").rename(place / "go")
        await group.wait()
        ends = [[str(job.status), job.returncode, job.host, job.stdout.read_text()] for job in group]
    told = {"launcher": exp.launcher, "early": early, "ends": ends}
    (place / "told.new").write_text(json.dumps(told))
    (place / "told.new").rename(place / "told")
anyio.run(main)
"""


@pytest.fixture
def user(sge: SgeSite, tmp_path: Path) -> Asker:
    """A user of Grid Engine; in jobs, qrsh is counted."""
    from asim.launchers.sge import SGE

    qrsh = tmp_path / "bin" / "qrsh"
    qrsh.parent.mkdir()
    qrsh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/qrsh.log\nexec /usr/lib/gridengine/qrsh "$@"\n')
    qrsh.chmod(0o755)
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    return Asker(SGE(), sge, tmp_path)


def driver(user: Asker, line: str, slots: int = 5) -> str:
    """A job with slots on both hosts in which an experiment runs; its id."""
    place = user.directory
    settings = SgeQsubBatchSettings(batch_args={"o": f"{place}/out", "j": "y"})
    if slots > 1:
        settings.set_pe_type("mpi")
        settings.set_ncpus(slots)
    root = Path(__file__).parents[2]
    text = f"""\
export PATH={place}/bin:$PATH PYTHONPATH={root} A={shlex.quote(VALUE)}
unset NCPUS
cd {place}
exec {sys.executable} driver.py {place} {shlex.quote(line)}"""
    return user.take(user.batch(text, settings))


def test_qrsh(user: Asker) -> None:
    """Inside a job with slots on two hosts, one qrsh for each starts an agent, which runs as many as it has slots."""
    place = user.directory
    job = driver(user, f"{SHOW}; while [ ! -e {place}/go ]; do sleep 0.05; done; exit 3")
    wait_until(lambda: not user.status(job), DEADLINE)
    wait_until(lambda: user.account(job)[job].state is C, 20)  # its own record is the last of several
    assert (place / "told").exists(), (place / "out").read_text()
    told = json.loads((place / "told").read_text())
    assert told["launcher"] == "sge"
    assert told["early"].count("RUNNING") == 5
    assert [row[:2] for row in told["ends"]] == [["FAILED", 3]] * 7
    rows = [row[3].strip().split("|") for row in told["ends"]]
    assert sorted(Counter(row[0] for row in rows[:5]).values()) == [2, 3]
    assert [row[2] for row in told["ends"]] == [row[0] for row in rows]
    assert {(row[1], row[3]) for row in rows} <= {(VALUE, "2"), (VALUE, "3")}
    assert all(row[2].startswith(f"{place}/bin:") for row in rows)
    calls = (place / "qrsh.log").read_text().splitlines()
    assert sorted(line.split()[:3] for line in calls) == [["-inherit", "-nostdin", name] for name in ("h1", "h2")]
    wait_until(lambda: not processes("asim/agent", str(place)), 20)


@pytest.mark.parametrize("slots", [5, 1])
def test_qdel(user: Asker, slots: int) -> None:
    """A job that is deleted takes the members with it, on both hosts, or on the one of a job that is on no other."""
    place = user.directory
    job = driver(user, f"sleep 217.4 & echo {place}; wait", slots)
    wait_until(lambda: len(processes("sleep\x00217.4")) == slots, DEADLINE)
    assert (place / "qrsh.log").exists() == (slots > 1)
    user.cancel(job)
    wait_until(lambda: job not in user.status(job), 30)
    wait_until(lambda: not processes("217.4"), 20)
    wait_until(lambda: not processes("asim/agent", str(place)), 20)
