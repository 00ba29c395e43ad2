"""The Experiment: what people touch. Thin: it makes entities, and passes on to the runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from .config import Config
from .databases import Databases
from .entities import DBNode, Ensemble, Entity, Orchestrator, models_of
from .entities.names import check_name
from .errors import AsimError, ConfigError, ConfigTypeError, allowed
from .factories import Factories
from .launchers.base import Launcher
from .launching import Launching, far_host
from .outputs import Outputs
from .status import JobState
from .tables import table
from .units import Seconds, seconds
from .values import check_text

if TYPE_CHECKING:
    from .plan import LaunchPlan
    from .runtime.events import EventStream
    from .runtime.group import JobGroup
    from .runtime.job import Job
    from .runtime.session import OnExit, Session
    from .transport.options import SSHOptions

LOG = logging.getLogger("asim")
STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
Params = Mapping[str, object] | str | Sequence[str] | None


class Experiment(Factories, Databases, Outputs):
    """One study: a name, a directory, a launcher, and everything that was started in it.

    Use it as ``async with Experiment(...) as exp``, or create it and ``await exp.aclose()`` at the end. It may be
    entered in one task and used from many of the same event loop; several may live side by side.

    :param name: also the name of its directory.
    :param exp_path: its directory; default ``<current directory>/<name>``. Created when it is first needed.
    :param launcher: "local", "slurm", "pbs", "pals", "lsf", "sge", or "auto" for what this machine has; the name of a
        launcher that another package brings; or an object of your own, see :class:`asim.launchers.base.Launcher`.
    :param max_concurrent: how many jobs may run at once; the others wait in order. None: no limit, as coupled jobs may
        wait for each other.
    :param on_exit: what :meth:`aclose` does with jobs that still run: "stop" them, "wait" for them (if the body ended by
        an exception they are stopped), or "detach": leave them running, their ends recorded in the directory.
    :param stop_grace: seconds between SIGTERM and SIGKILL.
    :param min_poll: least seconds between two queries of a workload manager. One is made for all jobs, after half the time
        that has passed since anything changed.
    :param max_poll: most seconds between two queries.
    :param host: run everything on another machine, reached by SSH: ``user@host``, or a name of the SSH config file. The
        experiment's directory is there, by default ``~/<name>``; attached files are taken from here.
    :param ssh: how it is reached, see :class:`~asim.SSHOptions`.
    :raises ConfigError: naming the field, the value, and what is allowed.
    """

    def __init__(
        self,
        name: str,
        exp_path: str | os.PathLike[str] | None = None,
        launcher: str | Launcher = "local",
        *,
        max_concurrent: int | None = None,
        on_exit: OnExit = "stop",
        stop_grace: Seconds = STOP_GRACE,
        min_poll: Seconds = 1.0,
        max_poll: Seconds = 30.0,
        host: str | None = None,
        ssh: SSHOptions | None = None,
    ) -> None:
        self.name = check_name("Experiment: name", name)
        self.config = Config.from_env()
        if exp_path is not None and not isinstance(exp_path, (str, os.PathLike)):
            raise ConfigTypeError(allowed("exp_path", exp_path, "must be a path (str or os.PathLike)"))
        given = check_text("exp_path", os.fspath(exp_path)) if exp_path is not None else name
        far = far_host(name, given, host, ssh)
        self.exp_path = far.directory if far else os.path.normpath(os.path.join(self.config.cwd, given or name))
        self._launching = Launching.of(launcher, max_concurrent, on_exit, stop_grace, min_poll, max_poll, far)
        self._session: Session | None = None
        self._closed = self._interrupted = False

    # -- life

    async def __aenter__(self) -> Self:
        if self._launching.far is not None:
            self.exp_path = await self._launching.far.resolve()
        self._runtime()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = exc is not None and (self._interrupted or not isinstance(exc, Exception))
        await self._end(failed=exc is not None, interrupted=interrupted)

    async def aclose(self) -> None:
        """End the experiment: what still runs is stopped, waited for or left alone, as ``on_exit`` says.

        Returns when everything that was to end is gone, grandchildren too. Calling it again does nothing.
        Cancellation: stopping goes on in the agent, also if the whole driver ends; only the waiting is cut short.
        """
        await self._end(failed=False, interrupted=False)

    async def _end(self, *, failed: bool, interrupted: bool) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.aclose(self._launching.on_exit, failed=failed, interrupted=interrupted)

    def _runtime(self) -> Session:
        """The runtime, made when it is first needed (in the event loop that then owns it)."""
        if self._closed and self._session is None:
            raise AsimError(f"experiment {self.name} is closed")
        if self._session is None:
            from .runtime.session import Session

            how = self._launching
            if self.exp_path.startswith("~"):
                raise AsimError(f"experiment {self.name} is on another host: use it as `async with`, which connects")
            self._session = Session(
                self.name, self.exp_path, how.config(self.config), how.capabilities, self._launcher, how.grace,
                how.max_concurrent, how.far,
            )  # fmt: skip
        return self._session

    def _launcher(self, token: str) -> Launcher:
        return self._launching.make(self._launching.config(self.config), self.exp_path, token)

    # -- doing

    async def generate(
        self,
        *entities: Entity,
        tag: str = ";",
        overwrite: bool = False,
        verbose: bool = False,
        strict_tags: bool = False,
    ) -> None:
        """Make the directories of entities, with their attached files copied, linked and configured.

        Each entity's directory (an ensemble's with all members in it) appears completely or not at all.
        ``asim_params.json`` and ``asim_params.txt`` in the experiment's directory tell the parameters of each.

        :param tag: the delimiter of tags in files to configure.
        :param overwrite: replace directories that exist.
        :param verbose: log what was configured at level INFO.
        :param strict_tags: tags that name no parameter, and parameters that nothing uses, are errors, not warnings.
        :raises EntityExistsError: a directory exists and ``overwrite`` is False, or two entities have one name.
        :raises MissingFileError: an attached file does not exist.
        :raises TemplateError: a file to configure is binary, or with ``strict_tags`` something was left over.
        :raises FileActionError: the file system refused; what was there before is there still.
        Cancellation: what was begun is finished.
        """
        plan = await self._runtime().generate(entities, tag=tag, overwrite=overwrite, strict_tags=strict_tags)
        for unit in plan.units:
            for model, _ in unit.models:
                level = logging.INFO if verbose else logging.DEBUG
                LOG.log(level, "configured %s with %s", model.name, model.params)

    async def start(
        self,
        *entities: Entity,
        block: bool = True,
        summary: bool = False,
        kill_on_interrupt: bool = True,
        check: bool = False,
        fail_fast: bool = False,
    ) -> JobGroup:
        """Start entities, all at once; what has attached files and was not generated is generated first.

        Databases come first, and what follows waits until they can be used; nothing waits for their end.

        :param block: wait until all (but databases) have ended; else return when all are accepted.
        :param summary: log first what is being started.
        :param kill_on_interrupt: when this call is cancelled while it waits (Ctrl-C, a timeout), stop the jobs. False
            leaves them running, also when the driver then ends.
        :param check: raise when a job did not complete (with ``block``).
        :param fail_fast: when one of these jobs fails, cancel the others.
        :returns: the handles, in the order of the entities; none of databases.
        :raises ConfigError: something could never work; nothing was written or started then.
        :raises FileActionError: a directory could not be made.
        :raises DatabaseError: a database could not be started; nothing else was started then.
        :raises JobFailed: with ``check``.
        Cancellation: before the jobs are accepted they are cancelled, as nobody has their handles; see also
        ``kill_on_interrupt``.
        """
        session = self._runtime()
        if summary:
            LOG.info("%s", self._launch_summary(entities))
        group = await session.launch(entities, fail_fast=fail_fast)
        if not kill_on_interrupt:
            session.survive(group)
        if block:
            await self._finish(group, kill_on_interrupt)
            if check:
                group.check()
        return group

    async def _finish(self, group: JobGroup, kill_on_interrupt: bool) -> None:
        import anyio

        try:
            await group.wait()
        except BaseException:
            if kill_on_interrupt:
                with anyio.CancelScope(shield=True):
                    await group.cancel()
            else:
                self._interrupted = True
            raise

    def _launch_summary(self, entities: Sequence[Any]) -> str:
        lines = ["=== Launch Summary ===", f"Experiment: {self.name}", f"Experiment Path: {self.exp_path}"]
        lines.append(f"Launcher: {self.launcher}")
        for entity in entities:
            size = f" ({len(entity)} members)" if isinstance(entity, Ensemble) else ""
            lines.append(f"{getattr(entity, 'type', 'Entity')}: {getattr(entity, 'name', entity)}{size}")
        return "\n".join(lines)

    async def stop(self, *entities: Entity) -> None:
        """Stop what runs of these entities, and wait until all of it is gone.

        SIGTERM to the process group, ``stop_grace`` seconds, SIGKILL. What has ended already stays as it is.

        :raises ConfigError: an entity was never started.
        :raises DatabaseError: a database that another process started refuses to end, or does not answer.
        Cancellation: the stopping goes on.
        """
        for entity in entities:  # databases that another process started are no jobs of this experiment
            if isinstance(entity, Orchestrator) and entity in self._runtime().databases.foreign:
                await self._runtime().databases.shut_down(entity)
                entities = tuple(other for other in entities if other is not entity)
        await self._runtime().cancel(list(dict.fromkeys(self._jobs(entities))))

    async def preview(
        self,
        *entities: Entity,
        verbosity_level: Literal["info", "debug", "developer"] = "info",
        output_format: Literal["plain_text", "json"] = "plain_text",
        output_filename: str | os.PathLike[str] | None = None,
    ) -> LaunchPlan:
        """Show exactly what ``start`` would do; nothing is written or started.

        :param verbosity_level: "info": of an ensemble the first and last member; "debug": all; "developer": all, with
            environments.
        :param output_filename: write to this file (never over another: ``name_01`` …) instead of standard output.
        :returns: the plan itself.
        """
        from .preview import as_text, check_options
        from .runtime.files import write_new

        check_options(verbosity_level, output_format)
        plan = await self._runtime().preview(entities)
        text = as_text(plan, verbosity_level, output_format)
        if output_filename is None:
            print(text, end="")  # noqa: T201  (that is what it is for)
        else:
            from anyio import to_thread

            await to_thread.run_sync(write_new, Path(self.config.cwd, output_filename), text)
        return plan

    # -- looking and waiting

    @overload
    def _jobs(self, entities: Sequence[Entity]) -> list[Job]: ...
    @overload
    def _jobs(self, entities: Sequence[Entity], missing: None) -> list[Job | None]: ...
    def _jobs(self, entities: Sequence[Entity], missing: object = ...) -> Any:
        """The latest job of every model; ``missing=None`` gives None for one that was never started."""
        found: list[Job | None] = []
        for entity in entities:
            for model in models_of(entity):
                job = self._session.monitor.latest.get(model) if self._session else None
                if job is None and missing is not None:
                    raise ConfigError(allowed("entities", model.name, "was never started in this experiment"))
                found.append(job)
        return found

    def finished(self, entity: Entity) -> bool:
        """Whether a model, or every member of an ensemble, has ended.

        :raises ConfigError: it was never started.
        """
        return all(job.status.terminal for job in self._jobs([entity]))

    def get_status(self, *entities: Entity) -> list[JobState]:
        """The states, in the order of the arguments; of an ensemble one per member, of a database one per shard.

        NEW: never started.
        """
        foreign = self._session.databases.foreign if self._session else {}
        models = [model for entity in entities for model in models_of(entity)]
        absent = [
            foreign.get(one.database, JobState.NEW) if isinstance(one, DBNode) else JobState.NEW for one in models
        ]
        return [job.status if job else state for job, state in zip(self._jobs(entities, None), absent, strict=True)]

    async def wait(self, *entities: Entity, timeout: float | None = None) -> JobGroup:
        """Wait until these entities (none given: everything but databases) have ended.

        :param timeout: seconds; the jobs go on when it is over.
        :raises TimeoutError: not all have ended by then.
        """
        import anyio

        from .runtime.group import JobGroup

        session = self._runtime()
        jobs = self._jobs(entities) if entities else session.monitor.work
        with anyio.fail_after(timeout):
            for job in jobs:
                await job.wait()
        return JobGroup(jobs, session)

    async def poll(self, interval: float = 10, verbose: bool = True, kill_on_interrupt: bool = True) -> None:
        """Wait until everything but databases has ended, and log the states every ``interval`` seconds.

        Returns as soon as the last job ends; ``interval`` is only the period of the log.

        :param interval: seconds.
        :param kill_on_interrupt: when this call is cancelled, stop what runs.
        """
        import anyio

        period = seconds("interval", interval)
        session = self._runtime()
        jobs = session.monitor.work
        try:
            while not all(job.status.terminal for job in jobs):
                with anyio.move_on_after(period):
                    await self.wait(*(job.model for job in jobs))
                if verbose:
                    for job in jobs:
                        LOG.info("%s: %s", job.name, job.status)
        except BaseException:
            if kill_on_interrupt:
                with anyio.CancelScope(shield=True):
                    await session.cancel(jobs)
            raise

    def events(self, *, buffer: int = 10_000) -> EventStream:
        """State changes of all jobs from now on, as an async iterator; ends with the experiment.

        A slow consumer never holds anything up: of more than ``buffer`` unread events the oldest are dropped, and the
        next one says how many (``event.missed``).
        """
        return self._runtime().stream(None, buffer)

    async def history(self) -> list[dict[str, Any]]:
        """How the jobs of earlier runs in this directory ended, as their agents recorded it, oldest first.

        One dict per job: run, name, ensemble, status, returncode, reason, attempt, started_at, ended_at, pid, host, argv,
        cwd, stdout, stderr. A job whose agent still lives is RUNNING; one whose agent is gone without a record is LOST.

        With ``host=`` they are those of the directory there.

        :raises AsimError: with ``host=``, the experiment is closed, or (:class:`~asim.AgentError`) there is no link.
        """
        from .runtime.history import far_history, read_history

        far = self._launching.far
        if far is not None:
            session = self._runtime()
            await session.connect()
            return await far_history(far, session.token)
        from anyio import to_thread

        return await to_thread.run_sync(read_history, self.exp_path, self._session.token if self._session else "")

    def forget(self, *entities: Entity) -> None:
        """Let go of the ended jobs of these entities, so that a service that starts jobs for weeks does not grow.

        Their handles stay valid; ``summary``, ``get_status`` and the parameter files no longer have them. What still runs
        is kept.
        """
        models = [job.model for job in self._jobs(entities, None) if job is not None]
        if self._session is not None:
            self._session.forget(models)

    def summary(self, style: str = "github") -> str:
        """A table of everything that was started in this experiment, a row for each time.

        :param style: "github", "grid" or "plain".
        """
        headers = ["Name", "Entity-Type", "JobID", "RunID", "Time", "Status", "Returncode"]
        runs: dict[str, int] = {}
        rows = []
        for job in self._session.monitor.jobs if self._session else ():
            runs[job.name] = runs.get(job.name, -1) + 1
            elapsed = f"{job.elapsed:.4f}" if job.elapsed is not None else None
            rows.append([job.name, job.model.type, job.pid, runs[job.name], elapsed, job.status, job.returncode])
        return table(rows, headers, style)
