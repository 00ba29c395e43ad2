"""A running database, seen from the driver: asim's own connections to its shards."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio

from ..client.client import Client
from ..client.options import Route
from ..errors import ConfigError, DatabaseConnectionError, DatabaseError, allowed
from .address import Address
from .config import ADMIN, SLOTS

ANSWER = 5.0
"""Seconds in which a shard that is well answers."""
DOWN = "its cluster is down"
REJOIN = 6.0
"""Seconds that a cluster has to come up again: after a standstill, Redis waits up to 5 before it takes part again."""
ROOM = 0.9
"""The part of its memory below which a server that refused a write is thought to have room again."""
CONNECT = 2.0
"""Seconds in which its host accepts a connection."""


class Health(NamedTuple):
    """How a shard is: whether it does its work, and what the user should know of it ("": nothing)."""

    answers: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Where one shard is.

    :ivar pid: of its redis-server; ``node_pid`` of the node that watches it.
    :ivar run_id: what the server calls this life of it.
    """

    name: str
    host: str
    ip: str
    port: int
    socket: str
    pid: int
    node_pid: int
    node_id: str
    version: str
    run_id: str

    @classmethod
    def of(cls, name: str, report: Mapping[str, Any]) -> Shard:
        """From what its node reported."""
        return cls(name=name, **{field: report[field] for field in cls.__slots__ if field != "name"})

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.ip}:{self.port}"


