"""IBM's ``jsrun`` (LSF), with the explicit resource files (ERF) of its MPMD jobs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

from ..errors import ConfigError, UnsupportedError, allowed
from ._text import Text, Value, checked, flag_gnu, scalar, whole, words
from .base import RunSettings, StepContext

# what an ERF says instead; jsrun refuses the two together
_RESOURCES = frozenset(
    [
        "tasks_per_rs",
        "a",
        "np",
        "p",
        "cpu_per_rs",
        "c",
        "gpu_per_rs",
        "g",
        "latency_priority",
        "l",
        "memory_per_rs",
        "m",
        "nrs",
        "n",
        "rs_per_host",
        "r",
        "rs_per_socket",
        "K",
        "appfile",
        "f",
        "allocate_only",
        "A",
        "launch_node_task",
        "H",
        "use_reservation",
        "J",
        "use_resources",
        "bind",
        "b",
        "launch_distribution",
        "d",
    ]
)
_SETS = ("rank", "rank_count", "host", "cpu", "gpu", "memory")
_DISTRIBUTION = "launch_distribution"


class JsrunSettings(RunSettings):
    """Run with ``jsrun``. The parameters are those of :class:`RunSettings`.

    An MPMD job is described by an ERF that lists every program, these settings' own first. The programs share one
    environment. ``set_memory_per_node`` needs ``set_rs_per_host``, because jsrun takes memory per resource set.
    """

    FAMILY = "jsrun"
    OWN_FILES = True
    RESERVED = frozenset({"chdir", "h", "stdio_stdout", "o", "stdio_stderr", "k"})
    SHARED_MEMORY = ("memory_per_rs", ("rs_per_host", "r"))
    FLAGS: ClassVar[Mapping[str, str]] = {
        "set_tasks": "np",
        "set_tasks_per_node": "tasks_per_rs",
        "set_tasks_per_rs": "tasks_per_rs",
        "set_cpus_per_task": "cpu_per_rs",
        "set_cpus_per_rs": "cpu_per_rs",
        "set_gpus_per_rs": "gpu_per_rs",
        "set_memory_per_rs": "memory_per_rs",
        "set_num_rs": "nrs",
        "set_rs_per_host": "rs_per_host",
        "set_binding": "bind",
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
        kwargs.setdefault("run_command", "jsrun")
        super().__init__(exe, exe_args, run_args=run_args, env_vars=env_vars, **kwargs)
        self.erf = False
        self.erf_sets: dict[str, str] = {}
        self.mpmd_preamble_lines: list[str] = []
        self.individual_suffix = ""

    def set_num_rs(self, num_rs: int | str) -> None:
        """Use this many resource sets; a word such as ``ALL_HOSTS`` is taken as it is."""
        self._put("set_num_rs", _count("num_rs", num_rs))

    def set_cpus_per_rs(self, cpus_per_rs: int | str) -> None:
        """Give each resource set this many cpus; ``ALL_CPUS`` is taken as it is."""
        self._put("set_cpus_per_rs", _count("cpus_per_rs", cpus_per_rs))

    def set_gpus_per_rs(self, gpus_per_rs: int | str) -> None:
        """Give each resource set this many GPUs; ``ALL_GPUS`` is taken as it is."""
        self._put("set_gpus_per_rs", _count("gpus_per_rs", gpus_per_rs))

    def set_rs_per_host(self, rs_per_host: int) -> None:
        """Put this many resource sets on each host."""
        self._put("set_rs_per_host", whole("rs_per_host", rs_per_host))

    def set_tasks_per_rs(self, tasks_per_rs: int) -> None:
        """Start this many processes in each resource set."""
        self._put("set_tasks_per_rs", whole("tasks_per_rs", tasks_per_rs))

    def set_memory_per_rs(self, memory_per_rs: int) -> None:
        """Memory for each resource set, in megabytes."""
        self._put("set_memory_per_rs", whole("memory_per_rs", memory_per_rs))

    def set_individual_output(self, suffix: str | None = None) -> None:
        """Write the output of each process to a file of its own.

        :param suffix: goes before the extension of the files' names; jsrun's ``%t`` … may be used.
        """
        self.run_args["stdio_mode"] = "individual"
        self.individual_suffix = checked("suffix", suffix or "")

    def set_erf_sets(self, erf_sets: Mapping[str, str]) -> None:
        """The resources of this program in an MPMD job.

        :param erf_sets: some of ``rank`` (or ``rank_count``), ``host``, ``cpu``, ``gpu``, ``memory``, in ERF syntax.
        :raises ConfigError: another name, or a value with a line break.
        """
        for name, value in erf_sets.items():
            if name not in _SETS:
                raise ConfigError(allowed("erf_sets", name, f"must be one of {', '.join(_SETS)}"))
            _one_line(f"erf_sets[{name!r}]", str(scalar("erf_sets", value)))
        self.erf_sets = {name: str(value) for name, value in erf_sets.items()}

    def set_mpmd_preamble(self, preamble_lines: Sequence[str]) -> None:
        """Lines at the head of the ERF."""
        lines = [preamble_lines] if isinstance(preamble_lines, str) else preamble_lines
        self.mpmd_preamble_lines = [_one_line("preamble_lines", line) for line in words("preamble_lines", lines)]

    def make_mpmd(self, settings: RunSettings | None = None) -> None:
        """Describe the job by an ERF, and run another program in it.

        :param settings: the other program; None: only this one, by an ERF all the same.
        :raises UnsupportedError: it is not jsrun's, or has an MPMD list itself.
        """
        if settings is not None:
            super().make_mpmd(settings)
        self.erf = True

    def placeless(self, launcher: str) -> bool:
        return not self.erf and super().placeless(launcher)

    def _head(self, context: StepContext) -> list[str]:
        for field, path in (("stdout", context.stdout), ("stderr", context.stderr)):
            if "%" in path:
                what = "jsrun replaces % and the next letter in the paths of output files: use another exp_path or name"
                raise UnsupportedError(allowed(field, path, what))
        files = ["--stdio_stdout", self._suffixed(context.stdout), "--stdio_stderr", self._suffixed(context.stderr)]
        return ["--chdir", context.cwd, *files, *self._env_flags(self._union("_own_env"))]

    def _suffixed(self, path: str) -> str:
        stem, dot, extension = path.rpartition(".")
        if not dot or "/" in extension:
            return path + self.individual_suffix
        return f"{stem}{self.individual_suffix}.{extension}"

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``-E K=V``; ``-E K`` passes on what jsrun itself has."""
        return [item for name, value in env.items() for item in ("-E", f"{name}={value}" if value else name)]

    def _spilled(self) -> dict[str, str]:
        return {name: "" for name, value in self.env_vars.items() if value == ""}

    def _dropped(self) -> frozenset[str]:
        return self.RESERVED | _RESOURCES if self.erf or "erf_input" in self.run_args else self.RESERVED

    def _command(self, context: StepContext, head: list[str] | None = None) -> list[str]:
        if not self.erf:
            return super()._command(context, head)
        word = context.run_command or self.run_command
        return [word, *(head or ()), *self.format_run_args(), "--erf_input", context.programs]

    def _files(self, context: StepContext) -> dict[str, str]:
        return {context.programs: self._erf(context)} if self.erf else {}

    def _erf(self, context: StepContext) -> str:
        """The explicit resource file: how to spread, then every program, then the resources of every program."""
        parts: list[JsrunSettings] = [part for part in self._parts() if isinstance(part, JsrunSettings)]
        commands = [(context.exe, context.exe_args), *((part.exe, tuple(part.exe_args)) for part in parts[1:])]
        boxed = [part._boxed(context, *command) for part, command in zip(parts, commands, strict=True)]
        apps = [f"app {index} : {_one_line('exe_args', shlex.join(argv))}" for index, argv in enumerate(boxed)]
        resources = [f"{part._resources()}: app {index}" for index, part in enumerate(parts)]
        return "\n".join([*self._erf_head(parts), "", *apps, "", *resources, ""])

    def _erf_head(self, parts: Sequence[JsrunSettings]) -> list[str]:
        given = [line for line in self.mpmd_preamble_lines if line.strip().startswith(_DISTRIBUTION)]
        named = [part.run_args.get(_DISTRIBUTION) or part.run_args.get("d") for part in parts]
        default = f"{_DISTRIBUTION} : {next(filter(None, named), 'packed')}"
        return [*(given[:1] or [default]), *(line for line in self.mpmd_preamble_lines if line not in given)]

    def _resources(self) -> str:
        sets = self.erf_sets
        ranks = f"rank: {sets['rank']}" if "rank" in sets else sets.get("rank_count", "1 ")
        optional = "".join(f"; {name}: {sets[name]}" for name in ("gpu", "memory") if name in sets)
        return f"{ranks}: {{ host: {sets.get('host', '*')}; cpu: {sets.get('cpu', '*')}{optional}}}"


def _count(field: str, value: int | str) -> int | str:
    """A number, or one of jsrun's words for all there are."""
    return value if isinstance(value, str) and value.startswith("ALL_") else whole(field, value)


def _one_line(field: str, text: str) -> str:
    """Text for an ERF, where every entry is a line."""
    if "\n" in text or "\r" in text:
        raise ConfigError(allowed(field, text, "must not contain a line break: it goes to an ERF line"))
    return text
