"""A database on the nodes of a model: what is wanted of it. It is started with the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from ..database.config import FIXED
from ..errors import ConfigError, ConfigTypeError, UnsupportedError, allowed
from ..settings._text import checked
from ..units import memory
from .mlobjects import whole

Pinning: TypeAlias = Iterable[int | Iterable[int]]
Option: TypeAlias = str | int | float | bool | None

ENGINE = {
    "workers_per_device": "workers_per_device",
    "threads_per_queue": "threads_per_queue",
    "inter_op_threads": "inter_op_threads",
    "inter_op_parallelism": "inter_op_threads",
    "intra_op_threads": "intra_op_threads",
    "intra_op_parallelism": "intra_op_threads",
    "model_execution_timeout": "model_execution_timeout",
    "worker_memory": "worker_memory",
}
"""Settings of the inference engine: how they may be spelled -> what they are called in :class:`ColocatedDB`."""

_SOCKET = re.compile(r"[A-Za-z0-9.:,_\-/]{1,107}")  # longer ones do not fit into the kernel's sockaddr_un
_IDENTIFIER = re.compile(r"[^\s=/\0]*")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocatedDB:
    """A database beside a model. Made, and checked, by the ``colocate_db…`` methods.

    :param kind: reached by "tcp", or by "uds" (a Unix domain socket).
    :param port: TCP port, 0: any free one; without meaning with "uds".
    :param interfaces: network interfaces that it listens on; none with "uds".
    :param unix_socket: path of the socket; None with "tcp".
    :param socket_permissions: of the socket, the octal digits read as a decimal number: 755 is rwxr-xr-x.
    :param db_cpus: number of cpus that it may use.
    :param pinning: numbers of these cpus, ascending; None: it is not pinned.
    :param any_cpus: whether other cpus do as well, if these are not to be had.
    :param debug: keep a log of it, and more to read in the model's.
    :param db_identifier: its name, the suffix of ``SSDB_``; "": none.
    :param options: options of Redis, without the leading dashes, with their text.
    :param engine: settings of the inference engine, by the names of :class:`asim.database.config.NodeConfig`.
    """

    kind: Literal["tcp", "uds"]
    port: int = 0
    interfaces: tuple[str, ...] = ()
    unix_socket: str | None = None
    socket_permissions: int = 755
    db_cpus: int = 1
    pinning: tuple[int, ...] | None = None
    any_cpus: bool = False
    debug: bool = False
    db_identifier: str = ""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    engine: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("options", "engine"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by making a new one: a mapping proxy can do neither."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return partial(ColocatedDB, **values | {"options": dict(self.options), "engine": dict(self.engine)}), ()


class Colocation:
    """What Models do with a colocated database.

    The host has the attributes ``name``, ``run_settings`` (with ``mpmd``) and ``_colocated`` (first None).
    """

    __slots__ = ()
    name: str
    _colocated: ColocatedDB | None

    def colocate_db_tcp(
        self,
        port: int = 6379,
        ifname: str | list[str] | tuple[str, ...] = "lo",
        db_cpus: int = 1,
        custom_pinning: Pinning | None = None,
        debug: bool = False,
        db_identifier: str = "",
        **kwargs: Option,
    ) -> None:
        """Run a database on each node of this model, to be reached by TCP/IP from that node.

        :param port: TCP port; 0: any free one.
        :param ifname: network interface(s) to listen on: a list, or text with commas.
        :param db_cpus: number of cpus that it may use.
        :param custom_pinning: numbers of the cpus that it is pinned to, also as ranges: ``[0, range(4, 6)]``. None: the
            first ``db_cpus`` (that the model may use); empty: it is not pinned.
        :param debug: keep a log of it.
        :param db_identifier: its name, when the model uses several databases; without blanks, "=" and "/".
        :param kwargs: for inference: ``workers_per_device`` processes that run models, ``threads_per_queue`` models at once
            in each, ``inter_op_threads`` and ``intra_op_threads`` of a framework between operations and inside of one
            (also as ``…_parallelism``; 0: chosen), ``model_execution_timeout`` in milliseconds (0: none; default 600000),
            ``worker_memory`` of one such process, bytes or text such as "4gb" (0: no limit; default: a share of the
            host's). All else are options of Redis, "_" standing for "-". None: not given.
        :raises ConfigError: naming the field, the value, and what is allowed; also when there is one already.
        :raises ConfigTypeError: an argument of the wrong type.
        :raises UnsupportedError: with MPMD run settings; ``limit_app_cpus``.
        """
        number = whole(f"{self.name}: port", port)
        if number > 65535:
            raise ConfigError(allowed(f"{self.name}: port", port, "must be 0 (any free one) to 65535"))
        names = interfaces_of(f"{self.name}: ifname", ifname)
        common = _common(self.name, db_cpus, custom_pinning, debug, db_identifier)
        options, engine = options_of(self.name, kwargs, ("unix_socket", "socket_permissions"))
        self._colocate(ColocatedDB(kind="tcp", port=number, interfaces=names, options=options, engine=engine, **common))

    colocate_db = colocate_db_tcp
    """SmartSim's older name of :meth:`colocate_db_tcp`."""

    def colocate_db_uds(
        self,
        unix_socket: str = "/tmp/redis.socket",
        socket_permissions: int = 755,
        db_cpus: int = 1,
        custom_pinning: Pinning | None = None,
        debug: bool = False,
        db_identifier: str = "",
        **kwargs: Option,
    ) -> None:
        """Run a database on each node of this model, to be reached by a Unix domain socket.

        The other parameters, and the errors, are those of :meth:`colocate_db_tcp`.

        :param unix_socket: path of the socket: 1 to 107 of the characters A-Z a-z 0-9 . : , _ - /
        :param socket_permissions: its permissions, the octal digits written as a decimal number: 755 is rwxr-xr-x.
        """
        at = f"{self.name}: unix_socket"
        if not _SOCKET.fullmatch(checked(at, unix_socket)):
            raise ConfigError(allowed(at, unix_socket, "must be 1 to 107 of the characters A-Z a-z 0-9 . : , _ - /"))
        mode = whole(f"{self.name}: socket_permissions", socket_permissions)
        if mode > 777 or set(str(mode)) & {"8", "9"}:
            what = "must be octal digits written as a decimal number, 0 to 777: 755 is rwxr-xr-x"
            raise ConfigError(allowed(f"{self.name}: socket_permissions", mode, what))
        common = _common(self.name, db_cpus, custom_pinning, debug, db_identifier)
        options, engine = options_of(self.name, kwargs, ("port", "ifname"))
        self._colocate(
            ColocatedDB(
                kind="uds", unix_socket=unix_socket, socket_permissions=mode, options=options, engine=engine, **common
            )
        )

    @property
    def colocated(self) -> bool:
        """Whether there is a database beside this model."""
        return self._colocated is not None

    @property
    def colocated_db(self) -> ColocatedDB | None:
        """The database beside this model, or None."""
        return self._colocated

    def _colocate(self, database: ColocatedDB) -> None:
        if self._colocated is not None:
            what = f"there is a database beside this model already, by {self._colocated.kind}"
            raise ConfigError(allowed(f"{self.name}: colocated database", database.kind, what))
        parts = getattr(getattr(self, "run_settings", None), "mpmd", ())
        if parts:
            what = "run settings with MPMD parts cannot have a database beside them"
            raise UnsupportedError(allowed(f"{self.name}: run_settings.mpmd", parts, what))
        self._colocated = database  # type: ignore[misc]  # the slot is the host's


def _common(owner: str, db_cpus: int, custom_pinning: object, debug: bool, db_identifier: str) -> dict[str, Any]:
    """The checked fields that both kinds have."""
    if not isinstance(debug, bool):
        raise ConfigTypeError(allowed(f"{owner}: debug", debug, "must be a bool"))
    if not _IDENTIFIER.fullmatch(checked(f"{owner}: db_identifier", db_identifier)):
        what = "must be without blanks, '=' and '/', as it becomes part of the name of a variable"
        raise ConfigError(allowed(f"{owner}: db_identifier", db_identifier, what))
    cpus = whole(f"{owner}: db_cpus", db_cpus, least=1)
    pinning = _pinning(f"{owner}: custom_pinning", custom_pinning, cpus)
    common = {"db_cpus": cpus, "pinning": pinning, "debug": debug, "db_identifier": db_identifier}
    return {**common, "any_cpus": custom_pinning is None}


def _pinning(field: str, custom: object, db_cpus: int) -> tuple[int, ...] | None:
    """The numbers of cpus, ascending and each once; None: not pinned."""
    if custom is None:
        return tuple(range(db_cpus))
    cpus: set[int] = set()
    for item in _iterated(field, custom):
        inner = item if isinstance(item, Iterable) else (item,)
        cpus.update(whole(f"{field}: cpu", cpu) for cpu in _iterated(field, inner))
    return tuple(sorted(cpus)) or None


def _iterated(field: str, value: object) -> Iterable[object]:
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, bytearray, Mapping)):
        raise ConfigTypeError(allowed(field, value, "must be an iterable of ints, and of iterables of ints"))
    return value


