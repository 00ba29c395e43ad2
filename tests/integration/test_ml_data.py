"""Training data through a real database: both faces, arrival by notice, replicas, loaders, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asim
from asim import Client, ConfigError, DatabaseConnectionError, DatabaseTimeout, DataSet, KeyNotFoundError, SyncClient
from asim.client.notices import Watch
from asim.client.sync_notices import SyncWatch
from asim.ml import DataDownloader, DataInfo, SyncDataDownloader, SyncTrainingDataUploader, TrainingDataUploader

from ..conftest import missing
from ..servers import RedisCluster, RedisServer
from ..smartredis.caller import SmartRedis, interpreter
from .conftest import alive
from .databases import address as address
from .databases import check
from .databases import cluster as cluster
from .databases import server as server

SETTING = "notify-keyspace-events"
pytestmark = pytest.mark.anyio


def numbers(start: int, count: int) -> np.ndarray:
    """Samples that are numbers, each its own."""
    return np.arange(start, start + count, dtype="f4").reshape(-1, 1)


def put(uploader: SyncTrainingDataUploader, batches: int, size: int = 5) -> None:
    """Batches of samples 0, 1, 2 …, whose targets are the samples' numbers modulo 3."""
    for _ in range(batches):
        samples = numbers(uploader.batch_idx * size, size)
        uploader.put_batch(samples, samples[:, 0].astype("i8") % 3)


async def puts(uploader: SyncTrainingDataUploader, batches: int, size: int = 5) -> None:
    """The same from a coroutine."""
    await anyio.to_thread.run_sync(put, uploader, batches, size)


async def put_one(uploader: SyncTrainingDataUploader, *arrays: np.ndarray) -> None:
    """One batch of these arrays."""
    await anyio.to_thread.run_sync(uploader.put_batch, *arrays)


@pytest.fixture
def uploader(address: str) -> Iterator[SyncTrainingDataUploader]:
    """A producer."""
    with SyncTrainingDataUploader("l", num_classes=3, address=address) as made:
        yield made


@pytest.fixture
async def down(address: str, anyio_backend: object) -> AsyncIterator[DataDownloader]:
    """A consumer that waits for five seconds at most."""
    async with DataDownloader("l", 4, address=address, timeout=5, seed=0) as made:
        yield made


@contextlib.contextmanager
def later(action: Any) -> Iterator[None]:
    """Do something in another thread while the block runs."""
    thread = threading.Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)


async def waiting(client: Client) -> None:
    """Until somebody is subscribed to a list."""
    with anyio.fail_after(5):
        while b"__keyspace@0__:l" not in b" ".join(await client.execute("PUBSUB", "CHANNELS")):
            await anyio.sleep(0.001)


def wait_until_subscribed(client: SyncClient) -> None:
    """The same, blocking."""
    deadline = time.monotonic() + 5
    while not client.execute("PUBSUB", "CHANNELS"):
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- both faces


