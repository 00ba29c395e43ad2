"""Processes of a far host: the local launcher, with its agent at the other end of an SSH connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ..agent.protocol import FileAction
from ..config import Config
from ..errors import AsimError
from ..transport.far import FarHost
from .base import Sink
from .local import LocalLauncher

if TYPE_CHECKING:
    from ..transport.host import Agent


class FarLauncher(LocalLauncher):
    """See :class:`~asim.launchers.base.Launcher`. What is attached here is sent there before it is copied.

    :param far: the host.
    """

    def __init__(
        self,
        config: Config,
        far: FarHost,
        *,
        run: str,
        records: str,
        max_concurrent: int | None,
        grace: float,
        detach: bool,
    ) -> None:
        agent: Agent = far.agent()
        super().__init__(
            config, run=run, records=records, max_concurrent=max_concurrent, grace=grace, detach=detach, agent=agent
        )
        self._far, self._leaves = far, detach  # an agent that hears nothing for long has left them running, as asked

    async def open(self, sink: Sink, lost: Callable[[AsimError], None]) -> Mapping[str, object]:
        about = await super().open(sink, lost)
        self._far.bind(self.host)
        return about

    async def files(self, actions: Iterable[FileAction]) -> None:
        await super().files(await self._far.staged(actions))
