"""The agents on the nodes of the allocation that the driver is in: started when the first member wants one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from ..agent.protocol import Completed
from ..config import Config
from ..errors import AgentError, SubmitError, UnsupportedError, allowed
from ..settings.mpi import Flavor, flavor_of
from .base import JobKey, Sink
from .nodes import NodeAgents
from .spreading import allocation_of, hosts_of, loader, nodefile_of, starters, ways

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from ..transport.connection import Host

FOREVER = 1e9
MARGIN = 10.0
"""Seconds beyond the grace that it may take to clean up."""


class Allocation:
    """See the module.

    :param launcher: name of the workload manager.
    :param config: the environment, which tells of the allocation, and the interpreter.
    :param run: token of the experiment's run.
    :param folder: a directory that the nodes see.
    :param grace: seconds between SIGTERM and SIGKILL.
    :param host: gives the connection to the agent of the driver's own host.
    :ivar tasks: the task group in which agents are looked after.
    """

    def __init__(
        self, launcher: str, config: Config, run: str, folder: str, grace: float, host: Callable[[], Host]
    ) -> None:
        self._launcher, self._config, self._host = launcher, config, host
        self._run, self._folder, self._grace = run, folder, grace
        self._agents: NodeAgents | None = None
        self._starting: NodeAgents | None = None
        self._holding: anyio.CancelScope | None = None  # a scope cannot be made outside an event loop
        self._closed = False
        self._lock = anyio.Lock()
        self.tasks: TaskGroup | None = None

    async def agents(self, sink: Sink) -> NodeAgents:
        """The agents, ready.

        :param sink: takes the evidence about their members.
        :raises SubmitError: they could not be started.
        :raises UnsupportedError: we are in no allocation.
        """
        async with self._lock:
            if self._closed:
                raise SubmitError("the experiment ended")
            if self._agents is not None and self._agents.gone:  # with its members; others can do without it
                await self._agents.aclose()
                self._agents = None
                if self._holding is not None:
                    self._holding.cancel()  # whatever still waits for a node that is lost
            if self._agents is None:
                self._agents = await self._start(sink)
        return self._agents

    def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        """Stop those of these members that are here."""
        if self._agents is not None:
            self._agents.cancel(keys, grace)

    async def aclose(self) -> None:
        """Stop all members and agents; those that are still being started are given up."""
        self._closed = True
        if self._starting is not None:
            self._starting.give_up("the experiment ended")
        async with self._lock:
            if self._agents is not None:
                await self._agents.aclose()

    async def _start(self, sink: Sink) -> NodeAgents:
        environ = self._config.environ
        words, allocation = ways(self._launcher, environ), allocation_of(self._launcher, environ)
        if not allocation or self.tasks is None:
            what = "only inside an allocation: in salloc, or when the driver itself runs in a batch job"
            raise UnsupportedError(allowed("placement", "agent", what))
        way, hosts = await self._way(words), await self._hosts()
        flavor = await self._flavor() if way == "mpirun" else None
        agents = self._starting = NodeAgents(self._run, self._folder, self._config.python, self._grace, sink)
        holding = self._holding = anyio.CancelScope()
        count = int(environ.get("SLURM_JOB_NUM_NODES", "0")) or len(set(hosts)) or 1
        secret, start = agents.secret_path, f"{self._folder}/.asim-{self._run}.start.py"
        try:
            command = await agents.listen()
            await self._host().files(
                [
                    ("mkdirs", self._folder),
                    ("remove", secret), ("write", secret, agents.secret, 0o600),
                    ("remove", start), ("write", start, loader(environ), 0o600),
                ]
            )  # fmt: skip
            self.tasks.start_soon(agents.serve)
            commands = starters(way, self._launcher, allocation, count, hosts, command, start, flavor)
            self.tasks.start_soon(self._hold_all, agents, commands, holding)
            await agents.ready(count)
        except BaseException:
            with anyio.move_on_after(self._grace + MARGIN, shield=True):
                await agents.aclose()
            holding.cancel()
            raise
        finally:
            self._starting = None
            with anyio.move_on_after(MARGIN, shield=True), contextlib.suppress(AgentError):
                await self._host().files([("remove", secret), ("remove", start)])
        return agents

    async def _way(self, words: Sequence[str]) -> str:
        """The first of these programs that is here."""
        for word in words:
            if await to_thread.run_sync(partial(shutil.which, word, path=self._config.search_path)):
                return word
        raise UnsupportedError(allowed("placement", "agent", f"needs {' or '.join(words)} in PATH"))

    async def _hosts(self) -> list[str]:
        """The allocation's hosts, as often as each has a slot."""
        path = nodefile_of(self._launcher, self._config.environ)
        try:
            text = await anyio.Path(path).read_text() if path else ""
        except (OSError, UnicodeDecodeError) as exc:
            raise SubmitError(f"the hosts of the allocation cannot be read: {exc}") from None
        return hosts_of(self._launcher, self._config.environ, text)

    async def _flavor(self) -> Flavor | None:
        """Whose mpirun it is."""
        done = await self._host().run(("mpirun", "--version"), timeout=MARGIN)
        return flavor_of(done.stdout + done.stderr)

    async def _hold_all(
        self, agents: NodeAgents, commands: Sequence[Sequence[str]], holding: anyio.CancelScope
    ) -> None:
        with holding:
            async with anyio.create_task_group() as group:
                for command in commands:
                    group.start_soon(self._hold, agents, command)

    async def _hold(self, agents: NodeAgents, starter: Sequence[str]) -> None:
        """The command that started agents runs as long as they do."""
        try:
            agents.starter_ended(await self._host().run(starter, timeout=FOREVER, lasting=True))
        except AgentError as exc:
            agents.starter_ended(Completed(tuple(starter), None, "", str(exc)))
