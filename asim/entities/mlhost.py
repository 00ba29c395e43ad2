"""What Models and Ensembles do with ML objects: record which ones they need, and in which databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from ..errors import ConfigError, ConfigTypeError, EntityExistsError, allowed
from .mlobjects import Code, Function, Memory, MLModel, MLObject, PathText, Script, either, names_of

Identifiers: TypeAlias = str | Sequence[str] | None


class Wanted(NamedTuple):
    """An ML object, and the names of the databases that get it; none: all that the model uses."""

    thing: MLObject
    databases: tuple[str, ...] = ()

    def meets(self, other: Wanted) -> bool:
        """Whether both may go to one database."""
        return not self.databases or not other.databases or bool({*self.databases} & {*other.databases})


class MLObjects:
    """What Models and Ensembles do with ML objects. The host has the attributes ``name`` and ``_ml`` (first empty)."""

    __slots__ = ()
    name: str
    _ml: tuple[Wanted, ...]

    # fmt: off
    def add_ml_model(
        self, name: str, backend: str, model: Memory | None = None, model_path: PathText | None = None,
        device: str = "CPU", devices_per_node: int = 1, first_device: int = 0,
        batch_size: int = 0, min_batch_size: int = 0, min_batch_timeout: int = 0,
        tag: str = "", inputs: str | Sequence[str] | None = None, outputs: str | Sequence[str] | None = None,
        *, db_identifier: Identifiers = None,
    ) -> None:
        """Have an ML model in the database before this starts. Parameters as in :class:`MLModel`, and:

        :param model: the serialized model in memory. Either this or ``model_path`` must be given.
        :param model_path: the file that it is in.
        :param db_identifier: the name of the database that gets it, or several. None: its colocated database, or, if
            it has none, all databases that run when it is started.
        :raises ConfigError: naming the field, the value, and what is allowed; ConfigTypeError for a wrong type.
        :raises EntityExistsError: a different object has this name, or one of the keys that come of it.
        """
        self.add_object(MLModel(
            name=name, backend=backend, source=either(f"{name}: model", model, model_path),
            device=device, devices_per_node=devices_per_node, first_device=first_device,
            batch_size=batch_size, min_batch_size=min_batch_size, min_batch_timeout=min_batch_timeout,
            tag=tag, inputs=names_of(f"{name}: inputs", inputs), outputs=names_of(f"{name}: outputs", outputs),
        ), db_identifier)

    def add_script(
        self, name: str, script: str | None = None, script_path: PathText | None = None,
        device: str = "CPU", devices_per_node: int = 1, first_device: int = 0, *, db_identifier: Identifiers = None,
    ) -> None:
        """Have TorchScript source in the database, from text or from a file; the rest is as for :meth:`add_ml_model`."""
        self.add_object(Script(
            name=name, source=either(f"{name}: script", script, script_path),
            device=device, devices_per_node=devices_per_node, first_device=first_device,
        ), db_identifier)

    def add_function(
        self, name: str, function: Code | None = None,
        device: str = "CPU", devices_per_node: int = 1, first_device: int = 0, *, db_identifier: Identifiers = None,
    ) -> None:
        """Have a function in the database as TorchScript; the rest is as for :meth:`add_ml_model`.

        :param function: a function made by ``def`` in a file (or a cell of a notebook), without decorators and without
            variables of a function around it: only its text is uploaded. Or such text.
        """
        source: Any = function  # Function refuses None
        self.add_object(Function(
            name=name, source=source,
            device=device, devices_per_node=devices_per_node, first_device=first_device,
        ), db_identifier)
    # fmt: on

    def add_ml_model_object(self, obj: MLModel, db_identifier: Identifiers = None) -> None:
        """Add a prepared model; errors as for :meth:`add_object`."""
        self._add(obj, db_identifier, MLModel)

    def add_script_object(self, obj: Script, db_identifier: Identifiers = None) -> None:
        """Add a prepared script; errors as for :meth:`add_object`."""
        self._add(obj, db_identifier, Script)

    def add_function_object(self, obj: Function, db_identifier: Identifiers = None) -> None:
        """Add a prepared function; errors as for :meth:`add_object`."""
        self._add(obj, db_identifier, Function)

    def add_object(self, obj: MLObject, db_identifier: Identifiers = None) -> None:
        """Add a prepared object of any kind. One that is equal to an earlier one changes nothing.

        :param db_identifier: as in :meth:`add_ml_model`.
        :raises ConfigTypeError: not an ML object.
        :raises EntityExistsError: a different object, of whatever kind, has one of its keys.
        """
        self._add(obj, db_identifier, MLModel, Script, Function)

    def _add(self, obj: MLObject, db_identifier: Identifiers, *kinds: type[MLObject]) -> None:
        if not isinstance(obj, kinds):
            what = f"must be of type {', '.join(kind.__name__ for kind in kinds)}"
            raise ConfigTypeError(allowed(f"{self.name}: ML object", obj, what))
        wanted = Wanted(obj, identifiers(f"{obj.name}: db_identifier", db_identifier))
        others = [other for other in self._ml if other.thing != obj and other.meets(wanted)]
        taken = {key: other.thing for other in others for key, _ in other.thing.keys}
        key = next((key for key, _ in reversed(obj.keys) if key in taken), None)
        if key is not None:
            what = f"its key {key!r} is taken by a different object, {taken[key]!r}"
            raise EntityExistsError(allowed(f"{self.name}: name of ML object", obj.name, what))
        if wanted not in self._ml:
            self._ml = (*self._ml, wanted)  # type: ignore[misc]  # the slot is the host's

    @property
    def ml_objects(self) -> tuple[MLObject, ...]:
        """All ML objects, each once, in the order in which they were added."""
        found: list[MLObject] = []
        for thing, _ in self._ml:
            if thing not in found:  # not by hash: what a Function calls need not have one
                found.append(thing)
        return tuple(found)

    @property
    def db_models(self) -> tuple[MLModel, ...]:
        """The ML models."""
        return tuple(obj for obj in self.ml_objects if isinstance(obj, MLModel))

    @property
    def db_scripts(self) -> tuple[Script | Function, ...]:
        """The scripts and functions."""
        return tuple(obj for obj in self.ml_objects if not isinstance(obj, MLModel))


def identifiers(field: str, value: object) -> tuple[str, ...]:
    """The names of databases, of which there may be none.

    :raises ConfigTypeError: something else.
    :raises ConfigError: an empty list, which could mean anything.
    """
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
        raise ConfigTypeError(allowed(field, value, "must be a name or a list of names"))
    if not listed:
        raise ConfigError(allowed(field, value, "must name a database, or be left out"))
    return tuple(dict.fromkeys(listed))
