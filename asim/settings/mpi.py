"""The MPI start commands: ``mpirun``, ``mpiexec``, ``orterun``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, ClassVar, Literal, Self

from ..errors import ConfigError, allowed
from ._text import LOG, Text, Value, flag_long, flag_short, given
from .base import RunSettings, StepContext

Flavor = Literal["openmpi", "mpich"]
"""Whose start command it is: Open MPI's (PRRTE, Spectrum MPI), or MPICH's Hydra (Intel MPI, MVAPICH)."""

_FLAVORS = ("openmpi", "mpich")
_VERSIONS = (
    ("openmpi", re.compile(r"Open ?MPI|OpenRTE|PRRTE|prte|Spectrum MPI", re.IGNORECASE)),
    ("mpich", re.compile(r"HYDRA|MPICH|MVAPICH|Intel\(R\) MPI", re.IGNORECASE)),
)
_TO_MPICH = {"npernode": "ppn", "N": "ppn", "host": "hosts", "H": "hosts", "hostfile": "f", "machinefile": "f"}
_NAMES: Mapping[str, Mapping[str, str]] = {
    "mpich": _TO_MPICH,
    "openmpi": {"ppn": "npernode", "hosts": "host", "f": "hostfile"},
}
_NOT_MPICH = frozenset({"cpus-per-proc", "preload-binary", "quiet", "oversubscribe", "allow-run-as-root"})
_TIMEOUT = "timeout"
_HOSTS = frozenset({"host", "H", "hosts", "hostfile", "machinefile"})


def flavor_of(version: str) -> Flavor | None:
    """Whose start command printed this for ``--version``.

    :returns: None for text that tells nothing.
    """
    for flavor, words in _VERSIONS:
        if words.search(version):
            return "openmpi" if flavor == "openmpi" else "mpich"
    return None


class MpiSettings(RunSettings):
    """What the MPI start commands share; use one of the subclasses.

    The other parameters are those of :class:`RunSettings`. An environment variable without value (None) is passed on
    as the command finds it. The programs of an MPMD job have an environment each, but share one under the local
    launcher.

    :param flavor: whose command it is, where the flags differ: Open MPI's ``--npernode 2 -x K=V`` is MPICH's
        ``-ppn 2 -env K V``. Arguments are translated to it. None: as Open MPI writes them, and as they were given.
    :raises ConfigError: another flavor.
    """

    WORD: ClassVar[str] = "mpirun"
    FLAVORS: ClassVar[tuple[str, ...]] = _FLAVORS
    """The flavors that this command has; none: it has a language of its own."""
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
        "set_walltime": _TIMEOUT,
        "set_task_map": "map-by",
    }
    _flag = staticmethod(flag_long)

    def __init__(
        self,
        exe: str | PathLike[str],
        exe_args: Text | None = None,
        run_args: Mapping[str, Value] | None = None,
        env_vars: Mapping[str, Value] | None = None,
        *,
        flavor: Flavor | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("run_command", self.WORD)
        super().__init__(exe, exe_args, run_args=run_args, env_vars=env_vars, **kwargs)
        if flavor is not None and flavor not in self.FLAVORS:
            what = f"must be one of {', '.join(self.FLAVORS)}" if self.FLAVORS else "this command has none"
            raise ConfigError(allowed("flavor", flavor, what))
        self.flavor: Flavor | None = flavor

    def with_flavor(self, flavor: Flavor | None) -> Self:
        """These settings for the command that was found; themselves when nothing changes.

        :param flavor: what :func:`flavor_of` made of its ``--version``; None: nobody knows. A flavor that was given
            on construction stays, and so does that of every part of an MPMD job.
        """
        parts = [part for part in self._parts() if isinstance(part, MpiSettings)]
        if flavor is None or all(part.flavor or flavor not in part.FLAVORS for part in parts):
            return self
        twin = self.copy()
        for part in twin._parts():
            if isinstance(part, MpiSettings) and part.flavor is None and flavor in part.FLAVORS:
                part.flavor = flavor
        return twin

    def told(self, argv: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
        """A command of these settings that hands on some variables of its own environment as well.

        Open MPI takes them along where Slurm starts its daemons, but not where it starts them itself, by ssh.

        :param argv: what :meth:`step` made; the run command is its first word.
        :param names: of the variables.
        """
        if "openmpi" not in self.FLAVORS or self.flavor == "mpich":
            return argv
        return (argv[0], *(item for name in names for item in ("-x", name)), *argv[1:])

    def set_broadcast(self, dest_path: str | None = None) -> None:
        """Copy the executable to the nodes before it starts.

        :param dest_path: cannot be chosen here: ignored with a warning.
        """
        if dest_path is not None:
            LOG.warning("%s: the destination %s of set_broadcast is ignored", type(self).__name__, dest_path)
        super().set_broadcast()

    def format_run_args(self) -> list[str]:
        """The run command's arguments as argument-list items, in its flavor's own words."""
        if self.flavor is None:
            return super().format_run_args()
        names, left_out = _NAMES[self.flavor], self._dropped() | self._lacking()
        args = {names.get(key, key): text for key, text in given(self.run_args).items() if key not in left_out}
        flag = flag_short if self.flavor == "mpich" else flag_long
        return [item for key, text in args.items() for item in flag(key, text)]

    def _lacking(self) -> frozenset[str]:
        """Arguments that MPICH has no word for; the time limit is a variable there."""
        if self.flavor != "mpich":
            return frozenset()
        for key in sorted(_NOT_MPICH & self.run_args.keys()):
            LOG.warning("%s: MPICH has no %s: ignored", type(self).__name__, key)
        return _NOT_MPICH | {_TIMEOUT}

    def _command(self, context: StepContext, head: list[str] | None = None) -> list[str]:
        """Where the agent sets the environment, processes on other hosts get it by name."""
        argv = super()._command(context, head)
        elsewhere = head is None and not context.alone and self.run_args.keys() & _HOSTS
        names = self._union("_local_env") if elsewhere else ()
        return list(self.told(tuple(argv), names))

    def _head(self, context: StepContext) -> list[str]:
        return ["-wdir" if self.flavor == "mpich" else "--wdir", context.cwd, *self.format_env_vars()]

    def _part_head(self, context: StepContext) -> list[str]:
        """Both MPIs take the directory for one program only: the others would start where the command was."""
        return self._head(context)

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """``-x K=V``; ``-x K`` passes on what the command itself has. MPICH: ``-env K V``; it passes on everything."""
        if self.flavor == "mpich":
            return [item for name, value in env.items() if value is not None for item in ("-env", name, value)]
        return [item for name, value in env.items() for item in ("-x", f"{name}={value}" if value else name)]

    def _spilled(self) -> dict[str, str]:
        """An empty value cannot be told from none in ``-x K``: the command itself gets it."""
        if self.flavor == "mpich":
            return self._limit()
        return {name: "" for name, value in self.env_vars.items() if value == ""}

    def _local_env(self) -> dict[str, str]:
        return super()._local_env() | self._limit()

    def _limit(self) -> dict[str, str]:
        """MPICH's time limit, seconds."""
        limit = given(self.run_args).get(_TIMEOUT)
        return {"MPIEXEC_TIMEOUT": limit} if self.flavor == "mpich" and limit else {}


class MpirunSettings(MpiSettings):
    """Run with ``mpirun``."""

    WORD = "mpirun"


class MpiexecSettings(MpiSettings):
    """Run with ``mpiexec``."""

    WORD = "mpiexec"


class OrterunSettings(MpiSettings):
    """Run with Open MPI's ``orterun``."""

    WORD = "orterun"
    FLAVORS = ("openmpi",)
