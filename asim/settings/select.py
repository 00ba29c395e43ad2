"""Which settings belong to which launcher and run command."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import ConfigError, UnsupportedError, allowed
from .aprun import AprunSettings
from .base import RunSettings
from .batch import BatchSettings
from .bsub import BsubBatchSettings
from .jsrun import JsrunSettings
from .mpi import MpiexecSettings, MpirunSettings, OrterunSettings
from .pals import PalsMpiexecSettings
from .qsub import QsubBatchSettings
from .sbatch import SbatchSettings
from .sge import SgeQsubBatchSettings
from .srun import SrunSettings

RUN_COMMANDS: Mapping[str, type[RunSettings]] = MappingProxyType(
    {
        "srun": SrunSettings,
        "aprun": AprunSettings,
        "jsrun": JsrunSettings,
        "mpirun": MpirunSettings,
        "mpiexec": MpiexecSettings,
        "orterun": OrterunSettings,
    }
)
"""The run commands that asim has settings for."""

_CANDIDATES = {
    "local": ("",),
    "slurm": ("srun", "mpirun", "mpiexec"),
    "pbs": ("aprun", "mpirun", "mpiexec"),
    "pals": ("mpiexec",),
    "torque": ("mpirun", "mpiexec"),
    "lsf": ("jsrun", "mpirun", "mpiexec"),
    "sge": ("mpirun", "mpiexec"),
}
_BATCH: dict[str, type[BatchSettings]] = {
    "slurm": SbatchSettings,
    "pbs": QsubBatchSettings,
    "pals": QsubBatchSettings,
    "torque": QsubBatchSettings,
    "lsf": BsubBatchSettings,
    "sge": SgeQsubBatchSettings,
}


def run_settings_class(launcher: str, run_command: str) -> type[RunSettings]:
    """The settings for a run command, a word or a path; :class:`RunSettings` for one that asim does not know."""
    word = run_command.strip().rpartition("/")[2].lower()
    if word == "mpiexec" and launcher.lower() == "pals":
        return PalsMpiexecSettings
    return RUN_COMMANDS.get(word, RunSettings)


def candidates(launcher: str) -> tuple[str, ...]:
    """The run commands to look for, in order, for ``run_command="auto"``; "" is to run without one.

    :raises ConfigError: no such launcher.
    """
    try:
        return _CANDIDATES[launcher.lower()]
    except KeyError:
        raise ConfigError(allowed("launcher", launcher, f"must be one of {', '.join(_CANDIDATES)}")) from None


def batch_settings_class(launcher: str) -> type[BatchSettings]:
    """The batch settings of a launcher.

    :raises UnsupportedError: it has no batch jobs.
    """
    try:
        return _BATCH[launcher.lower()]
    except KeyError:
        what = f"has no batch jobs; those that have: {', '.join(_BATCH)}"
        raise UnsupportedError(allowed("launcher", launcher, what)) from None
