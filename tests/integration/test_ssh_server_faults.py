"""Faults that a real sshd cannot be made to show: servers that refuse, babble, stall, fail, or are not who they were."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import asyncssh
import pytest

from asim import Experiment
from asim.errors import AgentError, FileActionError
from asim.status import JobState
from asim.transport import farshell, ssh, sshlink
from asim.transport.connection import AgentConnection
from asim.transport.ssh import SSHAgent
from tests.integration.conftest import PLAIN, alive, until
from tests.integration.ssh_server import FaultyServer
from tests.integration.test_far import running
from tests.integration.test_ssh import connected, ended, specs
from tests.integration.test_ssh_faults import ONCE, each_once

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MEG = 1 << 20


@pytest.fixture
def anyio_backend() -> object:
    """Plain asyncio: programs that uvloop starts leave its ends of their pipes to their daemons, which no sshd's do."""
    return PLAIN.values[0]


@pytest.fixture
async def server(tmp_path):
    """A server that does as it should, until a test has it do otherwise."""
    async with FaultyServer(tmp_path / "server") as server:
        yield server
    for pid in running(f"{server.home}/.cache"):  # agents to which nobody came, who would wait a minute for it
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def impatient(monkeypatch):
    """A channel that is refused is not asked for again for long."""
    monkeypatch.setattr(sshlink, "BUSY", 0.2)


def far(server: FaultyServer, name: str, **options: Any) -> Experiment:
    """One on that host, in a directory of this test's own."""
    place = Path.cwd() / "far" / name
    return Experiment(name, exp_path=place, host="127.0.0.1", ssh=server.options(**options), stop_grace=1)


async def refused(server: FaultyServer, place: Path, words: str) -> str:
    """That it cannot be connected to for this reason; all that is said of it."""
    with anyio.fail_after(30), pytest.raises(AgentError, match=words) as caught:
        async with connected(server.options(), place):
            pass
    return str(caught.value)


# -- nothing is wrong


async def test_a_whole_experiment(server, home):
    """The server is good for all that is asked of it; else the faults below would show nothing."""
    (home / "in.txt").write_text("T = ;T;\n")
    async with far(server, "plain") as exp:
        settings = exp.create_run_settings("sh", ["-c", "cat in.txt"])
        ensemble = exp.create_ensemble("e", params={"T": ["1", "2", "3"]}, run_settings=settings)
        ensemble.attach_generator_files(to_configure=[str(home / "in.txt")])
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
        assert [job.status for job in group] == [JobState.COMPLETED] * 3
    outputs = [(home / f"plain/e/e_{n}/e_{n}.out").read_text() for n in range(3)]
    assert outputs == ["T = 1\n", "T = 2\n", "T = 3\n"] and server.logins == 1


# -- files


