"""Optional packages, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from ..errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """An optional package.

    :param module: such as ``torch.utils.data``.
    :param extra: of asim, which installs it.
    :raises MissingExtraError: it is not installed, with the line that installs it.
    """
    try:
        return import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0]
        why = f"{package} is not installed" if exc.name == package else f"{module} cannot be imported ({exc})"
        raise MissingExtraError(f"{why}: pip install 'asim[{extra}]'", name=package) from exc


def find(module: str) -> ModuleType | None:
    """An optional package, or None where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None
