"""Starting real processes and learning how they ended."""

import logging
import os
import signal
import sys
from datetime import UTC, datetime

import anyio
import pytest

from asim import ConfigError, EntityExistsError, Experiment, JobFailed, JobState

from .conftest import alive, marked, pids_in, python, sh

pytestmark = pytest.mark.anyio


async def test_a_model_runs_and_is_reported(exp, home):
    """One process: state, exit code, output, times and use are those of the real process."""
    before = datetime.now(UTC)
    group = await exp.start(sh(exp, "hello", "echo out; echo err >&2"))
    job = group[0]
    assert job.status is JobState.COMPLETED and job.returncode == 0 and job.reason == ""
    assert job.stdout.read_text() == "out\n" and job.stderr.read_text() == "err\n"
    assert before <= job.started_at <= job.ended_at <= datetime.now(UTC)
    assert job.host == os.uname().nodename
    assert job.usage.max_rss > 100_000 and job.usage.user_s >= 0
    assert (await job) is job and (await group) is group


async def test_without_generate_it_runs_in_the_current_directory(exp, home):
    """Decision 3: driver's directory as cwd, outputs in the experiment's directory."""
    (home / "script.py").write_text("import os; print(os.getcwd())")
    settings = exp.create_run_settings(exe=sys.executable, exe_args="script.py")
    await exp.start(exp.create_model("example-model", settings))
    assert (home / "exp" / "example-model.out").read_text() == f"{home}\n"


async def test_a_given_path_is_used_and_made(exp, home):
    """A relative path is inside the experiment's directory, an absolute one is taken as it is."""
    near, far = sh(exp, "near", "pwd", path="a/b"), sh(exp, "far", "pwd", path=home / "elsewhere")
    group = await exp.start(near, far)
    assert [job.stdout.read_text().strip() for job in group] == [f"{home}/exp/a/b", f"{home}/elsewhere"]
    assert group[1].stdout == home / "elsewhere" / "far.out"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 3", 3, "exit code 3"),
        ("kill -SEGV $$", -signal.SIGSEGV, "killed by SIGSEGV"),
        ("kill -KILL $$", -signal.SIGKILL, "killed by SIGKILL"),
    ],
)
async def test_failures_say_how(exp, script, code, reason):
    """An exit code and a signal are told apart, and in words."""
    job = (await exp.start(sh(exp, "bad", script)))[0]
    assert (job.status, job.returncode, job.reason) == (JobState.FAILED, code, reason)


async def test_check_raises_job_failed(exp):
    """With check=True a failing job is an exception that names it and carries the handles."""
    with pytest.raises(JobFailed, match=r"bad: FAILED, exit code 7; see .*bad\.err") as caught:
        await exp.start(sh(exp, "good", "true"), sh(exp, "bad", "exit 7"), check=True)
    assert [job.name for job in caught.value.jobs] == ["bad"]


async def test_cannot_be_started_is_an_error_of_that_job(exp, home):
    """ENOEXEC, a missing interpreter and an unreadable directory are told in words; the others run."""
    (home / "text").write_text("not a program\n")
    (home / "orphan").write_text("#!/no/such/interpreter\n")
    for name in ("text", "orphan"):
        (home / name).chmod(0o755)
    (home / "file").write_text("")
    noexec = exp.create_model("noexec", exp.create_run_settings("./text"))
    orphan = exp.create_model("orphan", exp.create_run_settings("./orphan"))
    fine = sh(exp, "fine", "true")
    group = await exp.start(noexec, orphan, fine)
    assert [job.status for job in group] == [JobState.FAILED, JobState.FAILED, JobState.COMPLETED]
    assert group[0].returncode is None and "not a program" in group[0].reason
    assert "the interpreter that the first line of" in group[1].reason


async def test_any_text_survives_into_argv_and_environment(exp):
    """Blanks, quotes, newlines, dollars, unicode and bytes that are no UTF-8 arrive as they were given."""
    odd = ["a b", "'\"`$HOME\\", "new\nline", "ä€\U0001f600", os.fsdecode(b"\xff\xfe"), "", "-x", "*"]
    code = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:] + [os.environ['ODD']])))"
    settings = exp.create_run_settings(sys.executable, ["-I", "-c", code, *odd], env_vars={"ODD": odd[1] + odd[3]})
    job = (await exp.start(exp.create_model("odd", settings), check=True))[0]
    assert job.stdout.read_bytes() == b"|".join(map(os.fsencode, [*odd, odd[1] + odd[3]]))


