"""Which machine a link leads to, whom it trusts there, and where the agent's file may be."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from asim.errors import AgentError
from asim.transport import sshlink
from asim.transport.connection import AgentConnection
from asim.transport.options import SSHOptions
from asim.transport.package import package
from asim.transport.ssh import SSHAgent
from tests.conftest import missing
from tests.contract.test_contracts import oldest_python
from tests.integration.conftest import alive, until
from tests.integration.ssh import SSHD, Proxy, SSHServer, need_sshd
from tests.integration.ssh import sshd as sshd
from tests.integration.test_ssh import connected, ended, specs

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

NAME = "/proc/sys/kernel/hostname"
"""A file that has another text on every node."""


class Node(SSHServer):
    """Another login node with the same keys and home: it says another host name, and listens at another address."""

    def __init__(self, place: Path, like: SSHServer, address: str) -> None:
        super().__init__(place, f"SetEnv HOME={like.home} SHELL=/bin/bash")
        self.stop()
        for name in ("host", "host.pub", "authorized"):
            shutil.copy(like.place / name, place / name)
        config = place / "config"
        config.write_text(config.read_text().replace("ListenAddress 127.0.0.1", f"ListenAddress {address}"))
        if address != "127.0.0.1":
            config.write_text(config.read_text().replace(f":{self.port}\n", f":{like.port}\n"))
        enter = 'hostname another-node && exec "$@"'
        command = ["unshare", "-u", "sh", "-c", enter, "sh", SSHD, "-D", "-f", str(config), "-E", f"{place}/log"]
        self._child = subprocess.Popen(command, start_new_session=True)
        if address == "127.0.0.1":
            self._wait()


def need_nodes() -> None:
    """Skip where a process cannot have a host name of its own."""
    need_sshd()
    if subprocess.run(["unshare", "-u", "hostname", "x"], capture_output=True, check=False).returncode:
        missing("unshare cannot make a host name")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SSHServer]:
    """A server for one test."""
    need_sshd()
    server = SSHServer(tmp_path / "own")
    yield server
    server.stop()


async def test_a_link_that_leads_to_another_login_node(own, tmp_path):
    """After a cut a name may lead to another node: nothing may go there, and the right one is asked for again and again."""
    need_nodes()
    node = Node(tmp_path / "node", own, "127.0.0.1")
    try:
        async with Proxy(own.port) as proxy:
            own.know(proxy.port)
            states, got = [], []
            async with connected(own.options(proxy.port), tmp_path) as (agent, connection, news, lost):
                agent.link._on_state = states.append
                here = await agent.read(NAME)
                await connection.spawn(specs(tmp_path, 1, ("/bin/sh", "-c", f"until [ -e {tmp_path}/go ]; do :; done")))
                await until(lambda: news)
                proxy.target = node.port
                before = proxy.count
                proxy.cut()

                async def read() -> None:
                    got.append(await agent.read(NAME))

                with anyio.fail_after(20):
                    async with anyio.create_task_group() as group:
                        group.start_soon(read)
                        await until(lambda: proxy.count >= before + 3)
                        assert got == [] and agent.link.up is None
                        proxy.target = own.port
                    (tmp_path / "go").touch()
                    await until(ended(news, 1))
                assert got == [here] != [b"another-node\n"] and lost == []
            assert len(states) == 2 and "is cut" in states[0] and states[1] is None
    finally:
        node.stop()


async def test_the_right_node_comes_back(own, tmp_path):
    """While the right node is away its name leads to another one, whose address must not replace that of the right one."""
    need_nodes()
    node = Node(tmp_path / "node", own, "127.0.0.2")
    config = tmp_path / "config"
    text = f"Host login\n  HostName %s\n  HostKeyAlias 127.0.0.1\n  Port {own.port}\n"
    config.write_text(text % "127.0.0.1")
    try:
        options = own.options(config=[str(config)])
        async with connected(options, tmp_path, "login") as (agent, connection, *_):
            config.write_text(text % "127.0.0.2")
            refused, check = [], agent.link.check

            async def checked(live) -> None:
                try:
                    await check(live)
                except AgentError as exc:
                    refused.append(str(exc))
                    raise

            agent.link.check = checked
            own.stop()
            agent.link.cut()
            await until(lambda: refused)
            assert "but login led to another-node" in refused[0]
            own.start()
            with anyio.fail_after(15):
                assert (await connection.run(["uname", "-n"])).stdout != "another-node\n"
    finally:
        node.stop()


async def test_only_another_node_is_reached(own, tmp_path):
    """Who never gets to the right node is told so, when the patience is over."""
    need_nodes()
    node = Node(tmp_path / "node", own, "127.0.0.1")
    try:
        async with Proxy(own.port) as proxy:
            own.know(proxy.port)
            agent, lost = SSHAgent("127.0.0.1", own.options(proxy.port, link_patience=1.0)), []
            connection = AgentConnection(lambda _: None, lost.append)
            await agent.start(connection)
            hello = {"run": "r", "cap": None, "grace": 0.5, "on_eof": "stop", **agent.options}
            info = await connection.hello(records=f"{tmp_path}/records", **hello)
            assert (await connection.run(["true"])).code == 0  # it knows how patient it is to be
            proxy.target = node.port
            proxy.cut()
            with anyio.fail_after(20):
                with pytest.raises(AgentError, match=r"no link to .* for 1 s.*but 127.0.0.1 led to another-node"):
                    await connection.run(["true"])
                with pytest.raises(AgentError, match="but 127.0.0.1 led to another-node"):
                    await agent.read(NAME)
            assert len(lost) == 1
            await agent.close()
            await until(lambda: not alive(info["pid"]))
    finally:
        node.stop()


# -- where the agent's file may be


@pytest.mark.parametrize("fault", ["group", "others", "link", "owner", "file"])
async def test_a_cache_that_others_can_change(sshd, tmp_path, fault):
    """A program that somebody else may have put there is not run, and nothing is written for them."""
    cache, real = tmp_path / "cache", tmp_path / "real"
    real.mkdir(mode=0o700)
    if fault == "link":
        cache.symlink_to(real)
    elif fault == "file":
        cache.write_text("")
    else:
        cache.mkdir()
        cache.chmod({"group": 0o770, "others": 0o707, "owner": 0o700}[fault])
        os.chown(cache, 65534 if fault == "owner" else -1, -1)
    words = "File exists" if fault == "file" else "must be a directory of yours.*ssh.cache"
    for path in (f"{cache}", f"{cache}/"):
        with pytest.raises(AgentError, match=words):
            async with connected(sshd.options(cache=path), tmp_path):
                pass
    assert not list(real.iterdir()) and (fault in ("link", "file") or not list(cache.iterdir()))


@pytest.mark.parametrize("fault", ["link", "writable", "owner"])
async def test_an_agent_file_that_others_can_change(sshd, tmp_path, fault):
    """A right file that somebody may change later is replaced by one's own; what a link points to stays as it is."""
    name, data = package()
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    cache.mkdir(mode=0o700)
    path = cache / name
    (victim if fault == "link" else path).write_bytes(data)
    if fault == "link":
        path.symlink_to(victim)
    elif fault == "owner":
        os.chown(path, 65534, -1)
    else:
        path.chmod(0o666)
    options = sshd.options(cache=str(cache), python=oldest_python() if fault == "link" else None)
    async with connected(options, tmp_path) as (_, connection, *_):
        assert (await connection.run(["true"])).code == 0
    info = path.lstat()
    assert (path.is_symlink(), info.st_uid, info.st_mode & 0o777) == (False, os.geteuid(), 0o600)
    assert path.read_bytes() == data and (fault != "link" or victim.read_bytes() == data)
    assert not [left for left in cache.iterdir() if left.name.startswith(".")]


