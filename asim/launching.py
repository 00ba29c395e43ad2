"""How an experiment's jobs get to where they run: what the user said of it, checked, and the launcher that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import Config
from .errors import ConfigError, ConfigTypeError, allowed
from .launchers.base import Capabilities, Launcher
from .units import Seconds, seconds
from .values import one_of

if TYPE_CHECKING:
    from .launchers.local import LocalLauncher
    from .runtime.session import OnExit

ON_EXIT: tuple[OnExit, ...] = ("stop", "wait", "detach")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launching:
    """What was said about launching.

    :ivar own: a launcher of the user's own.
    :ivar polls: least and most seconds between two queries of a workload manager.
    """

    capabilities: Capabilities
    own: Launcher | None
    max_concurrent: int | None
    on_exit: OnExit
    grace: float
    polls: tuple[float, float]

    @classmethod
    def of(
        cls,
        launcher: str | Launcher,
        max_concurrent: int | None,
        on_exit: OnExit,
        stop_grace: Seconds,
        min_poll: Seconds,
        max_poll: Seconds,
    ) -> Launching:
        """Check what ``Experiment`` was given.

        :raises ConfigError: naming the field, the value, and what is allowed.
        """
        from .launchers.registry import capabilities_of, launcher_of

        word = _detected(launcher) if isinstance(launcher, str) else launcher
        least, most = seconds("min_poll", min_poll) or 0.0, seconds("max_poll", max_poll) or 0.0
        if least > most:
            raise ConfigError(allowed("min_poll", min_poll, f"must not be more than max_poll, which is {max_poll!r}"))
        return cls(
            capabilities=capabilities_of(word),
            own=launcher_of(word) if isinstance(word, str) else word,
            max_concurrent=_whole("max_concurrent", max_concurrent),
            on_exit=one_of("on_exit", on_exit, ON_EXIT),
            grace=0.0 if stop_grace == 0 else seconds("stop_grace", stop_grace) or 0.0,
            polls=(least, most),
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
            where="",
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

        return LocalLauncher(
            config,
            run=token,
            records=records_path(experiment, token),
            max_concurrent=self.max_concurrent,
            grace=self.grace,
            detach=self.on_exit == "detach",
        )


def _detected(launcher: str) -> str:
    if launcher.lower() != "auto":
        return launcher
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
