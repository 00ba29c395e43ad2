"""Things that happen at the same time, or in an unlucky order."""

import asyncio
import os
import signal
from pathlib import Path

import anyio
import pytest

from asim import ConfigError, EntityExistsError, Experiment, FileActionError, JobState, Retry
from tests.integration.conftest import alive, marked, pids_in, sh, until

pytestmark = pytest.mark.anyio

C, F, X = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


async def test_a_job_freed_while_it_is_admitted_runs_once(exp, home):
    """b waits for the end of a, which can never start: b is submitted once, and bystanders are not harmed."""
    x, a, b = sh(exp, "x", "exit 1"), sh(exp, "a", "true"), sh(exp, "b", f"echo ran >> {home}/b")
    bystander = await exp.start(sh(exp, "bystander", "sleep 60"), block=False)
    await exp.start(x)
    a.after(x)
    b.after(a, when="ended")
    group = await exp.start(a, b)
    assert [job.status for job in group] == [X, C] and (home / "b").read_text() == "ran\n"
    assert bystander.status is JobState.RUNNING


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05])
async def test_stop_while_jobs_are_being_submitted(exp, delay):
    """A stop that comes in the middle of a start leaves nothing running and nothing waiting."""
    ens = exp.create_ensemble("e", replicas=300, run_settings=exp.create_run_settings("/bin/sleep", "60"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: exp.start(ens, block=False))
        while len(exp._session.monitor.latest) < 300 if exp._session else True:
            await anyio.sleep(0)
        await anyio.sleep(delay)
        with anyio.fail_after(20):
            await exp.stop(ens)
    assert set(exp.get_status(ens)) == {X} and not marked(exp._session.token)


async def test_stop_wins_against_retries(exp, home):
    """A job that fails by itself just as it is stopped is not started again."""
    model = sh(exp, "m", f"echo x >> {home}/count; sleep 0.05; exit 1", retries=Retry(times=50, backoff=0))
    for _ in range(5):
        group = await exp.start(model, block=False)
        await anyio.sleep(0.12)  # anywhere within an attempt
        with anyio.fail_after(5):
            await group.cancel()
        count = (home / "count").read_text()
        assert group[0].status in (X, F) and not marked(exp._session.token)
        assert (home / "count").read_text() == count


async def test_a_predicate_that_raises_is_no_retry(exp, caplog):
    """The user's own error is logged; the job fails, and others go on."""
    model = sh(exp, "m", "exit 1", retries=Retry(when=lambda code: 1 / 0))
    group = await exp.start(model, sh(exp, "other", "sleep 0.2"))
    assert [job.status for job in group] == [F, C] and "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03])
async def test_a_cancelled_generate_is_finished_or_undone(home, delay):
    """Whenever it is cut off, an overwrite leaves the old or the new directory, complete, and nothing beside it."""
    async with Experiment("exp") as exp:
        ens = exp.create_ensemble("e", replicas=500, run_settings=exp.create_run_settings("/bin/true"))
        await exp.generate(ens)
        with anyio.move_on_after(delay):
            await exp.generate(ens, overwrite=True)
    names = {entry.name for entry in (home / "exp").iterdir()} - {".asim"}
    assert names == {"e", "asim_params.json", "asim_params.txt"} and len(list((home / "exp/e").iterdir())) == 500


async def test_what_ended_by_itself_was_not_stopped(exp, home):
    """A job that had ended before the agent could act on the stop keeps its own end."""
    group = await exp.start(
        sh(exp, "m", f"echo $$ > {home}/pid; while [ ! -e {home}/go ]; do sleep 0.01; done"), block=False
    )
    (pid,) = await pids_in(home / "pid")
    agent = exp._session._holder.about["pid"]
    os.kill(agent, signal.SIGSTOP)
    try:
        (home / "go").touch()
        await until(lambda: not alive(pid))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.cancel)
            await anyio.sleep(0.05)
            os.kill(agent, signal.SIGCONT)
    finally:
        os.kill(agent, signal.SIGCONT)
    assert (group[0].status, group[0].returncode) == (C, 0)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["cancel", "aclose"])
