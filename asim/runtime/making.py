"""Directories and files of plans, made by the agent of the host where the jobs will run: all of a unit, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import anyio

from .. import generate as gen
from ..agent.protocol import FileAction
from ..errors import AgentError, FileActionError
from ..launchers.base import Launcher
from ..plan import LaunchPlan
from .spilling import spill

LOG = logging.getLogger("asim")


class Maker:
    """Makes the units of plans, one plan at a time, and keeps the parameters of all entities that it made.

    :param path: the experiment's directory.
    :param token: makes temporary names unlike those of other runs.
    :ivar working: held while a plan is being made.
    """

    def __init__(self, path: str, token: str) -> None:
        self._path, self._token = path, token
        self.params: dict[str, Mapping[str, object]] = {}
        self.working = anyio.Lock()

    async def execute(self, launcher: Launcher, plan: LaunchPlan) -> None:
        """Everything that is to be there before jobs start.

        :raises FileActionError: see :meth:`make`.
        """
        if plan.units:
            await self.make(launcher, plan)
        wanted: list[FileAction] = [("mkdirs", path) for path in plan.directories]
        wanted += [("mkdirs", database.config.directory) for database in plan.databases]
        wanted += [action for path, text in plan.files.items() for action in gen.replaced(path, text)]
        if wanted:
            await launcher.files(wanted)
        await spill(launcher.files, plan.spills)

    async def make(self, launcher: Launcher, plan: LaunchPlan) -> None:
        """Build beside, then put in place.

        :raises FileActionError: the file system refused; of the entity that it was about, what was there is there still.
        """
        async with self.working:
            units, token, path = plan.units, self._token, self._path
            params = {**self.params, **{model.name: model.params for unit in units for model, _ in unit.models}}
            build = chain(
                [("mkdirs", path)], gen.build(units, plan.layouts, token), gen.write_params(path, params, token)
            )
            try:
                await launcher.files(build)
                await launcher.files(gen.swap(units, token))
            except BaseException as exc:
                placed = exc.done if isinstance(exc, FileActionError) and exc.verb == "swap" else 0
                self._made(units[:placed])
                await self._tidy(launcher, gen.undo(units[placed:], token), gen.discard(units[:placed], token))
                await self._tidy(launcher, gen.drop_params(path, token))
                raise
            self.params = params
            self._made(units)
            await self._tidy(launcher, gen.place_params(path, token), gen.discard(units, token))

    def _made(self, units: Iterable[gen.Unit]) -> None:
        for unit in units:
            for model, below in unit.models:
                model._generated = f"{unit.target}/{below}" if below else unit.target
            if unit.ensemble is not None:
                unit.ensemble._generated = unit.target

    async def _tidy(self, launcher: Launcher, *batches: Sequence[FileAction] | Iterable[FileAction]) -> None:
        """What is not worth failing for."""
        for actions in batches:
            try:
                await launcher.files(actions)
            except (FileActionError, AgentError) as exc:
                LOG.warning("after generating in %s: %s", self._path, exc)
