"""Experiments on another host, over a real sshd."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import anyio
import pytest

from asim import ConfigError, Experiment, MissingFileError
from asim.errors import FileActionError
from asim.launching import far_host
from asim.status import JobState
from asim.transport.connection import AgentConnection
from asim.transport.far import directory_of
from asim.transport.local import LocalAgent
from asim.transport.package import package
from asim.transport.ssh import SSHAgent
from tests.integration.conftest import alive, until
from tests.integration.ssh import SSHServer, need_sshd
from tests.integration.ssh import sshd as sshd
from tests.servers import until as wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def far(sshd: SSHServer, name: str, **ssh: object) -> Experiment:
    """One on that host, in a directory of this test's own."""
    place = Path.cwd() / "far" / name
    return Experiment(name, exp_path=place, host="127.0.0.1", ssh=sshd.options(**ssh), stop_grace=1)


def start_daemon(place: Path, more: bytes = b"") -> tuple[int, Path]:
    """A daemon of the agent, with ``more`` at the end of its module link; its process and its log."""
    _, data = package()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(place / "agent.pyz", "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name) + (more if name == "link.py" else b""))
    command = [sys.executable, "-I", str(place / "agent.pyz"), "serve", str(place), "t"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return int((place / "t.pid").read_text()), place / "t.log"


def cpu_of(pid: int) -> int:
    """Nanoseconds that a process has run; -1: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    except OSError:
        return -1


def running(mark: str) -> list[int]:
    """Processes that have this text in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_caller_that_is_cut_at_once(tmp_path):
    """A link that is cut while it is taken up again must not be the end of the agent, and of all that it looks after."""
    pid, _ = await anyio.to_thread.run_sync(start_daemon, tmp_path)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "t.sock"))
    writer.write(bytes(8))
    with anyio.fail_after(10):
        assert await reader.readexactly(8) == bytes(8)
    descriptors = Path(f"/proc/{pid}/fd")
    count = len(os.listdir(descriptors)) - 1
    writer.close()
    for _ in range(3):
        await until(lambda: len(os.listdir(descriptors)) == count)
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "t.sock"))
        writer.write(bytes(8))
        writer.close()
        await writer.wait_closed()
        spent = cpu_of(pid)
        os.kill(pid, signal.SIGCONT)
        await until(lambda before=spent: cpu_of(pid) != before)  # it has looked at it
        with anyio.move_on_after(0.2):
            await until(lambda: not alive(pid))
        assert alive(pid)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "t.sock"))
    writer.write(bytes(8))
    with anyio.fail_after(10):
        assert await reader.readexactly(8) == bytes(8)
    writer.close()
    os.kill(pid, signal.SIGKILL)


def test_what_a_daemon_died_of_is_in_its_log(tmp_path):
    """The reason is written before a log that is empty is removed; else nobody could ever tell why an agent died."""
    pid, log = start_daemon(tmp_path, b"\nLink.accept = lambda self: 1 / 0\n")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / "t.sock"))
        wait_until(lambda: not alive(pid), 10, "the end of the daemon")
    assert "ZeroDivisionError" in log.read_text()
    assert not (tmp_path / "t.sock").exists()


async def test_names_that_are_no_utf8_are_fetched(sshd, home):
    """An output file with any bytes in its name comes back, and does not keep what still runs from being stopped."""
    async with far(sshd, "bytes", fetch=["*.dat"]) as exp:
        line = "printf x > \"$(printf 'b\\351.dat')\"; echo y > ok.dat"
        first = exp.create_model("first", exp.create_run_settings("sh", ["-c", line]))
        second = exp.create_model("second", exp.create_run_settings("sleep", ["317.1"]))
        group = await exp.start(first, second, block=False)
        with anyio.fail_after(20):
            await group[0]
    names = {os.fsencode(path.name): path.read_bytes() for path in (home / "bytes").iterdir()}
    assert names == {b"b\xe9.dat": b"x", b"ok.dat": b"y\n"}
    assert group[1].status is JobState.CANCELLED
    assert not running("317.1")