async def test_epochs(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """Each epoch has every whole batch of what is there, in another order, with samples and targets together."""
    await anyio.to_thread.run_sync(uploader.publish_info)
    await puts(uploader, 2)
    orders = []
    for _ in range(3):
        batches = [batch async for batch in down]
        assert [samples.shape for samples, _ in batches] == [(4, 1), (4, 1)]
        for samples, targets in batches:
            np.testing.assert_array_equal(samples[:, 0] % 3, targets)
        orders.append(np.concatenate([samples[:, 0] for samples, _ in batches]).tolist())
    assert len({tuple(order) for order in orders}) == 3
    await puts(uploader, 1)
    assert len([batch async for batch in down]) == 3
    assert (down.num_samples, down.num_classes, down.target_name) == (15, 3, "targets")


async def test_the_async_uploader(address: str, anyio_backend: object) -> None:
    """Tasks may put batches at the same time; plain clients read them from the list."""
    async with TrainingDataUploader("l", "x", None, address=address, rank=3) as up, Client(address) as client:
        async with asyncio.TaskGroup() as group:
            for i in range(20):
                group.create_task(up.put_batch(numbers(i, 1)))
        await up.publish_info()
        found = await client.get_datasets_from_list("l")
        assert sorted(one.name for one in found) == sorted(f"training_samples_3_{i}" for i in range(20))
        assert sorted(int(one.get_tensor("x")[0, 0]) for one in found) == list(range(20))
        info = await client.get_dataset("l_info")
        assert info.get_metadata_field_names() == ["sample_name"]
        async with DataDownloader("l", 20, address=address, timeout=5) as down:
            (batch,) = [batch async for batch in down]
            assert sorted(batch[:, 0]) == list(range(20))
            assert down.target_name is None


def test_the_blocking_face(address: str, uploader: SyncTrainingDataUploader) -> None:
    """The same for programs without an event loop, in order of arrival if it is not shuffled."""
    with SyncDataDownloader("l", 5, shuffle=False, address=address, timeout=5) as down:
        with later(lambda: put(uploader, 2)):
            down.init_samples()
        down.update_data()
        assert np.concatenate([samples for samples, _ in down])[:, 0].tolist() == list(range(10))


def test_static_data(address: str, uploader: SyncTrainingDataUploader) -> None:
    """What arrives after the first pass has begun is not part of a static downloader."""
    put(uploader, 2)
    with SyncDataDownloader("l", 5, dynamic=False, address=address, timeout=5) as down:
        assert len(list(down)) == 2
        put(uploader, 2)
        assert down.update_data() == 0
        assert len(list(down)) == 2


def test_many_batches(address: str, uploader: SyncTrainingDataUploader) -> None:
    """Lists longer than what is fetched at once are read whole, each entry once."""
    put(uploader, 300, 1)
    with SyncDataDownloader("l", 300, address=address) as down:
        assert down.update_data() == 300
        assert down.update_data() == 0
        ((samples, _),) = list(down)
        assert sorted(samples[:, 0]) == list(range(300))


async def test_producers_of_an_ensemble(address: str, anyio_backend: object) -> None:
    """The lists of all producers that are registered are read, each with its own prefix; one info is enough."""
    for name in ("a", "b"):
        async with Client(address, put_prefix=name) as client, TrainingDataUploader("l", "x", "", client=client) as up:
            await up.put_batch(numbers(ord(name), 1))
            if name == "b":
                await up.publish_info()
    async with Client(address, get_prefixes=["a", "b"]) as client, DataDownloader("l", 2, client=client) as down:
        assert sorted([int(x) async for batch in down for x in batch[:, 0]]) == [97, 98]
        assert await client.execute("PING") == b"PONG"  # a client that was given is not closed with the downloader


# -- infos


async def test_infos(address: str, anyio_backend: object, caplog: pytest.LogCaptureFixture) -> None:
    """An info is stored as SmartSim does, and read back by both faces; where there is none a warning says so."""
    async with Client(address) as client:
        await DataInfo("l", "x", "y", 7).publish(client)
        stored = await client.get_dataset("l_info")
        assert (stored.get_meta_strings("sample_name"), stored.get_meta_strings("target_name")) == (["x"], ["y"])
        assert stored.get_meta_scalars("num_classes").tolist() == [7]
        found = DataInfo("l")
        await found.download(client)
        assert repr(found) == "DataInfo('l', 'x', 'y', 7)"
        await anyio.to_thread.run_sync(exchange_infos, address, found)
        assert (found.target_name, found.num_classes) == (None, None)
        assert not caplog.records
        await DataInfo("m").download(client)
        assert "there is no dataset 'm_info'" in caplog.text


def exchange_infos(address: str, found: DataInfo) -> None:
    """Publish and download by the blocking face."""
    with SyncClient(address) as blocking:
        DataInfo("l", "x", None).publish(blocking)
        found.download(blocking)


async def test_samples_alone_without_an_info(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """With default names on both sides and nothing published, samples without targets are just samples."""
    await put_one(uploader, numbers(0, 4))
    assert [batch.shape async for batch in down] == [(4, 1)]


# -- arrival


async def test_arrival_is_noticed_at_once(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """Who waits is told by the server: far sooner than any polling interval, whatever the time of arrival."""
    times = []
    for _ in range(20):
        wait = asyncio.create_task(down.wait_for_data(5))
        await waiting(down.client)
        await puts(uploader, 1)
        start = time.perf_counter()
        assert await wait == 5
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.02  # polling would need 0.05 s on average


def test_arrival_is_noticed_at_once_when_blocking(address: str, uploader: SyncTrainingDataUploader) -> None:
    """The blocking face too."""
    times = []

    def produce() -> None:
        wait_until_subscribed(uploader.client)
        put(uploader, 1)
        times.append(-time.perf_counter())

    with SyncDataDownloader("l", 5, address=address) as down:
        for _ in range(10):
            with later(produce):
                down.wait_for_data(5)
                now = time.perf_counter()
            times[-1] += now
    assert sorted(times)[5] < 0.02


async def test_the_setting_is_added_to(address: str, anyio_backend: object) -> None:
    """A server that tells nobody of lists is told to, without changing what else it tells; asim's need not be."""
    async with Client(address) as client:
        for before, after in (("", "Kl"), ("Ex", "xElK"), ("KA", "AK"), ("lK", "lK")):
            await client.config_set(SETTING, before)
            async with Watch(client, [b"l"]) as watch:
                assert watch.told
            assert set((await client.config_get(SETTING))[SETTING]) == set(after)


@pytest.fixture
def weak(address: str, server: RedisServer) -> dict[str, Any]:
    """A user who may neither subscribe nor change settings, on a server that tells nobody."""
    with server.client() as admin:
        admin.config_set(SETTING, "")
        admin.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-subscribe", "-config")
    return {"address": address, "username": "weak", "password": "pw"}


async def test_a_server_that_refuses_is_polled(
    weak: dict[str, Any], uploader: SyncTrainingDataUploader, anyio_backend: object
) -> None:
    """Where neither subscribing nor the setting is allowed, new data still come, a little later."""
    async with Client(**weak) as client:
        async with Watch(client, [b"l"]) as watch:
            assert not watch.told
        async with DataDownloader("l", 4, client=client, timeout=5) as down:
            wait = asyncio.create_task(down.init_samples())
            await anyio.wait_all_tasks_blocked()
            await puts(uploader, 1)
            await wait


def test_a_server_that_refuses_is_polled_by_the_blocking_face(
    weak: dict[str, Any], uploader: SyncTrainingDataUploader
) -> None:
    """The blocking face too, with pauses in between."""
    with SyncClient(**weak) as client, SyncDataDownloader("l", 5, client=client) as down:
        with SyncWatch(client, [b"l"]) as watch:
            assert not watch.told
        with later(lambda: put(uploader, 1)):
            assert down.wait_for_data(5) == 5


async def test_looking_does_not_miss(address: str, anyio_backend: object) -> None:
    """What is appended between the subscription and the first look, or between two, ends the next wait at once."""
    async with Client(address) as client, Watch(client, [b"l", b"m"]) as watch:
        for key in ("m", "l"):
            news = watch.news
            await client.execute("RPUSH", key, "x")
            assert await watch.wait(news)


def test_looking_does_not_miss_when_blocking(address: str) -> None:
    """The same for the blocking face."""
    with SyncClient(address) as client, SyncWatch(client, [b"l", b"m"]) as watch:
        for key in ("m", "l"):
            client.execute("RPUSH", key, "x")
            assert watch.wait()


async def test_waits_share_a_subscription(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """Waits that are cancelled, over, or at the same time use one connection, which goes with the downloader."""
    client, found = down.client, set()
    for _ in range(5):
        wait = asyncio.create_task(down.init_samples())
        await waiting(client)
        found |= {line.split()[0] for line in (await client.execute("CLIENT", "LIST")).splitlines() if b"sub=1" in line}
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
    assert len(found) == 1
    waits = [asyncio.create_task(down.wait_for_data(5)) for _ in range(5)]
    await puts(uploader, 1)
    assert [await wait for wait in waits] == [5] * 5
    await down.aclose()
    async with Client(client._core.options.address) as other:
        with anyio.fail_after(5):
            while b"sub=1" in await other.execute("CLIENT", "LIST"):
                await anyio.sleep(0.001)


async def test_a_subscription_that_is_lost(
    down: DataDownloader, uploader: SyncTrainingDataUploader, server: RedisServer
) -> None:
    """A wait whose connection is cut goes on without, and the next one has another."""
    for _ in range(2):
        wait = asyncio.create_task(down.wait_for_data(5))
        await waiting(down.client)
        await anyio.to_thread.run_sync(cut, server)
        await puts(uploader, 1)
        assert await wait == 5


def test_a_subscription_that_is_lost_when_blocking(
    address: str, uploader: SyncTrainingDataUploader, server: RedisServer
) -> None:
    """The same for the blocking face."""

    def produce() -> None:
        wait_until_subscribed(uploader.client)
        cut(server)
        put(uploader, 1)

    with SyncDataDownloader("l", 5, address=address) as down:
        for _ in range(2):
            with later(produce):
                assert down.wait_for_data(5) == 5


def cut(server: RedisServer) -> None:
    """End the connections that are subscribed."""
    with server.client() as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


async def test_no_server_to_listen_to(anyio_backend: object) -> None:
    """A server that cannot be reached is no error of the subscription; looking is, which follows."""
    async with Client("127.0.0.1:1", connect_timeout=0.1) as client, Watch(client, [b"l"]) as watch:
        assert not watch.told
        assert not await watch.wait(watch.news)
    with pytest.raises(DatabaseConnectionError):
        async with Client("127.0.0.1:1", cluster=True, connect_timeout=0.1) as client, Watch(client, [b"l"]):
            pass


def test_no_server_to_listen_to_when_blocking() -> None:
    """The same for the blocking face."""
    with SyncClient("127.0.0.1:1", connect_timeout=0.1) as client, SyncWatch(client, [b"l"]) as watch:
        assert not watch.told
        assert not watch.wait()
    client = SyncClient("127.0.0.1:1", cluster=True, connect_timeout=0.1)
    with client, pytest.raises(DatabaseConnectionError):
        SyncWatch(client, [b"l"]).open()


def test_one_downloader_in_two_event_loops(address: str, uploader: SyncTrainingDataUploader) -> None:
    """What was subscribed in an event loop that is closed is made anew in the next, as the client's connections are."""
    down = DataDownloader("l", 5, address=address)

    async def first() -> None:
        with pytest.raises(DatabaseTimeout):
            await down.wait_for_data(0.1)

    async def second() -> None:
        async with down:
            wait = asyncio.create_task(down.wait_for_data(5))
            await waiting(down.client)
            await puts(uploader, 1)
            assert await wait == 5

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.slow
async def test_a_subscription_that_is_worth_nothing(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """A server that was told to tell no more is found out by the look after a second, and told again."""
    for lost in (False, True, False):
        wait = asyncio.create_task(down.wait_for_data(5))
        await waiting(down.client)
        await down.client.config_set(SETTING, "" if lost else "Kl")
        start = time.perf_counter()
        await puts(uploader, 1)
        await wait
        assert (time.perf_counter() - start > 0.5) is lost


async def test_a_fetch_that_is_cancelled_loses_nothing(
    down: DataDownloader, uploader: SyncTrainingDataUploader
) -> None:
    """Wherever an update is cancelled, the next one has each entry once."""
    await puts(uploader, 200, 1)
    for pause in range(0, 30, 3):
        with contextlib.suppress(asyncio.CancelledError):
            task = asyncio.create_task(down.update_data())
            for _ in range(pause):
                await asyncio.sleep(0)
            task.cancel()
            await task
    await asyncio.gather(down.update_data(), down.update_data())
    assert sorted(down._reader.samples.take(np.arange(200))[0][:, 0]) == list(range(200))
    assert down.num_samples == 200


# -- time limits and faults


async def test_time_limits(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """An empty list, and one with too little, are a DatabaseTimeout in time."""
    with pytest.raises(DatabaseTimeout, match="list l: 0 samples are there, not 4, after 0.1 s"):
        await down.init_samples(0.1)
    await put_one(uploader, numbers(0, 3))
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match="list l: 3 samples are there, not 4, after 0.1 s"):
        await down.init_samples(0.1)
    assert 0.05 < time.perf_counter() - start < 0.9


def test_time_limits_of_the_blocking_face(address: str, uploader: SyncTrainingDataUploader) -> None:
    """The same when blocking, also said as in SmartSim; without waiting, too little is an error at once."""
    uploader.put_batch(numbers(0, 3))
    with SyncDataDownloader("l", 4, address=address, max_fetch_trials=1, wait_interval=0.1) as blocking:
        with pytest.raises(DatabaseTimeout, match="3 samples are there, not 4, after 0.1 s"):
            list(blocking)
        with pytest.raises(DatabaseTimeout, match="not 4, after 0.05 s"):
            blocking.wait_for_data(0.05)
    impatient = SyncDataDownloader("l", 4, address=address, init_samples=False)
    with impatient, pytest.raises(ConfigError, match="4 are needed for one batch"):
        list(impatient)


@pytest.mark.slow
async def test_a_producer_that_dies(down: DataDownloader, address: str) -> None:
    """What a producer had put in the list when it was killed is used; what it was putting is never seen."""
    code = (
        "import os, signal, numpy as np; from asim.ml import SyncTrainingDataUploader\n"
        f"up = SyncTrainingDataUploader('l', address={address!r})\n"
        "up.put_batch(np.ones((4, 1), 'f4'), np.ones(4))\n"
        "up.client.execute('HSET', '{training_samples_1}.meta', 'half', b'x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = await anyio.run_process([sys.executable, "-c", code], check=False)
    assert process.returncode == -9, process.stderr
    assert len([batch async for batch in down]) == 1
    with pytest.raises(DatabaseTimeout):
        await down.wait_for_data(0.05)


async def test_a_list_that_was_deleted(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """What was read stays, and the list that comes next is read from its beginning."""
    await puts(uploader, 3)
    await down.init_samples()
    await down.client.delete_list("l")
    assert await down.update_data() == 0
    await puts(uploader, 1)
    assert await down.wait_for_data(5) == 5
    assert sorted(down._reader.samples.take(np.arange(20))[0][:, 0]) == list(range(20))


async def test_batches_that_do_not_fit(down: DataDownloader, uploader: SyncTrainingDataUploader) -> None:
    """Another shape, type, tensor name, or a dataset that is gone is an error that names it; the others are kept."""
    await puts(uploader, 1)
    await down.init_samples()
    await put_one(uploader, np.zeros((5, 2), "f4"), np.zeros(5, "i8"))
    await puts(uploader, 1)
    with pytest.raises(ConfigError, match=r"samples of dataset 'training_samples_1' = \(\(2,\), 'float32'\)"):
        await down.update_data()
    assert down.num_samples == 10
    await put_one(uploader, np.zeros((5, 1), "f8"), np.zeros(5, "i8"))
    await put_one(uploader, np.zeros((5, 1), "f8"), np.zeros(5, "i8"))
    with pytest.raises(ValueError, match=r"float64.*and 1 more like this"):
        await down.update_data()
    await put_one(uploader, numbers(0, 5))
    with pytest.raises(
        KeyNotFoundError, match=r"'training_samples_5' has the tensors \['samples'\], but not 'targets'"
    ):
        await down.update_data()
    await puts(uploader, 1)
    await down.client.delete_dataset("training_samples_6")
    with pytest.raises(KeyNotFoundError, match="dataset 'training_samples_6' does not exist"):
        await down.update_data()
    await puts(uploader, 1)
    assert await down.update_data() == 5


@pytest.mark.parametrize("replicas", [2, 5])
def test_more_replicas_than_batches(replicas: int, address: str, uploader: SyncTrainingDataUploader) -> None:
    """Replicas share the list without overlap; one that gets nothing is told so in time."""
    put(uploader, 3)
    found = []
    for rank in range(replicas):
        with SyncDataDownloader("l", 5, address=address, replica_rank=rank, num_replicas=replicas) as down:
            if rank < 3:
                found += [int(x) for samples, _ in down for x in samples[:, 0]]
            else:
                with pytest.raises(DatabaseTimeout):
                    down.init_samples(0.05)
    assert sorted(found) == list(range(15))


def test_no_database() -> None:
    """A database that is not there is a connection error that comes in time, not a silent wait."""
    client = SyncClient("127.0.0.1:1", connect_timeout=0.2)
    with client, SyncDataDownloader("l", client=client) as down, pytest.raises(DatabaseConnectionError):
        down.init_samples(5)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of one's own."""
    check()
    with RedisServer(directory=tmp_path) as running:
        yield running


@pytest.mark.slow
async def test_a_server_that_restarts(mortal: RedisServer, anyio_backend: object) -> None:
    """A wait outlives a restart of the server: the connection for notices is lost, then it is polled."""
    client = Client(f"unix://{mortal.socket}", connect_timeout=20)
    async with client, DataDownloader("l", 4, client=client) as down, TrainingDataUploader("l", client=client) as up:
        wait = asyncio.create_task(down.init_samples(20))
        await waiting(client)
        await anyio.to_thread.run_sync(mortal.stop)
        await anyio.to_thread.run_sync(mortal.start)
        await up.put_batch(numbers(0, 4))
        await wait


@pytest.mark.slow
async def test_clusters(cluster: RedisCluster, anyio_backend: object) -> None:
    """In a cluster the shard that owns a list tells of it: every list's data are noticed at once, by both faces."""
    with cluster.client() as admin:
        admin.flushall(target_nodes="primaries")
    async with Client(cluster.addresses[0], cluster=True) as client:
        for name in ("a", "b", "c", "d"):  # slots on different shards
            async with DataDownloader(name, 4, client=client) as down, TrainingDataUploader(name, client=client) as up:
                wait = asyncio.create_task(down.init_samples(10))
                with anyio.fail_after(5):
                    while f"__keyspace@0__:{name}".encode() not in [
                        one
                        for shard in cluster.addresses
                        for one in await client.execute("PUBSUB", "CHANNELS", address=shard)
                    ]:
                        await anyio.sleep(0.001)
                await up.put_batch(numbers(0, 4), numbers(0, 4))
                start = time.perf_counter()
                await wait
                assert time.perf_counter() - start < 0.3


@pytest.mark.slow
def test_clusters_when_blocking(cluster: RedisCluster) -> None:
    """The blocking face listens to several shards at once, for the lists of several producers."""
    with cluster.client() as admin:
        admin.flushall(target_nodes="primaries")
    with SyncClient(cluster.addresses[1], cluster=True, get_prefixes=["p", "q"]) as blocking:
        with SyncDataDownloader("l", 2, client=blocking) as both, later(lambda: produce_in(cluster.addresses[2])):
            both.init_samples(10)
        assert both.num_samples == 2


def produce_in(address: str) -> None:
    """One sample each from two producers with prefixes."""
    for name in ("p", "q"):
        with SyncClient(address, cluster=True, put_prefix=name) as client:
            SyncTrainingDataUploader("l", client=client).put_batch(numbers(0, 1))


# -- SmartRedis


@pytest.mark.parametrize("info", [True, False])
@pytest.mark.slow
def test_the_real_smartredis(address: str, uploader: SyncTrainingDataUploader, info: bool) -> None:
    """What the uploader stores is what SmartRedis reads, and what SmartSim's uploader stores (by it) is read here."""
    python = interpreter()
    if python is None:
        missing("there is no Python with SmartRedis (make smartredis)")
    theirs = SmartRedis(python, SSDB=address, SR_DB_TYPE="Standalone")
    try:
        put(uploader, 2)
        uploader.publish_info()
        found = theirs.get_datasets_from_list("l")
        assert [one.name for one in found] == ["training_samples_0", "training_samples_1"]
        np.testing.assert_array_equal(found[1].get_tensor("samples"), numbers(5, 5))
        stored = theirs.get_dataset("l_info")
        assert (stored.get_meta_strings("target_name"), stored.get_meta_scalars("num_classes").tolist()) == (
            ["targets"],
            [3],
        )
        batch = DataSet("training_samples_0_0")
        batch.add_tensor("x", numbers(3, 4))
        batch.add_tensor("y", numbers(4, 4))
        theirs.put_dataset(batch)
        theirs.append_to_list("m", batch)
        told = DataSet("m_info")
        told.add_meta_string("sample_name", "x")
        told.add_meta_string("target_name", "y")
        theirs.put_dataset(told)
        with SyncDataDownloader("m" if info else DataInfo("m", "x", "y"), 4, address=address, timeout=5) as down:
            ((samples, targets),) = list(down)
            np.testing.assert_array_equal(samples + 1, targets)
    finally:
        theirs.close()


# -- loaders


@pytest.fixture(scope="module")
def loaders() -> Any:
    """asim's loaders for PyTorch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import asim.ml.torch
            import asim.ml.torch_data
    except asim.MissingExtraError:
        missing("torch is not installed")
    return asim.ml.torch


def collected(loader: Any) -> list[int]:
    """The samples of one epoch."""
    return sorted(int(x) for samples, _ in loader for x in samples[:, 0])


@pytest.mark.parametrize(
    ("workers", "method"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(120)
@pytest.mark.slow
def test_torch_loaders(
    address: str, uploader: SyncTrainingDataUploader, loaders: Any, workers: int, method: Any
) -> None:
    """Workers deal the list out among themselves, each over its own connection, and each epoch has what came meanwhile."""
    import torch

    uploader.publish_info()
    put(uploader, 4)
    options = {"num_workers": workers, "multiprocessing_context": method, "timeout": 60 if workers else 0}
    with (
        loaders.DynamicDataGenerator("l", 5, address=address, timeout=5) as growing,
        loaders.StaticDataGenerator("l", 5, address=address, timeout=5) as fixed,
    ):
        dynamic, static = loaders.DataLoader(growing, **options), loaders.DataLoader(fixed, **options)
        samples, targets = next(iter(static))
        assert (type(samples), samples.dtype, targets.dtype) == (torch.Tensor, torch.float32, torch.int64)
        assert collected(dynamic) == collected(static) == list(range(20))
        put(uploader, 2)
        assert collected(static) == list(range(20))
        assert collected(dynamic) == list(range(30))


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_torch_worker_without_data(address: str, uploader: SyncTrainingDataUploader, loaders: Any) -> None:
    """A worker for which there is nothing says so in the parent, with the text of its own error."""
    put(uploader, 1)
    dataset = loaders.StaticDataGenerator("l", 5, address=address, timeout=0.2)
    with pytest.raises(DatabaseTimeout, match="0 samples are there, not 5"):
        collected(loaders.DataLoader(dataset, num_workers=2, multiprocessing_context="fork"))
    with pytest.raises(ConfigError, match="batch_size"):
        loaders.DataLoader(dataset, batch_size=3)
    with pytest.raises(TypeError, match="must be a StaticDataGenerator"):
        loaders.DataLoader([1, 2])


ORPHANS = """
import sys
from asim.ml.torch import DataLoader, DynamicDataGenerator
loader = iter(DataLoader(DynamicDataGenerator("nothing", address=sys.argv[1]), num_workers=2, multiprocessing_context="fork"))
print(*[worker.pid for worker in loader._workers], flush=True)
next(loader)
"""


@pytest.mark.timeout(60)
@pytest.mark.slow
def test_orphaned_torch_workers_end(address: str, loaders: Any) -> None:
    """Workers that wait for data without a time limit end when the process that they are for is killed."""
    root = str(Path(asim.__file__).parents[1])
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", ORPHANS, address], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": root})  # fmt: skip
    with process, SyncClient(address) as client:
        assert process.stdout
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2
        deadline = time.monotonic() + 20
        while client.execute("PUBSUB", "NUMSUB", "__keyspace@0__:nothing")[1] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        while any(alive(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.01)


KERAS = """
import os, sys
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3")
import keras, numpy as np
from asim.ml import SyncTrainingDataUploader
from asim.ml.tf import DynamicDataGenerator, StaticDataGenerator
up = SyncTrainingDataUploader("l", num_classes=3, address=sys.argv[1])
up.publish_info()
put = lambda: up.put_batch(np.random.rand(8, 2).astype("f4"), np.arange(8) % 3)
put()
class Produce(keras.callbacks.Callback):
    seen = []
    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(0)
        put()
    def on_train_batch_end(self, batch, logs=None):
        self.seen[-1] += 1
static, dynamic = (kind("l", 4, address=sys.argv[1], timeout=5) for kind in (StaticDataGenerator, DynamicDataGenerator))
x, y = static[0]
assert x.shape == (4, 2) and y.shape == (4, 3) and (y.sum(1) == 1).all(), y
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
model.compile("sgd", "categorical_crossentropy")
for data, want in ((static, [2, 2, 2]), (dynamic, [2, 10, 12])):
    Produce.seen = []
    for _ in range(3):
        model.fit(data, verbose=0, callbacks=[Produce()])
    assert Produce.seen == want, Produce.seen
Produce.seen = []
model.fit(dynamic, epochs=3, verbose=0, callbacks=[Produce()])
assert Produce.seen == [14, 14, 14] and len(dynamic) == 20, (Produce.seen, len(dynamic))
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_keras_loaders(address: str) -> None:
    """``model.fit`` takes the generators; the dynamic one has in the next fit what came during the one before."""
    root = str(Path(asim.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KERAS, address], capture_output=True, text=True, timeout=180, check=False,
                          env={**os.environ, "PYTHONPATH": root})  # fmt: skip
    if "asim[tensorflow]" in done.stderr or "No module named 'keras'" in done.stderr:
        missing("tensorflow is not installed")
    assert done.returncode == 0, done.stderr[-3000:]
