"""Forming a cluster, over the wire.

Each shard starts as a replica of a node that does not exist (:func:`asim.database.config.nodes_conf`) and so in the state
"ok"; here it becomes a master of its share of the slots and meets the others. Formed in the usual way, from masters, the
same servers are "ok" only 2 s after their start, because Redis makes fresh masters wait that long. Should a version not
play along, its shards are "ok" after those 2 s, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from ..errors import DatabaseError
from .config import BUS, SLOTS, NodeConfig, absent_id, slot_ranges
from .server import RunningDatabase

NODE_TIMEOUT_MS = 15_000
"""``cluster-node-timeout`` of a cluster that has formed: Redis' own default."""


async def form(database: RunningDatabase, config: NodeConfig, deadline: float) -> None:
    """Make one cluster of the shards. Returns when all agree that it is complete.

    :param deadline: seconds.
    :raises DatabaseError: they did not agree in time, or a server refused.
    """
    from redis.exceptions import RedisError

    try:
        with anyio.fail_after(deadline):
            for number in range(len(database.shards)):
                await _take_slots(database, config, number)
            await _until_complete(database)
            for connection in database.connections:
                await connection.config_set("cluster-require-full-coverage", "yes")
                await connection.config_set("cluster-node-timeout", NODE_TIMEOUT_MS)
    except TimeoutError:
        words = f"database {config.name}: its shards did not form a cluster within {deadline:g} s"
        raise DatabaseError(f"{words} ({'; '.join(await database.ailments())})") from None
    except (RedisError, OSError) as exc:
        raise DatabaseError(f"database {config.name}: forming a cluster: {exc}", "CLUSTER", str(exc)) from exc


async def _take_slots(database: RunningDatabase, config: NodeConfig, number: int) -> None:
    """One shard: leave the node that is not there, keep one range of its slots, meet the others."""
    ranges = slot_ranges(len(database.shards))
    async with database.connections[number].pipeline(transaction=False) as commands:
        queue: Any = commands.execute_command
        queue("CLUSTER FAILOVER", "TAKEOVER")
        for other, (first, last) in enumerate(ranges):
            if other != number and int(database.shards[number].version.split(".")[0]) >= 7:
                queue("CLUSTER DELSLOTSRANGE", first, last)
            elif other != number:
                queue("CLUSTER DELSLOTS", *range(first, last + 1))
        queue("CLUSTER FORGET", absent_id(config))
        for other, shard in enumerate(database.shards):
            if other > number:
                queue("CLUSTER MEET", shard.ip, shard.port, shard.port + BUS)
        await commands.execute()


async def _until_complete(database: RunningDatabase) -> None:
    pause = 0.005
    while not await _complete(database):
        await anyio.sleep(pause)
        pause = min(pause * 1.3, 0.05)


async def _complete(database: RunningDatabase) -> bool:
    expected = {(shard.ip, shard.port) for shard in database.shards}
    for connection in database.connections:
        state: Any = await connection.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        if state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) != SLOTS:
            return False
        slots: Any = await connection.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        if _owners(slots) != expected:
            return False
    return True


def _owners(slots: Any) -> set[tuple[str, int]]:
    rows: Sequence[Any] = list(slots.values()) if isinstance(slots, dict) else slots
    return {_owner(row) for row in rows}


def _owner(row: Any) -> tuple[str, int]:
    host, port = (row["primary"] if isinstance(row, dict) else row[2])[:2]
    return str(host), int(port)
