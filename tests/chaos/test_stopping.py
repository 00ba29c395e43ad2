"""Everything that ends a job early: stop, cancellation, errors, Ctrl-C. Nothing survives, and nothing is lost."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

from asim import Experiment, JobState
from tests.integration.conftest import alive, marked, pids_in, python, sh, until

pytestmark = pytest.mark.anyio

STUBBORN = "trap '' TERM; echo $$ > {home}/{name}.pids; while :; do sleep 0.05; done"
FAMILY = "sleep 60 & sleep 60 & echo $! $$ > {home}/{name}.pids; wait"


async def test_stop_is_term_then_kill(exp, home):
    """A polite job ends by SIGTERM, a stubborn one by SIGKILL after the grace; both are CANCELLED."""
    polite = sh(
        exp, "polite", f"trap 'echo bye; exit 0' TERM; echo $$ > {home}/polite.pids; while :; do sleep 0.01; done"
    )
    stubborn = sh(exp, "stubborn", STUBBORN.format(home=home, name="stubborn"))
    group = await exp.start(polite, stubborn, block=False)
    pids = await pids_in(home / "polite.pids") + await pids_in(home / "stubborn.pids")
    with anyio.fail_after(5):
        await exp.stop(polite, stubborn)
    assert [job.status for job in group] == [JobState.CANCELLED] * 2
    assert [job.returncode for job in group] == [0, -signal.SIGKILL]
    assert group[0].stdout.read_text() == "bye\n"
    assert not any(map(alive, pids))


async def test_grandchildren_go_too(exp, home):
    """stop returns only when every process of the group is gone."""
    group = await exp.start(sh(exp, "f", FAMILY.format(home=home, name="f")), block=False)
    pids = await pids_in(home / "f.pids", 2)
    await group.cancel()
    assert not any(map(alive, pids))


async def test_a_descendant_that_left_the_session_goes_too(exp, home):
    """setsid and a double fork do not save a process from stop."""
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        f"    open({str(home / 'd.pids')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    group = await exp.start(python(exp, "d", code), block=False)
    pids = await pids_in(home / "d.pids")
    await group.cancel()
    assert not alive(pids[0])


async def test_a_stopped_process_can_be_stopped(exp, home):
    """A job in state T (SIGSTOP) gets its SIGTERM, too."""
    group = await exp.start(sh(exp, "t", f"echo $$ > {home}/t.pids; kill -STOP $$; sleep 60"), block=False)
    (pid,) = await pids_in(home / "t.pids")
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    with anyio.fail_after(5):
        await group.cancel()
    assert group[0].returncode == -signal.SIGTERM


async def test_queued_jobs_are_cancelled_without_running(home):
    """Jobs that wait for a slot end as CANCELLED and never touch the disk."""
    async with Experiment("q", max_concurrent=1, stop_grace=0.5) as exp:
        ens = exp.create_ensemble("e", replicas=50, run_settings=exp.create_run_settings("/bin/sleep", "60"))
        group = await exp.start(ens, block=False)
        await until(lambda: group[0].status is JobState.RUNNING)
        await group.cancel()
    assert {job.status for job in group} == {JobState.CANCELLED}
    assert group[7].reason == "stopped before it started" and group[7].returncode is None
    assert not (home / "q/e_7.out").exists()


async def test_an_error_in_the_body_comes_out_plain(home):
    """The user's own exception leaves the experiment as itself, and the jobs are gone."""
    with pytest.raises(ZeroDivisionError):
        async with Experiment("b", stop_grace=0.5) as exp:
            group = await exp.start(sh(exp, "m", FAMILY.format(home=home, name="m")), block=False)
            pids = await pids_in(home / "m.pids", 2)
            raise ZeroDivisionError
    assert group.status is JobState.CANCELLED and not any(map(alive, pids))


@pytest.mark.parametrize("how", ["anyio", "asyncio"])
async def test_a_cancelled_blocking_start_stops_its_jobs(exp, home, how):
    """A timeout around start(block=True) stops what was started, with anyio's and with asyncio's own cancellation."""
    model = sh(exp, "m", FAMILY.format(home=home, name="m"))
    with pytest.raises(TimeoutError):
        if how == "anyio":
            with anyio.fail_after(0.3):
                await exp.start(model)
        else:
            async with asyncio.timeout(0.3):
                await exp.start(model)
    pids = await pids_in(home / "m.pids", 2)
    with anyio.fail_after(5):
        await exp.wait(model)
    assert exp.get_status(model) == [JobState.CANCELLED] and not any(map(alive, pids))


