"""What one deployment of a database is told, and the ``redis.conf`` of one of its shards. Pure text in, text out.

The driver writes a :class:`NodeConfig` as JSON, readable by its owner only; ``python -m asim.database.node`` reads it, once
per shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

from ..errors import AsimError

ADMIN = "asim"
"""The Redis user of asim itself. Applications are the user ``default``."""
BUS = 10_000
"""A shard of a cluster talks to the others on its port plus this."""
SLOTS = 16_384
LARGEST = "64gb"
"""The largest argument that a server takes; the stock limit is 512 MiB."""
FORMING_TIMEOUT_MS = 500
"""``cluster-node-timeout`` while a cluster forms; see :mod:`asim.database.cluster`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One deployment: what is the same for all its shards.

    :ivar name: the database's identifier; shard *i* is called ``<name>_<i>``.
    :ivar run: a word that no other deployment has.
    :ivar directory: absolute; each shard has a directory of its own in it.
    :ivar ports: one per shard; 0: any free one.
    :ivar interfaces: network interfaces to listen on; the first is the one that clients are told.
    :ivar module: the engine's file, with its arguments in ``module_args``; "": none.
    :ivar secret: password of the user :data:`ADMIN`.
    :ivar node_ids: of a cluster, the id of each shard; empty: it is no cluster.
    :ivar options: further options of Redis.
    :ivar socket: path of a Unix domain socket, with its permissions (octal digits as a decimal number).
    :ivar load_from: RDB files to start from, one per shard; or none.
    :ivar cpus: numbers of the CPUs that a shard is pinned to; empty: none.
    :ivar any_cpus: whether as many others do as well, if none of these is to be had.
    :ivar deadline: seconds in which a shard must answer.
    :ivar alive: file that the processes which need this database hold locked; "": it lives until it is stopped.
    :ivar log: file for the server's log; "": one in the shard's directory.
    :ivar workers_per_device: processes that run models, per device, each with ``threads_per_queue`` models at once.
    :ivar inter_op_threads: of a framework between operations, as ``intra_op_threads`` inside of one; 0: chosen.
    :ivar model_execution_timeout: milliseconds after which a run, or the loading of a model, is ended; 0: never.
    :ivar worker_memory: bytes that each of these processes may use; 0: no limit; None: a share of the host's.
    """

    name: str
    run: str
    directory: str
    ports: Sequence[int]
    interfaces: Sequence[str]
    secret: str
    module: str = ""
    module_args: Sequence[str] = ()
    node_ids: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    socket: str = ""
    socket_permissions: int = 700
    load_from: Sequence[str] = ()
    cpus: Sequence[int] = ()
    any_cpus: bool = False
    deadline: float = 30.0
    alive: str = ""
    log: str = ""
    workers_per_device: int = 1
    threads_per_queue: int = 1
    inter_op_threads: int = 0
    intra_op_threads: int = 0
    model_execution_timeout: int = 600_000
    worker_memory: int | None = None

    def to_json(self) -> str:
        """As the text that :meth:`from_json` reads."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> NodeConfig:
        """From the text that :meth:`to_json` made.

        :raises AsimError: it is something else.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as exc:
            known = ", ".join(item.name for item in fields(cls))
            raise AsimError(f"this is no configuration of a database node ({exc}); it has the fields {known}") from exc

    def shard_name(self, shard: int) -> str:
        """What shard ``shard`` is called."""
        return f"{self.name}_{shard}"

    def shard_directory(self, shard: int) -> str:
        """Where its files are."""
        return f"{self.directory}/{self.shard_name(shard)}"

    def log_file(self, shard: int) -> str:
        """Where its server's log is."""
        return self.log or f"{self.shard_directory(shard)}/redis.log"

    def workers_log(self, shard: int) -> str:
        """Where is what its inference workers print."""
        return (
            f"{self.log.removesuffix('.log')}-workers.log" if self.log else f"{self.shard_directory(shard)}/workers.log"
        )

    def report(self, shard: int) -> str:
        """The file in which it says, once, where it can be reached, or why not."""
        return f"{self.directory}/.asim-{self.shard_name(shard)}.{self.run}.json"


def config_path(directory: str, name: str) -> str:
    """Where the driver writes a :class:`NodeConfig`. (The agent removes only files with such names.)"""
    return f"{directory}/.asim-{name}.json"


