"""Slurm: ``sbatch``, ``squeue``, ``sacct``, ``scancel``. Text formats of 20.11 and later; tested with 22.05."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from ..errors import SubmitError, UnsupportedError, allowed
from ..settings import SbatchSettings
from ._slurm_states import NEVER_RUNS, doubtful, evidence, ids
from .base import JobStatus
from .dialect import Batch, Command, Completed, SchedulerError

_COLUMNS = {
    "JobArrayID": 48,
    "State": 16,
    "Reason": 48,
    "exit_code": 10,
    "RestartCnt": 6,
    "StartTime": 14,
    "EndTime": 14,
    "NodeList": 40,
}
"""Of squeue, with their widths; in columns, as only this form has exit codes, and no character that never occurs."""
_SLICES = [slice(end - width, end) for end, width in zip(accumulate(_COLUMNS.values()), _COLUMNS.values(), strict=True)]
_FIELDS = ("JobID", "State", "ExitCode", "Start", "End", "NodeList")
"""Of sacct. (Its JSON has wrong exit codes in 22.05.)"""
_FILTERS = ("ACCOUNT", "LICENSES", "NAMES", "PARTITION", "PRIORITY", "QOS", "RECONF", "USERS")
"""A user's own settings for squeue that would hide jobs from us."""
_SQUEUE = ("env", *(f"-uSQUEUE_{name}" for name in _FILTERS), "SLURM_TIME_FORMAT=%s", "squeue", "--noheader", "--local")
"""``--local``: it would first ask about other clusters, which doubles the wait for a controller that is down."""
_SACCT = ("env", "SLURM_TIME_FORMAT=%s", "sacct", "--noheader", "--parsable2", "--allocations")
_LENGTH = 100_000
"""Characters of one argument; Linux takes 131,071."""

_UNKNOWN_JOB = "Invalid job id specified"
_OVER = (_UNKNOWN_JOB, "already completing or completed", "Job/step already", "Job has already finished")
"""What scancel says of jobs that have ended before."""
_NO_ACCOUNTS = "accounting storage is disabled"
_NOT_FOUND = 127
"""How env(1) ends when there is no such command."""
_BAD_FORMAT = "Invalid job format"
"""squeue does not know a column, prints what is left all the same, and ends with 0."""
_NEVER = (_BAD_FORMAT, "Invalid field", "nrecognized option", "Invalid job id")
"""What no repetition can help against."""
_FAILED = "Batch job submission failed:"
"""What sbatch says last; what it says before is about attempts that it made again by itself."""
_UNSURE = (
    "(send failure)",
    "(receive failure)",
    "(shutdown failure)",
    "Message send failure",
    "Message receive failure",
    "Communication shutdown failure",
    "Unexpected missing socket error",
    "Received zero length message",
    "Received message length < 0",
    "Failed to send entire message",
    "Header lengths are longer",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Insane message length",
    "Unexpected message received",
    "Protocol authentication error",
    "Unspecified error",
    "Connection reset by peer",
    "Connection timed out",
    "Broken pipe",
    "Transport endpoint is not connected",
)
"""After these nobody knows whether the controller took the job: the request may have arrived, and the answer been lost."""
_UNSENT = "auth_g_create"
"""What fails is to sign the request (munge is down on this host), so none was sent."""
_LATER = (
    "Unable to contact slurm controller (connect failure)",
    "standby mode",
    "not responding",
    "temporarily unable to accept",
    "Resource temporarily unavailable",
    "SubmitJob",
    "partition not available",
    "node not available",
    "I/O error writing script",
    "authentication",
    "auth/munge",
    "Munge",
    "Connection refused",
)
"""Refusals that may pass."""
_POLICY = "violates accounting/QOS policy"
_LIMIT = re.compile(r"error: ((?:QOS|Assoc)\w+)")


