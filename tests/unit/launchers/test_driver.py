"""The commands to a workload manager: how many, how often, and what is done when it does not answer."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from asim.errors import AgentError, SubmitError
from asim.launchers._driver import AT_ONCE, LOOKS, Scheduler, shared
from asim.launchers.base import JobStatus
from asim.launchers.dialect import Batch, Command, Completed, SchedulerError
from asim.settings import BatchSettings
from asim.status import JobState

from .fakes import Asker, FakeDialect, Manager

pytestmark = pytest.mark.anyio


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await checkpoint()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The driver's clock."""
    made = Clock()
    monkeypatch.setattr(anyio, "current_time", made.time)
    monkeypatch.setattr(anyio, "sleep", made.sleep)
    return made


@pytest.fixture
def manager() -> Manager:
    """The workload manager."""
    return Manager()


def batch(number: int = 1, size: int = 0) -> Batch:
    """A job."""
    return Batch(
        name="job", mark=f"t.{number}", script=f"/w/t.{number}.sh", size=size, settings=BatchSettings("submit")
    )


def joined(manager: Manager, *ids: str, scheduler: Scheduler | None = None) -> tuple[Scheduler, Asker]:
    """A scheduler (between 1 and 30 s) and one who asks it about these."""
    made, asker = scheduler or Scheduler(FakeDialect(), 1, 30), Asker(manager, *ids)
    made.join(asker, 1, 30)
    return made, asker


# -- asking


async def test_one_query_for_all(clock: Clock, manager: Manager) -> None:
    """Two experiments cost one query at a time, whoever asks; each is told what it asked about."""
    scheduler, first = joined(manager, "1", "2")
    _, second = joined(manager, "3", scheduler=scheduler)
    manager.put(JobState.RUNNING, "1", "3")
    for _ in range(3):
        clock.now += 30
        async with anyio.create_task_group() as group:
            for asker in (second, first, second):
                group.start_soon(scheduler.ask, asker)
    assert manager.commands == [("status", "1", "2", "3")] * 3
    found = {"1": JobState.RUNNING, "3": JobState.RUNNING}
    assert first.heard[0] == (found, ["1", "2"], False)
    assert second.heard[0] == (found, ["3"], False)


async def test_a_thousand_tasks_are_one_query(clock: Clock, manager: Manager) -> None:
    """An array of 1000 is submitted with one command, and asked for with one."""
    scheduler, asker = joined(manager)
    job = await scheduler.submit(asker, batch(size=1000))
    assert job is not None
    asker.ids = [job]
    clock.now += 1
    await scheduler.ask(asker)
    assert manager.commands == [("submit", "t.1", "1000"), ("status", job)]
    assert len(asker.heard[0][0]) == 1000


async def test_nobody_asks_about_nothing(clock: Clock, manager: Manager) -> None:
    """Without jobs there is no command, nor after one has left."""
    scheduler, asker = joined(manager)
    clock.now += 1
    await scheduler.ask(asker)
    asker.ids = ["1"]
    scheduler.leave(asker)
    clock.now += 60
    await scheduler.ask(asker)
    assert manager.commands == []


@pytest.mark.parametrize(("age", "pause"), [(1, 1), (2, 1), (4, 2), (10, 5), (60, 30), (1000, 30)])
async def test_how_often(age: float, pause: float, clock: Clock, manager: Manager) -> None:
    """The time between two queries is half the age of the youngest change, and never beyond its bounds."""
    scheduler, asker = joined(manager, "1")
    scheduler.stir()
    clock.now += age
    await scheduler.ask(asker)
    assert len(manager.commands) == 1
    assert scheduler.pause() == pause
    clock.now += pause - 0.01
    assert scheduler.pause() > 0
    scheduler.stir()
    assert scheduler.pause() <= 1


async def test_the_most_impatient_decides(clock: Clock, manager: Manager) -> None:
    """Who is alone gets what he asked for, also when it is less than the usual; of several the most impatient."""
    scheduler = Scheduler(FakeDialect())
    slow, fast = Asker(manager), Asker(manager)
    scheduler.join(slow, 10, 300)
    assert (scheduler.min_poll, scheduler.max_poll) == (10, 300)
    scheduler.join(fast, 0.1, 600)
    assert (scheduler.min_poll, scheduler.max_poll) == (0.1, 300)
    scheduler.leave(fast)
    assert (scheduler.min_poll, scheduler.max_poll) == (10, 300)