class RunningDatabase:
    """Implements :class:`~asim.entities.orchestrator.DatabaseHandle`.

    :param identifier: the database's name.
    :param checkpoint: file with which it can be found again.
    :param stale: removes the files of earlier deployments.
    :param route: what leads to an address of it from here; None: they are reached as they are.
    """

    def __init__(
        self,
        identifier: str,
        shards: Sequence[Shard],
        secret: str,
        checkpoint: str,
        stale: Callable[[], Awaitable[None]] | None = None,
        route: Route | None = None,
    ) -> None:
        self.route = route
        self.identifier, self.shards, self.secret = identifier, list(shards), secret
        self.checkpoint = checkpoint
        self._stale = stale
        self._memory = [Memory() for _ in self.shards]
        self._clients = [self._client(shard) for shard in self.shards]
        self._let_go = False

    def _client(self, shard: Shard) -> Client:
        return Client(
            shard.address,
            username=ADMIN,
            password=self.secret,
            timeout=ANSWER,
            connect_timeout=CONNECT,
            connections=1,
            route=self.route,
        )

    async def reached(self, address: str) -> str:
        """What leads to one of its addresses from here."""
        return await self.route(address) if self.route else address

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each shard."""
        return [shard.address for shard in self.shards]

    @property
    def hosts(self) -> list[str]:
        """The name of each host, once."""
        return list(dict.fromkeys(shard.host for shard in self.shards))

    @property
    def address(self) -> Address:
        """What applications are told."""
        return Address(identifier=self.identifier, hosts=tuple(self.addresses))

    @property
    def clients(self) -> list[Client]:
        """A client of each shard, as the user ``asim``. Nothing is connected before it is used."""
        return self._clients

    async def alive(self) -> bool:
        """Whether every shard answers, and a cluster has all its slots."""
        found = await self.health()
        if self._let_go:
            await self.aclose()
        return all(shard.answers for shard in found)

    async def health(self) -> list[Health]:
        """How each shard is. Takes :data:`ANSWER` seconds at most."""
        found = [Health(False, "does not answer")] * len(self.shards)

        async def look(number: int) -> None:
            found[number] = await self._look(number)

        with anyio.move_on_after(ANSWER):
            async with anyio.create_task_group() as group:
                for number in range(len(self.shards)):
                    group.start_soon(look, number)
        return found

    async def settled(self) -> list[Health]:
        """The same, but a cluster that is down is given :data:`REJOIN` seconds to come up."""
        found = await self.health()
        with anyio.move_on_after(REJOIN):
            while any(shard.words == DOWN for shard in found):
                await anyio.sleep(REJOIN / 20)
                found = await self.health()
        return found

    async def _look(self, number: int) -> Health:
        client = self._clients[number]
        try:
            info = await ask_info(client, "INFO", "everything")
            if info["run_id"] != self.shards[number].run_id:
                return Health(False, "is another server than the one that was started")
            if len(self.shards) > 1:
                state = await ask_info(client, "CLUSTER", "INFO")
                if state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) != SLOTS:
                    return Health(False, DOWN)
        except DatabaseError as exc:
            return Health(False, f"does not answer ({exc})")
        return Health(True, "; ".join([*troubles(info), *self._memory[number].troubles(info)]))

    async def configure(self, name: str, value: str) -> None:
        """``CONFIG SET`` on every shard.

        :raises DatabaseError: a server refuses, or does not answer.
        """
        for shard, client in zip(self.shards, self._clients, strict=True):
            try:
                await client.execute("CONFIG", "SET", name, value)
            except DatabaseError as exc:
                words = f"{shard.name} refuses {name} = {value!r}: {exc}"
                raise DatabaseError(words, f"CONFIG SET {name} {value}", exc.reply) from exc

    async def shut_down(self) -> None:
        """Ask every shard to end, from wherever this is. Those that have ended already are fine.

        :raises DatabaseError: one refuses, or does not answer.
        """
        refused: list[str] = []
        for shard, client in zip(self.shards, self._clients, strict=True):
            try:
                await client.execute("SHUTDOWN")
            except DatabaseConnectionError:
                pass  # it closed the connection, or there was none to be had
            except DatabaseError as exc:
                refused.append(f"{shard.name} did not end: {exc}")
        if refused:
            raise DatabaseError(f"database {self.identifier}: {'; '.join(refused)}", "SHUTDOWN")

    async def remove_stale_files(self) -> None:
        """Remove what earlier deployments left."""
        if self._stale is not None:
            await self._stale()

    async def aclose(self) -> None:
        """Close the connections; the database goes on, and can still be asked whether it is alive."""
        clients, self._clients = self._clients, [self._client(shard) for shard in self.shards]
        self._let_go = True
        for client in clients:
            await client.aclose()

    # -- to find it again

    def to_json(self) -> str:
        """What :meth:`from_json` needs."""
        shards = [{name: getattr(shard, name) for name in Shard.__slots__} for shard in self.shards]
        data = {"version": 1, "db_identifier": self.identifier, "secret": self.secret, "shards": shards}
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def from_json(cls, path: str, text: str | bytes, route: Route | None = None) -> RunningDatabase:
        """A database that was started by another process, or on another day.

        :param path: where the text was found.
        :raises ConfigError: it is no such text.
        """
        try:
            data = json.loads(text)
            shards = [Shard(**row) for row in data["shards"]]
            if data["version"] != 1 or not shards:
                raise ValueError(f"version {data['version']}, {len(shards)} shards")
            found = cls(data["db_identifier"], shards, data["secret"], path, route=route)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            what = f"is not the checkpoint file of a database ({type(exc).__name__}: {exc})"
            raise ConfigError(allowed("checkpoint", path, what)) from exc
        found._memory = [Memory(None) for _ in shards]
        return found


class Memory:
    """Notices when a server refuses writes as its memory is full, and when there is room again."""

    def __init__(self, refused: int | None = 0) -> None:
        self._refused = refused  # at the last look; None: nobody looked
        self._full = False

    def troubles(self, info: Mapping[str, str]) -> list[str]:
        """What to say of it now."""
        most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
        refused = int(info.get("errorstat_OOM", "count=0").removeprefix("count="))
        again, self._refused = refused > (refused if self._refused is None else self._refused), refused
        self._full = again or (self._full and used > ROOM * most)
        return [f"its memory is full ({most} bytes), so it refuses writes"] if self._full else []


def troubles(info: Mapping[str, str]) -> list[str]:
    """What ``INFO`` says that the user should know."""
    found = []
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        found.append("its last save to disk failed")
    if info.get("aof_last_write_status", "ok") != "ok":
        found.append("it cannot write its append-only file")
    return found


async def ask_info(client: Client, *words: str) -> dict[str, str]:
    """The answer to INFO or CLUSTER INFO, line by line."""
    answer = await client.execute(*words)
    lines = bytes(answer).decode("utf-8", "replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}
