"""Both faces of the client against a real cluster, also while slots move from shard to shard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import anyio
import numpy as np
import pytest
import redis

from asim import Client, DatabaseError, DataSet, SyncClient
from asim.client.keys import slot_of
from tests.chaos.conftest import anyio_backend as anyio_backend

from ..servers import RedisCluster, RedisServer, until
from .databases import cluster as cluster

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(cluster: RedisCluster, anyio_backend: object) -> AsyncIterator[Client]:
    """An async client of the cluster, which is empty."""
    async with Client(cluster.addresses[1], cluster=True, connect_timeout=5, timeout=10) as client:
        await client.flush_db()
        yield client


def owner(cluster: RedisCluster, slot: int) -> RedisServer:
    """The shard that has a slot."""
    with cluster.servers[0].client() as one:
        for first, last, (_, port, *_), *_ in rows(one):
            if first <= slot <= last:
                return next(server for server in cluster.servers if server.port == port)
    raise AssertionError(f"nobody has {slot}")


def rows(one: redis.Redis) -> list[Any]:
    """CLUSTER SLOTS as it is on the wire."""
    connection = one.connection_pool.get_connection()
    connection.send_command("CLUSTER", "SLOTS")
    reply: list[Any] = connection.read_response()
    one.connection_pool.release(connection)
    return reply


class Move:
    """A slot on its way from its shard to another."""

    def __init__(self, cluster: RedisCluster, slot: int) -> None:
        self.slot, self.cluster = slot, cluster
        self.source = owner(cluster, slot)
        self.target = next(server for server in cluster.servers if server is not self.source)
        self.ids = {server: self.ask(server, "CLUSTER", "MYID").decode() for server in (self.source, self.target)}

    @staticmethod
    def ask(server: RedisServer, *words: object) -> Any:
        """One command to one server."""
        with server.client() as one:
            return one.execute_command(*words)

    def begin(self) -> None:
        """From now on keys that are not on the source are on the target."""
        self.ask(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.ids[self.source])
        self.ask(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.ids[self.target])

    def keys(self) -> None:
        """Move what is there."""
        for key in self.ask(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, 1000):
            self.ask(self.source, "MIGRATE", "127.0.0.1", self.target.port, key, 0, 5000, "REPLACE")

    def end(self) -> None:
        """From now on the target has the slot, and everybody knows."""
        for server in (self.target, self.source, *self.cluster.servers):
            self.ask(server, "CLUSTER", "SETSLOT", self.slot, "NODE", self.ids[self.target])
        until(lambda: owner(self.cluster, self.slot) is self.target, 10, "the slot's new owner")


async def hop(call: Any, *args: Any) -> Any:
    """A blocking call of the test in a thread."""
    return await anyio.to_thread.run_sync(lambda: call(*args))


async def test_keys_are_spread(client: Client, cluster: RedisCluster) -> None:
    """Tensors go to the shards of their slots, and come back from there, also many in one pipeline."""
    async with client.pipeline() as pipe:
        for number in range(60):
            pipe.put_tensor(f"k{number}", np.full(2, number))
    sizes = [await hop(Move.ask, server, "DBSIZE") for server in cluster.servers]
    assert sum(sizes) == 60
    assert min(sizes) > 5
    async with client.pipeline() as pipe:
        got = [pipe.get_tensor(f"k{number}") for number in range(60)]
    assert [int(one.value[0]) for one in got] == list(range(60))


async def test_renaming_between_shards(client: Client) -> None:
    """Tensors and lists are renamed and copied also when the names are on different shards."""
    dataset = DataSet("d")
    dataset.add_tensor("t", np.arange(3))
    await client.put_dataset(dataset)
    names = [f"n{number}" for number in range(6)]
    assert len({slot_of(name.encode()) // 5462 for name in names}) > 1
    await client.put_tensor(names[0], np.arange(4))
    await client.append_to_list("list_" + names[0], dataset)
    for old, new in pairwise(names):
        await client.rename_tensor(old, new)
        await client.rename_list("list_" + old, "list_" + new)
        assert not await client.key_exists(old)
    assert (await client.get_tensor(names[-1])).tolist() == [0, 1, 2, 3]
    assert [one.name for one in await client.get_datasets_from_list("list_" + names[-1])] == ["d"]


async def test_moved_slots_are_followed(client: Client, cluster: RedisCluster) -> None:
    """While a slot moves (ASK) and after it has (MOVED) every operation finds its keys; none is lost or doubled."""
    tags = {f"{{m}}{number}": np.full(3, number) for number in range(6)}
    dataset = DataSet("m")
    dataset.add_tensor("t", np.arange(5))
    for name, data in tags.items():
        await client.put_tensor(name, data)
    await client.put_dataset(dataset)

    async def check() -> None:
        async with client.pipeline() as pipe:
            got = [pipe.get_tensor(name) for name in tags]
        for one, data in zip(got, tags.values(), strict=True):
            np.testing.assert_array_equal(one.value, data)
        assert (await client.get_dataset("m")).get_tensor("t").tolist() == [0, 1, 2, 3, 4]
        assert not await client.tensor_exists("{m}none")

    move = await hop(Move, cluster, slot_of(b"m"))
    await hop(move.begin)
    await check()
    await client.put_tensor("{m}new", np.zeros(1))  # by ASK: it is not on the source
    assert await hop(move.ask, move.source, "CLUSTER", "COUNTKEYSINSLOT", move.slot) == 8
    await hop(move.keys)
    await check()
    assert await client.tensor_exists("{m}new")
    await hop(move.end)
    await check()
    with SyncClient(cluster.addresses[2], cluster=True, connect_timeout=5) as other:
        await hop(other.put_tensor, "{m}0", np.full(3, 0))
    back = await hop(Move, cluster, slot_of(b"m"))
    await hop(back.begin)
    await hop(back.keys)
    await hop(back.end)
    await check()


async def test_slots_move_under_load(client: Client, cluster: RedisCluster) -> None:
    """Tasks that write and read while a slot moves back and forth never see an error or an old value."""
    moving = asyncio.get_running_loop().run_in_executor(None, to_and_fro, cluster, slot_of(b"load"))

    async def work(number: int) -> int:
        turn = 0
        while not moving.done():
            await client.put_tensor(f"{{load}}{number}", np.full(100, turn))
            assert (await client.get_tensor(f"{{load}}{number}"))[0] == turn
            turn += 1
        return turn

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(number)) for number in range(4)]
    await moving
    assert min(task.result() for task in tasks) > 0


def to_and_fro(cluster: RedisCluster, slot: int) -> None:
    """Move a slot with all it has, four times."""
    for _ in range(4):
        move = Move(cluster, slot)
        move.begin()
        while move.ask(move.source, "CLUSTER", "COUNTKEYSINSLOT", slot):
            move.keys()
        move.end()


async def test_models_are_on_every_shard(client: Client, cluster: RedisCluster) -> None:
    """Models and scripts are stored once for each range of slots, as SmartRedis wants it, and deleted from each."""
    with cluster.servers[0].client() as one:
        ports = [row[2][1] for row in await hop(rows, one)]
    ranges = [ports.count(server.port) for server in cluster.servers]
    await client.set_script("s", "def f(x):\n    return x\n")
    await client.set_model("m", b"model", "TORCH")
    assert [await hop(Move.ask, server, "DBSIZE") for server in cluster.servers] == [2 * one for one in ranges]
    assert len(await client.get_ai_info(None, "m")) == 3
    assert {one["key"] for one in await client.get_ai_info(None, "m")} == {"m"}
    await client.delete_model("m")
    await client.delete_script("s")
    assert [await hop(Move.ask, server, "DBSIZE") for server in cluster.servers] == [0, 0, 0]


async def test_failed_runs_leave_no_copies(client: Client, cluster: RedisCluster) -> None:
    """A run that fails removes the copies of its inputs that it made on the model's shard."""
    for number in range(3):
        await client.put_tensor(f"in{number}", np.zeros(1))
    with pytest.raises(DatabaseError):
        await client.run_model("none", [f"in{number}" for number in range(3)], ["out"])
    assert sum([await hop(Move.ask, server, "DBSIZE") for server in cluster.servers]) == 3


async def test_servers_by_address(client: Client, cluster: RedisCluster) -> None:
    """Each server answers for itself; without an address all are asked."""
    infos = await client.get_db_node_info()
    assert {one["Server"]["tcp_port"] for one in infos} == {str(server.port) for server in cluster.servers}
    one = cluster.addresses[2]
    assert (await client.get_db_node_info(one))[0]["Server"]["tcp_port"] == one.rpartition(":")[2]
    assert [info["cluster_state"] for info in await client.get_db_cluster_info()] == ["ok"] * 3