async def test_waiting_is_cut_short(manager: Manager) -> None:
    """Who waits for the next query is woken by news of any other kind, and waits no longer than he wants to."""
    scheduler = Scheduler(FakeDialect(), 0.01, 60)
    scheduler._changed_at -= 1000
    assert scheduler.pause() > 50
    with anyio.fail_after(10):
        await scheduler.wait(0.02)
        assert scheduler.pause() > 50
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.wait, 60)
            await checkpoint()
            scheduler.stir()
    assert scheduler.pause() <= 0


async def test_backing_off(clock: Clock, manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    """A scheduler that does not answer is asked less and less, which is logged once; then as before."""
    caplog.set_level("INFO", "asim")
    scheduler, asker = joined(manager, "1")
    manager.down = 7
    pauses = []
    for _ in range(8):
        clock.now += max(scheduler.pause(), 0)
        scheduler._changed_at = clock.now
        await scheduler.ask(asker)
        pauses.append(scheduler.pause())
    assert pauses == [2, 4, 8, 16, 30, 30, 30, 1]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "fake does not answer",
        "fake answers again",
    ]
    assert "cannot contact" in caplog.text
    asked = [asked for _, asked, final in asker.heard if not final]
    assert asked == [[]] * 7 + [["1"]]


async def test_slow_schedulers_are_asked_less(clock: Clock, manager: Manager) -> None:
    """A scheduler that takes long to answer is asked no more than a sixth of the time."""
    scheduler, asker = joined(manager, "1")

    async def slow(command: Command, timeout: float) -> Completed:
        clock.now += 10
        return await manager.run(command)

    asker.run = slow  # type: ignore[method-assign]
    clock.now += 1
    await scheduler.ask(asker)
    assert scheduler.pause() == 50


async def test_half_an_answer(clock: Clock, manager: Manager) -> None:
    """Where one of several queries fails, those that the others mention are told, and nothing follows about the rest."""
    scheduler, asker = joined(manager, "1", "2", "3", scheduler=Scheduler(FakeDialect(chunk=1), 1, 30))
    manager.put(JobState.RUNNING, "1", "2", "3")
    manager.down = 1
    clock.now += 1
    await scheduler.ask(asker)
    found, asked, final = asker.heard[0]
    assert (len(manager.commands), final) == (3, False)
    assert sorted(found) == sorted(asked)
    assert len(asked) == 2


async def test_the_accounting_is_asked_about_doubts(clock: Clock, manager: Manager) -> None:
    """One question about all doubts of all; none when there are none; nothing is said when it has no answer."""
    scheduler, first = joined(manager, "1")
    _, second = joined(manager, "2", "3", scheduler=scheduler)
    first.doubts, second.doubts = ["1"], ["3"]
    manager.put(JobState.FAILED, "3", code=3)
    clock.now += 1
    await scheduler.ask(first)
    assert manager.of("account") == [("1", "3")]
    assert first.heard[-1] == ({"3": JobState.FAILED}, ["1"], True)
    assert second.heard[-1] == ({"3": JobState.FAILED}, ["3"], True)

    class Deaf(FakeDialect):
        def account(self, jobs: object) -> list[Command]:
            manager.down = 1
            return [Command(("account",))]

    scheduler.dialect = Deaf()
    clock.now += 60
    await scheduler.ask(first)
    assert [final for _, _, final in first.heard] == [False, True, False]


class DownJudge(FakeDialect):
    """The accounting does not answer."""

    def read_account(self, done: Completed) -> Mapping[str, JobStatus]:
        raise SchedulerError("cannot contact the accounts", done)


