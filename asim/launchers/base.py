"""What a launcher is: jobs in, evidence out.

Jobs are named by *keys* that the runtime chooses, so that evidence which arrives before ``submit`` has returned is not
lost. A launcher reports by calling the sink that :meth:`Launcher.open` was given; it never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, NewType, Protocol

from ..errors import AsimError
from ..status import JobState

if TYPE_CHECKING:
    from ..agent.protocol import FileAction
    from ..plan import JobSpec
    from .dialect import Dialect

JobKey = NewType("JobKey", int)
"""One attempt of one job in one experiment."""

KNOWN = ("local", "slurm", "pbs", "pals", "torque", "lsf", "sge")
"""Launchers whose command texts asim knows."""


class Usage(NamedTuple):
    """What a job used: CPU seconds in user and system mode, and its largest resident set in bytes."""

    user_s: float
    system_s: float
    max_rss: int


class JobStatus(NamedTuple):
    """Evidence about one job.

    :ivar state: what it proves.
    :ivar time: when that happened, seconds since the epoch on the job's host.
    :ivar code: exit code; negative: the signal that ended it; None: it never ran, or nobody knows.
    :ivar reason: in words, "" when the state says it all.
    :ivar pid: process id, for launchers that have one.
    :ivar host: where that is, if it is not the launcher's own host.
    """

    state: JobState
    time: float
    code: int | None = None
    reason: str = ""
    pid: int | None = None
    usage: Usage | None = None
    host: str = ""


Sink = Callable[[Sequence[tuple[JobKey, JobStatus]]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a launcher can do.

    :ivar launcher: its name.
    :ivar batch: whether it takes batch jobs.
    :ivar starts: whether this version can start jobs with it (else only its texts can be previewed).
    :ivar local_programs: whether programs are looked up on this machine.
    :ivar dialect: the language of its workload manager, if it has one.
    :ivar patience: seconds beyond the grace that the end of its jobs may take.
    """

    launcher: str
    batch: bool
    starts: bool = True
    local_programs: bool = False
    dialect: Dialect | None = None
    patience: float = 10.0


def ended_badly(code: int) -> str:
    """An exit code that is not 0, in words."""
    if code > 0:
        return f"exit code {code}"
    import signal

    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Launcher(Protocol):
    """Runs jobs. All verbs are plural; one job is a list of one."""

    name: str
    capabilities: Capabilities

    async def open(self, sink: Sink, lost: Callable[[AsimError], None]) -> Mapping[str, object]:
        """Get ready. Returns what is worth keeping in the journal (``host``, ``pid`` …).

        :param sink: called with evidence, in the event loop.
        :param lost: called once if the launcher can no longer see its jobs; :meth:`recover` follows.
        :raises AgentError: when that is impossible.
        """

    async def recover(self) -> str | None:
        """After ``lost``: stop what it started and left running, unless it was to be left, and report proved ends.

        :returns: what came of that, in words; None: all of it was stopped.
        :raises AsimError: nobody can say.
        """

    async def files(self, actions: Iterable[FileAction]) -> None:
        """Do file actions on the host where jobs run; see :meth:`asim.transport.connection.Host.files`."""

    async def submit(self, jobs: Sequence[tuple[JobKey, JobSpec]]) -> None:
        """Hand over jobs, in order. All are accepted when this returns.

        :raises SubmitError: none, or not all, were accepted; those that were are cancelled.
        Cancellation: jobs may have been accepted; the runtime calls this only where it is not cancelled.
        """

    async def poll(self, keys: Collection[JobKey]) -> None:
        """Look for news of these jobs now. A launcher that is told everything does nothing here."""

    async def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        """Ask for the end of jobs: SIGTERM, ``grace`` seconds, SIGKILL. Their ends are reported as evidence."""

    async def serve(self) -> None:
        """What must go on while it is open: asking a workload manager, say. Returns when it is closed."""

    def abort(self) -> None:
        """It does not answer any more: let go of it by force. ``lost`` is called, and :meth:`recover` follows."""

    async def close(self, keep: Collection[JobKey] | Literal["all"]) -> None:
        """Stop all but ``keep`` and let go. Returns when what is to end has ended."""


def reached(launcher: Launcher) -> float | None:
    """Since when what a launcher asks can answer, in the loop's time; None: not now, as its link is cut.

    It says so by an attribute ``reached``. One that has none can always be asked.
    """
    since: float | None = getattr(launcher, "reached", 0.0)
    return since