async def test_kill_on_interrupt_false_leaves_jobs_alone(exp, home):
    """A cancelled start with kill_on_interrupt=False ends only the waiting."""
    model = sh(exp, "m", FAMILY.format(home=home, name="m"))
    with anyio.move_on_after(0.3):
        await exp.start(model, kill_on_interrupt=False)
    assert exp.get_status(model) == [JobState.RUNNING]
    await exp.stop(model)


@pytest.mark.parametrize("step", range(0, 40, 2))
async def test_cancellation_at_any_await_of_start(exp, home, step):
    """Wherever start is cut off, no job is left that nobody knows of."""
    model = exp.create_ensemble("e", replicas=3, run_settings=exp.create_run_settings("/bin/sleep", "60"))
    task = asyncio.create_task(exp.start(model, block=False))
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    try:
        group = await task
    except asyncio.CancelledError:
        with anyio.fail_after(10):
            await exp._session.monitor.idle() if exp._session else None
            await exp.aclose()
        assert not exp._session or not marked(exp._session.token)
    else:
        assert {job.status for job in group} <= {JobState.PENDING, JobState.RUNNING}


async def test_cancelling_many_groups_is_quick(exp):
    """Two hundred process groups are gone well within a second of one request."""
    ens = exp.create_ensemble("e", replicas=200, run_settings=exp.create_run_settings("/bin/sleep", "600"))
    group = await exp.start(ens, block=False)
    with anyio.fail_after(20):
        await until(lambda: all(job.status is JobState.RUNNING for job in group))
    with anyio.fail_after(5):
        await group.cancel()
    assert {job.status for job in group} == {JobState.CANCELLED}


def driver(home: Path, body: str, **options: str) -> subprocess.Popen[str]:
    """A driver script of its own process; ``body`` runs inside ``async with Experiment`` and prints "ready"."""
    arguments = "".join(f", {key}={value}" for key, value in options.items())
    script = textwrap.dedent("""
        import anyio, sys
        from asim import Experiment
        async def main():
            async with Experiment("exp"{arguments}) as exp:
                model = exp.create_model("m", exp.create_run_settings("/bin/sh", ["-c", {job!r}]))
        {body}
        anyio.run(main)
    """).format(
        arguments=arguments,
        job=f"sleep 60 & echo $! $$ > {home}/m.pids; echo started; wait",
        body=textwrap.indent(textwrap.dedent(body), " " * 8),
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=home, stderr=subprocess.PIPE, text=True)


async def ended(process: subprocess.Popen[str], deadline: float = 15) -> str:
    """Wait for a driver's end; what it wrote to stderr."""
    with anyio.fail_after(deadline):
        return (await anyio.to_thread.run_sync(process.communicate, abandon_on_cancel=True))[1]


async def test_ctrl_c_stops_everything_and_comes_out_as_keyboard_interrupt(home):
    """SIGINT to the driver: jobs gone, output kept, KeyboardInterrupt and nothing else at the top."""
    process = driver(home, "await exp.start(model)", stop_grace="0.5")
    pids = await pids_in(home / "m.pids", 2)
    process.send_signal(signal.SIGINT)
    errors = await ended(process)
    assert not any(map(alive, pids))
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt" and "ExceptionGroup" not in errors
    assert (home / "exp/m.out").read_text() == "started\n"


async def test_kill_9_of_the_driver_stops_everything(home):
    """The agent notices that its driver is gone, stops the jobs, and records how they ended."""
    process = driver(home, "await exp.start(model)", stop_grace="0.5")
    pids = await pids_in(home / "m.pids", 2)
    process.kill()
    await ended(process)
    await until(lambda: not any(map(alive, pids)))
    async with Experiment("exp") as exp:
        await until(lambda: "end" in "".join(p.read_text() for p in Path("exp/.asim").glob("*.exits.jsonl")))
        (row,) = await exp.history()
    assert (row["name"], row["status"], row["returncode"]) == ("m", "CANCELLED", -signal.SIGTERM)


