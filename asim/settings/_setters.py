"""The named setters of all run settings. A class says in one table which of its flags each of them sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..units import clock
from ._text import LOG, Text, Value, checked, names, whole, words


class Setters:
    """Setters by meaning; which flag that is depends on the run command.

    A setter that the run command has no flag for logs a warning and changes nothing, as in SmartSim.
    """

    FLAGS: ClassVar[Mapping[str, str]] = {}
    """Setter -> flag, or ``flag=template`` where ``{}`` is the value."""
    CLOCK: ClassVar[bool] = False
    """Whether times are ``HH:MM:SS``; otherwise whole seconds."""

    SHARED_MEMORY: ClassVar[tuple[str, tuple[str, ...]]] = ("", ())
    """Without a flag for memory per node: the flag per share of a node, and the flags that say how many shares."""

    _run_args: dict[str, Value]
    node_memory: int | None

    PLACES: ClassVar[bool] = False
    """Whether the run command asks a workload manager where to run."""
    SEVERAL: ClassVar[frozenset[str]] = frozenset()
    """Its arguments that count nodes and tasks."""
    mpmd: list[Any]

    @property
    def cpus(self) -> int:
        """CPUs that one task needs, as far as the settings say."""
        text = str(self._run_args.get(self.FLAGS.get("set_cpus_per_task", ""), self._run_args.get("c", "")))
        return int(text) if text.isdigit() else 1

    @property
    def single_node(self) -> bool:
        """Whether it is one program on one node, which needs no workload manager."""
        wants = [str(value) for key, value in self._run_args.items() if key in self.SEVERAL]
        return not self.mpmd and (not self.PLACES or set(wants) <= {"1"})

    def set_nodes(self, nodes: int) -> None:
        """Run on this many nodes."""
        self._put("set_nodes", whole("nodes", nodes))

    def set_tasks(self, tasks: int) -> None:
        """Start this many processes in all."""
        self._put("set_tasks", whole("tasks", tasks))

    def set_tasks_per_node(self, tasks_per_node: int) -> None:
        """Start this many processes on each node."""
        self._put("set_tasks_per_node", whole("tasks_per_node", tasks_per_node))

    def set_cpus_per_task(self, cpus_per_task: int) -> None:
        """Give each process this many cpus."""
        self._put("set_cpus_per_task", whole("cpus_per_task", cpus_per_task))

    def set_task_map(self, task_mapping: str) -> None:
        """Place processes by this rule, in the run command's own words."""
        self._put("set_task_map", checked("task_mapping", task_mapping))

    def set_hostlist(self, host_list: Text) -> None:
        """Run on these hosts: one name or a list of names."""
        self._put("set_hostlist", ",".join(names("host_list", host_list)))

    def set_hostlist_from_file(self, file_path: str) -> None:
        """Run on the hosts that this file lists."""
        self._put("set_hostlist_from_file", checked("file_path", file_path))

    def set_excluded_hosts(self, host_list: Text) -> None:
        """Do not run on these hosts: one name or a list of names."""
        self._put("set_excluded_hosts", ",".join(names("host_list", host_list)))

    def set_cpu_bindings(self, bindings: int | Sequence[int]) -> None:
        """Bind the processes to these cpus, one number or a list of numbers."""
        listed = [bindings] if isinstance(bindings, (int, str)) else bindings
        self._put("set_cpu_bindings", ",".join(str(whole("bindings", cpu)) for cpu in listed))

    def set_cpu_binding_type(self, bind_type: str) -> None:
        """Bind processes to this kind of thing (``core``, ``socket``, ``none`` …), in the run command's own words."""
        self._put("set_cpu_binding_type", checked("bind_type", bind_type))

    def set_binding(self, binding: str) -> None:
        """Bind processes by this rule, in the run command's own words."""
        self._put("set_binding", checked("binding", binding))

    def set_memory_per_node(self, memory_per_node: int) -> None:
        """Memory on each node, in megabytes.

        aprun and jsrun count per process and per resource set: the number is divided (rounded down) when the command
        is written, which raises UnsupportedError when nothing says by how many.
        """
        number = whole("memory_per_node", memory_per_node)
        if self.SHARED_MEMORY[0]:
            self.node_memory = number
            self._run_args.pop(self.SHARED_MEMORY[0], None)
        else:
            self._put("set_memory_per_node", number)

    def set_verbose_launch(self, verbose: bool) -> None:
        """Make the run command talkative, or no longer so."""
        self._switch("set_verbose_launch", verbose)

    def set_quiet_launch(self, quiet: bool) -> None:
        """Make the run command quiet, or no longer so."""
        self._switch("set_quiet_launch", quiet)

    def set_broadcast(self, dest_path: str | None = None) -> None:
        """Copy the executable to the nodes before it starts.

        :param dest_path: where to, for run commands that can be told.
        """
        self._put("set_broadcast", None if dest_path is None else checked("dest_path", dest_path))

    def set_node_feature(self, feature_list: Text) -> None:
        """Run on nodes with these features: one name or a list of names."""
        self._put("set_node_feature", ",".join(names("feature_list", feature_list)))

    def set_walltime(self, walltime: str) -> None:
        """Time limit, in the run command's own words. :meth:`set_time` writes those for you."""
        self._put("set_walltime", checked("walltime", walltime))

    def set_time(self, hours: int = 0, minutes: int = 0, seconds: int = 0) -> None:
        """Time limit as the sum of these; 30 hours are ``30:00:00``, or 108000 where seconds are wanted."""
        parts = whole("hours", hours), whole("minutes", minutes), whole("seconds", seconds)
        self.set_walltime(clock(*parts) if self.CLOCK else str(parts[0] * 3600 + parts[1] * 60 + parts[2]))

    def set_mpmd_preamble(self, preamble_lines: Sequence[str]) -> None:
        """Lines at the head of the file that describes an MPMD job (jsrun's ERF)."""
        words("preamble_lines", preamble_lines)
        self._lacks("set_mpmd_preamble")

    def _put(self, setter: str, value: Any) -> None:
        """Set the flag that this setter stands for."""
        key, _, template = self.FLAGS.get(setter, "").partition("=")
        if key:
            self._run_args[key] = template.format(value) if template else value
        else:
            self._lacks(setter)

    def _switch(self, setter: str, on: bool) -> None:
        """Set a flag without value, or take it away."""
        if on or setter not in self.FLAGS:
            self._put(setter, None)
        else:
            self._run_args.pop(self.FLAGS[setter].partition("=")[0], None)

    def _lacks(self, setter: str) -> None:
        LOG.warning("%s has no flag for %s: ignored", type(self).__name__, setter)
