"""Retries, dependencies, fail-fast, events: what follows from how jobs end."""

import time

import anyio
import pytest

from asim import ConfigError, JobState, Retry

from .conftest import sh, until

pytestmark = pytest.mark.anyio

C, F, X = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


async def test_a_failing_job_is_retried_until_it_completes(exp, home):
    """Three attempts: the third completes; the output of each is kept."""
    script = f"echo x >> {home}/count; n=$(wc -l < {home}/count); echo attempt $n; [ $n = 3 ]"
    model = sh(exp, "m", script, retries=Retry(times=5, backoff=0.01))
    job = (await exp.start(model, check=True))[0]
    assert job.attempt == 3
    outputs = [job.stdout.with_name(f"m.out{suffix}").read_text() for suffix in (".1", ".2", "")]
    assert outputs == ["attempt 1\n", "attempt 2\n", "attempt 3\n"]


async def test_retries_stop_at_their_number_and_at_the_predicate(exp, home):
    """times bounds the retries; a predicate on the exit code decides which failures are worth one."""
    many = sh(exp, "many", f"echo x >> {home}/many; exit 1", retries=Retry(times=2, backoff=0))
    picky = sh(exp, "picky", f"echo x >> {home}/picky; exit 2", retries=Retry(when=lambda code: code == 75, backoff=0))
    group = await exp.start(many, picky)
    assert [job.status for job in group] == [F, F] and [job.attempt for job in group] == [3, 1]
    assert (home / "many").read_text() == "x\n" * 3 and (home / "picky").read_text() == "x\n"


async def test_stop_ends_a_job_between_its_attempts(exp):
    """A job that waits for its next attempt is cancelled at once."""
    model = sh(exp, "m", "exit 1", retries=Retry(backoff=600, max_backoff=600))
    group = await exp.start(model, block=False)
    await until(lambda: group[0].attempt == 2)
    with anyio.fail_after(2):
        await group.cancel()
    assert group[0].status is X


async def test_after_completed_orders_jobs(exp, home):
    """A chain runs one after another, and what it waits for has really ended before."""
    a, b, c = (sh(exp, name, f"echo {name} >> {home}/order; sleep 0.05") for name in "abc")
    b.after(a)
    c.after(b)
    group = await exp.start(c, b, a, check=True)
    assert (home / "order").read_text() == "a\nb\nc\n"
    assert group["a"].ended_at <= group["b"].started_at and group["b"].ended_at <= group["c"].started_at


async def test_after_a_failure(exp):
    """completed: cancelled with the reason, and so what waits for that; ended: runs all the same."""
    bad, needs, needs_too, cleanup = (sh(exp, n, "exit 1" if n == "bad" else "true") for n in ("bad", "n1", "n2", "cl"))
    needs.after(bad)
    needs_too.after(needs)
    cleanup.after(bad, needs, when="ended")
    group = await exp.start(bad, needs, needs_too, cleanup)
    assert [job.status for job in group] == [F, X, X, C]
    assert group["n1"].reason == "it waits for bad to be completed, which is FAILED"
    assert group["n2"].returncode is None and group["n2"].started_at is None


async def test_after_running(exp, home):
    """running: starts as soon as the other has started, and both run together."""
    server = sh(exp, "server", f"while [ ! -e {home}/stop ]; do sleep 0.01; done")
    client = sh(exp, "client", f"touch {home}/stop")
    client.after(server, when="running")
    with anyio.fail_after(10):
        group = await exp.start(client, server, check=True)
    assert group["client"].started_at < group["server"].ended_at


async def test_after_running_of_what_never_ran(exp):
    """A job that could not be started never was running."""
    ghost = exp.create_model("ghost", exp.create_run_settings("/bin/true"), path=exp.exp_path + "/x")
    later = sh(exp, "later", "true")
    later.after(ghost, when="running")
    blocker = sh(exp, "blocker", "exit 1")
    ghost.after(blocker)
    group = await exp.start(blocker, ghost, later)
    assert [job.status for job in group] == [F, X, X]


async def test_ensembles_wait_for_ensembles(exp, home):
    """Every member of the second waits for all members of the first."""
    settings = exp.create_run_settings("/bin/sleep", "0.05")
    first = exp.create_ensemble("first", replicas=5, run_settings=settings)
    second = exp.create_ensemble("second", replicas=5, run_settings=settings)
    second.after(first)
    group = await exp.start(second, first, check=True)
    assert group[first].ended_at <= group[second].started_at


async def test_after_something_started_earlier(exp, home):
    """A dependency may have been started, or have ended, in an earlier start."""
    early = sh(exp, "early", f"while [ ! -e {home}/go ]; do sleep 0.01; done")
    await exp.start(early, block=False)
    later, last = sh(exp, "later", "true"), sh(exp, "last", "true")
    later.after(early)
    group = await exp.start(later, block=False)
    assert group[0].status is JobState.PENDING
    (home / "go").touch()
    with anyio.fail_after(10):
        await group.wait()
    last.after(early, later)
    assert (await exp.start(last)).status is C


