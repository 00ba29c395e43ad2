"""Slurm's ``srun``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

from ..errors import ConfigError, UnsupportedError, allowed
from ._text import Text, Value, checked, flag_gnu, given, whole
from .base import RunSettings, StepContext

# srun splits --export at commas and takes quotes out; such values go through its own environment instead
_UNSAFE = frozenset(",'\"\\\n\r")
_MULTI_PROG = "multi-prog"
_TASKS = ("ntasks", "n")
_COUNTS = ("nodes", "N", "ntasks-per-node")
"""What srun would work the number of tasks out of, if nothing gives it."""
_WORDS = 127
"""Slurm cuts off what a program of a configuration file has more, and says nothing."""
_PLAIN = re.compile(r"[A-Za-z0-9@_+=:,./-]+")


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

    def set_multi_prog(self, on: bool = True) -> None:
        """Describe the programs of an MPMD job by a file (``srun --multi-prog``); without, by ``:``.

        See :meth:`make_mpmd`. In settings without other programs it is srun's bare flag: ``exe`` is then a file of
        your own.

        :param on: False takes it back.
        """
        if on:
            self.run_args[_MULTI_PROG] = True
        else:
            self.run_args.pop(_MULTI_PROG, None)

    def make_mpmd(self, settings: RunSettings) -> None:
        """Run another program in the same command.

        There are two ways. By default the programs are joined by ``:``, and Slurm makes a heterogeneous step of them.
        Each has nodes, CPUs and an environment of its own. Whether all share one ``MPI_COMM_WORLD`` is up to the site
        and its MPI.

        After :meth:`set_multi_prog` they are one ordinary step, with one ``MPI_COMM_WORLD``, and are listed in the file
        ``<name>.mpmd`` beside its output files. Ranks are given in the order of the programs; each has as many as its
        ``set_tasks`` says, else one. These settings' options, and the variables of all, are those of the whole step: no
        program can have different ones. Arguments arrive as they are: ``%t`` and ``%o`` are not replaced
        (``SLURM_PROCID`` is the rank). There are at most 126 for a program, none of them with a line break. Anything
        else is an error when it is started or previewed.

        :raises UnsupportedError: it is not srun's, has an MPMD list itself, or one of the two has a het group.
        """
        for part in (self, settings):
            if isinstance(part, SrunSettings) and "het-group" in part.run_args:
                raise UnsupportedError(allowed("het_group", part.run_args["het-group"], "not together with MPMD"))
        super().make_mpmd(settings)

    @property
    def _listed(self) -> bool:
        """Whether the programs are in a file."""
        return bool(self.mpmd) and _MULTI_PROG in given(self.run_args)

    def placeless(self, launcher: str) -> bool:
        return not self._listed and super().placeless(launcher)

    def _head(self, context: StepContext) -> list[str]:
        allocation = "" if context.in_batch else self.alloc or context.allocation
        job_id = ["--jobid", allocation] if allocation else []
        output, error = _pattern("stdout", context.stdout), _pattern("stderr", context.stderr)
        files = ["--output", output, "--error", error, "--job-name", context.name]
        counted = self._listed or self.SEVERAL & self.run_args.keys()
        shares = context.beside and counted and not self.SHARING & self.run_args.keys()
        env = self._env_flags(self._union("_own_env")) if self._listed else self.format_env_vars()
        return [*files, *job_id, *(["--exact"] if shares else []), *env]

    def _part_head(self, context: StepContext) -> list[str]:
        return ["--job-name", context.name, *self.format_env_vars()]

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``--export ALL,K=V,…``; a name alone is passed on from srun's own environment."""
        listed = (name if value is None or _unsafe(value) else f"{name}={value}" for name, value in env.items())
        return ["--export", ",".join(("ALL", *listed))] if env else []

    def _spilled(self) -> dict[str, str]:
        return {name: value for name, value in self.env_vars.items() if value is not None and _unsafe(value)}

    def _dropped(self) -> frozenset[str]:
        return self.RESERVED | {_MULTI_PROG, *_TASKS} if self._listed else self.RESERVED

    def _command(self, context: StepContext, head: list[str] | None = None) -> list[str]:
        if not self._listed:
            self._refuse_colons(context)
            return super()._command(context, head)
        tasks = str(sum(part._tasks(where) for where, part in self._named()))
        word = context.run_command or self.run_command
        return [word, *(head or ()), *self.format_run_args(), "--ntasks", tasks, "--multi-prog", context.programs]

    def _refuse_colons(self, context: StepContext) -> None:
        """At each srun begins another program, wherever it stands, also after ``--``."""
        for where, part in self._named():
            if ":" in (part.exe_args if where else context.exe_args) and not context.alone:
                what = "srun takes an argument that is only a colon for the beginning of another program"
                hint = "; a file can hold it: set_multi_prog" if self.mpmd else ""
                raise UnsupportedError(allowed(f"{where}exe_args", ":", what + hint))

    def _files(self, context: StepContext) -> dict[str, str]:
        if not self._listed:
            return {}
        lines, first = [], 0
        for where, part in self._named():
            tasks = part._tasks(where)
            own = (part.exe, part.exe_args) if where else (context.exe, context.exe_args)
            lines.append(f"{first}-{first + tasks - 1} {_quoted(f'{where}exe_args', part._boxed(context, *own))}\n")
            first += tasks
            self._share(where, part)
        return {context.programs: "".join(lines)}

    def _named(self) -> list[tuple[str, SrunSettings]]:
        """All programs, with what errors call them."""
        return [("", self), *((f"mpmd[{index}].", part) for index, part in enumerate(self.mpmd))]

    def _tasks(self, where: str) -> int:
        """How many tasks run this program."""
        args = given(self.run_args)
        for key in (key for key in reversed(args) if key in _TASKS):
            return whole(f"{where}run_args[{key!r}]", args[key] or "", least=1)
        for key in (key for key in _COUNTS if key in args and args[key] != "1"):
            what = "with multi-prog a program must also say how many tasks it has: set_tasks"
            raise ConfigError(allowed(f"{where}run_args[{key!r}]", args[key], what))
        return 1

    def _share(self, where: str, part: SrunSettings) -> None:
        """Refuse options that would have to be different for one program of a step."""
        own = given(self.run_args)
        for key, text in given(part.run_args).items():
            if key not in (_MULTI_PROG, *_TASKS) and (key not in own or own[key] != text):
                what = "with multi-prog all programs share the options of the first, but for the number of tasks"
                raise UnsupportedError(allowed(f"{where}run_args[{key!r}]", text, what))


