"""The sites themselves: they are as they promise, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import until
from tests.site.hosts import VirtualHosts, need_hosts
from tests.site.slurm import SlurmSite, need_slurm


def below(directory: Path) -> list[str]:
    """Command lines of processes whose environment or command line has this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"{directory}/".encode() in words:
                found.append(words[:80].decode(errors="replace"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gently", "without its controller"])
def test_slurm_leaves_nothing(tmp_path_factory: pytest.TempPathFactory, how: str) -> None:
    """Daemons and jobs of a cluster that is given up are gone, also when its controller was killed."""
    need_slurm()
    directory = tmp_path_factory.mktemp("gone")
    with SlurmSite(directory, nodes=2) as site:
        site.run("sbatch", "--output=/dev/null", "--wrap", "trap '' TERM; sleep 600 & wait; sleep 600")
        until(lambda: site.run("squeue", "-h", "-t", "running").stdout, 20)
        if how != "gently":
            site.kill()
    until(lambda: not below(directory), 5)


def test_slurm_forgets_everything_between_tests(slurm: SlurmSite) -> None:
    """Whatever a test did, the next one finds an empty cluster in which all nodes work."""
    slurm.run("sbatch", "--output=/dev/null", "--array=0-9", "--wrap", "sleep 600")
    slurm.set_node("n1", "down")
    slurm.set_node("n2", "drain")
    slurm.stop_node("n3")
    slurm.down()
    slurm.clear()
    assert slurm.run("squeue", "-h").stdout == ""
    assert slurm.run("sinfo", "-h", "-p", "debug", "-o", "%D %T").stdout.split() == ["4", "idle"]


def test_started_by_hand(tmp_path_factory: pytest.TempPathFactory) -> None:
    """``python -m tests.site.slurm`` prints what a shell needs, stays, and ends on SIGTERM without leaving anything."""
    need_slurm()
    directory = tmp_path_factory.mktemp("hand")
    words = [sys.executable, "-m", "tests.site.slurm", str(directory), "1"]
    with subprocess.Popen(words, stdout=-1, cwd=Path(__file__).parents[2], text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"export SLURM_CONF={directory}/slurm.conf\n"
        process.terminate()
        assert process.wait(20) == 0
    until(lambda: not below(directory), 5)


def test_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Daemons do not outlive a test process that had no time to stop them."""
    need_slurm()
    directory = tmp_path_factory.mktemp("killed")
    words = [sys.executable, "-m", "tests.site.slurm", str(directory), "1"]
    with subprocess.Popen(words, stdout=-1, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    until(lambda: not below(directory), 10)


@pytest.mark.slow
def test_hosts_are_hosts(hosts: VirtualHosts) -> None:
    """Each has its own name and address, knows the others, and is reached by ssh from here and from each other."""
    for name in hosts.names:
        said = hosts.run("ssh", "-F", str(hosts.config), name, "hostname; getent hosts h1").stdout.split()
        assert said == [name, hosts.addresses["h1"], "h1"]
    through = hosts.on("h2", "ssh", "-F", str(hosts.config), "h3", "hostname")
    assert through.stdout.strip() == "h3"


@pytest.mark.slow
def test_a_host_can_be_cut_off(hosts: VirtualHosts) -> None:
    """A pulled plug is a silent host, not a refusing one."""
    words = ("ssh", "-F", str(hosts.config), "-o", "ConnectTimeout=1", "h4", "true")
    hosts.cut("h4")
    try:
        assert hosts.run(*words, check=False).returncode == 255
    finally:
        hosts.cut("h4", again=True)
    until(lambda: hosts.run(*words, check=False).returncode == 0, 20)


@pytest.mark.slow
def test_hosts_leave_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Networks, names and processes of hosts are gone, whatever ran in them."""
    need_hosts("sshd", "ssh", "ssh-keygen")
    directory = tmp_path_factory.mktemp("gone")
    with VirtualHosts(directory, 2) as site:
        token = site.token
        site.on("h1", "sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & ")
    until(lambda: not below(directory), 5)
    assert token not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert token not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
