"""What this machine's workload manager is, and what the allocation that we are in has.

:func:`detect_launcher` and the questions about the allocation look at the environment only. What runs commands is in
:mod:`asim.wlm.slurm`, and is awaitable.
"""

from __future__ import annotations

from types import ModuleType

from ..errors import UnsupportedError, allowed
from . import pbs, slurm
from .detect import detect_launcher

__all__ = ["detect_launcher", "get_hosts", "get_queue", "get_tasks", "get_tasks_per_node", "pbs", "slurm"]


def get_hosts(launcher: str | None = None) -> list[str]:
    """The hosts of the allocation that this program is in.

    :param launcher: "slurm" or "pbs"; by default the detected one.
    :raises UnsupportedError: another launcher.
    :raises AllocationError: this is no allocation: a variable is missing.
    """
    hosts: list[str] = _module(launcher).get_hosts()
    return hosts


def get_queue(launcher: str | None = None) -> str:
    """The queue or partition of the allocation; parameters and errors as :func:`get_hosts`."""
    queue: str = _module(launcher).get_queue()
    return queue


def get_tasks(launcher: str | None = None) -> int:
    """How many tasks the allocation was made for; parameters and errors as :func:`get_hosts`."""
    tasks: int = _module(launcher).get_tasks()
    return tasks


def get_tasks_per_node(launcher: str | None = None) -> dict[str, int]:
    """Host -> tasks on it; parameters and errors as :func:`get_hosts`."""
    tasks: dict[str, int] = _module(launcher).get_tasks_per_node()
    return tasks


def _module(launcher: str | None) -> ModuleType:
    word = detect_launcher() if launcher is None else launcher.lower()
    if word not in ("slurm", "pbs"):
        raise UnsupportedError(allowed("launcher", word, "this is known for slurm and pbs only"))
    return slurm if word == "slurm" else pbs
