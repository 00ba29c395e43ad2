"""What one workload manager's file provides: commands out, evidence in. Pure text; all I/O is the driver's.

A :class:`Dialect` never guesses. A job that an answer does not mention is simply absent from the parsed mapping, and
absence proves nothing; an answer that is none raises :class:`SchedulerError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..agent.protocol import Completed
from ..errors import AsimError
from ..settings import BatchSettings
from .base import JobStatus

__all__ = ["Batch", "Command", "Completed", "Dialect", "SchedulerError"]


class Command(NamedTuple):
    """One command to run on the host where the workload manager's commands are.

    :ivar argv: its words; the first is looked up in PATH there.
    :ivar stdin: what it reads.
    """

    argv: tuple[str, ...]
    stdin: str = ""


class SchedulerError(AsimError):
    """The workload manager did not answer, or not with an answer.

    :ivar transient: whether the same question may be answered later (it is down, busy, or refuses for now).
    :ivar done: the command and its outputs.
    """

    def __init__(self, message: str, done: Completed | None = None, *, transient: bool = True) -> None:
        super().__init__(message)
        self.done, self.transient = done, transient


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One submit: a script, as one job or as an array of tasks.

    :ivar name: the job's name.
    :ivar mark: a word of this submit alone (letters, digits, ``.`` and ``-``), by which it can be found again.
    :ivar script: absolute path of the script; the file's own name begins with the mark.
    :ivar size: how many tasks an array has; 0: no array.
    :ivar throttle: how many of them may run at once; None: no limit.
    :ivar settings: what was asked for; its directives are in the script.
    """

    name: str
    mark: str
    script: str
    settings: BatchSettings
    size: int = 0
    throttle: int | None = None


class Dialect(Protocol):
    """The language of one workload manager.

    Ids are what :meth:`submitted` returned: those of whole arrays; :meth:`task` names one task of an array.
    ``JobStatus.time`` is 0.0 where the answer has none. Every ``JobStatus`` that is not COMPLETED says why in
    ``reason``, in words that begin with the scheduler's own (``"NODE_FAIL: …"``); a PENDING one has the scheduler's
    reason for waiting. A negative ``code`` is a signal, None means that nobody knows or that it never ran.

    :ivar name: the launcher's name.
    :ivar index: a POSIX shell expression that gives a task its number, from 0: ``${SLURM_ARRAY_TASK_ID}``.
    :ivar least: the smallest array that it takes (PBS: 2); smaller ones are submitted as plain jobs.
    :ivar most: the largest array that every site takes.

    One that has ``undelivered`` besides puts a job's output in place after its end: words that the reason of an ended
    job has when that failed. It is then asked once more about jobs whose members have told their ends.
    """

    name: str
    index: str
    least: int
    most: int

    def submit(self, batch: Batch) -> Command:
        """Submits; the mark is put where :meth:`find` sees it."""

    def submitted(self, done: Completed) -> str:
        """The id.

        :raises SubmitError: refused; ``transient`` when it may be taken later (a limit, a busy or absent scheduler).
        :raises SchedulerError: nobody can say whether it was taken; :meth:`find` must decide.
        """

    def task(self, job: str, index: int) -> str:
        """The id of one task, numbered from 0, as :meth:`read_status` and :meth:`cancel` have it."""

    def status(self, jobs: Sequence[str]) -> list[Command]:
        """One bulk query (or, for very many ids, a few) about jobs; arrays are asked for with all their tasks."""

    def read_status(self, done: Completed) -> Mapping[str, JobStatus]:
        """What one of those answers proves: id -> evidence; for arrays, of each task that is known by itself.

        Tasks that have not begun may stand together under the array's own id.

        :raises SchedulerError: it is no answer.
        """

    def account(self, jobs: Sequence[str]) -> list[Command]:
        """Asks the accounting, which is the judge of jobs that have ended. [] when this dialect has none."""

    def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
        """What that answer proves; {} when the site keeps no accounts."""

    def lingering(self, found: Mapping[str, JobStatus]) -> list[str]:
        """Those of an answer's jobs that have failed and yet stay in the queue until they are deleted."""

    def cancel(self, jobs: Sequence[str]) -> list[Command]:
        """Ends jobs or tasks, as many in one command as can be: SIGTERM first, SIGKILL after the scheduler's grace."""

    def cancelled(self, done: Completed) -> None:
        """Look at how that went: jobs that had ended before are no error.

        :raises SchedulerError: it should be tried again.
        """

    def find(self, marks: Sequence[str]) -> list[Command]:
        """Asks for jobs by their marks."""

    def find_read(self, done: Completed, marks: Sequence[str]) -> Mapping[str, str]:
        """Those that are there: mark -> id.

        :raises SchedulerError: it is no answer.
        """
