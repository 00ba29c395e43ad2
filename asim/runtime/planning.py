"""The awaitable half of planning: look things up, then plan a slice at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from ..config import Config
from ..members import batch_entities, databases, members, ungenerated, units_of
from ..plan import Context, LaunchPlan
from ..planner import Planner, needs
from .survey import survey


async def plan_start(context: Context, config: Config, entities: Sequence[Any]) -> LaunchPlan:
    """What ``start`` would do with these entities. Nothing is changed.

    :raises ConfigError: anything that could never work.
    """
    found = members(entities)
    units = units_of(context, ungenerated(found))
    wanted = needs(context, found, units, databases(entities))
    facts = await survey(wanted, config.cwd, config.search_path)
    planner = Planner(context, facts)
    planner.generation(units)
    for _ in planner.start(found, batch_entities(entities), databases(entities)):
        await anyio.lowlevel.checkpoint()
    return planner.plan


async def plan_generate(
    context: Context, config: Config, entities: Sequence[Any], *, tag: str, overwrite: bool, strict_tags: bool
) -> LaunchPlan:
    """What ``generate`` would do with these entities. Nothing is changed.

    :raises ConfigError: anything that could never work.
    """
    units = units_of(context, members(entities), again=True)
    facts = await survey(needs(context, (), units), config.cwd, config.search_path)
    planner = Planner(context, facts, tag=tag, strict_tags=strict_tags)
    planner.generation(units, overwrite)
    return planner.plan
