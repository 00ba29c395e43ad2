"""The launcher of workload managers, over one in memory: batch jobs to the scheduler, everything else to the agent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from asim.config import Config
from asim.errors import AsimError, FileActionError, SubmitError, UnsupportedError
from asim.launchers import tracking
from asim.launchers.base import Capabilities, JobKey, JobStatus, reached
from asim.launchers.dialect import Command, Completed, SchedulerError
from asim.launchers.scheduled import ScheduledLauncher
from asim.plan import JobSpec
from asim.settings import SbatchSettings
from asim.status import JobState
from tests.unit.makers import ensemble, planned, wlm

from .fakes import Agent, FakeDialect, Manager

pytestmark = pytest.mark.anyio

ENDS, STOPS, JOURNAL = "/w/exp/.asim/t.ends", "/w/exp/.asim/t.stops", "/w/exp/.asim/t.journal.jsonl"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of members do not come late here."""
    monkeypatch.setattr(tracking, "SETTLE", 0.1)


class World:
    """A launcher, what it talks to, and what it said.

    :ivar texts: the files of that host.
    :ivar agents: all that were started.
    """

    def __init__(
        self,
        manager: Manager | None = None,
        token: str = "t",
        dialect: FakeDialect | None = None,
        polls: tuple[float, float] = (0.01, 0.05),
    ) -> None:
        self.manager = manager or Manager()
        self.texts: dict[str, str] = {}
        self.agents: list[Agent] = []
        self.said: list[tuple[JobKey, JobStatus]] = []
        self.lost: list[AsimError] = []
        self.launcher = ScheduledLauncher(
            self._agent,  # type: ignore[arg-type]
            Capabilities(launcher="fake", batch=True, dialect=dialect or FakeDialect()),
            Config(environ={}, cwd="/w", python="python3"),
            where="",
            experiment="/w/exp",
            run=token,
            throttle=None,
            grace=1,
            min_poll=polls[0],
            max_poll=polls[1],
        )

    def _agent(self) -> Agent:
        self.agents.append(Agent(self.manager, self.texts))
        return self.agents[-1]

    @property
    def agent(self) -> Agent:
        """The one that lives."""
        return self.agents[-1]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        """The launcher while it serves."""
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                await self.launcher.open(self.said.extend, self.lost.append)
                group.start_soon(self.launcher.serve)
                yield self
                await self.launcher.close("all")

    def ends(self) -> dict[int, JobState]:
        """How jobs ended."""
        return {key: status.state for key, status in self.said if status.state.terminal}

    def journal(self) -> list[dict[str, Any]]:
        """What was written down."""
        return [json.loads(line) for line in self.texts.get(JOURNAL, "").splitlines()]


def jobs(pack: Any = "job", count: int = 3, first: int = 1, **kwargs: Any) -> list[tuple[JobKey, JobSpec]]:
    """The members of an ensemble; pack=None: not in a batch job."""
    if pack is not None:
        kwargs |= {"batch_settings": SbatchSettings(), "pack": pack}
    specs = planned(ensemble(f"e{first}", replicas=count, **kwargs), context=wlm("slurm")).jobs
    return [(JobKey(first + number), spec) for number, spec in enumerate(specs)]


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is true (the test's deadline is the world's)."""
    while not true():
        await anyio.sleep(0.005)


# -- submitting


async def test_processes_and_batch_jobs() -> None:
    """What is in no batch job is the agent's; what is, is submitted, with its script in its place."""
    async with World().open() as world:
        await world.launcher.submit([*jobs(None, 2), *jobs("job", 2, first=3)])
        assert world.agent.submitted == [1, 2]
        assert world.manager.of("submit") == [("t.3", "0")]
        script = world.texts["/w/exp/.asim/t.3.sh"]
        assert [line.split()[1] for line in script.splitlines() if line.startswith("asim_member ")] == ["3", "4"]
        write = next(row for row in world.agent.actions if row[0] == "write")
        assert write[3] == 0o700
        made = [row[1] for row in world.agent.actions[: world.agent.actions.index(write)]]
        assert made == ["/w/exp/.asim", ENDS, STOPS]
        assert world.said == []


