"""What ``qstat -f`` says of jobs: its two forms decoded, and what an answer proves. Pure.

Every value is kept as the text that PBS wrote: a job's name ``1e5`` and an account ``123`` come as JSON numbers.
"""

from __future__ import annotations

import calendar
import json
import re
import signal
import time
from collections.abc import Mapping

from ..status import JobState
from .base import JobStatus

Attributes = dict[str, str]
"""One job's attributes; those of a list are named as in the plain form: ``Resource_List.walltime``."""

_PAIR = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*:\s*(.*?),?\s*$')
_INDENT = re.compile(r"^Job Id:.*\n([ \t]+)", re.MULTILINE)
_WAITING = {
    "Q": "queued",
    "H": "held",
    "W": "waits for its start time",
    "T": "is on its way to another place",
    "M": "was moved to another server",
}
_ALIVE = {"R": "", "E": "E: exiting", "S": "S: suspended", "U": "U: suspended, its host is in use", "B": ""}
_ENDED = ("F", "X", "C")
_OWN = {
    -1: "it could not be started",
    -2: "it could not be started",
    -3: "it could not be started for now",
    -4: "its host went down and it was ended",
    -5: "its host went down and it was ended",
    -6: "its host went down and it was ended",
    -7: "it could not be started again",
    -10: "its user is not allowed there",
    -11: "it is to be run again",
    -24: "over its limit of cpus",
    -25: "over its limit of cpus",
    -26: "over its limit of virtual memory",
    -27: "over its limit of memory",
    -28: "over its limit of cpu time",
    -29: "over its limit of time",
}
"""PBS' own exit statuses."""
_OWN_TORQUE = {-10: "over its limit of memory", -11: "over its limit of time", -12: "over its limit of cpu time"}
_WALLTIME = -29
_WALLTIME_TORQUE = -11
_DELETED = "91"
UNDELIVERED = "Stageout_status 0"
"""What a reason has when output was not delivered."""


# --- text


def from_json(text: str) -> dict[str, Attributes]:
    """The jobs of an answer in JSON, also where it is not valid JSON: a stray backslash, bytes that are no UTF-8.

    :raises ValueError: it is no such answer, or not whole.
    """
    try:
        answer = json.loads(text, strict=False, parse_int=str, parse_float=str, parse_constant=str)
    except ValueError:
        answer = _line_by_line(text)
    if not isinstance(answer, dict) or not answer.keys() & {"timestamp", "Jobs"}:
        raise ValueError("not an answer of qstat")
    return {job: _flat(attributes) for job, attributes in (answer.get("Jobs") or {}).items()}


def _line_by_line(text: str) -> dict[str, object]:
    """PBS writes one pair in a line. A value that cannot be read stays as it is written; the rest is not lost."""
    root: dict[str, object] = {}
    open_ones = [root]
    closed = False
    for line in text.split("\n"):  # not splitlines: values have odd characters
        pair = _PAIR.match(line)
        if pair and pair[2] == "{":
            inner: dict[str, object] = {}
            open_ones[-1][pair[1]] = inner
            open_ones.append(inner)
        elif pair:
            open_ones[-1][pair[1]] = _value(pair[2])
        elif line.strip() in ("}", "},"):
            closed = len(open_ones) == 1
            del open_ones[max(1, len(open_ones) - 1) :]
    if not closed:
        raise ValueError("the answer breaks off")
    return root


def _value(text: str) -> object:
    try:
        return json.loads(text, strict=False, parse_int=str, parse_float=str)
    except ValueError:
        return text.removeprefix('"').removesuffix('"')


def _flat(attributes: Mapping[str, object]) -> Attributes:
    flat: Attributes = {}
    for name, value in attributes.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": str(item) for inner, item in value.items()}
        else:
            flat[name] = str(value)
    return flat


def from_plain(text: str) -> dict[str, Attributes]:
    """The jobs of an answer in the plain form, folded (at a tab) or not; wrappers around other schedulers indent by one."""
    jobs: dict[str, Attributes] = {}
    attributes: Attributes = {}
    name = ""
    first = _INDENT.search(text)
    indent = first[1] if first else "    "
    for line in text.split("\n"):
        if line.startswith("Job Id:"):
            attributes = jobs[line.partition(":")[2].strip()] = {}
            name = ""
        elif line.startswith("\t") and name and indent != "\t":
            attributes[name] += line[1:]
        elif line.startswith(indent) and " = " in line:
            name, _, value = line.removeprefix(indent).partition(" = ")
            attributes[name] = value
    return jobs


def epoch(text: str) -> float:
    """Seconds since the epoch of a time in UTC as ``ctime`` writes it; 0.0 for no time."""
    try:
        return float(calendar.timegm(time.strptime(text, "%a %b %d %H:%M:%S %Y")))
    except ValueError:
        return 0.0


