"""Slurm's states, exit codes and reasons, in asim's terms. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..status import JobState
from .base import JobStatus, ended_badly

_STATES = {
    "BOOT_FAIL": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "COMPLETED": JobState.COMPLETED,
    "DEADLINE": JobState.TIMEOUT,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.FAILED,
    "OUT_OF_MEMORY": JobState.FAILED,
    "PREEMPTED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "TIMEOUT": JobState.TIMEOUT,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
}  # whatever else there is waits: PENDING, CONFIGURING, REQUEUED, REQUEUE_HOLD, SPECIAL_EXIT, RESV_DEL_HOLD …
_WHY = {
    "BOOT_FAIL": "a node did not come up",
    "CANCELLED": "somebody cancelled it",
    "DEADLINE": "it could not end before its deadline",
    "LAUNCH_FAILED": "it could not be started",
    "NODE_FAIL": "a node was lost",
    "OUT_OF_MEMORY": "it used more memory than it was given",
    "PREEMPTED": "it had to give way to another job",
    "RECONFIG_FAIL": "a node could not be set up for it",
    "TIMEOUT": "it reached its time limit",
}
NEVER_RUNS = "DependencyNeverSatisfied"
"""Why a job waits that Slurm leaves in its queue for ever, unless the site has set ``kill_invalid_depend``."""
_OWN_CODE = frozenset({"COMPLETED", "FAILED", "OUT_OF_MEMORY", "CANCELLED"})
"""States in which the exit code is the job's own. In the others Slurm makes one up: a node that is lost says 1."""
_NO_OUTPUT = 53
"""What Slurm calls a signal when the batch script's output file cannot be opened, or its directory entered."""
_SIGNALS = frozenset({4, 6, 7, 8, 9, 11, 15})
"""Of programs that were killed, whose shell told 128 and the signal."""
_CODE = re.compile(r"(\d+)(?::(\d+))?")
_TASKS = re.compile(r"(\d+)_\[(\d[\d,:-]*)(?:%\d+)?\]")


@lru_cache(4096)  # thousands of jobs wait for the same reason
def evidence(
    word: str, exit_code: str, start: str, end: str, nodes: str = "", reason: str = "", restarts: str = "0"
) -> JobStatus:
    """What one line of an answer proves.

    :param word: the state; accounting may write ``CANCELLED by 0``.
    :param exit_code: ``3:0`` (code, signal), or a wait status as one number.
    :param start: seconds since the epoch, or a word for none; so is ``end``.
    :param reason: why it waits, or what Slurm noted about its end.
    """
    name, _, by = word.partition(" by ")
    state = _STATES.get(name, JobState.PENDING)
    reason = "" if reason in ("None", "(null)") else reason
    if state is JobState.PENDING and reason == NEVER_RUNS:
        words = f"{NEVER_RUNS}: a job that it depends on did not end as it must"
        return JobStatus(JobState.CANCELLED, 0.0, None, words)
    if not state.terminal:
        told = "" if name in ("RUNNING", "PENDING") else name
        again = "" if restarts in ("", "0") else f"requeued {restarts} time{'s' if restarts != '1' else ''}"
        waits = reason if state is JobState.PENDING else ""
        began = _time(start) if state is JobState.RUNNING else 0.0
        return JobStatus(state, began, None, "; ".join(filter(None, (told, waits, again))))
    if state is JobState.COMPLETED:
        return JobStatus(state, _time(end), 0)
    code = _code(exit_code) if name in _OWN_CODE else None
    if code == -_NO_OUTPUT:
        return JobStatus(state, _time(end), None, f"{name}: its output file or directory cannot be used{_on(nodes)}")
    said = _WHY.get(name) or (ended_badly(code) if code else reason or "nobody says why")
    who, where = f" (user {by})" if by else "", _on(nodes) if name not in _OWN_CODE else ""
    return JobStatus(state, _time(end), code or None, f"{name}: {said}{who}{where}")


def doubtful(status: JobStatus) -> JobStatus:
    """The same, with a word of warning where sacct hides something: it takes 128 off the codes above that."""
    if status.code not in _SIGNALS:
        return status
    return status._replace(reason=f"{status.reason} (or {status.code + 128}: sacct writes both so)")


def ids(text: str) -> Sequence[str]:
    """The jobs that one line speaks of.

    ``12_[0-2,5%1]`` are tasks that have not begun: each by itself, or the array's own id when the list was cut. Of a
    heterogeneous job the first component speaks for all.
    """
    if text.isdecimal():
        return (text,)
    job, _, component = text.partition("+")
    if component.strip("0"):
        return ()
    tasks = _TASKS.fullmatch(job)
    if tasks is None:
        return (job.partition("_[")[0],)
    return [f"{tasks[1]}_{index}" for part in tasks[2].split(",") for index in _range(part)]


def _range(part: str) -> range:
    """``3``, ``0-5`` or ``0-8:2``."""
    span, _, step = part.partition(":")
    first, _, last = span.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))


def _code(text: str) -> int | None:
    """Exit code, or minus the signal."""
    found = _CODE.fullmatch(text)
    if found is None:
        return None
    number = int(found[1])
    if found[2] is None:
        return -(number & 0x7F) or number >> 8
    return -int(found[2]) or number


def _on(nodes: str) -> str:
    return f" on {nodes}" if nodes not in ("", "None assigned") else ""


def _time(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