async def test_without_batch_jobs_the_scheduler_is_left_alone() -> None:
    """Processes cost no command of the workload manager."""
    async with World().open() as world:
        await world.launcher.submit(jobs(None))
        await world.launcher.cancel([JobKey(1)], 3)
        await world.launcher.poll([JobKey(1)])
        assert world.agent.stopped == [1]
        await world.launcher.close(())
        assert world.manager.commands == []


async def test_a_thousand_members() -> None:
    """An array of 1000 is one submit, and one query about it at a time."""
    async with World().open() as world:
        await world.launcher.submit(jobs("array", 1000))
        await until(lambda: len(world.manager.of("status")) == 3)
        assert world.manager.of("submit") == [("t.1", "1000")]
        assert set(world.manager.of("status")) == {("100",)}
        assert {status.state for _, status in world.said} == {JobState.PENDING}
        assert len({key for key, _ in world.said}) == 1000


async def test_two_experiments_ask_once() -> None:
    """Two experiments with the same workload manager share its queries, and hear each of their own jobs only."""
    manager = Manager()
    async with World(manager).open() as first, World(manager, "u").open() as second:
        await first.launcher.submit(jobs("array", 2))
        await second.launcher.submit(jobs("job", 1))
        await until(lambda: ("100", "101") in manager.of("status") or ("101", "100") in manager.of("status"))
        manager.put(JobState.RUNNING, "100_1")
        await until(lambda: (2, JobState.RUNNING) in [(key, status.state) for key, status in first.said])
        assert {key for key, _ in second.said} == {1}
        assert {status.state for _, status in second.said} == {JobState.PENDING}


async def test_some_are_refused() -> None:
    """Where some of several submits are refused, those alone fail, with the scheduler's words."""
    async with World().open() as world:
        world.manager.refusals = ["no such queue"]
        await world.launcher.submit(jobs("separate", 3))
        assert world.ends() == {1: JobState.FAILED}
        assert "could not be submitted" in world.said[0][1].reason and "no such queue" in world.said[0][1].reason
        assert world.launcher._tracker.keys == [2, 3]


async def test_all_are_refused() -> None:
    """Where all submits are refused, that is an error, and nobody is waited for."""
    async with World().open() as world:
        world.manager.refusals = ["no such queue"] * 3
        with pytest.raises(SubmitError, match="no such queue"):
            await world.launcher.submit(jobs("separate", 3))
        assert (world.ends(), world.launcher._tracker.keys) == ({}, [])


async def test_batch_jobs_are_refused_beside_processes() -> None:
    """Processes that were taken go on when all batch jobs beside them are refused; these fail alone."""
    async with World().open() as world:
        world.manager.refusals = ["no such queue"]
        await world.launcher.submit([*jobs(None, 1), *jobs("job", 2, first=2)])
        assert world.ends() == {2: JobState.FAILED, 3: JobState.FAILED}
        assert (world.agent.submitted, world.agent.stopped) == ([1], [])


async def test_called_off() -> None:
    """A submit that nobody knows of is called off: should it have been taken after all, its script finds the mark."""
    async with World().open() as world:
        world.manager.submits_lost = 1
        with pytest.raises(SubmitError, match="does not say whether it was submitted"):
            await world.launcher.submit(jobs("job"))
        assert world.texts[f"{STOPS}/t.1"] == ""
        assert world.launcher._tracker.keys == []


async def test_found_again() -> None:
    """A submit whose answer was lost is followed as any other, and made once."""
    async with World().open() as world:
        world.manager.answers_lost = 1
        await world.launcher.submit(jobs("job", 1))
        assert len(world.manager.of("submit")) == 1
        world.agent.tell(("1.0.start", "5 node 7\n"), ("1.0.end", "0 6 \n"))
        assert world.ends() == {1: JobState.COMPLETED}


# -- evidence


