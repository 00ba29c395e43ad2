"""Forming a cluster, over the wire.

Each shard starts as a replica of a node that does not exist (:func:`asim.database.config.nodes_conf`) and so in the state
"ok"; here it becomes a master of its share of the slots and meets the others. Formed in the usual way, from masters, the
same servers are "ok" only 2 s after their start, because Redis makes fresh masters wait that long. Should a version not
play along, its shards are "ok" after those 2 s, too.
"""

from __future__ import annotations

from typing import Any

import anyio

from ..errors import DatabaseError
from .config import BUS, SLOTS, NodeConfig, absent_id, slot_ranges
from .server import RunningDatabase, ask_info

NODE_TIMEOUT_MS = 15_000
"""``cluster-node-timeout`` of a cluster that has formed: Redis' own default."""


async def form(database: RunningDatabase, config: NodeConfig, deadline: float) -> None:
    """Make one cluster of the shards. Returns when all agree that it is complete.

    :param deadline: seconds.
    :raises DatabaseError: they did not agree in time, or a server refused.
    """
    try:
        with anyio.fail_after(deadline):
            for number in range(len(database.shards)):
                await _take_slots(database, config, number)
            await _introduce(database)  # not before: for a moment each has had all slots, which none must hear of
            await _until_complete(database)
            await database.configure("cluster-require-full-coverage", "yes")
            await database.configure("cluster-node-timeout", str(NODE_TIMEOUT_MS))
    except TimeoutError:
        words = f"database {config.name}: its shards did not form a cluster within {deadline:g} s"
        shown = "; ".join(shard.words for shard in await database.health())
        raise DatabaseError(f"{words} ({shown})") from None
    except DatabaseError as exc:
        raise DatabaseError(f"database {config.name}: forming a cluster: {exc}", exc.command, exc.reply) from exc


async def _take_slots(database: RunningDatabase, config: NodeConfig, number: int) -> None:
    """One shard: leave the node that is not there, and keep one range of its slots."""
    me, client = database.shards[number], database.clients[number]
    await client.execute("CLUSTER", "FAILOVER", "TAKEOVER")
    for other, (first, last) in enumerate(slot_ranges(len(database.shards))):
        if other != number and int(me.version.split(".")[0]) >= 7:
            await client.execute("CLUSTER", "DELSLOTSRANGE", first, last)
        elif other != number:
            await client.execute("CLUSTER", "DELSLOTS", *range(first, last + 1))
    await client.execute("CLUSTER", "FORGET", absent_id(config))


async def _introduce(database: RunningDatabase) -> None:
    """Let every shard meet those that follow it."""
    for number, client in enumerate(database.clients):
        for shard in database.shards[number + 1 :]:
            await client.execute("CLUSTER", "MEET", shard.ip, shard.port, shard.port + BUS)


async def _until_complete(database: RunningDatabase) -> None:
    pause = 0.005
    while not await _complete(database):
        await anyio.sleep(pause)
        pause = min(pause * 1.3, 0.05)


async def _complete(database: RunningDatabase) -> bool:
    """Whether every shard knows the owner of every slot."""
    expected = {(shard.ip, shard.port) for shard in database.shards}
    for client in database.clients:
        state = await ask_info(client, "CLUSTER", "INFO")
        if state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) != SLOTS:
            return False
        slots: Any = await client.execute("CLUSTER", "SLOTS")
        if {(row[2][0].decode(), row[2][1]) for row in slots} != expected:
            return False
    return True
