"""Cray's ``aprun`` (ALPS, under PBS)."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar

from ._text import Text, Value, flag_gnu
from .base import RunSettings, StepContext


class AprunSettings(RunSettings):
    """Run with ``aprun``. The parameters are those of :class:`RunSettings`.

    The programs of an MPMD job share one environment. ``set_memory_per_node`` needs ``set_tasks_per_node``, because
    aprun takes memory per process.
    """

    FAMILY = "aprun"
    RESERVED = frozenset({"wdir"})
    SHARED_MEMORY = ("memory-per-pe", ("pes-per-node", "N"))
    FLAGS: ClassVar[Mapping[str, str]] = {
        "set_tasks": "pes",
        "set_tasks_per_node": "pes-per-node",
        "set_cpus_per_task": "cpus-per-pe",
        "set_hostlist": "node-list",
        "set_hostlist_from_file": "node-list-file",
        "set_excluded_hosts": "exclude-node-list",
        "set_cpu_bindings": "cpu-binding",
        "set_verbose_launch": "debug=7",
        "set_quiet_launch": "quiet",
        "set_walltime": "cpu-time-limit",
    }
    _flag = staticmethod(flag_gnu)

    def __init__(
        self,
        exe: str | PathLike[str],
        exe_args: Text | None = None,
        run_args: Mapping[str, Value] | None = None,
        env_vars: Mapping[str, Value] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("run_command", "aprun")
        super().__init__(exe, exe_args, run_args=run_args, env_vars=env_vars, **kwargs)

    def _head(self, context: StepContext) -> list[str]:
        return ["--wdir", context.cwd, *self._env_flags(self._union("_own_env"))]

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``-e K=V`` for each."""
        return [item for name, value in env.items() for item in ("-e", f"{name}={value or ''}")]