async def test_files_of_members() -> None:
    """What members tell is evidence at once, and a job of which all is known is asked about no more."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 2))
        assert list(world.agent.seen) == [ENDS]
        world.agent.tell(("1.0.start", "5.5 node7 4711\n"), ("1.0.end", "3 6.5 \n"), ("2.0.end", "0 7.5 \n"))
        assert world.said[-3:] == [
            (1, JobStatus(JobState.RUNNING, 5.5, pid=4711, host="node7")),
            (1, JobStatus(JobState.FAILED, 6.5, 3, "exit code 3")),
            (2, JobStatus(JobState.COMPLETED, 7.5, 0)),
        ]
        await until(lambda: len(world.journal()) == 3)
        asked = len(world.manager.commands)
        await anyio.sleep(0.2)
        assert len(world.manager.commands) <= asked + 1


async def test_files_that_come_before_the_submits_answer() -> None:
    """A member may tell of itself while its submit is still being answered: it is heard nevertheless."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 1))
        world.manager.gate = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(world.launcher.submit, jobs("job", 1, first=2))
            await until(lambda: ("t.2", "0") in world.manager.of("submit"))
            world.agent.tell(("2.0.start", "5 node 7\n"), ("2.0.end", "0 6 \n"))
            assert world.ends() == {}
            world.manager.gate.set()
        assert world.ends() == {2: JobState.COMPLETED}


async def test_the_schedulers_word() -> None:
    """A job without files ends as the scheduler says, after its accounts were asked."""
    async with World().open() as world:
        await world.launcher.submit(jobs("array", 2))
        world.manager.put(JobState.FAILED, "100_0", code=9, reason="FAILED: exit code 9")
        world.manager.put(JobState.RUNNING, "100_1")
        await until(world.ends)
        assert world.said[-1][1].state is not JobState.LOST
        assert (JobKey(1), JobStatus(JobState.FAILED, 0.0, 9, "FAILED: exit code 9")) in world.said
        assert world.manager.of("account")
        assert world.ends() == {1: JobState.FAILED}


@pytest.mark.slow
async def test_an_answer_that_is_slower_than_the_start() -> None:
    """A member that starts while the answer that it waits is on its way has not been run again: its death counts."""
    async with World().open() as world:
        answers, run = anyio.Event(), world.manager.run

        async def slow(command: Command) -> Completed:
            done = await run(command)
            if command.argv[0] == "status":
                await answers.wait()
            return done

        world.manager.run = slow  # type: ignore[method-assign]
        await world.launcher.submit(jobs("job", 1))
        await until(lambda: world.manager.of("status"))
        world.agent.tell(("1.0.start", "5 node 7\n"))
        await anyio.sleep(3 * tracking.SETTLE)  # longer than what may be late
        world.manager.put(JobState.FAILED, "100", code=-11, reason="FAILED: killed by SIGSEGV")
        answers.set()
        world.agent.tell(("1.0.end", "139 6 \n"))
        await until(world.ends)
        ended = JobStatus(JobState.FAILED, 6.0, -11, "killed by SIGSEGV")
        assert [status for _, status in world.said] == [JobStatus(JobState.RUNNING, 5.0, pid=7, host="node"), ended]


