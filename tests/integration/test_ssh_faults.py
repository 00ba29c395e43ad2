"""Links that are cut: nothing that runs is lost, nothing is started twice, nothing is left behind."""

import asyncio
import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from asim.errors import AgentError
from asim.transport.connection import AgentConnection
from asim.transport.package import AGENT
from asim.transport.resume import Resumable
from asim.transport.ssh import SSHAgent
from tests.contract.test_contracts import oldest_python
from tests.integration.conftest import alive, until
from tests.integration.ssh import Proxy, SSHServer, need_sshd
from tests.integration.ssh import sshd as sshd
from tests.integration.test_ssh import connected, ended, specs

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ONCE = ("/bin/sh", "-c", 'echo >> "count.${ASIM_JOB_ID##*.}"')


@pytest.fixture
async def proxy(sshd):
    """A link to the server that can be cut."""
    async with Proxy(sshd.port) as proxy:
        sshd.know(proxy.port)
        yield proxy


def each_once(place, news, count):
    """Every job ran once, started once and ended once."""
    for key in range(1, count + 1):
        assert (place / f"count.{key}").read_text() == "\n"
    for kind in ("start", "end"):
        assert sorted(row[0] for row in news if row[1] == kind) == list(range(1, count + 1))


# -- the stream, without SSH


class Daemon:
    """An agent's daemon on this host, reached by its socket, whose connections are cut at will."""

    def __init__(self, place: Path, python: str = sys.executable) -> None:
        self.path, self.cuts, self.token = place / "t.sock", 0, "t"
        run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from main import main; main(sys.argv[1:])"
        self.start = [python, "-I", "-S", "-E", "-c", run, str(AGENT)]
        done = subprocess.run([*self.start, "serve", str(place), "t"], capture_output=True, check=True, cwd=place)
        assert done.stdout.startswith(b"\nASIM-LINK serving ")
        self.pid = int((place / "t.pid").read_text())

    async def attach(self, stream: Resumable) -> asyncio.Transport:
        """A new channel."""
        loop = asyncio.get_running_loop()
        transport, channel = await loop.create_unix_connection(lambda: Channel(stream), str(self.path))
        await channel.attached
        return transport


