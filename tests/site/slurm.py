"""A private Slurm: nodes on loopback, own ports, own munge; with or without accounting. Jobs run as this user (root).

By hand: ``python -m tests.site.slurm DIRECTORY [NODES] [--accounting]``
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import missing
from tests.servers import free_port, until
from tests.site.daemons import READY_WITHIN, SBIN, Daemons, kill_jobs, lacking, leave_on_sigterm, stay
from tests.site.slurm_conf import CONF, DBD, WITH, WITHOUT

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")


class SlurmSite(Daemons):
    """One cluster, ready on entry and gone on exit.

    :param directory: where everything of it is; it must be short, as it holds Unix sockets.
    :param nodes: how many, ``n1`` …, each with 16 CPUs (that the machine may not have).
    :param accounting: with slurmdbd and a database of its own.
    :param age: seconds that jobs which ended are remembered by the controller.

    Partitions: ``debug`` (default), ``low`` and ``spare`` (jobs give way to those of ``debug``: by starting again, or by
    ending), ``short`` (at most ten minutes), ``closed`` (takes no jobs).
    """

    def __init__(self, directory: Path, nodes: int = 4, *, accounting: bool = False, age: int = 3600) -> None:
        assert len(str(directory)) < 70, f"too long for sockets: {directory}"
        self.nodes, self.accounting, self.conf = nodes, accounting, directory / "slurm.conf"
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        path = f"{os.environ.get('PATH', '')}:{SBIN}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        super().__init__(directory, {**inherited, "PATH": path, "SLURM_CONF": str(self.conf)})
        self.address = socket.gethostbyname(socket.gethostname())
        self._ports = {
            "port": free_port(),
            "dbd": free_port(),
            "db": free_port(),
            "first": _free_range(nodes, self.address),
        }
        self._age = age

    def __enter__(self) -> Self:
        for name in ("state", "log", "spool", "db"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        try:
            self._configure()
            self._munge()
            if self.accounting:
                self._database()
            self.up()
            for name in self.names:
                self.start_node(name)
            self.ready("sinfo", "-h", "-t", "idle", "-p", "debug", "-o", "%D", said=str(self.nodes), what="the nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if "slurmctld" in self.running:
                self.clear()
        finally:
            self.stop_all()
            kill_jobs(
                self.directory, "SLURM_JOB_ID=", "slurmstepd"
            )  # the jobs of a cluster whose controller did not answer any more

    # -- for tests

    def clear(self) -> None:
        """Cancel all jobs and wait until nothing of them is left; all nodes are made usable again."""
        if "slurmctld" not in self.running:
            self.up()
        for name in self.names:
            if name not in self.running:
                self.start_node(name)
        self.run("scancel", "-u", "root", check=False)
        states = "pending,running,suspended,completing,configuring,stopped,requeued"
        until(lambda: not self.run("squeue", "-h", "-t", states).stdout, READY_WITHIN, "the end of all jobs")
        usable = ("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T")
        bad = [line.split()[0] for line in self.run(*usable).stdout.splitlines() if line.split()[1] != "idle"]
        for node in bad:
            self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.ready("sinfo", "-h", "-t", "idle", "-p", "debug", "-o", "%D", said=str(self.nodes), what="the nodes")

    def down(self) -> None:
        """Stop slurmctld; jobs go on."""
        self.stop("slurmctld")

    def kill(self) -> None:
        """End slurmctld without warning."""
        self.running["slurmctld"].kill()
        self.stop("slurmctld")

    def pause(self, paused: bool) -> None:
        """Stop slurmctld in its tracks: it takes connections and never answers; or let it go on."""
        self.running["slurmctld"].send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def up(self) -> None:
        """Start slurmctld (again), and wait until it answers."""
        self.start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self.ready("scontrol", "ping", what="slurmctld")

    def start_node(self, name: str) -> None:
        """Start the daemon of one node (again)."""
        (self.directory / "spool" / name).mkdir(exist_ok=True)
        self.start(name, "slurmd", "-D", "-f", str(self.conf), "-N", name)

    def stop_node(self, name: str) -> None:
        """Stop the daemon of one node; its jobs go on."""
        self.stop(name)

    def set_node(self, name: str, state: str) -> None:
        """Set a node's state as an administrator would: ``down``, ``drain``, ``resume`` … A node that is set down ends
        its jobs, and comes back by itself when its daemon reports that they have ended.
        """
        usable = state in ("resume", "undrain")  # what is usable already refuses that
        words = () if usable else ("reason=test",)
        self.run("scontrol", "update", f"nodename={name}", f"state={state}", *words, check=not usable)

    # -- how it is made

    def _configure(self) -> None:
        first = self._ports["first"]
        accounting = (WITH if self.accounting else WITHOUT).format(d=self.directory, **self._ports)
        facts = {"d": self.directory, "host": socket.gethostname().partition(".")[0], "address": self.address}
        facts |= {"port": self._ports["port"], "ports": f"{first}-{first + self.nodes - 1}", "nodes": self.nodes}
        self.conf.write_text(CONF.format(**facts, accounting=accounting, age=self._age))
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # else slurmd wants a cgroup filesystem

    def _munge(self) -> None:
        d = self.directory
        with open(os.open(d / "munge.key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as key:
            key.write(os.urandom(1024))
        # the folders above may be private to this user, as pytest's are: that is only warned of, with --force
        words = ["munged", "--foreground", "--force", f"--key-file={d}/munge.key", f"--socket={d}/munge.sock"]
        words += [f"--pid-file={d}/munged.pid", f"--log-file={d}/log/munged.log", f"--seed-file={d}/munge.seed"]
        self.start("munged", *words)
        self.ready("munge", "-n", "-S", f"{d}/munge.sock", what="munge")

    def _database(self) -> None:
        d, port = self.directory, self._ports["db"]
        words = ["--no-defaults", "--user=root", f"--datadir={d}/db"]
        self.run("mariadb-install-db", *words, "--auth-root-authentication-method=normal", "--skip-test-db")
        words += [f"--socket={d}/db.sock", "--bind-address=127.0.0.1", f"--port={port}", f"--pid-file={d}/db.pid"]
        words += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--innodb-lock-wait-timeout=900"]
        self.start("mariadbd", "mariadbd", *words, "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0")
        client = ("mariadb", "--no-defaults", "-uroot", f"--socket={d}/db.sock")
        self.ready(*client, "-e", "select 1", what="the database")
        users = [f"'slurm'@'{host}'" for host in ("127.0.0.1", "localhost")]
        orders = [
            f"create user {user} identified by 'slurm'; grant all on slurm_acct_db.* to {user};" for user in users
        ]
        self.run(*client, "-e", "create database slurm_acct_db; " + " ".join(orders))
        conf = d / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(DBD.format(d=d, **self._ports))
        self.start("slurmdbd", "slurmdbd", "-D")
        self.ready("sacctmgr", "-n", "show", "cluster", what="slurmdbd")
        self.run("sacctmgr", "-i", "add", "cluster", "asimtest", check=False)
        self.run("sacctmgr", "-i", "add", "account", "science", "cluster=asimtest")
        self.run("sacctmgr", "-i", "add", "user", "root", "account=science", check=False)


def _free_range(count: int, address: str) -> int:
    """The first of so many ports in a row that are free, below those that the system hands out by itself."""
    for _ in range(1000):
        first = random.randrange(20000, 32000)
        if all(_free(first + offset, address) for offset in range(count)):
            return first
    raise RuntimeError("no free ports in a row")


def _free(port: int, address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def need_slurm(*more: str) -> None:
    """Skip where Slurm (and ``more`` programs) cannot be started."""
    if os.geteuid() != 0:
        missing("a private Slurm needs root here")
    if gone := lacking(*PROGRAMS, *more):
        missing(gone)


@pytest.fixture(scope="session")
def slurm_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmSite]:
    """Slurm without accounting, one for the whole session of this process."""
    need_slurm()
    with SlurmSite(tmp_path_factory.mktemp("slurm")) as site:
        yield site


@pytest.fixture
def slurm(slurm_site: SlurmSite) -> Iterator[SlurmSite]:
    """Slurm with 4 nodes and without accounting, empty."""
    yield slurm_site
    slurm_site.clear()


@pytest.fixture(scope="session")
def slurm_accounting_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmSite]:
    """Slurm with accounting, one for the whole session of this process."""
    need_slurm(*ACCOUNTING)
    with SlurmSite(tmp_path_factory.mktemp("acct"), accounting=True) as site:
        yield site


@pytest.fixture
def slurm_accounting(slurm_accounting_site: SlurmSite) -> Iterator[SlurmSite]:
    """Slurm with 4 nodes, slurmdbd and a database, empty."""
    yield slurm_accounting_site
    slurm_accounting_site.clear()


def main(args: list[str]) -> None:
    """Start a cluster, print its environment, and stay until Ctrl-C or SIGTERM."""
    leave_on_sigterm()
    words = [word for word in args if word != "--accounting"]
    nodes = int(words[1]) if len(words) > 1 else 4
    with SlurmSite(Path(words[0]).absolute(), nodes, accounting="--accounting" in args) as site:
        stay({"SLURM_CONF": str(site.conf)})


if __name__ == "__main__":
    main(sys.argv[1:])
