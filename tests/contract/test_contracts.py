"""The fakes and the real things pass the same suites."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from asim import Experiment, JobState, Retry, SubmitError
from asim.config import Config
from asim.errors import AgentError
from asim.launchers.base import JobKey
from asim.launchers.local import LocalLauncher
from asim.plan import JobSpec
from asim.testing import FakeLauncher, Outcome
from asim.testing.contracts import Evidence, HostContract, LauncherContract
from asim.transport.connection import AgentConnection
from asim.transport.local import LocalAgent
from asim.transport.ssh import SSHAgent
from tests.integration.ssh import sshd as sshd

KINDS: Mapping[str, tuple[str, ...]] = {
    "true": ("/bin/true",),
    "fail": ("/bin/sh", "-c", "exit 3"),
    "long": ("/bin/sleep", "60"),
}


def job(name: str, kind: str, place: Path) -> JobSpec:
    """A spec as the planner makes them."""
    model: Any = None
    return JobSpec(
        name=name,
        model=model,
        ensemble=None,
        argv=KINDS[kind],
        env=(),
        cwd=str(place),
        outputs=str(place),
        timeout=None,
        retries=None,
    )


class TestLocalLauncher(LauncherContract):
    """Real processes."""

    @pytest.fixture
    def launcher(self, tmp_path):
        """A launcher with its own agent."""
        config = Config.from_env()
        return LocalLauncher(
            config, run="contract", records=f"{tmp_path}/r", max_concurrent=None, grace=1.0, detach=False
        )

    @pytest.fixture
    def spec(self, tmp_path):
        """Specs for real commands."""
        return lambda name, kind: job(name, kind, tmp_path)


class TestFakeLauncher(LauncherContract):
    """Timers."""

    @pytest.fixture
    def launcher(self):
        """A fake that knows the kinds by their commands."""
        ends = {KINDS["fail"]: Outcome(state=JobState.FAILED, code=3), KINDS["long"]: Outcome(state=None)}
        return FakeLauncher(lambda spec: ends.get(spec.argv, Outcome()))

    @pytest.fixture
    def spec(self, tmp_path):
        """The same specs."""
        return lambda name, kind: job(name, kind, tmp_path)


class TestLocalAgent(HostContract):
    """The agent of this machine."""

    @pytest.fixture
    def news(self):
        """Rows as they arrive."""
        return []

    @pytest.fixture(params=["this", "3.6"])
    async def host(self, request, news, tmp_path):
        """An agent run by this interpreter, and by the oldest one that it must run on."""
        python = sys.executable if request.param == "this" else oldest_python()
        agent, lost = LocalAgent(python, os.environ), []
        connection = AgentConnection(news.extend, lost.append)
        await agent.start(connection)
        info = await connection.hello(run="host", cap=8, grace=1.0, records=f"{tmp_path}.records", on_eof="stop")
        assert request.param == "this" or info["python"].startswith("3.6")
        yield connection
        await connection.bye()
        assert (await agent.last_words(), lost) == ("", [None])


@pytest.mark.slow
class TestSSHAgent(HostContract):
    """The same agent at the far end of an SSH connection."""

    @pytest.fixture
    def news(self):
        """Rows as they arrive."""
        return []

    @pytest.fixture
    async def host(self, sshd, news, tmp_path):
        """An agent reached through a real server."""
        agent, lost = SSHAgent("127.0.0.1", sshd.options()), []
        connection = AgentConnection(news.extend, lost.append)
        await agent.start(connection)
        records = f"{tmp_path}.records"
        await connection.hello(run="host", cap=8, grace=1.0, records=records, on_eof="stop", **agent.options)
        yield connection
        await connection.bye()
        assert (await agent.last_words(), lost) == ("", [None])
        await agent.close()


class TestLocalLauncherOverSSH(LauncherContract):
    """Real processes of a host that is reached by SSH."""

    @pytest.fixture
    async def launcher(self, sshd, tmp_path):
        """A launcher whose agent is there."""
        return LocalLauncher(
            Config.from_env(),
            run="contract",
            records=f"{tmp_path}/r",
            max_concurrent=None,
            grace=1.0,
            detach=False,
            agent=SSHAgent("127.0.0.1", sshd.options()),
        )

    @pytest.fixture
    def spec(self, tmp_path):
        """Specs for real commands."""
        return lambda name, kind: job(name, kind, tmp_path)


def oldest_python() -> str:
    """A Python 3.6, if this machine has one; its absence is no failure, as no registry offers it."""
    for path in (os.environ.get("ASIM_PYTHON36"), *map(str, Path.home().glob(".pyenv/versions/3.6*/bin/python"))):
        if path and Path(path).exists():
            return path
    pytest.skip("no Python 3.6 here (set ASIM_PYTHON36 to try it)")


pytestmark = pytest.mark.anyio


async def test_an_agent_that_cannot_run_says_why(tmp_path):
    """A wrong interpreter, and one that dies at once, are errors with the reason."""
    for python, words in (("/no/such/python", "cannot start the agent"), ("/bin/false", "the agent died")):
        config = Config(environ=dict(os.environ), cwd="/", python=python)
        launcher = LocalLauncher(config, run="r", records=f"{tmp_path}/r", max_concurrent=None, grace=1.0, detach=False)
        evidence = Evidence()
        with pytest.raises(AgentError, match=words):
            await launcher.open(evidence, evidence.lost.append)


async def test_an_experiment_runs_on_a_fake(home):
    """A launcher object can be given to an Experiment; nothing touches the disk."""
    fake = FakeLauncher(lambda spec: Outcome(state=JobState.FAILED, code=2) if spec.name == "e_1" else Outcome())
    async with Experiment("exp", launcher=fake) as exp:
        ens = exp.create_ensemble("e", replicas=3, run_settings=exp.create_run_settings("anything"))
        group = await exp.start(ens)
    assert [job.returncode for job in group] == [0, 2, 0] and [spec.name for spec in fake.submitted] == [
        "e_0",
        "e_1",
        "e_2",
    ]
    assert fake.calls.count("submit") == 1 and not (home / "exp").exists()


async def test_a_refused_submit_is_raised_and_recorded(home):
    """SubmitError reaches the caller; the jobs are FAILED with its words; a later start works."""
    fake = FakeLauncher(refuse=SubmitError("queue is closed", transient=True))
    async with Experiment("exp", launcher=fake) as exp:
        model = exp.create_model("m", exp.create_run_settings("anything"))
        with pytest.raises(SubmitError, match="queue is closed"):
            await exp.start(model)
        assert exp.get_status(model) == [JobState.FAILED]
        fake.refuse = None
        assert (await exp.start(model)).status is JobState.COMPLETED


async def test_a_refused_retry_fails_the_job(home):
    """When a later attempt cannot be submitted, the job ends with the reason."""
    fake = FakeLauncher(lambda spec: Outcome(state=JobState.FAILED, code=1))
    async with Experiment("exp", launcher=fake) as exp:
        model = exp.create_model("m", exp.create_run_settings("anything"), retries=Retry(times=1, backoff=0.01))
        group = await exp.start(model, block=False)
        fake.refuse = SubmitError("gone")
        await group.wait(10)
    assert group[0].status is JobState.FAILED and "gone" in group[0].reason


async def test_a_launcher_that_loses_sight(home):
    """Jobs become LOST with the reason, and only after recover had its chance."""
    fake = FakeLauncher(lambda spec: Outcome(state=None))
    async with Experiment("exp", launcher=fake) as exp:
        group = await exp.start(exp.create_model("m", exp.create_run_settings("anything")), block=False)
        fake.lose(AgentError("the link is cut"))
        await group.wait(10)
        assert group[0].status is JobState.LOST and "the link is cut" in group[0].reason
        assert "recover" in fake.calls and JobKey(group[0].key)