async def test_impossible_dependencies_are_refused_before_anything_runs(exp, home):
    """Cycles and unknown targets are errors of the plan."""
    a, b, stranger = (sh(exp, name, f"touch {home}/ran") for name in ("a", "b", "stranger"))
    a.after(b)
    b.after(a)
    with pytest.raises(ConfigError, match="a waits for b waits for a"):
        await exp.start(a, b)
    c = sh(exp, "c", "true")
    c.after(stranger)
    with pytest.raises(ConfigError, match="stranger"):
        await exp.start(c)
    assert not (home / "ran").exists()


async def test_a_long_chain_that_breaks(exp):
    """Two thousand jobs, each after the one before; the first fails, all others are cancelled."""
    models = [sh(exp, "m0", "exit 1")]
    for number in range(1, 2000):
        models.append(sh(exp, f"m{number}", "true"))
        models[-1].after(models[-2])
    with anyio.fail_after(30):
        group = await exp.start(*models)
    assert group[0].status is F and {job.status for job in group[1:]} == {X}


@pytest.mark.parametrize("scope", ["ensemble", "group"])
async def test_fail_fast_cancels_the_others(exp, scope):
    """The first failure of a fail-fast ensemble, or group, ends its other members and nothing else."""
    settings = exp.create_run_settings("/bin/sh", ["-c", 'case "$1" in --n=3) exit 1;; esac; sleep 60', "sh"])
    ens = exp.create_ensemble(
        "e",
        params={"n": range(6)},
        params_as_args={"n": range(6)},
        run_settings=settings,
        fail_fast=scope == "ensemble",
    )
    for model in ens:
        model.params = {"--n": model.params["n"]}
        model.params_as_args = ("--n",)
    bystander = sh(exp, "bystander", "sleep 0.2")
    with anyio.fail_after(20):
        if scope == "ensemble":
            group = await exp.start(ens, bystander)
            assert group["bystander"].status is C
        else:
            group = await exp.start(ens, fail_fast=True)
    states = [job.status for job in group.of(ens)]
    assert states[3] is F and states.count(X) == 5


async def test_events_tell_every_change_in_order(exp):
    """PENDING, RUNNING and the end of each job, with times; the stream ends with the experiment."""
    seen = []

    async def watch() -> None:
        async for event in events:
            seen.append((event.name, event.previous, event.state, event.missed))

    events = exp.events()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await exp.start(sh(exp, "a", "true"), sh(exp, "b", "exit 1"))
        await exp.aclose()
    for name, end in (("a", C), ("b", F)):
        changes = [(previous, state) for n, previous, state, _ in seen if n == name]
        assert changes == [
            (JobState.NEW, JobState.PENDING),
            (JobState.PENDING, JobState.RUNNING),
            (JobState.RUNNING, end),
        ]
    assert all(missed == 0 for *_, missed in seen)


async def test_a_slow_consumer_is_told_what_it_missed(exp):
    """A consumer that does not read holds nothing up, keeps the newest events, and learns how many it lost."""
    events = exp.events(buffer=10)
    ens = exp.create_ensemble("e", replicas=50, run_settings=exp.create_run_settings("/bin/true"))
    group = await exp.start(ens)
    assert group.status is C
    first = await anext(events)
    assert first.missed == 150 - 10
    assert (await anext(events)).missed == 0
    events.close()
    await exp.start(sh(exp, "after", "true"))
    rest = [event async for event in events]
    assert len(rest) == 8 and all(event.name != "after" for event in rest)


async def test_a_groups_events_end_with_the_group(exp):
    """group.events() has only its own jobs' events and ends when they have ended."""
    other = await exp.start(sh(exp, "other", "sleep 60"), block=False)
    group = await exp.start(sh(exp, "m", "sleep 0.1"), block=False)
    with anyio.fail_after(5):
        states = [event.state async for event in group.events()]
    assert states[-1] is C and other.status is JobState.RUNNING
    assert [event async for event in group.events()] == []


async def test_retry_waits_grow(exp, home):
    """The second wait is longer than the first by the factor."""
    script = f"date +%s.%N >> {home}/times; exit 1"
    await exp.start(sh(exp, "m", script, retries=Retry(times=2, backoff=0.1, factor=3)))
    first, second, third = map(float, (home / "times").read_text().split())
    assert 0.1 <= second - first < 0.3 <= third - second < 1.5


async def test_other_coroutines_go_on_while_jobs_run(exp):
    """While hundreds of jobs run, another coroutine goes on ticking."""
    ens = exp.create_ensemble("e", replicas=400, run_settings=exp.create_run_settings("/bin/true"))
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.002
            await anyio.sleep(0.002)
            late.append(time.perf_counter() - due)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await exp.start(ens, check=True)
        tasks.cancel_scope.cancel()
    assert sorted(late)[int(len(late) * 0.9)] < 0.1 and len(late) > 20
