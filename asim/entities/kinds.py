"""What entities stand for."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigTypeError, allowed
from .ensemble import Ensemble
from .model import Model
from .orchestrator import Orchestrator


def models_of(entity: object) -> Sequence[Model]:
    """The models that an entity is, or consists of: members of an ensemble, shards of a database.

    :raises ConfigTypeError: it is no entity.
    """
    if isinstance(entity, Model):
        return [entity]
    if isinstance(entity, (Ensemble, Orchestrator)):
        return entity.models
    raise ConfigTypeError(allowed("entities", entity, "must be a Model, an Ensemble or an Orchestrator"))