class Channel(asyncio.Protocol):
    """Exchanges counts, and then hands on what arrives."""

    def __init__(self, stream: Resumable) -> None:
        self.stream, self.head = stream, b""
        self.attached = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        """Say what we have."""
        self.transport = transport
        transport.write(struct.pack("!Q", self.stream.received))

    def data_received(self, data: bytes) -> None:
        """What it has, and then the stream."""
        if not self.attached.done():
            self.head += data
            if len(self.head) < 8:
                return
            self.stream.attach(self.transport, struct.unpack("!Q", self.head[:8])[0])
            self.attached.set_result(None)
            data = self.head[8:]
        self.stream.data_received(self.transport, data)

    def pause_writing(self) -> None:
        """Too much."""
        self.stream.pause(True, self.transport)

    def resume_writing(self) -> None:
        """Go on."""
        self.stream.pause(False, self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self.stream.cut(self.transport)
        if not self.attached.done():
            self.attached.set_exception(AgentError("it was closed"))


@pytest.mark.parametrize("seed", [0, 1, "3.6"])
async def test_a_stream_that_is_cut_again_and_again(tmp_path, seed):
    """Whatever is under way, in both directions, arrives once and in order, however often the channel is cut."""
    rng, news, lost = random.Random(seed), [], []
    python = oldest_python() if seed == "3.6" else sys.executable
    daemon = await anyio.to_thread.run_sync(Daemon, tmp_path, python)
    connection = AgentConnection(news.extend, lost.append)
    stream = Resumable(connection, lambda: None)
    done = anyio.Event()
    answers = []

    async def work() -> None:
        await connection.hello(run="r", cap=8, grace=0.5, records=f"{tmp_path}/records", on_eof="stop", patience=20.0)
        await connection.spawn(specs(tmp_path, 200, ONCE))
        text = "x\udcff" * 200_000
        for number in range(8):
            answers.append((await connection.run(["cat"], stdin=text + str(number))).stdout == text + str(number))
        await connection.files([("write", f"{tmp_path}/w{n}", str(n)) for n in range(500)])
        await until(ended(news, 200), 30)
        done.set()

    with anyio.fail_after(45):
        channel = await daemon.attach(stream)
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not done.is_set():
                with anyio.move_on_after(rng.random() * 0.05):
                    await done.wait()
                channel.abort()
                await until(lambda: stream._channel is None)
                assert lost == [] and connection._fatal is None
                channel = await daemon.attach(stream)
                daemon.cuts += 1
        await connection_bye(connection, stream)
    assert daemon.cuts > 5 and answers == [True] * 8 and lost == [None]
    each_once(tmp_path, news, 200)
    await until(lambda: not alive(daemon.pid))
    assert not daemon.path.exists()


async def connection_bye(connection: AgentConnection, stream: Resumable) -> None:
    """Say goodbye, and see the stream through to its end."""
    async with anyio.create_task_group() as group:
        group.start_soon(connection.bye)
        await until(lambda: stream.over and stream._channel is None)
        stream.lose(None)


async def test_a_driver_that_has_too_much_is_turned_away(tmp_path):
    """Counts that cannot be are refused, and the daemon lives on; a second driver replaces the first."""
    daemon = await anyio.to_thread.run_sync(Daemon, tmp_path)
    for greeting in (struct.pack("!Q", 1 << 40), b"abc"):
        reader, writer = await asyncio.open_unix_connection(daemon.path)
        writer.write(greeting)
        if len(greeting) < 8:
            writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    first_reader, first = await asyncio.open_unix_connection(daemon.path)
    first.write(bytes(8))
    assert len(await first_reader.readexactly(8)) == 8
    second_reader, second = await asyncio.open_unix_connection(daemon.path)
    second.write(bytes(8))
    assert len(await second_reader.readexactly(8)) == 8
    with anyio.fail_after(5):
        await first_reader.read()  # ends
    assert (await second_reader.readexactly(4))[0] == 0 and alive(daemon.pid)
    first.close()
    second.close()
    os.kill(daemon.pid, signal.SIGKILL)
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run([*daemon.start, "attach", str(tmp_path), "t", "0"], capture_output=True, check=True)
    )
    assert done.stdout.startswith(b"\nASIM-LINK gone ") and b"refused" in done.stdout
    again = await anyio.to_thread.run_sync(
        lambda: subprocess.run([*daemon.start, "serve", str(tmp_path), "t"], capture_output=True, check=True)
    )
    assert again.stdout.startswith(b"\nASIM-LINK serving ")  # never a second one under the same name
    assert not alive(daemon.pid) and int((tmp_path / "t.pid").read_text()) == daemon.pid


# -- over SSH


