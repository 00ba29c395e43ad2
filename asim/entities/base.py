"""What Models and Ensembles share: a name, a place, dependencies, policies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from ..errors import ConfigError, ConfigTypeError, EntityExistsError, allowed
from ..policies import Retry, When, check_when, retry_of
from ..units import Seconds, seconds
from ..values import check_text
from .names import check_name

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entity:
    """Something that an Experiment can start, by its name.

    :ivar name: unique among what runs in an Experiment; also a directory name.
    """

    SERVICE: ClassVar[bool] = False
    """Whether others need it while it runs."""

    __slots__ = ("__weakref__", "_after", "_generated", "_path", "_retries", "_timeout", "name")

    def __init__(
        self, name: str, path: str | os.PathLike[str] | None, timeout: Seconds | None, retries: object
    ) -> None:
        self.name = check_name(f"{type(self).__name__}: name", name)
        self._path: str | None = None
        if path is not None:
            self.set_path(path)
        self._generated: str | None = None
        self._after: tuple[tuple[Entity, When], ...] = ()
        self._timeout = seconds(f"{name}: timeout", timeout)
        self._retries = retry_of(f"{name}: retries", retries)

    @property
    def type(self) -> str:
        """The kind of entity, e.g. "Model"."""
        return type(self).__name__

    @property
    def path(self) -> str | None:
        """The directory that was given, else the one that ``generate`` made, else None.

        A model that has none runs in the driver's current directory.
        """
        return self._path or self._generated

    def set_path(self, path: str | os.PathLike[str]) -> None:
        """Run in this directory. An absolute path may be anywhere, a relative one is inside the experiment's directory.

        :raises ConfigError: a relative path that leads out of the experiment's directory.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigTypeError(allowed(f"{self.name}: path", path, "must be a path (str or os.PathLike)"))
        text = check_text(f"{self.name}: path", os.fspath(path))
        normal = os.path.normpath(text) if text else ""
        if not normal or normal == ".." or normal.startswith("../"):
            what = "must be absolute, or lead to a place inside the experiment's directory"
            raise ConfigError(allowed(f"{self.name}: path", text, what))
        self._path = normal

    @property
    def timeout(self) -> float | None:
        """Seconds that each process of this entity may run, else its state is TIMEOUT. None: the run settings decide."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: Seconds | None) -> None:
        self._timeout = seconds(f"{self.name}: timeout", value)

    @property
    def retries(self) -> Retry | None:
        """What happens when it fails. None: the run settings decide."""
        return self._retries

    @retries.setter
    def retries(self, value: int | Retry | None) -> None:
        self._retries = retry_of(f"{self.name}: retries", value)

    def after(self, *others: Entity, when: When = "completed") -> None:
        """Start only when ``others`` have come so far.

        :param others: models or ensembles; of an ensemble, all members.
        :param when: "completed" (exit code 0; if one ends otherwise, this one is CANCELLED), "ended" (in whatever way),
            or "running" (it has been started).
        :raises ConfigError: on itself. Longer cycles are refused when the entities are started.
        """
        condition = check_when(when)
        for other in others:
            if not isinstance(other, Entity):
                raise ConfigTypeError(allowed(f"{self.name}: after", other, "must be a Model or an Ensemble"))
            if other.SERVICE and condition != "running":
                what = f"is a database, whose end nothing waits for; say when='running' (not {condition!r})"
                raise ConfigError(allowed(f"{self.name}: after", other.name, what))
            if other is self:
                raise ConfigError(allowed(f"{self.name}: after", other.name, "cannot wait for itself"))
        self._after += tuple((other, condition) for other in others)

    @property
    def dependencies(self) -> Sequence[tuple[Entity, When]]:
        """What this entity waits for."""
        return self._after

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def register_once(owner: Entity, existing: Sequence[Entity], incoming: Entity) -> tuple[Entity, ...]:
    """``existing`` and one more.

    :raises EntityExistsError: one of that name is registered.
    """
    if not isinstance(incoming, Entity):
        raise ConfigTypeError(allowed(f"{owner.name}: incoming_entity", incoming, "must be a Model or an Ensemble"))
    if any(entity.name == incoming.name for entity in existing):
        what = "an entity of this name is registered already"
        raise EntityExistsError(allowed(f"{owner.name}: incoming_entity", incoming.name, what))
    return (*existing, incoming)
