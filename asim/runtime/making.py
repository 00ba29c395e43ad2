"""Directories of entities, made by the agent of the host where the jobs will run: all of a unit, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain

from .. import generate as gen
from ..errors import AgentError, FileActionError
from ..launchers.base import Launcher
from ..plan import LaunchPlan

LOG = logging.getLogger("asim")


class Maker:
    """Makes the units of plans, and keeps the parameters of all entities that it made.

    :param path: the experiment's directory.
    :param token: makes temporary names unlike those of other runs.
    """

    def __init__(self, path: str, token: str) -> None:
        self._path, self._token = path, token
        self._params: Mapping[str, Mapping[str, object]] = {}

    async def make(self, launcher: Launcher, plan: LaunchPlan) -> None:
        """Build beside, then rename.

        :raises FileActionError: the file system refused; what was there before is there still.
        """
        units, token, path = plan.units, self._token, self._path
        params = {**self._params, **{model.name: model.params for unit in units for model, _ in unit.models}}
        actions = chain(
            [("mkdirs", path)],
            gen.build(units, plan.layouts, token),
            gen.write_params(path, params, token),
            gen.swap(units, token),
            gen.place_params(path, token),
        )
        try:
            await launcher.files(actions)
        except BaseException:
            await self._undo(launcher, units)
            raise
        self._params = params
        for unit in units:
            for model, below in unit.models:
                model._generated = f"{unit.target}/{below}" if below else unit.target
            if unit.ensemble is not None:
                unit.ensemble._generated = unit.target
        await launcher.files(gen.discard(units, token))

    async def _undo(self, launcher: Launcher, units: Sequence[gen.Unit]) -> None:
        steps = [actions for unit in units for actions in gen.undo(unit, self._token)]
        for actions in (*steps, gen.drop_params(self._path, self._token)):
            try:
                if actions:
                    await launcher.files(actions)
            except (FileActionError, AgentError) as exc:
                LOG.debug("undoing: %s", exc)