def _pattern(field: str, path: str) -> str:
    """A path as srun takes those of output files: ``%`` begins what it replaces, unless there is a backslash, which it
    drops. (``%%`` is not enough: srun 22.05 replaces some letters after the second one all the same.)

    :raises UnsupportedError: it has a backslash.
    """
    if "\\" in path:
        what = "srun drops backslashes from the paths of output files: use another exp_path or name"
        raise UnsupportedError(allowed(field, path, what))
    return f"{path[:1]}\\{path[1:]}" if "%" in path else path


def _quoted(field: str, argv: Sequence[str]) -> str:
    """A program's words as Slurm reads them: it knows single quotes and backslashes, and replaces ``%`` outside them.

    :raises UnsupportedError: a line break, or more words than it takes.
    """
    if len(argv) > _WORDS:
        what = f"multi-prog takes at most {_WORDS - 1} arguments of a program, and cuts off the others"
        raise UnsupportedError(allowed(field, f"{len(argv) - 1} arguments", what))
    for word in argv:
        if "\n" in word:
            raise UnsupportedError(allowed(field, word, "multi-prog takes no line break: its file has lines"))
    return " ".join(word if _PLAIN.fullmatch(word) else "'" + word.replace("'", "'\\''") + "'" for word in argv)


def _unsafe(value: str) -> bool:
    return not _UNSAFE.isdisjoint(value)
