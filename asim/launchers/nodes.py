"""Members as processes of an agent on each node of an allocation, instead of a run command for each.

One command of the workload manager starts the agents. They call the driver by TCP, both sides prove that they know the
secret (:mod:`asim.agent.node`), and from then on each is a host like any other. The driver hands a node as many members
as it has CPUs for; what it learns when one ends, it gives to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, cast

import anyio
import psutil

from ..agent.protocol import Completed, ProcessSpec
from ..errors import AgentError, SubmitError
from ..status import JobState
from ..transport.connection import AgentConnection, NewsRow
from ..transport.local import AGENT
from .base import JobKey, JobStatus, Sink
from .local import status_of

if TYPE_CHECKING:
    from ..plan import JobSpec

WITHIN = 120.0
"""Seconds in which the agents must have called."""
SILENT = 120
"""Seconds after which a node that answers nothing counts as gone."""


class _Node:
    """One agent."""

    def __init__(self, name: str, cpus: int, connection: AgentConnection) -> None:
        self.name, self.cpus, self.connection = name, cpus, connection
        self.running: dict[JobKey, int] = {}

    @property
    def free(self) -> int:
        return self.cpus - sum(self.running.values())


class NodeAgents:
    """The agents of one allocation.

    :param run: token of the experiment's run; marks its processes.
    :param folder: directory for the secret and the records, on a file system that the nodes see.
    :param python: interpreter on the nodes.
    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, run: str, folder: str, python: str, grace: float, sink: Sink) -> None:
        self._run, self._folder, self._python, self._grace, self._sink = run, folder, python, grace, sink
        self.secret = secrets.token_hex(32)
        self._nodes: list[_Node] = []
        self._queue: deque[tuple[JobKey, JobSpec]] = deque()
        self._server: asyncio.Server | None = None
        self._changed = anyio.Event()
        self._arrivals: deque[_Node] = deque()
        self._over = ""
        self._count = 0
        self._leaving = False

    @property
    def secret_path(self) -> str:
        """The file with the secret."""
        return f"{self._folder}/.asim-{self._run}.secret"

    def has(self, key: JobKey) -> bool:
        """Whether this one waits or runs here."""
        return any(key in node.running for node in self._nodes) or any(key == other for other, _ in self._queue)

    @property
    def gone(self) -> bool:
        """Whether no agent is left, and none will come."""
        return not self._nodes and bool(self._over)

    @property
    def alive(self) -> list[JobKey]:
        """Those that wait or run here."""
        return [key for node in self._nodes for key in node.running] + [key for key, _ in self._queue]

    # -- starting

    async def listen(self) -> tuple[str, ...]:
        """Begin to listen; returns the command that is to run on each node."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Door(self.secret.encode(), self._came), "0.0.0.0", 0)  # noqa: S104
        port = self._server.sockets[0].getsockname()[1]
        where = (",".join(_addresses()), str(port), self.secret_path)
        return (self._python, "-I", "-S", "-E", str(AGENT), "node", *where)

    async def ready(self, nodes: int) -> None:
        """Wait until so many agents have called.

        :raises SubmitError: one did not.
        """
        with anyio.move_on_after(WITHIN):
            while len(self._nodes) < nodes and not self._over:
                await self._changed.wait()
        if len(self._nodes) < nodes:
            words = self._over or f"they did not call within {WITHIN:g} s"
            raise SubmitError(f"{len(self._nodes)} of {nodes} agents in the allocation could be started: {words}")

    def starter_ended(self, done: Completed) -> None:
        """A command that held agents has ended: nothing more comes from them."""
        self._over = done.words()
        self._stir()

    def give_up(self, words: str) -> None:
        """No more agents come, for this reason."""
        self._over = self._over or words
        self._stir()

    def _came(self, name: str, cpus: int, transport: asyncio.Transport, rest: bytes) -> None:
        node: _Node

        def news(rows: Sequence[NewsRow]) -> None:
            self._news(node, rows)

        def lost(_: AgentError | None) -> None:
            self._gone(node)

        _keep_alive(transport.get_extra_info("socket"))
        connection = AgentConnection(news, lost)
        node = _Node(name, cpus, connection)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if rest:
            connection.data_received(rest)
        self._arrivals.append(node)
        self._stir()

    async def _greet(self) -> None:
        while self._arrivals:
            node = self._arrivals.popleft()
            self._count += 1
            records = f"{self._folder}/{self._run}.{self._count}-{node.name}.exits.jsonl"
            try:
                await node.connection.hello(run=self._run, cap=None, grace=self._grace, records=records, on_eof="stop")
            except AgentError:
                continue
            self._nodes.append(node)
            self._stir()

    # -- work

    def submit(self, jobs: Sequence[tuple[JobKey, JobSpec]]) -> None:
        """Take members; they start in order as nodes have room."""
        self._queue.extend(jobs)
        self._stir()

    async def serve(self) -> None:
        """Hand out members until the end."""
        while not self._leaving:
            changed = self._changed
            await self._greet()
            await self._feed()
            await changed.wait()

    async def _feed(self) -> None:
        shares: dict[_Node, list[ProcessSpec]] = {}
        while self._queue and self._nodes:
            key, spec = self._queue[0]
            node = max(self._nodes, key=lambda node: node.free)
            if node.free < min(spec.cpus, max(other.cpus for other in self._nodes)):
                break  # one that wants more than any node has gets the largest for itself
            self._queue.popleft()
            node.running[key] = spec.cpus
            shares.setdefault(node, []).append(
                ProcessSpec(
                    key=key, argv=spec.argv, env=spec.env, cwd=spec.cwd, stdout=spec.stdout, stderr=spec.stderr,
                    limit=spec.timeout,
                )
            )  # fmt: skip
        for node, specs in shares.items():
            with contextlib.suppress(AgentError):  # it went meanwhile, and its members were told to have failed
                await node.connection.spawn(specs)
        if self._queue and self.gone:
            rows = [(key, JobStatus(JobState.FAILED, 0.0, reason=self._over)) for key, _ in self._queue]
            self._queue.clear()
            self._sink(rows)

    def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        """Stop members wherever they stand."""
        wanted = set(keys)
        waiting = [key for key, _ in self._queue if key in wanted]
        self._queue = deque(row for row in self._queue if row[0] not in wanted)
        self._sink([(key, JobStatus(JobState.CANCELLED, 0.0, reason="stopped before it started")) for key in waiting])
        for node in self._nodes:
            here = [key for key in node.running if key in wanted]
            if here:
                node.connection.stop(here, grace)

    async def aclose(self) -> None:
        """Stop everything, and let the agents go."""
        self._leaving = True
        self.cancel(self.alive, self._grace)
        async with anyio.create_task_group() as group:
            for node in list(self._nodes):
                group.start_soon(node.connection.bye)
        if self._server is not None:
            self._server.close()
        self._stir()

    def _news(self, node: _Node, rows: Sequence[NewsRow]) -> None:
        evidence = [(JobKey(row[0]), status_of(row)._replace(host=node.name)) for row in rows]
        for key, status in evidence:
            if status.state.terminal:
                node.running.pop(key, None)
        self._sink(evidence)
        self._stir()

    def _gone(self, node: _Node) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
        words = f"NODE_FAIL: its agent on {node.name} is gone"
        self._sink([(key, JobStatus(JobState.FAILED, 0.0, reason=words)) for key in node.running])
        if not self._nodes and not self._leaving:
            self._over = self._over or "all agents in the allocation are gone"
        self._stir()

    def _stir(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class _Door(asyncio.Protocol):
    """A connection of which nobody knows yet whose it is."""

    def __init__(self, secret: bytes, came: Callable[[str, int, asyncio.Transport, bytes], None]) -> None:
        self._secret, self._came = secret, came
        self._buffer = b""
        self._mine = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        asyncio.get_running_loop().call_later(30.0, self._late)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            if not self._mine:
                self._mine = secrets.token_hex(16).encode()
                self._transport.write(self._proof(b"driver", line) + b" " + self._mine + b"\n")
                continue
            words = line.split()
            transport, self._transport = self._transport, None
            if len(words) == 3 and hmac.compare_digest(words[0], self._proof(b"node", self._mine)):
                self._came(os.fsdecode(words[1]), max(1, int(words[2])), transport, self._buffer)
            else:
                transport.abort()
            return
        if len(self._buffer) > 1000:
            self._transport.abort()

    def _proof(self, who: bytes, number: bytes) -> bytes:
        return hmac.new(self._secret, who + number, "sha256").hexdigest().encode()

    def _late(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _keep_alive(sock: socket.socket) -> None:
    """A node that vanishes without a word is noticed after :data:`SILENT` seconds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SILENT // 2), ("TCP_KEEPINTVL", SILENT // 8), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT * 1000)


def _addresses() -> list[str]:
    """Where other hosts may find this one: its name, then its addresses, loopback last."""
    found = [row.address for rows in psutil.net_if_addrs().values() for row in rows if row.family == socket.AF_INET]
    return [socket.gethostname(), *sorted(found, key=lambda address: address.startswith("127."))]
