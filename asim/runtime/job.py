"""Handles to what was started."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from ..errors import AgentError, JobFailed
from ..launchers.base import JobStatus, Usage
from ..plan import JobSpec
from ..status import JobState
from .events import EventStream

if TYPE_CHECKING:
    from ..entities import Model
    from .group import JobGroup


class Control(Protocol):
    """What handles ask of the runtime."""

    detached: bool

    @property
    def host(self) -> str: ...

    async def cancel(self, jobs: Sequence[Job]) -> None: ...

    def stream(self, wanted: Callable[[Job], bool] | None, buffer: int) -> EventStream: ...


class Job:
    """One model that was started. Awaiting it waits for its end and gives it back.

    :ivar spec: what was asked: ``argv``, ``cwd``, ``env`` …
    :ivar status: its :class:`~asim.JobState` now.
    :ivar returncode: exit code; negative: the signal that ended it; None: not known (yet).
    :ivar reason: why it is in this state, in words; "" when the state says it all.
    :ivar attempt: from 1; more after retries.
    :ivar usage: CPU seconds and largest memory in bytes of the attempt that ended, or None.
    """

    __slots__ = (
        "_control",
        "_ended",
        "_groups",
        "_host",
        "_started",
        "_unwanted",
        "_waiter",
        "attempt",
        "key",
        "pid",
        "reason",
        "returncode",
        "spec",
        "status",
        "usage",
    )

    def __init__(self, spec: JobSpec, key: int, control: Control) -> None:
        self.spec, self.key, self._control = spec, key, control
        self.status, self.returncode, self.reason, self.attempt = JobState.NEW, None, "", 1
        self.pid: int | None = None
        self.usage: Usage | None = None
        self._host = ""
        self._started: float | None = None
        self._ended: float | None = None
        self._waiter: anyio.Event | None = None
        self._groups: tuple[Callable[[], JobGroup | None], ...] = ()
        self._unwanted = False  # somebody asked for its end

    returncode: int | None
    attempt: int

    # -- what it is

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def model(self) -> Model:
        """The entity that this runs."""
        return self.spec.model

    @property
    def is_database(self) -> bool:
        """Whether this is a shard of a database; such jobs are not waited for."""
        return self.spec.service

    @property
    def host(self) -> str:
        """Where it runs, or ran."""
        return self._host or self._control.host

    @property
    def stdout(self) -> Path:
        """The file with its output. Earlier attempts' are beside it as ``.1``, ``.2`` …"""
        return Path(self.spec.stdout)

    @property
    def stderr(self) -> Path:
        """The file with its error output."""
        return Path(self.spec.stderr)

    @property
    def cwd(self) -> Path:
        """The directory that it runs in."""
        return Path(self.spec.cwd)

    @property
    def started_at(self) -> datetime | None:
        """When its process (of the latest attempt) was started."""
        return None if self._started is None else datetime.fromtimestamp(self._started, UTC)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended."""
        return None if self._ended is None else datetime.fromtimestamp(self._ended, UTC)

    @property
    def elapsed(self) -> float | None:
        """Seconds between start and end, or None."""
        return None if self._started is None or self._ended is None else self._ended - self._started

    def record(self) -> dict[str, Any]:
        """Everything about it as one flat row."""
        usage = self.usage
        return {
            "name": self.name,
            "ensemble": self.spec.ensemble.name if self.spec.ensemble else None,
            "status": self.status.value,
            "returncode": self.returncode,
            "reason": self.reason,
            "attempt": self.attempt,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "elapsed_s": self.elapsed,
            "user_s": usage.user_s if usage else None,
            "system_s": usage.system_s if usage else None,
            "max_rss": usage.max_rss if usage else None,
            "host": self.host,
            "pid": self.pid,
            "cwd": self.spec.cwd,
            "stdout": self.spec.stdout,
            "stderr": self.spec.stderr,
            **{f"param_{name}": value for name, value in self.model.params.items()},
        }

    # -- waiting and stopping

    async def wait(self) -> Job:
        """Wait until it has ended, however that is. Cancellation: only the waiting ends.

        :raises AgentError: the experiment ended and left it running.
        """
        while not self.status.terminal:
            if self._control.detached:
                raise AgentError(f"{self.name} was left running when its experiment ended")
            if self._waiter is None:
                self._waiter = anyio.Event()
            await self._waiter.wait()
        return self

    def __await__(self) -> Generator[Any, None, Job]:
        return self.wait().__await__()

    async def cancel(self) -> None:
        """Stop it (SIGTERM to its process group, the experiment's grace, SIGKILL) and wait until all of it is gone.

        A job that has ended stays as it is. Cancellation: the stopping goes on; only the waiting ends.
        """
        await self._control.cancel([self])

    def check(self) -> Job:
        """Itself, if it COMPLETED.

        :raises JobFailed: it ended otherwise.
        """
        if self.status is not JobState.COMPLETED:
            raise failure([self])
        return self

    def __repr__(self) -> str:
        return f"<Job {self.name} {self.status}{f' ({self.reason})' if self.reason else ''}>"

    # -- for the monitor

    def _apply(self, status: JobStatus) -> None:
        self.status, self.reason = status.state, status.reason
        if status.state.terminal:
            self.returncode, self.usage, self._ended = status.code, status.usage, status.time
            self._wake()
            for group in self.groups():
                group._job_ended(self)
        elif status.state is JobState.RUNNING:
            self._started, self._ended, self.pid = status.time, None, status.pid
            self._host = status.host

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()
            self._waiter = None

    def _release(self) -> None:
        self._wake()
        for group in self.groups():
            group._wake()

    def groups(self) -> list[JobGroup]:
        """The groups that want to know of its end."""
        return [group for ref in self._groups if (group := ref()) is not None]


def failure(jobs: Sequence[Job]) -> JobFailed:
    """The exception for jobs that did not complete: how many, and the first few in words."""
    lines = [
        f"{job.name}: {job.status}{f', {job.reason}' if job.reason else ''}; see {job.spec.stderr}" for job in jobs[:5]
    ]
    more = [f"… and {len(jobs) - 5} more"] if len(jobs) > 5 else []
    return JobFailed("\n".join([f"{len(jobs)} job(s) did not complete", *lines, *more]), jobs)
