"""How agents are started on the nodes of an allocation: what each workload manager tells, and the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from asim import ConfigError, UnsupportedError
from asim.launchers.base import KNOWN
from asim.launchers.spreading import OWN, allocation_of, hosts_of, loader, nodefile_of, starters, ways

SLURM = {"SLURM_JOB_ID": "17", "SLURM_JOBID": "17", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
PBS = {"PBS_JOBID": "1042.head", "PBS_NODEFILE": "/var/spool/pbs/aux/1042.head", "NCPUS": "16", "PBS_TASKNUM": "1"}
TORQUE = {
    "PBS_JOBID": "88.head",
    "PBS_NODEFILE": "/var/spool/torque/aux/88.head",
    "PBS_NUM_PPN": "2",
    "PBS_VNODENUM": "0",
}
SGE = {"JOB_ID": "3", "PE_HOSTFILE": "/spool/execd/h2/active_jobs/3.1/pe_hostfile", "NSLOTS": "5", "NHOSTS": "2"}
LSF = {"LSB_JOBID": "501", "LSB_MCPU_HOSTS": "c1 2 c2 4 ", "LSB_HOSTS": "c1 c1 c2 c2 c2 c2",
       "LSB_DJOB_HOSTFILE": "/home/me/.lsbatch/1700000000.501.hostfile"}  # fmt: skip
COBALT = {"COBALT_JOBID": "9", "COBALT_NODEFILE": "/var/tmp/9"}
JOBS = {"slurm": SLURM, "pbs": PBS, "pals": PBS, "torque": TORQUE, "sge": SGE, "lsf": LSF}
PE = "h2.site 3 all.q@h2.site UNDEFINED\nh1.site 2 all.q@h1.site UNDEFINED\n"
AGENT = ("/opt/my python/bin/python3", "-I", "agent.py", "node", "here,10.0.0.1", "4711", "/scratch/it's/$HOME")
LOADED = ("/opt/my python/bin/python3", "-I", "-S", "-E", "/s/start.py")
QUOTED = "'/opt/my python/bin/python3' -I -S -E /s/start.py"
REST = """-I agent.py node here,10.0.0.1 4711 '/scratch/it'"'"'s/$HOME'"""


# -- the allocation


def test_every_launcher_has_its_own_program() -> None:
    """A workload manager that asim knows, and that is forgotten here, would be told that it has no allocations."""
    assert set(OWN) == set(KNOWN) - {"local"}


@pytest.mark.parametrize("launcher", JOBS)
def test_allocation(launcher: str) -> None:
    """Its id is what the workload manager says; nothing outside, and in another's."""
    job = JOBS[launcher]
    assert allocation_of(launcher, job) == next(iter(job.values()))
    assert allocation_of(launcher, {}) == allocation_of(launcher, COBALT) == ""
    assert allocation_of(launcher, dict.fromkeys(job, "")) == ""
    other = "slurm" if launcher != "slurm" else "sge"
    assert allocation_of(other, job) == ""


def test_allocation_of_old_slurm() -> None:
    """The variable's older name does too; a launcher of somebody else's is in none, whatever there is."""
    assert allocation_of("slurm", {"SLURM_JOBID": "5"}) == "5"
    assert allocation_of("theirs", PBS) == ""


# -- its hosts


@pytest.mark.parametrize(
    ("launcher", "path"),
    [
        ("slurm", ""), ("pbs", PBS["PBS_NODEFILE"]), ("pals", PBS["PBS_NODEFILE"]), ("torque", TORQUE["PBS_NODEFILE"]),
        ("sge", SGE["PE_HOSTFILE"]), ("lsf", ""), ("theirs", ""),
    ],
)  # fmt: skip
def test_nodefile(launcher: str, path: str) -> None:
    """The file is the one that this workload manager writes; none where the environment tells it all, or in no job."""
    assert nodefile_of(launcher, JOBS.get(launcher, {})) == path
    assert nodefile_of(launcher, {}) == ""


def test_nodefile_of_lsf() -> None:
    """Where LSF leaves out the list, its file is read."""
    job = {name: value for name, value in LSF.items() if name == "LSB_DJOB_HOSTFILE"}
    assert nodefile_of("lsf", job) == LSF["LSB_DJOB_HOSTFILE"]
    assert hosts_of("lsf", job, "c1\nc1\nc2\n") == ["c1", "c1", "c2"]


