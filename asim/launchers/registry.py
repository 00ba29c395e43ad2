"""Which launchers there are: asim's own, and those that other packages bring by entry point (group ``asim.launchers``).

An entry point leads to something that is called without arguments and returns a :class:`~asim.launchers.dialect.Dialect`
(a workload manager whose commands asim then drives) or a :class:`~asim.launchers.base.Launcher`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from ..errors import ConfigError, ConfigTypeError, allowed
from .base import KNOWN, Capabilities, Launcher

LOG = logging.getLogger("asim")
GROUP = "asim.launchers"
PATIENCE = 150.0
"""Seconds beyond the grace that the end of batch jobs may take: schedulers have a grace of their own, and one that is
away is asked again for two minutes."""
LOCAL = Capabilities(launcher="local", batch=False, local_programs=True)
_DIALECTS = {"slurm": ("slurm", "Slurm"), "pbs": ("pbs", "PBS"), "pals": ("pbs", "PBS"), "lsf": ("lsf", "LSF"),
             "sge": ("sge", "SGE"), "torque": ("pbs", "torque")}  # fmt: skip


def capabilities_of(launcher: object) -> Capabilities:
    """What is known of a launcher before it is used; see :func:`chosen`."""
    return chosen(launcher)[0]


def chosen(launcher: object) -> tuple[Capabilities, Launcher | None]:
    """What a launcher can do, and the launcher itself; None for those that asim drives itself.

    What another package brings is made here, once: what is asked and what is used are the same object.

    :param launcher: a name, or a launcher of the user's own.
    :raises ConfigError: no such launcher.
    """
    if not isinstance(launcher, str):
        return _own(launcher)
    word = launcher.lower()
    if word == "local":
        return LOCAL, None
    if word in _DIALECTS:
        module, name = _DIALECTS[word]
        return scheduled(word, getattr(import_module(f"{__package__}.{module}"), name)()), None
    other = plugins().get(launcher)
    if other is None:
        known = [*KNOWN, *plugins()]
        raise ConfigError(allowed("launcher", launcher, f"must be auto or one of {', '.join(known)}"))
    made = other()
    return (scheduled(launcher, made), None) if hasattr(made, "read_status") else _own(made)


def scheduled(name: str, dialect: Any) -> Capabilities:
    """What a workload manager can do."""
    return Capabilities(launcher=name, batch=True, dialect=dialect, patience=PATIENCE)


def _own(launcher: Any) -> tuple[Capabilities, Launcher]:
    if not isinstance(getattr(launcher, "capabilities", None), Capabilities):
        raise ConfigTypeError(allowed("launcher", launcher, "must be a str or a Launcher"))
    return launcher.capabilities, launcher


@cache
def plugins() -> Mapping[str, Callable[[], Any]]:
    """The launchers of other packages. One that cannot be loaded is left out with a warning."""
    from importlib.metadata import entry_points

    found: dict[str, Callable[[], Any]] = {}
    for entry in entry_points(group=GROUP):
        try:
            found[entry.name] = entry.load()
        except Exception as exc:  # noqa: BLE001  (whatever a stranger's module does)
            LOG.warning("launcher %s of %s cannot be loaded: %r", entry.name, entry.value, exc)
    return found
