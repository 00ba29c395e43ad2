"""Grid Engine: ``qsub``, ``qstat``, ``qacct``, ``qdel``. Text formats of 8.1.9; of other descendants where they are known.

It remembers less than the others: a job that ended is in the accounts only, and one that was deleted while it waited
is nowhere. Its ``qdel`` sends SIGKILL at once.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from time import strptime
from xml.etree import ElementTree as ET

from ..errors import SubmitError
from ..status import JobState
from ._told import signed_of
from .base import JobStatus, ended_badly
from .dialect import Batch, Command, Completed, SchedulerError

_CLOCK = ("env", "TZ=UTC0")
"""Its times have no zone."""
_NOT_FOUND = 127
"""How env(1) ends when there is no such command."""
_FEW = 8
"""Ids to ask the accounts for one by one. Each of these commands reads the whole file of accounts."""
_BY_OWNER = 'exec env TZ=UTC0 qacct -o "$(id -un)" -d 14 -j'
_TIMES = ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")
_AGAIN = frozenset({24, 25})
"""Codes of runs that are followed by another one of the same job: it migrates, or was put back."""
_LIMIT, _KILLED = 37, 100
_FULL = 25
"""How qsub ends when a user, or the cell, has as many jobs as are allowed."""
_WORDS = {
    1: "it could not be started on its host",
    17: "it was killed by a signal",
    18: "the daemon that watched it died",
    19: "its end was not written down: its host or the daemon that watched it went down",
    21: "its host does not know it",
    26: "its output files cannot be opened",
    27: "its shell was not found",
    28: "its directory cannot be entered",
    30: "it ended with 100, which means an error",
    _LIMIT: "it reached its limit of time or memory",
    _KILLED: "it was killed or deleted",
}
_GONE = re.compile(r"does not exist|not found|has (?:already )?(?:been )?(?:registered|deleted)|already in deletion")
_UNSURE = (
    "Error reading answer list",
    "got no answer",
    "failed receiving gdi request",
    "got read error",
    "timeout",
    "timed out",
    "closed the connection",
    "Connection reset",
)
_LATER = (
    "unable to send message to qmaster",
    "unable to contact qmaster",
    "commlib error",
    "can't connect",
    "are allowed per",
    "Resource temporarily unavailable",
)
_NO_ACCOUNTS = ("not found", "no jobs running since startup", "No such file or directory")


_STAYS = "it could not be started, and stays in the queue until it is deleted"


class SGE:
    """Grid Engine's language; see :class:`~asim.launchers.dialect.Dialect`."""

    name = "sge"
    index = "$((SGE_TASK_ID - 1))"
    least = 1
    most = 75_000  # max_aj_tasks, where nobody set it

    def submit(self, batch: Batch) -> Command:
        """``qsub -terse``. The job's name gets the mark at its end: nothing else of a job is both in the queue's list
        and in the accounts.
        """
        *head, script = batch.settings.submit_argv(batch.script)
        name = re.sub(r"[^A-Za-z0-9_.+-]|^(?=\d)", "_", batch.name)
        return Command((*head, "-terse", "-N", f"{name}.{batch.mark}", *_array(batch), script))

    def submitted(self, done: Completed) -> str:
        """``12``, or the same of an array's ``12.1-4:1``."""
        said = done.stdout + done.stderr
        if done.code == 0:
            for line in done.stdout.splitlines():
                job = line.strip().partition(".")[0]
                if job.isdecimal():
                    return job
            raise SchedulerError(f"qsub printed no job id: {said.strip()!r}", done)
        if done.code is None or done.code < 0 or not said.strip() or _has(said, _UNSURE):
            raise SchedulerError(done.words(), done)
        raise SubmitError(done.words(), transient=done.code == _FULL or _has(said, _LATER))

    def task(self, job: str, index: int) -> str:
        """``12.1`` is the first."""
        return f"{job}.{index + 1}"

    def status(self, jobs: Sequence[str]) -> list[Command]:
        """``qstat -xml``: this user's jobs that have not ended."""
        return [Command((*_CLOCK, "qstat", "-xml"))] if jobs else []

    def read_status(self, done: Completed) -> Mapping[str, JobStatus]:
        """Waiting tasks are told apart, too."""
        return {job: _listed(row) for row in _rows(done) for job in _ids(row)}

    def account(self, jobs: Sequence[str]) -> list[Command]:
        """``qacct``: for a few, one by one; for many, all of this user's that began in the last 14 days."""
        numbers = list(dict.fromkeys(job.partition(".")[0] for job in jobs))
        if len(numbers) > _FEW:
            return [Command(("sh", "-c", _BY_OWNER))]
        return [Command((*_CLOCK, "qacct", "-j", job)) for job in numbers]

    def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
        """Of several runs of a job the last one counts, unless it is one that is to be followed by another. Jobs deleted
        while they waited are not there.
        """
        last = {_task(record): record for record in _records(done)}
        return {job: _ended(record) for job, record in last.items() if _failed(record) not in _AGAIN}

    def lingering(self, found: Mapping[str, JobStatus]) -> list[str]:
        """Jobs in state ``E``."""
        return [job for job, status in found.items() if status.reason.endswith(_STAYS)]

    def cancel(self, jobs: Sequence[str]) -> list[Command]:
        """``qdel``; a task is deleted as ``12.3``."""
        return [Command(("qdel", *jobs[start : start + 1000])) for start in range(0, len(jobs), 1000)]

    def cancelled(self, done: Completed) -> None:
        """Jobs that are over are no error."""
        if done.code == 0:
            return
        lines = (done.stdout + done.stderr).splitlines()
        if done.code is None or done.code < 0 or not lines or not all(_GONE.search(line) for line in lines):
            raise SchedulerError(done.words(), done)

    def find(self, marks: Sequence[str]) -> list[Command]:
        """In the list, and in the accounts by a pattern for each name."""
        return [*self.status(marks), *(Command((*_CLOCK, "qacct", "-j", f"*.{mark}")) for mark in marks)]

    def find_read(self, done: Completed, marks: Sequence[str]) -> Mapping[str, str]:
        """By the ends of the jobs' names."""
        if "qacct" in done.argv:
            named = {record.get("jobname", ""): record.get("jobnumber", "") for record in _records(done)}
        else:
            named = {row.findtext("JB_name", ""): row.findtext("JB_job_number", "") for row in _rows(done)}
        return {mark: job for name, job in named.items() for mark in marks if name.endswith(f".{mark}")}


