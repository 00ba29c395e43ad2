"""LSF 10.1 and later, from its documentation: these words have met a strict fake, and no real LSF yet.

The script goes to ``bsub`` as its standard input: that is the one way in which the ``#BSUB`` lines are read at every
site (as an argument, only where ``LSB_BSUB_PARSE_SCRIPT=Y``). ``bsub`` waits by itself while LSF is down, or while too
many jobs wait; a submit that is stopped meanwhile has usually not been taken, but nobody can say so.

``bjobs`` knows jobs for an hour after their end (``CLEAN_PERIOD``); after that ``bhist`` reads the event logs. Times of
``bjobs`` have no seconds and no year, so they are not used; ``bhist`` runs with ``TZ=UTC``, because it writes no zone.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Mapping, Sequence

from ..errors import SubmitError
from ..status import JobState
from ._told import signed_of
from .base import JobStatus
from .dialect import Batch, Command, Completed, SchedulerError

_IDS = 1000
"""Ids in one command."""
_FIELDS = "jobid jobindex stat exit_code exit_reason pend_reason job_description"
_SUBMITTED = re.compile(r"Job <(\d+)> is submitted")
_BUSY = re.compile(
    r"threshold reached|limit .*reached|not responding|try(ing)? (again|later)|is down|connection refused",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"sending/receiving|(send|receive|sending|receiving) a message|time[d ]*out|communication|LSF library call"
    r"|connection (was )?(reset|closed|aborted)|broken pipe|end of file|protocol",
    re.IGNORECASE,
)
_UNSENT = re.compile("not submitted|connection refused", re.IGNORECASE)
_NO_JOB = re.compile(r"is not found|No (unfinished |matching )?job found", re.IGNORECASE)
_KILLED = re.compile(
    r"is being (terminated|signaled)|already finished|No matching job found|is not found", re.IGNORECASE
)
_WAITING = {
    "PEND": "",
    "PSUSP": "suspended while it waited",
    "WAIT": "waits its turn in a chunk",
    "PROV": "its host starts",
}
_ALIVE = {
    "RUN": "",
    "USUSP": "USUSP: suspended by somebody",
    "SSUSP": "SSUSP: suspended by LSF",
    "UNKWN": "UNKWN: its host does not answer",
    "ZOMBI": "ZOMBI: it was killed while its host did not answer",
}
_TIMEOUT = frozenset({"TERM_RUNLIMIT", "TERM_DEADLINE"})
_CANCELLED = frozenset(
    {
        *("TERM_OWNER", "TERM_FORCE_OWNER", "TERM_ADMIN", "TERM_FORCE_ADMIN", "TERM_BUCKET_KILL"),
        *("TERM_ORPHAN_SYSTEM", "TERM_REMOVE_HUNG_JOB"),
    }
)
_HEAD = re.compile(r"^Job <(\d+)(?:\[(\d+)\])?>", re.MULTILINE)
_EVENT = re.compile(r"^\w{3} (\w{3} +\d+ \d\d:\d\d:\d\d)(?: (\d{4}))?: (.*)", re.MULTILINE)
_CODE = re.compile(r"Exited with exit code (\d+)")
_SIGNAL = re.compile(r"Exited by (?:LSF )?signal (\d+)")
_REASON = re.compile(r"(TERM_\w+: [^.;\n]*)")


class LSF:
    """The dialect of IBM Spectrum LSF.

    Ends jobs with SIGINT, SIGTERM and SIGKILL, with the site's ``JOB_TERMINATE_INTERVAL`` (10 s) between them.
    """

    name = "lsf"
    index = "$((${LSB_JOBINDEX:-1} - 1))"
    least = 1
    most = 1000

    # --- submit

    def submit(self, batch: Batch) -> Command:
        """The mark is in the job's description."""
        command = batch.settings.batch_cmd
        own = batch.settings.batch_args.get("Jd")
        options = ["-Jd", f"{own} {batch.mark}" if own else batch.mark]
        if batch.size:
            throttle = f"%{batch.throttle}" if batch.throttle else ""
            options += ["-J", f"{batch.name}[1-{batch.size}]{throttle}"]
        read = 'script=$1; shift; exec "$@" < "$script"'
        return Command(("sh", "-c", read, "sh", batch.script, command, *options))

    def submitted(self, done: Completed) -> str:
        said = f"{done.stdout}\n{done.stderr}"
        match = _SUBMITTED.search(said)
        if match:
            return match[1]
        if not done.code or done.code < 0 or (_UNSURE.search(said) and not _UNSENT.search(said)):
            raise SchedulerError(f"nobody knows whether the job was taken: {done.words()}", done)
        raise SubmitError(f"LSF refused the job: {done.words()}", transient=_BUSY.search(said) is not None)

    def task(self, job: str, index: int) -> str:
        return f"{job}[{index + 1}]"

    # --- status

    def status(self, jobs: Sequence[str]) -> list[Command]:
        ask = ("bjobs", "-a", "-o", _FIELDS, "-json")
        return [Command((*ask, *jobs[at : at + _IDS])) for at in range(0, len(jobs), _IDS)]

    def read_status(self, done: Completed) -> Mapping[str, JobStatus]:
        proofs = {_id(record): _evidence(record) for record in _records(done) if "STAT" in record}
        return {job: proof for job, proof in proofs.items() if proof is not None}

    def account(self, jobs: Sequence[str]) -> list[Command]:
        """The event logs, all of them: the jobs that ``bjobs`` has forgotten."""
        ask = ("env", "TZ=UTC", "bhist", "-n", "0", "-a", "-UF")
        return [Command((*ask, *jobs[at : at + _IDS])) for at in range(0, len(jobs), _IDS)]

    def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
        _check(done)
        heads = list(_HEAD.finditer(done.stdout))
        ends = [head.start() for head in heads[1:]] + [len(done.stdout)]
        texts = {
            f"{head[1]}[{head[2]}]" if head[2] else head[1]: done.stdout[head.end() : end]
            for head, end in zip(heads, ends, strict=False)  # no jobs: one end, and no head
        }
        proofs = {job: _from_history(text) for job, text in texts.items()}
        return {job: proof for job, proof in proofs.items() if proof is not None}

    # --- cancel

    def lingering(self, found: Mapping[str, JobStatus]) -> list[str]:
        """None do."""
        return []

    def cancel(self, jobs: Sequence[str]) -> list[Command]:
        return [Command(("bkill", *jobs[at : at + _IDS])) for at in range(0, len(jobs), _IDS)]

    def cancelled(self, done: Completed) -> None:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        if done.code is None or done.code < 0 or (done.code and not (lines and all(map(_KILLED.search, lines)))):
            raise SchedulerError(done.words(), done)

    # --- find

    def find(self, marks: Sequence[str]) -> list[Command]:
        return [Command(("bjobs", "-a", "-o", _FIELDS, "-json"))] if marks else []

    def find_read(self, done: Completed, marks: Sequence[str]) -> Mapping[str, str]:
        found = {}
        for record in _records(done):
            for mark in set(marks) & set(record.get("JOB_DESCRIPTION", "").split()):
                found[mark] = record["JOBID"].partition("[")[0]
        return found