def checkpoint_path(directory: str, name: str) -> str:
    """Where the driver writes what ``reconnect_orchestrator`` needs."""
    return f"{directory}/{name}.checkpoint.json"


def slot_ranges(shards: int) -> list[tuple[int, int]]:
    """First and last hash slot of each shard, as even as they can be."""
    edges = [round(SLOTS * number / shards) for number in range(shards + 1)]
    return [(first, following - 1) for first, following in pairwise(edges)]


def new_id(run: str, shard: int) -> str:
    """A node id, 40 hexadecimal digits, for a shard of a cluster."""
    return hashlib.sha1(f"{run} {shard}".encode(), usedforsecurity=False).hexdigest()


def quoted(text: str) -> str:
    """A word of ``redis.conf`` that may have blanks, quotes and odd bytes in it."""
    shown = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f'"{shown}"'


def redis_conf(node: NodeConfig, shard: int, port: int, addresses: Sequence[str]) -> str:
    """The configuration file of one shard.

    :param port: TCP port, 0: none.
    :param addresses: IP addresses to listen on, the announced one first.
    """
    return "\n".join(_lines(node, shard, port, addresses)) + "\n"


def _lines(node: NodeConfig, shard: int, port: int, addresses: Sequence[str]) -> Iterator[str]:
    yield f"dir {quoted(node.shard_directory(shard))}"
    yield f"logfile {quoted(node.log_file(shard))}"
    yield "dbfilename dump.rdb"
    yield f"port {port}"
    yield f"bind {' '.join(addresses)}"
    yield "protected-mode no"  # what the default user may do is limited below, and so are the interfaces
    if node.socket:
        yield f"unixsocket {quoted(node.socket)}"
        yield f"unixsocketperm {node.socket_permissions}"
    yield f"user {ADMIN} on #{hashlib.sha256(node.secret.encode()).hexdigest()} ~* &* +@all"
    yield "user default off"  # until the node has told it what applications may do
    yield 'save ""'
    yield "appendonly no"
    yield "maxclients 50000"
    yield "notify-keyspace-events Kl"  # who waits for new data is told when a list grows
    yield f"proto-max-bulk-len {LARGEST}"
    yield f"client-query-buffer-limit {LARGEST}"
    if node.node_ids:
        yield "cluster-enabled yes"
        yield "cluster-config-file nodes.conf"
        yield f"cluster-announce-ip {addresses[0]}"
        yield f"cluster-node-timeout {FORMING_TIMEOUT_MS}"
        yield "cluster-require-full-coverage no"  # while it forms; the driver then asks for full coverage
    if node.module:
        yield " ".join(["loadmodule", quoted(node.module), *map(quoted, node.module_args)])
    for name, value in node.options.items():
        yield f"{name} {value or quoted('')}"


FIXED = frozenset({
    "aclfile", "bind", "cluster-announce-ip", "cluster-config-file", "cluster-enabled", "cluster-port", "daemonize",
    "dbfilename", "dir", "include", "logfile", "loadmodule", "pidfile", "port", "protected-mode", "rename-command",
    "replicaof", "requirepass", "slaveof", "supervised", "tls-port", "unixsocket", "unixsocketperm", "user",
})  # fmt: skip
"""Options that asim decides, so that users cannot give them."""


def nodes_conf(node: NodeConfig, shard: int, ip: str, port: int) -> str:
    """The cluster file with which a shard starts: a replica of a node that is not there, which has all slots.

    A shard that starts as a *master* stays in the state "fail" for 2 s, whatever else is done: Redis wants to be sure that
    nobody took over meanwhile. A replica does not wait; the driver makes it a master by ``CLUSTER FAILOVER TAKEOVER``
    (:mod:`asim.database.cluster`), which leaves the state "ok".
    """
    absent = absent_id(node)
    return (
        f"{node.node_ids[shard]} {ip}:{port}@{port + BUS} myself,slave {absent} 0 0 1 connected\n"
        f"{absent} 127.0.0.1:1@2 master - 0 0 1 connected 0-{SLOTS - 1}\n"
        "vars currentEpoch 1 lastVoteEpoch 0\n"
    )


def absent_id(node: NodeConfig) -> str:
    """The id of the node that is not there."""
    return new_id(node.run, -1)


def report_of(data: bytes, run: str) -> dict[str, Any] | None:
    """What a shard has reported, if it is of this deployment."""
    try:
        report = json.loads(data)
    except ValueError:
        return None
    return report if isinstance(report, dict) and report.get("run") == run else None