async def test_kill_9_of_the_agent_stops_everything(exp, home):
    """The driver notices, stops what the agent left, says LOST, and can start again."""
    model = sh(exp, "m", f"setsid sleep 60 & sleep 60 & echo $! $$ > {home}/m.pids; wait")
    group = await exp.start(model, block=False)
    pids = await pids_in(home / "m.pids", 2)
    await until(lambda: group[0].status is JobState.RUNNING)
    os.kill(exp._session._holder.about["pid"], signal.SIGKILL)
    with anyio.fail_after(10):
        await group.wait()
    assert group[0].status is JobState.LOST and "agent died" in group[0].reason
    assert not any(map(alive, pids)) and not marked(exp._session.token)
    again = await exp.start(sh(exp, "again", "true"))
    assert again.status is JobState.COMPLETED


async def test_an_end_that_the_dead_agent_had_recorded_is_believed(exp, home):
    """What is in the records file counts, also when the agent died before it could tell."""
    group = await exp.start(sh(exp, "done", "true"), sh(exp, "m", "sleep 60"), block=False)
    with anyio.fail_after(10):
        await group["done"].wait()
        await until(lambda: group["m"].status is JobState.RUNNING)
    record = next(Path("exp/.asim").glob("*.exits.jsonl"))
    key = group["m"].key
    with record.open("a") as file:
        file.write(f'[[{key},"end",1700000000.0,5,null,[0.0,0.0,1000]]]\n[[{key},"end",17000')
    os.kill(exp._session._holder.about["pid"], signal.SIGKILL)
    with anyio.fail_after(10):
        await group.wait()
    assert (group["m"].status, group["m"].returncode) == (JobState.FAILED, 5)


async def test_detach_leaves_jobs_and_records_their_ends(home):
    """on_exit="detach": the driver ends at once, the job runs on, its end is in the history of the next driver."""
    gate = home / "gate"
    body = f"""
        settings = exp.create_run_settings("/bin/sh", ["-c", "echo $$ > {home}/d.pids; while [ ! -e {gate} ]; do sleep 0.02; done; exit 4"])
        await exp.start(exp.create_model("d", settings), block=False)
    """
    process = driver(home, body, on_exit="'detach'")
    assert await ended(process) == "" and process.returncode == 0
    (pid,) = await pids_in(home / "d.pids")
    assert alive(pid)
    async with Experiment("exp") as exp:
        assert [(row["name"], row["status"]) for row in await exp.history()] == [("d", "RUNNING")]
        gate.touch()
        await until(lambda: not alive(pid))
        await until(lambda: '"end"' in next(Path("exp/.asim").glob("*.exits.jsonl")).read_text())
        (row,) = await exp.history()
    assert (row["status"], row["returncode"], row["reason"]) == ("FAILED", 4, "exit code 4")


async def test_detach_survives_kill_9_of_the_driver(home):
    """With on_exit="detach" a killed driver leaves its jobs running as well."""
    process = driver(home, "await exp.start(model)", on_exit="'detach'")
    pids = await pids_in(home / "m.pids", 2)
    process.kill()
    await ended(process)
    await anyio.sleep(0.2)  # long enough for a wrong stop to happen; the right behaviour is that nothing does
    assert all(map(alive, pids))
    os.killpg(pids[1], signal.SIGKILL)


async def test_wait_on_exit_waits(home):
    """on_exit="wait": leaving the body waits for the jobs."""
    async with Experiment("w", on_exit="wait") as exp:
        group = await exp.start(sh(exp, "m", "sleep 0.3; echo done"), block=False)
    assert group.status is JobState.COMPLETED and group[0].stdout.read_text() == "done\n"


async def test_aclose_without_a_context_manager(home):
    """aclose() may be called from another task than the first start, and twice."""
    exp = Experiment("plain", stop_grace=0.5)
    group = await exp.start(sh(exp, "m", "sleep 60"), block=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exp.aclose)
    await exp.aclose()
    assert group.status is JobState.CANCELLED and not marked(exp._session.token)


def test_a_forgotten_experiment_leaves_nothing(home):
    """A script that neither enters nor closes its experiment: the agent ends with the event loop."""
    script = (
        "import asyncio\nfrom asim import Experiment\nasync def main():\n    exp = Experiment('exp', stop_grace=0.5)\n"
        "    m = exp.create_model('m', exp.create_run_settings('/bin/sleep', '60'))\n"
        "    await exp.start(m, block=False)\n    print(exp._session.token)\nasyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=home, capture_output=True, text=True, timeout=20, check=True
    )
    deadline = 200
    while marked(done.stdout.strip()) and deadline:
        deadline -= 1
        signal.sigtimedwait([], 0.02)
    assert not marked(done.stdout.strip())
