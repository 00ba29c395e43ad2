"""What members of batch jobs say in their files (:mod:`asim.settings.script`), as evidence. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..status import JobState
from .base import JobStatus, ended_badly

LAST_SIGNAL = 64
"""The highest number of a signal: exit codes above 128 and this are no signals (-1 is 255, and MPI aborts with any)."""


NEVER = "stopped before it started"


class End(NamedTuple):
    """How a member ended.

    :ivar killed: by a signal; why, the scheduler may know.
    """

    status: JobStatus
    killed: bool = False


def start_of(text: str) -> JobStatus:
    """``<time> <host> <pid>``."""
    words = text.split()
    pid = int(words[2]) if len(words) > 2 and words[2].isdigit() else None
    return JobStatus(JobState.RUNNING, seconds_of(words[:1]), pid=pid, host=" ".join(words[1:2]))


def end_of(text: str) -> End | None:
    """``<exit code> <time> [words]``; None for what is nothing of the kind."""
    words = text.strip().split(None, 2)
    if not words or not words[0].isdigit():
        return None
    code, when = int(words[0]), seconds_of(words[1:2])
    signed = signed_of(code)
    killed = signed < 0
    if words[2:] == ["time limit"]:
        return End(JobStatus(JobState.TIMEOUT, when, signed, "stopped at its time limit"))
    if words[2:] == [NEVER]:
        return End(JobStatus(JobState.CANCELLED, when, None, NEVER))
    if len(words) > 2:
        return End(JobStatus(JobState.FAILED, when, None, words[2]))
    if code == 0:
        return End(JobStatus(JobState.COMPLETED, when, 0))
    return End(JobStatus(JobState.FAILED, when, signed, ended_badly(signed)), killed)


def signed_of(code: int) -> int:
    """What a shell says of a program's end, as asim says it: minus the number of the signal, or the exit code."""
    return 128 - code if 128 < code <= 128 + LAST_SIGNAL else code


def seconds_of(words: Sequence[str]) -> float:
    """What ``date +%s.%N`` printed, also where it knows no ``%N``."""
    whole, _, part = (words[0] if words else "").partition(".")
    try:
        return float(f"{int(whole)}.{part if part.isdigit() else 0}")
    except ValueError:
        return 0.0
