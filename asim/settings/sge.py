"""Grid Engine's ``qsub``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import ConfigError, UnsupportedError, allowed
from ._text import Text, Value, checked, directive_value, program, whole
from .batch import BatchSettings

_ACTIONS = ("ac", "sc", "dc")


class SgeQsubBatchSettings(BatchSettings):
    """What Grid Engine is asked for. The environment is not shipped (no ``-V``): the members' variables are in the
    script, and the default shell is a login shell.

    :param time: time limit, ``HH:MM:SS``.
    :param ncpus: slots of the parallel environment; needs ``pe_type``.
    :param pe_type: parallel environment; needs ``ncpus``.
    :param account: account to charge.
    :param shebang: first line of the script; a shell that knows POSIX sh.
    :param resources: resources by name (``-l``).
    :param batch_args: further options with their values (True for one without).
    """

    PREFIX = "#$"
    BARE = False
    ARRAYS = frozenset({"t"})
    REPLACED = r"\$(?:HOME|USER|JOB_ID|JOB_NAME|HOSTNAME|TASK_ID|\$)|[#,:]"  # "#" begins a comment, "," another path, ":" ends a host
    FLAGS: ClassVar[Mapping[str, str]] = {"set_account": "A", "set_project": "P"}

    def __init__(
        self,
        time: str | None = None,
        ncpus: int | None = None,
        pe_type: str | None = None,
        account: str | None = None,
        shebang: str = "#!/bin/bash -l",
        resources: Mapping[str, str | int] | None = None,
        batch_args: Mapping[str, Value] | None = None,
        **kwargs: Any,
    ) -> None:
        self.resources: dict[str, str | int] = {}
        self.context_variables: list[str] = []
        self.threads_per_pe: int | None = None
        if kwargs.get("nodes") == 1:  # what a factory may give everybody; without nodes it is meant as "no more"
            del kwargs["nodes"]
        super().__init__("qsub", batch_args, time=time, account=account, **kwargs)
        self.set_shebang(shebang)
        for name, value in {**(resources or {}), "ncpus": ncpus, "pe_type": pe_type}.items():
            if value is not None:
                self.set_resource(name, value)

    def set_shebang(self, shebang: str) -> None:
        """First line of the script, ``#!`` included."""
        if not checked("shebang", shebang).startswith("#!") or "\n" in shebang:
            raise ConfigError(allowed("shebang", shebang, "must be one line that begins with #!"))
        self.shebang = shebang

    def set_nodes(self, num_nodes: int) -> None:
        """Grid Engine counts slots, not nodes: only 0 is accepted.

        :raises UnsupportedError: more than 0.
        """
        if whole("nodes", num_nodes):
            raise UnsupportedError(
                allowed("nodes", num_nodes, "Grid Engine has no nodes: use set_ncpus and set_pe_type")
            )

    def set_hostlist(self, host_list: Text) -> None:
        """Not possible here.

        :raises UnsupportedError: always.
        """
        raise UnsupportedError(allowed("host_list", host_list, "cannot be set for Grid Engine"))

    def set_queue(self, queue: str) -> None:
        """Not possible here.

        :raises UnsupportedError: always.
        """
        raise UnsupportedError(allowed("queue", queue, "cannot be set for Grid Engine; use batch_args={'q': ...}"))

    def set_walltime(self, walltime: str) -> None:
        """Time limit, ``HH:MM:SS``."""
        self.set_resource("h_rt", program("walltime", walltime))

    def set_project(self, project: str) -> None:
        """Charge this project."""
        self._put("set_project", program("project", project))

    def set_ncpus(self, num_cpus: int) -> None:
        """Slots of the parallel environment."""
        self.set_resource("ncpus", whole("ncpus", num_cpus))

    def set_ngpus(self, num_gpus: int) -> None:
        """GPUs on each node."""
        self.set_resource("gpu", whole("ngpus", num_gpus))

    def set_pe_type(self, pe_type: str) -> None:
        """Parallel environment."""
        self.set_resource("pe_type", program("pe_type", pe_type))

    def set_hyperthreading(self, enable: bool = True) -> None:
        """Use hardware threads, or do not."""
        self.set_resource("threads", int(enable))

    def set_memory_per_pe(self, memory_spec: str) -> None:
        """Memory for each slot, with its unit: ``2G``."""
        self.set_resource("mem", program("memory_spec", memory_spec))

    def set_threads_per_pe(self, threads_per_core: int) -> None:
        """Threads for each slot, as ``OMP_NUM_THREADS``."""
        self.threads_per_pe = whole("threads_per_core", threads_per_core)

    def update_context_variables(self, action: str, var_name: str, value: str | int | None = None) -> None:
        """Add (``ac``), set (``sc``) or delete (``dc``) a context variable of the job. The order of calls is kept.

        :raises ConfigError: another action, or a value to delete.
        """
        if action not in _ACTIONS:
            raise ConfigError(allowed("action", action, f"must be one of {', '.join(_ACTIONS)}"))
        if action == "dc" and value is not None:
            raise ConfigError(allowed("value", value, "must not be given for the action dc"))
        assigned = program("var_name", var_name) if value is None else f"{program('var_name', var_name)}={value}"
        self.context_variables.append(f"-{action} {directive_value('value', assigned)}")

    def set_resource(self, resource_name: str, value: str | int) -> None:
        """Ask for any resource (``-l name=value``).

        :raises ConfigTypeError: the value is not str or int.
        """
        name = program("resource_name", resource_name)
        self.resources[name] = value if isinstance(value, int) else checked(f"resources[{name!r}]", value)

    def format_batch_args(self) -> list[str]:
        """Parallel environment, context variables, resources, threads, other options.

        :raises ConfigError: only one of ``ncpus`` and ``pe_type``; an option without value.
        """
        rest = {name: value for name, value in self.resources.items() if name not in ("ncpus", "pe_type")}
        listed = [f"-l {name}={directive_value(name, str(value))}" for name, value in rest.items()]
        threads = [] if self.threads_per_pe is None else [f"-v OMP_NUM_THREADS={self.threads_per_pe}"]
        return [*self._parallel(), *self.context_variables, *listed, *threads, *super().format_batch_args()]

    def _parallel(self) -> list[str]:
        ncpus, pe_type = self.resources.get("ncpus"), self.resources.get("pe_type")
        if (ncpus is None) != (pe_type is None):
            raise ConfigError(allowed("resources", self.resources, "must have both ncpus and pe_type, or neither"))
        return [] if pe_type is None else [f"-pe {directive_value('pe_type', str(pe_type))} {ncpus}"]
