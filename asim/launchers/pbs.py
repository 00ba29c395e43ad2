"""PBS: OpenPBS and PBS Pro; what is left of Torque is another form of the same words.

Status is asked in JSON, because values there cannot break a line, with ``-E``: without it one development branch prints
only the first of several jobs, and both are silent then about ids that they do not know, which proves as little as an
error line would. Its JSON is not always valid; :mod:`._qstat` reads it line by line then. The plain form (``-f -w``)
is asked where ``-F json`` is not known. It shows the same attributes, but with all tasks of an array it was not recorded.

Where a server keeps no history, ``-x`` hides even what runs. A :class:`PBS` that meets such an answer, or a ``qstat``
without JSON, remembers it, raises :class:`SchedulerError`, and asks otherwise from then on: ask again at once.

``qstat`` runs with ``TZ=UTC``: it is the command that turns times into text, and nothing else tells the zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..errors import SubmitError
from ._qstat import UNDELIVERED, Attributes, evidence, from_json, from_plain
from .base import JobStatus
from .dialect import Batch, Command, Completed, SchedulerError

_IDS = 1000
"""Ids in one command."""
_ID = re.compile(r"\d+(\[\])?(\.\S+)?")
_BEFORE_DOT = re.compile(r"(\d+)(?:\[\d*\])?(.*)")
_ANSWERS = frozenset({0, 1, 35, 55, 153})
"""Exit codes of ``qstat`` with which the jobs that it knows are printed: some of the others are finished or unknown."""
_BUSY_CODES = frozenset({162, 185, 186})
"""Low bytes of errors that pass: no connection, no more connections, no server."""
_NO_SUCH_HOST = 160
_BUSY_WORDS = re.compile(r"would exceed|maximum number of|cannot connect|try again", re.IGNORECASE)
_UNSURE_CODES = frozenset({162, 163, 183})
"""Low bytes of a system error, an internal one, and an answer that breaks off: the job may have been taken before."""
_UNSURE_WORDS = re.compile(
    r"end of file|protocol|timed? ?out|connection reset|broken pipe|premature|communication failure", re.IGNORECASE
)
_UNSENT = "cannot connect to server"
_GONE = re.compile(
    r"Unknown Job Id (?!\S*\[\d+,)|Job has finished|finished array subjob|invalid state for job.*COMPLETE"
)
_NO_HISTORY = "not configured to maintain job history"


class PBS:
    """The dialect of OpenPBS (read against recordings of 23.06) and PBS Pro.

    Deletes with SIGTERM, and SIGKILL after the server's ``kill_delay`` (10 s).

    :param torque: Torque: arrays by ``-t``, no history by ``-x``, no JSON, state ``C``.
    :ivar undelivered: see :class:`~asim.launchers.dialect.Dialect`.
    :ivar history: whether ``qstat -x`` is believed to work.
    :ivar json: whether ``qstat -F json`` is believed to work.
    :ivar wide: whether ``qstat -w`` is; without it lines are folded, which loses nothing that is read here.
    """

    least = 2
    most = 10000

    def __init__(self, *, torque: bool = False) -> None:
        self.torque = torque
        self.name = "torque" if torque else "pbs"
        self.undelivered = "" if torque else UNDELIVERED
        self.history = self.json = self.wide = not torque
        self.index = "${PBS_ARRAYID:?}" if torque else "${PBS_ARRAY_INDEX:?}"

    # --- submit

    def submit(self, batch: Batch) -> Command:
        """The mark is in the script's path, which ``qstat`` shows."""
        command, *rest = batch.settings.submit_argv(batch.script)
        if not batch.size:
            return Command((command, *rest))
        most = f"%{batch.throttle}" if batch.throttle else ""
        return Command((command, "-t" if self.torque else "-J", f"0-{batch.size - 1}{most}", *rest))

    def submitted(self, done: Completed) -> str:
        if done.code is None or done.code < 0:
            raise SchedulerError(f"nobody knows whether the job was taken: {done.words()}", done)
        last = (done.stdout.split() or [""])[-1]
        if _ID.fullmatch(last):
            return last  # whatever the code: with -W block=true it is the job's
        if not done.code:
            raise SchedulerError(f"qsub printed no job id: {done.words()}", done)
        unsure = done.code in _UNSURE_CODES or _UNSURE_WORDS.search(done.stderr) is not None
        if unsure and _UNSENT not in done.stderr:
            raise SchedulerError(f"nobody knows whether the job was taken: {done.words()}", done)
        busy = done.code in _BUSY_CODES or _BUSY_WORDS.search(done.stderr) is not None
        raise SubmitError(f"PBS refused the job: {done.words()}", transient=busy and done.code != _NO_SUCH_HOST)

    def task(self, job: str, index: int) -> str:
        number, brackets, rest = job.partition("[]")
        return f"{number}[{index}]{rest}" if brackets else f"{job}[{index}]"

    # --- status

    def status(self, jobs: Sequence[str]) -> list[Command]:
        return [self._qstat(jobs[at : at + _IDS]) for at in range(0, len(jobs), _IDS)]

    def _qstat(self, jobs: Sequence[str]) -> Command:
        tasks = ["-t"] if any("[]" in job for job in jobs) else []
        return Command(("env", "TZ=UTC", "qstat", *self._options(grouped=bool(jobs)), *tasks, *jobs))

    def _options(self, *, grouped: bool) -> list[str]:
        history = ["-x"] if self.history else []
        if self.json:
            return [*(["-E"] if grouped else []), *history, "-f", "-F", "json"]
        return ["-f", *history, *(["-w"] if self.wide else [])]

    def read_status(self, done: Completed) -> Mapping[str, JobStatus]:
        asked = {_number(job): job for job in done.argv if job[:1].isdigit()}
        found = {}
        for job, attributes in self._jobs(done).items():
            proof = evidence(job, attributes, torque=self.torque)
            if proof is not None:
                found[_as_asked(job, asked)] = proof
        return found

    def _jobs(self, done: Completed) -> dict[str, Attributes]:
        """What an answer of ``qstat`` holds.

        :raises SchedulerError: it is none; what it teaches about this site is remembered.
        """
        if "-x" in done.argv and _NO_HISTORY in done.stderr:
            self.history = False
            raise SchedulerError("PBS keeps no history here: ask again, without it", done)
        if "-F" not in done.argv:
            if done.code not in _ANSWERS:
                self.wide = self.wide and done.code != 2  # it may not be known
                raise SchedulerError(done.words(), done)
            return from_plain(done.stdout)
        if done.code == 2:
            self.json = False
            raise SchedulerError("qstat knows no JSON here: ask again, in the plain form", done)
        if done.code not in _ANSWERS:
            raise SchedulerError(done.words(), done)
        try:
            return from_json(done.stdout)
        except ValueError as error:
            if not done.stdout.strip():
                raise SchedulerError(done.words(), done) from None
            self.json = False
            raise SchedulerError(f"not qstat's JSON ({error}): ask again, in the plain form", done) from None

    def account(self, jobs: Sequence[str]) -> list[Command]:
        """None: the history that ``qstat -x`` shows is all that users can ask."""
        return []

    def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
        return {}

    # --- cancel

    def lingering(self, found: Mapping[str, JobStatus]) -> list[str]:
        """None do."""
        return []

    def cancel(self, jobs: Sequence[str]) -> list[Command]:
        """Tasks of one array go to commands of their own: ``qdel`` makes one wrong id of several, and deletes none."""
        return [Command(("qdel", *ids[at : at + _IDS])) for ids in _apart(jobs) for at in range(0, len(ids), _IDS)]

    def cancelled(self, done: Completed) -> None:
        if done.code == 0:
            return
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        silent = self.torque and not lines  # so wrappers are about jobs that have ended
        if done.code is None or done.code < 0 or not (silent or (lines and all(map(_GONE.search, lines)))):
            busy = done.code != 159 and done.code != 2  # not allowed; wrong usage
            raise SchedulerError(done.words(), done, transient=busy)

    # --- find

    def find(self, marks: Sequence[str]) -> list[Command]:
        """One list of all jobs: ``qselect`` finds no words in the middle, and no more than one name at once."""
        return [self._qstat(())] if marks else []

    def find_read(self, done: Completed, marks: Sequence[str]) -> Mapping[str, str]:
        jobs = {job: "\n".join(attributes.values()) for job, attributes in self._jobs(done).items()}
        words = {mark: re.compile(rf"(?<![\w.-]){re.escape(mark)}(?![0-9A-Za-z])") for mark in marks}
        found = ((mark, job) for mark, word in words.items() for job, text in jobs.items() if word.search(text))
        return {mark: job for mark, job in found if "[" not in job or "[]" in job}


def _number(job: str) -> str:
    """``12[].server`` -> ``12``."""
    match = _BEFORE_DOT.match(job)
    return match[1] if match else job


def _as_asked(job: str, asked: Mapping[str, str]) -> str:
    """The id with the server's name as ``qsub`` printed it: ``qstat`` may write another one."""
    match, known = _BEFORE_DOT.match(job), _BEFORE_DOT.match(asked.get(_number(job), ""))
    if match is None or known is None:
        return job
    return job.removesuffix(match[2]) + known[2]


def _apart(jobs: Sequence[str]) -> Iterator[list[str]]:
    """Rounds in which no two ids are of the same array."""
    rounds: list[list[str]] = []
    seen: dict[str, int] = {}
    for job in dict.fromkeys(jobs):
        turn = seen.get(_number(job), 0)
        seen[_number(job)] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(job)
    return iter(rounds)


def torque() -> PBS:
    """The dialect of Torque."""
    return PBS(torque=True)
