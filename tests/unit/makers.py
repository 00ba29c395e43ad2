"""What the tests of the pure layers make their inputs with. Nothing here touches the world."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from asim.entities import Ensemble, Entity, Model
from asim.generate import Source, Unit
from asim.launchers.base import Capabilities
from asim.launchers.registry import capabilities_of
from asim.members import batch_entities, members, ungenerated, units_of
from asim.plan import Context, Facts, LaunchPlan
from asim.planner import Planner, needs
from asim.runtime.contents import contents_of
from asim.settings import RunSettings

LOCAL = Capabilities(launcher="local", batch=False, local_programs=True)
CONTEXT = Context(name="exp", path="/w/exp", cwd="/w", capabilities=LOCAL, token="t")


def wlm(launcher: str) -> Context:
    """A context whose launcher is a workload manager."""
    return replace(CONTEXT, capabilities=capabilities_of(launcher))


def settings(exe: str = "/bin/prog", exe_args: Any = None, **kwargs: Any) -> RunSettings:
    """Run settings without a run command."""
    return RunSettings(exe, exe_args, **kwargs)


def model(name: str = "m", params: Any = None, run_settings: RunSettings | None = None, **kwargs: Any) -> Model:
    """A model that runs /bin/prog."""
    return Model(name, params, run_settings or settings(), **kwargs)


def ensemble(name: str = "e", replicas: int | None = 2, **kwargs: Any) -> Ensemble:
    """An ensemble of members that run /bin/prog."""
    kwargs.setdefault("run_settings", settings())
    return Ensemble(name, replicas=replicas, **kwargs)


def file(path: str, data: bytes | None = None, **kwargs: Any) -> Source:
    """A file that somebody attached."""
    return Source(path=path, kind="file", data=data, **kwargs)


def folder(path: str, entries: Mapping[str, bytes | None] | None = None, **kwargs: Any) -> Source:
    """A directory that somebody attached: relative path -> contents, None for a directory."""
    below = {
        name: Source(path=f"{path}/{name}", kind="dir") if data is None else file(f"{path}/{name}", data)
        for name, data in (entries or {}).items()
    }
    return Source(path=path, kind="dir", entries=below, **kwargs)


def found(*sources: Source) -> dict[str, Source]:
    """Sources by their paths, as the survey gives them."""
    return {source.path: source for source in sources}


def unit(*models: Model, name: str = "m", target: str = "/w/exp/m", **kwargs: Any) -> Unit:
    """A directory for one model, or for several, each in a directory of its own in it."""
    placed = ((models[0], ""),) if len(models) == 1 else tuple((one, one.name) for one in models)
    return Unit(name=name, target=target, models=placed, **kwargs)


def planned(
    *entities: Entity,
    context: Context = CONTEXT,
    sources: Iterable[Source] = (),
    taken: Collection[str] = (),
    absent: Collection[str] = (),
) -> LaunchPlan:
    """The plan of a start, made as the runtime makes it, in a world with these sources and without ``absent``."""
    its_members = members(entities)
    units = units_of(context, ungenerated(its_members))
    wanted = needs(context, its_members, units)
    programs = {word: word if "/" in word else f"/usr/bin/{word}" for word in wanted.programs - frozenset(absent)}
    contents = contents_of(wanted.objects, context.cwd)
    facts = Facts(programs=programs, sources=found(*sources), taken=frozenset(taken), contents=contents)
    planner = Planner(context, facts)
    planner.generation(units)
    for _ in planner.start(its_members, batch_entities(entities)):
        pass
    return planner.plan