def interfaces_of(field: str, value: object) -> tuple[str, ...]:
    """The names of network interfaces, each once."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        raise ConfigTypeError(allowed(field, value, "must be the name of a network interface, or a list of names"))
    names = [checked(field, name).strip() for name in listed]
    if not names or not all(re.fullmatch(r"[^\s,/]+", name) for name in names):
        raise ConfigError(allowed(field, value, "must be one or more names of network interfaces, none empty"))
    return tuple(dict.fromkeys(names))


def options_of(
    owner: str, given: Mapping[str, Option], foreign: tuple[str, ...]
) -> tuple[dict[str, str], dict[str, int]]:
    """The options of Redis and the settings of the engine. None is "not given"."""
    options: dict[str, str] = {}
    engine: dict[str, int] = {}
    for name, value in given.items():
        field = f"{owner}: {name}"
        if name == "limit_app_cpus":
            raise UnsupportedError(allowed(field, value, "the application's cpus cannot be limited"))
        if name in foreign:
            raise ConfigError(allowed(field, value, "is an argument for the other kind of colocated database"))
        if value is None:
            continue
        if name in ENGINE:
            _put(field, engine, ENGINE[name], _engine(field, name, value))
        else:
            _put(field, options, _option(owner, name), _option_text(field, value))
    return options, engine


def _engine(field: str, name: str, value: Option) -> int:
    if isinstance(value, str) and name == "worker_memory":
        return memory(field, value)
    return whole(field, value, least=int(name in ("threads_per_queue", "workers_per_device")))


def _put(field: str, settings: dict[str, Any], name: str, value: object) -> None:
    """Refuse one setting spelled in two ways, unless both say the same."""
    if settings.setdefault(name, value) != value:
        raise ConfigError(allowed(field, value, f"{name} is given already, as {settings[name]!r}"))


def _option(owner: str, name: str) -> str:
    option = name.replace("_", "-")
    if option.lower() in FIXED:
        raise ConfigError(allowed(f"{owner}: Redis option", name, "is decided by asim, or has an argument of its own"))
    if not _OPTION.fullmatch(option):
        what = "must be a letter, then letters, digits, '_', '-' and '.'"
        raise ConfigError(allowed(f"{owner}: name of a Redis option", name, what))
    return option


def _option_text(field: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (str, int, float)):
        raise ConfigTypeError(allowed(field, value, "must be a str, int, float or bool"))
    text = checked(field, str(value))
    if "\n" in text or "\r" in text:
        raise ConfigError(allowed(field, value, "must not contain a line break"))
    return text