async def test_what_cannot_be_fetched_is_in_nobodys_way(sshd, home, monkeypatch):
    """Whatever goes wrong while output is fetched, jobs are stopped all the same; one bad file does not keep others away."""
    (home / "bad/m0.out").mkdir(parents=True)
    async with far(sshd, "bad") as exp:
        models = [exp.create_model(f"m{n}", exp.create_run_settings("echo", [str(n)])) for n in range(12)]
        await exp.start(*models)
        with pytest.raises(FileActionError, match="Is a directory"):
            await exp.fetch()
        assert all((home / f"bad/m{n}.out").read_text() == f"{n}\n" for n in range(1, 12))

        async def broken(*_: object) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(exp._launching.far, "fetch", broken)
        group = await exp.start(exp.create_model("s", exp.create_run_settings("sleep", ["317.2"])), block=False)
    assert group[0].status is JobState.CANCELLED
    assert not running("317.2")


async def test_output_of_what_is_stopped_at_the_end(sshd, home):
    """Jobs that run until the experiment ends have written something, too; it is fetched when they have ended."""
    async with far(sshd, "late") as exp:
        line = "trap 'echo last; exit' TERM; echo first; while :; do sleep 0.05; done"
        model = exp.create_model("m", exp.create_run_settings("sh", ["-c", line]))
        await exp.start(model, block=False)
        with anyio.fail_after(20):
            assert await anext(exp.follow(model)) == "first"
    assert (home / "late/m.out").read_text() == "first\nlast\n"


async def test_follow_goes_through_attempts(home):
    """The output of a second attempt is in a new file; it is followed, too. An ensemble cannot be followed."""
    async with Experiment("again") as exp:
        line = "if [ -e once ]; then echo B; else touch once; echo AAAAAAAA; exit 1; fi"
        model = exp.create_model("m", exp.create_run_settings("sh", ["-c", line]), retries=1)
        await exp.start(model, block=False)
        with anyio.fail_after(20):
            assert [text async for text in exp.follow(model)][-1] == "B"
        ensemble = exp.create_ensemble("e", replicas=2, run_settings=exp.create_run_settings("true"))
        await exp.start(ensemble)
        with pytest.raises(ConfigError, match="entity = 'e': must be one model"):
            await anext(exp.follow(ensemble))


async def test_a_database_is_looked_for_before_anything_was_started(sshd, home):
    """A checkpoint on the far host can be the first thing that an experiment asks for."""
    async with far(sshd, "checkpoint") as exp:
        with anyio.fail_after(20), pytest.raises(MissingFileError, match=r"checkpoint = '/.*/checkpoint/no\.json'"):
            await exp.reconnect_orchestrator("no.json")


async def test_attached_directories_are_sent_as_they_are(sshd, home):
    """Empty directories and linked ones arrive; a file that is no longer there is not in a later copy."""
    source = home / "src/deep"
    (source / "empty").mkdir(parents=True)
    (source / "a").write_text("A")
    (home / "linked").mkdir()
    (home / "linked/b").write_text("B")
    (source / "link").symlink_to(home / "linked")
    found = []
    async with far(sshd, "attached") as exp:
        for name in ("one", "two"):
            model = exp.create_model(name, exp.create_run_settings("sh", ["-c", "cd deep && find . | sort | xargs"]))
            model.attach_generator_files(to_copy=[str(home / "src")])
            group = await exp.start(model)
            found += [text async for text in exp.follow(model)]
            assert group[0].status is JobState.COMPLETED
            (source / "a").unlink(missing_ok=True)
        os.mkfifo(source / "pipe")
        model = exp.create_model("three", exp.create_run_settings("true"))
        model.attach_generator_files(to_copy=[str(home / "src")])
        with anyio.fail_after(10), pytest.raises(FileActionError, match="not a file or directory"):
            await exp.start(model)
    assert found == [". ./a ./empty ./link ./link/b", ". ./empty ./link ./link/b"]


async def test_odd_bytes_in_the_directory(sshd, home):
    """Quotes, blanks, a dollar, a percent sign and a newline in exp_path are nothing to a shell or a format."""
    place = f"{sshd.home}/odd 'q\" $HOME %d\n-é"
    async with Experiment("odd", exp_path=place, host="127.0.0.1", ssh=sshd.options()) as exp:
        model = exp.create_model("m", exp.create_run_settings("pwd"))
        group = await exp.start(model)
    assert group[0].status is JobState.COMPLETED
    assert (home / "odd/m.out").read_text() == f"{place}\n"


@pytest.mark.parametrize("given", ["~/..", "~/../x", "x", "~user/x", ""])
def test_directories_that_cannot_be_there(given):
    """What leads out of the home by ``..`` would be a relative path in the end."""
    with pytest.raises(ConfigError, match="exp_path"):
        directory_of("n", given)


