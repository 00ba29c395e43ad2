"""The launcher of every workload manager: batch jobs through its commands, everything else as processes of the agent.

A run command (``srun``, ``mpirun`` …) that is no batch job is a process like any other: the agent starts it where the
driver (or the far end of the connection) is, and its exit is the evidence.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import anyio

from ..config import Config
from ..errors import AgentError, AsimError, FileActionError
from ._deliveries import Deliveries
from ._driver import Scheduler, shared
from ._lasting import LastingAgent
from ._notes import Notes
from ._submitting import Submitting
from .allocation import Allocation
from .base import Capabilities, JobKey, JobStatus, Sink
from .batches import Folders, Submit, submits
from .dialect import Command, Completed, SchedulerError
from .tracking import Evidence, Tracker

if TYPE_CHECKING:
    from ..agent.protocol import FileAction
    from ..plan import JobSpec
    from ..transport.connection import Host
    from .local import LocalLauncher

LOG = logging.getLogger("asim")
LOOK = 0.5
"""Seconds between two looks for the files of members."""
LOST_AFTER = 120.0
"""Seconds that a job may be in no answer before it counts as lost."""


class ScheduledLauncher:
    """See :class:`~asim.launchers.base.Launcher`.

    :param agent: makes the launcher of processes on the host where the workload manager's commands are.
    :param capabilities: with the dialect.
    :param config: the environment and the interpreter there.
    :param where: that host, as users name it; "" is this one.
    :param experiment: the experiment's directory there.
    :param run: token of this experiment's run.
    :param throttle: how many tasks of an array may run at once.
    :param grace: seconds between SIGTERM and SIGKILL of a member that is stopped alone.
    :param min_poll: least seconds between two queries.
    :param max_poll: most seconds between two queries.
    """

    def __init__(
        self,
        agent: Callable[[], LocalLauncher],
        capabilities: Capabilities,
        config: Config,
        *,
        where: str,
        experiment: str,
        run: str,
        throttle: int | None,
        grace: float,
        min_poll: float,
        max_poll: float,
        lost_after: float = LOST_AFTER,
    ) -> None:
        assert capabilities.dialect is not None
        self.name, self.capabilities = capabilities.launcher, capabilities
        self._dialect = capabilities.dialect
        self._agent = LastingAgent(agent, lambda: self._follows or bool(self._submitting.pending))
        self._stopping: set[JobKey] = set()
        self._where, self._run, self._throttle, self._grace = where, run, throttle, grace
        self._experiment, self._polls = experiment, (min_poll, max_poll)
        self._folders = Folders.of(experiment, run)
        self._deliveries = Deliveries(self.name, getattr(self._dialect, "undelivered", ""))
        self._tracker = Tracker(lost_after, self._deliveries.expect)
        self._allocation = Allocation(self.name, config, run, self._folders.scripts, grace, self._host)
        self._scheduler: Scheduler | None = None
        self._sink: Sink = lambda _: None
        self._notes = Notes(f"{experiment}/.asim/{run}.journal.jsonl", self.files)
        self._submitting = Submitting(self._tracker, self._notes, self._folders, self.files, self._accepted)
        self._news, self._ended, self._leaving = anyio.Event(), anyio.Event(), anyio.Event()
        self._keep: Collection[JobKey] | Literal["all"] = "all"
        self._closed = False

    # -- Launcher

    async def open(self, sink: Sink, lost: Callable[[AsimError], None]) -> Mapping[str, object]:
        self._sink = sink
        return await self._agent.open(sink, lost, self._wake)

    async def files(self, actions: Iterable[FileAction]) -> None:
        await self._inner.files(actions)

    async def submit(self, jobs: Sequence[tuple[JobKey, JobSpec]]) -> None:
        try:
            await self._submit(jobs)
        except AsimError:
            try:  # nobody will follow those that were accepted before
                await self.cancel([key for key, _ in jobs], self._grace)
            except AsimError as exc:
                LOG.error("%s: what was submitted beside what was refused may run on: %s", self._experiment, exc)
            raise

    async def _submit(self, jobs: Sequence[tuple[JobKey, JobSpec]]) -> None:
        kinds: dict[str, list[tuple[JobKey, JobSpec]]] = {}
        for job in jobs:
            kinds.setdefault("batch" if job[1].batch is not None else job[1].placement, []).append(job)
        if "step" in kinds:
            await self._inner.submit(kinds["step"], paced=True)
        if "agent" in kinds:
            (await self._allocation.agents(self._sink)).submit(kinds["agent"])
        if "batch" in kinds:
            await self._submit_batches(kinds["batch"], alone=len(kinds) == 1)

    async def poll(self, keys: Collection[JobKey]) -> None:
        if self._scheduler is not None:
            self._scheduler.stir()

    async def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        self._allocation.cancel(keys, grace)
        processes = [key for key in keys if not self._tracker.has(key)]
        if processes:
            self._stopping.update(processes)
            await self._inner.cancel(processes, grace)
        await self._cancel_batches(keys)

    async def _cancel_batches(self, keys: Collection[JobKey]) -> None:
        tasks, others = self._tracker.unstarted(keys)
        ids, told = self._tracker.to_cancel(keys, time.time())
        try:  # Slurm may lose a cancel that comes as it starts a job: then its file is all that keeps it from running on
            await self._submitting.call_off([*told, *tasks, *others])
        except FileActionError as exc:
            if told:
                raise
            LOG.warning("%s: waiting jobs could be cancelled, but not be told: %s", self._experiment, exc)
        else:
            self._tell(self._tracker.never_started([*told, *tasks]))
        finally:
            if ids and self._scheduler is not None:
                await self._scheduler.cancel(self, ids)

    def abort(self) -> None:
        if self._leaving.is_set():
            self._give_up("in time")
        if self._leaving.is_set() or not self._stopping.isdisjoint(self._inner.alive):  # a slow scheduler is no reason
            self._inner.abort()

    def _give_up(self, how: str) -> None:
        """Of those that should end nothing more will be learnt."""
        words = f"{self.name} could not end it {how}: job {{job}} may still run"
        self._tell(self._tracker.give_up(words, self._keep))

    @property
    def reached(self) -> float | None:
        """See :func:`asim.launchers.base.reached`."""
        return self._agent.reached

    async def recover(self) -> str:
        return await self._inner.recover()

    async def close(self, keep: Collection[JobKey] | Literal["all"]) -> None:
        self._keep = keep
        self._leaving.set()
        try:
            await self._end()
            await self._notes.write_down()
            if keep != "all":
                await self._deliveries.done()
        finally:
            self._closed = self._agent.closed = True
            self._wake()
            if self._scheduler is not None:
                self._scheduler.leave(self)
            await self._allocation.aclose()
            await self._inner.close(keep)

    async def _end(self) -> None:
        """What is not kept is cancelled, also what is being submitted, and has ended when this returns."""
        await self._submitting.call_off(mark for mark, keys in self._submitting.pending.items() if self._unwanted(keys))
        try:
            await self.cancel(self._unwanted(self._tracker.keys), self._grace)
        except SchedulerError as exc:
            self._give_up(f"({exc})")
        while (self._submitting.pending or self._unwanted(self._tracker.keys)) and self._agent.broken is None:
            await self._ended.wait()

    def _unwanted(self, keys: Iterable[JobKey]) -> list[JobKey]:
        return [] if self._keep == "all" else [key for key in keys if key not in self._keep]

    async def serve(self) -> None:
        """See :meth:`asim.launchers.base.Launcher.serve`."""
        async with anyio.create_task_group() as self._allocation.tasks:
            await self._poll()

    async def _poll(self) -> None:
        while not self._closed:
            scheduler = self._scheduler
            if scheduler is None or (not self._follows and self._agent.broken is None):
                await self._news.wait()
                continue
            try:
                await self._agent.mend()
                await scheduler.wait(self._tracker.due(anyio.current_time()))
                self._tell(self._tracker.settle(anyio.current_time()))
                if self._follows:
                    await scheduler.ask(self)
                self._tell(self._tracker.settle(anyio.current_time()))
                await self._notes.write_down()
            except AgentError as exc:
                if not self._closed and self._agent.broken is None:
                    self._agent.broken = exc
                await anyio.sleep(scheduler.min_poll)

    # -- Party

    async def run(self, command: Command, timeout: float) -> Completed:
        return await self._agent.run(command.argv, command.stdin, timeout)

    async def rest(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._leaving.wait()
        return not self._leaving.is_set()

    def watched(self) -> list[str]:
        return [*self._tracker.jobs(), *self._deliveries.jobs()]

    def answer(self, found: Mapping[str, JobStatus], asked: Sequence[str], posed: float, final: bool) -> None:
        now = anyio.current_time()
        self._tell(self._tracker.statuses(found, asked, posed, now, final))
        self._deliveries.answer(found, asked)
        if final:
            self._tracker.judged(asked)
            self._tell(self._tracker.settle(now))

    def doubtful(self) -> list[str]:
        return self._tracker.doubtful(anyio.current_time())

    # -- inside

    @property
    def _follows(self) -> bool:
        return bool(self._tracker or self._deliveries)

    @property
    def _inner(self) -> LocalLauncher:
        return self._agent.launcher

    def _host(self) -> Host:
        return self._agent.host

    async def _submit_batches(self, jobs: Sequence[tuple[JobKey, JobSpec]], *, alone: bool) -> None:
        if self._scheduler is None:
            self._scheduler = shared(self._dialect, self._where)
            self._scheduler.join(self, *self._polls)
        grace, throttle = self._grace, self._throttle
        wanted = list(submits(self._dialect, jobs, self._folders, self._run, grace=grace, throttle=throttle))
        try:
            self._sink(await self._submitting.submit(self._scheduler, self, wanted, alone=alone))
        finally:
            self._changed()
        await self._notes.write_down()

    async def _accepted(self, submit: Submit, early: Evidence) -> None:
        self._agent.watch(self._folders.ends, LOOK, self._seen)
        self._tell(early)
        self._wake()
        await self._cancel_batches(self._unwanted(submit.keys))

    def _seen(self, files: Sequence[tuple[str, str]]) -> None:
        self._tell(self._tracker.files(files, anyio.current_time()))

    def _tell(self, evidence: Sequence[tuple[JobKey, JobStatus]]) -> None:
        if not evidence:
            return
        for key, status in evidence:
            if status.state.terminal:
                self._notes.ended(key, status)
        if self._scheduler is not None and any(status.state.terminal for _, status in evidence):
            self._scheduler.stir()
        self._sink(evidence)
        self._changed()

    def _changed(self) -> None:
        self._ended.set()
        self._ended = anyio.Event()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()
