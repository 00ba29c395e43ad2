"""PBS' ``qsub``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import ConfigError, allowed
from ._text import Text, Value, checked, directive_value, names, program, scalar, whole
from .batch import BatchSettings


class QsubBatchSettings(BatchSettings):
    """What PBS is asked for. The environment is not shipped (no ``-V``): the members' variables are in the script.

    :param nodes: number of nodes.
    :param ncpus: cpus on each node.
    :param time: time limit, ``HH:MM:SS``.
    :param queue: queue.
    :param account: account to charge.
    :param resources: resources by name; ``select`` may be a number of nodes or a whole chunk list, which then stands
        as it is. Either ``select`` or ``nodes``, not both.
    :param batch_args: further options with their values (True for one without).
    """

    PREFIX = "#PBS"
    BARE = False
    ARRAYS = frozenset({"J", "t"})
    REPLACED = r"\^array_index\^"
    FLAGS: ClassVar[Mapping[str, str]] = {"set_queue": "q", "set_account": "A"}

    def __init__(
        self,
        nodes: int | None = None,
        ncpus: int | None = None,
        time: str | None = None,
        queue: str | None = None,
        account: str | None = None,
        resources: Mapping[str, str | int] | None = None,
        batch_args: Mapping[str, Value] | None = None,
        **kwargs: Any,
    ) -> None:
        self.resources: dict[str, str | int] = {}
        self.hosts: list[str] = []
        for name, value in (resources or {}).items():
            self.set_resource(name, value)
        if nodes is not None and "nodes" in self.resources:
            raise ConfigError(allowed("nodes", nodes, "is also in resources: give it once"))
        if ncpus is not None:
            self.set_ncpus(ncpus)
        super().__init__("qsub", batch_args, nodes=nodes, queue=queue, time=time, account=account, **kwargs)

    def set_nodes(self, num_nodes: int) -> None:
        """Ask for this many nodes."""
        self.set_resource("nodes", num_nodes)

    def set_ncpus(self, num_cpus: int) -> None:
        """Ask for this many cpus on each node."""
        self.set_resource("ncpus", num_cpus)

    def set_hostlist(self, host_list: Text) -> None:
        """Ask for these hosts, one chunk on each; as many as there are nodes."""
        self.hosts = names("host_list", host_list)

    def set_walltime(self, walltime: str) -> None:
        """Time limit, ``HH:MM:SS``."""
        self.set_resource("walltime", program("walltime", walltime))

    def set_resource(self, resource_name: str, value: str | int) -> None:
        """Ask for any resource (``-l name=value``).

        :raises ConfigTypeError: the value is not str or int, or ``nodes``/``ncpus`` is not a whole number.
        """
        name = program("resource_name", resource_name)
        if name in ("nodes", "ncpus"):
            value = whole(name, value)
        self.resources[name] = value if isinstance(value, int) else checked(f"resources[{name!r}]", value)

    def format_batch_args(self) -> list[str]:
        """The resources, then the other options.

        :raises ConfigError: ``select`` and ``nodes``, or neither; hosts that do not fit the number of nodes; an option
            without value.
        """
        rest = {name: value for name, value in self.resources.items() if name not in ("select", "nodes", "ncpus")}
        listed = [f"-l {name}={directive_value(name, str(scalar(name, value)))}" for name, value in rest.items()]
        return [f"-l {self._chunks()}", *listed, *super().format_batch_args()]

    def _chunks(self) -> str:
        """How many nodes, what on each, and which."""
        keys = [key for key in ("select", "nodes") if key in self.resources]
        if len(keys) != 1:
            raise ConfigError(allowed("resources", self.resources, "must have either select or nodes (use set_nodes)"))
        key, count = keys[0], str(self.resources[keys[0]])
        if not count.isdecimal():
            return f"{key}={directive_value(key, count)}"
        ncpus = f":ncpus={self.resources['ncpus']}" if "ncpus" in self.resources else ""
        if not self.hosts:
            return f"{key}={count}{ncpus}"
        if len(self.hosts) != int(count):
            raise ConfigError(allowed("host_list", self.hosts, f"must be as many hosts as {key}, which is {count}"))
        chunk = f"1{ncpus}:host={{}}" if key == "select" else f"{{}}{ncpus}"
        return f"{key}={'+'.join(chunk.format(host) for host in self.hosts)}"
