"""Where an Experiment can live: threads, notebooks, several loops; and what its directory remembers."""

import asyncio
import json
import threading

import anyio
import pytest

from asim import AsimError, ConfigError, ConfigTypeError, Experiment, JobState, MissingFileError, UnsupportedError

from .conftest import sh

pytestmark = pytest.mark.anyio


def test_in_a_threads_loop(home):
    """An event loop in a thread that is not the main one."""
    states = []

    async def work() -> None:
        async with Experiment("thread") as exp:
            states.append((await exp.start(sh(exp, "m", "true"))).status)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    thread.join(20)
    assert states == [JobState.COMPLETED]


def test_in_a_notebook(home):
    """Made outside a loop, each cell a task of its own on one loop, closed in the last."""
    exp = Experiment("notebook")
    model = sh(exp, "m", "echo hi")
    with asyncio.Runner() as runner:
        group = runner.run(exp.start(model))
        assert runner.run(group.wait()) is group
        assert group[0].stdout.read_text() == "hi\n"
        runner.run(exp.aclose())


def test_one_after_another(home):
    """Several experiments in several event loops of one process."""

    async def work(name: str) -> JobState:
        async with Experiment(name) as exp:
            return (await exp.start(sh(exp, "m", "true"))).status

    assert [asyncio.run(work(name)) for name in ("a", "b")] == [JobState.COMPLETED] * 2


