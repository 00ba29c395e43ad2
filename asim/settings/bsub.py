"""LSF's ``bsub``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import UnsupportedError, allowed
from ._text import LOG, Text, Value, checked, directive_value, names, program, whole
from .batch import BatchContext, BatchSettings

_NOT_EXPERT = ("ln_slots", "ln_mem", "cn_cu", "nnodes")  # what the expert's own resource text replaces


class BsubBatchSettings(BatchSettings):
    """What LSF is asked for.

    :param nodes: number of nodes.
    :param time: time limit, ``HH:MM``; seconds, if given, are cut off.
    :param project: project to charge.
    :param batch_args: further options; all have one dash.
    :param smts: hardware threads per core (CSM's ``alloc_flags``); 0 leaves it to the site.
    """

    PREFIX = "#BSUB"
    REPLACED = "%[IJ]"
    FLAGS: ClassVar[Mapping[str, str]] = {"set_nodes": "nnodes", "set_queue": "q", "set_tasks": "n"}

    def __init__(
        self,
        nodes: int | None = None,
        time: str | None = None,
        project: str | None = None,
        batch_args: Mapping[str, Value] | None = None,
        smts: int = 0,
        **kwargs: Any,
    ) -> None:
        self.walltime = ""
        self.project = ""
        self.expert_mode = False
        self.set_smts(smts)
        super().__init__("bsub", batch_args, nodes=nodes, time=time, **kwargs)
        if project:
            self.set_project(project)

    def set_walltime(self, walltime: str) -> None:
        """Time limit, ``HH:MM``; of ``HH:MM:SS`` the seconds are cut off."""
        self.walltime = ":".join(program("walltime", walltime).split(":")[:2])

    def set_project(self, project: str) -> None:
        """Charge this project."""
        self.project = program("project", project)

    def set_account(self, account: str) -> None:
        """The same as :meth:`set_project`."""
        self.set_project(account)

    def set_smts(self, smts: int) -> None:
        """Use this many hardware threads per core; 0 leaves it to the site."""
        self.smts = whole("smts", smts)

    def set_tasks(self, tasks: int) -> None:
        """Ask for this many slots."""
        self._put("set_tasks", whole("tasks", tasks))

    def set_hostlist(self, host_list: Text) -> None:
        """Ask for these hosts: one name or a list of names."""
        self.batch_args["m"] = " ".join(names("host_list", host_list))

    def set_expert_mode_req(self, res_req: str, slots: int) -> None:
        """Say in LSF's own language what is needed; nodes and the launch node's options are then not written.

        :param res_req: the resource requirement (``-R``).
        :param slots: how many slots (``-n``).
        """
        self.expert_mode = True
        self.batch_args |= {"csm": "y", "R": checked("res_req", res_req), "n": whole("slots", slots)}

    def format_batch_args(self) -> list[str]:
        """The options. ``alloc_flags`` are completed by the hardware threads, and quoted if there are several."""
        args = self.batch_args | self._alloc_flags()
        if self.expert_mode:
            dropped = [name for name in _NOT_EXPERT if args.pop(name, None) is not None]
            if dropped:
                LOG.warning("expert mode: %s left out", ", ".join(dropped))
        return self._options(args)

    def _alloc_flags(self) -> dict[str, Value]:
        flags = str(self.batch_args.get("alloc_flags") or "").strip("\"'").split()
        if self.smts and not any(flag.startswith("smt") for flag in flags):
            flags.append(f"smt{self.smts}")
        return {"alloc_flags": " ".join(flags)} if flags else {}

    def _fixed(self, context: BatchContext) -> list[str]:
        self._check_files(context)
        for field, name in (("name", context.name), ("batch_args['J']", str(self.batch_args.get("J") or ""))):
            if "[" in name:
                what = 'bsub would make an array of it, and run every member in each task; use pack="array"'
                raise UnsupportedError(allowed(field, name, what))
        optional = {"W": self.walltime, "P": self.project}
        fixed = {"J": context.name, "o": context.stdout, "e": context.stderr}
        both = {**{key: value for key, value in optional.items() if value}, **fixed}
        return [f"-{key} {directive_value(key, value)}" for key, value in both.items()]
