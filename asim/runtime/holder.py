"""The launcher of one experiment: opened when it is first needed, replaced when it is lost, and let go at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import anyio

from ..agent.protocol import FileAction
from ..errors import AgentError, AsimError
from ..launchers.base import JobKey, Launcher, reached
from .journal import Diary
from .monitor import Monitor
from .owner import Owner

LOG = logging.getLogger("asim")
LOOK = 1.0
"""Seconds between two looks whether a link that is cut has come back."""


class Holder:
    """Holds the launcher.

    :param make: makes one for this run.
    :param grace: seconds between SIGTERM and SIGKILL.
    :param margin: seconds beyond the grace that ending may take before the driver gives up waiting.
    :ivar patience: seconds that the end of anything may take.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Launcher],
        monitor: Monitor,
        owner: Owner,
        diary: Diary,
        grace: float,
        margin: float,
    ) -> None:
        self._name, self._make, self.grace = name, make, grace
        self.patience = grace + margin
        self._monitor, self._owner, self._diary = monitor, owner, diary
        self._launcher: Launcher | None = None
        self._opening = anyio.Lock()
        self.closed = False
        self.about: Mapping[str, object] = {}

    @property
    def host(self) -> str:
        """Where jobs run."""
        return str(self.about.get("host", ""))

    async def opened(self) -> Launcher:
        """The launcher, ready.

        :raises AgentError: the experiment is closed, or it could not be opened.
        """
        async with self._opening:
            if self.closed:
                raise AgentError(f"experiment {self._name} is closed")
            if self._launcher is None:
                launcher = self._make()
                self.about = await launcher.open(self._monitor.evidence, self._lost)
                self._launcher = launcher
                self._owner.start_soon(launcher.serve)
                self._diary.introduce(launcher.name, self.about)
        return self._launcher

    async def files(self, actions: Sequence[FileAction]) -> None:
        """Do these where jobs run."""
        await (await self.opened()).files(actions)

    async def cancel(self, keys: Sequence[JobKey]) -> None:
        """Ask for the end of attempts."""
        launcher = self._launcher
        if launcher is not None:
            await launcher.cancel(keys, self.grace)
            self._owner.start_soon(self._watch, launcher, keys)

    async def _watch(self, launcher: Launcher, keys: Sequence[JobKey]) -> None:
        """An agent that does not tell the end of what it was asked to stop, though it can be reached, is as good as dead."""
        asked = anyio.current_time()
        while launcher is self._launcher and self._monitor.has(keys):
            since = reached(launcher)  # it may have learnt only then what it was asked
            left = LOOK if since is None else max(asked, since) + self.patience - anyio.current_time()
            if left <= 0:
                launcher.abort()
                return
            await anyio.sleep(left)

    def _lost(self, error: AsimError) -> None:
        """The launcher can no longer see its jobs: what it left is seen to, the next start gets a new one."""
        launcher, self._launcher = self._launcher, None
        if launcher is not None:
            LOG.error("%s: %s; looking after what it left running", self._name, error)
            self._owner.start_soon(self._recover, launcher, error)

    async def _recover(self, launcher: Launcher, error: AsimError) -> None:
        theirs, words = self._monitor.live, f"what it left running may still run on {self.host or 'its host'}"
        try:
            words = await launcher.recover() or "what it left running was stopped"
        except (AsimError, OSError) as exc:
            LOG.error("%s: %s", self._name, exc)
        self._monitor.lost(theirs, f"{error}; {words}")

    async def write_decided(self) -> None:
        """Ends that no launcher has seen are for the driver to write down."""
        decided, self._monitor.decided = self._monitor.decided, []
        if decided and self._launcher is not None:
            try:
                await self._diary.ended(self._launcher, decided)
            except AsimError as exc:
                LOG.error("%s: %s", self._name, exc)

    async def shut(self) -> None:
        """From now on no launcher is opened."""
        async with self._opening:
            self.closed = True

    async def let_go(self, keep: Collection[JobKey] | Literal["all"]) -> None:
        """Stop all but ``keep``; by force, if the launcher does not answer."""
        launcher = self._launcher
        if launcher is not None:
            with anyio.move_on_after(self.patience) as patience:
                await launcher.close(keep)
            if patience.cancelled_caught:
                launcher.abort()
