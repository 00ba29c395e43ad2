"""An agent at the far end of an SSH connection: how it gets there, whom it trusts, what it carries."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asim.agent.protocol import ProcessSpec
from asim.errors import AgentError, FileActionError
from asim.transport import farshell, ssh, sshfiles, sshlink
from asim.transport.connection import AgentConnection
from asim.transport.local import AGENT
from asim.transport.options import SSHOptions
from asim.transport.ssh import SSHAgent
from asim.transport.sshlink import Link, target
from tests.contract.test_contracts import oldest_python
from tests.integration.conftest import alive, until
from tests.integration.ssh import Proxy, SSHServer, need_sshd
from tests.integration.ssh import sshd as sshd

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(options: SSHOptions, place: Path, host: str = "127.0.0.1", **hello: object):
    """An agent there, its connection and its news; nothing of it is left afterwards."""
    news, lost = [], []
    agent, connection = SSHAgent(host, options), AgentConnection(news.extend, lost.append)
    try:
        with anyio.fail_after(30):
            await agent.start(connection)
            hello = {"run": "r", "cap": None, "grace": 0.5, "on_eof": "stop", **hello}
            info = await connection.hello(records=f"{place}/records", **hello, **agent.options)
        yield agent, connection, news, lost
        with anyio.fail_after(30):
            await connection.bye()
            assert await agent.last_words() == ""
        await until(lambda: not alive(info["pid"]))
    finally:
        await agent.close()


def specs(place, count, argv=("/bin/true",), first=1):
    """Processes that write into one directory."""
    return [
        ProcessSpec(key=key, argv=argv, cwd=str(place), stdout=f"{place}/{key}.o", stderr=f"{place}/{key}.e")
        for key in range(first, first + count)
    ]


def ended(news, count):
    """Whether so many have ended."""
    return lambda: sum(row[1] == "end" for row in news) >= count


# -- how it gets there


@pytest.mark.parametrize("where", ["user@host", "[::1]:22", "user@[::1]", "a:7", "a@b@c", "::1", "h"])
def test_hosts(where):
    """A host may have a user and a port, and be an address of either kind."""
    expected = {
        "user@host": ("user", "host", None),
        "[::1]:22": (None, "::1", 22),
        "user@[::1]": ("user", "::1", None),
        "a:7": (None, "a", 7),
        "a@b@c": ("a@b", "c", None),
        "::1": (None, "::1", None),
        "h": (None, "h", None),
    }
    assert target(where) == expected[where]


async def test_the_agent_is_sent_once(sshd, tmp_path):
    """The second time the file is there; one that was damaged is replaced."""
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        path = Path(agent.far.agent)
        before = path.stat()
    async with connected(sshd.options(), tmp_path):
        assert path.stat().st_ino == before.st_ino
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    async with connected(sshd.options(), tmp_path) as (_, connection, *_):
        assert path.stat().st_ino != before.st_ino and (await connection.run(["true"])).code == 0


async def test_noise_of_start_up_files_is_skipped(tmp_path):
    """Start-up files that write, also what looks like an answer, and a slow one, confuse nothing."""
    need_sshd()
    server = SSHServer(tmp_path / "noisy", "Subsystem sftp /usr/lib/openssh/sftp-server")
    noise = "echo Welcome; echo; echo 'ASIM-LINK'; printf '\\0\\377%2000s'; echo oops >&2\n"
    for name in (".bashrc", ".profile", ".bash_profile"):
        (server.home / name).write_text(f"{noise}export NOISY{name.replace('.', '_')}=1\n")
    try:
        async with connected(server.options(), tmp_path) as (agent, connection, news, _):
            await connection.spawn(specs(tmp_path, 5))
            await until(ended(news, 5))
            assert await agent.put([(f"{server.place}/config", f"{tmp_path}/there")]) == 1
            assert await agent.get([(f"{tmp_path}/there", f"{tmp_path}/back")]) == 1
            environment = (await connection.run(["env"])).stdout
            assert "NOISY_bash_profile=1" in environment  # commands are found where a login finds them
    finally:
        server.stop()


async def test_the_oldest_python(sshd, tmp_path):
    """The daemon and the relay run on Python 3.6."""
    async with connected(sshd.options(python=oldest_python()), tmp_path) as (_, connection, news, _):
        await connection.spawn(specs(tmp_path, 20))
        await until(ended(news, 20))
        assert (await connection.run(["echo", "x"])).stdout == "x\n"


async def test_no_python(sshd, tmp_path):
    """An interpreter that is not there, or too old, is refused with what can be done."""
    for python in ("/no/such/python", "/bin/false"):
        with pytest.raises(AgentError, match=f"{python} is Python 3.6 or later; name one by ssh.python"):
            async with connected(sshd.options(python=python), tmp_path):
                pass


async def test_a_socket_path_may_be_long(sshd, tmp_path):
    """Where a socket cannot be made (its path is too long), it is made in /tmp."""
    cache = f"{tmp_path}/{'x' * 100}"
    async with connected(sshd.options(cache=cache), tmp_path) as (agent, connection, *_):
        assert agent._place == f"/tmp/asim-{os.getuid()}" and (await connection.run(["true"])).code == 0


async def test_the_sockets_directory_is_private(sshd, tmp_path):
    """Nobody else can reach an agent."""
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        assert Path(agent._place).stat().st_mode & 0o777 == 0o700


# -- whom it trusts


async def test_an_unknown_host_is_refused_with_the_line_to_add(sshd, tmp_path):
    """The words have the line for known_hosts, and with it the host is let in."""
    known = tmp_path / "known"
    known.write_text("")
    with pytest.raises(AgentError, match="its host key is not known") as caught:
        async with connected(sshd.options(known_hosts=[str(known)]), tmp_path):
            pass
    line = str(caught.value).splitlines()[-1]
    assert line.startswith(f"[127.0.0.1]:{sshd.port} ssh-ed25519 ")
    known.write_text(line + "\n")
    async with connected(sshd.options(known_hosts=[str(known)]), tmp_path):
        pass


async def test_no_known_hosts_is_no_trust(sshd, tmp_path):
    """A file that is missing makes nobody known, and neither does a config file that turns checking off."""
    config = tmp_path / "config"
    config.write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    for options in (
        sshd.options(known_hosts=[f"{tmp_path}/missing"]),
        sshd.options(known_hosts=None, config=[str(config)]),
    ):
        with pytest.raises(AgentError, match="its host key is not known"):
            async with connected(options, tmp_path):
                pass


async def test_a_changed_host_key_is_refused(sshd, tmp_path):
    """A host that shows another key than the one that is known is refused, whatever else it says."""
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{sshd.port} {(sshd.place / 'id.pub').read_text()}")
    with pytest.raises(AgentError, match=r"its host key has changed.*ssh-keygen -R '\[127.0.0.1\]:"):
        async with connected(sshd.options(known_hosts=[str(known)]), tmp_path):
            pass


async def test_a_wrong_key_is_told(sshd, tmp_path):
    """Who is not let in is told so."""
    with pytest.raises(AgentError, match="does not let .* in"):
        async with connected(sshd.options(identity_files=[str(sshd.place / "host")]), tmp_path):
            pass


@pytest.fixture
def ssh_agent(sshd, tmp_path_factory, monkeypatch):
    """An SSH agent that has the user's key."""
    path = tmp_path_factory.mktemp("agent") / "sock"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as child:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        while subprocess.run(["ssh-add", "-q", f"{sshd.place}/id"], capture_output=True, check=False).returncode:
            assert child.poll() is None
        yield
        child.terminate()


