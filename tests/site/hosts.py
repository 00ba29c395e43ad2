"""Virtual hosts: each a network, a host name and an ``/etc/hosts`` of its own, on a bridge; with an sshd in each.

By hand: ``python -m tests.site.hosts DIRECTORY [COUNT]``
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import missing
from tests.servers import until
from tests.site.daemons import SBIN, Daemons, lacking, leave_on_sigterm, stay

ENTER = """\
h=$1 d=$2; shift 2; hostname "$h"; mount --bind "$d/hosts" /etc/hosts; mount --bind "$d/$h/hostname" /etc/hostname
exec "$@"
"""
SSHD = """\
Port 22
HostKey {d}/host_key
AuthorizedKeysFile {d}/authorized_keys
PidFile {d}/{name}/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
MaxStartups 200:30:400
MaxSessions 200
AcceptEnv *
Subsystem sftp internal-sftp
"""
CLIENT = """\
Host {names}
  User root
  IdentityFile {d}/key
  IdentitiesOnly yes
  UserKnownHostsFile {d}/known_hosts
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


class VirtualHosts(Daemons):
    """Hosts ``h1`` … in namespaces, reachable from here by their addresses; ready on entry and gone on exit.

    :param directory: for their files.
    :param count: how many.
    :param ssh: with an sshd on port 22 of each.

    :ivar addresses: name -> address; ``hub`` is this machine.
    :ivar config: a configuration file for OpenSSH's clients, in which the hosts have their names.
    """

    def __init__(self, directory: Path, count: int = 4, *, ssh: bool = True) -> None:
        super().__init__(directory, {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SBIN}"})
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.token = f"{random.randrange(16**5):05x}"
        self.bridge, self.ssh = f"asim{self.token}", ssh
        self.addresses: dict[str, str] = {}
        self.config = directory / "ssh_config"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._network()
            if self.ssh:
                self._sshd()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()
        for name in self.names:
            for pid in self._ip("netns", "pids", self.space(name), check=False).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            until(lambda: not self._ip("netns", "pids", self.space(name), check=False), 10, "the end of a host")  # noqa: B023
            self._ip("link", "del", self._port(name), check=False)
            self._ip("netns", "del", self.space(name), check=False)
        self._ip("link", "del", self.bridge, check=False)

    # -- for tests

    def space(self, name: str) -> str:
        """The network namespace of a host."""
        return f"asim{self.token}{name}"

    def inside(self, name: str) -> list[str]:
        """What a command begins with, to run in this host."""
        own_names = ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
        return ["nsenter", f"--net=/run/netns/{self.space(name)}", *own_names, name, str(self.directory)]

    def on(self, name: str, *argv: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """One command in a host."""
        return self.run(*self.inside(name), *argv, check=check, **env)

    def cut(self, name: str, *, again: bool = False) -> None:
        """Pull the plug of a host's network, or put it in again."""
        self._ip("link", "set", self._port(name), "up" if again else "down")

    # -- how it is made

    def _ip(self, *words: str, check: bool = True) -> str:
        return self.run("ip", *words, check=check).stdout

    def _port(self, name: str) -> str:
        return f"as{self.token}{name}"

    def _network(self) -> None:
        used = self._ip("-4", "addr")
        net = next(
            text
            for _ in range(1000)
            if f" {(text := f'10.{random.randrange(64, 250)}.{random.randrange(250)}')}." not in used
        )
        self.addresses = {"hub": f"{net}.254", **{name: f"{net}.{at}" for at, name in enumerate(self.names, 1)}}
        table = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        (self.directory / "hosts").write_text("\n".join(table) + "\n")
        self._ip("link", "add", self.bridge, "type", "bridge")
        self._ip("addr", "add", f"{net}.254/24", "dev", self.bridge)
        self._ip("link", "set", self.bridge, "up")
        for name in self.names:
            (self.directory / name).mkdir(exist_ok=True)
            (self.directory / name / "hostname").write_text(f"{name}\n")
            space, port = self.space(name), self._port(name)
            self._ip("netns", "add", space)
            self._ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._ip("link", "set", port, "master", self.bridge, "up")
            self._ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            self._ip("-n", space, "link", "set", "eth0", "up")
            self._ip("-n", space, "link", "set", "lo", "up")

    def _sshd(self) -> None:
        d = self.directory
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("host_key", "key"):
            if not (d / key).exists():
                self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(d / key))
        shutil.copy(d / "key.pub", d / "authorized_keys")
        host_key = (d / "host_key.pub").read_text().strip()
        known = [f"{name},{self.addresses[name]} {host_key}" for name in self.names]
        (d / "known_hosts").write_text("\n".join(known) + "\n")
        places = [f"Host {name}\n  HostName {self.addresses[name]}" for name in self.names]
        self.config.write_text("\n".join([*places, CLIENT.format(names=" ".join(self.names), d=d)]))
        program = shutil.which("sshd", path=self.env["PATH"]) or "sshd"
        for name in self.names:
            config = d / name / "sshd_config"
            config.write_text(SSHD.format(d=d, name=name))
            self.start(f"sshd-{name}", program, "-D", "-e", "-f", str(config), prefix=self.inside(name))
        for name in self.names:
            self.ready("ssh", "-F", str(self.config), name, "true", what=f"sshd of {name}")


def need_hosts(*programs: str) -> None:
    """Skip where virtual hosts cannot be made."""
    if os.geteuid() != 0:
        missing("virtual hosts need root")
    if gone := lacking("ip", "nsenter", "unshare", *programs):
        missing(gone)
    probe, tool = f"asim{random.randrange(16**5):05x}", shutil.which("ip", path=SBIN) or "ip"
    made = subprocess.run([tool, "link", "add", probe, "type", "bridge"], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"no bridge can be made here: {made.stderr.strip()}")
    subprocess.run([tool, "link", "del", probe], check=True)


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualHosts]:
    """Four virtual hosts with sshd, for the whole session of this process."""
    need_hosts("sshd", "ssh", "ssh-keygen")
    with VirtualHosts(tmp_path_factory.mktemp("hosts")) as site:
        yield site


def main(args: list[str]) -> None:
    """Make hosts, print where they are, and stay until Ctrl-C or SIGTERM."""
    leave_on_sigterm()
    with VirtualHosts(Path(args[0]).absolute(), int(args[1]) if len(args) > 1 else 4) as site:
        stay({"ASIM_SSH_CONFIG": str(site.config), "ASIM_HOSTS": f"'{' '.join(site.addresses.values())}'"})


if __name__ == "__main__":
    main(sys.argv[1:])