async def test_an_agent_that_hangs_is_as_good_as_dead(home, verb):
    """A stopped (SIGSTOP) agent cannot hold up cancel or aclose for ever, and its jobs do not survive."""
    async with Experiment("exp", stop_grace=0.2) as exp:
        exp._session._holder.patience = 0.7
        group = await exp.start(sh(exp, "m", "sleep 60"), block=False)
        await until(lambda: group[0].status is JobState.RUNNING)
        os.kill(exp._session._holder.about["pid"], signal.SIGSTOP)
        with anyio.fail_after(15):
            await (group.cancel() if verb == "cancel" else exp.aclose())
        assert group[0].status is JobState.LOST and not marked(exp._session.token)


async def test_the_same_model_twice_at_once(exp):
    """Of two starts at the same time one is refused, and the other's output is whole."""
    model = sh(exp, "m", "sleep 0.1; echo done")
    results = await asyncio.gather(exp.start(model), exp.start(model), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["EntityExistsError", "JobGroup"]
    assert Path("exp/m.out").read_text() == "done\n"
    assert (await exp.start(model)).status is C


async def test_two_experiments_in_one_directory_lose_no_output(home):
    """Both write the same file at once: each line is in one of the files."""
    async with Experiment("exp") as one, Experiment("exp") as two:
        script = "for i in 1 2 3; do echo $0-$i; sleep 0.02; done"
        models = [
            e.create_model("m", e.create_run_settings("/bin/sh", ["-c", script, w]))
            for e, w in ((one, "a"), (two, "b"))
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.start, models[0])
            tasks.start_soon(two.start, models[1])
    text = "".join(path.read_text() for path in (home / "exp").glob("m.out*"))
    assert sorted(text.split()) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]


async def test_a_generate_that_fails_at_the_end_is_whole_or_undone(exp, home):
    """When the parameter file cannot be placed, the entity is generated all the same, and nothing is stranded."""
    model = sh(exp, "m", "true")
    await exp.generate(model)
    (home / "exp/asim_params.json").unlink()
    (home / "exp/asim_params.json").mkdir()
    (home / "exp/asim_params.json/x").touch()
    await exp.generate(model, overwrite=True)
    assert model.path == f"{home}/exp/m"
    assert not [name for name in os.listdir("exp") if "asim-old" in name or "asim-new" in name]


async def test_swapping_is_per_entity(exp, home):
    """If the second of two cannot be put in its place, the first is generated, the second as it was."""
    one, two = sh(exp, "one", "true"), sh(exp, "two", "true", path=home / "mount/two")
    (home / "mount").mkdir()
    await exp.generate(two)
    (home / "mount/two/precious").touch()
    real = exp._session._holder._launcher.files

    async def breaking(actions):
        listed = list(actions)
        if listed and listed[0][0] == "swap":
            listed[1] = ("swap", listed[1][1], "/no/such/directory", listed[1][3])
        await real(listed)

    exp._session._holder._launcher.files = breaking
    with pytest.raises(FileActionError):
        await exp.generate(one, two, overwrite=True)
    assert one.path == f"{home}/exp/one" and (home / "exp/one").is_dir()
    assert (home / "mount/two/precious").exists() and os.listdir(home / "mount") == ["two"]


async def test_kill_9_of_the_agent_reaches_those_who_hid(exp, home):
    """A child without the job's environment and in a session of its own does not survive either."""
    script = f"env -i setsid /bin/sh -c 'echo $$ > {home}/pid; exec sleep 60' & wait"
    group = await exp.start(sh(exp, "m", script), block=False)
    (pid,) = await pids_in(home / "pid")
    await until(lambda: group[0].status is JobState.RUNNING)
    os.kill(exp._session._holder.about["pid"], signal.SIGKILL)
    with anyio.fail_after(10):
        await group.wait()
    assert not alive(pid)


async def test_overwrite_sees_through_links(home, monkeypatch):
    """The current directory is not overwritten under another name."""
    (home / "real/proj").mkdir(parents=True)
    (home / "link").symlink_to("real")
    (home / "real/proj/thesis.tex").touch()
    monkeypatch.chdir(home / "real/proj")
    async with Experiment("exp", exp_path=home / "elsewhere") as exp:
        with pytest.raises(ConfigError, match="current"):
            await exp.generate(sh(exp, "m", "true", path=home / "link/proj"), overwrite=True)
    assert (home / "real/proj/thesis.tex").exists()


