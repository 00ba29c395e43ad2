"""One experiment at work: the pass down, from entities to a launcher, and the end of it all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import anyio

from ..agent.protocol import FileAction
from ..config import Config
from ..entities import Ensemble, Model
from ..errors import AgentError, AsimError, UnsupportedError, allowed
from ..launchers.base import Capabilities, JobKey, Launcher
from ..plan import Context, JobSpec, LaunchPlan
from ..planner import refuse_busy
from ..status import JobState
from .events import EventStream
from .group import JobGroup
from .job import Job
from .journal import Diary, new_token
from .making import Maker
from .monitor import Monitor
from .owner import Owner
from .planning import plan_generate, plan_start

LOG = logging.getLogger("asim")
T = TypeVar("T")
OnExit = Literal["stop", "wait", "detach"]
SLICE = 256
"""Jobs dealt with between two chances for other tasks to run."""
KILL_MARGIN = 10.0
"""Seconds beyond the grace that ending may take before the driver gives up waiting for the agent."""


class Session:
    """The runtime of one Experiment. Implements :class:`~asim.runtime.job.Control` for the handles.

    :param launcher: makes the launcher for this run, told its token.
    """

    def __init__(
        self,
        name: str,
        path: str,
        config: Config,
        capabilities: Capabilities,
        launcher: Callable[[str], Launcher],
        grace: float,
    ) -> None:
        self.name, self.path, self.config, self.capabilities = name, path, config, capabilities
        self.token = new_token()
        self.host = ""
        self.owner = Owner()
        self.monitor = Monitor(self._submit, self.owner.start_soon, self._cancel)
        self._make_launcher, self._grace = launcher, grace
        self._launcher: Launcher | None = None
        self._opening = anyio.Lock()
        self._maker = Maker(path, self.token)
        self._diary = Diary(name, path, self.token)
        self._about: Mapping[str, object] = {}
        self._survivors: set[Job] = set()
        self._ended: anyio.Event | None = None
        self._closed = False
        self.detached = False

    # -- planning

    def context(self) -> Context:
        """What planning must know of this experiment."""
        return Context(
            name=self.name,
            path=self.path,
            cwd=self.config.cwd,
            capabilities=self.capabilities,
            token=self.token,
            busy=self.monitor.busy,
            known=self.monitor.latest.keys(),
        )

    async def plan_start(self, entities: Sequence[Any]) -> LaunchPlan:
        """What ``start`` would do with these entities."""
        return await plan_start(self.context(), self.config, entities)

    # -- doing

    async def generate(self, entities: Sequence[Any], *, tag: str, overwrite: bool, strict_tags: bool) -> LaunchPlan:
        """Plan and make directories; see ``Experiment.generate``."""
        plan = await plan_generate(
            self.context(), self.config, entities, tag=tag, overwrite=overwrite, strict_tags=strict_tags
        )
        await self.owner.run(lambda: self._execute(plan))
        return plan

    async def launch(self, entities: Sequence[Any], *, fail_fast: bool) -> JobGroup:
        """Plan, generate, journal, submit; returns when everything is accepted.

        Cancellation: before the submit nothing has happened; after it the jobs are cancelled, as nobody received them.
        """
        plan = await self.plan_start(entities)
        if not self.capabilities.starts:
            what = "this version knows its command texts (preview shows them) but cannot start jobs with it yet"
            raise UnsupportedError(allowed("launcher", self.capabilities.launcher, what))
        return await self.owner.run(lambda: self._launch(plan, fail_fast), self._unwanted)

    async def _unwanted(self, group: JobGroup) -> None:
        await self.monitor.stop(group.jobs)

    async def _launch(self, plan: LaunchPlan, fail_fast: bool) -> JobGroup:
        names = {spec.name for spec in plan.jobs}
        refuse_busy(names & self.monitor.busy)  # another start may have come first since the plan was made
        self.monitor.busy |= names
        try:
            return await self._launch_reserved(plan, fail_fast)
        except BaseException:
            self.monitor.busy -= names - {job.name for job in self.monitor.unfinished}
            raise

    async def _launch_reserved(self, plan: LaunchPlan, fail_fast: bool) -> JobGroup:
        await self._execute(plan)
        jobs: list[Job] = []
        for specs in _slices(plan.jobs):
            jobs += [Job(spec, self.monitor.new_key(), self) for spec in specs]
            await anyio.lowlevel.checkpoint()
        await self._journal((JobKey(job.key), job.spec, job.attempt) for job in jobs)
        group = JobGroup(jobs, self, fail_fast=fail_fast)
        self._fail_fast_ensembles(jobs)
        self.monitor.register(jobs)
        try:
            for part in _slices(jobs):
                await self._hand_over(self.monitor.admit(part))
        except Exception as exc:  # nobody gets the handles: what was accepted is stopped
            self.monitor.refused([job for job in jobs if job.status is JobState.NEW], str(exc))
            await self.monitor.stop(jobs)
            raise
        return group

    def _fail_fast_ensembles(self, jobs: Sequence[Job]) -> None:
        scopes: dict[Ensemble, list[Job]] = {}
        for job in jobs:
            if job.spec.ensemble is not None and job.spec.ensemble.fail_fast:
                scopes.setdefault(job.spec.ensemble, []).append(job)
        for its_jobs in scopes.values():
            JobGroup(its_jobs, self, fail_fast=True)

    async def _execute(self, plan: LaunchPlan) -> None:
        """Make the plan's directories and files."""
        launcher = await self._opened()
        for warning in plan.warnings:
            LOG.warning("%s", warning)
        if plan.units:
            await self._maker.make(launcher, plan)
        wanted: list[FileAction] = [("mkdirs", path) for path in plan.directories]
        wanted += [("write", path, text) for path, text in plan.files.items()]
        if wanted:
            await launcher.files(wanted)

    async def _journal(self, jobs: Iterable[tuple[JobKey, JobSpec, int]]) -> None:
        launcher = await self._opened()
        await self._diary.started(launcher, jobs)

    async def _hand_over(self, jobs: Sequence[Job]) -> None:
        if jobs:
            launcher = await self._opened()
            jobs = [job for job in jobs if not job.status.terminal]  # they may have been stopped meanwhile
            self.monitor.submitted(jobs)
            try:
                await launcher.submit([(JobKey(job.key), job.spec) for job in jobs])
                if late := [JobKey(job.key) for job in jobs if job._unwanted]:  # the stop may have overtaken them
                    await launcher.cancel(late, self._grace)
            except AsimError as exc:
                self.monitor.refused(jobs, f"could not be submitted: {exc}")
                raise

    async def _submit(self, jobs: Sequence[Job]) -> None:
        """Jobs that waited (for others, or after a failure) and may go now."""
        try:
            again = [(JobKey(job.key), job.spec, job.attempt) for job in jobs if job.attempt > 1]
            if again:
                await self._journal(again)
            await self._hand_over([job for job in jobs if not job.status.terminal])
        except AsimError as exc:
            if self.monitor.closing:
                await self.monitor.stop(jobs, "the experiment ended")
            else:
                self.monitor.refused(jobs, f"could not be submitted: {exc}")

    async def _cancel(self, keys: Sequence[JobKey]) -> None:
        launcher = self._launcher
        if launcher is not None:
            await launcher.cancel(keys, self._grace)
            self.owner.start_soon(self._watch, launcher, keys)

    async def _watch(self, launcher: Launcher, keys: Sequence[JobKey]) -> None:
        """An agent that does not tell the end of what it was asked to stop is as good as dead."""
        await anyio.sleep(self._grace + KILL_MARGIN)
        if launcher is self._launcher and self.monitor.has(keys):
            launcher.abort()

    # -- the launcher

    async def _opened(self) -> Launcher:
        async with self._opening:
            if self._closed:
                raise AgentError(f"experiment {self.name} is closed")
            if self._launcher is None:
                launcher = self._make_launcher(self.token)
                self._about = await launcher.open(self.monitor.evidence, self._lost)
                self.host = str(self._about.get("host", ""))
                self._launcher = launcher
                self._diary.introduce(launcher.name, self._about)
        return self._launcher

    def _lost(self, error: AsimError) -> None:
        """The launcher can no longer see its jobs: what it left is stopped, the next start gets a new one."""
        launcher, self._launcher = self._launcher, None
        if launcher is not None:
            LOG.error("%s: %s; stopping what it left running", self.name, error)
            self.owner.start_soon(self._recover, launcher, error)

    async def _recover(self, launcher: Launcher, error: AsimError) -> None:
        theirs = self.monitor.live
        try:
            await launcher.recover()
        except (AsimError, OSError) as exc:
            LOG.error("%s: %s", self.name, exc)
        self.monitor.lost(theirs, f"{error}; what it left running was stopped")

    async def _write_decided(self) -> None:
        """Ends that no launcher has seen are for the driver to write down."""
        decided, self.monitor.decided = self.monitor.decided, []
        if decided and self._launcher is not None:
            try:
                await self._diary.ended(self._launcher, decided)
            except AsimError as exc:
                LOG.error("%s: %s", self.name, exc)

    # -- handles ask this

    async def cancel(self, jobs: Sequence[Job]) -> None:
        if self.detached and not all(job.status.terminal for job in jobs):
            raise AgentError("the experiment ended and left these jobs running")
        if not self._closed:
            await self.owner.run(lambda: self.monitor.stop(jobs))

    def stream(self, wanted: Callable[[Job], bool] | None, buffer: int) -> EventStream:
        return self.monitor.hub.stream(wanted, buffer)

    def forget(self, models: Sequence[Model]) -> None:
        """See ``Experiment.forget``."""
        self.monitor.forget(models)
        for model in models:
            if model not in self.monitor.latest:
                self._maker.params.pop(model.name, None)

    # -- the end

    def survive(self, jobs: Iterable[Job]) -> None:
        """These go on when the driver is interrupted."""
        self._survivors = {job for job in (*self._survivors, *jobs) if not job.status.terminal}

    async def aclose(self, on_exit: OnExit, *, failed: bool = False, interrupted: bool = False) -> None:
        """End everything; see ``Experiment.aclose``."""
        if self._ended is not None:
            await self._ended.wait()
            return
        self._ended = anyio.Event()
        try:
            if on_exit == "wait" and not failed:
                await self.monitor.idle()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    if self.owner.alive:
                        await self.owner.run(lambda: self._end(on_exit, interrupted))
                    else:  # somebody cancelled the owned task: what is left to do is done here
                        await self._end(on_exit, interrupted)
                finally:
                    if not self.detached:
                        words = "the experiment ended and nobody told how this job did"
                        self.monitor.lost(self.monitor.unfinished, words)
                    self.monitor.hub.end()
                    self._ended.set()
                    await self.owner.aclose()

    async def _end(self, on_exit: OnExit, interrupted: bool) -> None:
        async with self._opening:
            self._closed = True
        self.monitor.close()
        with anyio.move_on_after(self._grace + KILL_MARGIN):
            async with self._maker.working:  # what was begun is finished
                await self._write_decided()
        survivors = [JobKey(job.key) for job in self.monitor.live if job in self._survivors] if interrupted else []
        keep: Sequence[JobKey] | Literal["all"] = "all" if on_exit == "detach" and self.monitor.live else survivors
        launcher = self._launcher
        if launcher is not None:
            with anyio.move_on_after(self._grace + KILL_MARGIN) as patience:
                await launcher.close(keep)
            if patience.cancelled_caught:
                launcher.abort()
        if keep:
            self.detached = True
            self.monitor.release()
        else:
            with anyio.move_on_after(self._grace + KILL_MARGIN):
                await self.monitor.idle()


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few at a time, so that the loop is never held up for long."""
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