@pytest.mark.parametrize(
    ("launcher", "text", "hosts"),
    [
        ("pbs", "n1.site\nn2.site\n", ["n1.site", "n2.site"]),
        ("pbs", "n1\n\n n2 \r\n\nn1", ["n1", "n2", "n1"]),
        ("pbs", "", []),
        ("pals", "x1000c0s0b0n0\n", ["x1000c0s0b0n0"]),
        ("torque", "n2\nn2\nn1\nn1\n", ["n2", "n2", "n1", "n1"]),
        ("sge", PE, ["h2.site"] * 3 + ["h1.site"] * 2),
        ("sge", "h1 1 a.q@h1 UNDEFINED\nh1 2 b.q@h1 <NULL>\nh2\n\nh3 x\n", ["h1", "h1", "h1", "h2", "h3"]),
        ("sge", "", []),
        ("slurm", "", []),
    ],
)
def test_hosts(launcher: str, text: str, hosts: list[str]) -> None:
    """As often as each has a slot, in the file's order: pbsdsh counts its lines. Blank lines and gaps are no hosts."""
    assert hosts_of(launcher, JOBS[launcher], text) == hosts


@pytest.mark.parametrize(
    ("text", "hosts"), [("c1 2 c2 4 ", ["c1"] * 2 + ["c2"] * 4), ("c1", ["c1"]), ("c1 c2 2", ["c1", "c2", "c2"])]
)
def test_hosts_of_lsf(text: str, hosts: list[str]) -> None:
    """Its pairs of names and numbers; a host whose number is missing is there all the same."""
    assert hosts_of("lsf", LSF | {"LSB_MCPU_HOSTS": text}, "") == hosts


# -- the program


def test_ways() -> None:
    """The workload manager's own comes first; what needs only names of hosts comes after it, but for Slurm's."""
    assert {launcher: " ".join(ways(launcher, {})) for launcher in OWN} == {
        "slurm": "srun", "pbs": "pbsdsh ssh mpirun", "pals": "pbsdsh ssh mpirun", "torque": "pbsdsh ssh mpirun",
        "sge": "qrsh ssh mpirun", "lsf": "blaunch ssh mpirun",
    }  # fmt: skip


def test_a_way_that_was_chosen() -> None:
    """A user's choice is not replaced by another; one that is impossible is an error that says what is possible."""
    assert list(ways("pbs", {"ASIM_AGENT_STARTER": "mpirun"})) == ["mpirun"]
    assert list(ways("pbs", {"ASIM_AGENT_STARTER": ""})) == list(ways("pbs", {}))
    with pytest.raises(ConfigError, match="ASIM_AGENT_STARTER = 'qrsh': must be pbsdsh or ssh or mpirun with the pbs"):
        ways("pbs", {"ASIM_AGENT_STARTER": "qrsh"})
    with pytest.raises(ConfigError, match="ASIM_AGENT_STARTER = 'ssh': must be srun with the slurm"):
        ways("slurm", {"ASIM_AGENT_STARTER": "ssh"})
    with pytest.raises(
        UnsupportedError, match="placement = 'agent': only inside an allocation, and the theirs launcher has none"
    ):
        ways("theirs", PBS)


def commands(way: str, launcher: str, *hosts: str, **options: object) -> list[tuple[str, ...]]:
    """Those that start agents there."""
    return starters(way, launcher, "17", 2, hosts, AGENT, "/s/start.py", **options)  # type: ignore[arg-type]


def test_srun() -> None:
    """One command for all nodes; the environment needs no help."""
    (command,) = commands("srun", "slurm")
    assert command[:3] == ("srun", "--jobid", "17")
    assert command[-len(AGENT) :] == AGENT
    assert " --nodes 2 --ntasks 2 --ntasks-per-node 1 " in " ".join(command)


@pytest.mark.parametrize(("launcher", "cpus"), [("pbs", ("", "")), ("pals", ("", "")), ("torque", ("2", "1"))])
def test_pbsdsh(launcher: str, cpus: tuple[str, str]) -> None:
    """One for each host, by the number of its first line, and words as they are: no shell is between."""
    first, second = commands("pbsdsh", launcher, "n2", "n2", "n1")
    assert first == ("pbsdsh", "-n", "0", "--", *LOADED, cpus[0], *AGENT[1:])
    assert second == ("pbsdsh", "-n", "2", "--", *LOADED, cpus[1], *AGENT[1:])


