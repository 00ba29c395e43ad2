"""What a client is told before it starts: addresses, deadlines, prefixes; from arguments or SmartRedis' environment."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from ..errors import ConfigError, allowed
from .keys import Prefixes

UNIX = "unix://"
Route = Callable[[str], Awaitable[str]]
"""From an address as the servers know it to the one that leads there from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the database is and how long to wait for it.

    :ivar address: ``host:port`` or ``unix:///path``; of a cluster, any member.
    :ivar cluster: whether keys are spread over shards.
    :ivar connect_timeout: seconds for (re)connecting, all attempts together.
    :ivar timeout: seconds for the answer to one command.
    :ivar model_timeout_ms: milliseconds that a model run may take, waiting for its turn included.
    :ivar connections: how many connections to each server share the traffic.
    :ivar route: what leads to an address from here, for servers that are only reached through a forwarded port (async only).
    """

    address: str
    cluster: bool = False
    connect_timeout: float = 100.0
    timeout: float = 100.0
    model_timeout_ms: int = 60_000_000
    username: str | None = None
    password: str | None = None
    connections: int = 2
    route: Route | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", parse_address(self.address))
        if self.cluster and self.address.startswith(UNIX):
            raise ConfigError(allowed("address", self.address, "a cluster is reached by host:port only"))
        for name in ("connect_timeout", "timeout", "connections", "model_timeout_ms"):
            if not getattr(self, name) > 0:
                raise ConfigError(allowed(name, getattr(self, name), "must be more than 0"))
        if self.username and self.password is None:
            raise ConfigError(allowed("username", self.username, "needs a password"))


def parse_address(text: str) -> str:
    """An address in its one form: ``host:port`` or ``unix:///path``.

    :raises ConfigError: it has neither form.
    """
    if text.startswith(UNIX) and len(text) > len(UNIX):
        return text
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(allowed("address", text, "must be host:port, tcp://host:port or unix:///path"))
    return f"{host}:{int(port)}"


def host_and_port(address: str) -> tuple[str, int]:
    """The halves of a TCP address; an IPv6 host may stand in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def from_environ(environ: Mapping[str, str], suffix: str = "") -> tuple[Options, Prefixes]:
    """SmartRedis' variables as options and prefixes.

    ``SSDB`` (of several addresses one is picked at random), ``SR_DB_TYPE``, ``SSKEYIN``, ``SSKEYOUT``,
    ``SR_CONN_TIMEOUT`` and ``SR_CMD_TIMEOUT`` (seconds) may carry the suffix as ``SSDB_suffix``; ``SR_MODEL_TIMEOUT``
    (milliseconds) never does. ``SR_SOCKET_TIMEOUT`` and the intervals mean nothing here: this client neither gives up
    a connection that is silent for a moment nor sends a command again while it waits for the answer.

    :raises ConfigError: ``SSDB`` is missing, or a value makes no sense.
    """
    tail = f"_{suffix}" if suffix else ""
    addresses = [part for part in environ.get(f"SSDB{tail}", "").split(",") if part]
    if not addresses:
        raise ConfigError(allowed(f"SSDB{tail}", environ.get(f"SSDB{tail}"), "must be the address of a database"))
    options = Options(
        address=random.choice(addresses),
        cluster=environ.get(f"SR_DB_TYPE{tail}", "Clustered").lower() == "clustered",
        connect_timeout=_number(environ, f"SR_CONN_TIMEOUT{tail}", 100),
        timeout=_number(environ, f"SR_CMD_TIMEOUT{tail}", 100),
        model_timeout_ms=_number(environ, "SR_MODEL_TIMEOUT", 60_000_000),
    )
    sources = tuple(part for part in environ.get(f"SSKEYIN{tail}", "").split(",") if part)
    return options, Prefixes(write=environ.get(f"SSKEYOUT{tail}", ""), sources=sources)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    """A whole number above 0."""
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not int(text):
        raise ConfigError(allowed(name, text, "must be a whole number above 0"))
    return int(text)