async def test_cut_in_the_middle_of_a_spawn(sshd, proxy, tmp_path):
    """Five hundred processes, the link cut several times on the way: each is started exactly once, all ends are seen."""
    states = []
    async with connected(sshd.options(proxy.port), tmp_path, cap=8) as (agent, connection, news, lost):
        agent.link._on_state = states.append
        for part in range(5):
            proxy.limit = proxy.carried + 3000 + 2500 * part
            with anyio.fail_after(20):
                await connection.spawn(specs(tmp_path, 100, ONCE, first=1 + 100 * part))
        await until(ended(news, 500), 40)
        assert lost == [] and proxy.count >= 3
        each_once(tmp_path, news, 500)
    assert len(states) >= 4 and states[1::2] == [None] * (len(states) // 2)
    assert all("is cut" in state for state in states[::2])


async def test_commands_and_files_survive_a_cut(sshd, proxy, tmp_path):
    """What was asked before the cut is answered after it; commands run once."""
    async with connected(sshd.options(proxy.port), tmp_path) as (_, connection, *_):
        seen = []
        connection.watch(f"{tmp_path}/w", 0.05, seen.extend)
        async with anyio.create_task_group() as group:
            done = []

            async def one(number: int) -> None:
                script = f"echo >> {tmp_path}/c{number}; sleep 0.3; echo {number}"
                done.append((await connection.run(["sh", "-c", script])).stdout)

            for number in range(10):
                group.start_soon(one, number)
            await until((tmp_path / "c0").exists)
            proxy.shut = True
            proxy.cut()
            (tmp_path / "w").mkdir()
            (tmp_path / "w/new").write_text("x")
            group.start_soon(connection.files, [("mkdir", f"{tmp_path}/d{number}") for number in range(300)])
            await anyio.sleep(0.3)  # the link stays away for a while; how long is not the point
            proxy.shut = False
        assert sorted(done) == sorted(f"{number}\n" for number in range(10))
        assert all((tmp_path / f"c{number}").read_text() == "\n" for number in range(10))
        await until(lambda: seen == [("new", "x")])


@pytest.mark.slow
async def test_cut_in_the_middle_of_a_transfer(sshd, proxy, tmp_path):
    """A transfer goes on where it was: hardly more is carried than without the cut, and what arrives is right."""
    size = 32 << 20
    (tmp_path / "big").write_bytes(os.urandom(size))
    for number in range(20):
        (tmp_path / f"small{number}").write_bytes(os.urandom(1000))
    names = ["big", *(f"small{number}" for number in range(20))]
    async with connected(sshd.options(proxy.port), tmp_path) as (agent, *_):
        for copy, pairs in (
            (agent.put, [(f"{tmp_path}/{name}", f"{tmp_path}/far/{name}") for name in names]),
            (agent.get, [(f"{tmp_path}/far/{name}", f"{tmp_path}/back/{name}") for name in names]),
        ):
            before, connections = proxy.carried, proxy.count
            proxy.limit = before + size * 3 // 4
            with anyio.fail_after(40):
                assert await copy(pairs) == 21
            assert proxy.count == connections + 1 and proxy.carried - before < size * 1.5
        for name in names:
            assert (tmp_path / "back" / name).read_bytes() == (tmp_path / name).read_bytes()
        assert not [*(tmp_path / "far").glob(".*"), *(tmp_path / "back").glob(".*")]


@pytest.mark.slow
async def test_a_link_that_is_away_too_long(sshd, proxy, tmp_path):
    """After the patience jobs are stopped there, grandchildren too, the agent ends, and the driver is told why."""
    news, lost = [], []
    options = sshd.options(proxy.port, link_patience=1.5)
    agent, connection = SSHAgent("127.0.0.1", options), AgentConnection(news.extend, lost.append)
    await agent.start(connection)
    info = await connection.hello(
        run="r", cap=None, grace=0.5, records=f"{tmp_path}/records", on_eof="stop", **agent.options
    )
    argv = (
        "/bin/sh",
        "-c",
        f"sleep 300 & echo $! >> {tmp_path}/pids; setsid sleep 301 & echo $! >> {tmp_path}/pids; wait",
    )
    await connection.spawn(specs(tmp_path, 1, argv))
    await until(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2)
    proxy.shut = True
    proxy.cut()
    with pytest.raises(AgentError, match=r"no link to 127.0.0.1 for 1.5 s"):
        await connection.run(["sleep", "60"])
    assert len(lost) == 1 and "no link" in str(lost[0])
    await until(lambda: not alive(info["pid"]))
    assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    assert b'"stop"' in (tmp_path / "records").read_bytes()
    proxy.shut = False
    await agent.rescue("r", 0.5, [])
    assert b'"stop"' in await agent.read(f"{tmp_path}/records")
    await agent.close()


async def test_a_driver_that_vanishes(sshd, tmp_path):
    """Nobody comes back: the agent stops its jobs after its patience, and leaves nothing."""
    news, lost = [], []
    agent, connection = (
        SSHAgent("127.0.0.1", sshd.options(link_patience=0.5)),
        AgentConnection(news.extend, lost.append),
    )
    await agent.start(connection)
    info = await connection.hello(
        run="r", cap=None, grace=0.5, records=f"{tmp_path}/records", on_eof="stop", **agent.options
    )
    await connection.spawn(specs(tmp_path, 1, ("/bin/sleep", "300")))
    await until(lambda: len(news) == 1)
    await agent.close()  # without a word
    await until(lambda: not alive(info["pid"]) and not alive(news[0][3]))
    assert not list(Path(agent._place).glob(f"{agent.token}*"))


async def test_an_agent_that_is_killed(sshd, tmp_path):
    """The driver is told that it is gone, and can stop what it left; so it is when the driver itself kills it."""
    for how in ("there", "here"):
        news, lost = [], []
        agent, connection = SSHAgent("127.0.0.1", sshd.options()), AgentConnection(news.extend, lost.append)
        await agent.start(connection)
        place = tmp_path / how
        place.mkdir()
        info = await connection.hello(
            run=f"killed-{how}", cap=None, grace=0.5, records=f"{place}/records", on_eof="stop", **agent.options
        )
        await connection.spawn(specs(place, 1, ("/bin/sleep", "300")))
        await until(lambda news=news: len(news) == 1)
        if how == "there":
            os.kill(info["pid"], signal.SIGKILL)
        else:
            agent.kill()
        await until(lambda lost=lost: lost)
        assert how == "here" or "the agent on 127.0.0.1 is gone" in str(lost[0])
        assert await agent.last_words() == "" and not alive(info["pid"]) and alive(news[0][3])
        with anyio.fail_after(10):
            await agent.rescue(f"killed-{how}", 0.5, [news[0][3]])
        assert not alive(news[0][3]) and not list(Path(agent._place).glob(f"{agent.token}*"))
        await agent.close()


async def test_goodbye_during_a_cut(sshd, proxy, tmp_path):
    """What is said while there is no link is heard when there is one again."""
    async with connected(sshd.options(proxy.port), tmp_path) as (_, connection, news, lost):
        await connection.spawn(specs(tmp_path, 1, ("/bin/sleep", "300")))
        await until(lambda: len(news) == 1)
        proxy.shut = True
        proxy.cut()
        async with anyio.create_task_group() as group:
            group.start_soon(connection.bye)
            await anyio.sleep(0.1)  # let it try once; how often is not the point
            assert lost == []
            proxy.shut = False
        assert lost == [None] and news[-1][1] == "end" and not alive(news[0][3])


@pytest.mark.slow
async def test_a_link_that_falls_silent(sshd, proxy, tmp_path):
    """A link that carries nothing any more, without being closed, is noticed and made again."""
    async with connected(sshd.options(proxy.port, keepalive=0.3), tmp_path) as (_, connection, *_):
        proxy.silent = True
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(connection.run, ["true"])
                await until(lambda: proxy.count > 1)
        assert proxy.count == 2


async def test_a_server_that_is_started_again(tmp_path):
    """sshd and all of its sessions end, and come back: the agent never noticed."""
    need_sshd()
    server = SSHServer(tmp_path / "server")
    try:
        async with connected(server.options(), tmp_path) as (_, connection, news, _):
            await connection.spawn(specs(tmp_path, 1, ("/bin/sleep", "0.5")))
            server.restart()
            await until(ended(news, 1), 20)
            assert news[-1][3] == 0 and (await connection.run(["echo", "x"])).stdout == "x\n"
    finally:
        server.stop()


async def test_forwarded_ports_survive_a_cut(sshd, proxy, tmp_path):
    """The port here stays the same, and leads there again over the new link."""

    async def greet(_reader, writer):
        writer.write(b"hello")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        async with connected(sshd.options(proxy.port), tmp_path) as (agent, *_):
            port = await agent.forward("127.0.0.1", server.sockets[0].getsockname()[1])
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b"hello"
                writer.close()
                proxy.cut()
    finally:
        server.close()
