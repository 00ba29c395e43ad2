"""Planning: from entities to a :class:`~asim.plan.LaunchPlan`. Every cross-check of a start is here, before any I/O.

:func:`needs` says what must be looked up, the runtime looks it up (:mod:`asim.runtime.survey`), and a :class:`Planner`
makes the plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from .agent.protocol import Environment
from .database.address import Address
from .database.planning import (
    beside_database,
    check_colocated,
    check_files,
    colocated_file,
    database_files,
    plan_databases,
)
from .database.targets import Targets, beside_config, wanted_objects
from .entities import Ensemble, Entity, Model, Orchestrator
from .entities.ensemble import Placement
from .errors import ConfigError, EntityExistsError, MissingFileError, UnsupportedError, allowed
from .generate import Layouts, Unit
from .members import place
from .ordering import check_dependencies
from .plan import BatchRequest, Context, Facts, JobSpec, LaunchPlan, Member, Needs
from .policies import retry_of
from .settings import BatchSettings, RunSettings, StepContext
from .settings.mpi import MpiSettings

SLICE = 256
"""Members planned between two chances for other tasks to run."""


# -- what must be looked up


def needs(
    context: Context, found: Sequence[Member], units: Sequence[Unit], databases: Sequence[Orchestrator] = ()
) -> Needs:
    """What planning will ask of the world.

    :param found: members that will be started.
    :param units: directories that will be made.
    """
    programs: set[str] = set()
    mpi: set[str] = set()
    sources = dict.fromkeys((path for one in databases for _, path in database_files(context, one)), False)
    seen: set[int] = set()
    for model, _ in found:
        settings = model.settings_view
        if id(settings) not in seen:
            seen.add(id(settings))
            programs |= _programs(settings)
            mpi |= {settings.run_command} if isinstance(settings, MpiSettings) and settings.flavor is None else set()
    for model in [model for unit in units for model, _ in unit.models]:
        if model.files and id(model.files) not in seen:
            seen.add(id(model.files))
            for path in (*model.files.copy, *model.files.symlink):
                sources.setdefault(os.path.normpath(os.path.join(context.cwd, path)), False)
            for path in model.files.configure:
                sources[os.path.normpath(os.path.join(context.cwd, path))] = True
    targets = frozenset(unit.target for unit in units)
    return Needs(
        programs=frozenset(programs),
        mpi=frozenset(mpi),
        sources=sources,
        targets=targets,
        protected=(context.path, context.cwd),
        objects=wanted_objects(found),
    )


def _programs(settings: RunSettings) -> set[str]:
    """The words that a command may begin with, or that must exist here."""
    words = {settings.run_command} if settings.run_command else set()
    for part in (settings, *settings.mpmd):
        words.add(part.container.prefix("/")[0] if part.container else part.exe)
    return words


# -- the plan


def check_targets(
    context: Context,
    units: Sequence[Unit],
    taken: frozenset[str],
    overwrite: bool,
    real: Mapping[str, str] = MappingProxyType({}),
) -> list[Unit]:
    """The units, with those that replace a directory marked.

    :raises EntityExistsError: a directory exists and may not be overwritten.
    :raises ConfigError: overwriting would remove the experiment's own or the current directory, or one above.
    """
    checked: list[Unit] = []
    for unit in units:
        if unit.target in taken and not overwrite:
            what = "exists; generate(..., overwrite=True) replaces it"
            raise EntityExistsError(allowed(f"{unit.name}: directory", unit.target, what))
        place = real.get(unit.target, unit.target)
        if any(_within(real.get(keep, keep), place) for keep in (context.path, context.cwd)):
            what = "holds the experiment's directory or the current one, and would be replaced"
            raise ConfigError(allowed(f"{unit.name}: path", unit.target, what))
        checked.append(replace(unit, replaces=unit.target in taken))
    ordered = sorted(checked, key=lambda unit: unit.target.rstrip("/") + "/")
    for first, second in pairwise(ordered):
        if _within(second.target, first.target):
            what = f"is the directory of {first.name}, or inside it; each needs one of its own"
            raise EntityExistsError(allowed(f"{second.name}: path", second.target, what))
    return checked


def _within(path: str, directory: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{directory.rstrip('/')}/")


def refuse_busy(names: Iterable[str]) -> None:
    """Refuse names of jobs that have not ended.

    :raises EntityExistsError: there is one.
    """
    for name in names:
        raise EntityExistsError(allowed("entities", name, "a job of this name is still running in this experiment"))


def check_placement(model: Model, settings: RunSettings, batch: BatchRequest | None) -> None:
    """Refuse members that an agent of a node cannot start.

    :raises UnsupportedError: they are batch jobs.
    :raises ConfigError: they run on several nodes, or have several tasks that only a run command can start.
    """
    if batch is not None:
        what = "members of batch jobs are started by their scripts; leave batch_settings out, or placement"
        raise UnsupportedError(allowed(f"{model.name}: placement", "agent", what))
    if not settings.single_node:
        what = 'this member wants several nodes, or tasks of the run command; use placement="step"'
        raise ConfigError(allowed(f"{model.name}: placement", "agent", what))


class Planner:
    """Makes one :class:`LaunchPlan`, a slice of members at a time (:meth:`steps`), so that a loop is never held up."""

    def __init__(self, context: Context, facts: Facts, *, tag: str = ";", strict_tags: bool = False) -> None:
        self._context, self._facts = context, facts
        layouts = Layouts(facts.sources, context.cwd, tag, strict_tags)
        self.plan = LaunchPlan(context=context, layouts=layouts)
        self._mpi: dict[int, MpiSettings] = {}
        self._steps: dict[tuple[int, tuple[str, ...]], tuple[tuple[str, ...], Environment]] = {}
        self._homes: dict[Model, str] = {}

    def generation(self, units: Sequence[Unit], overwrite: bool = False) -> None:
        """Plan these directories. That of a job which still runs is left alone."""
        refuse_busy(model.name for unit in units for model, _ in unit.models if model.name in self._context.busy)
        self.plan.units = check_targets(self._context, units, self._facts.taken, overwrite, self._facts.real)
        for unit in self.plan.units:
            for model, below in unit.models:
                self.plan.layouts.of(model)
                self._homes[model] = f"{unit.target}/{below}" if below else unit.target

    def start(
        self, found: Sequence[Member], batches: Sequence[Entity], databases: Sequence[Orchestrator] = ()
    ) -> Iterator[None]:
        """Plan the jobs of these members and databases; yields between slices."""
        self._check(found, batches, databases)
        if self._context.capabilities.local_programs:
            check_files(self._context, databases, self._facts.sources)
        self.plan.databases += plan_databases(self._context, databases)
        uploads = Targets(self.plan, [database.name for database in databases], self._facts.contents)
        requests = {entity: self._request(entity) for entity in batches}
        for index, (model, ensemble) in enumerate(found):
            uploads.add(model)
            batch = requests.get(ensemble) if ensemble in requests else requests.get(model)
            self.plan.jobs.append(self._job(model, ensemble, batch))
            if index % SLICE == SLICE - 1:
                yield

    def _check(self, found: Sequence[Member], batches: Sequence[Entity], databases: Sequence[Orchestrator]) -> None:
        context = self._context
        shards = [shard for database in databases for shard in database.models]
        starting = [Address(identifier=database.name, hosts=()) for database in databases]
        if batches and not context.capabilities.batch:
            what = f"the {context.capabilities.launcher} launcher has no batch jobs; leave batch_settings out"
            raise UnsupportedError(allowed("batch_settings", batches[0].name, what))
        refuse_busy(name for name in (model.name for model, _ in found) if name in context.busy)
        check_colocated(found, [*context.databases, *starting])
        check_dependencies(found, {*context.known, *shards} if shards else context.known)

    def _request(self, entity: Any) -> BatchRequest:
        settings: BatchSettings = entity.batch_settings
        home = os.path.join(self._context.path, entity.name)
        pack = entity.pack if isinstance(entity, Ensemble) else "separate"
        return BatchRequest(name=entity.name, settings=settings.copy(), pack=pack, home=home)

    def _job(self, model: Model, ensemble: Ensemble | None, batch: BatchRequest | None) -> JobSpec:
        home = self._homes.get(model) or place(self._context, model, ensemble) or model._generated
        cwd, outputs = (home, home) if home else (self._context.work or self._context.cwd, self._context.path)
        settings = model.settings_view
        placed: Placement = "agent" if ensemble and ensemble.placement == "agent" and not self._local else "step"
        if placed == "agent":
            check_placement(model, settings, batch)
        if isinstance(settings, MpiSettings):
            settings = self._flavored(settings)
        argv, env = self._command(
            model, settings, cwd, outputs, batch is not None, placed == "agent", ensemble is not None
        )
        timeout = model._timeout or (ensemble._timeout if ensemble else None) or settings.timeout
        retries = model._retries or (ensemble._retries if ensemble else None)
        if retries is None and settings.retries is not None:
            retries = retry_of(f"{model.name}: retries", settings.retries)
        return JobSpec(
            name=model.name,
            model=model,
            ensemble=ensemble,
            argv=argv,
            env=env,
            cwd=cwd,
            outputs=outputs,
            timeout=timeout,
            retries=retries,
            batch=batch,
            own_files=settings.OWN_FILES and not self._local and placed == "step",
            placement=placed,
            cpus=settings.cpus if placed == "agent" else 1,
            command=settings if isinstance(settings, MpiSettings) and placed == "step" else None,
        )

    def _flavored(self, settings: MpiSettings) -> MpiSettings:
        """The settings in the words of the command that was found; the same object for the same settings."""
        found = self._mpi.get(id(settings))
        if found is None:
            found = self._mpi[id(settings)] = settings.with_flavor(self._facts.flavors.get(settings.run_command))
        return found

    def _command(
        self, model: Model, settings: RunSettings, cwd: str, outputs: str, in_batch: bool, alone: bool, beside: bool
    ) -> tuple[tuple[str, ...], Environment]:
        args = tuple(model.exe_args)
        key = (id(settings), args)
        known = self._steps.get(key) if model._colocated is None else None
        if known is not None:
            return known
        launcher = "local" if alone else self._context.capabilities.launcher
        for part in settings.mpmd:
            if part.container is None:
                self._program(model, "mpmd exe", part.exe)
        exe = settings.exe if settings.container else self._program(model, "exe", settings.exe)
        if model._colocated is not None:
            exe, args = beside_database(self._context, model, (exe, *args))
        step = settings.step(
            StepContext(
                name=model.name,
                cwd=cwd,
                stdout=f"{outputs}/{model.name}.out",
                stderr=f"{outputs}/{model.name}.err",
                exe=exe,
                exe_args=args,
                run_command=self._program(model, "run_command", settings.run_command) if settings.run_command else "",
                launcher=launcher,
                in_batch=in_batch,
                beside=beside,
                alone=alone,
            )
        )
        env = dict(step.env)
        if model._colocated is not None:
            held = {name: env.pop(name) for name in step.env if name.startswith("PYTHON")}
            objects = beside_config(self._context, self.plan.beside.get(model.name, ()))
            self.plan.files.update(colocated_file(self._context, model, outputs, held, objects))
        self.plan.files.update(step.files)
        argv = (self._program(model, "exe", step.argv[0]), *step.argv[1:])
        made = (argv, tuple(env.items()))
        if settings.placeless(launcher) and not in_batch and model._colocated is None:
            self._steps[key] = made
        return made

    @property
    def _local(self) -> bool:
        return self._context.capabilities.dialect is None

    def _program(self, model: Model, field: str, word: str) -> str:
        if not self._context.capabilities.local_programs or word in self._facts.programs.values():
            return word
        if word == self._context.python:
            return word
        found = self._facts.programs.get(word)
        if found is None:
            raise MissingFileError(allowed(f"{model.name}: {field}", word, "no such executable file here or in PATH"))
        return found