async def test_no_way_to_send_files(server, home, impatient):
    """A server without SFTP says so when files must be sent; jobs that need none run all the same."""
    server.has_sftp = False
    (home / "data").write_text("x")
    async with far(server, "bare") as exp:
        plain = exp.create_model("plain", exp.create_run_settings("true"))
        fed = exp.create_model("fed", exp.create_run_settings("true"))
        fed.attach_generator_files(to_copy=[str(home / "data")])
        with anyio.fail_after(30):
            with pytest.raises(AgentError, match="no file transfer there"):
                await exp.start(fed)
            assert (await exp.start(plain))[0].status is JobState.COMPLETED
            with pytest.raises(AgentError, match="no file transfer there"):
                await exp.fetch(plain)


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("write", OSError(errno.ENOSPC, "No space left on device"), "No space left on device.*there"),
        ("write", PermissionError(errno.EACCES, "Permission denied"), "(?i)permission denied.*there"),
        ("rename", asyncssh.SFTPOpUnsupported("no renaming here"), "no renaming here.*there"),
    ],
    ids=["full", "denied", "rename"],
)
async def test_a_write_that_fails_in_the_middle(server, tmp_path, what, error, words):
    """A file is whole or as it was before, whatever fails; when it fails no longer, it arrives."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(os.urandom(2 * MEG))
    there.write_text("old")
    written = []

    def fail(doing: str, offset: int) -> None:
        written.append(offset)
        if doing == what and (doing == "rename" or offset >= MEG):
            raise error

    async with connected(server.options(), tmp_path) as (agent, *_):
        server.on_file = fail
        with anyio.fail_after(30), pytest.raises(FileActionError, match=words):
            await agent.put([(str(here), str(there))])
        assert there.read_text() == "old" and 0 in written
        server.on_file = lambda *_: None
        with anyio.fail_after(30):
            assert await agent.put([(str(here), str(there))]) == 1
    assert there.read_bytes() == here.read_bytes() and server.logins == 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("what", ["write", "rename", "renamed", "read"])
async def test_a_connection_that_is_dropped_in_a_transfer(server, tmp_path, what):
    """The transfer goes on where it was; under its final name there is never half a file, and at the end the whole."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(os.urandom(6 * MEG))
    carried, halves = [], []

    def drop(doing: str, offset: int) -> None:
        carried.append((doing, offset))
        halves.extend(path.stat().st_size for path in [there] if path.exists() and path.stat().st_size != 6 * MEG)
        if doing == what and (doing.startswith("rename") or offset >= 5 * MEG):
            server.on_file = lambda *did: carried.append(did)
            server.cut()
            raise ConnectionError("dropped")

    async with connected(server.options(), tmp_path) as (agent, *_):
        copy = agent.get if what == "read" else agent.put
        server.on_file = drop
        with anyio.fail_after(30):
            assert await copy([(str(here), str(there))]) == 1
    assert there.read_bytes() == here.read_bytes() and server.logins == 2 and halves == []
    assert not list(tmp_path.glob(".*"))
    again = what == "renamed"  # all is there already, but nobody knows
    assert carried.count(("read" if what == "read" else "write", 0)) == 1 + again


async def test_an_sftp_server_that_ends(server, tmp_path):
    """One that dies while the connection lives is an error in words, not a transfer that is tried for ever."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(os.urandom(2 * MEG))

    async with connected(server.options(), tmp_path) as (agent, connection, *_):

        def end(doing: str, offset: int) -> None:
            for channel in list(next(iter(server.connections))._channels.values()):
                if channel.get_subsystem() == "sftp":
                    channel.abort()
            raise ConnectionError("it has ended")

        server.on_file = end
        with anyio.fail_after(30), pytest.raises(AgentError, match="the file transfer was ended by the other side"):
            await agent.put([(str(here), str(there))])
        assert not there.exists() and (await connection.run(["echo", "x"])).stdout == "x\n"
    assert server.logins == 1


# -- commands


async def test_commands_that_are_refused(server, tmp_path, impatient):
    """A server that runs nothing, or not the agent, says so in the end."""
    server.refuses = lambda _: True
    await refused(server, tmp_path, "a command could not be run there")
    server.refuses = lambda command: " attach " in command
    await refused(server, tmp_path, "127.0.0.1: no channel to the agent")


async def test_commands_that_never_answer(server, tmp_path, monkeypatch):
    """Silence has an end."""
    server.rewrite = lambda _: "exec sleep 60"
    with monkeypatch.context() as patch:
        patch.setattr(farshell.shell, "__defaults__", (1.0,))
        await refused(server, tmp_path, "did not end in 1 s")
    monkeypatch.setattr(ssh, "SLOW", 1.0)
    server.rewrite = lambda command: "exec sleep 60 # attach " if " attach " in command else command
    await refused(server, tmp_path, "127.0.0.1 did not answer within 1 s")


GARBAGE = [
    ("/bin/sh", "exec yes garbage", "more than 1048576 bytes came before the far side's answer"),
    ("/bin/sh", "exec yes garbage >&2", "more than 1048576 bytes came before the far side's answer"),
    ("/bin/sh", "echo This account is closed. >&2; exit 254", r"\(exit code 254\): This account is closed"),
    ("/bin/sh", "printf '\\nASIM-LINK here {half'", "did not answer as expected: {half"),
    ("/bin/sh", "printf '\\nASIM-LINK here []\\n'", r"did not answer as expected: \[\]"),
    (" attach ", "exec yes garbage", "more than 1048576 bytes came before the agent's answer"),
    (" attach ", "echo This account is closed. >&2; exit 254", "was closed: This account is closed"),
    (" attach ", "printf '\\nASIM-LINK up here many\\n'", "did not answer as expected: up here many"),
    (" attach ", "printf '\\nASIM-LINK \\n'", "did not answer as expected"),
    (" attach ", "printf '\\nASIM-LINK gone elsewhere x\\n'", "127.0.0.1 led to elsewhere"),
]


@pytest.mark.parametrize("case", range(len(GARBAGE)))
async def test_garbage_for_an_answer(server, tmp_path, case):
    """Whatever comes instead of an answer is an error in words, at once, and is not collected for ever."""
    point, answer, words = GARBAGE[case]
    server.rewrite = lambda command: f"{answer} # attach " if point in command else command
    await refused(server, tmp_path, words)


async def test_noise_within_the_agents_stream(server, tmp_path):
    """Bytes that are not the agent's end the connection with words; nothing is guessed."""
    server.rewrite = lambda command: (
        f"({command[5:]}) | (head -c 40; echo; echo oops, this is no frame at all; cat)"
        if " attach " in command
        else command
    )
    with anyio.fail_after(30), pytest.raises(AgentError):
        async with connected(server.options(link_patience=2.0), tmp_path):
            pass


