"""The awaitable half of planning: look things up, then plan a slice at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import anyio
from anyio import to_thread

from ..config import Config
from ..database.objects import Upload, check_objects, claim, upload_of
from ..members import batch_entities, databases, members, ungenerated, units_of
from ..plan import Context, Facts, LaunchPlan, Needs
from ..planner import Planner, needs
from .contents import contents_of
from .survey import survey

Exist = Callable[[Iterable[str]], Awaitable[frozenset[str]]]
"""Which of these paths are taken, on a far host."""


async def _survey(wanted: Needs, config: Config, exist: Exist | None) -> Facts:
    facts = await survey(wanted, config.cwd, config.search_path)
    if exist is None:
        return facts
    return replace(facts, taken=await exist(wanted.targets), real={}, programs={})


async def plan_start(
    context: Context, config: Config, entities: Sequence[Any], exist: Exist | None = None
) -> LaunchPlan:
    """What ``start`` would do with these entities. Nothing is changed.

    :raises ConfigError: anything that could never work.
    """
    found = members(entities)
    units = units_of(context, ungenerated(found))
    wanted = needs(context, found, units, databases(entities))
    facts = await _survey(wanted, config, exist)
    planner = Planner(context, facts)
    planner.generation(units)
    for _ in planner.start(found, batch_entities(entities), databases(entities)):
        await anyio.lowlevel.checkpoint()
    return planner.plan


async def plan_generate(
    context: Context,
    config: Config,
    entities: Sequence[Any],
    exist: Exist | None = None,
    *,
    tag: str,
    overwrite: bool,
    strict_tags: bool,
) -> LaunchPlan:
    """What ``generate`` would do with these entities. Nothing is changed.

    :raises ConfigError: anything that could never work.
    """
    units = units_of(context, members(entities), again=True)
    facts = await _survey(needs(context, (), units), config, exist)
    planner = Planner(context, facts, tag=tag, strict_tags=strict_tags)
    planner.generation(units, overwrite)
    return planner.plan


async def plan_upload(context: Context, database: str, objects: Sequence[Any], *, replace: bool) -> list[Upload]:
    """What uploading these objects to one database means.

    :param replace: they may take the place of other objects of this experiment.
    :raises ConfigError: one could never be stored.
    :raises EntityExistsError: a different object has one of its keys.
    """
    check_objects(objects)
    contents = await to_thread.run_sync(contents_of, [(thing, False) for thing in objects], context.cwd)
    uploads = [upload_of(thing, context.name, contents[id(thing)]) for thing in objects]
    taken: dict[str, Upload] = {} if replace else dict(context.uploaded.get(database, {}))
    for upload in uploads:
        claim(taken, upload, database)
    return [upload for number, upload in enumerate(uploads) if upload not in uploads[:number]]
