"""How a far host is reached: what a user may set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class SSHOptions:
    """Options of ``Experiment(host="user@login", ssh=SSHOptions(...))``. Most come from ``~/.ssh/config`` if not given.

    Hosts are verified as OpenSSH does with ``StrictHostKeyChecking yes``: an unknown or changed key is refused.

    :ivar port: TCP port of the server. None: that of the config file, else 22.
    :ivar username: login name there; ``user@`` in ``host`` says the same. None: that of the config file, else the
        local one.
    :ivar config: paths of OpenSSH config files. None: ``~/.ssh/config``. (): none.
    :ivar known_hosts: paths of files with host keys. None: OpenSSH's own (also as set in the config file).
    :ivar identity_files: paths of private keys. None: those of the config file, the SSH agent's and the usual ones.
    :ivar agent_forwarding: whether programs there may use the local SSH agent.
    :ivar jump: ``user@host:port`` of hosts to go through, first one first. None: as in the config file.
    :ivar connect_timeout: seconds that one attempt to connect may take.
    :ivar keepalive: seconds without a sign of life after which the server is asked for one; after three unanswered
        questions the link counts as cut. 0: never asked.
    :ivar link_patience: seconds for which jobs go on, and new links are tried, after the link was cut. A driver whose event
        loop stands still for as long counts as cut off, too.
    :ivar python: interpreter that runs the agent there. None: the first of python3, python3.13 ... python3.6 and
        /usr/bin/python3 that is Python 3.6 or later.
    :ivar cache: directory there for the agent's file; ``~`` is the home there.
    :ivar fetch: what is copied back when jobs have ended: all of their output files ("end"), nothing ("never"), or what
        matches these patterns.
    :raises ConfigError: a value that can never work.
    """

    port: int | None = None
    username: str | None = None
    config: Sequence[str] | None = None
    known_hosts: Sequence[str] | None = None
    identity_files: Sequence[str] | None = None
    agent_forwarding: bool = False
    jump: str | Sequence[str] | None = None
    connect_timeout: float = 30.0
    keepalive: float = 15.0
    link_patience: float = 600.0
    python: str | None = None
    cache: str = "~/.cache/asim"
    fetch: Literal["end", "never"] | Sequence[str] = "end"

    def __post_init__(self) -> None:
        for name in ("config", "known_hosts", "identity_files", "jump"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,))
            elif value is not None:
                object.__setattr__(self, name, tuple(value))
        if self.port is not None and not 0 < self.port < 65536:
            raise ConfigError(allowed("ssh.port", self.port, "must be from 1 to 65535"))
        for name, least in (("connect_timeout", 0.1), ("keepalive", 0.0), ("link_patience", 0.0)):
            if not least <= getattr(self, name) < 1e9:
                raise ConfigError(allowed(f"ssh.{name}", getattr(self, name), f"must be {least:g} seconds or more"))
        if not self.cache.startswith(("/", "~/")):
            raise ConfigError(allowed("ssh.cache", self.cache, "must be absolute, or begin with ~/"))
        if isinstance(self.fetch, str):
            if self.fetch not in ("end", "never"):
                raise ConfigError(allowed("ssh.fetch", self.fetch, 'must be "end", "never" or a sequence of patterns'))
        else:
            object.__setattr__(self, "fetch", tuple(self.fetch))

    @property
    def jumps(self) -> tuple[str, ...]:
        """The hosts on the way, if they are given here."""
        return tuple(word for item in self.jump or () for word in item.split(",") if word)
