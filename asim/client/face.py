"""What both faces of the client share: how they are made, and the switches that send nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self

from ..config import Config
from .core import Core
from .keys import Prefixes
from .options import Options, Route, from_environ


def as_method(operation: Callable[..., Any], method: Callable[..., Any]) -> None:
    """Let ``help``, notebooks and type hints show what a method is, not the generator that it is made of."""
    found = inspect.signature(operation)
    first, *rest = found.parameters.values()
    returns = str(found.return_annotation).removeprefix("Op[").removesuffix("]")
    signature = found.replace(parameters=[first.replace(name="self", annotation=inspect.Parameter.empty), *rest])
    method.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
    hints = {name: hint for name, hint in operation.__annotations__.items() if name != first.name}
    method.__annotations__ = {**hints, "return": returns}


class Face:
    """A client of a database, without the part that talks to it.

    Nothing is connected before the first operation.

    :param address: ``host:port``, ``tcp://host:port`` or ``unix:///path``; of a cluster, any member.
    :param cluster: whether the database is a cluster.
    :param put_prefix: what is put before names where something is stored (SmartRedis' SSKEYOUT).
    :param get_prefixes: what may be put before names where something is looked for (SSKEYIN); the first is used until
        ``set_data_source``.
    :param connect_timeout: seconds for connecting, and for connecting again after a connection was lost, all attempts
        together.
    :param timeout: seconds for the answer to one command; then its connection is given up.
    :param model_timeout_ms: milliseconds that a model run may take, waiting for its turn included.
    :param username: for servers with access control; needs a password.
    :param password: for servers with access control.
    :param connections: how many connections to each server share the traffic of all tasks; a run of a model or script
        has one of its own.
    :param route: what leads to an address from here, for servers that are reached through a forwarded port. (Not for the
        blocking client.)
    :raises ConfigError: a value makes no sense.
    """

    def __init__(
        self,
        address: str,
        *,
        cluster: bool = False,
        put_prefix: str = "",
        get_prefixes: Sequence[str] = (),
        connect_timeout: float = 100.0,
        timeout: float = 100.0,
        model_timeout_ms: int = 60_000_000,
        username: str | None = None,
        password: str | None = None,
        connections: int = 2,
        route: Route | None = None,
    ) -> None:
        options = Options(
            address=address,
            cluster=cluster,
            connect_timeout=connect_timeout,
            timeout=timeout,
            model_timeout_ms=model_timeout_ms,
            username=username,
            password=password,
            connections=connections,
            route=route,
        )
        self._begin(Core(options, Prefixes(write=put_prefix, sources=tuple(get_prefixes))))

    @classmethod
    def from_env(cls, suffix: str = "") -> Self:
        """A client of the database that the environment names, as a job finds it that was started with one.

        Read are SmartRedis' variables: SSDB, SR_DB_TYPE, SSKEYIN, SSKEYOUT, SR_CONN_TIMEOUT, SR_CMD_TIMEOUT and
        SR_MODEL_TIMEOUT.

        :param suffix: of a database that has a name: ``SSDB_suffix`` is read instead of ``SSDB``, and so on.
        :raises ConfigError: SSDB is missing, or a value makes no sense.
        """
        client = cls.__new__(cls)
        client._begin(Core(*from_environ(Config.from_env().environ, suffix)))
        return client

    def __repr__(self) -> str:
        kind = ", cluster=True" if self._core.options.cluster else ""
        return f"{type(self).__name__}({self._core.options.address!r}{kind})"

    def _begin(self, core: Core) -> None:
        self._core = core

    def set_data_source(self, source_id: str) -> None:
        """Look for names of another producer from now on. Sends nothing.

        :param source_id: one of the get prefixes.
        :raises ConfigError: it is none of them.
        """
        self._core.prefixes.read_from(source_id)

    def use_tensor_ensemble_prefix(self, use_prefix: bool) -> None:
        """Whether names of tensors get a prefix; they do unless this says otherwise. Sends nothing."""
        self._core.prefixes.tensors = bool(use_prefix)

    def use_dataset_ensemble_prefix(self, use_prefix: bool) -> None:
        """Whether names of datasets get a prefix; they do unless this says otherwise. Sends nothing."""
        self._core.prefixes.datasets = bool(use_prefix)

    def use_list_ensemble_prefix(self, use_prefix: bool) -> None:
        """Whether names of lists get a prefix; they do unless this says otherwise. Sends nothing."""
        self._core.prefixes.lists = bool(use_prefix)

    def use_model_ensemble_prefix(self, use_prefix: bool) -> None:
        """Whether names of models and scripts get a prefix; they do not unless this says so. Sends nothing."""
        self._core.prefixes.models = bool(use_prefix)