async def test_a_home_with_a_blank(tmp_path, home):
    """All of it is the home, not its last word."""
    need_sshd()
    server = await anyio.to_thread.run_sync(SSHServer, tmp_path / "sshd")
    try:
        (server.home / "a  b").mkdir()
        config = (tmp_path / "sshd/config").read_text()
        assert f"SetEnv HOME={server.home} " in config
        (tmp_path / "sshd/config").write_text(
            config.replace(f"SetEnv HOME={server.home} ", f'SetEnv "HOME={server.home}/a  b" ')
        )
        await anyio.to_thread.run_sync(server.restart)
        async with Experiment("n", host="127.0.0.1", ssh=server.options()) as exp:
            assert exp.exp_path == f"{server.home}/a  b/n"
    finally:
        await anyio.to_thread.run_sync(server.stop)


def test_one_name_may_be_several_hosts(sshd):
    """Two ports of 127.0.0.1 may lead to two clusters; one of them must not be asked about the other's jobs."""
    places = {far_host("n", None, "127.0.0.1", sshd.options(port)).where for port in (2201, 2202, 2201)}
    assert len(places) == 2


def test_a_plugin_with_a_host(sshd, monkeypatch):
    """A launcher of another package would run jobs here, whatever host was given."""
    from asim.launchers import registry
    from asim.testing.fakes import FakeLauncher

    monkeypatch.setattr(registry, "plugins", lambda: {"mine": FakeLauncher})
    with pytest.raises(ConfigError, match="host = 'h': the launcher 'mine' says itself"):
        Experiment("n", launcher="mine", host="h")


async def test_a_lost_agents_link_is_closed(sshd, home):
    """When an agent has died another one takes its place, and nothing of the connection to the first is left."""
    async with far(sshd, "lost") as exp:
        group = await exp.start(exp.create_model("s", exp.create_run_settings("sleep", ["317.3"])), block=False)
        host = exp._launching.far
        assert host is not None
        agent = host._agent
        assert agent is not None
        with anyio.fail_after(20):
            while group[0].status is not JobState.RUNNING:
                await anyio.sleep(0.01)
        pid = int(await anyio.Path(f"{agent._place}/{agent.token}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(20):
            await group[0]
        assert group[0].status is JobState.LOST
        await until(lambda: agent.link.up is None)
        again = await exp.start(exp.create_model("t", exp.create_run_settings("true")))
        assert again[0].status is JobState.COMPLETED
    assert not running("317.3")


async def test_forwards_that_are_opened_at_once(sshd, tmp_path):
    """Many who ask for one port at once get one, and it is closed at the end."""
    agent = SSHAgent("127.0.0.1", sshd.options())
    ports: list[int] = []

    async def ask() -> None:
        ports.append(await agent.forward("127.0.0.1", sshd.port))

    try:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        assert len(set(ports)) == 1
    finally:
        await agent.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", ports[0])


async def test_lasting_commands_are_in_nobodys_way(home):
    """Commands that hold agents of many nodes last as long as these; others need not wait until they end."""
    agent, lost = LocalAgent(sys.executable, os.environ), []
    connection = AgentConnection(lambda _: None, lost.append)
    await agent.start(connection)
    records = str(home / "records")
    await connection.hello(run="r", cap=None, grace=0.5, on_eof="stop", records=records, **agent.options)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(lambda: connection.run(("sleep", "317.4"), timeout=1e9, lasting=True))
            await until(lambda: len(running("317.4")) == 20)
            assert (await connection.run(("true",))).code == 0
            group.cancel_scope.cancel()
        await connection.bye()
    await agent.last_words()
    await until(lambda: not running("317.4"))


async def test_who_may_read_and_write_what_is_copied(sshd, home):
    """A file that only its owner may read stays so, there and here; one that nobody may write can be sent, too."""
    for name, mode in (("private", 0o600), ("fixed", 0o444), ("open", 0o644)):
        (home / name).write_text(name)
        (home / name).chmod(mode)
    async with far(sshd, "modes", fetch=["private", "fixed", "open"]) as exp:
        model = exp.create_model("m", exp.create_run_settings("stat", ["-c", "%a", "fixed", "open", "private"]))
        model.attach_generator_files(to_copy=[str(home / name) for name in ("private", "fixed", "open")])
        await exp.start(model)
        assert [text async for text in exp.follow(model)] == ["444", "644", "600"]
    here = home / "modes/m"
    assert (here / "private").stat().st_mode & 0o777 == 0o600
    assert (here / "open").read_text() == "open"
