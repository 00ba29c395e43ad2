"""The local launcher: jobs are processes of this host, started and watched by one agent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import anyio

from ..agent.protocol import FileAction, ProcessSpec
from ..config import Config
from ..errors import AgentError, AsimError
from ..status import JobState
from ..transport.connection import AgentConnection, NewsRow
from ..transport.host import Agent
from ..transport.local import LocalAgent
from .base import Capabilities, JobKey, JobStatus, Sink, Usage, ended_badly

if TYPE_CHECKING:
    from ..plan import JobSpec

START_DEADLINE = 60.0
"""Seconds that an agent may take to answer; a loaded file server can make it slow."""
CAPABILITIES = Capabilities(launcher="local", batch=False, local_programs=True)
_WHY = {"stop": JobState.CANCELLED, "timeout": JobState.TIMEOUT}


class LocalLauncher:
    """See :class:`~asim.launchers.base.Launcher`.

    :param config: interpreter and environment of the agent.
    :param run: token of this experiment's run; marks its processes.
    :param records: file on the agent's host to which it writes how jobs ended.
    :param max_concurrent: how many processes may run at once; None: no limit.
    :param grace: seconds between SIGTERM and SIGKILL.
    :param detach: leave processes running when the driver vanishes.
    :param agent: how the agent is started and reached; None: a child process here.
    """

    name = "local"
    capabilities = CAPABILITIES

    def __init__(
        self,
        config: Config,
        *,
        run: str,
        records: str,
        max_concurrent: int | None,
        grace: float,
        detach: bool,
        agent: Agent | None = None,
    ) -> None:
        self._run, self._grace, self._records = run, grace, records
        self._hello: dict[str, object] = {
            "run": run,
            "cap": max_concurrent,
            "grace": grace,
            "records": records,
            "on_eof": "detach" if detach else "stop",
        }
        self._agent: Agent = agent or LocalAgent(config.python, config.environ)
        self._connection: AgentConnection | None = None
        self._leaves = False  # what runs, when the agent is gone
        self._sink: Sink = lambda _: None
        self._on_lost: Callable[[AsimError], None] = lambda _: None
        self._alive: dict[JobKey, int | None] = {}  # accepted and not ended -> pid once it is known
        self._lost: AgentError | None = None

    async def open(self, sink: Sink, lost: Callable[[AsimError], None]) -> Mapping[str, object]:
        self._sink, self._on_lost = sink, lost
        agent = self._agent
        connection = AgentConnection(self._news, self._gone)
        await agent.start(connection)
        try:
            with anyio.fail_after(START_DEADLINE):
                info = await connection.hello(**self._hello, **agent.options)
        except TimeoutError:
            agent.kill()
            await agent.close()
            raise AgentError(f"the agent did not answer within {START_DEADLINE:g} s") from None
        except AgentError as exc:
            words = await agent.last_words()
            await agent.close()
            raise AgentError(f"{exc}\n{words}" if words else str(exc)) from exc
        self._connection = connection
        return info

    async def files(self, actions: Iterable[FileAction]) -> None:
        await self._host().files(actions)

    async def submit(self, jobs: Sequence[tuple[JobKey, JobSpec]], *, paced: bool = False) -> None:
        """See :meth:`asim.launchers.base.Launcher.submit`.

        :param paced: of the run commands among them, only some are starting at the same time.
        """
        host = self._host()
        self._alive.update((key, None) for key, _ in jobs)
        try:
            await self._spawn(host, jobs, paced)
        except BaseException:
            if self._lost is None:
                host.stop([key for key, _ in jobs], self._grace)
            raise

    async def _spawn(self, host: AgentConnection, jobs: Sequence[tuple[JobKey, JobSpec]], paced: bool) -> None:
        await host.spawn(
            ProcessSpec(
                key=key,
                argv=spec.argv,
                env=spec.env,
                cwd=spec.cwd,
                stdout=spec.stdout,
                stderr=spec.stderr,
                limit=spec.timeout,
                free=spec.service,
                paced=paced and _run_command(spec),
            )
            for key, spec in jobs
        )

    async def serve(self) -> None:
        """News comes by itself."""

    async def poll(self, keys: Collection[JobKey]) -> None:
        """Every start and end is told by the agent as it happens."""

    async def cancel(self, keys: Collection[JobKey], grace: float) -> None:
        if self._lost is None:
            self._host().stop(list(keys), grace)

    def abort(self) -> None:
        if self._connection is not None and self._lost is None:
            self._lost = AgentError("the agent did not answer")
            self._agent.kill()
            self._connection.close()

    async def close(self, keep: Collection[JobKey] | Literal["all"]) -> None:
        if self._connection is None:
            return
        kept = self._alive.keys() if keep == "all" else self._alive.keys() & set(keep)
        if self._lost is None:
            try:
                await self._connection.bye(keep if keep == "all" else sorted(kept))
            finally:
                self._connection.close()  # also when nobody waits any longer: the agent then stops what is left
        try:
            if kept and self._lost is None:
                self._agent.detach()
            else:
                await self._agent.last_words()
        finally:
            await self._agent.close()

    async def recover(self, *, again: bool = False) -> str:
        """See :meth:`asim.launchers.base.Launcher.recover`.

        :param again: if it fails it is called again, so that the way to the host must stay.
        """
        if self._connection is None or self._lost is None:
            return ""
        try:
            words = await self._salvage()
            again = False
        finally:
            if not again:
                await self._agent.close()  # another one takes its place
        return words

    async def _salvage(self) -> str:
        await self._agent.last_words()
        if self._leaves:
            self._sink(lines_of(await self._agent.read(self._records)))
            return "what had not ended was left running there"
        records = b""
        with contextlib.suppress(AgentError, OSError):  # whatever is wrong with the file: what is left must be stopped
            records = await self._agent.read(self._records)  # waits for a link
        try:
            await self._agent.rescue(self._run, self._grace, [pid for pid in self._alive.values() if pid])
            records = await self._agent.read(self._records)
        finally:  # not before: what is started again because of it must not be stopped
            self._sink(lines_of(records))
        return "what it left running was stopped"

    @property
    def host(self) -> AgentConnection:
        """The connection to the agent.

        :raises AgentError: it was not started.
        """
        return self._host()

    @property
    def reached(self) -> float | None:
        """See :func:`asim.launchers.base.reached`."""
        return 0.0 if self._connection is None else self._connection.reached

    @property
    def alive(self) -> list[JobKey]:
        """The jobs that were accepted and have not ended."""
        return list(self._alive)

    # -- inside

    def _host(self) -> AgentConnection:
        if self._connection is None:
            raise AgentError("the agent was not started")
        return self._connection

    def _news(self, rows: Sequence[NewsRow]) -> None:
        evidence = [(JobKey(row[0]), status_of(row)) for row in rows]
        for key, status in evidence:
            if status.state is JobState.RUNNING:
                self._alive[key] = status.pid
            else:
                self._alive.pop(key, None)
        self._sink(evidence)

    def _gone(self, error: AgentError | None) -> None:
        self._lost = self._lost or error
        if self._lost is not None and self._connection is not None:
            self._on_lost(self._lost)


def _run_command(spec: JobSpec) -> bool:
    """Whether it starts its program by another one. Tests of launchers have jobs without a model."""
    return spec.model is not None and bool(spec.model.settings_view.run_command)


def status_of(row: Sequence[Any]) -> JobStatus:
    """One news row of the agent as evidence."""
    kind, when = row[1], row[2]
    if kind == "start":
        return JobStatus(JobState.RUNNING, when, pid=row[3])
    if kind == "error":
        return JobStatus(JobState.FAILED, when, reason=row[3])
    code, why, used = row[3:6]
    usage = Usage(used[0], used[1], used[2] * 1024) if used else None
    if why is not None:
        return JobStatus(_WHY[why], when, code, _stopped(why, code), usage=usage)
    if code == 0:
        return JobStatus(JobState.COMPLETED, when, 0, usage=usage)
    if code is None:
        return JobStatus(JobState.LOST, when, reason="its end could not be seen")
    return JobStatus(JobState.FAILED, when, code, ended_badly(code), usage=usage)


def _stopped(why: str, code: int | None) -> str:
    if why == "timeout":
        return "stopped at its time limit"
    return "stopped" if code is not None else "stopped before it started"


def rows_of(line: bytes) -> list[tuple[JobKey, JobStatus]]:
    """One line of the agent's records file as evidence; a line that was cut off has none."""
    import json

    try:
        return [(JobKey(row[0]), status_of(row)) for row in json.loads(line)]
    except (ValueError, TypeError, LookupError):
        return []


def lines_of(data: bytes) -> list[tuple[JobKey, JobStatus]]:
    """A whole records file as evidence."""
    return list(chain.from_iterable(map(rows_of, data.splitlines())))
