"""Clients whose callers give up, and servers that die, stop, or say half of what they should."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import numpy as np
import pytest

from asim import Client, ConfigError, DatabaseConnectionError, DatabaseError, DatabaseTimeout, DataSet, SyncClient
from tests.chaos.conftest import anyio_backend as anyio_backend

from ..servers import RedisServer
from .databases import address as address
from .databases import check
from .databases import server as server

pytestmark = pytest.mark.anyio
HEAD = b"*6\r\n$5\r\ndtype\r\n$5\r\nUINT8\r\n$5\r\nshape\r\n*1\r\n:%d\r\n$4\r\nblob\r\n$%d\r\n"


def tensor(size: int, value: bytes) -> bytes:
    """A tensor reply."""
    return HEAD % (size, size) + value * size + b"\r\n"


class Fake:
    """A server that says what a test wants it to say."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.came = asyncio.Event()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Called for every connection."""
        self.connections.append((reader, writer))
        self.came.set()

    async def connection(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that was made."""
        with anyio.fail_after(5):
            while len(self.connections) <= number:
                self.came.clear()
                await self.came.wait()
        return self.connections[number]


@asynccontextmanager
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    """A fake that runs."""
    one = Fake(tmp_path / "fake.sock")
    listening = await asyncio.start_unix_server(one.accept, tmp_path / "fake.sock")
    try:
        yield one
    finally:
        listening.close()
        for _, writer in one.connections:
            writer.close()


async def heard(reader: asyncio.StreamReader, words: bytes) -> None:
    """Wait until the client has said something."""
    with anyio.fail_after(5):
        await reader.readuntil(words)


async def settled(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.done()


@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest.mark.parametrize("part", [0, 3, 30, 90, -1])
async def test_cancelled_in_the_middle_of_a_reply(tmp_path: Path, anyio_backend: object, size: int, part: int) -> None:
    """Wherever in its reply a caller is cancelled, the next one gets its own reply on the same connection."""
    async with fake(tmp_path) as there, Client(there.address, connections=1, connect_timeout=5) as client:
        first = asyncio.create_task(client.get_tensor("first"))
        reader, writer = await there.connection(0)
        await heard(reader, b"first")
        reply = tensor(size, b"1")
        writer.write(reply[:part])
        await writer.drain()
        second = asyncio.create_task(client.get_tensor("second"))
        await heard(reader, b"second")
        await settled(first)
        writer.write(reply[part:] if part else reply)
        writer.write(tensor(5, b"2"))
        with anyio.fail_after(5):
            assert (await second).tobytes() == b"2" * 5
        assert len(there.connections) == 1


async def test_cancelled_while_it_is_sent(tmp_path: Path, anyio_backend: object) -> None:
    """A put that is cancelled half sent is sent to its end, with what the array held before the cancellation."""
    async with fake(tmp_path) as there, Client(there.address, connections=1, connect_timeout=5) as client:
        data = np.full(8 << 20, 7, np.uint8)
        put = asyncio.create_task(client.put_tensor("first", data))
        reader, writer = await there.connection(0)
        await heard(reader, b"$8388608\r\n")
        await settled(put)
        data[:] = 9
        second = asyncio.create_task(client.get_tensor("second"))
        with anyio.fail_after(5):
            received = await reader.readexactly(8 << 20)
            assert received == b"\7" * (8 << 20)
            await heard(reader, b"second")
            writer.write(b"+OK\r\n" + tensor(5, b"2"))
            assert (await second).tobytes() == b"2" * 5


async def test_cancelled_before_it_is_sent(tmp_path: Path, anyio_backend: object) -> None:
    """A put that waits behind another one and is cancelled is never sent."""
    async with fake(tmp_path) as there, Client(there.address, connections=1, connect_timeout=5) as client:
        put = asyncio.create_task(client.put_tensor("first", np.zeros(8 << 20, np.uint8)))
        reader, writer = await there.connection(0)
        await heard(reader, b"$8388608\r\n")
        never = asyncio.create_task(client.put_tensor("never", np.zeros(10)))
        third = asyncio.create_task(client.get_tensor("third"))
        await asyncio.sleep(0)
        await settled(never)
        with anyio.fail_after(5):
            await reader.readexactly(8 << 20)
            said = await reader.readuntil(b"third")
            assert b"never" not in said
            writer.write(b"+OK\r\n" + tensor(5, b"3"))
            await put
            assert (await third).tobytes() == b"3" * 5


@pytest.mark.parametrize("half", [b"", b"+O", b"*6\r\n$5\r\ndty", tensor(1 << 20, b"x")[: 1 << 19], b"$5\r\nab"])
async def test_half_replies(tmp_path: Path, anyio_backend: object, half: bytes) -> None:
    """A connection that ends in the middle of a reply is made again, and the command is answered there."""
    async with fake(tmp_path) as there, Client(there.address, connections=1, connect_timeout=5) as client:
        get = asyncio.create_task(client.get_tensor("x"))
        reader, writer = await there.connection(0)
        await heard(reader, b"BLOB\r\n")
        writer.write(half)
        await writer.drain()
        writer.close()
        reader, writer = await there.connection(1)
        await heard(reader, b"BLOB\r\n")
        writer.write(tensor(3, b"y"))
        with anyio.fail_after(5):
            assert (await get).tobytes() == b"yyy"


async def test_what_is_not_repeated(tmp_path: Path, anyio_backend: object) -> None:
    """An append whose connection ends unanswered is an error that says so; it is not sent a second time."""
    async with fake(tmp_path) as there, Client(there.address, connections=1, connect_timeout=5) as client:
        append = asyncio.create_task(client.append_to_list("l", DataSet("d")))
        reader, writer = await there.connection(0)
        await heard(reader, b"{d}")
        writer.close()
        with (
            anyio.fail_after(5),
            pytest.raises(DatabaseConnectionError, match="RPUSH l: .*may or may not have been done"),
        ):
            await append
        assert len(there.connections) == 1


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n", b":x\r\n", b"+OK\r\n+OK\r\n"])
async def test_nonsense_ends_the_connection(tmp_path: Path, anyio_backend: object, nonsense: bytes) -> None:
    """Bytes that are no reply, or a reply that nobody asked for, end the connection and nothing else."""
    async with fake(tmp_path) as there, Client(there.address, connections=1, connect_timeout=5) as client:
        put = asyncio.create_task(client.put_tensor("x", np.zeros(1)))
        _, writer = await there.connection(0)
        writer.write(nonsense)
        await writer.drain()
        if nonsense.startswith(b"+OK"):
            await put
            put = asyncio.create_task(client.put_tensor("x", np.zeros(1)))
        reader, writer = await there.connection(1)
        await heard(reader, b"BLOB\r\n")
        writer.write(b"+OK\r\n")
        with anyio.fail_after(5):
            await put


async def test_closing_while_others_wait(tmp_path: Path, anyio_backend: object) -> None:
    """A closed client fails what is under way, and what comes later, at once."""
    async with fake(tmp_path) as there:
        client = Client(there.address, connect_timeout=5)
        get = asyncio.create_task(client.get_tensor("x"))
        await there.connection(0)
        await client.aclose()
        for waiting in (get, client.get_tensor("y")):
            with anyio.fail_after(5), pytest.raises(DatabaseConnectionError, match="client was closed"):
                await waiting


# -- real servers


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    """A server that the test may kill."""
    check()
    with RedisServer() as running:
        yield running
        with suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGCONT)


async def test_killed_server_comes_back(mortal: RedisServer, anyio_backend: object) -> None:
    """Operations that are called while the server is dead are done when it is back."""
    async with Client(f"unix://{mortal.socket}", connect_timeout=10) as client:
        await client.put_tensor("x", np.zeros(1))
        mortal.kill()
        async with asyncio.TaskGroup() as group:
            put = group.create_task(client.put_tensor("x", np.ones(1)))
            wait = group.create_task(client.wait_for_tensor("x", 10))
            await anyio.to_thread.run_sync(mortal.start)
        assert put.result() is None
        assert wait.result() is None
        assert (await client.get_tensor("x"))[0] == 1


def test_killed_server_comes_back_for_the_blocking_face(mortal: RedisServer) -> None:
    """The blocking client connects again too."""
    with SyncClient(f"unix://{mortal.socket}", connect_timeout=10) as client:
        client.put_tensor("x", np.zeros(1))
        mortal.kill()
        thread = threading.Thread(target=mortal.start)
        thread.start()
        client.put_tensor("x", np.ones(1))
        thread.join()
        assert client.get_tensor("x")[0] == 1


async def test_dead_server_is_given_up(mortal: RedisServer, anyio_backend: object) -> None:
    """A server that does not come back is an error at the deadline, with the command and the address."""
    mortal.kill()
    for gone in (f"127.0.0.1:{mortal.port}", f"unix://{mortal.socket}"):
        async with Client(gone, connect_timeout=0.1) as client:
            with (
                anyio.fail_after(5),
                pytest.raises(DatabaseConnectionError, match=rf"EXISTS x: {gone}.*gave up after"),
            ):
                await client.tensor_exists("x")


async def test_stopped_server_is_a_timeout(mortal: RedisServer, anyio_backend: object) -> None:
    """A server that does not answer is a timeout for every caller; when it goes on so does the client."""
    async with Client(f"127.0.0.1:{mortal.port}", timeout=0.1, connect_timeout=5) as client:
        await client.put_tensor("x", np.ones(1))
        os.kill(mortal.pid, signal.SIGSTOP)
        with anyio.fail_after(5):
            results = await asyncio.gather(*(client.get_tensor("x") for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in results] == [DatabaseTimeout] * 5
        os.kill(mortal.pid, signal.SIGCONT)
        assert (await client.get_tensor("x"))[0] == 1


def test_stopped_server_is_a_timeout_for_the_blocking_face(mortal: RedisServer) -> None:
    """The blocking client gives up too, and reads no old reply afterwards."""
    with SyncClient(f"unix://{mortal.socket}", timeout=0.1, connect_timeout=5) as client:
        client.put_tensor("x", np.ones(1))
        os.kill(mortal.pid, signal.SIGSTOP)
        with pytest.raises(DatabaseTimeout, match="AI.TENSORGET x"):
            client.get_tensor("x")
        os.kill(mortal.pid, signal.SIGCONT)
        assert not client.tensor_exists("y")
        assert client.get_tensor("x")[0] == 1


async def test_passwords(mortal: RedisServer, anyio_backend: object) -> None:
    """A password lets in; without one, or with a wrong one, the server's words are in the error, at once."""
    async with Client(f"unix://{mortal.socket}") as client:
        await client.config_set("requirepass", "secret")
    address = f"unix://{mortal.socket}"
    async with Client(address, password="secret") as client:
        await client.put_tensor("x", np.zeros(1))
    with anyio.fail_after(5):
        async with Client(address) as client:
            with pytest.raises(DatabaseError, match="NOAUTH"):
                await client.tensor_exists("x")
        async with Client(address, password="wrong") as client:
            with pytest.raises(DatabaseConnectionError, match="WRONGPASS"):
                await client.tensor_exists("x")
    with SyncClient(address, username="default", password="secret") as blocking:
        assert await anyio.to_thread.run_sync(blocking.tensor_exists, "x")


async def test_cancelled_at_random(address: str, anyio_backend: object) -> None:
    """A thousand callers, half of them cancelled at any moment: every survivor has its own value."""
    rng = np.random.default_rng(7)
    async with Client(address, connect_timeout=5) as client:
        sizes = rng.choice([3, 1000, 70_000, 400_000], 20)
        for key, size in enumerate(sizes):
            await client.put_tensor(f"k{key}", np.full(size, key, np.uint8))
        tasks = []
        for number in range(600):
            key = int(rng.integers(20))
            tasks.append((key, asyncio.create_task(client.get_tensor(f"k{key}"))))
            if number % 3 == 0:
                await asyncio.sleep(0)
            if number % 2:
                tasks[int(rng.integers(len(tasks)))][1].cancel()
        with anyio.fail_after(20):
            results = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        for (key, _), got in zip(tasks, results, strict=True):
            if isinstance(got, np.ndarray):
                assert (len(got), got[0], got[-1]) == (sizes[key], key, key)
            else:
                assert isinstance(got, asyncio.CancelledError)
        assert sum(isinstance(got, np.ndarray) for got in results) > 100


async def test_nothing_is_left(address: str, anyio_backend: object) -> None:
    """After the block there are no sockets, timers or references to arrays."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        async with Client(address) as client:
            data = np.zeros(1000)
            await client.put_tensor("x", data)
            await client.get_tensor("x")
        gone = weakref.ref(data)
        del data, client
        gc.collect()
        assert gone() is None
    assert seen == []


def test_interrupted_blocking_face(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a reply ends the connection; the next call has a new one and its own reply."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()

    def serve() -> None:
        first, _ = listening.accept()
        first.recv(1000)
        first.sendall(tensor(10, b"1")[:60])
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        second, _ = listening.accept()
        second.recv(1000)
        second.sendall(tensor(5, b"2"))
        first.close()
        second.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with SyncClient(f"unix://{tmp_path / 's'}", connect_timeout=5, timeout=10) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get_tensor("first")
        assert client.get_tensor("second").tobytes() == b"2" * 5
    thread.join()
    listening.close()


def test_a_client_outlives_its_loop(server: RedisServer) -> None:
    """With one asyncio.run after the other, the client connects anew in each; closing it in a third is fine."""
    client = Client(f"127.0.0.1:{server.port}", connect_timeout=5)
    asyncio.run(client.put_tensor("loops", np.arange(3)))
    assert asyncio.run(client.get_tensor("loops")).tolist() == [0, 1, 2]
    asyncio.run(client.aclose())


async def test_a_client_of_another_loop(address: str, anyio_backend: object) -> None:
    """Used in a second event loop while the first still runs, a client says what is wrong."""
    async with Client(address, connect_timeout=5) as client:
        await client.put_tensor("x", np.zeros(1))
        with pytest.raises(ConfigError, match="belongs to the event loop in which it was first used"):
            await anyio.to_thread.run_sync(lambda: asyncio.run(client.get_tensor("x")))
        assert await client.tensor_exists("x")


def test_interrupted_between_sending_and_receiving(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception from outside right after a command was sent does not leave its reply to the next one."""
    with SyncClient(f"127.0.0.1:{server.port}", connect_timeout=5) as client:
        client.put_tensor("a", np.zeros(3))
        client.put_tensor("b", np.ones(3))
        with monkeypatch.context() as patched:
            patched.setattr(SyncClient, "_hear", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                client.get_tensor("a")
        assert client.get_tensor("b").tolist() == [1, 1, 1]


def test_a_forked_process_has_its_own_connections(server: RedisServer) -> None:
    """Parent and child use a client that both have since before the fork, at the same time, and neither sees the other's."""
    with SyncClient(f"127.0.0.1:{server.port}", connect_timeout=5, timeout=5) as client:
        for number in range(10):
            client.put_tensor(f"f{number}", np.full(2000, number))
        child = os.fork()
        try:
            good = all((client.get_tensor(f"f{number % 10}") == number % 10).all() for number in range(300))
        except BaseException:  # noqa: BLE001  (a forked child must not go on with the tests)
            good = False
        if not child:
            os._exit(0 if good else 1)
        assert good and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