class Slurm:
    """Slurm's language; see :class:`~asim.launchers.dialect.Dialect`."""

    name = "slurm"
    index = "${SLURM_ARRAY_TASK_ID}"
    least = 1
    most = 1000  # MaxArraySize is 1001 where nobody set it, and one more than the largest number

    def submit(self, batch: Batch) -> Command:
        """``sbatch --parsable``, with ``--array`` for arrays, whose tasks share the script's own output file.

        :raises UnsupportedError: a job for another cluster, or an array of heterogeneous jobs.
        """
        for key in ("clusters", "M"):
            if key in batch.settings.batch_args:
                what = "jobs are followed on one cluster only, the default one of the host"
                raise UnsupportedError(allowed(f"batch_args[{key!r}]", batch.settings.batch_args[key], what))
        if batch.size and isinstance(batch.settings, SbatchSettings) and batch.settings.components:
            raise UnsupportedError(allowed("pack", "array", "Slurm has no arrays of heterogeneous jobs"))
        *head, script = batch.settings.submit_argv(batch.script)
        return Command((*head, *_array(batch), script))

    def submitted(self, done: Completed) -> str:
        """The id that ``--parsable`` prints, without the cluster's name."""
        if done.code == 0:
            job = done.stdout.strip().rpartition("\n")[2].partition(";")[0].strip()
            if job.isdecimal():
                return job
            raise SchedulerError(f"sbatch printed no job id: {done.stdout.strip()!r}", done)
        said = done.stdout + done.stderr
        lost = _has(said.rpartition(_FAILED)[2], _UNSURE) and _UNSENT not in said
        if done.code is None or done.code < 0 or not said.strip() or lost:
            raise SchedulerError(done.words(), done)
        raise SubmitError(done.words(), transient=_passes(said))

    def task(self, job: str, index: int) -> str:
        """``12_3``."""
        return f"{job}_{index}"

    def status(self, jobs: Sequence[str]) -> list[Command]:
        """``squeue`` about these ids; it remembers those that ended for a while (``MinJobAge``)."""
        columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
        words = (*_SQUEUE, "--states=all", f"--Format={columns}")
        return [Command((*words, f"--jobs={chunk}")) for chunk in _chunks(jobs)]

    def read_status(self, done: Completed) -> Mapping[str, JobStatus]:
        """Lines of columns. A single id that squeue has forgotten is an error of its own, and the answer "nothing"."""
        if done.code != 0 or _BAD_FORMAT in done.stderr:
            if done.code is not None and _UNKNOWN_JOB in done.stderr:
                return {}
            raise _no_answer(done)
        rows = ([line[place].strip() for place in _SLICES] for line in done.stdout.splitlines())
        return {
            job: evidence(state, code, start, end, nodes, reason, restarts)
            for listed, state, reason, code, restarts, start, end, nodes in rows
            for job in ids(listed)
        }

    def account(self, jobs: Sequence[str]) -> list[Command]:
        """``sacct`` about these ids, whenever they ran."""
        words = (*_SACCT, f"--format={','.join(_FIELDS)}")
        return [Command((*words, f"--jobs={chunk}")) for chunk in _chunks(jobs)]

    def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
        """Lines with bars, of jobs that have ended: what the accounts say of others is seconds old. {} where the site
        has no accounts.
        """
        if done.code != 0:
            if done.code == _NOT_FOUND or _NO_ACCOUNTS in done.stderr:
                return {}
            raise _no_answer(done)
        rows = (line.split("|") for line in done.stdout.splitlines())
        found = {
            job: doubtful(evidence(state, code, start, end, nodes))
            for listed, state, code, start, end, nodes in (row for row in rows if len(row) == len(_FIELDS))
            for job in ids(listed)
        }
        return {job: status for job, status in found.items() if status.state.terminal}

    def lingering(self, found: Mapping[str, JobStatus]) -> list[str]:
        """Jobs that wait for what can never happen; a whole array's number where that holds for all its tasks."""
        stuck = [job for job, status in found.items() if status.reason.startswith(NEVER_RUNS)]
        others = {_base(job) for job in found.keys() - set(stuck)}
        return list(dict.fromkeys(job if _base(job) in others else _base(job) for job in stuck))

    def cancel(self, jobs: Sequence[str]) -> list[Command]:
        """``scancel``: SIGTERM, and SIGKILL after the site's ``KillWait``."""
        return [Command(("scancel", *chunk.split(","))) for chunk in _chunks(jobs)]

    def cancelled(self, done: Completed) -> None:
        """Jobs that are over are no error."""
        errors = [line for line in done.stderr.splitlines() if "error" in line and not _has(line, _OVER)]
        if done.code is None or done.code < 0 or errors or (done.code and not done.stderr.strip()):
            raise SchedulerError(done.words(), done, transient=not any(_has(line, _NEVER) for line in errors))

    def find(self, marks: Sequence[str]) -> list[Command]:
        """Jobs of this user with the paths of their scripts; first the controller's, then those of the accounts."""
        live = Command((*_SQUEUE, "--states=all", "--me", "--format=%i %o"))
        return [live, Command((*_SACCT, "--starttime=now-2days", "--format=JobID,SubmitLine"))]

    def find_read(self, done: Completed, marks: Sequence[str]) -> Mapping[str, str]:
        """Marks that a line's path has. A site without accounts, or whose accounts lack these lines, adds nothing."""
        if done.code != 0:
            without = done.code == _NOT_FOUND or _has(done.stderr, (_NO_ACCOUNTS, "Invalid field requested"))
            if "sacct" in done.argv and without:
                return {}
            raise _no_answer(done)
        rows = [re.split(r"[ |]", line, maxsplit=1) for line in done.stdout.splitlines()]
        scripts = {_base(row[0]): row[1] for row in rows if len(row) > 1}
        patterns = {mark: re.compile(rf"/{re.escape(mark)}(?![A-Za-z0-9])") for mark in marks}
        return {mark: job for job, script in scripts.items() for mark, it in patterns.items() if it.search(script)}


def _array(batch: Batch) -> Iterator[str]:
    if batch.size:
        at_once = f"%{batch.throttle}" if batch.throttle else ""
        yield f"--array=0-{batch.size - 1}{at_once}"
        yield "--open-mode=append"


def _base(listed: str) -> str:
    """The id that sbatch printed, of a task or a component."""
    return re.split(r"[_+]", listed, maxsplit=1)[0]


def _chunks(jobs: Sequence[str]) -> Iterator[str]:
    """Ids joined by commas, as many as one argument can hold."""
    rest = ",".join(jobs)
    while len(rest) > _LENGTH:
        cut = rest.rfind(",", 0, _LENGTH)
        yield rest[:cut]
        rest = rest[cut + 1 :]
    if rest:
        yield rest


def _has(text: str, phrases: Sequence[str]) -> bool:
    return any(phrase in text for phrase in phrases)


def _passes(said: str) -> bool:
    """Whether a refusal may pass. A policy that is not named may be a limit of jobs, which passes."""
    limit = _LIMIT.search(said)
    return _has(said, _LATER) or (_POLICY in said and limit is None)


def _no_answer(done: Completed) -> SchedulerError:
    never = done.code == _NOT_FOUND or _has(done.stderr, _NEVER)
    name = "sacct" if "sacct" in done.argv else "squeue"  # not env
    return SchedulerError(done._replace(argv=(name,)).words(), done, transient=not never)
