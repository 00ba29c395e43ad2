"""How an experiment's jobs get to where they run: what the user said of it, checked, and the launcher that follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .config import Config
from .errors import ConfigError, ConfigTypeError, allowed
from .launchers.base import Capabilities, Launcher
from .units import Seconds, seconds
from .values import one_of

if TYPE_CHECKING:
    from .launchers.local import LocalLauncher
    from .runtime.session import OnExit
    from .transport.far import FarHost
    from .transport.options import SSHOptions

FAR_PATIENCE = 60.0
"""Seconds beyond the grace that ending may take over a link that may be cut."""
ON_EXIT: tuple[OnExit, ...] = ("stop", "wait", "detach")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launching:
    """What was said about launching.

    :ivar own: a launcher of the user's own.
    :ivar far: the host where jobs run, if it is not this one.
    :ivar polls: least and most seconds between two queries of a workload manager.
    """

    capabilities: Capabilities
    own: Launcher | None
    max_concurrent: int | None
    on_exit: OnExit
    grace: float
    polls: tuple[float, float]
    far: FarHost | None = None

    @classmethod
    def of(
        cls,
        launcher: str | Launcher,
        max_concurrent: int | None,
        on_exit: OnExit,
        stop_grace: Seconds,
        min_poll: Seconds,
        max_poll: Seconds,
        far: FarHost | None,
    ) -> Launching:
        """Check what ``Experiment`` was given.

        :raises ConfigError: naming the field, the value, and what is allowed.
        """
        from .launchers.registry import chosen

        word = _detected(launcher, far) if isinstance(launcher, str) else launcher
        can, own = chosen(word)
        if far is not None and own is not None:
            raise ConfigError(allowed("host", far.host, f"the launcher {word!r} says itself where it runs jobs"))
        least, most = seconds("min_poll", min_poll) or 0.0, seconds("max_poll", max_poll) or 0.0
        if least > most:
            raise ConfigError(allowed("min_poll", min_poll, f"must not be more than max_poll, which is {max_poll!r}"))
        return cls(
            capabilities=_from_afar(can, far) if far else can,
            own=own,
            max_concurrent=_whole("max_concurrent", max_concurrent),
            on_exit=one_of("on_exit", on_exit, ON_EXIT),
            grace=0.0 if stop_grace == 0 else seconds("stop_grace", stop_grace) or 0.0,
            polls=(least, most),
            far=far,
        )

    def make(self, config: Config, experiment: str, token: str) -> Launcher:
        """The launcher of one run."""
        if self.own is not None:
            return self.own

        def agent() -> LocalLauncher:
            return self._agent(config, experiment, token)

        if self.capabilities.dialect is None:
            return agent()
        from .launchers.scheduled import ScheduledLauncher

        return ScheduledLauncher(
            agent,
            self.capabilities,
            config,
            where=self.far.where if self.far else "",
            experiment=experiment,
            run=token,
            throttle=self.max_concurrent,
            grace=self.grace,
            min_poll=self.polls[0],
            max_poll=self.polls[1],
        )

    def _agent(self, config: Config, experiment: str, token: str) -> LocalLauncher:
        from .launchers.local import LocalLauncher
        from .runtime.journal import records_path

        records, detach = records_path(experiment, token), self.on_exit == "detach"
        if self.far is not None:
            from .launchers.far import FarLauncher

            return FarLauncher(
                config, self.far, run=token, records=records, max_concurrent=self.max_concurrent, grace=self.grace,
                detach=detach,
            )  # fmt: skip
        return LocalLauncher(
            config, run=token, records=records, max_concurrent=self.max_concurrent, grace=self.grace, detach=detach
        )

    def config(self, config: Config) -> Config:
        """What is true where jobs run: nothing of this environment is on a far host."""
        if self.far is None:
            return config
        return replace(config, environ={}, python=self.far.options.python or "python3")


def far_host(name: str, exp_path: str | None, host: str | None, ssh: SSHOptions | None) -> FarHost | None:
    """The host where jobs run, if it is not this one.

    :raises ConfigError: options without a host, or a directory that cannot be there.
    """
    if host is None:
        if ssh is not None:
            raise ConfigError(allowed("ssh", ssh, "is for a far host; give host=, too"))
        return None
    from .transport.far import FarHost, directory_of
    from .transport.options import SSHOptions

    if not isinstance(host, str) or not host.strip() or host.startswith("-"):
        raise ConfigError(allowed("host", host, 'must be "user@host", or a name of the SSH config file'))
    return FarHost(host, ssh or SSHOptions(), directory_of(name, exp_path))


def _from_afar(can: Capabilities, far: FarHost) -> Capabilities:
    """Over a link, whose silence is noticed only after some questions."""
    return replace(can, local_programs=False, patience=max(FAR_PATIENCE, 5 * far.options.keepalive, can.patience))


def _detected(launcher: str, far: FarHost | None) -> str:
    if launcher.lower() != "auto":
        return launcher
    if far is not None:
        raise ConfigError(allowed("launcher", launcher, f"asim looks at this machine only; name that of {far.host}"))
    from .wlm import detect_launcher

    return detect_launcher()


def _whole(field: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigTypeError(allowed(field, value, "must be an int or None"))
    if value < 1:
        raise ConfigError(allowed(field, value, "must be 1 or more, or None"))
    return value