async def test_keys_of_an_ssh_agent(sshd, ssh_agent, tmp_path, monkeypatch):
    """Without a key of its own the local SSH agent's is used, and programs there have the agent only if that is asked for."""
    for forwarding, code in ((True, 0), (False, 2)):
        options = sshd.options(identity_files=None, agent_forwarding=forwarding)
        async with connected(options, tmp_path) as (_, connection, *_):
            assert (await connection.run(["ssh-add", "-l"])).code == code
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(AgentError, match="does not let .* in"):
        async with connected(sshd.options(identity_files=None), tmp_path):
            pass


async def test_nobody_there(tmp_path, free_tcp_port):
    """A port where nobody listens is an error in words."""
    with pytest.raises(AgentError, match="127.0.0.1 cannot be reached"):
        async with connected(SSHOptions(port=free_tcp_port, config=()), tmp_path):
            pass


async def test_a_server_that_says_nothing(tmp_path):
    """A port that accepts and is silent is given up after the time that is set."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = SSHOptions(port=server.getsockname()[1], config=(), connect_timeout=0.3)
        with pytest.raises(AgentError, match="127.0.0.1 did not answer within 0.3 s"):
            async with connected(options, tmp_path):
                pass


@pytest.mark.slow
async def test_config_files_and_jumps(sshd, tmp_path):
    """A name of the config file is resolved by it, also with a host to jump over."""
    config = tmp_path / "config"
    common = f"  HostName 127.0.0.1\n  Port {sshd.port}\n  IdentityFile {sshd.place}/id\n"
    common += f"  UserKnownHostsFile {sshd.known}\n"
    config.write_text(f"Host near\n{common}\nHost far\n{common}  ProxyJump near\n")
    for host, jump in (("near", None), ("far", None), ("near", "near")):
        options = SSHOptions(config=[str(config)], jump=jump)
        async with connected(options, tmp_path, host) as (_, connection, *_):
            assert (await connection.run(["true"])).code == 0


# -- what it carries


async def test_signals_reach_processes_of_root(sshd, tmp_path):
    """Stopping works whoever runs the agent (sshd itself refuses signals for root), and reaches whole groups."""
    async with connected(sshd.options(), tmp_path) as (_, connection, news, _):
        argv = ("/bin/sh", "-c", f"sleep 100 & echo $! > {tmp_path}/child; wait")
        await connection.spawn(specs(tmp_path, 1, argv))
        await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
        connection.stop([1], 5.0)
        await until(ended(news, 1))
        assert news[-1][3:5] == [-signal.SIGTERM, "stop"]
        assert not alive(int((tmp_path / "child").read_text()))


@pytest.mark.slow
async def test_thousands_of_processes_need_narrow(sshd, tmp_path):
    """Far more processes than MaxSessions, many of them at once, over one connection."""
    async with Proxy(sshd.port) as proxy:
        sshd.know(proxy.port)
        async with connected(sshd.options(proxy.port), tmp_path) as (_, connection, news, _):
            await connection.spawn(specs(tmp_path, 2000))
            await connection.spawn(specs(tmp_path, 100, ("/bin/sleep", "0.5"), first=2001))
            await until(ended(news, 2100), 40)
            assert sorted(row[0] for row in news if row[1] == "end" and row[3] == 0) == list(range(1, 2101))
        assert proxy.count == 1


async def test_detached_jobs_live_on(sshd, tmp_path):
    """What is kept at the end runs on without a link; the agent ends after it."""
    async with connected(sshd.options(), tmp_path) as (agent, connection, news, lost):
        script = f'[ "${{ASIM_JOB_ID##*.}}" = 1 ] || exec sleep 300; sleep 0.3; mkdir {tmp_path}/done'
        await connection.spawn(specs(tmp_path, 2, ("/bin/sh", "-c", script)))
        await until(lambda: sum(row[1] == "start" for row in news) == 2)
        await connection.bye([1])
        assert lost == [None]
        await agent.close()
        await until((tmp_path / "done").exists)
        await until(lambda: not any(alive(row[3]) for row in news if row[1] == "start"))


async def test_files_are_read(sshd, tmp_path):
    """Any bytes of a file there; nothing when it is not there."""
    (tmp_path / "it's").write_bytes(bytes(range(256)) * 1000)
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        assert await agent.read(f"{tmp_path}/it's") == bytes(range(256)) * 1000
        assert await agent.read(f"{tmp_path}/no") == b""
        async with anyio.create_task_group() as group:  # far more at once than the server has sessions
            for _ in range(30):
                group.start_soon(agent.read, f"{tmp_path}/no")


@pytest.mark.slow
async def test_files_are_put_and_got(sshd, tmp_path):
    """Many small ones and a large one, there and back; only what differs is carried, and modes survive."""
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    here.mkdir()
    names = [f"f {number}'" for number in range(30)] + ["big"]
    for name in names:
        (here / name).write_bytes(os.urandom((9 << 20) + 7 if name == "big" else 100))
    (here / "big").chmod(0o750)
    puts = [(f"{here}/{name}", f"{there}/a/b/{name}") for name in names]
    gets = [(f"{there}/a/b/{name}", f"{back}/{name}") for name in names]
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        assert await agent.put(puts) == 31 and await agent.put(puts) == 0
        assert sorted(path.name for path in (there / "a/b").iterdir()) == sorted(names)
        (here / "f 3'").write_text("new")
        assert await agent.put(puts) == 1
        assert await agent.get(gets) == 31 and await agent.get(gets) == 0
        (there / "a/b/big").write_bytes(b"")
        assert await agent.get(gets) == 1 and (back / "big").read_bytes() == b""
        assert await agent.put(puts) == 1
    for name in names:
        assert (there / "a/b" / name).read_bytes() == (here / name).read_bytes()
    assert (there / "a/b/big").stat().st_mode & 0o777 == 0o750
    assert not list(there.rglob(".*"))


async def test_files_go_through_the_subsystem_where_that_is_all(sshd, tmp_path, monkeypatch):
    """A server whose SFTP is inside it has no program to run; files are copied all the same."""
    monkeypatch.setattr(farshell, "SFTP", farshell.SFTP.replace("sftp-server", "no-such-server"))
    (tmp_path / "a").write_text("x")
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        assert await agent.put([(f"{tmp_path}/a", f"{tmp_path}/b")]) == 1
    assert (tmp_path / "b").read_text() == "x"


@pytest.mark.slow
async def test_files_that_change_and_copies_at_once(sshd, tmp_path):
    """A file that changes without another size or time is noticed; several drivers may send the same one."""
    here, there = tmp_path / "here", tmp_path / "there"
    pairs = [(str(here), str(there))]
    async with (
        connected(sshd.options(), tmp_path) as (one, *_),
        connected(sshd.options(), tmp_path) as (two, *_),
    ):
        for number in range(4):
            here.write_bytes(bytes([number]) * (5 << 20))
            os.utime(here, (1e9, 1e9))
            async with anyio.create_task_group() as group:
                for agent in (one, one, two, two):
                    group.start_soon(agent.put, pairs)
            assert there.read_bytes() == here.read_bytes()
        before = there.stat()
        with there.open("r+b") as file:
            file.write(b"x")
        os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert await one.put(pairs) == 1 and there.read_bytes() == here.read_bytes()


@pytest.mark.slow
async def test_hashing_there_has_a_deadline(sshd, tmp_path, monkeypatch):
    """A far side that hangs is told, not waited for; one that is slow, and says so, is waited for."""
    hang, slow, pair = tmp_path / "hang", tmp_path / "slow", [(f"{tmp_path}/hang", f"{tmp_path}/there")]
    hang.write_text("#!/bin/sh\nexec sleep 10\n")
    slow.write_text('#!/bin/sh\nfor i in 1 2 3 4 5; do sleep 0.5; echo; done\nexec python3 "$@"\n')
    for program in (hang, slow):
        program.chmod(0o755)
    monkeypatch.setattr(sshfiles, "SLOW", 2.0)
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        far = agent.far
        with anyio.fail_after(30):
            agent._far = replace(far, python=str(hang))
            with pytest.raises(AgentError, match="said nothing for 2 s"):
                await agent.put(pair)
            agent._far = replace(far, python=str(slow))
            assert await agent.put(pair) == 1


def test_hashing_says_that_it_works(tmp_path):
    """Without a word a large file would look like a far side that hangs; the answer comes after all such words."""
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    code = (
        f"import sys; sys.path.insert(0, {str(AGENT)!r}); import digests; digests.ALIVE = 0; digests.main(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{tmp_path}/m"],
        input=f'["{tmp_path}/a"]',
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines.count("ASIM-LINK working") >= 3 and lines[-1].startswith("ASIM-LINK digests [[3145728, ")


@pytest.fixture
def narrow(tmp_path):
    """A server that lets a connection have one channel at a time."""
    need_sshd()
    server = SSHServer(tmp_path / "narrow", "MaxSessions 1")
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("freed", [True, False])
async def test_a_channel_to_the_agent_that_is_refused(narrow, tmp_path, monkeypatch, freed):
    """A server without a channel to spare is asked again for a while: what was begun is not given up at once, nor never."""
    serve, was_cut, taken, refused = ssh.serve, sshlink.was_cut, [], []

    async def and_take_the_only_one(live, far, token):
        place = await serve(live, far, token)
        taken.append(await sshlink.opened(live, lambda: live.create_process("cat")))
        refused.clear()
        return place

    async def counted(connection):
        refused.append(connection)
        if freed and taken and len(refused) == 3:
            taken[0].stdin.write_eof()
        return await was_cut(connection)

    monkeypatch.setattr(ssh, "serve", and_take_the_only_one)
    monkeypatch.setattr(sshlink, "was_cut", counted)
    monkeypatch.setattr(sshlink, "BUSY", 20.0 if freed else 0.5)
    if freed:
        async with connected(narrow.options(), tmp_path) as (_, connection, news, _):
            await connection.spawn(specs(tmp_path, 1))
            await until(ended(news, 1))
    else:
        with pytest.raises(AgentError, match="no channel to the agent"):
            async with connected(narrow.options(), tmp_path):
                pass
    assert len(refused) >= 3


async def test_files_that_cannot_be_copied(sshd, tmp_path):
    """What is missing or cannot be written is an error with its path."""
    (tmp_path / "file").write_text("x")
    async with connected(sshd.options(), tmp_path) as (agent, *_):
        with pytest.raises(FileActionError, match="No such file.*missing"):
            await agent.put([(f"{tmp_path}/missing", f"{tmp_path}/x")])
        with pytest.raises(FileActionError, match="no such file.*missing"):
            await agent.get([(f"{tmp_path}/missing", f"{tmp_path}/x")])
        with pytest.raises(FileActionError, match="file/x"):
            await agent.put([(f"{tmp_path}/file", f"{tmp_path}/file/x")])
        assert await agent.put([]) == 0 and await agent.get([]) == 0


async def test_ports_and_sockets_are_forwarded(sshd, tmp_path):
    """A port here leads to a port or a Unix socket there, both ways, also for many connections at once."""

    live = set()

    async def echo(reader, writer):
        live.add(writer)
        while data := await reader.read(1 << 16):
            writer.write(data.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        live.discard(writer)

    tcp = await asyncio.start_server(echo, "127.0.0.1", 0)
    unix = await asyncio.start_unix_server(echo, tmp_path / "sock")
    try:
        async with connected(sshd.options(), tmp_path) as (agent, *_):
            far = tcp.sockets[0].getsockname()[1]
            ports = [await agent.forward("127.0.0.1", far), await agent.forward_path(str(tmp_path / "sock"))]
            assert await agent.forward("127.0.0.1", far) == ports[0]

            async def talk(port, text):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(text)
                writer.write_eof()
                assert await reader.read() == text.upper()
                writer.close()

            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    for number in range(20):
                        group.start_soon(talk, ports[number % 2], b"text %d " % number * 5000)
            reader, writer = await agent.open_connection("127.0.0.1", far)
            writer.write(b"x")
            assert await reader.read(1) == b"X"
            writer.close()
            with pytest.raises(AgentError, match="no connection from 127.0.0.1 to 127.0.0.1:1"):
                await agent.open_connection("127.0.0.1", 1)
            await until(lambda: not live)
    finally:
        tcp.close()
        unix.close()


def test_the_agent_is_the_same_file_every_time():
    """The name is that of the contents, and every module of the program is in it."""
    import io
    import zipfile

    from asim.transport.package import AGENT, package

    name, data = package()
    package.cache_clear()
    assert package() == (name, data)
    listed = set(zipfile.ZipFile(io.BytesIO(data)).namelist())
    assert listed == {path.name for path in AGENT.glob("*.py")} - {"__init__.py", "protocol.py"}


@pytest.mark.parametrize(("config", "port"), [(None, 2999), ((), 22)])
def test_the_usual_config_file(config, port, tmp_path, monkeypatch):
    """Without other words ~/.ssh/config is read, as every SSH program does; with none, it is not."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"Host far\n  HostName 127.0.0.1\n  Port {2999}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Link("far", SSHOptions(config=config), None)._prepare("far", None, True)[0].port == port
