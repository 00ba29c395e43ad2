"""Slurm's ``srun``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, ClassVar

from ..errors import ConfigError, UnsupportedError, allowed
from ._text import Text, Value, checked, flag_gnu, whole
from .base import RunSettings, StepContext

# srun splits --export at commas and takes quotes out; such values go through its own environment instead
_UNSAFE = frozenset(",'\"\\\n\r")


class SrunSettings(RunSettings):
    """Run with ``srun``: a step in an allocation, or a job of its own when there is none.

    :param alloc: id of the allocation to run in; by default the one the caller is in.

    The other parameters are those of :class:`RunSettings`; a path to srun can be given as ``run_command=``.
    An environment variable with the value None is passed on as srun finds it.
    """

    FAMILY = "srun"
    OWN_FILES = True
    PLACES = True
    SEVERAL = frozenset({"nodes", "N", "ntasks", "n", "ntasks-per-node"})
    SHARING = frozenset({"exact", "overlap", "exclusive", "whole"})
    CLOCK = True
    RESERVED = frozenset({"chdir", "D"})
    FLAGS: ClassVar[Mapping[str, str]] = {
        "set_nodes": "nodes",
        "set_tasks": "ntasks",
        "set_tasks_per_node": "ntasks-per-node",
        "set_cpus_per_task": "cpus-per-task",
        "set_hostlist": "nodelist",
        "set_hostlist_from_file": "nodefile",
        "set_excluded_hosts": "exclude",
        "set_cpu_bindings": "cpu_bind=map_cpu:{}",
        "set_memory_per_node": "mem={}M",
        "set_verbose_launch": "verbose",
        "set_quiet_launch": "quiet",
        "set_broadcast": "bcast",
        "set_walltime": "time",
        "set_node_feature": "C",
    }
    _flag = staticmethod(flag_gnu)

    def __init__(
        self,
        exe: str | PathLike[str],
        exe_args: Text | None = None,
        run_args: Mapping[str, Value] | None = None,
        env_vars: Mapping[str, Value] | None = None,
        alloc: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("run_command", "srun")
        super().__init__(exe, exe_args, run_args=run_args, env_vars=env_vars, **kwargs)
        self.alloc = None if alloc is None else checked("alloc", str(alloc))

    def set_het_group(self, het_group: Iterable[int], het_size: int | None = None) -> None:
        """Run on these components of a heterogeneous allocation.

        :param het_group: their numbers, from 0.
        :param het_size: how many the allocation has (Slurm's ``SLURM_HET_SIZE``), to check them against.
        :raises ConfigError: a number is too large, or these are MPMD settings.
        """
        groups = [whole("het_group", group) for group in het_group]
        if self.mpmd:
            raise ConfigError(allowed("het_group", groups, "not together with MPMD"))
        if not groups or (het_size is not None and max(groups) >= het_size):
            raise ConfigError(
                allowed("het_group", groups, f"must be numbers from 0 and below {het_size or 'het_size'}")
            )
        self.run_args["het-group"] = ",".join(map(str, groups))

    def make_mpmd(self, settings: RunSettings) -> None:
        """Run another program in the same command.

        :raises UnsupportedError: it is not srun's, has an MPMD list itself, or one of the two has a het group.
        """
        for part in (self, settings):
            if isinstance(part, SrunSettings) and "het-group" in part.run_args:
                raise UnsupportedError(allowed("het_group", part.run_args["het-group"], "not together with MPMD"))
        super().make_mpmd(settings)

    def _head(self, context: StepContext) -> list[str]:
        allocation = "" if context.in_batch else self.alloc or context.allocation
        job_id = ["--jobid", allocation] if allocation else []
        files = ["--output", context.stdout, "--error", context.stderr, "--job-name", context.name]
        shares = context.beside and self.SEVERAL & self.run_args.keys() and not self.SHARING & self.run_args.keys()
        return [*files, *job_id, *(["--exact"] if shares else []), *self.format_env_vars()]

    def _part_head(self, context: StepContext) -> list[str]:
        return ["--job-name", context.name, *self.format_env_vars()]

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``--export ALL,K=V,…``; a name alone is passed on from srun's own environment."""
        listed = (name if value is None or _unsafe(value) else f"{name}={value}" for name, value in env.items())
        return ["--export", ",".join(("ALL", *listed))] if env else []

    def _spilled(self) -> dict[str, str]:
        return {name: value for name, value in self.env_vars.items() if value is not None and _unsafe(value)}


def _unsafe(value: str) -> bool:
    return not _UNSAFE.isdisjoint(value)