# --- evidence


def evidence(job: str, attributes: Attributes, *, torque: bool = False) -> JobStatus | None:
    """What one job's attributes prove; None: nothing.

    :param job: its id, which tells tasks of arrays.
    """
    state = attributes.get("job_state", "")
    if state in _WAITING:
        return JobStatus(JobState.PENDING, epoch(attributes.get("qtime", "")), reason=_why_waiting(state, attributes))
    if state in _ENDED:
        return _ended(job, state, attributes, torque)
    if state not in _ALIVE or job_is_array(job):
        return None  # the tasks of an array that has begun speak for themselves
    started = attributes.get("stime") or attributes.get("start_time", "")
    return JobStatus(JobState.RUNNING, epoch(started), reason=_ALIVE[state])


def job_is_array(job: str) -> bool:
    """Whether this is the id of a whole array."""
    return "[]" in job


def _why_waiting(state: str, attributes: Attributes) -> str:
    comment = attributes.get("comment", "")
    if state == "H" and "depend" in attributes:
        return f"H: waits for other jobs ({attributes['depend']})"
    if state == "Q" and (not comment or comment.startswith("Job Array Began")):  # the array's, not its own
        return ""
    return f"{state}: {comment or _WAITING[state]}"


def _ended(job: str, state: str, attributes: Attributes, torque: bool) -> JobStatus | None:
    if "[" in job and not job_is_array(job) and not _is_its_own(attributes) and not torque:
        return None
    when = _end_time(attributes)
    status = attributes.get("Exit_status", attributes.get("exit_status"))
    if job_is_array(job) and status is not None and attributes.get("substate") != _DELETED:
        return None  # 0 or 1 for all of its tasks
    if status is None:
        found = _never_ran(state, attributes, torque)
    else:
        deleted = attributes.get("substate") == _DELETED or (torque and status == "271")
        found = _outcome(int(status), state, attributes, deleted=deleted, torque=torque)
    return None if found is None else found._replace(time=when, reason=_with_output(found.reason, attributes))


def _is_its_own(attributes: Attributes) -> bool:
    """Whether an array's task shows values of its own: one that never ran, or is forgotten, shows the array's."""
    return "exec_host" in attributes or attributes.get("comment", "").startswith("Job run at")


def _end_time(attributes: Attributes) -> float:
    for name in ("obittime", "comp_time", "mtime"):
        if name in attributes:
            return epoch(attributes[name])
    return 0.0


def _never_ran(state: str, attributes: Attributes, torque: bool) -> JobStatus | None:
    """An ended job without an exit status."""
    comment = attributes.get("comment", "")
    if attributes.keys() & {"stime", "start_time", "exec_host"}:
        if torque:
            return None  # wrappers around other schedulers never tell it
        return JobStatus(JobState.FAILED, 0.0, reason=f"{state}: it began, and nobody knows how it ended")
    if attributes.get("substate") == _DELETED or torque:
        why = f"deleted before it ran ({comment})" if comment else "deleted before it ran"
    elif "depend" in attributes:
        why = f"a job that it depends on did not end as it must ({attributes['depend']})"
    else:
        why = "ended before it ran"
    return JobStatus(JobState.CANCELLED, 0.0, reason=f"{state}: {why}")


def _outcome(status: int, state: str, attributes: Attributes, *, deleted: bool, torque: bool) -> JobStatus:
    """An ended job with an exit status of its own."""
    code = None if status < 0 else 256 - status if status > 256 else status
    said = f"Exit_status {status}"
    if deleted:
        _, by, who = attributes.get("comment", "").rpartition(" terminated by ")
        code = None if attributes.get("array") == "True" else code  # a whole array's is no job's
        return JobStatus(JobState.CANCELLED, 0.0, code, f"{state}: deleted{' by ' + who if by else ''} ({said})")
    if status == 0:
        return JobStatus(JobState.COMPLETED, 0.0, 0)
    if status < 0:
        limit = _WALLTIME_TORQUE if torque else _WALLTIME
        why = (_OWN | _OWN_TORQUE if torque else _OWN).get(status, "ended by PBS itself")
        return JobStatus(JobState.TIMEOUT if status == limit else JobState.FAILED, 0.0, None, f"{said}: {why}")
    return JobStatus(JobState.FAILED, 0.0, code, f"{said}: {_signal(-code)}" if code is not None and code < 0 else said)


def _signal(number: int) -> str:
    try:
        return f"ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"ended by signal {number}"


def _with_output(reason: str, attributes: Attributes) -> str:
    """Undelivered output is told, whatever else happened: nothing but this attribute shows it."""
    if attributes.get("Stageout_status") != "0":
        return reason
    lost = f"{UNDELIVERED}: its output could not be delivered to {attributes.get('Output_Path', 'its place')}"
    return f"{reason}; {lost}" if reason else lost