def _array(batch: Batch) -> Iterator[str]:
    if batch.size:
        yield from ("-t", f"1-{batch.size}")
        yield from ("-tc", str(batch.throttle)) if batch.throttle else ()


# -- qstat


def _rows(done: Completed) -> list[ET.Element]:
    if done.code != 0:
        raise SchedulerError(done._replace(argv=("qstat",)).words(), done, transient=done.code != _NOT_FOUND)
    try:
        return ET.fromstring(done.stdout.encode("utf-8", "replace")).findall(".//job_list")
    except ET.ParseError as error:
        raise SchedulerError(f"the answer of qstat -xml is no XML ({error}): {done.stdout[:200]!r}", done) from None


def _ids(row: ET.Element) -> Iterator[str]:
    job, tasks = row.findtext("JB_job_number", ""), row.findtext("tasks", "")
    if not tasks:
        yield job
    for part in filter(None, tasks.split(",")):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        yield from (f"{job}.{index}" for index in range(int(first), int(last or first) + 1, int(step or 1)))


def _listed(row: ET.Element) -> JobStatus:
    """One job or task. The letters of its state: E error, d deleted, q queued, h held, r running, s S T suspended."""
    letters = row.findtext("state", "")
    if "E" in letters:
        return JobStatus(JobState.FAILED, 0.0, None, f"{letters}: {_STAYS}")
    if "q" in letters or "w" in letters:
        return JobStatus(JobState.PENDING, 0.0, None, f"{letters}: {'held' if 'h' in letters else 'waits'}")
    if letters.strip("R") == "t":
        return JobStatus(JobState.PENDING, 0.0, None, f"{letters}: it is being sent to its host")
    if "z" in letters:
        return JobStatus(JobState.RUNNING, 0.0, None, f"{letters}: it has ended")
    why = "is being deleted" if "d" in letters else "is suspended" if set(letters) & set("sST") else ""
    return JobStatus(JobState.RUNNING, _time(row.findtext("JAT_start_time", "")), None, why and f"{letters}: it {why}")


# -- qacct


def _records(done: Completed) -> Iterator[dict[str, str]]:
    """Name -> value, for each block between lines of ``=``.

    :raises SchedulerError: it is no answer.
    """
    if done.code != 0:
        if done.code is not None and done.code > 0 and _has(done.stderr + done.stdout, _NO_ACCOUNTS):
            return
        raise SchedulerError(done._replace(argv=("qacct",)).words(), done)
    for block in re.split(r"^=+\s*$", done.stdout, flags=re.MULTILINE):
        pairs = (line.split(None, 1) for line in block.splitlines())
        record = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
        if "jobnumber" in record:
            yield record


def _task(record: Mapping[str, str]) -> str:
    task = record.get("taskid", "undefined")
    return f"{record['jobnumber']}.{task}" if task.isdecimal() else record["jobnumber"]


def _ended(record: Mapping[str, str]) -> JobStatus:
    told = record.get("failed", "").partition(":")[2]
    number, code = _failed(record), _whole(record.get("exit_status", ""))
    when = _time(record.get("end_time", ""))
    if number == 0:
        state = JobState.FAILED if code else JobState.COMPLETED
        return JobStatus(state, when, code, f"exit_status {code}" if code else "")
    own = signed_of(code) or None
    late = number == _LIMIT or (number == _KILLED and _at_limit(record))
    words = "it reached its limit of time" if number == _KILLED and late else _WORDS.get(number, "it failed")
    words += f", {ended_badly(own)}" if own else ""
    return JobStatus(JobState.TIMEOUT if late else JobState.FAILED, when, own, f"{number} ({told.strip()}): {words}")


def _failed(record: Mapping[str, str]) -> int:
    return _whole(record.get("failed", ""))


def _at_limit(record: Mapping[str, str]) -> bool:
    """Whether it ran for as long as it had asked for."""
    asked = re.search(r"\b[hs]_rt=(\d+)\b", record.get("category", ""))
    ran = re.match(r"[\d.]+", record.get("ru_wallclock", ""))
    return bool(asked and ran and float(ran[0]) >= int(asked[1]))


def _whole(text: str) -> int:
    found = re.match(r"\s*(\d+)", text)
    return int(found[1]) if found else 0


def _time(text: str) -> float:
    """Seconds since the epoch, of a time in UTC; 0.0 for none."""
    whole, _, part = text.strip().partition(".")
    for form in _TIMES:
        with suppress(ValueError):
            return timegm(strptime(whole, form)) + (float(f"0.{part}") if part.isdecimal() else 0.0)
    return 0.0


def _has(text: str, phrases: Sequence[str]) -> bool:
    return any(phrase in text for phrase in phrases)