async def test_odd_names_are_directories_and_files(exp, home):
    """Blanks, unicode, quotes and non-UTF-8 bytes may stand in names."""
    names = ["with blank", "ünïcode", "quo'te\"s", "$HOME;*?", os.fsdecode(b"by\xfftes"), "-dash"]
    models = [sh(exp, name, "pwd") for name in names]
    await exp.generate(*models)
    group = await exp.start(*models, check=True)
    for name, job in zip(names, group, strict=True):
        assert os.fsdecode(job.stdout.read_bytes()) == f"{home}/exp/{name}\n"


async def test_environment_is_the_drivers_plus_the_models(exp, monkeypatch):
    """The environment at the Experiment's creation, changed by env_vars; None is an empty value."""
    settings = exp.create_run_settings("/usr/bin/env", env_vars={"ASIM_T_A": 1, "ASIM_T_B": None, "HOME": "/x y"})
    job = (await exp.start(exp.create_model("env", settings), check=True))[0]
    seen = dict(line.split("=", 1) for line in job.stdout.read_text().splitlines() if "=" in line)
    assert (seen["ASIM_T_A"], seen["ASIM_T_B"], seen["HOME"]) == ("1", "", "/x y")
    assert seen["PATH"] == os.environ["PATH"]
    assert "ASIM_T_A" not in os.environ


async def test_each_process_is_a_session_leader_with_clean_signals(exp):
    """Own session and group, default signal handling, stdin empty, and no descriptor of the agent's."""
    code = (
        "import os, signal; print(os.getsid(0) == os.getpid() == os.getpgid(0),"
        "signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,"
        "signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), os.read(0, 10) == b'',"
        "len(os.listdir('/proc/self/fd')))"  # the fourth is the listing itself
    )
    job = (await exp.start(python(exp, "p", code), check=True))[0]
    assert job.stdout.read_text().split() == [*["True"] * 5, "4"]


async def test_output_of_earlier_runs_is_kept(exp):
    """Starting a model again moves the earlier output aside."""
    model = sh(exp, "again", "echo $$")
    first = (await exp.start(model))[0].stdout.read_text()
    second = (await exp.start(model))[0]
    assert second.stdout.read_text() != first
    assert second.stdout.with_name("again.out.1").read_text() == first
    assert "| again" in exp.summary() and exp.summary().count("COMPLETED") == 2


async def test_max_concurrent_is_a_limit_and_keeps_order(home):
    """With max_concurrent=2 never more than two run, and they start in the order given."""
    async with Experiment("capped", max_concurrent=2) as exp:
        ens = exp.create_ensemble("e", replicas=12, run_settings=exp.create_run_settings("/bin/sleep", "0.03"))
        group = await exp.start(ens, check=True)
    edges = sorted([(j._started, 1) for j in group] + [(j._ended, -1) for j in group])
    running = peak = 0
    for _, step in edges:
        running += step
        peak = max(peak, running)
    assert peak == 2
    assert [j._started for j in group] == sorted(j._started for j in group)


async def test_without_a_cap_coupled_jobs_can_wait_for_each_other(exp, home):
    """All members run at once: each waits for the file that the next one writes."""
    code = "import os,sys,time\nopen(sys.argv[1],'w')\nwhile not all(os.path.exists(f'f{i}') for i in range(20)): time.sleep(.005)"
    models = [python(exp, f"m{i}", code, f"f{i}") for i in range(20)]
    with anyio.fail_after(20):
        group = await exp.start(*models)
    assert group.status is JobState.COMPLETED


async def test_as_completed_gives_jobs_in_the_order_of_their_ends(exp):
    """as_completed follows the ends, not the starts."""
    slow, fast = sh(exp, "slow", "sleep 0.3"), sh(exp, "fast", "true")
    group = await exp.start(slow, fast, block=False)
    assert [job.name async for job in group.as_completed()] == ["fast", "slow"]
    assert [job.name async for job in group.as_completed()] == ["fast", "slow"]


async def test_block_false_returns_at_once_and_wait_has_a_timeout(exp):
    """block=False returns accepted jobs; wait(timeout) gives up without touching them."""
    group = await exp.start(sh(exp, "long", "sleep 60"), block=False)
    with pytest.raises(TimeoutError):
        await group.wait(0.05)
    with pytest.raises(TimeoutError):
        await exp.wait(timeout=0.05)
    assert group.status in (JobState.PENDING, JobState.RUNNING)
    await group.cancel()
    assert group[0].status is JobState.CANCELLED and group[0].returncode == -signal.SIGTERM


async def test_records_are_flat_rows_with_parameters(exp):
    """records() has a row per job, with its parameters as columns."""
    settings = exp.create_run_settings("/bin/echo")
    ens = exp.create_ensemble("e", params={"T": [1, 2], "mode": "x"}, params_as_args=["T"], run_settings=settings)
    rows = (await exp.start(ens, check=True)).records()
    assert [(r["name"], r["ensemble"], r["param_T"], r["param_mode"]) for r in rows] == [
        ("e_0", "e", 1, "x"),
        ("e_1", "e", 2, "x"),
    ]
    assert all(r["status"] == "COMPLETED" and r["elapsed_s"] > 0 and r["max_rss"] > 0 for r in rows)
    assert ens["e_1"].exe_args == ["-T", "2"]


