"""What jobs have written: read while they run, and copied from a far host."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
from anyio import to_thread

from ..transport.far import FarHost
from .files import read_from
from .job import Job

LOG = logging.getLogger("asim")
AWAY, LOOK = 30.0, 0.5
"""Seconds without a link after which output is left where it is, and between two looks at the link."""


class Written:
    """The output files of one experiment.

    :param far: the host where they are, if it is not this one.
    """

    def __init__(self, far: FarHost | None) -> None:
        self._far = far

    async def fetch(self, jobs: Sequence[Job], to: str) -> list[Path]:
        """Copy those of these jobs from the far host; see ``Experiment.fetch``."""
        assert self._far is not None
        paths = [path for job in jobs for path in (job.spec.stdout, job.spec.stderr)]
        return [Path(path) for path in await self._far.fetch(paths, [job.spec.cwd for job in jobs], to)]

    async def read_from(self, path: str, offset: int) -> bytes:
        """What a file has from there on; nothing if it is not there."""
        if self._far is not None:
            return await self._far.read_from(path, offset)
        return await to_thread.run_sync(read_from, path, offset)

    async def bring_home(self, jobs: Sequence[Job], to: str) -> None:
        """Copy those of what has ended, as the options of the far host have it. A failure is logged, and so is a link
        that is away for :data:`AWAY` seconds: the end of an experiment waits no longer for it.
        """
        if self._far is None or self._far.options.fetch == "never":
            return
        ended = [job for job in jobs if job.status.terminal and not job.is_database]
        if ended:
            why: object = f"there was no link for {AWAY:g} s"
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._give_up, self._far, group.cancel_scope)
                    await self.fetch(ended, to)
                    why = None
                    group.cancel_scope.cancel()
            except* Exception as exc:  # noqa: BLE001  (whatever it is, what still runs must be let go)
                why = exc.exceptions[0]
            if why is not None:
                words = "output files could not be fetched to %s: %s. They are in %s on %s: copy them from there"
                LOG.error(words, to, why, self._far.directory, self._far.host)

    async def _give_up(self, far: FarHost, scope: anyio.CancelScope) -> None:
        """Cancel a scope when the link has been away for too long."""
        since = anyio.current_time()
        while anyio.current_time() < since + AWAY:
            await anyio.sleep(min(LOOK, AWAY))
            if far.linked:
                since = anyio.current_time()
        scope.cancel()
