"""Files attached to an entity, as the user gave them; they are looked at when the entity is generated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError, ConfigTypeError, allowed
from ..tables import table
from ..values import check_text
from .names import RESERVED

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFiles:
    """What is copied, linked and configured into an entity's directory; relative paths are as seen from the driver."""

    copy: tuple[str, ...] = ()
    symlink: tuple[str, ...] = ()
    configure: tuple[str, ...] = ()

    @classmethod
    def of(cls, owner: str, to_copy: Paths, to_symlink: Paths, to_configure: Paths) -> EntityFiles:
        """Check types and names.

        :raises ConfigTypeError: something is neither a path nor a list of paths.
        :raises ConfigError: an empty path, or a name that asim writes itself.
        """
        return cls(
            copy=_paths(owner, "to_copy", to_copy),
            symlink=_paths(owner, "to_symlink", to_symlink),
            configure=_paths(owner, "to_configure", to_configure),
        )

    def __bool__(self) -> bool:
        return bool(self.copy or self.symlink or self.configure)

    def table(self) -> str:
        """The attached files as a text table (columns Strategy, Files)."""
        rows = [
            [strategy, "\n".join(paths)]
            for strategy, paths in (("Copy", self.copy), ("Symlink", self.symlink), ("Configure", self.configure))
            if paths
        ]
        return table(rows, ["Strategy", "Files"], "grid") if rows else "No file attached to this entity."


NO_FILES = EntityFiles()


def _paths(owner: str, field: str, value: Paths) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(items, Sequence):
        raise ConfigTypeError(allowed(f"{owner}: {field}", value, "must be a path or a list of paths"))
    return tuple(_path(f"{owner}: {field}", item) for item in items)


def _path(field: str, item: object) -> str:
    if not isinstance(item, (str, os.PathLike)):
        raise ConfigTypeError(allowed(field, item, "must be a path (str or os.PathLike)"))
    path = os.fspath(item)
    if not isinstance(path, str) or not path:
        raise ConfigError(allowed(field, item, "must be a non-empty text path"))
    check_text(field, path)
    if os.path.basename(path.rstrip("/")) in RESERVED:
        raise ConfigError(allowed(field, path, f"the names {sorted(RESERVED)} are written by asim itself"))
    return path
