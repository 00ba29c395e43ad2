"""One simulation or application."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, ConfigTypeError, allowed
from ..policies import Retry
from ..settings.base import RunSettings
from ..settings.batch import BatchSettings
from ..units import Seconds
from ..values import check_params, check_text, format_argument, normalise_params, render
from .base import Entity, register_once
from .colocation import ColocatedDB, Colocation
from .files import NO_FILES, EntityFiles, Paths
from .mlhost import MLObjects, Wanted


class Model(Entity, MLObjects, Colocation):
    """One simulation or application: how it is run, its parameters, its files.

    :param name: unique among what runs in the experiment; also the name of its directory and output files.
    :param params: name -> value for tagged files and arguments; a sequence is one value, its items joined by a space.
        May be just the name(s), when ``params_as_args`` has the values.
    :param run_settings: what is run.
    :param path: directory to run in; see :meth:`set_path`.
    :param params_as_args: the name(s) of the parameters that become arguments, or a dict name -> value.
    :param batch_settings: submit it as a batch job of its own.
    :param enable_key_prefixing: put the model's name before the keys of data that it sends to a database.
    :param timeout: seconds that it may run; then it is stopped and its state is TIMEOUT.
    :param retries: how often to start it again when it fails, or a :class:`~asim.Retry`.
    :raises ConfigError: naming the field, the value, and what is allowed.
    """

    __slots__ = (
        "_colocated",
        "_incoming",
        "_ml",
        "_owns_settings",
        "_prefixing",
        "_settings",
        "batch_settings",
        "files",
        "params",
        "params_as_args",
    )

    _ml: tuple[Wanted, ...]
    _colocated: ColocatedDB | None

    def __init__(
        self,
        name: str,
        params: Mapping[str, object] | str | Sequence[str] | None = None,
        run_settings: RunSettings | None = None,
        path: str | os.PathLike[str] | None = None,
        params_as_args: Mapping[str, object] | str | Sequence[str] | None = None,
        batch_settings: BatchSettings | None = None,
        *,
        enable_key_prefixing: bool = True,
        timeout: Seconds | None = None,
        retries: int | Retry | None = None,
    ) -> None:
        super().__init__(name, path, timeout, retries)
        if not isinstance(run_settings, RunSettings):
            raise ConfigTypeError(allowed(f"{name}: run_settings", run_settings, "must be run settings"))
        if batch_settings is not None and not isinstance(batch_settings, BatchSettings):
            raise ConfigTypeError(allowed(f"{name}: batch_settings", batch_settings, "must be batch settings"))
        merged, self.params_as_args = normalise_params(name, params, params_as_args)
        self.params: dict[str, object] = check_params(name, merged)
        self._settings, self._owns_settings = run_settings, True
        self.batch_settings = batch_settings
        self.files: EntityFiles = NO_FILES
        self._prefixing = bool(enable_key_prefixing)
        self._incoming: tuple[Entity, ...] = ()
        self._ml = ()
        self._colocated = None

    @classmethod
    def members(
        cls, ensemble: str, settings: RunSettings, param_sets: Iterable[dict[str, Any]], arguments: tuple[str, ...]
    ) -> list[Model]:
        """The members of an ensemble. They share ``settings`` until somebody asks for a member's own."""
        first = cls(f"{ensemble}_0", {}, settings)
        first._owns_settings, first.params_as_args = False, arguments
        models = []
        for number, params in enumerate(param_sets):
            model = object.__new__(cls)
            for slot in _SLOTS:
                object.__setattr__(model, slot, getattr(first, slot))
            model.name, model.params = f"{ensemble}_{number}", params
            models.append(model)
        return models

    # -- how it is run

    @property
    def run_settings(self) -> RunSettings:
        """The model's own run settings; change them freely. (Members of an ensemble each get a copy when asked.)"""
        if not self._owns_settings:
            self._settings, self._owns_settings = self._settings.copy(), True
        return self._settings

    @run_settings.setter
    def run_settings(self, settings: RunSettings) -> None:
        if not isinstance(settings, RunSettings):
            raise ConfigTypeError(allowed(f"{self.name}: run_settings", settings, "must be run settings"))
        self._settings, self._owns_settings = settings, True

    @property
    def settings_view(self) -> RunSettings:
        """The run settings, to read only: members that share them return the same object."""
        return self._settings

    def params_to_args(self) -> list[str]:
        """The arguments that ``params_as_args`` makes of the parameters. Changes nothing, so it can be asked often.

        :raises ConfigError: one of the parameters has no value, or one that cannot be an argument.
        """
        arguments: list[str] = []
        for name in self.params_as_args:
            if name not in self.params:
                raise ConfigError(allowed(f"{self.name}: params_as_args", name, "the parameters have no such name"))
            text = check_text(f"{self.name}: params[{name!r}]", render(self.params[name]))
            arguments += format_argument(name, text)
        return arguments

    @property
    def exe_args(self) -> list[str]:
        """All arguments that the executable gets: those of the run settings, then those made of parameters."""
        return [*self._settings.exe_args, *self.params_to_args()]

    # -- files

    def attach_generator_files(
        self, to_copy: Paths = None, to_symlink: Paths = None, to_configure: Paths = None
    ) -> None:
        """Files for the model's directory; replaces those attached before.

        :param to_copy: files, or directories whose contents are copied.
        :param to_symlink: files or directories that are linked.
        :param to_configure: tagged text files (or directories of them) in which tags become parameters.
        :raises ConfigError: a type or a name is wrong. That the files exist is checked when the model is generated.
        """
        self.files = EntityFiles.of(self.name, to_copy, to_symlink, to_configure)

    @property
    def attached_files_table(self) -> str:
        """The attached files as a text table."""
        return self.files.table()

    def print_attached_files(self) -> None:
        """Print :attr:`attached_files_table`."""
        print(self.attached_files_table)  # noqa: T201  (that is what it is for)

    # -- data

    def enable_key_prefixing(self) -> None:
        """Put this model's name before the keys of data that it sends to a database."""
        self._prefixing = True

    def disable_key_prefixing(self) -> None:
        """Do not put this model's name before keys."""
        self._prefixing = False

    def query_key_prefixing(self) -> bool:
        """Whether this model's name is put before keys."""
        return self._prefixing

    def register_incoming_entity(self, incoming_entity: Entity) -> None:
        """Let this model read the data of another (its name becomes a possible data source).

        :raises EntityExistsError: an entity of that name is registered already.
        """
        self._incoming = register_once(self, self._incoming, incoming_entity)

    @property
    def incoming_entities(self) -> tuple[Entity, ...]:
        """The entities whose data this model may read."""
        return self._incoming


_SLOTS = tuple(
    slot
    for kind in Model.__mro__
    for slot in getattr(kind, "__slots__", ())
    if slot not in ("__weakref__", "name", "params")
)