# -- whom it trusts


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with an empty .ssh, and a file in place of the system's."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sshlink, "SYSTEMS", [f"{tmp_path}/system"])
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("GlobalKnownHostsFile {other}", "{home}/.ssh/known_hosts"),
        ("UserKnownHostsFile {other}", "{system}"),
        ("UserKnownHostsFile none", "{system}"),
        ("UserKnownHostsFile ~/mine\n  GlobalKnownHostsFile {other}", "{home}/mine"),
        ("", "{home}/.ssh/known_hosts2"),
    ],
)
async def test_known_hosts_of_config_files(sshd, tmp_path, user, line, kept):
    """A config file that names one kind of known hosts leaves the other where it is, as with OpenSSH."""
    places = {"other": tmp_path / "other", "home": user, "system": tmp_path / "system"}
    config = tmp_path / "config"
    config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {sshd.port}\n  {line.format(**places)}\n")
    options = SSHOptions(config=[str(config)], identity_files=[f"{sshd.place}/id"])
    with pytest.raises(AgentError, match="its host key is not known"):
        async with connected(options, tmp_path, "far"):
            pass
    shutil.copy(sshd.known, kept.format(**places))
    async with connected(options, tmp_path, "far") as (_, connection, *_):
        assert (await connection.run(["true"])).code == 0


@pytest.mark.parametrize("line", ["GlobalKnownHostsFile /none", "UserKnownHostsFile ~/mine", "UserKnownHostsFile none"])
async def test_the_file_that_is_named_is_read(sshd, tmp_path, user, line):
    """Who does what the error says is let in."""
    config = tmp_path / "config"
    config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {sshd.port}\n  {line}\n")
    options = SSHOptions(config=[str(config)], identity_files=[f"{sshd.place}/id"])
    with pytest.raises(AgentError, match="add this line to") as caught:
        async with connected(options, tmp_path, "far"):
            pass
    first, _, key = str(caught.value).partition(":\n")
    Path(first.rpartition("add this line to ")[2]).expanduser().write_text(key + "\n")
    async with connected(options, tmp_path, "far"):
        pass
    nowhere = f"Host far\n  HostName 127.0.0.1\n  Port {sshd.port}\n  UserKnownHostsFile none\n"
    config.write_text(nowhere + "  GlobalKnownHostsFile none\n")
    with pytest.raises(AgentError, match=r"add this line to a file, and name that by ssh\.known_hosts:"):
        async with connected(options, tmp_path, "far"):
            pass