async def test_words_of_a_server_that_lets_nobody_in(server, tmp_path):
    """What the server says before it refuses (maintenance, too many attempts) is told."""
    server.dismissal = "Too many authentication failures"
    assert "Too many authentication failures" in await refused(server, tmp_path, "127.0.0.1 cannot be reached")
    server.said = "Maintenance until 18:00.\nCall 4711.\n"
    said = await refused(server, tmp_path, "127.0.0.1 cannot be reached")
    assert "Too many authentication failures" in said and "Maintenance until 18:00.\nCall 4711." in said
    server.dismissal = ""
    server.new_key("id")  # not the one that lets people in
    said = await refused(server, tmp_path, "does not let .* in")
    assert "Maintenance until 18:00" in said and server.logins == 0


# -- the link


@pytest.mark.parametrize("count", [1, 13])
async def test_cut_while_it_connects(server, tmp_path, count):
    """A connection that is dropped before the agent has answered is an error in words; the next attempt is a new one."""
    server.cuts["out"] = count
    await refused(server, tmp_path, "the channel to the agent was closed: .*[Cc]onnection")
    async with connected(server.options(), tmp_path) as (_, connection, *_):
        assert (await connection.run(["echo", "x"])).stdout == "x\n"
    assert server.logins == 2


@pytest.mark.parametrize("way", ["in", "out"])
async def test_cut_in_the_middle_of_a_submit(server, home, way):
    """Wherever in the agent's stream the connection is dropped, every member is started once, and all ends are seen."""
    cuts = [1, 3, 40, 500, 3000, 9000] if way == "in" else [1, 3, 40, 200, 700, 1500]
    async with far(server, "cut") as exp:
        await exp.start(exp.create_model("first", exp.create_run_settings("true")))  # it connects
        for number, count in enumerate(cuts):
            script = f"echo m%d >> {home}/names{number}; echo {'x' * 200}"
            members = [
                exp.create_model(f"r{number}m{n}", exp.create_run_settings("sh", ["-c", script % n])) for n in range(30)
            ]
            server.cuts[way] = count
            with anyio.fail_after(30):
                group = await exp.start(*members)
            assert [job.status for job in group] == [JobState.COMPLETED] * 30 and server.cuts == {}
            assert sorted((home / f"names{number}").read_text().split()) == sorted(f"m{n}" for n in range(30))
    assert server.logins == 1 + len(cuts)
    assert len(list((home / "cut").rglob("*.out"))) == 30 * len(cuts) + 1


async def test_a_server_that_stops_reading_for_a_while(server, tmp_path):
    """What it does not take waits where it comes from, not in the link's memory; when it reads again, all arrives."""
    files = [("write", f"{tmp_path}/w{n}", f"{n}" * MEG) for n in range(20)]
    async with connected(server.options(), tmp_path) as (agent, connection, news, _):
        stream = agent._stream
        server.reads.clear()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(connection.files, files)
                await until(lambda: stream._paused)
                group.start_soon(connection.spawn, specs(tmp_path, 300, ONCE))
                assert (await connection_answers(connection, 0.3)) is False
                assert len(stream._kept) < 6 * MEG  # of 30 and more
                server.reads.set()
        await until(ended(news, 300), 30)
        each_once(tmp_path, news, 300)
    assert [(tmp_path / f"w{n}").read_text() == f"{n}" * MEG for n in range(20)] == [True] * 20
    assert server.logins == 1


