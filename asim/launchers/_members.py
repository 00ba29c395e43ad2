"""What :mod:`~asim.launchers.tracking` keeps of each member of a batch job, and of each job. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..status import JobState
from .base import JobKey, JobStatus


@dataclass(slots=True)
class Member:
    """One command of one job.

    :ivar run: how often the scheduler has run it again.
    :ivar started_at: when it told that it runs; None: it does not.
    :ivar asked: when it was asked to stop, in seconds since the epoch, as members tell; None: it was not.
    :ivar held: it was killed by a signal; why is not known yet.
    :ivar said: what the scheduler said last while it had not ended.
    :ivar verdict: the scheduler's word about the end of its job or task, and when that came.
    :ivar doubted_at: when the accounting was first asked about that end; None: it was not.
    :ivar missed_at: since when no answer mentions it, though one should; the last of these came at ``gone_at``.
    """

    key: JobKey
    job: str
    alone: bool
    run: int = 0
    started_at: float | None = None
    asked: float | None = None
    held: JobStatus | None = None
    held_at: float = 0.0
    verdict: JobStatus | None = None
    verdict_at: float = 0.0
    judged: bool = False
    doubted_at: float | None = None
    said: tuple[JobState, str] | None = None
    missed_at: float | None = None
    gone_at: float = 0.0


@dataclass(slots=True)
class BatchJob:
    """One submit; ``tasks`` has the member of each task's id, and nothing for what is no array."""

    id: str
    members: dict[JobKey, Member]
    tasks: dict[str, Member] = field(default_factory=dict)
    waiting: bool = True
    seen_at: float = 0.0
