"""What is asked of a host where things run, and of the agent that does it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ..agent.protocol import Completed, Environment, FileAction, ProcessSpec

OnSeen = Callable[[Sequence[tuple[str, str]]], None]
"""Called in the event loop with names and contents of new files."""


class Host(Protocol):
    """One host where processes can be started and files made, near or far."""

    async def spawn(self, specs: Iterable[ProcessSpec]) -> None:
        """Hand over processes; they start in order, and their starts and ends come back as news."""

    async def files(self, actions: Iterable[FileAction]) -> None:
        """Do file actions in order; all of them are done when this returns.

        :raises FileActionError: at the first that fails; the later ones are not done.
        """

    def stop(self, keys: Sequence[int], grace: float) -> None:
        """Stop processes: SIGTERM to the group, ``grace`` seconds, SIGKILL. The ends come back as news."""

    async def run(
        self,
        command: Sequence[str],
        *,
        cwd: str = "/",
        env: Environment = (),
        stdin: str = "",
        timeout: float = 60.0,
        limit: int = 64 << 20,
        lasting: bool = False,
    ) -> Completed:
        """Run a command to its end, and return what it wrote. It is no job: it counts for no cap, and has no records.

        :param command: its words; the first is looked up in the PATH that it will have.
        :param cwd: its directory.
        :param env: changes to the environment; None removes a variable.
        :param stdin: what it reads; text with surrogate escapes stands for any bytes.
        :param timeout: seconds after which it is stopped.
        :param limit: bytes of output, of either kind, after which it is stopped.
        :param lasting: it may take long, and others need not wait for it: only a few run at once otherwise.
        :returns: also when it could not be started or was stopped: ``code`` is None then, and ``stderr`` says why.
        :raises AgentError: the agent is gone.
        Cancellation: the command is stopped.
        """

    def watch(self, directory: str, seconds: float, on_seen: OnSeen) -> None:
        """Look into a directory again and again, and report each new file once.

        :param directory: absolute; it may come to be later. Files whose names begin with a dot are not reported.
        :param seconds: time between two looks; 0: no longer.
        :param on_seen: called with (name, the first 4 KiB of the content) of what was found in one look.
        """


class Agent(Protocol):
    """How an agent is started and reached; what it does is asked for through the connection that it was given.

    :ivar options: what the driver's first message to it must have, beside its own.
    """

    options: Mapping[str, object]

    async def start(self, connection: asyncio.Protocol) -> None:
        """Start it and connect.

        :raises AgentError: it cannot be started or reached.
        """

    async def last_words(self) -> str:
        """Wait until an agent whose stream has ended is gone; what it wrote to its standard error."""

    def kill(self) -> None:
        """End it by force; what it has started is left to :meth:`rescue`."""

    def detach(self) -> None:
        """Let it live on without us."""

    async def close(self) -> None:
        """Let go of all that leads to it; the last call."""

    async def rescue(self, run: str, grace: float, leaders: Iterable[int]) -> None:
        """After it died: stop what it left running, and wait until all of that is gone.

        :raises AgentError: that cannot be done, or nobody can say whether it was.
        """

    async def read(self, path: str) -> bytes:
        """A file there, whole; b"" when there is none. Also when the agent is gone."""