async def connection_answers(connection: AgentConnection, seconds: float) -> bool:
    """Whether a command is run within that time."""
    with anyio.move_on_after(seconds):
        await connection.run(["true"])
        return True
    return False


async def test_an_attachment_that_is_never_answered(server, tmp_path, monkeypatch):
    """While a new link is tried again and again, no channel is left behind; when the agent answers, all goes on."""
    tried = []

    def silent(command: str) -> str:
        if " attach " not in command:
            return command
        tried.append(max(len(one._channels) for one in server.connections))
        return "exec sleep 60"

    async with connected(server.options(), tmp_path) as (_, connection, news, _):
        await connection.spawn(
            specs(tmp_path, 1, ("/bin/sh", "-c", f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"))
        )
        with monkeypatch.context() as patch:
            patch.setattr(ssh, "SLOW", 0.1)
            server.rewrite = silent
            server.cut()
            await until(lambda: len(tried) >= 4, 20)
            server.rewrite = lambda command: command
        (tmp_path / "go").touch()
        await until(ended(news, 1), 20)
        assert news[-1][3] == 0
    assert max(tried) <= 2


async def test_a_server_that_is_suspended(tmp_path):
    """One that answers no questions any more counts as cut when it should, and is found again when it goes on."""
    server = FaultyServer(tmp_path / "server")
    command = [sys.executable, "-m", "tests.integration.ssh_server", str(server.place)]
    async with await anyio.open_process(command, cwd=Path(__file__).parents[2], stderr=None) as process:
        try:
            with anyio.fail_after(20):
                server.port = int(await process.stdout.receive())
            options = server.options(keepalive=0.5, connect_timeout=5.0)
            async with connected(options, tmp_path) as (agent, connection, news, lost):
                states = []
                agent.link._on_state = states.append
                await connection.spawn(specs(tmp_path, 20, ONCE))
                await until(ended(news, 20), 20)
                line = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo >> {tmp_path}/count.21"
                await connection.spawn(specs(tmp_path, 1, ("/bin/sh", "-c", line), first=21))
                process.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                (tmp_path / "go").touch()
                await until(lambda: states, 20)
                assert 1.0 < time.monotonic() - began < 2.0 + 3.0  # three to four times keepalive; and a slow machine
                assert states == ["the link to 127.0.0.1 is cut"]
                process.send_signal(signal.SIGCONT)
                await until(ended(news, 21), 20)
                each_once(tmp_path, news, 21)
                assert states[-1] is None and lost == []
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


async def test_a_host_key_that_changes_for_a_while(server, tmp_path):
    """Nothing is said to a server with another key; when the right one is back, all goes on."""
    async with connected(server.options(), tmp_path) as (_, connection, news, lost):
        await connection.spawn(
            specs(tmp_path, 1, ("/bin/sh", "-c", f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"))
        )
        key = (server.place / "host").read_bytes()
        await server.stop()
        server.new_key()
        await server.start()
        await until(lambda: server.met >= 3, 20)
        assert server.logins == 1 and lost == []
        await server.stop()
        (server.place / "host").write_bytes(key)
        await server.start()
        (tmp_path / "go").touch()
        await until(ended(news, 1), 20)
        assert news[-1][3] == 0 and server.logins == 2


async def test_a_host_key_that_has_changed(server, tmp_path):
    """When the right one never comes back, that is the reason that is told, and the jobs there have been stopped."""
    news, lost = [], []
    agent = SSHAgent("127.0.0.1", server.options(link_patience=2.0))
    connection = AgentConnection(news.extend, lost.append)
    await agent.start(connection)
    info = await connection.hello(
        run="r", cap=None, grace=0.5, records=f"{tmp_path}/records", on_eof="stop", **agent.options
    )
    await connection.spawn(specs(tmp_path, 1, ("/bin/sleep", "300")))
    await until(lambda: news)
    await server.stop()
    server.new_key()
    await server.start()
    with (
        anyio.fail_after(20),
        pytest.raises(AgentError, match=r"no link to 127.0.0.1 for 2 s.*its host key has changed"),
    ):
        await connection.run(["true"])
    assert server.logins == 1 and "ssh-keygen -R" in str(lost[0])
    await until(lambda: not alive(info["pid"]) and not alive(news[0][3]))
    await agent.close()
