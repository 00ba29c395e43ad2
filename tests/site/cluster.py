"""Slurm over virtual hosts: one node on each, with an address and a host name of its own; its users are outside of them.

By hand: ``python -m tests.site.cluster DIRECTORY``
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site.daemons import leave_on_sigterm, stay
from tests.site.experiments import Lab
from tests.site.hosts import VirtualHosts, need_hosts
from tests.site.slurm import SlurmSite, need_slurm


class HostCluster(SlurmSite):
    """A :class:`SlurmSite` whose nodes are virtual hosts, with their names; the controller is on the first.

    :param directory: where everything of it is; all hosts see it.
    :param hosts: the hosts, which are there before and after.
    """

    def __init__(self, directory: Path, hosts: VirtualHosts) -> None:
        super().__init__(directory, len(hosts.names))
        self.hosts, self.names = hosts, hosts.names

    def clear(self) -> None:
        for name in self.names:
            self.hosts.cut(name, again=True)
        super().clear()

    def lose(self, name: str) -> None:
        """A host is gone from one moment to the next. The controller is told: by itself it takes its time to be sure."""
        self.hosts.cut(name)
        self.set_node(name, "down")

    def up(self) -> None:
        self.start("slurmctld", "slurmctld", "-D", "-f", str(self.conf), prefix=self.hosts.inside(self.names[0]))
        self.ready("scontrol", "ping", what="slurmctld")

    def start_node(self, name: str) -> None:
        (self.directory / "spool" / name).mkdir(exist_ok=True)
        self.start(name, "slurmd", "-D", "-f", str(self.conf), "-N", name, prefix=self.hosts.inside(name))

    def _configure(self) -> None:
        """Like on loopback, but for who is where; the daemons listen everywhere, as nobody else is in their networks."""
        super()._configure()
        addresses, first = self.hosts.addresses, self.names[0]
        nodes = [f"NodeName={name} NodeAddr={addresses[name]} CPUs=16 RealMemory=4000" for name in self.names]
        wanted = {
            "SlurmctldHost=.*": f"SlurmctldHost={first}({addresses[first]})",
            "NodeName=.*": "\n".join(nodes),
            "CommunicationParameters=.*": "",
        }
        text = self.conf.read_text()
        for old, new in wanted.items():
            text = re.sub(f"^{old}$", new, text, flags=re.MULTILINE)
        self.conf.write_text(text)


def need_cluster() -> None:
    """Skip where Slurm or virtual hosts cannot be had."""
    need_slurm()
    need_hosts("sshd", "ssh", "ssh-keygen")


@pytest.fixture(scope="session")
def cluster_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostCluster]:
    """Four hosts of its own, with Slurm over them, for the whole session of this process."""
    need_cluster()
    directory = tmp_path_factory.mktemp("cluster")
    with VirtualHosts(directory / "hosts") as hosts, HostCluster(directory / "slurm", hosts) as site:
        yield site


@pytest.fixture
def cluster(cluster_site: HostCluster) -> Iterator[HostCluster]:
    """Slurm over four virtual hosts, empty."""
    yield cluster_site
    cluster_site.clear()


@pytest.fixture
def lab(cluster: HostCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A user of it."""
    return Lab(cluster, tmp_path, monkeypatch)


def main(args: list[str]) -> None:
    """Start hosts and a cluster, print its environment, and stay until Ctrl-C or SIGTERM."""
    leave_on_sigterm()
    place = Path(args[0]).absolute()
    with VirtualHosts(place / "hosts") as hosts, HostCluster(place / "slurm", hosts) as site:
        stay({"SLURM_CONF": str(site.conf), "ASIM_SSH_CONFIG": str(hosts.config)})


if __name__ == "__main__":
    main(sys.argv[1:])