# --- bjobs


def _check(done: Completed) -> None:
    """An answer, or that there is no such job.

    :raises SchedulerError: neither.
    """
    wrong = done.code is None or done.code < 0 or (done.code and not _NO_JOB.search(done.stdout + done.stderr))
    if wrong:
        raise SchedulerError(done.words(), done)


def _records(done: Completed) -> list[dict[str, str]]:
    """The jobs of ``bjobs -json``; what LSF says while it waits for its server may come before it."""
    _check(done)
    begin = done.stdout.find("{")
    if begin < 0 and _NO_JOB.search(done.stdout + done.stderr):
        return []
    try:
        records = json.loads(done.stdout[max(begin, 0) :], strict=False)["RECORDS"]
        return [{name: _text(value) for name, value in record.items()} for record in records]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SchedulerError(f"not an answer of bjobs: {done.words()}", done) from None


def _text(value: object) -> str:
    return "" if value in ("-", None) else str(value)


def _id(record: Mapping[str, str]) -> str:
    """``12``, ``12[3]``."""
    index = record.get("JOBINDEX", "0")
    job = record["JOBID"]
    return job if index in ("", "0") or "[" in job else f"{job}[{index}]"


def _evidence(record: Mapping[str, str]) -> JobStatus | None:
    state = record["STAT"]
    if state in _WAITING:
        why = _WAITING[state] or record.get("PEND_REASON", "").rstrip("; ")
        return JobStatus(JobState.PENDING, 0.0, reason=f"{state}: {why}" if why else "")
    if state in _ALIVE:
        return JobStatus(JobState.RUNNING, 0.0, reason=_ALIVE[state])
    if state == "DONE":
        return JobStatus(JobState.COMPLETED, 0.0, 0)
    if state != "EXIT":
        return None
    code = record.get("EXIT_CODE", "")
    return _ended(int(code) if code.isdecimal() else None, record.get("EXIT_REASON", ""))


def _ended(code: int | None, reason: str) -> JobStatus:
    """A job that did not complete; a code above 128 is a signal when LSF itself sent it."""
    term = reason.partition(":")[0].strip()
    if code is not None and term.startswith("TERM_"):
        code = signed_of(code)
    reason = f"EXIT: {reason.rstrip('. ')}" if reason else f"EXIT: exit code {code}" if code is not None else "EXIT"
    if term in _TIMEOUT:
        return JobStatus(JobState.TIMEOUT, 0.0, code, reason)
    return JobStatus(JobState.CANCELLED if term in _CANCELLED else JobState.FAILED, 0.0, code, reason)


# --- bhist


def _from_history(text: str) -> JobStatus | None:
    """What one job's events prove; only of one that has ended."""
    end = code = signal = reason = None
    for event in _EVENT.finditer(text):
        what = event[3]
        if what.startswith(("Done successfully", "Exited", "Completed")):
            end = event
        elif "equeue" in what or what.startswith(("Dispatched", "Starting")):
            end = code = signal = reason = None  # it runs again
        code = _CODE.search(what) or code
        signal = _SIGNAL.search(what) or signal
        reason = _REASON.search(what) or reason
    if end is None:
        return None
    when = _epoch(end[1], end[2])
    if end[3].startswith("Done") or "<done>" in end[3]:
        return JobStatus(JobState.COMPLETED, when, 0)
    number = int(code[1]) if code else -int(signal[1]) if signal else None
    return _ended(number, reason[1] if reason else "")._replace(time=when)


def _epoch(text: str, year: str | None) -> float:
    """A time in UTC, of this year or the last where none is written."""
    now = time.time()
    for guess in (int(year),) if year else (time.gmtime(now).tm_year, time.gmtime(now).tm_year - 1):
        try:
            when = float(calendar.timegm(time.strptime(f"{guess} {text}", "%Y %b %d %H:%M:%S")))
        except ValueError:
            continue
        if year or when < now + 86400:
            return when
    return 0.0
