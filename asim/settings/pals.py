"""``mpiexec`` of HPE's Parallel Application Launch Service."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar

from ._text import Text, Value, checked, program, words
from .base import StepContext
from .mpi import MpiSettings


class PalsMpiexecSettings(MpiSettings):
    """Run with PALS' ``mpiexec``. The parameters are those of :class:`RunSettings`."""

    WORD = "mpiexec"
    FLAVORS = ()
    FAMILY = "pals"
    FLAGS: ClassVar[Mapping[str, str]] = {
        "set_tasks": "np",
        "set_tasks_per_node": "ppn",
        "set_hostlist": "hosts",
        "set_hostlist_from_file": "hostfile",
        "set_cpu_binding_type": "cpu-bind",
        "set_verbose_launch": "verbose",
        "set_broadcast": "transfer",
    }

    def __init__(
        self,
        exe: str | PathLike[str],
        exe_args: Text | None = None,
        run_args: Mapping[str, Value] | None = None,
        env_vars: Mapping[str, Value] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(exe, exe_args, run_args, env_vars, **kwargs)
        self.affinity_script: list[str] = []

    def set_gpu_affinity_script(self, affinity: str, *args: Any) -> None:
        """Start each process through a script that gives it its GPU.

        :param affinity: path of the script.
        :param args: the script's arguments; numbers become text.
        """
        self.affinity_script = [program("affinity", affinity), *(checked("args", str(arg)) for arg in args)]

    def format_run_args(self) -> list[str]:
        """The run command's arguments, then the GPU affinity script with its own."""
        return [*super().format_run_args(), *words("affinity_script", self.affinity_script)]

    def _part_head(self, context: StepContext) -> list[str]:
        return self.format_env_vars()

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``--env K=V`` for each; ``--envlist K1,K2`` passes on what the command itself has."""
        items = [item for name, value in env.items() if value for item in ("--env", f"{name}={value}")]
        passed = [name for name, value in env.items() if not value]
        return [*items, "--envlist", ",".join(passed)] if passed else items
