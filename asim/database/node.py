"""One shard: ``python -m asim.database.node CONFIG SHARD`` starts a redis-server and watches it until either is to end.

1. Reads :class:`~asim.database.config.NodeConfig`, looks up addresses and a port, writes ``redis.conf``, starts the server.
2. Waits until it answers PING, tells it what applications may do, and writes one JSON file (atomically): where it can be
   reached, or ``{"error": …}``.
3. Lives as long as the server does, and the server as long as the node: SIGTERM ends both, and so does the death of the
   node's parent; if the node is killed, the kernel ends the server.

Blocking, and light on imports, as its start is part of everybody's waiting. Exit code 0: the server was asked to end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..config import Config
from ..engine.installed import require_module
from ..errors import AsimError, allowed
from .config import ADMIN, NodeConfig, nodes_conf, redis_conf
from .inference import Inference
from .ranks import needed
from .security import rules
from .server_process import SIGNALS, TICK, ServerProcess
from .server_program import INSTALL, addresses_of, can_listen, check_port, claim_socket, find_server, free_port
from .talk import Address, Refused, Talk

TRIES = 3
"""How often another free port is taken when somebody was faster."""


class Node:
    """One shard's server.

    :param parent: process whose end is the node's; 0: none.
    """

    def __init__(self, config: NodeConfig, shard: int, parent: int) -> None:
        self.config, self.shard, self.parent = config, shard, parent
        self.home = config.shard_directory(shard)
        self.server: ServerProcess | None = None
        self.inference: Inference | None = None
        self.ip, self.port = "", 0
        self._lock = -1
        self._claim: socket.socket | None = None

    def start(self) -> dict[str, Any]:
        """Start the server; what to report when it can be used.

        :raises AsimError: why it cannot.
        """
        config = self.config
        program = find_server(Config.from_env().environ)
        if program is None:
            given = Config.from_env().environ.get("ASIM_REDIS_SERVER")
            what = "is no executable file; give an absolute path. Or: " + INSTALL
            raise AsimError(allowed("ASIM_REDIS_SERVER", given, what) if given else INSTALL)
        own = not config.module
        config = self.config = replace(config, module=config.module or require_module())
        self._prepare_home()
        if own:
            self.inference = Inference(config, self.shard, self.home)
        addresses = addresses_of(config.interfaces)
        self.ip = addresses[0]
        for patience in reversed(range(TRIES)):
            self._configure(addresses)
            server = ServerProcess(program, f"{self.home}/redis.conf", config.log_file(self.shard), self._cpus())
            self.server = server
            try:
                version = self._wait_until_ready(server)
                break
            except AsimError:  # somebody may have taken the free port meanwhile
                if not patience or server.pid or not self._lost_port(addresses):
                    raise
        return self._report(server, version)

    def _lost_port(self, addresses: list[str]) -> bool:
        chosen = bool(self.config.ports) and not self.config.ports[self.shard]
        return chosen and not all(can_listen(address, self.port) for address in addresses)

    def _configure(self, addresses: list[str]) -> None:
        self.port = self._choose_port(addresses)
        if self.config.node_ids:
            self._write("nodes.conf", nodes_conf(self.config, self.shard, self.ip, self.port))
        told = self.inference.told(self.config) if self.inference else self.config
        self._write("redis.conf", redis_conf(told, self.shard, self.port, addresses))

    def _report(self, server: ServerProcess, version: dict[str, str]) -> dict[str, Any]:
        config = self.config
        return {
            "run": config.run,
            "shard": self.shard,
            "host": socket.gethostname(),
            "ip": self.ip,
            "port": self.port,
            "socket": config.socket,
            "pid": server.pid,
            "node_pid": os.getpid(),
            "node_id": config.node_ids[self.shard] if config.node_ids else "",
            **version,
        }

    def _prepare_home(self) -> None:
        """An empty directory of its own; what an earlier deployment left is moved aside, never loaded, never lost."""
        os.makedirs(self.config.directory, exist_ok=True)
        self._lock = os.open(f"{self.home}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AsimError(f"path: a database that uses {self.home} is still running") from None
        except OSError:
            pass  # a file system without locks
        source = open(self.config.load_from[self.shard], "rb") if self.config.load_from else None  # noqa: SIM115
        if os.path.isdir(self.home):
            number = 1
            while os.path.lexists(f"{self.home}.{number}"):
                number += 1
            os.rename(self.home, f"{self.home}.{number}")  # what is loaded may be in it: it is open already
        os.mkdir(self.home, 0o700)
        if source:
            import shutil

            with source, open(f"{self.home}/dump.rdb", "xb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)

    def _choose_port(self, addresses: list[str]) -> int:
        if self.config.socket and self._claim is None:
            self._claim = claim_socket(self.config.socket)
        if not self.config.ports:
            return 0  # a socket only
        wanted, cluster = self.config.ports[self.shard], bool(self.config.node_ids)
        if not wanted:
            return free_port(addresses, cluster)
        check_port(addresses, wanted, cluster)
        return wanted

    def _cpus(self) -> list[int]:
        if not self.config.cpus or not hasattr(os, "sched_getaffinity"):
            return []
        here = os.sched_getaffinity(0)
        found = sorted(here & set(self.config.cpus))
        if not found and self.config.any_cpus:
            found = sorted(here)[: len(self.config.cpus)]
        if not found:
            raise AsimError(
                f"custom_pinning: none of the cpus {list(self.config.cpus)} is available, only {sorted(here)}"
            )
        return found

    def _write(self, name: str, text: str) -> None:
        fd = os.open(f"{self.home}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    def _wait_until_ready(self, server: ServerProcess) -> dict[str, str]:
        """PING until it answers.

        :raises AsimError: it ended, or did not answer in time.
        """
        address: Address = (self.ip, self.port) if self.port else self.config.socket
        patience, last = time.monotonic() + self.config.deadline, "no answer"
        pause = 0.001
        while time.monotonic() < patience:
            if server.ended() is not None:
                raise AsimError(f"redis-server ended while it started: {server.log_tail()}")
            try:
                return self._introduce(Talk(address, self.config.deadline))
            except (OSError, Refused) as exc:
                last = str(exc)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        raise AsimError(f"redis-server was not ready after {self.config.deadline:g} s ({last}): {server.log_tail()}")

    def _introduce(self, talk: Talk) -> dict[str, str]:
        """Tell a server that answers what applications may do.

        :raises Refused: it is still loading, or refuses.
        """
        try:
            talk("AUTH", ADMIN, self.config.secret)
            talk("PING")
            if self.inference:
                self.inference.introduce(talk)
            for words, must in rules():
                try:
                    talk("ACL", "SETUSER", "default", *words)
                except Refused:
                    if must:
                        raise
            with contextlib.suppress(Refused):  # 6.2 does not know it, and goes on when it is to end and cannot save
                talk("CONFIG", "SET", "shutdown-on-sigterm", "force")
            info = talk("INFO", "server")
            assert isinstance(info, bytes)
            rows = dict(line.split(":", 1) for line in info.decode("utf-8", "replace").splitlines() if ":" in line)
            return {"version": rows["redis_version"], "run_id": rows["run_id"]}
        finally:
            talk.close()

    def unwanted(self) -> bool:
        """Whether nobody needs the server any more."""
        if self.parent and os.getppid() != self.parent:
            return True
        return bool(self.config.alive) and self._deserted()

    def _deserted(self) -> bool:
        """Whether the last rank has gone. From then on no other is let in: see :class:`asim.database.colocated.Place`."""
        if needed(self.config.alive):
            return False
        door = os.open(f"{self.config.directory}/lock", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(door, fcntl.LOCK_EX)
        if needed(self.config.alive):  # one came in meanwhile
            os.close(door)
            return False
        return True  # the door stays locked until this process ends

    def watch(self, server: ServerProcess) -> int:
        """See to the server and its workers until it ends. Returns the exit code."""
        period = 0.1 if self.config.alive else TICK
        if self.inference is None:
            return server.watch(self.unwanted, period)
        self.inference.start(self._cpus())
        return server.watch(self.unwanted, period, self.inference.tend)

    def clean(self) -> None:
        """Leave no process behind, and nothing at all of a database that was only for one job."""
        if self.inference:
            self.inference.stop()
        if self.config.alive:
            import shutil

            shutil.rmtree(self.config.directory, ignore_errors=True)


def write_report(config: NodeConfig, shard: int, report: dict[str, Any]) -> None:
    """Write the report: all of it or nothing."""
    path = config.report(shard)
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(report, file)
    os.replace(f"{path}.new", path)


def run(config: NodeConfig, shard: int, parent: int) -> int:
    """Start, report, watch. Returns the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    node = Node(config, shard, parent)
    try:
        report = node.start()
        write_report(config, shard, report)
        server = node.server
        assert server is not None
    except (AsimError, OSError) as exc:
        return _failed(config, shard, node, str(exc))
    try:
        return node.watch(server)
    finally:
        node.clean()


def _failed(config: NodeConfig, shard: int, node: Node, words: str) -> int:
    if node.server:
        node.server.kill()
    if node.inference:
        node.inference.stop()
    print(words, file=sys.stderr)
    try:
        write_report(config, shard, {"run": config.run, "shard": shard, "error": words})
    except OSError as exc:
        print(f"and that could not be reported: {exc}", file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    """``node CONFIG SHARD``; the shard may be "rank", in a command that starts all of them."""
    with open(arguments[0], "rb") as file:
        config = NodeConfig.from_json(file.read())
    shard = rank_of(Config.from_env().environ) if arguments[1] == RANK else int(arguments[1])
    return run(config, shard, 0 if config.alive else os.getppid())


RANK = "rank"
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "PALS_RANKID", "ALPS_APP_PE", "SLURM_PROCID")


def rank_of(environ: Mapping[str, str]) -> int:
    """The number of this process among those that one parallel command started; 0 where nothing tells."""
    return next((int(environ[name]) for name in _RANKS if environ.get(name, "").isdigit()), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
