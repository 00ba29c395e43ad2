"""What goes into the text of a command, and what comes out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """Everything about one job that its command needs and its settings do not know.

    :ivar name: the job's name.
    :ivar cwd: its working directory.
    :ivar stdout: file for its output.
    :ivar stderr: file for its errors.
    :ivar exe: the executable, as resolved by the caller or as given.
    :ivar exe_args: the complete argument list, one item per argument; nothing is split again.
    :ivar run_command: the run command as resolved by the caller (``/usr/bin/srun``); "" is the settings' own word.
    :ivar launcher: ``local`` when the agent places the process, else the workload manager.
    :ivar in_batch: whether the command becomes a line of a batch script.
    :ivar beside: others run beside it in the same allocation, so that it must take no more than it asks for.
    :ivar alone: the program is started without the run command, by the agent of its node.
    :ivar allocation: the id of the allocation to run in, when known.
    """

    name: str
    cwd: str
    stdout: str
    stderr: str
    exe: str
    exe_args: tuple[str, ...]
    run_command: str = ""
    launcher: str = "local"
    in_batch: bool = False
    beside: bool = False
    alone: bool = False
    allocation: str = ""

    @property
    def programs(self) -> str:
        """The file that lists the programs of an MPMD job, where a run command wants one. It is beside the output files:
        others may start jobs of this name in the same working directory.
        """
        return f"{os.path.dirname(self.stdout)}/{self.name}.mpmd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command, ready to be started.

    :ivar argv: the command, one item per argument.
    :ivar env: variables to set in the environment of the process that is started.
    :ivar files: path -> text of files that must exist before it starts.
    :ivar stdout: in a batch script its output is redirected to this file ("" = the command does that itself).
    :ivar stderr: the same for its errors.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
