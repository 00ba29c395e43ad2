"""What entities stand for: the models among them, where each runs, and which directories that makes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from .entities import Ensemble, Entity, Model, Orchestrator
from .errors import ConfigError, ConfigTypeError, EntityExistsError, allowed
from .generate import Unit
from .plan import Context, Member


def members(entities: Sequence[object]) -> list[Member]:
    """Every model among ``entities``, with the ensemble that it came in. (Databases have none: :func:`databases`.)

    :raises ConfigTypeError: something is not an entity.
    :raises ConfigError: nothing was given, or an ensemble is empty.
    :raises EntityExistsError: two have the same name.
    """
    if not entities:
        raise ConfigError(allowed("entities", (), "at least one Model, Ensemble or Orchestrator must be given"))
    found: list[Member] = []
    for entity in entities:
        if isinstance(entity, Model):
            found.append((entity, None))
        elif isinstance(entity, Ensemble):
            if not len(entity):
                raise ConfigError(allowed("entities", entity.name, "this ensemble is empty, there is nothing to do"))
            found += [(model, entity) for model in entity.models]
        elif not isinstance(entity, Orchestrator):
            raise ConfigTypeError(allowed("entities", entity, "must be a Model, an Ensemble or an Orchestrator"))
    _check_names(entities, found)
    return found


def _check_names(entities: Sequence[Any], found: Sequence[Member]) -> None:
    seen: set[str] = set()
    wholes = [entity for entity in entities if isinstance(entity, (Ensemble, Orchestrator))]
    shards = [shard for entity in wholes if isinstance(entity, Orchestrator) for shard in entity.models]
    for name in (entity.name for entity in (*wholes, *shards, *(model for model, _ in found))):
        if name in seen:
            raise EntityExistsError(allowed("entities", name, "two of the entities (or their members) have this name"))
        seen.add(name)


def place(context: Context, model: Model, ensemble: Ensemble | None) -> str | None:
    """The directory that the user gave, as an absolute path."""
    if model._path is not None:
        return os.path.normpath(os.path.join(context.path, model._path))
    if ensemble is not None and ensemble._path is not None:
        return os.path.normpath(os.path.join(context.path, ensemble._path, model.name))
    return None


def units_of(context: Context, found: Sequence[Member], again: bool = False) -> list[Unit]:
    """The directories to make for these members: one for a whole ensemble of which nothing was generated yet.

    :param again: act as if nothing was.
    """
    units: list[Unit] = []
    whole: dict[Ensemble, list[tuple[Model, str]]] = {}
    for model, ensemble in found:
        if ensemble is not None and model._path is None and (again or ensemble._generated is None):
            whole.setdefault(ensemble, []).append((model, model.name))
        else:
            default = os.path.join(context.path, *([ensemble.name] if ensemble else []), model.name)
            target = place(context, model, ensemble) or default
            units.append(Unit(name=model.name, target=target, models=((model, ""),)))
    for ensemble, models in whole.items():
        target = os.path.normpath(os.path.join(context.path, ensemble._path or ensemble.name))
        units.append(Unit(name=ensemble.name, target=target, models=tuple(models), ensemble=ensemble))
    return units


def ungenerated(found: Sequence[Member]) -> list[Member]:
    """The members that ``start`` has to generate: those with attached files, and what belongs to the same directory."""
    whole = {
        ensemble
        for model, ensemble in found
        if ensemble is not None and ensemble._generated is None and model.files and model._path is None
    }
    return [
        (model, ensemble)
        for model, ensemble in found
        if model._generated is None and (model.files or (ensemble in whole and model._path is None))
    ]


def databases(entities: Iterable[object]) -> list[Orchestrator]:
    """The databases among ``entities``."""
    return [entity for entity in entities if isinstance(entity, Orchestrator)]


def batch_entities(entities: Iterable[Any]) -> list[Entity]:
    """Those of ``entities`` that are batch jobs, and the members with settings of their own of ensembles that are none."""
    found: list[Entity] = []
    for entity in entities:
        if isinstance(entity, Ensemble) and entity.batch_settings is None:
            found += [model for model in entity.models if model.batch_settings is not None]
        elif not isinstance(entity, Orchestrator) and entity.batch_settings is not None:
            found.append(entity)
    return found
