"""What is known of the members of batch jobs, and what follows from it. Pure: time and evidence come in, verdicts go out.

Evidence, strongest first: the files that members leave (:mod:`asim.settings.script`), the accounting, the queue.
A member that says that it was killed by a signal is not believed to have failed by itself until the scheduler has
had a chance to say why (walltime, a lost node, a cancel). That a job is in no answer proves nothing for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from ..status import JobState
from ._members import BatchJob, Member
from ._told import end_of, start_of
from .base import JobKey, JobStatus

SETTLE = 2.0
"""Seconds that a member's file may come after the scheduler's word that the job has ended (a shared file system)."""
HELD = 20.0
"""Seconds after which a member that was killed in a job that goes on counts as failed."""
JUDGE = 30.0
"""Seconds that the accounting is waited for once it was asked; then the files and the queue decide."""
Evidence = list[tuple[JobKey, JobStatus]]


class Tracker:
    """All batch jobs of one experiment that have not ended.

    :param lost_after: seconds without a trace after which a job is LOST.
    :param on_over: called with each job when all of its members have ended.
    """

    def __init__(self, lost_after: float, on_over: Callable[[BatchJob], None] = lambda _: None) -> None:
        self._lost_after, self._on_over = lost_after, on_over
        self._jobs: dict[str, BatchJob] = {}
        self._members: dict[JobKey, Member] = {}
        self._early: dict[JobKey, list[tuple[str, str]]] = {}

    def expect(self, keys: Iterable[JobKey]) -> None:
        """These are about to be submitted: they may tell of themselves before the scheduler has said that it took them."""
        self._early.update((key, []) for key in keys)

    def forget(self, keys: Iterable[JobKey]) -> None:
        """They were not."""
        for key in keys:
            self._early.pop(key, None)

    def add(self, job: str, keys: Sequence[JobKey], tasks: Sequence[str] = (), now: float = 0.0) -> Evidence:
        """A submit was accepted; returns what its members have told already.

        :param tasks: ids of an array's tasks, in the order of the keys.
        """
        alone = bool(tasks) or len(keys) == 1
        members = {key: Member(key, job, alone) for key in keys}
        self._jobs[job] = BatchJob(job, members, dict(zip(tasks, members.values(), strict=True)) if tasks else {})
        self._members |= members
        return self.files([file for key in keys for file in self._early.pop(key, ())], now)

    def jobs(self) -> list[str]:
        """The ids of which something is not known yet."""
        return list(self._jobs)

    def has(self, key: JobKey) -> bool:
        """Whether this one is here and has not ended."""
        return key in self._members

    def __len__(self) -> int:
        return len(self._members)

    @property
    def keys(self) -> list[JobKey]:
        """The members that have not ended."""
        return list(self._members)

    def to_cancel(self, keys: Collection[JobKey], when: float) -> tuple[list[str], list[JobKey]]:
        """How these are stopped: ids of jobs and tasks for the scheduler, and members whose script must be told. What tells
        of an end before ``when``, in seconds since the epoch, was not stopped.
        """
        wanted = {key: member for key in keys if (member := self._members.get(key))}
        ids: list[str] = []
        told: list[JobKey] = []
        for job in dict.fromkeys(member.job for member in wanted.values()):
            found = self._jobs[job]
            if found.members.keys() <= wanted.keys():
                ids.append(job)
            elif found.tasks:
                ids += [task for task, member in found.tasks.items() if member.key in wanted]
            else:
                told += [key for key in found.members if key in wanted]
        for member in wanted.values():
            member.asked = when
        return ids, told

    def give_up(self, words: str, keep: Collection[JobKey] | Literal["all"]) -> Evidence:
        """Of all others nothing more will be learnt.

        :param words: why, with ``{job}`` for the id of a member's job.
        """
        members = [] if keep == "all" else [m for key, m in self._members.items() if key not in keep]
        out: Evidence = []
        for member in members:
            lost = JobStatus(JobState.LOST, 0.0, reason=words.replace("{job}", member.job))
            out += self._conclude(member) if member.held or member.verdict else self._end(member, lost)
        return out

    def never_started(self, keys: Iterable[JobKey]) -> Evidence:
        """Those of these that wait in the queue: they will find that they are not to start."""
        found = [member for key in keys if (member := self._members.get(key)) and self._waits(member)]
        end = JobStatus(JobState.CANCELLED, 0.0, reason="stopped before it started")
        return [row for member in found for row in self._end(member, end)]

    def unstarted(self, keys: Iterable[JobKey]) -> tuple[list[JobKey], list[JobKey]]:
        """What waits in the queue: tasks of arrays (Slurm has nothing to say of those that are cancelled then), others."""
        waiting = [member for key in keys if (member := self._members.get(key)) and self._waits(member)]
        tasks = [member.key for member in waiting if self._jobs[member.job].tasks]
        return tasks, [member.key for member in waiting if not self._jobs[member.job].tasks]

    def _waits(self, member: Member) -> bool:
        running = member.started_at is not None or (member.said and member.said[0] is JobState.RUNNING)
        return not running if self._jobs[member.job].tasks else self._jobs[member.job].waiting

    def files(self, found: Iterable[tuple[str, str]], now: float) -> Evidence:
        """New files of members: name and text.

        :param now: monotonic time in seconds.
        """
        out: Evidence = []
        for name, text in sorted(found, key=lambda row: row[0].endswith(".end")):
            key, _, rest = name.partition(".")
            number, _, kind = rest.partition(".")
            if not (key.isdigit() and number.isdigit()):
                continue
            member = self._members.get(JobKey(int(key)))
            if member is not None:
                out += self._started(member, int(number), text, now) if kind == "start" else []
                out += self._ended(member, int(number), text, now) if kind == "end" else []
            elif (early := self._early.get(JobKey(int(key)))) is not None:
                early.append((name, text))
        return out

    def _started(self, member: Member, number: int, text: str, now: float) -> Evidence:
        if number < member.run:
            return []
        member.run, member.started_at, member.held, member.said = number, now, None, None
        self._jobs[member.job].waiting = False
        return [(member.key, start_of(text))]

    def _ended(self, member: Member, number: int, text: str, now: float) -> Evidence:
        end = end_of(text)
        if end is None:
            return []
        if not (end.killed or (member.asked and member.alone and member.started_at is not None)):
            status, after = end.status, member.asked and end.status.time >= member.asked
            because = after and status.code is not None and status.state is not JobState.TIMEOUT
            return self._end(member, _stopped(status) if because else status)
        if number < member.run:
            return []  # it is run again; one that ended by itself would not be
        member.run, member.held, member.held_at = number, end.status, now
        known = member.verdict is not None and member.judged  # else the accounting is asked
        return self._conclude(member) if known or (member.asked and not member.alone) else []

    def statuses(
        self, found: Mapping[str, JobStatus], asked: Iterable[str], posed: float, now: float, final: bool
    ) -> Evidence:
        """An answer about jobs and tasks.

        :param asked: the ids that it was to be about.
        :param posed: when the question was: the answer may be as old as that.
        :param final: it is the judge's.
        """
        out: Evidence = []
        for job in [self._jobs[name] for name in asked if name in self._jobs]:
            rows = [(member, found[task]) for task, member in job.tasks.items() if task in found]
            if job.id in found:
                known = {member.key for member, _ in rows}
                rest = [member for member in job.members.values() if member.key not in known]
                whole = found[job.id]  # of an array: what holds for the tasks that have not begun
                rows += [(m, whole) for m in rest if m.started_at is None or not job.tasks or whole.state.terminal]
            if rows:
                job.seen_at = posed
            seen = {member.key for member, _ in rows}
            for member in job.members.values():  # tasks that were cancelled while they waited may be gone by themselves
                if member.key in seen:
                    member.missed_at = None
                elif not final:
                    member.missed_at = now if member.missed_at is None else member.missed_at
                    member.gone_at = now
            for member, status in rows:
                if member.key in self._members:
                    out += self._status(member, status, posed, now, final)
            if rows:
                queued = (JobState.NEW, JobState.PENDING)
                job.waiting = all(status.state in queued and member.started_at is None for member, status in rows)
        return out

    def _status(self, member: Member, status: JobStatus, posed: float, now: float, final: bool) -> Evidence:
        if not status.state.terminal:
            if not final:  # the queue has taken an end back: it runs again
                member.verdict, member.judged, member.doubted_at = None, False, None
            if status.state is JobState.PENDING and member.started_at is not None:
                if final or posed <= member.started_at + SETTLE:
                    return []  # the answer is older than the start
                member.started_at, member.held, member.run = None, None, member.run + 1
            said, member.said = member.said, (status.state, status.reason)
            return [(member.key, status)] if member.said != said else []  # thousands may wait, and nothing changes
        if member.verdict is None:
            member.verdict_at = now
        said_all = status.state is not JobState.FAILED  # of other ends there is no more to know
        member.verdict, member.judged = status, member.judged or final or said_all
        return []

    def doubtful(self, now: float) -> list[str]:
        """Jobs that the accounting is to be asked about now: ended, or gone, and nothing has said how."""
        members = self._members.values()
        found = [m for m in members if m.missed_at is not None or (self._ripe(m, now) and not m.judged)]
        for member in found:
            member.doubted_at = now if member.doubted_at is None else member.doubted_at
        return list(dict.fromkeys(member.job for member in found))

    def judged(self, jobs: Iterable[str]) -> None:
        """The accounting was asked about these; there is nothing more to be learnt about their ends."""
        for job in [self._jobs[name] for name in jobs if name in self._jobs]:
            for member in job.members.values():
                member.judged = True

    def settle(self, now: float) -> Evidence:
        """What the passing of time decides."""
        out: Evidence = []
        for member in list(self._members.values()):
            seen_since = self._jobs[member.job].seen_at > member.held_at
            goes_on = not member.verdict and now > member.held_at + HELD and seen_since
            known = member.judged or (member.doubted_at is not None and now >= member.doubted_at + JUDGE)
            if (self._ripe(member, now) and known) or (member.held and goes_on):
                out += self._conclude(member)
            elif member.missed_at is not None:
                out += self._missing(member, member.gone_at - member.missed_at)
        return out

    def _missing(self, member: Member, since: float) -> Evidence:
        """No answer has mentioned it for so many seconds."""
        if member.asked and since >= (SETTLE if member.judged else JUDGE):
            return self._conclude(member)
        if since < self._lost_after:
            return []
        if member.held or member.verdict:
            return self._conclude(member)
        words = f"job {member.job} is in no answer of the scheduler any more, and nothing tells how it ended"
        return self._end(member, JobStatus(JobState.LOST, 0.0, reason=words))

    def due(self, now: float) -> float:
        """Seconds until :meth:`settle` or :meth:`doubtful` may have something new."""
        known = [member for member in self._members.values() if member.verdict]
        times = [m.verdict_at + SETTLE for m in known if m.judged or now < m.verdict_at + SETTLE]
        times += [m.doubted_at + JUDGE for m in known if m.doubted_at is not None and not m.judged]
        return max(0.05, min(times) - now) if times else 3600.0

    def _ripe(self, member: Member, now: float) -> bool:
        if member.verdict is None:
            return False
        never_began = member.verdict.state is JobState.CANCELLED and member.started_at is None
        return never_began or member.held is not None or now >= member.verdict_at + SETTLE

    def _conclude(self, member: Member) -> Evidence:
        """The scheduler's word, and the member's own if it was killed."""
        verdict, held = member.verdict, member.held
        if member.asked and held and (held.code or 0) >= 0:  # it ended by itself, before the stop came or because of it
            after = verdict is not None and verdict.state is JobState.CANCELLED
            return self._end(member, _stopped(held) if after else held)
        if member.asked and (verdict is None or verdict.state in (JobState.FAILED, JobState.LOST)):
            return self._end(member, _stopped(held or (verdict or JobStatus(JobState.LOST, 0.0))._replace(code=None)))
        if verdict is None:
            return self._end(member, held) if held else []
        if member.asked and verdict.state is JobState.CANCELLED:
            verdict = verdict._replace(reason="stopped")
        if held is not None:
            same = verdict.code is not None and (verdict.code >= 0 or verdict.code == held.code)
            # above 128 it is the script's word for this one
            code = verdict.code if (verdict.code or 1) < 0 else held.code
            ours = verdict.state is JobState.COMPLETED or (verdict.state is JobState.FAILED and same)
            return self._end(member, held if ours else verdict._replace(code=code))
        if verdict.state is JobState.FAILED and not member.alone and (verdict.code or 0) > 0:
            words = f"its batch job ended with exit code {verdict.code}, and nothing tells how this member did"
            return self._end(member, JobStatus(JobState.LOST, verdict.time, reason=words))
        return self._end(member, verdict)

    def _end(self, member: Member, status: JobStatus) -> Evidence:
        del self._members[member.key]
        job = self._jobs[member.job]
        del job.members[member.key]
        if not job.members:
            del self._jobs[member.job]
            self._on_over(job)
        return [(member.key, status)]


def _stopped(end: JobStatus) -> JobStatus:
    return JobStatus(JobState.CANCELLED, end.time, end.code, "stopped")
