"""Slurm's ``sbatch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ._text import Value, flag_gnu, program, whole
from .batch import BatchContext, BatchSettings


class SbatchSettings(BatchSettings):
    """What Slurm is asked for.

    :param nodes: number of nodes.
    :param time: time limit, ``HH:MM:SS`` (or another form that sbatch takes).
    :param account: account to charge.
    :param batch_args: further options; ``{"gres": "gpu:2"}`` is ``#SBATCH --gres=gpu:2``.
    """

    PREFIX = "#SBATCH"
    FORWARDS = True
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
        super().__init__("sbatch", batch_args, nodes=nodes, time=time, account=account, **kwargs)

    def set_partition(self, partition: str) -> None:
        """Submit to this partition."""
        self.set_queue(program("partition", partition))

    def set_cpus_per_task(self, cpus_per_task: int) -> None:
        """Give each task this many cpus."""
        self.batch_args["cpus-per-task"] = whole("cpus_per_task", cpus_per_task)

    def submit_argv(self, script: str) -> tuple[str, ...]:
        """``sbatch --parsable``: prints the job's id alone."""
        return (self.batch_cmd, "--parsable", script)

    def _fixed(self, context: BatchContext) -> list[str]:
        fixed = {"output": context.stdout, "error": context.stderr, "job-name": context.name}
        return [text for key, value in fixed.items() for text in self._option(key, value)]