async def test_a_running_models_directory_is_left_alone(exp, home):
    """generate(overwrite=True) of what still runs is refused."""
    model = sh(exp, "m", "sleep 60")
    await exp.generate(model)
    await exp.start(model, block=False)
    (home / "exp/m/precious").touch()
    with pytest.raises(EntityExistsError, match="still running"):
        await exp.generate(model, overwrite=True)
    assert (home / "exp/m/precious").exists()


async def test_the_owned_task_cancelled_from_outside(home):
    """Somebody cancels every task: aclose still stops the jobs, and comes back when called again."""
    exp = Experiment("exp", stop_grace=0.2)
    group = await exp.start(sh(exp, "m", "sleep 60"), block=False)
    exp._session.owner._task.cancel()
    await asyncio.wait([exp._session.owner._task])
    with anyio.fail_after(10):
        await exp.aclose()
        await exp.aclose()
    assert group[0].status.terminal and not marked(exp._session.token)


async def test_a_restarted_dependency_counts_anew(exp, home):
    """after() looks at the latest run of each member, not at an earlier one."""
    settings = exp.create_run_settings("/bin/sh", ["-c", f"while [ ! -e {home}/go$0 ]; do sleep 0.01; done", "x"])
    first = exp.create_ensemble("e", replicas=2, run_settings=settings)
    for index, member in enumerate(first):
        member.run_settings.exe_args = ["-c", f"while [ ! -e {home}/go{index} ]; do sleep 0.01; done"]
    await exp.start(first, block=False)
    early, late = sh(exp, "early", "true"), sh(exp, "late", "true")
    early.after(first)
    late.after(first)
    await exp.start(early, block=False)
    (home / "go0").touch()
    await exp.wait(first["e_0"], timeout=10)
    (home / "go0").unlink()
    again = await exp.start(first["e_0"], block=False)
    group = await exp.start(late, block=False)
    (home / "go1").touch()
    await exp.wait(early, timeout=10)
    assert again[0].status is JobState.RUNNING and group[0].status is JobState.PENDING
    (home / "go0").touch()
    assert (await group.wait(10)).status is C


async def test_kill_on_interrupt_false_and_a_timeout_in_the_body(home):
    """A timeout inside the experiment's body leaves the job running, also when the experiment ends by it."""
    with pytest.raises(TimeoutError):
        async with Experiment("exp", stop_grace=0.2) as exp:
            model = sh(exp, "m", f"echo $$ > {home}/pid; sleep 60")
            with anyio.fail_after(0.3):
                await exp.start(model, kill_on_interrupt=False)
    (pid,) = await pids_in(home / "pid")
    assert alive(pid)
    os.killpg(pid, signal.SIGKILL)
    await until(lambda: not marked(exp._session.token))


async def test_forget_and_abandoned_views_keep_nothing(exp):
    """A service that runs for weeks can let go: of jobs, of groups, of event streams that nobody reads."""
    model = sh(exp, "m", "sleep 0.3")
    group = await exp.start(model, block=False)
    for _ in range(50):
        assert len(group[0:]) == 1 and len(group.of(model)) == 1
        exp.events()
        group.events().close()
    assert len(group[0]._groups) < 5 and len(exp._session.monitor.hub.streams) < 5 and len(group._streams) < 5
    exp.forget(model)
    assert exp.get_status(model) == [group.status]
    await group.wait()
    exp.forget(model)
    assert exp.get_status(model) == [JobState.NEW] and group.status is C and exp._session.monitor.jobs == []


@pytest.mark.slow
async def test_a_very_deep_tree_can_be_replaced(exp, home):
    """A directory of absurd depth is removed, too; jobs go on."""
    running = await exp.start(sh(exp, "running", "sleep 60"), block=False)
    model = sh(exp, "m", "true")
    await exp.generate(model)
    os.chdir(home / "exp/m")
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(home)
    await exp.generate(model, overwrite=True)
    assert running.status is JobState.RUNNING and os.listdir(home / "exp/m") == []
    assert not [name for name in os.listdir(home / "exp") if "asim-old" in name]
