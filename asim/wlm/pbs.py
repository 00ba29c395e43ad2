"""The PBS allocation that this program is in (OpenPBS, PBS Pro, Torque), from its variables and its file of nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..errors import AllocationError
from ._variables import variable


def get_hosts() -> list[str]:
    """The allocation's hosts by their short names, sorted.

    :raises AllocationError: ``PBS_NODEFILE`` is not set, or its file cannot be read.
    """
    return sorted(get_tasks_per_node())


def get_queue() -> str:
    """The queue the job runs in.

    :raises AllocationError: ``PBS_QUEUE`` is not set.
    """
    return variable("PBS_QUEUE")


def get_tasks() -> int:
    """How many MPI processes the allocation was made for: the lines of ``PBS_NODEFILE``.

    :raises AllocationError: as :func:`get_hosts`.
    """
    return sum(get_tasks_per_node().values())


def get_tasks_per_node() -> dict[str, int]:
    """Host -> how many of them.

    :raises AllocationError: as :func:`get_hosts`.
    """
    path = variable("PBS_NODEFILE")
    try:
        lines = Path(path).read_text().split()
    except OSError as error:
        raise AllocationError(f"PBS_NODEFILE = {path!r}: cannot be read: {error.strerror}") from None
    return dict(Counter(line.partition(".")[0] for line in lines))
