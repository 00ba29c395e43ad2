"""A workload manager in memory, its language, and who asks it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from asim.errors import AgentError, SubmitError
from asim.launchers.base import JobKey, JobStatus
from asim.launchers.dialect import Batch, Command, Completed, SchedulerError
from asim.status import JobState


class FakeDialect:
    """One word for each command; answers are JSON. See :class:`asim.launchers.dialect.Dialect`."""

    name = "fake"
    index = "${TASK}"
    least, most = 1, 1000

    def __init__(self, name: str = "fake", chunk: int = 10_000) -> None:
        self.name, self.chunk = name, chunk

    def submit(self, batch: Batch) -> Command:
        return Command(("submit", batch.mark, str(batch.size)))

    def submitted(self, done: Completed) -> str:
        if done.code is None:
            raise SchedulerError(done.words(), done)
        if done.code:
            raise SubmitError(done.words(), transient="later" in done.stderr)
        return done.stdout

    def task(self, job: str, index: int) -> str:
        return f"{job}_{index}"

    def status(self, jobs: Sequence[str]) -> list[Command]:
        return [Command(("status", *jobs[at : at + self.chunk])) for at in range(0, len(jobs), self.chunk)]

    def read_status(self, done: Completed) -> Mapping[str, JobStatus]:
        if done.code != 0:
            raise SchedulerError(done.words(), done)
        return {job: JobStatus(JobState[row[0]], 0.0, row[1], row[2]) for job, row in json.loads(done.stdout).items()}

    def account(self, jobs: Sequence[str]) -> list[Command]:
        return [Command(("account", *jobs))]

    read_account = read_status

    def cancel(self, jobs: Sequence[str]) -> list[Command]:
        return [Command(("cancel", *jobs[at : at + self.chunk])) for at in range(0, len(jobs), self.chunk)]

    def cancelled(self, done: Completed) -> None:
        if done.code != 0:
            raise SchedulerError(done.words(), done, transient="never" not in done.stderr)

    def lingering(self, found: Mapping[str, JobStatus]) -> list[str]:
        return [job for job, status in found.items() if "lingers" in status.reason]

    def find(self, marks: Sequence[str]) -> list[Command]:
        return [Command(("find", *marks))]

    def find_read(self, done: Completed, marks: Sequence[str]) -> Mapping[str, str]:
        if done.code != 0:
            raise SchedulerError(done.words(), done)
        found: dict[str, str] = json.loads(done.stdout)
        return {mark: found[mark] for mark in marks if mark in found}


class Manager:
    """What the commands of :class:`FakeDialect` talk to.

    :ivar commands: all that were run.
    :ivar jobs: id of a job or a task -> what is told of it.
    :ivar taken: mark -> id.
    :ivar down: for so many commands there is no answer.
    :ivar refusals: words with which the next submits are refused; with "later" in them it may pass.
    :ivar answers_lost: of so many submits the answer does not arrive.
    :ivar submits_lost: so many submits never arrive, and have no answer.
    :ivar foreign: jobs of somebody else.
    :ivar gate: what commands wait for.
    """

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.jobs: dict[str, JobStatus] = {}
        self.taken: dict[str, str] = {}
        self.down = self.answers_lost = self.submits_lost = 0
        self.refusals: list[str] = []
        self.foreign: set[str] = set()
        self.gate: anyio.Event | None = None
        self.running = self.peak = 0

    def of(self, verb: str) -> list[tuple[str, ...]]:
        """The words of all commands of a kind."""
        return [command[1:] for command in self.commands if command[0] == verb]

    def put(self, state: JobState, *jobs: str, code: int | None = None, reason: str = "why") -> None:
        """From now on this is told of these."""
        self.jobs.update((job, JobStatus(state, 0.0, code, reason)) for job in jobs)

    async def run(self, command: Command) -> Completed:
        """Run a command."""
        self.commands.append(command.argv)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await checkpoint()
            if self.gate is not None:
                await self.gate.wait()
            code, stdout, stderr = self._do(*command.argv)
            return Completed(command.argv, code, stdout, stderr)
        finally:
            self.running -= 1

    def _do(self, verb: str, *words: str) -> tuple[int | None, str, str]:
        if self.down:
            self.down -= 1
            return 1, "", "cannot contact the fake controller; try later"
        if verb == "submit":
            return self._submit(words[0], int(words[1]))
        if verb in ("status", "account"):
            told = {job: row for job, row in self.jobs.items() if job.partition("_")[0] in words}
            return 0, json.dumps({job: [row.state.value, row.code, row.reason] for job, row in told.items()}), ""
        if verb == "cancel" and self.foreign.intersection(words):
            return 1, "", "permission denied: never"
        if verb == "cancel":
            wanted = [job for job in self.jobs if job in words or job.partition("_")[0] in words]
            self.put(JobState.CANCELLED, *(job for job in wanted if not self.jobs[job].state.terminal))
            return 0, "", ""
        return 0, json.dumps({mark: job for mark, job in self.taken.items() if mark in words}), ""

    def _submit(self, mark: str, size: int) -> tuple[int | None, str, str]:
        if self.refusals:
            return 1, "", self.refusals.pop(0)
        if self.submits_lost:
            self.submits_lost -= 1
            return None, "", "no answer in time"
        job = self.taken[mark] = str(100 + len(self.taken))
        self.put(JobState.PENDING, *([f"{job}_{number}" for number in range(size)] or [job]))
        if self.answers_lost:
            self.answers_lost -= 1
            return None, "", "no answer in time"
        return 0, job, ""


class Asker:
    """One experiment that wants news of some jobs; see :class:`asim.launchers._driver.Party`.

    :ivar ids: those.
    :ivar doubts: those of which the accounting is to be asked.
    :ivar heard: what it was told.
    :ivar posed: when what it was told was asked.
    """

    def __init__(self, manager: Manager, *ids: str) -> None:
        self.manager, self.ids, self.doubts = manager, list(ids), list[str]()
        self.heard: list[tuple[dict[str, JobState], list[str], bool]] = []
        self.posed: list[float] = []

    async def run(self, command: Command, timeout: float) -> Completed:
        assert timeout > 0
        return await self.manager.run(command)

    async def rest(self, seconds: float) -> bool:
        await anyio.sleep(seconds)
        return True

    def watched(self) -> list[str]:
        return self.ids

    def answer(self, found: Mapping[str, JobStatus], asked: Sequence[str], posed: float, final: bool) -> None:
        self.posed.append(posed)
        self.heard.append(({job: status.state for job, status in found.items()}, list(asked), final))

    def doubtful(self) -> list[str]:
        return self.doubts


class Agent:
    """The launcher of processes, and the connection to its agent, without processes.

    :ivar texts: files that were written.
    :ivar seen: directory -> who wants to hear of its files.
    """

    def __init__(self, manager: Manager, texts: dict[str, str]) -> None:
        self.manager, self.texts, self.host = manager, texts, self
        self.submitted: list[JobKey] = []
        self.stopped: list[JobKey] = []
        self.actions: list[tuple[Any, ...]] = []
        self.seen: dict[str, Any] = {}
        self.alive: list[JobKey] = []
        self.recovered = self.closed = False
        self.reached: float | None = 0.0
        self.dead: AgentError | None = None
        self.gone = anyio.Event()

    async def open(self, sink: Any, lost: Any) -> Mapping[str, object]:
        self._sink, self._lost = sink, lost
        return {"host": "here"}

    async def files(self, actions: Iterable[Any]) -> None:
        self._alive()
        for action in actions:
            self.actions.append(tuple(action))
            if action[0] == "write":
                self.texts[action[1]] = action[2]
            elif action[0] == "append":
                self.texts[action[1]] = self.texts.get(action[1], "") + action[2]

    async def submit(self, jobs: Sequence[tuple[JobKey, Any]], *, paced: bool = False) -> None:
        self._alive()
        self.submitted += [key for key, _ in jobs]
        self.alive += [key for key, _ in jobs]

    async def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        self.stopped += keys

    async def recover(self, *, again: bool = False) -> str:
        self.recovered = True
        return ""

    async def close(self, keep: object) -> None:
        self.closed = True

    def abort(self) -> None:
        self.die()

    # -- the connection

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> Completed:
        self._alive()
        done: list[Completed] = []
        async with anyio.create_task_group() as group:

            async def answer() -> None:
                done.append(await self.manager.run(Command(tuple(argv), stdin)))
                group.cancel_scope.cancel()

            group.start_soon(answer)
            await self.gone.wait()
            group.cancel_scope.cancel()
        self._alive()
        return done[0]

    def watch(self, directory: str, seconds: float, on_seen: Any) -> None:
        self._alive()
        self.seen[directory] = on_seen

    # -- the world

    def tell(self, *files: tuple[str, str]) -> None:
        """Members have left files."""
        for seen in list(self.seen.values()):
            seen(list(files))

    def die(self) -> None:
        """The agent ends, unasked."""
        self.dead = AgentError("the agent died")
        self.gone.set()
        self._lost(self.dead)

    def _alive(self) -> None:
        if self.dead is not None:
            raise self.dead