@pytest.mark.slow
async def test_the_accounting_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that the queue told the end of ends so, though the accounting never answers, and nobody is kept awake."""
    monkeypatch.setattr(tracking, "JUDGE", 1.0)

    class Down(FakeDialect):
        def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
            raise SchedulerError("cannot contact the accounts", done)

    looks = 0
    settle = tracking.Tracker.settle

    def counted(self: tracking.Tracker, now: float) -> tracking.Evidence:
        nonlocal looks
        looks += 1
        return settle(self, now)

    monkeypatch.setattr(tracking.Tracker, "settle", counted)
    async with World(dialect=Down("down"), polls=(0.2, 0.4)).open() as world:
        await world.launcher.submit(jobs("job", 1))
        world.manager.put(JobState.FAILED, "100", reason="NODE_FAIL: a node was lost")
        await until(world.ends)
        assert world.said[-1] == (1, JobStatus(JobState.FAILED, 0.0, None, "NODE_FAIL: a node was lost"))
        assert looks < 25  # two for each query; they would be 40
        assert world.manager.of("account")


class Late(FakeDialect):
    """Output is put in place after the end."""

    undelivered = "NOT DELIVERED"


@pytest.mark.parametrize("closes", [True, False])
async def test_output_that_was_not_delivered(closes: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A job whose member has told its end is asked about until the scheduler has, and no longer."""
    async with World(dialect=Late("late")).open() as world, anyio.create_task_group() as group:
        await world.launcher.submit(jobs("job", 1))
        world.manager.put(JobState.RUNNING, "100")
        world.agent.tell(("1.0.start", "5 node 7\n"), ("1.0.end", "0 6 \n"))
        assert world.ends() == {1: JobState.COMPLETED}
        asked = len(world.manager.of("status"))
        if closes:
            group.start_soon(world.launcher.close, ())
        await until(lambda: len(world.manager.of("status")) > asked + 1)
        assert (world.agent.closed, caplog.messages) == (False, [])
        world.manager.put(JobState.COMPLETED, "100", code=0, reason="NOT DELIVERED: to /x")
        await until(lambda: caplog.messages)
        assert caplog.messages == ["fake job 100: NOT DELIVERED: to /x"]
        await until(lambda: world.agent.closed == closes)
        asked = len(world.manager.of("status"))
        await anyio.sleep(0.2)
        assert (len(world.manager.of("status")), world.ends()) == (asked, {1: JobState.COMPLETED})


async def test_journal() -> None:
    """The journal has each batch job with its members as soon as it is taken, and each end, with code and time."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 2))
        submitted = {"batch": "100", "launcher": "fake", "script": "/w/exp/.asim/t.1.sh", "keys": [1, 2]}
        assert world.journal() == [submitted]
        world.agent.tell(("1.0.end", "4 6.5 \n"))
        ended = {"ended": 1, "status": "FAILED", "reason": "exit code 4", "time": 6.5, "code": 4}
        await until(lambda: len(world.journal()) > 1)
        assert world.journal() == [submitted, ended]


# -- stopping


async def test_cancel() -> None:
    """Processes by the agent, jobs and tasks by one command, members of a packed job by their stop files."""
    async with World().open() as world:
        await world.launcher.submit(
            [*jobs(None, 1), *jobs("job", 2, first=10), *jobs("array", 2, first=20), *jobs("job", 2, first=30)]
        )
        world.agent.tell(*((f"{key}.0.start", "5 node 7\n") for key in (10, 11, 20, 21, 30, 31)))
        await world.launcher.cancel([JobKey(key) for key in (1, 10, 11, 21, 30)], 3)
        assert world.agent.stopped == [1]
        assert world.manager.of("cancel") == [("100", "101_1")]
        assert [path for path in world.texts if path.startswith(STOPS)] == [f"{STOPS}/30"]
        assert world.ends() == {}
        world.agent.tell(("30.0.end", "143 9 \n"))
        await until(lambda: len(world.ends()) == 4)
        assert world.ends() == dict.fromkeys((10, 11, 21, 30), JobState.CANCELLED)


async def test_cancel_in_the_queue() -> None:
    """A member of a packed job that waits is cancelled at once, and its script will leave it alone; now is when."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 2))
        await world.launcher.cancel([JobKey(2)], 3)
        assert world.ends() == {2: JobState.CANCELLED}
        assert world.said[-1][1].time == 0.0
        assert (f"{STOPS}/2" in world.texts, world.manager.of("cancel")) == (True, [])
        await world.launcher.cancel([JobKey(1)], 3)
        assert world.manager.of("cancel") == [("100",)]


