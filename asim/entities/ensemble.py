"""Many models made from parameters, replicas, or by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ..errors import ConfigError, ConfigTypeError, EntityExistsError, allowed
from ..policies import Retry
from ..settings.base import RunSettings
from ..settings.batch import BatchSettings
from ..settings.script import PACKS, Pack
from ..strategies import Strategy, expand, resolve
from ..units import Seconds
from ..values import normalise_params, one_of
from .base import Entity
from .files import EntityFiles, Paths
from .mlhost import Identifiers, MLObjects, Wanted
from .mlobjects import MLObject
from .model import Model

Placement = Literal["step", "agent"]
PLACEMENTS: tuple[Placement, ...] = ("step", "agent")


class Ensemble(Entity, MLObjects):
    """Models that are treated as one.

    With ``run_settings`` and ``params`` there is one member for each parameter set that the strategy makes (times
    ``replicas``); with ``run_settings`` and ``replicas``, so many members without parameters; with only
    ``batch_settings`` it is empty until :meth:`add_model`.

    :param name: the members are called ``<name>_0``, ``<name>_1`` …
    :param params: name -> values; a list, tuple, range or 1-D array is the set of values to expand, anything else one
        value. May be just the name(s), when ``params_as_args`` has the values.
    :param path: directory in which the members' directories are; see :meth:`set_path`.
    :param params_as_args: the name(s) of the parameters that become arguments, or a dict name -> value(s).
    :param batch_settings: submit the members to the scheduler.
    :param run_settings: what each member runs.
    :param perm_strat: "all_perm", "step", "random", or a function ``f(names, values, n_models) -> list[dict]``.
    :param replicas: see above; with "random" the number of samples.
    :param n_models: SmartSim's name for the number of samples of "random".
    :param seed: makes "random" repeatable.
    :param fail_fast: when one member fails, the others are cancelled.
    :param pack: with ``batch_settings``: "job": all members in one batch job, at the same time; "array": a task of an
        array for each; "separate": a batch job for each. (Resources are asked for each batch job, or each task.)
    :param placement: how members are started in an allocation: "step": by their own run command; "agent": as processes
        of an agent on each node, which is much faster. For members of one process, or several on one node.
    :param timeout: seconds that each member may run.
    :param retries: how often each member is started again when it fails, or a :class:`~asim.Retry`.
    :raises ConfigError: naming the field, the value, and what is allowed.
    """

    __slots__ = (
        "_members",
        "_ml",
        "batch_settings",
        "fail_fast",
        "pack",
        "params",
        "params_as_args",
        "placement",
        "run_settings",
    )

    _ml: tuple[Wanted, ...]

    def __init__(
        self,
        name: str,
        params: Mapping[str, object] | str | Sequence[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        params_as_args: Mapping[str, object] | str | Sequence[str] | None = None,
        batch_settings: BatchSettings | None = None,
        run_settings: RunSettings | None = None,
        perm_strat: str | Strategy = "all_perm",
        *,
        replicas: int | None = None,
        n_models: int | None = None,
        seed: int | None = None,
        fail_fast: bool = False,
        pack: Pack = "job",
        placement: Placement = "step",
        timeout: Seconds | None = None,
        retries: int | Retry | None = None,
    ) -> None:
        super().__init__(name, path, timeout, retries)
        _check_kind(name, "batch_settings", batch_settings, BatchSettings)
        _check_kind(name, "run_settings", run_settings, RunSettings)
        self.params, self.params_as_args = normalise_params(name, params, params_as_args)
        self.batch_settings = batch_settings
        self.run_settings = run_settings
        self.fail_fast = bool(fail_fast)
        self.pack: Pack = one_of(f"{name}: pack", pack, PACKS)
        self.placement: Placement = one_of(f"{name}: placement", placement, PLACEMENTS)
        self._ml = ()
        self._members: dict[str, Model] = {}
        strategy = resolve(perm_strat)
        sets = self._parameter_sets(strategy, replicas, n_models, seed)
        if run_settings is not None:
            members = Model.members(name, run_settings.copy(), sets, self.params_as_args)
            self._members = {member.name: member for member in members}

    def _parameter_sets(
        self, strategy: Strategy, replicas: int | None, n_models: int | None, seed: int | None
    ) -> list[dict[str, Any]]:
        if self.params:
            if self.run_settings is None:
                raise ConfigError(
                    allowed(f"{self.name}: run_settings", None, "params need run_settings to make members of")
                )
            return expand(strategy, self.params, replicas=replicas, n_models=n_models, seed=seed)
        if self.run_settings is not None:
            return [{} for _ in range(_count(self.name, replicas))]
        if self.batch_settings is None:
            what = "an ensemble needs run_settings with params or replicas, or batch_settings to add models to"
            raise ConfigError(allowed(f"{self.name}: run_settings", None, what))
        return []

    # -- members

    @property
    def models(self) -> list[Model]:
        """The members, in order (a list of its own)."""
        return list(self._members.values())

    @property
    def entities(self) -> list[Model]:
        """The same as :attr:`models`."""
        return self.models

    @property
    def batch(self) -> bool:
        """Whether the ensemble is one batch job."""
        return self.batch_settings is not None

    def add_model(self, model: Model) -> None:
        """Add a member made elsewhere. ML objects of the ensemble are added to it.

        :raises ConfigTypeError: not a Model.
        :raises EntityExistsError: there is a member of that name.
        """
        if not isinstance(model, Model):
            raise ConfigTypeError(allowed(f"{self.name}: model", model, "must be a Model"))
        if model.name in self._members:
            raise EntityExistsError(
                allowed(f"{self.name}: model", model.name, "there is a member of this name already")
            )
        for thing, databases in self._ml:
            model.add_object(thing, databases or None)
        self._members[model.name] = model

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, key: str | int) -> Model:
        """A member by its name or its number."""
        if isinstance(key, str):
            if key not in self._members:
                raise KeyError(f"{self.name} has no member {key!r}")
            return self._members[key]
        return self.models[key]

    # -- for every member

    def _add(self, obj: MLObject, db_identifier: Identifiers, *kinds: type[MLObject]) -> None:
        """Record an ML object for the ensemble and for every member."""
        super()._add(obj, db_identifier, *kinds)
        for model in self._members.values():
            model._add(obj, db_identifier, *kinds)

    def attach_generator_files(
        self, to_copy: Paths = None, to_symlink: Paths = None, to_configure: Paths = None
    ) -> None:
        """Attach files to every member; see :meth:`Model.attach_generator_files`."""
        files = EntityFiles.of(self.name, to_copy, to_symlink, to_configure)
        for model in self._members.values():
            model.files = files

    @property
    def attached_files_table(self) -> str:
        """The files attached to the members as a text table."""
        if not self._members:
            return "The ensemble is empty, no files to show."
        tables: dict[EntityFiles, list[str]] = {}
        for model in self._members.values():
            tables.setdefault(model.files, []).append(model.name)
        return "\n\n".join(f"{names[0]}{' …' if names[1:] else ''}\n{files.table()}" for files, names in tables.items())

    def print_attached_files(self) -> None:
        """Print :attr:`attached_files_table`."""
        print(self.attached_files_table)  # noqa: T201  (that is what it is for)

    def register_incoming_entity(self, incoming_entity: Entity) -> None:
        """Let every member read the data of another entity."""
        for model in self._members.values():
            model.register_incoming_entity(incoming_entity)

    def enable_key_prefixing(self) -> None:
        """Enable key prefixing for every member."""
        for model in self._members.values():
            model.enable_key_prefixing()

    def disable_key_prefixing(self) -> None:
        """Disable key prefixing for every member."""
        for model in self._members.values():
            model.disable_key_prefixing()

    def query_key_prefixing(self) -> bool:
        """Whether every member has key prefixing enabled."""
        return all(model.query_key_prefixing() for model in self._members.values())


def _check_kind(name: str, field: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise ConfigTypeError(allowed(f"{name}: {field}", value, f"must be {kind.__name__}"))


def _count(name: str, replicas: int | None) -> int:
    if isinstance(replicas, bool) or not isinstance(replicas, (int, type(None))):
        raise ConfigTypeError(allowed(f"{name}: replicas", replicas, "must be an int"))
    if replicas is None or replicas < 1:
        raise ConfigError(allowed(f"{name}: replicas", replicas, "without params there must be 1 or more replicas"))
    return replicas