async def test_many_tasks_share_one_experiment(exp):
    """Starts from many tasks at once use one agent and do not mix."""
    groups = {}

    async def work(number: int) -> None:
        groups[number] = await exp.start(sh(exp, f"m{number}", f"echo {number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(work, number)
    assert all(group[0].stdout.read_text() == f"{number}\n" for number, group in groups.items())


async def test_a_closed_experiment_says_so(exp):
    """After the end nothing can be started, and the handles still tell."""
    group = await exp.start(sh(exp, "m", "true"))
    await exp.aclose()
    with pytest.raises(AsimError, match="closed"):
        await exp.start(sh(exp, "n", "true"))
    await group.cancel()
    assert group.status is JobState.COMPLETED and exp.get_status(group[0].model) == [JobState.COMPLETED]


async def test_history_is_what_earlier_runs_did(home):
    """A later Experiment in the same directory knows the jobs of the earlier ones."""
    for code in (0, 3):
        async with Experiment("exp") as exp:
            await exp.start(sh(exp, f"m{code}", f"exit {code}"), sh(exp, "x", "true"))
    async with Experiment("exp") as exp:
        rows = await exp.history()
        await exp.start(sh(exp, "own", "true"))
        assert len(await exp.history()) == len(rows)
    assert [(row["name"], row["status"], row["returncode"]) for row in rows] == [
        ("m0", "COMPLETED", 0),
        ("x", "COMPLETED", 0),
        ("m3", "FAILED", 3),
        ("x", "COMPLETED", 0),
    ]
    assert all(row["started_at"] <= row["ended_at"] and row["host"] for row in rows)


async def test_history_knows_what_never_ran(home):
    """A job that was cancelled while it waited for another is CANCELLED in the history, with the reason."""
    async with Experiment("exp", max_concurrent=1) as exp:
        bad, after = sh(exp, "bad", "exit 1"), sh(exp, "after", "true")
        after.after(bad)
        await exp.start(bad, after)
        await exp.start(sh(exp, "long", "sleep 60"), sh(exp, "queued", "true"), block=False)
    async with Experiment("exp") as exp:
        rows = {row["name"]: row for row in await exp.history()}
    assert [row["status"] for row in rows.values()] == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert "bad" in rows["after"]["reason"]


async def test_history_of_an_agent_that_left_no_word_is_lost(home):
    """A job without a record of its end, whose agent is gone, is LOST, not anything better."""
    folder = home / "exp" / ".asim"
    folder.mkdir(parents=True)
    lines = [
        {"run": "t", "experiment": "exp", "launcher": "local", "agent": {"pid": 4194303, "host": "h", "stamp": 1}},
        {"key": 1, "name": "m", "ensemble": None, "attempt": 1, "argv": ["x"], "cwd": "/", "outputs": "/o"},
    ]
    (folder / "t.journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"key": 2, "na')
    async with Experiment("exp") as exp:
        (row,) = await exp.history()
    assert row["status"] == "LOST" and row["stdout"] == "/o/m.out"


async def test_preview_is_the_plan_that_start_uses(exp, home, capsys):
    """The text has the argv, directories, files, environment; nothing is written or started."""
    (home / "deck").write_text("T = ;T;\n")
    settings = exp.create_run_settings("/bin/echo", ["a b"], env_vars={"K": "v"})
    ens = exp.create_ensemble("e", params={"T": [1, 2, 3]}, run_settings=settings, timeout=60, retries=2)
    ens.attach_generator_files(to_configure="deck")
    plan = await exp.preview(ens)
    text = capsys.readouterr().out
    for part in (
        "/bin/echo 'a b'",
        "exp/e/e_0",
        "configure",
        "T = 1",
        "timeout   60 s",
        "… 1 more members of e",
        "sets K",
    ):
        assert part in text
    assert "e_1" not in text and plan.jobs[2].name == "e_2" and not (home / "exp").exists()
    for number in range(2):
        await exp.preview(ens, verbosity_level="developer", output_format="json", output_filename="plan.json")
        assert (home / ("plan_01.json" if number else "plan.json")).exists()
    data = json.loads((home / "plan.json").read_text())
    group = await exp.start(ens)
    for job, planned in zip(group, data["jobs"], strict=True):
        assert (list(job.spec.argv), job.spec.cwd, str(job.stdout)) == (
            planned["argv"],
            planned["cwd"],
            planned["stdout"],
        )
    with pytest.raises(ConfigError, match="verbosity_level"):
        await exp.preview(ens, verbosity_level="loud")


async def test_bad_input_names_field_value_and_what_is_allowed(exp, home):
    """Each mistake is an error of the right class at the edge, and leaves nothing behind."""
    settings = exp.create_run_settings("/bin/true")
    (home / "plain").write_text("")
    cases = [
        (lambda: Experiment("a/b"), ConfigError, "name = 'a/b'"),
        (lambda: Experiment(".hidden"), ConfigError, "begin with"),
        (lambda: Experiment(3), ConfigTypeError, "must be a str"),
        (lambda: Experiment("x", exp_path=3), ConfigTypeError, "exp_path = 3"),
        (lambda: Experiment("x", launcher="cobalt"), ConfigError, "launcher = 'cobalt': must be auto or one of local"),
        (lambda: Experiment("x", launcher=None), ConfigTypeError, "launcher"),
        (lambda: Experiment("x", max_concurrent=0), ConfigError, "max_concurrent = 0"),
        (lambda: Experiment("x", max_concurrent=True), ConfigTypeError, "max_concurrent"),
        (lambda: Experiment("x", on_exit="explode"), ConfigError, "must be one of stop, wait, detach"),
        (lambda: Experiment("x", stop_grace=-1), ConfigError, "stop_grace = -1"),
        (lambda: exp.create_run_settings("no-such-program"), MissingFileError, "exe = 'no-such-program'"),
        (lambda: exp.create_run_settings("./plain"), MissingFileError, "exe = './plain'"),
        (lambda: exp.create_run_settings("/bin/true", run_command="nompi"), MissingFileError, "run_command = 'nompi'"),
        (lambda: exp.create_run_settings("/bin/true", nonsense=1), ConfigTypeError, "nonsense"),
        (lambda: exp.create_run_settings("/bin/true", ["a\0b"]), ConfigError, "NUL"),
        (lambda: exp.create_batch_settings(nodes=1), UnsupportedError, "no batch jobs"),
        (lambda: exp.create_model("..", settings), ConfigError, "name = '..'"),
        (lambda: exp.create_model("m", settings, path="../out"), ConfigError, r"path = '\.\./out'"),
        (lambda: exp.create_model("m", None), ConfigTypeError, "run_settings"),
        (lambda: exp.create_model("m", settings, timeout=0), ConfigError, "timeout = 0"),
        (lambda: exp.create_model("m", settings, params={"a": object()}), ConfigTypeError, "a"),
        (lambda: exp.create_ensemble("e", run_settings=settings), ConfigError, "replicas"),
        (lambda: exp.create_ensemble("e", params={"a": [1]}), ConfigError, "run_settings"),
        (lambda: exp.create_ensemble("e"), ConfigError, "run_settings"),
        (
            lambda: exp.create_ensemble("e", params={"a": [1]}, run_settings=settings, perm_strategy="best"),
            ConfigError,
            "all_perm",
        ),
        (
            lambda: exp.create_ensemble(
                "e", params={"a": [1, 2], "b": [1, 2, 3]}, run_settings=settings, perm_strat="step"
            ),
            ConfigError,
            "a",
        ),
    ]
    for make, error, text in cases:
        with pytest.raises(error, match=text):
            make()
    model = exp.create_model("m", settings)
    twin = exp.create_ensemble("e", replicas=1, run_settings=settings)
    twin.add_model(exp.create_model("m", settings))
    starts = [
        ((), ConfigError, "at least one"),
        (("m",), ConfigTypeError, "must be a Model"),
        ((model, twin), ConfigError, "this name"),
    ]
    for entities, error, text in starts:
        for verb in (exp.start, exp.generate, exp.preview):
            with pytest.raises(error, match=text):
                await verb(*entities)
    batch = exp.create_ensemble("b", batch_settings=Experiment("s", launcher="slurm").create_batch_settings(nodes=1))
    with pytest.raises(ConfigError, match="empty"):
        await exp.start(batch)
    assert sorted(entry.name for entry in home.iterdir()) == ["plain"]
