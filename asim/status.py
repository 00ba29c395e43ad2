"""The states of a job, and their order.

States only ever move forward (:meth:`JobState.follows`): news that arrives late never moves a job back, and a terminal
state is final. A retry is a new *attempt* of the same job and is the one thing that starts again from ``PENDING``.
"""

from __future__ import annotations

from enum import Enum
from typing import Self


class JobState(Enum):
    """Where a job stands.

    ``NEW``: not started. ``PENDING``: accepted, waits for a free slot, for other jobs, or in a scheduler's queue.
    ``RUNNING``. Terminal: ``COMPLETED`` (exit code 0), ``FAILED``, ``CANCELLED`` (stopped on request, or never started
    because something it depends on failed), ``TIMEOUT`` (stopped at its time limit), ``LOST`` (nobody can say).

    :ivar terminal: whether the state is final.
    :ivar smartsim: the word that SmartSim 0.8 uses for this state (``get_status`` values compare to those).
    """

    NEW = "NEW", 0, "NeverStarted"
    PENDING = "PENDING", 1, "Queued"
    RUNNING = "RUNNING", 2, "Running"
    COMPLETED = "COMPLETED", 3, "Completed"
    FAILED = "FAILED", 3, "Failed"
    CANCELLED = "CANCELLED", 3, "Cancelled"
    TIMEOUT = "TIMEOUT", 3, "Failed"
    LOST = "LOST", 3, "Failed"

    rank: int
    terminal: bool
    smartsim: str

    def __new__(cls, word: str, rank: int, smartsim: str) -> Self:
        """Facts of a state are plain attributes: they are asked for at every step of every job."""
        state = object.__new__(cls)
        state._value_ = word
        state.rank, state.terminal, state.smartsim = rank, rank == 3, smartsim
        return state

    def follows(self, previous: JobState) -> bool:
        """Whether a job in ``previous`` may move to this state."""
        return not previous.terminal and self.rank > previous.rank

    __hash__ = object.__hash__  # Enum's own is Python code, and no better

    def __str__(self) -> str:
        return str(self.value)


TERMINAL = frozenset(state for state in JobState if state.terminal)


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
