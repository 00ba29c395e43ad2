"""The MPI start commands: ``mpirun``, ``mpiexec``, ``orterun``."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar

from ._text import LOG, Text, Value, flag_long
from .base import RunSettings, StepContext


class MpiSettings(RunSettings):
    """What the MPI start commands share; use one of the subclasses.

    The parameters are those of :class:`RunSettings`. An environment variable without value (None) is passed on as the
    command finds it. The programs of an MPMD job have an environment each, but share one under the local launcher.
    """

    WORD: ClassVar[str] = "mpirun"
    FAMILY = "mpi"
    RESERVED = frozenset({"wd", "wdir"})
    FLAGS: ClassVar[Mapping[str, str]] = {
        "set_tasks": "n",
        "set_tasks_per_node": "npernode",
        "set_cpus_per_task": "cpus-per-proc",
        "set_hostlist": "host",
        "set_hostlist_from_file": "hostfile",
        "set_cpu_binding_type": "bind-to",
        "set_verbose_launch": "verbose",
        "set_quiet_launch": "quiet",
        "set_broadcast": "preload-binary",
        "set_walltime": "timeout",
        "set_task_map": "map-by",
    }
    _flag = staticmethod(flag_long)

    def __init__(
        self,
        exe: str | PathLike[str],
        exe_args: Text | None = None,
        run_args: Mapping[str, Value] | None = None,
        env_vars: Mapping[str, Value] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("run_command", self.WORD)
        super().__init__(exe, exe_args, run_args=run_args, env_vars=env_vars, **kwargs)

    def set_broadcast(self, dest_path: str | None = None) -> None:
        """Copy the executable to the nodes before it starts.

        :param dest_path: cannot be chosen here: ignored with a warning.
        """
        if dest_path is not None:
            LOG.warning("%s: the destination %s of set_broadcast is ignored", type(self).__name__, dest_path)
        super().set_broadcast()

    def _head(self, context: StepContext) -> list[str]:
        return ["--wdir", context.cwd, *self.format_env_vars()]

    def _part_head(self, context: StepContext) -> list[str]:
        return self.format_env_vars()

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``-x K=V``; ``-x K`` passes on what the command itself has."""
        return [item for name, value in env.items() for item in ("-x", f"{name}={value}" if value else name)]

    def _spilled(self) -> dict[str, str]:
        """An empty value cannot be told from none in ``-x K``: the command itself gets it."""
        return {name: "" for name, value in self.env_vars.items() if value == ""}


class MpirunSettings(MpiSettings):
    """Run with ``mpirun``."""

    WORD = "mpirun"


class MpiexecSettings(MpiSettings):
    """Run with ``mpiexec``."""

    WORD = "mpiexec"


class OrterunSettings(MpiSettings):
    """Run with Open MPI's ``orterun``."""

    WORD = "orterun"
