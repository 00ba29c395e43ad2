"""Slurm's ``sbatch``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import ConfigError, UnsupportedError, allowed
from ._text import Value, checked, flag_gnu, program, whole
from .batch import BatchContext, BatchSettings

_SIGNALS = ("TERM", "USR1", "USR2")
"""Those that a batch script passes on."""


class SbatchSettings(BatchSettings):
    """What Slurm is asked for.

    :param nodes: number of nodes.
    :param time: time limit, ``HH:MM:SS`` (or another form that sbatch takes).
    :param account: account to charge.
    :param batch_args: further options; ``{"gres": "gpu:2"}`` is ``#SBATCH --gres=gpu:2``.
    """

    PREFIX = "#SBATCH"
    FORWARDS = True
    ARRAYS = frozenset({"array", "a"})
    FLAGS: ClassVar[Mapping[str, str]] = {
        "set_nodes": "nodes",
        "set_hostlist": "nodelist",
        "set_queue": "partition",
        "set_walltime": "time",
        "set_account": "account",
    }
    _flag = staticmethod(flag_gnu)

    def __init__(
        self,
        nodes: int | None = None,
        time: str = "",
        account: str | None = None,
        batch_args: Mapping[str, Value] | None = None,
        **kwargs: Any,
    ) -> None:
        self.components: list[SbatchSettings] = []
        super().__init__("sbatch", batch_args, nodes=nodes, time=time, account=account, **kwargs)

    def set_partition(self, partition: str) -> None:
        """Submit to this partition."""
        self.set_queue(program("partition", partition))

    def set_cpus_per_task(self, cpus_per_task: int) -> None:
        """Give each task this many cpus."""
        self.batch_args["cpus-per-task"] = whole("cpus_per_task", cpus_per_task)

    def set_signal(self, name: str, seconds_before: int) -> None:
        """Have the members told before the time limit: the script passes the signal on to each.

        :param name: ``TERM``, ``USR1`` or ``USR2``, with or without ``SIG``.
        :param seconds_before: how long before the limit, in seconds; Slurm may be a minute early.
        :raises ConfigError: another signal: the script would not pass it on.
        """
        word = checked("name", name).upper().removeprefix("SIG")
        if word not in _SIGNALS:
            raise ConfigError(allowed("name", name, f"must be one of {', '.join(_SIGNALS)}"))
        self.batch_args["signal"] = f"B:{word}@{whole('seconds_before', seconds_before, least=1)}"

    def set_requeue(self, requeue: bool = True) -> None:
        """Whether Slurm may start the job again after a lost node, or when it had to give way. Sites differ in what
        they do without.
        """
        for key in ("requeue", "no-requeue"):
            self.batch_args.pop(key, None)
        self.batch_args["requeue" if requeue else "no-requeue"] = None

    def add_het_component(self, settings: SbatchSettings) -> None:
        """Ask for one more part of another kind (a heterogeneous job): other nodes, another partition …

        A run command uses the first part unless it is told others (``SrunSettings.set_het_group``).

        :param settings: what that part has; a copy is taken.
        :raises UnsupportedError: it has parts of its own, or lines for the script.
        """
        if settings.components or settings.preamble:
            what = "a part of a heterogeneous job has options only, no parts and no preamble"
            raise UnsupportedError(allowed("settings", settings, what))
        self.components.append(settings.copy())

    def directives(self, context: BatchContext) -> list[str]:
        """The directives; those of further parts after a line ``#SBATCH hetjob`` each.

        :raises ConfigError: an option's value has a line break.
        """
        lines = super().directives(context)
        for part in self.components:
            lines.append(f"{self.PREFIX} hetjob")
            lines += [f"{self.PREFIX} {text}" for text in part.format_batch_args()]
        return lines

    def submit_argv(self, script: str) -> tuple[str, ...]:
        """``sbatch --parsable``: prints the job's id alone."""
        return (self.batch_cmd, "--parsable", script)

    def _fixed(self, context: BatchContext) -> list[str]:
        fixed = {"output": _pattern(context.stdout), "error": _pattern(context.stderr), "job-name": context.name}
        return [text for key, value in fixed.items() for text in self._option(key, value)]

    def _option(self, key: str, text: str | None) -> list[str]:
        """In its lines sbatch takes ``#`` for the beginning of a comment, and a backslash away also inside quotes."""
        if text is not None and not (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
            text = text.replace("\\", "\\\\")
            text = shlex.quote(text) if "#" in text and "\n" not in text and "\r" not in text else text
        return super()._option(key, text)


def _pattern(path: str) -> str:
    """A path as Slurm takes those of output files: ``%`` begins what it replaces, but not beside a backslash, which
    makes of the next character what it is.
    """
    return path.replace("\\", "\\\\") if "\\" in path else path.replace("%", "%%")