async def test_an_accounting_that_is_down_holds_up_nobody(
    clock: Clock, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    """The queue is asked as often as before, the accounting less and less, and each is told once."""
    caplog.set_level("INFO", "asim")
    scheduler, asker = joined(manager, "1", scheduler=Scheduler(DownJudge(), 1, 30))
    manager.put(JobState.FAILED, "1")
    asker.doubts = ["1"]
    for _ in range(61):
        clock.now += 1
        scheduler._changed_at = clock.now
        assert scheduler.pause() <= 0
        await scheduler.ask(asker)
        assert scheduler.pause() == 1
    assert len(manager.of("status")) == 61
    assert len(manager.of("account")) == 6  # after 2, 4, 8, 16 and 30 seconds
    assert caplog.text.count("the accounting of fake does not answer") == 1
    assert len(caplog.records) == 1
    scheduler.dialect = FakeDialect()
    clock.now += 30
    await scheduler.ask(asker)
    assert caplog.records[-1].getMessage() == "the accounting of fake answers again"
    assert asker.heard[-1] == ({"1": JobState.FAILED}, ["1"], True)


async def test_an_accounting_that_is_slow_to_fail(clock: Clock, manager: Manager) -> None:
    """The time that the accounting takes to say that it is down makes no longer pauses between queries."""
    scheduler, asker = joined(manager, "1", scheduler=Scheduler(DownJudge(), 1, 30))
    asker.doubts = ["1"]

    async def slow(command: Command, timeout: float) -> Completed:
        clock.now += 10 if command.argv[0] == "account" else 0
        return await manager.run(command)

    asker.run = slow  # type: ignore[method-assign]
    clock.now += 1
    await scheduler.ask(asker)
    scheduler._changed_at = clock.now
    assert scheduler.pause() == 1


async def test_answers_are_as_old_as_their_questions(clock: Clock, manager: Manager) -> None:
    """Who is told an answer is told when the question was asked, not when the answer came."""
    scheduler, asker = joined(manager, "1")
    asker.doubts = ["1"]

    async def slow(command: Command, timeout: float) -> Completed:
        clock.now += 10
        return await manager.run(command)

    asker.run = slow  # type: ignore[method-assign]
    clock.now = 2000.0
    await scheduler.ask(asker)
    assert (asker.posed, clock.now) == ([2000.0, 2010.0], 2020.0)


async def test_an_agent_that_dies_is_not_the_schedulers_fault(clock: Clock, manager: Manager) -> None:
    """That the query could not be made is told as it is, to who made it; the others go on at once."""
    scheduler, first = joined(manager, "1")
    _, second = joined(manager, "2", scheduler=scheduler)

    async def dead(command: Command, timeout: float) -> Completed:
        await checkpoint()
        raise AgentError("the agent died")

    first.run = dead  # type: ignore[method-assign]
    clock.now += 1
    with pytest.raises(AgentError, match="the agent died"):
        await scheduler.ask(first)
    assert scheduler.pause() <= 0
    await scheduler.ask(second)
    assert manager.commands == [("status", "1", "2")]
    assert scheduler.pause() == 1


# -- submitting


async def test_submit(clock: Clock, manager: Manager) -> None:
    """One command, and the next query comes soon."""
    scheduler, asker = joined(manager)
    clock.now += 1000
    assert await scheduler.submit(asker, batch()) == "100"
    assert (len(manager.commands), clock.slept, scheduler._changed_at) == (1, [], clock.now)


async def test_refusals_that_pass(clock: Clock, manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    """A limit, or a scheduler that is away, is waited for, longer and longer, and the log says for what."""
    scheduler, asker = joined(manager)
    manager.refusals = ["over your limit, later"] * 4
    assert await scheduler.submit(asker, batch()) == "100"
    assert (clock.slept, len(manager.of("submit"))) == ([1, 2, 4, 8], 5)
    assert caplog.text.count("over your limit, later; trying again in ") == 4


async def test_refusals_that_do_not_pass(clock: Clock, manager: Manager) -> None:
    """What passes only in theory is told in the end; patience has its bound."""
    scheduler, asker = joined(manager)
    manager.refusals = ["over your limit, later"] * 1000
    with pytest.raises(SubmitError, match="over your limit"):
        await scheduler.submit(asker, batch())
    assert scheduler.patience - 30 <= sum(clock.slept) <= scheduler.patience
    assert len(manager.of("submit")) == len(clock.slept) + 1


async def test_refused_for_good(clock: Clock, manager: Manager) -> None:
    """What can never be taken is told at once."""
    scheduler, asker = joined(manager)
    manager.refusals = ["no such queue"]
    with pytest.raises(SubmitError, match="no such queue"):
        await scheduler.submit(asker, batch())
    assert (len(manager.commands), clock.slept) == (1, [])


async def test_an_answer_that_is_lost(clock: Clock, manager: Manager) -> None:
    """A job whose submit had no answer is found by its mark, and never submitted again."""
    scheduler, asker = joined(manager)
    manager.answers_lost = 1
    assert await scheduler.submit(asker, batch(7)) == "100"
    assert manager.commands == [("submit", "t.7", "0"), ("find", "t.7")]


async def test_an_answer_that_is_lost_and_a_scheduler_that_is_away(clock: Clock, manager: Manager) -> None:
    """The search goes on until the scheduler is there again."""
    scheduler, asker = joined(manager)
    manager.answers_lost = 1

    async def run(command: Command, timeout: float) -> Completed:
        done = await manager.run(command)
        manager.down = 4 if command.argv[0] == "submit" else manager.down
        return done

    asker.run = run  # type: ignore[method-assign]
    assert await scheduler.submit(asker, batch()) == "100"
    assert [command[0] for command in manager.commands] == ["submit"] + ["find"] * 5


async def test_a_submit_that_is_lost(clock: Clock, manager: Manager) -> None:
    """A job that several answers do not know counts as not taken; it is not submitted again."""
    scheduler, asker = joined(manager)
    manager.submits_lost = 1
    assert await scheduler.submit(asker, batch()) is None
    assert [command[0] for command in manager.commands] == ["submit"] + ["find"] * LOOKS


async def test_a_submit_and_a_scheduler_that_are_lost(clock: Clock, manager: Manager) -> None:
    """Nobody searches for ever."""
    scheduler, asker = joined(manager)
    manager.submits_lost = 1

    async def run(command: Command, timeout: float) -> Completed:
        done = await manager.run(command)
        manager.down = 1000
        return done

    asker.run = run  # type: ignore[method-assign]
    assert await scheduler.submit(asker, batch()) is None
    assert len(manager.of("submit")) == 1
    assert scheduler.patience <= sum(clock.slept) <= scheduler.patience + 60


async def test_a_few_at_once(manager: Manager) -> None:
    """However many jobs are submitted at the same time, the scheduler sees a few commands at a time, and all come."""
    scheduler, asker = joined(manager)
    manager.gate = anyio.Event()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(scheduler.submit, asker, batch(number))
            while manager.running < AT_ONCE:
                await checkpoint()
            for _ in range(20):
                await checkpoint()
            manager.gate.set()
    assert (manager.peak, len(manager.taken)) == (AT_ONCE, 50)


# -- cancelling


async def test_cancel_many(clock: Clock, manager: Manager) -> None:
    """Any number of jobs ends with one command; the next query comes soon."""
    scheduler, asker = joined(manager)
    ids = [str(number) for number in range(500)]
    clock.now += 100
    await scheduler.cancel(asker, ids)
    assert manager.commands == [("cancel", *ids)]
    assert scheduler._changed_at == clock.now


async def test_cancel_is_tried_again(clock: Clock, manager: Manager) -> None:
    """While the scheduler is away the cancel waits; for good it does not."""
    scheduler, asker = joined(manager)
    manager.down = 3
    await scheduler.cancel(asker, ["1"])
    assert (clock.slept, len(manager.commands)) == ([1, 2, 4], 4)
    manager.down = 1000
    with pytest.raises(SchedulerError, match="cannot contact"):
        await scheduler.cancel(asker, ["1"])


async def test_cancel_that_is_forbidden(clock: Clock, manager: Manager) -> None:
    """What is refused for good is not tried again, and is in nobody's way."""
    scheduler, asker = joined(manager)
    scheduler.dialect.chunk = 1  # type: ignore[attr-defined]
    manager.foreign = {"1"}
    with pytest.raises(SchedulerError, match="permission denied"):
        await scheduler.cancel(asker, ["1", "2"])
    assert (clock.slept, manager.of("cancel")) == ([], [("1",), ("2",)])


# -- who shares one


async def test_who_shares_a_scheduler() -> None:
    """One for each workload manager on each host, in one event loop."""
    slurm = shared(FakeDialect("slurm"), "")
    assert shared(FakeDialect("slurm"), "") is slurm
    others = [shared(FakeDialect("pbs"), ""), shared(FakeDialect("slurm"), "login")]

    def elsewhere() -> Scheduler:
        async def main() -> Scheduler:
            return shared(FakeDialect("slurm"), "")

        return anyio.run(main)

    others.append(await anyio.to_thread.run_sync(elsewhere))
    assert len({id(one) for one in (slurm, *others)}) == 4


async def test_what_lingers_is_deleted(clock: Clock, manager: Manager) -> None:
    """A failed job that would stay in the queue for ever is deleted, if it is one of ours."""
    scheduler, asker = joined(manager, "1", "2")
    manager.put(JobState.FAILED, "1", reason="it lingers")
    manager.put(JobState.FAILED, "2", "9", reason="it is gone")
    clock.now += 30
    await scheduler.ask(asker)
    assert manager.of("cancel") == [("1",)]
