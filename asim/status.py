"""The states of a job, and their order.

States only ever move forward (:meth:`JobState.follows`): news that arrives late never moves a job back, and a terminal
state is final. A retry is a new *attempt* of the same job and is the one thing that starts again from ``PENDING``.
"""

from __future__ import annotations

from enum import Enum


class JobState(Enum):
    """Where a job stands.

    ``NEW``: not started. ``PENDING``: accepted, waits for a free slot, for other jobs, or in a scheduler's queue.
    ``RUNNING``. Terminal: ``COMPLETED`` (exit code 0), ``FAILED``, ``CANCELLED`` (stopped on request, or never started
    because something it depends on failed), ``TIMEOUT`` (stopped at its time limit), ``LOST`` (nobody can say).
    """

    NEW = "NEW"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    LOST = "LOST"

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self in TERMINAL

    @property
    def smartsim(self) -> str:
        """The word that SmartSim 0.8 uses for this state (``get_status`` values compare to those)."""
        return _SMARTSIM[self]

    def follows(self, previous: JobState) -> bool:
        """Whether a job in ``previous`` may move to this state."""
        return previous not in TERMINAL and _ORDER[self] > _ORDER[previous]

    def __str__(self) -> str:
        return self.value


TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMEOUT, JobState.LOST})
_ORDER = {state: 3 if state in TERMINAL else rank for rank, state in enumerate(JobState)}
_SMARTSIM = {
    JobState.NEW: "NeverStarted",
    JobState.PENDING: "Queued",
    JobState.RUNNING: "Running",
    JobState.COMPLETED: "Completed",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
    JobState.TIMEOUT: "Failed",
    JobState.LOST: "Failed",
}


def combined(states: list[JobState]) -> JobState:
    """The state of a group: the most alarming of its members' when all ended, else how far the group has come."""
    if not states:
        return JobState.NEW
    if all(state.terminal for state in states):
        return next(state for state in _ALARM if state in states)
    if any(state is JobState.RUNNING or state.terminal for state in states):
        return JobState.RUNNING
    return JobState.PENDING if JobState.PENDING in states else JobState.NEW


_ALARM = (JobState.LOST, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED, JobState.COMPLETED)