async def test_cancel_as_it_starts() -> None:
    """A job that has told of no start is told not to, too: the scheduler's signal may come before there is a process."""
    async with World().open() as world:
        await world.launcher.submit(jobs("separate", 2))
        await world.launcher.cancel([JobKey(1), JobKey(2)], 3)
        assert {path for path in world.texts if path.startswith(STOPS)} == {f"{STOPS}/1", f"{STOPS}/2"}
        assert world.manager.of("cancel") == [("100", "101")]
        assert world.ends() == {}


async def test_cancel_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler is asked to cancel, though the members' scripts cannot be told."""
    async with World().open() as world:
        await world.launcher.submit(jobs("separate", 1))

        async def files(actions: object) -> None:
            raise FileActionError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(world.agent, "files", files)
            await world.launcher.cancel([JobKey(1)], 3)
        assert world.manager.of("cancel") == [("100",)]
        assert world.ends() == {}


async def test_close_while_something_is_submitted() -> None:
    """What the scheduler has taken, but not answered, when the experiment ends is called off at once, and cancelled."""
    async with World().open() as world:
        world.manager.gate = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(world.launcher.submit, jobs("separate", 1))
            await until(lambda: world.manager.of("submit"))
            group.start_soon(world.launcher.close, [])
            await until(lambda: any(path.startswith(f"{STOPS}/t.") for path in world.texts))
            assert not world.agent.closed
            world.manager.gate.set()
        assert world.manager.of("cancel") == [("100",)]
        assert world.ends() == {1: JobState.CANCELLED}
        assert world.agent.closed


async def test_close_while_a_submit_is_tried_again() -> None:
    """A refusal that may pass is not waited for when the experiment ends."""
    async with World().open() as world:
        world.manager.refusals = ["later"] * 1000
        async with anyio.create_task_group() as group:

            async def submit() -> None:
                with pytest.raises(SubmitError, match="later"):
                    await world.launcher.submit(jobs("separate", 1))

            group.start_soon(submit)
            await until(lambda: len(world.manager.of("submit")) > 1)
            await world.launcher.close([])


async def test_close_when_the_scheduler_stays_away() -> None:
    """What could not be cancelled is LOST, in words that do not say that it was stopped."""
    async with World().open() as world:
        await world.launcher.submit(jobs("separate", 1))
        assert world.launcher._scheduler is not None
        world.launcher._scheduler.patience, world.manager.down = 0.1, 10**6
        await world.launcher.close([])
        (status,) = [status for _, status in world.said if status.state.terminal]
        assert status.state is JobState.LOST
        assert status.reason.endswith("job 100 may still run")


async def test_close_that_takes_too_long() -> None:
    """When nobody waits any longer for the scheduler, it is told in the same words."""
    async with World().open() as world:
        await world.launcher.submit(jobs("separate", 1))
        world.manager.down = 10**6
        with anyio.move_on_after(0.1):
            await world.launcher.close([])
        world.launcher.abort()
        world.agent.dead = None  # for what follows here
        (status,) = [status for _, status in world.said if status.state.terminal]
        assert (status.state, status.reason) == (JobState.LOST, "fake could not end it in time: job 100 may still run")


async def test_refused_beside_accepted() -> None:
    """When a start is refused, what it had started already is stopped."""
    async with World().open() as world:
        with pytest.raises(UnsupportedError, match="inside an allocation"):
            await world.launcher.submit([*jobs(None, 1), *jobs(None, 1, first=2, placement="agent")])
        assert world.agent.submitted == [1]
        assert 1 in world.agent.stopped


async def test_close_waits_for_the_ends() -> None:
    """Closing stops what is not to be kept, and returns when the scheduler has said so, with all of it in the journal."""
    async with World().open() as world:
        await world.launcher.submit([*jobs("job", 2), *jobs("separate", 2, first=5)])
        world.manager.put(JobState.RUNNING, "100", "101", "102")
        await world.launcher.close([JobKey(6)])
        assert world.ends() == dict.fromkeys((1, 2, 5), JobState.CANCELLED)
        assert world.manager.of("cancel") == [("100", "101")]
        assert {row["ended"] for row in world.journal() if "ended" in row} == {1, 2, 5}
        assert world.agent.closed


