"""Databases that an experiment runs: started, found again, watched, and told about."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from ..client.options import Route
from ..database.address import Address
from ..database.config import NodeConfig, checkpoint_path, config_path, report_of
from ..database.server import RunningDatabase, Shard
from ..entities import Orchestrator
from ..errors import AsimError, ConfigError, DatabaseError, EntityExistsError, MissingFileError, allowed
from ..generate import replaced
from ..plan import DatabasePlan, JobSpec
from ..status import JobState
from .files import remove_aside, shown
from .group import JobGroup
from .job import Job

if TYPE_CHECKING:
    from ..agent.protocol import FileAction

LOG = logging.getLogger("asim")
HEALTH_PERIOD = 2.0
"""Seconds between two looks at a running database."""
MARGIN = 15.0
"""Seconds that starting a node may take, beyond what its server is given."""
HEARD_WITHIN = 5.0
"""Seconds in which the launcher hears that a job runs whose program has spoken."""
MISSES = 3
"""Looks at a database of another process without an answer, after which it counts as gone."""


class Deployments:
    """The databases of one experiment.

    :param files: does file actions where jobs run.
    :param submit: starts jobs.
    :param stop: stops jobs and waits for their ends.
    :param spawn: starts an owned task.
    :param read: what files have in them, where jobs run; b"" for one that is not there.
    :param route: what leads to an address where jobs run from here; None: addresses are reached as they are.
    :param announce: publishes that a job which still runs is in this condition, in words.
    """

    def __init__(
        self,
        files: Callable[[Sequence[FileAction]], Awaitable[None]],
        submit: Callable[[Sequence[JobSpec]], Awaitable[list[Job]]],
        stop: Callable[[Sequence[Job]], Awaitable[None]],
        spawn: Callable[..., None],
        announce: Callable[[Job, str], None],
        read: Callable[[Sequence[str]], Awaitable[list[bytes]]],
        route: Route | None,
    ) -> None:
        self._read, self._route = read, route
        self._files, self._submit, self._stop, self._spawn, self._announce = files, submit, stop, spawn, announce
        self.running: dict[Orchestrator, RunningDatabase] = {}
        self._foreign: dict[Orchestrator, JobState] = {}  # how those of other processes are
        self._jobs: dict[Orchestrator, Sequence[Job]] = {}

    @property
    def usable(self) -> dict[Orchestrator, RunningDatabase]:
        """Those of which no shard has ended."""
        return {
            orchestrator: database
            for orchestrator, database in self.running.items()
            if not any(job.status.terminal for job in self._jobs.get(orchestrator, ()))
        }

    @property
    def addresses(self) -> list[Address]:
        """How they are reached."""
        return [database.address for database in self.usable.values()]

    @property
    def foreign(self) -> Mapping[Orchestrator, JobState]:
        """Those that another process started, and how they are."""
        return self._foreign

    # -- starting

    async def deploy(self, plans: Sequence[DatabasePlan]) -> list[Job]:
        """Start databases, all at once; returns when all can be used.

        :raises DatabaseError: one could not be started; none of them runs then.
        """
        started: list[list[Job]] = [[] for _ in plans]
        errors: list[Exception] = []

        async def one(plan: DatabasePlan, jobs: list[Job]) -> None:
            try:
                await self._deploy(plan, jobs)
            except Exception as exc:  # noqa: BLE001  (raised below, when the others have come to rest)
                errors.append(exc)

        async with anyio.create_task_group() as group:
            for plan, jobs in zip(plans, started, strict=True):
                group.start_soon(one, plan, jobs)
        everything = [job for jobs in started for job in jobs]
        if errors:
            await self._stop(everything)
            raise errors[0]
        return everything

    async def _deploy(self, plan: DatabasePlan, jobs: list[Job]) -> None:
        config = replace(plan.config, run=secrets.token_hex(8), secret=secrets.token_hex(32))
        path = config_path(config.directory, config.name)
        await self._files(replaced(path, config.to_json(), 0o600))
        jobs += await self._submit(plan.jobs)
        shards = await self._reports(config, jobs)
        _check_reachable(config, shards)
        checkpoint = checkpoint_path(config.directory, config.name)
        database = RunningDatabase(config.name, shards, config.secret, checkpoint, _stale(config), self._route)
        try:
            if config.node_ids:
                from ..database.cluster import form

                await form(database, config, config.deadline)
            await self._files(replaced(checkpoint, database.to_json(), 0o600))
        except BaseException:
            await database.aclose()
            raise
        self._jobs[plan.database] = jobs
        self._up(plan.database, database)
        self._spawn(self._watch, plan.database, database, jobs)

    async def _reports(self, config: NodeConfig, jobs: Sequence[Job]) -> list[Shard]:
        """What the nodes say, once all have spoken.

        :raises DatabaseError: one said why it cannot, or ended, or said nothing in time.
        """
        paths = [config.report(number) for number in range(len(config.ports) or 1)]
        try:
            return await self._wait_for_reports(config, jobs, paths)
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(AsimError):
                await self._files([("remove", path) for path in paths])

    async def _wait_for_reports(self, config: NodeConfig, jobs: Sequence[Job], paths: Sequence[str]) -> list[Shard]:
        pause, patience, heard = 0.002, anyio.current_time() + config.deadline + MARGIN, float("inf")
        while True:
            ended = [job for job in jobs if job.status.terminal]
            found = [report_of(data, config.run) for data in await self._read(paths)]
            for number, report in enumerate(found):
                if report and "error" in report:
                    with anyio.move_on_after(MARGIN):
                        await jobs[number % len(jobs)].wait()  # else it would be told as CANCELLED
                    raise DatabaseError(f"database {config.name}: {report['error']}")
            heard = min(heard, anyio.current_time() + HEARD_WITHIN) if all(found) else heard
            queued = any(job.status in (JobState.NEW, JobState.PENDING) for job in jobs)
            if all(found) and (not queued or anyio.current_time() > heard):  # a job whose program has spoken runs
                return [Shard.of(f"{config.name}_{n}", report) for n, report in enumerate(found) if report]
            if ended:
                words = shown((await self._read([str(ended[0].stderr)]))[0])
                raise DatabaseError(f"database {config.name}: {ended[0].name} ended: {ended[0].reason}. {words}")
            if queued:
                patience = anyio.current_time() + config.deadline + MARGIN  # in a queue; its time has not begun
            if anyio.current_time() > patience:
                raise DatabaseError(f"database {config.name}: not ready within {config.deadline + MARGIN:g} s")
            await anyio.sleep(pause)
            pause = min(pause * 1.3, 0.1)

    # -- watching

    def _up(self, orchestrator: Orchestrator, database: RunningDatabase) -> None:
        orchestrator._handle = database
        self.running[orchestrator] = database

    async def _down(self, orchestrator: Orchestrator, database: RunningDatabase, lives_on: bool = False) -> None:
        if self.running.get(orchestrator) is database:
            del self.running[orchestrator]
            await database.aclose()
            if orchestrator._handle is database and not lives_on:
                orchestrator._handle = None

    async def _watch(self, orchestrator: Orchestrator, database: RunningDatabase, jobs: Sequence[Job]) -> None:
        """Until the first shard ends: tell what is wrong with any of them, and when it no longer is."""
        group, ailments = JobGroup(jobs, jobs[0]._control), [""] * len(database.shards)
        try:
            while not group._finished:
                with anyio.move_on_after(HEALTH_PERIOD):
                    await group._another()
                    break
                ailments = self._tell(jobs, ailments, [shard.words for shard in await database.health()])
        finally:
            with anyio.CancelScope(shield=True):
                await self._down(orchestrator, database)

    def _tell(self, jobs: Sequence[Job], before: list[str], now: list[str]) -> list[str]:
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            job = jobs[number % len(jobs)]
            if old != new and not job.status.terminal:
                LOG.log(logging.WARNING if new else logging.INFO, "%s: %s", job.name, new or "is well again")
                self._announce(job, new or "is well again")
        return now

    def note(self, database: RunningDatabase, words: str) -> None:
        """Publish something to know about a database that this experiment started."""
        for orchestrator, running in self.running.items():
            jobs = self._jobs.get(orchestrator, ())
            if running is database and jobs and not jobs[0].status.terminal:
                self._announce(jobs[0], words)

    # -- those of other processes

    async def reconnect(self, checkpoint: str, launcher: str) -> Orchestrator:
        """A database that another process started.

        :raises MissingFileError: there is no such file.
        :raises ConfigError: it is something else.
        :raises DatabaseError: the database does not run any more.
        """
        try:
            data = (await self._read([checkpoint]))[0]
        except OSError as exc:
            raise ConfigError(allowed("checkpoint", checkpoint, f"cannot be read: {exc.strerror}")) from exc
        if not data:
            raise MissingFileError(allowed("checkpoint", checkpoint, "no such file"))
        database = RunningDatabase.from_json(checkpoint, data, self._route)
        if any(database.identifier == other.identifier for other in self.usable.values()):
            what = "a database of this name is running in this experiment"
            raise EntityExistsError(allowed("db_identifier", database.identifier, what))
        dead = [shard.words for shard in await database.settled() if not shard.answers]
        if dead:
            await database.aclose()
            words = dead[0]
            raise DatabaseError(f"database {database.identifier} of {checkpoint} is not alive: {words}")
        orchestrator = Orchestrator(
            os.path.dirname(checkpoint),
            database.shards[0].port,
            launcher=launcher,
            db_nodes=len(database.shards),
            db_identifier=database.identifier,
        )
        self._up(orchestrator, database)
        self._foreign[orchestrator] = JobState.RUNNING
        self._spawn(self._watch_from_afar, orchestrator, database)
        return orchestrator

    async def _watch_from_afar(self, orchestrator: Orchestrator, database: RunningDatabase) -> None:
        misses = 0
        try:
            while misses < MISSES and self.running.get(orchestrator) is database:
                await anyio.sleep(HEALTH_PERIOD)
                misses = 0 if all(shard.answers for shard in await database.health()) else misses + 1
            if misses:
                self._foreign[orchestrator] = JobState.LOST
                LOG.warning("database %s does not answer any more", database.identifier)
        finally:
            with anyio.CancelScope(shield=True):
                await self._down(orchestrator, database)

    async def shut_down(self, orchestrator: Orchestrator) -> None:
        """End a database of another process."""
        database = self.running.get(orchestrator)
        if database is not None:
            await database.shut_down()
            self._foreign[orchestrator] = JobState.CANCELLED
            await self._down(orchestrator, database)

    async def aclose(self, detached: bool) -> None:
        """Let go of all: those that are jobs of this experiment are stopped as jobs, unless they are ``detached``."""
        for orchestrator, database in list(self.running.items()):
            await self._down(orchestrator, database, detached or orchestrator in self._foreign)


def _check_reachable(config: NodeConfig, shards: Sequence[Shard]) -> None:
    """Loopback addresses are of no use to other hosts.

    :raises DatabaseError: shards on several hosts have them.
    """
    hosts = {shard.host for shard in shards}
    if len(hosts) > 1 and any(shard.ip.startswith("127.") for shard in shards):
        what = f"its shards are on {', '.join(sorted(hosts))}, and listen where no other host reaches them"
        raise DatabaseError(f"database {config.name}: " + allowed("interface", config.interfaces, what))


def _stale(config: NodeConfig) -> Callable[[], Awaitable[None]]:
    homes = [config.shard_directory(number) for number in range(len(config.ports))]

    async def remove() -> Any:
        await to_thread.run_sync(remove_aside, homes)

    return remove