async def test_group_is_a_sequence_with_names_and_ensembles(exp):
    """A group can be indexed by number, name, model, slice and ensemble."""
    one = sh(exp, "one", "true")
    ens = exp.create_ensemble("e", replicas=3, run_settings=exp.create_run_settings("/bin/true"))
    group = await exp.start(one, ens)
    assert group["e_1"] is group[2] is group[ens.models[1]]
    assert len(group[ens]) == 3 and group[ens].status is JobState.COMPLETED and len(group[1:3]) == 2
    assert group.returncode == 0 and group.failed == [] and group.started_at <= group.ended_at


async def test_get_status_finished_and_smartsim_words(exp):
    """States before, while and after; never started is NEW."""
    model, other = sh(exp, "m", "sleep 60"), sh(exp, "other", "true")
    assert exp.get_status(model) == [JobState.NEW] and exp.get_status(model)[0].smartsim == "NeverStarted"
    with pytest.raises(ConfigError, match="was never started"):
        exp.finished(model)
    await exp.start(model, block=False)
    assert not exp.finished(model)
    await exp.stop(model)
    assert exp.finished(model) and exp.get_status(other, model) == [JobState.NEW, JobState.CANCELLED]
    assert exp.get_status(model)[0].smartsim == "Cancelled"


async def test_a_running_name_cannot_be_started_again(exp):
    """The same name twice at once is refused before anything starts."""
    model = sh(exp, "m", "sleep 60")
    await exp.start(model, block=False)
    with pytest.raises(EntityExistsError, match="still running"):
        await exp.start(model)


async def test_poll_returns_at_the_last_end_and_logs(exp, caplog):
    """poll's interval is the period of the log, not of its attention."""
    await exp.start(sh(exp, "m", "sleep 0.2"), block=False)
    with caplog.at_level(logging.INFO, "asim"), anyio.fail_after(5):
        await exp.poll(interval=60)
    assert "m: COMPLETED" in caplog.text


async def test_timeout_is_told_apart_and_kills_the_tree(exp, home):
    """A job over its limit is stopped with its children, and its state is TIMEOUT."""
    script = f"sleep 60 & echo $! > {home}/child; trap '' TERM; while :; do sleep 0.05; done"
    job = (await exp.start(sh(exp, "m", script, timeout=0.3)))[0]
    assert job.status is JobState.TIMEOUT and job.status.smartsim == "Failed"
    assert not alive((await pids_in(home / "child"))[0])
    assert job.returncode == -signal.SIGKILL and 0.3 <= job.elapsed < 3


async def test_what_a_job_leaves_behind_is_stopped(exp, home):
    """A job ends with its first process; what that left in its group does not outlive it for long."""
    job = (await exp.start(sh(exp, "m", f"sleep 60 & echo $! > {home}/child")))[0]
    assert job.status is JobState.COMPLETED
    child = (await pids_in(home / "child"))[0]
    with anyio.fail_after(5):
        while alive(child):
            await anyio.sleep(0.01)


async def test_ensemble_of_many_members(exp, home):
    """Three hundred members at once, each in its own generated directory."""
    ens = exp.create_ensemble("e", replicas=300, run_settings=exp.create_run_settings("/bin/true"))
    await exp.generate(ens)
    group = await exp.start(ens)
    assert group.status is JobState.COMPLETED and len(group.records()) == 300
    assert (home / "exp/e/e_299/e_299.out").exists()


@pytest.mark.slow
async def test_ten_thousand_members(home):
    """Ten thousand real members in one ensemble, eight at a time: all complete, and all are in the records."""
    async with Experiment("big", max_concurrent=8) as exp:
        ens = exp.create_ensemble("e", replicas=10_000, run_settings=exp.create_run_settings("/bin/true"))
        await exp.generate(ens)
        with anyio.fail_after(55):
            group = await exp.start(ens)
        rows = group.records()
    assert len(rows) == 10_000 and {row["returncode"] for row in rows} == {0}


async def test_nothing_is_process_global(exp):
    """Two experiments side by side do not disturb each other, and os.environ stays as it was."""
    before = dict(os.environ)
    async with Experiment("second") as second:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(exp.start, sh(exp, "m", "sleep 0.1"))
                tasks.start_soon(second.start, sh(second, "m", "sleep 0.1"))
        tokens = {exp._session.token, second._session.token}
    assert len(tokens) == 2 and not marked(second._session.token)
    assert dict(os.environ) == before
