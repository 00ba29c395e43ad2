"""One experiment at work: the pass down, from entities to a launcher, and the end of it all."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import anyio

from ..config import Config
from ..database.planning import tell_applications
from ..entities import Model, Orchestrator
from ..errors import AgentError, AsimError, DatabaseError
from ..launchers.base import Capabilities, JobKey, Launcher
from ..plan import Context, JobSpec, LaunchPlan
from ..planner import refuse_busy
from ..transport.far import FarHost
from .deployment import Deployments
from .events import EventStream
from .files import read_files
from .group import JobGroup, fail_fast_ensembles
from .holder import Holder
from .intake import Intake, slices
from .job import Job
from .journal import Diary, new_token
from .making import Maker
from .monitor import Monitor
from .owner import Owner
from .planning import Exist, plan_generate, plan_start, plan_upload
from .preload import Preloader
from .written import Written

LOG = logging.getLogger("asim")
OnExit = Literal["stop", "wait", "detach"]


class Session:
    """The runtime of one Experiment. Implements :class:`~asim.runtime.job.Control` for the handles.

    :param launcher: makes the launcher for this run, told its token.
    :param far: the host where jobs run, if it is not this one.
    """

    def __init__(
        self,
        name: str,
        path: str,
        config: Config,
        capabilities: Capabilities,
        launcher: Callable[[str], Launcher],
        grace: float,
        max_concurrent: int | None = None,
        far: FarHost | None = None,
    ) -> None:
        self.name, self.path, self.config, self.capabilities = name, path, config, capabilities
        self.token = new_token()
        self.owner = Owner()
        self.monitor = Monitor(self._submit, self.owner.start_soon, self._cancel)
        self._maker = Maker(path, self.token)
        diary = Diary(name, path, self.token)
        self._grace, self._max_concurrent = grace, max_concurrent
        self._holder = Holder(
            name, lambda: launcher(self.token), self.monitor, self.owner, diary, grace, capabilities.patience
        )
        self._intake = Intake(self.monitor, self._holder, diary)
        self.far = far
        self.written = Written(far)
        self.route = far.route if far else None
        read = far.read if far else read_files
        soon, stop, announce = self.owner.start_soon, self.monitor.stop, self.monitor.announce
        self.databases = Deployments(self._holder.files, self._start, stop, soon, announce, read, self.route)
        self._preloader = Preloader(self.databases)
        self._survivors: set[Job] = set()
        self._ended: anyio.Event | None = None
        self.detached = False

    @property
    def host(self) -> str:
        """Where jobs run."""
        return self._holder.host

    # -- planning

    def context(self) -> Context:
        """What planning must know of this experiment."""
        return Context(
            name=self.name,
            path=self.path,
            cwd=self.config.cwd,
            work=self.path if self.far else "",
            capabilities=self.capabilities,
            token=self.token,
            python=self.config.python,
            environ=self.config.environ,
            grace=self._grace,
            max_concurrent=self._max_concurrent,
            databases=self.databases.addresses,
            uploaded=self._preloader.uploaded,
            busy=self.monitor.busy,
            known=self.monitor.latest.keys(),
        )

    async def plan_start(self, entities: Sequence[Any]) -> LaunchPlan:
        """What ``start`` would do with these entities."""
        return await plan_start(self.context(), self.config, entities, await self.connect())

    async def preview(self, entities: Sequence[Any]) -> LaunchPlan:
        """The same, with what jobs would be told of the databases that run now."""
        plan = await self.plan_start(entities)
        await self._tell(plan)
        return plan

    async def _tell(self, plan: LaunchPlan) -> None:
        for _ in tell_applications(plan, self.databases.addresses):
            await anyio.lowlevel.checkpoint()

    async def connect(self) -> Exist | None:
        """Connect to the far host; how directories are looked for there. None: jobs run on this machine."""
        if self.far is None:
            return None
        await self.owner.run(self._holder.opened)
        return self.far.exist

    # -- doing

    async def generate(self, entities: Sequence[Any], *, tag: str, overwrite: bool, strict_tags: bool) -> LaunchPlan:
        """Plan and make directories; see ``Experiment.generate``."""
        plan = await plan_generate(
            self.context(),
            self.config,
            entities,
            await self.connect(),
            tag=tag,
            overwrite=overwrite,
            strict_tags=strict_tags,
        )
        await self.owner.run(lambda: self._execute(plan))
        return plan

    async def launch(self, entities: Sequence[Any], *, fail_fast: bool) -> JobGroup:
        """Plan, generate, journal, submit; returns when everything is accepted.

        Cancellation: before the submit nothing has happened, and uploads are given up; after it the jobs are cancelled, as
        nobody received them.
        """
        plan = await self.plan_start(entities)
        uploading = anyio.CancelScope()
        try:
            group, _ = await self.owner.run(lambda: self._launch(plan, fail_fast, uploading), self._unwanted)
        except BaseException:
            uploading.cancel()  # it may take long, and nobody waits for it any more
            raise
        return group

    async def _unwanted(self, started: tuple[JobGroup, list[Job]]) -> None:
        group, shards = started
        await self.monitor.stop(group.jobs)
        await self.monitor.stop(shards)

    async def _launch(
        self, plan: LaunchPlan, fail_fast: bool, uploading: anyio.CancelScope
    ) -> tuple[JobGroup, list[Job]]:
        names = {spec.name for spec in (*plan.jobs, *(spec for database in plan.databases for spec in database.jobs))}
        refuse_busy(names & self.monitor.busy)  # another start may have come first since the plan was made
        self.monitor.busy |= names
        try:
            await self._execute(plan)
            shards = await self.databases.deploy(plan.databases)
            try:
                await self._tell(plan)
                with uploading:
                    await self._preloader.upload(plan.uploads)
                if uploading.cancelled_caught:
                    raise AsimError("the start was cancelled")
                return await self._launch_applications(plan, fail_fast), shards
            except BaseException:
                await self.monitor.stop(shards)  # nobody would know that they run
                raise
        except BaseException:
            self.monitor.busy -= names - {job.name for job in self.monitor.unfinished}
            raise

    async def _launch_applications(self, plan: LaunchPlan, fail_fast: bool) -> JobGroup:
        jobs: list[Job] = []
        for specs in slices(plan.jobs):
            jobs += [Job(spec, self.monitor.new_key(), self) for spec in specs]
            await anyio.lowlevel.checkpoint()
        group = JobGroup(jobs, self, fail_fast=fail_fast)
        fail_fast_ensembles(jobs, self)
        await self._intake.accept(jobs)
        return group

    async def _start(self, specs: Sequence[JobSpec]) -> list[Job]:
        """Start the shards of a database."""
        jobs = [Job(spec, self.monitor.new_key(), self) for spec in specs]
        await self._intake.accept(jobs)
        return jobs

    async def _execute(self, plan: LaunchPlan) -> None:
        launcher = await self._holder.opened()
        for warning in plan.warnings:
            LOG.warning("%s", warning)
        await self._maker.execute(launcher, plan)

    async def _submit(self, jobs: Sequence[Job]) -> None:
        await self._intake.submit(jobs)

    async def _cancel(self, keys: Sequence[JobKey]) -> None:
        await self._holder.cancel(keys)

    # -- handles ask this

    async def cancel(self, jobs: Sequence[Job]) -> None:
        if self.detached and not all(job.status.terminal for job in jobs):
            raise AgentError("the experiment ended and left these jobs running")
        if not self._holder.closed:
            await self.owner.run(lambda: self.monitor.stop(jobs))

    async def upload(self, database: Orchestrator, objects: Sequence[Any], *, replace: bool) -> None:
        """See ``Experiment.upload``."""
        running = self.databases.usable.get(database)
        if running is None:
            raise DatabaseError(f"database {database.name} is not running in experiment {self.name}")
        uploads = await plan_upload(self.context(), running.identifier, objects, replace=replace)
        await self._preloader.upload({running.identifier: uploads}, replace=replace)

    async def reconnect(self, checkpoint: str) -> Orchestrator:
        """See ``Experiment.reconnect_orchestrator``."""
        path = os.path.join(self.path if self.far else self.config.cwd, checkpoint)
        await self.connect()  # so that a far host can be asked
        return await self.owner.run(lambda: self.databases.reconnect(path, self.capabilities.launcher))

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
                await self.monitor.work_done()
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
        await self._holder.shut()
        self.monitor.close()
        with anyio.move_on_after(self._holder.patience):
            async with self._maker.working:  # what was begun is finished
                await self._holder.write_decided()
        live, survivors = self.monitor.live, self._survivors if interrupted else set()
        kept = [job for job in live if job in survivors]
        shards = [job for job in live if job.is_database]
        keep: Sequence[JobKey] | Literal["all"] = [JobKey(job.key) for job in (*kept, *(shards if kept else ()))]
        if on_exit == "detach" and live:
            keep = "all"
        elif shards or self.far is not None:  # databases go last; what comes back from afar must be complete
            with anyio.move_on_after(self._holder.patience):
                await self.monitor.stop([job for job in live if not job.is_database and job not in survivors])
        await self.databases.aclose(detached=bool(keep))
        await self.written.bring_home(self.monitor.jobs, os.path.join(self.config.cwd, self.name))
        await self._holder.let_go(keep)
        if keep:
            self.detached = True
            self.monitor.release()
        else:
            with anyio.move_on_after(self._holder.patience):
                await self.monitor.idle()
