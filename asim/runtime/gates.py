"""Jobs that wait for others: what each waits for, and what the others' moves make possible or impossible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..entities import Entity, Model, models_of
from ..policies import When
from ..status import JobState
from .job import Job


class Gate:
    """``when`` for one entity: opens when all its jobs have come so far, breaks when one never can."""

    __slots__ = ("broken", "remaining", "waiting", "when")

    def __init__(self, when: When) -> None:
        self.when: When = when
        self.remaining: set[Job] = set()
        self.waiting: list[Job] = []
        self.broken = ""

    def passed(self, job: Job) -> bool | None:
        """Whether ``job`` has come so far; None: it never will."""
        if self.when == "running":
            if job._started is not None and job.status is not JobState.PENDING:
                return True
            return None if job.status.terminal else False
        if not job.status.terminal:
            return False
        return True if self.when == "ended" or job.status is JobState.COMPLETED else None


class Gates:
    """All gates of one experiment.

    :param latest: the latest job of each model.
    :ivar held: the jobs that wait, and for what.
    :ivar ready: jobs that need wait no longer, for the monitor to submit.
    :ivar doomed: jobs that can never start, for the monitor to end.
    """

    def __init__(self, latest: Mapping[Model, Job]) -> None:
        self._latest = latest
        self.held: dict[Job, list[Gate]] = {}
        self.ready: list[Job] = []
        self.doomed: list[Job] = []
        self._of: dict[Model, list[Gate]] = {}
        self._shared: dict[tuple[Entity, When], Gate] = {}

    def share_no_more(self) -> None:
        """What is held from now on gets gates of its own: the jobs of an entity may be others by now."""
        self._shared.clear()

    def hold(self, job: Job, waits: Sequence[tuple[Entity, When]]) -> None:
        """Let ``job`` wait, if something that it waits for has not happened yet."""
        gates = [gate for gate in (self._gate(entity, when) for entity, when in waits) if gate.remaining or gate.broken]
        for gate in gates:
            gate.waiting.append(job)
        if gates:
            self.held[job] = gates
        if any(gate.broken for gate in gates):
            self.doomed.append(job)

    def drop(self, job: Job) -> str | None:
        """Let ``job`` wait no longer. Why it can never start ("": it could), or None if it did not wait."""
        gates = self.held.pop(job, None)
        return None if gates is None else next((gate.broken for gate in gates if gate.broken), "")

    def moved(self, job: Job) -> None:
        """Take note that ``job`` has another state."""
        for gate in self._of.get(job.model, ()):
            self._look(gate, job)

    def _gate(self, entity: Entity, when: When) -> Gate:
        gate = self._shared.get((entity, when))
        if gate is not None and gate.remaining and not gate.broken:
            return gate
        gate = self._shared[entity, when] = Gate(when)
        for model in models_of(entity):
            gate.remaining.add(self._latest[model])
            self._of.setdefault(model, []).append(gate)
            self._look(gate, self._latest[model])
        return gate

    def _look(self, gate: Gate, job: Job) -> None:
        if job not in gate.remaining:
            return
        passed = gate.passed(job)
        if passed is False:
            return
        gate.remaining.discard(job)
        self._of[job.model] = [other for other in self._of[job.model] if other is not gate]
        if not self._of[job.model]:
            del self._of[job.model]
        if passed is None:
            gate.broken = f"it waits for {job.name} to be {gate.when}, which is {job.status}"
        if gate.remaining and not gate.broken:
            return
        for waiting in [job for job in gate.waiting if job in self.held]:
            if gate.broken:
                self.doomed.append(waiting)
            elif not any(other.remaining for other in self.held[waiting]):
                del self.held[waiting]
                self.ready.append(waiting)
