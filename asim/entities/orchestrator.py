"""A database to deploy: one server, or a cluster of shards."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Protocol

from ..database.address import STANDARD
from ..errors import ConfigError, ConfigTypeError, DatabaseError, UnsupportedError, allowed
from ..policies import When
from ..settings import BatchSettings
from ..settings._text import checked
from ..units import Seconds, seconds
from . import checks
from .base import Entity
from .colocation import Option, interfaces_of, options_of
from .mlobjects import whole
from .model import Model
from .reserved import BATCH_ARGS, RUN_ARGS

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]+")


class DatabaseHandle(Protocol):
    """What a running database can be asked; see :class:`asim.database.server.RunningDatabase`."""

    @property
    def addresses(self) -> Sequence[str]: ...

    @property
    def hosts(self) -> Sequence[str]: ...

    @property
    def checkpoint(self) -> str: ...

    async def alive(self) -> bool: ...

    async def configure(self, name: str, value: str) -> None: ...

    async def remove_stale_files(self) -> None: ...


class DBNode(Model):
    """One shard of a database, as the job that it runs in. Made by :class:`Orchestrator`."""

    __slots__ = ("database", "shard")

    def __init__(self, database: Orchestrator, shard: int) -> None:
        super().__init__(f"{database.name}_{shard}", {}, database.run_settings, enable_key_prefixing=False)
        self.database, self.shard = database, shard


class Orchestrator(Entity):
    """A database to deploy: a real Redis with asim's engine in it; one server, or a cluster of shards.

    :param path: directory of its files; default ``<experiment>/<db_identifier>``.
    :param port: TCP port; 0: any free one. Shards on one host take consecutive ones.
    :param interface: network interface(s) to listen on; clients are told the address of the first.
    :param launcher: what starts it; an Experiment's ``create_database`` gives its own.
    :param run_command: "auto", or the parallel start prefix of the shards.
    :param db_nodes: number of shards: 1, or 3 and more for a cluster.
    :param batch: submit it as a batch job of its own.
    :param hosts: hosts to run on, for launchers that have several.
    :param account: account or project, with ``batch``.
    :param time: walltime ``HH:MM:SS``, with ``batch``.
    :param queue: queue or partition, with ``batch``.
    :param single_cmd: start all shards by one command, where the launcher can.
    :param threads_per_queue: models run at once by each worker of the engine; threads of a framework between operations
        (``inter_op_threads``) and inside of one (``intra_op_threads``); 0: chosen.
    :param db_identifier: its name; with another than "orchestrator", variables have it as a suffix (``SSDB_<name>``).
    :param load_from: RDB file(s) to start from, one per shard.
    :param unix_socket: also listen at this path (one shard only). ``module``: another engine's file than asim's own.
    :param start_timeout: seconds in which each server must answer; loading a large file takes time.
    :param kwargs: ``workers_per_device``, ``model_execution_timeout``, ``worker_memory`` (see ``colocate_db_tcp``); all
        else are options of Redis, "_" standing for "-", e.g. ``maxmemory="1gb"``.
    :raises ConfigError: naming the field, the value, and what is allowed.
    :raises UnsupportedError: 2 nodes; a batch job with a launcher that has none.
    """

    SERVICE = True
    __slots__ = (
        "_handle", "_shards", "batch_settings", "cpus", "engine", "interfaces", "launcher", "load_from", "module",
        "options", "port", "requested_hosts", "run_settings", "single_cmd", "start_timeout", "unix_socket",
    )  # fmt: skip

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        port: int = 6379,
        interface: str | Sequence[str] = "lo",
        launcher: str = "local",
        run_command: str = "auto",
        db_nodes: int = 1,
        batch: bool = False,
        hosts: str | Sequence[str] | None = None,
        account: str | None = None,
        time: str | None = None,
        alloc: str | None = None,
        single_cmd: bool = True,
        *,
        queue: str | None = None,
        threads_per_queue: int | None = None,
        inter_op_threads: int | None = None,
        intra_op_threads: int | None = None,
        db_identifier: str = STANDARD,
        load_from: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        unix_socket: str | None = None,
        module: str | os.PathLike[str] | None = None,
        start_timeout: Seconds = 30,
        **kwargs: Option,
    ) -> None:
        if not _IDENTIFIER.fullmatch(checked("db_identifier", db_identifier)):
            what = "must be letters, digits, '_', '-' and '.', as it becomes part of the name of a variable"
            raise ConfigError(allowed("db_identifier", db_identifier, what))
        super().__init__(db_identifier, path, None, None)
        self.launcher = launcher
        self.port = checks.port_of(self.name, port, nodes := checks.nodes_of(self.name, db_nodes))
        self.interfaces = interfaces_of(f"{self.name}: interface", interface)
        self.single_cmd = bool(single_cmd)
        engine = {"threads_per_queue": threads_per_queue, "inter_op_threads": inter_op_threads}
        self.options, self.engine = options_of(
            self.name, {**engine, "intra_op_threads": intra_op_threads, **kwargs}, ()
        )
        self.load_from = checks.files_of(self.name, load_from, nodes)
        if self.load_from and self.options.get("appendonly", "no").lower() == "yes":
            what = "Redis loads nothing else then; set_db_conf('appendonly', 'yes') can follow"
            raise ConfigError(allowed(f"{self.name}: appendonly", "yes", what))
        self.unix_socket = checks.socket_of(self.name, unix_socket, nodes)
        self.module = "" if module is None else checked(f"{self.name}: module", os.fspath(module))
        self.start_timeout = seconds(f"{self.name}: start_timeout", start_timeout) or 30.0
        self.cpus: int | None = None
        self.run_settings = checks.run_settings_of(self.name, launcher, run_command, alloc)
        given = {"nodes": nodes, "account": account, "time": time, "queue": queue}
        self.batch_settings = checks.batch_settings_of(self.name, launcher, batch, given)
        self.requested_hosts: tuple[str, ...] = ()
        if hosts is not None:
            self.set_hosts(hosts)
        self._handle: DatabaseHandle | None = None
        self._shards = tuple(DBNode(self, shard) for shard in range(nodes))

    # -- what it is

    @property
    def db_identifier(self) -> str:
        """Its name."""
        return self.name

    @property
    def db_nodes(self) -> int:
        """Number of shards."""
        return len(self._shards)

    num_shards = db_nodes

    @property
    def models(self) -> tuple[DBNode, ...]:
        """The shards, as the jobs that they run in."""
        return self._shards

    entities = models

    @property
    def batch(self) -> bool:
        """Whether it is a batch job of its own."""
        return self.batch_settings is not None

    @property
    def is_cluster(self) -> bool:
        """Whether it has several shards."""
        return len(self._shards) > 1

    @property
    def hosts(self) -> list[str]:
        """The hosts that it runs on; before it runs, those that were asked for."""
        return list(self._handle.hosts if self._handle else self.requested_hosts)

    @property
    def checkpoint_file(self) -> str:
        """The file that ``reconnect_orchestrator`` needs, written when it is ready.

        :raises DatabaseError: it was never started.
        """
        return self._running().checkpoint

    def get_address(self) -> list[str]:
        """``host:port`` of each shard.

        :raises DatabaseError: it does not run.
        """
        return list(self._running().addresses)

    # -- a running one

    def _running(self) -> DatabaseHandle:
        if self._handle is None:
            raise DatabaseError(f"database {self.name} is not running; start it first")
        return self._handle

    async def is_active(self) -> bool:
        """Whether every shard answers, and a cluster has all its slots. Never raises; takes 5 s at most."""
        return self._handle is not None and await self._handle.alive()

    async def set_db_conf(self, key: str, value: str | float) -> None:
        """Set an option of the running servers, as ``CONFIG SET`` does, on every shard.

        :raises DatabaseError: it does not run, or a server refuses.
        """
        if not isinstance(key, str):
            raise ConfigTypeError(allowed(f"{self.name}: key", key, "must be a str"))
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ConfigTypeError(allowed(f"{self.name}: value", value, "must be a str or a number"))
        await self._running().configure(key, str(value))

    async def enable_checkpoints(self, frequency: int) -> None:
        """Save the data to disk ``frequency`` seconds after a change."""
        await self.set_db_conf("save", f"{whole(f'{self.name}: frequency', frequency, least=1)} 1")

    async def set_max_memory(self, mem: str | int) -> None:
        """Let each shard use no more memory than this: bytes, or text such as "3gb"; 0 is no limit."""
        await self.set_db_conf("maxmemory", mem)

    async def set_eviction_strategy(self, strategy: str) -> None:
        """What happens when memory is full, e.g. "noeviction" or "allkeys-lru"."""
        await self.set_db_conf("maxmemory-policy", strategy)

    async def set_max_clients(self, clients: int = 50_000) -> None:
        """How many connections each shard takes."""
        await self.set_db_conf("maxclients", clients)

    async def set_max_message_size(self, size: int = 1_073_741_824) -> None:
        """The largest tensor or model in one command, in bytes."""
        await self.set_db_conf("proto-max-bulk-len", size)

    async def remove_stale_files(self) -> None:
        """Remove the files of earlier deployments, which were moved aside when this one was started.

        :raises DatabaseError: it does not run.
        """
        await self._running().remove_stale_files()

    # -- before it runs

    def after(self, *others: Entity, when: When = "completed") -> None:
        """Not for databases: they are started before everything else.

        :raises UnsupportedError: always.
        """
        what = "a database is started before everything else; it cannot wait"
        raise UnsupportedError(allowed(f"{self.name}: after", [other.name for other in others], what))

    def reset_hosts(self) -> None:
        """Forget the hosts that were asked for."""
        self.requested_hosts = ()

    def set_cpus(self, num_cpus: int) -> None:
        """CPUs that each shard may use. (The local launcher does not limit it.)"""
        self.cpus = whole(f"{self.name}: num_cpus", num_cpus, least=1)
        if self.launcher != "local":
            self.run_settings.set_cpus_per_task(self.cpus)

    def set_hosts(self, host_list: str | Sequence[str]) -> None:
        """Run on these hosts.

        :raises UnsupportedError: the local launcher has one host only.
        """
        listed = [host_list] if isinstance(host_list, str) else list(host_list)
        names = [checked(f"{self.name}: hosts", name).strip() for name in listed]
        if not names or not all(names):
            raise ConfigError(allowed(f"{self.name}: hosts", host_list, "must be one or more names of hosts"))
        if self.launcher == "local":
            raise UnsupportedError(allowed(f"{self.name}: hosts", host_list, "the local launcher has this host only"))
        self.requested_hosts = tuple(names)
        self.run_settings.set_hostlist(names)

    def set_walltime(self, walltime: str) -> None:
        """How long the batch job may run, ``HH:MM:SS``."""
        self._batch_settings("walltime", walltime).set_walltime(walltime)

    def set_batch_arg(self, arg: str, value: str | None = None) -> None:
        """An argument of the batch job. Those that asim gives itself are refused."""
        settings = self._batch_settings(arg, value)
        if arg.lstrip("-") in BATCH_ARGS.get(self.launcher, ()):
            raise ConfigError(allowed(f"{self.name}: batch argument", arg, "asim itself gives this argument"))
        settings.batch_args[arg.lstrip("-")] = value

    def set_run_arg(self, arg: str, value: str | None = None) -> None:
        """An argument of the run command. Those that asim gives itself are refused."""
        if not self.run_settings.run_command:
            what = "this database is started without a run command"
            raise UnsupportedError(allowed(f"{self.name}: run argument", arg, what))
        if arg.lstrip("-") in RUN_ARGS.get(self.run_settings.run_command, ()):
            raise ConfigError(allowed(f"{self.name}: run argument", arg, "asim itself gives this argument"))
        self.run_settings.set(arg, value)

    def _batch_settings(self, field: str, value: object) -> BatchSettings:
        if self.batch_settings is None:
            raise UnsupportedError(allowed(f"{self.name}: {field}", value, "this database is no batch job"))
        return self.batch_settings