@pytest.mark.parametrize(
    ("way", "launcher", "before"),
    [
        ("qrsh", "sge", "qrsh -inherit -nostdin"),
        ("blaunch", "lsf", "blaunch"),
        ("ssh", "torque", "ssh -n -T -x -o BatchMode=yes -o ConnectTimeout=30"),
    ],
)
def test_by_a_shell(way: str, launcher: str, before: str) -> None:
    """These hand words joined to a shell, so that each is quoted; how many slots a host has is told."""
    found = [" ".join(command) for command in commands(way, launcher, "h2", "h1", "h2")]
    assert found == [f"{before} h2 {QUOTED} 2 {REST}", f"{before} h1 {QUOTED} 1 {REST}"]
    heard = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {found[0].removeprefix(f'{before} h2 ')}"], capture_output=True, check=True
    )
    assert heard.stdout.decode().split("\0")[:-1] == [*LOADED, "2", *AGENT[1:]]


def test_ssh_with_pbs() -> None:
    """The file of nodes does not tell the CPUs there, so nothing is said of them; no word vanishes in the shell."""
    (command,) = commands("ssh", "pbs", "n1")
    assert " ".join(command).endswith(f"n1 {QUOTED} '' {REST}")


@pytest.mark.parametrize(
    ("flavor", "before"),
    [
        ("openmpi", "mpirun --host h2,h1 -n 2 --map-by ppr:1:node --bind-to none"),
        (None, "mpirun --host h2,h1 -n 2 --map-by ppr:1:node --bind-to none"),
        ("mpich", "mpirun -hosts h2,h1 -n 2 -ppn 1"),
    ],
)
def test_mpirun(flavor: str | None, before: str) -> None:
    """One for all, one process on each host, in the words of its MPI; the smallest host says how many CPUs."""
    (command,) = commands("mpirun", "sge", "h2", "h1", "h2", flavor=flavor)
    assert command == (*before.split(), *LOADED, "1", *AGENT[1:])


@pytest.mark.parametrize("way", ["pbsdsh", "qrsh", "ssh", "mpirun"])
def test_no_list_of_hosts(way: str) -> None:
    """A job without one (Grid Engine's, outside a parallel environment) is on this host: nobody is asked to start it."""
    assert commands(way, "sge") == [(*LOADED, "1", *AGENT[1:])]
    assert commands(way, "pbs") == [(*LOADED, "", *AGENT[1:])]


# -- the environment there


def loaded(place: Path, cpus: str, environ: Mapping[str, str], there: Mapping[str, str]) -> dict[bytes, bytes]:
    """What a program has that is started by way of the loader, where there was another environment."""
    (place / "start.py").write_text(loader(environ))
    python = (sys.executable, "-I", "-S", "-E")
    show = "import os; [os.write(1, name + b'=' + value + b'\\0') for name, value in os.environb.items()]"
    command = [*python, str(place / "start.py"), cpus, *python[1:], "-c", show]
    done = subprocess.run(command, env=there, capture_output=True, check=True, timeout=20)
    rows = (row.partition(b"=") for row in done.stdout.split(b"\0")[:-1])
    return {name: value for name, _, value in rows if name != b"LC_CTYPE"}


def test_environment(tmp_path: Path) -> None:
    """Members have the driver's environment, byte for byte, and not the starter's; what is the node's own stays."""
    odd = {"A": 'it\'s "$HOME"\n', "Ä": "ö", "BYTES": os.fsdecode(b"\xff\xfe"), "BASH_FUNC_module%%": "() { :; }"}
    there = {"OMPI_COMM_WORLD_RANK": "3", "SSH_CLIENT": "x", "TMPDIR": "/tmp/there", "PBS_TASKNUM": "7", "NCPUS": "8"}
    found = loaded(tmp_path, "", {**odd, "PBS_TASKNUM": "1", "TMPDIR": "/tmp/here"}, there)
    own = {"TMPDIR": "/tmp/there", "PBS_TASKNUM": "7", "NCPUS": "8"}
    assert found == {os.fsencode(name): os.fsencode(value) for name, value in {**odd, **own}.items()}


def test_cpus(tmp_path: Path) -> None:
    """How many CPUs there are for us is what the list of hosts says, if it says that."""
    assert loaded(tmp_path, "3", {"NCPUS": "16"}, {"NCPUS": "8"}) == {b"NCPUS": b"3"}
    assert loaded(tmp_path, "", {"NCPUS": "16"}, {}) == {b"NCPUS": b"16"}


@pytest.mark.parametrize(("what", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_session(tmp_path: Path, what: str, code: int) -> None:
    """What kills the session that is given there does not reach the agent; how that ends is told all the same."""
    (tmp_path / "start.py").write_text(loader({}))
    text = f"import os, sys; print(os.getsid(0), os.getpid(), flush=True); {what}"
    command = [sys.executable, str(tmp_path / "start.py"), "", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == code
    session, pid = done.stdout.split()
    assert session == pid
