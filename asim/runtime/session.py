"""One experiment at work: the pass down, from entities to a launcher, and the end of it all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import anyio

from .. import generate as gen
from ..agent.protocol import FileAction
from ..config import Config
from ..entities import Ensemble
from ..errors import AgentError, AsimError, UnsupportedError, allowed
from ..launchers.base import Capabilities, JobKey, Launcher
from ..members import batch_entities, members, ungenerated, units_of
from ..plan import Context, JobSpec, LaunchPlan, Member
from ..planner import Planner, needs
from ..status import JobState
from .events import EventStream
from .group import JobGroup
from .job import Job
from .journal import Diary, new_token
from .making import Maker
from .monitor import Monitor
from .owner import Owner
from .survey import survey

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

    def _context(self) -> Context:
        busy = {job.name for job in self.monitor.latest.values() if not job.status.terminal}
        return Context(
            name=self.name,
            path=self.path,
            cwd=self.config.cwd,
            capabilities=self.capabilities,
            token=self.token,
            busy=frozenset(busy),
            known=frozenset(self.monitor.latest),
        )

    async def _planner(
        self, found: Sequence[Member], units: Sequence[gen.Unit], tag: str = ";", strict_tags: bool = False
    ) -> Planner:
        context = self._context()
        wanted = needs(context, found, units)
        facts = await survey(wanted, self.config.cwd, self.config.search_path)
        return Planner(context, facts, tag=tag, strict_tags=strict_tags)

    async def plan_start(self, entities: Sequence[Any]) -> LaunchPlan:
        """What ``start`` would do with these entities. Nothing is changed.

        :raises ConfigError: anything that could never work.
        """
        found = members(entities)
        units = units_of(self._context(), ungenerated(found))
        planner = await self._planner(found, units)
        planner.generation(units)
        for _ in planner.start(found, batch_entities(entities)):
            await anyio.lowlevel.checkpoint()
        return planner.plan

    async def plan_generate(self, entities: Sequence[Any], tag: str, overwrite: bool, strict_tags: bool) -> LaunchPlan:
        """What ``generate`` would do with these entities."""
        units = units_of(self._context(), members(entities), again=True)
        planner = await self._planner((), units, tag, strict_tags)
        planner.generation(units, overwrite)
        return planner.plan

    # -- doing

    async def generate(self, entities: Sequence[Any], *, tag: str, overwrite: bool, strict_tags: bool) -> LaunchPlan:
        """Plan and make directories; see ``Experiment.generate``."""
        plan = await self.plan_generate(entities, tag, overwrite, strict_tags)
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
        except AsimError as exc:  # nobody gets the handles: what was accepted is stopped
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
            self.monitor.submitted(jobs)
            try:
                await launcher.submit([(JobKey(job.key), job.spec) for job in jobs])
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
            self.monitor.refused(jobs, f"could not be submitted: {exc}")

    async def _cancel(self, keys: Sequence[JobKey]) -> None:
        if self._launcher is not None:
            await self._launcher.cancel(keys, self._grace)

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
        if not self._closed:
            await self.owner.run(lambda: self.monitor.stop(jobs))

    def stream(self, wanted: Callable[[Job], bool] | None, buffer: int) -> EventStream:
        return self.monitor.hub.stream(wanted, buffer)

    # -- the end

    def survive(self, jobs: Iterable[Job]) -> None:
        """These go on when the driver is interrupted."""
        self._survivors.update(jobs)

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
                await self.owner.run(lambda: self._end(on_exit, interrupted))
                await self.owner.aclose()

    async def _end(self, on_exit: OnExit, interrupted: bool) -> None:
        async with self._opening:
            self._closed = True
        self.monitor.close()
        await self._write_decided()
        survivors = [JobKey(job.key) for job in self.monitor.live if job in self._survivors] if interrupted else []
        keep: Sequence[JobKey] | Literal["all"] = "all" if on_exit == "detach" and self.monitor.live else survivors
        if self._launcher is not None:
            with anyio.move_on_after(self._grace + KILL_MARGIN):
                await self._launcher.close(keep)
        if keep:
            self.detached = True
            self.monitor.release()
        else:
            with anyio.move_on_after(self._grace + KILL_MARGIN):
                await self.monitor.idle()
            self.monitor.lost(self.monitor.live, "the experiment ended and nobody told how this job did")
        self.monitor.hub.end()
        if self._ended is not None:
            self._ended.set()


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few at a time, so that the loop is never held up for long."""
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