async def test_close_and_keep_all() -> None:
    """Detaching stops nothing, and what was learnt is written down."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 2))
        world.agent.tell(("1.0.end", "0 6 \n"))
        await world.launcher.close("all")
        assert world.manager.of("cancel") == []
        assert [row["ended"] for row in world.journal() if "ended" in row] == [1]
        asked = len(world.manager.commands)
        await anyio.sleep(0.1)
        assert len(world.manager.commands) == asked


# -- the agent dies


async def test_batch_jobs_outlive_the_agent() -> None:
    """The processes of an agent that dies are lost; another is started, and follows the batch jobs to their end."""
    async with World().open() as world:
        await world.launcher.submit([*jobs(None, 1), *jobs("job", 2, first=2)])
        first = world.agent
        first.die()
        await until(lambda: world.agent is not first and world.agent.seen)
        assert (first.recovered, world.lost) == (True, [])
        assert world.ends() == {1: JobState.LOST}
        lost = [status for key, status in world.said if key == 1][-1]
        assert lost.reason == "the agent died"
        world.agent.tell(("2.0.end", "0 6 \n"))
        world.manager.put(JobState.TIMEOUT, "100", reason="TIMEOUT: x")
        await until(lambda: len(world.ends()) == 3)
        assert world.ends() == {1: JobState.LOST, 2: JobState.COMPLETED, 3: JobState.TIMEOUT}
        assert len(world.manager.of("submit")) == 1


async def test_an_agent_whose_link_is_cut_cannot_be_reached() -> None:
    """A scheduler's launcher can be reached when the agent that it has now can be."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 1))
        assert reached(world.launcher) == 0.0
        world.agent.reached = None
        assert reached(world.launcher) is None
        first = world.agent
        first.die()
        await until(lambda: world.agent is not first and world.agent.seen)
        assert reached(world.launcher) == 0.0
        world.agent.reached = 7.0
        assert reached(world.launcher) == 7.0


async def test_the_agent_dies_during_a_query() -> None:
    """A query that the agent's death interrupts is made again by the next agent."""
    async with World().open() as world:
        await world.launcher.submit(jobs("job", 1))
        first, world.manager.gate = world.agent, anyio.Event()
        await until(lambda: world.manager.running)
        first.die()
        await until(lambda: world.agent is not first and world.agent.seen)
        world.manager.gate.set()
        world.manager.put(JobState.COMPLETED, "100", code=0, reason="")
        await until(world.ends)
        assert (world.ends(), world.lost) == ({1: JobState.COMPLETED}, [])


async def test_the_agent_dies_without_batch_jobs() -> None:
    """Where there is nothing that could go on, the runtime is told, as with any launcher."""
    async with World().open() as world:
        await world.launcher.submit(jobs(None, 1))
        world.agent.die()
        assert [str(error) for error in world.lost] == ["the agent died"]
        await world.launcher.recover()
        assert (len(world.agents), world.agent.recovered) == (1, True)


async def test_the_agent_dies_during_a_submit() -> None:
    """Another agent looks for what was perhaps submitted: what is there is watched, and what is not is called off."""
    async with World().open() as world:
        gate = world.manager.gate = anyio.Event()
        first = world.agent
        async with anyio.create_task_group() as group:
            group.start_soon(world.launcher.submit, jobs("separate", 2))
            await until(lambda: world.manager.running == 2)
            marks = [words[0] for words in world.manager.of("submit")]
            first.die()
            await until(lambda: world.agent is not first)
            world.manager.taken[marks[0]] = "100"
            world.manager.put(JobState.RUNNING, "100")
            gate.set()
        await until(lambda: 2 in world.ends())
        assert (world.ends(), world.lost) == ({2: JobState.FAILED}, [])
        assert "called off" in next(status.reason for key, status in world.said if key == 2 and status.reason)
        assert len(world.manager.of("submit")) == 2
        world.manager.put(JobState.COMPLETED, "100", code=0, reason="")
        await until(lambda: world.ends().get(1) is JobState.COMPLETED)
