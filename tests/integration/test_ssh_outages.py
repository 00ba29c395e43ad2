"""Links that are away for long: what goes on there meanwhile, what becomes of it, and what is said of it."""

import os
import signal
import socket
from pathlib import Path

import anyio
import pytest

from asim import Experiment
from asim.status import JobState
from asim.transport.connection import AgentConnection
from asim.transport.ssh import SSHAgent
from tests.integration.conftest import alive, until
from tests.integration.ssh import Proxy, SSHServer
from tests.integration.ssh import sshd as sshd
from tests.integration.test_ssh import connected, specs

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
async def proxy(sshd, tmp_path, monkeypatch):
    """A link to the server that can be cut, and a directory here of this test's own."""
    monkeypatch.chdir(tmp_path)
    async with Proxy(sshd.port) as proxy:
        sshd.know(proxy.port)
        yield proxy


def far(sshd: SSHServer, proxy: Proxy, name: str, on_exit: str = "stop", **ssh: object) -> Experiment:
    """One over that link."""
    options = sshd.options(proxy.port, **ssh)
    place = Path.cwd() / "far" / name
    return Experiment(name, exp_path=place, host="127.0.0.1", ssh=options, stop_grace=1, on_exit=on_exit)


async def sleeping(exp: Experiment, *names: str):
    """Jobs that run for long; they run already."""
    models = [exp.create_model(name, exp.create_run_settings("/bin/sleep", ["300"])) for name in names]
    group = await exp.start(*models, block=False)
    await until(lambda: all(job.status is JobState.RUNNING for job in group), 20)
    return models, group


def away(proxy: Proxy) -> None:
    """The link is cut, and no new one can be made."""
    proxy.shut = True
    proxy.cut()


# -- stopping


async def test_stopping_one_job_while_the_link_is_away(sshd, proxy):
    """However long a link is away: stopping one job stops that one when it is back, and touches no other."""
    async with far(sshd, proxy, "one") as exp:
        (model, _), (one, other) = await sleeping(exp, "a", "b")
        holder = exp._session._holder
        holder.patience = 2.0
        away(proxy)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(exp.stop, model)
                await anyio.sleep(2 * holder.patience)  # longer than it waits for an agent that can be reached
                proxy.shut = False
        assert (one.status, other.status) == (JobState.CANCELLED, JobState.RUNNING)
        assert alive(other.pid) and not alive(one.pid)


async def test_an_agent_that_hangs_behind_a_link_that_holds(sshd, proxy):
    """An agent that can be reached and does not answer has no more than its time."""
    async with far(sshd, proxy, "hangs") as exp:
        (model,), (job,) = await sleeping(exp, "a")
        holder = exp._session._holder
        holder.patience = 2.0
        os.kill(holder.about["pid"], signal.SIGSTOP)
        with anyio.fail_after(30):
            await exp.stop(model)
        assert job.status is JobState.LOST and "did not answer; what it left running was stopped" in job.reason
        await until(lambda: not alive(job.pid))


# -- what is left there


async def test_a_driver_that_comes_back_too_late_to_detached_jobs(sshd, proxy, monkeypatch):
    """Jobs that their agent left running, as asked, are not stopped by a driver that comes back; it says where they are."""
    real = SSHAgent.__init__

    def impatient(self: SSHAgent, *given, **named) -> None:
        real(self, *given, **named)
        self.options = {"patience": 0.5}

    monkeypatch.setattr(SSHAgent, "__init__", impatient)
    async with far(sshd, proxy, "late", on_exit="detach") as exp:
        _, (job, ended) = await sleeping(exp, "a", "b")
        agent = exp._session._holder._launcher._agent
        away(proxy)
        try:
            await until(lambda: deaf(f"{agent._place}/{agent.token}.sock"))
            os.kill(ended.pid, signal.SIGTERM)
            await until(lambda: not alive(ended.pid))
            proxy.shut = False
            with anyio.fail_after(30):
                await job.wait()
                await ended.wait()
            assert job.status is JobState.LOST and "the agent on 127.0.0.1 is gone" in job.reason
            assert job.reason.endswith("; what had not ended was left running there")
            assert (ended.status, ended.returncode) == (JobState.FAILED, -signal.SIGTERM)
            assert alive(job.pid)
        finally:
            os.kill(job.pid, signal.SIGKILL)


def deaf(path: str) -> bool:
    """Whether nobody listens there."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) != 0


async def test_a_link_that_does_not_come_back(sshd, proxy):
    """The driver does not say that it stopped what it could not reach, and lets go of all that led there."""
    async with far(sshd, proxy, "gone", link_patience=1.0) as exp:
        _, (job,) = await sleeping(exp, "a")
        agent = exp._session._holder._launcher._agent
        port = await agent.forward("127.0.0.1", sshd.port)
        away(proxy)
        with anyio.fail_after(30):
            await job.wait()
        assert job.status is JobState.LOST
        assert job.reason.endswith(f"; what it left running may still run on {socket.gethostname()}")
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0
        assert agent.link._closed
        await until(lambda: not alive(job.pid))  # its agent has stopped it


# -- silence


async def test_a_driver_that_falls_silent(sshd, proxy, tmp_path):
    """A driver that is gone without a word, behind a connection that stays open, is missed after the patience."""
    options = sshd.options(proxy.port, link_patience=1.0, keepalive=0.3)
    news, lost = [], []
    agent, connection = SSHAgent("127.0.0.1", options), AgentConnection(news.extend, lost.append)
    try:
        await agent.start(connection)
        hello = {"run": "r", "cap": None, "grace": 0.5, "on_eof": "stop", "records": f"{tmp_path}/records"}
        info = await connection.hello(**hello, **agent.options)
        await connection.spawn(specs(tmp_path, 1, ("/bin/sleep", "300")))
        await until(lambda: len(news) == 1)
        proxy.shut = proxy.silent = True  # what is open stays open: nobody there learns of anything
        await until(lambda: not alive(news[0][3]) and not alive(info["pid"]), 10)
        assert b'"stop"' in (tmp_path / "records").read_bytes()
    finally:
        await agent.close()


async def test_a_driver_that_has_nothing_to_say(sshd, proxy, tmp_path):
    """A link over which nothing is asked for longer than the patience is no link that is away; nothing piles up."""
    options = sshd.options(proxy.port, link_patience=0.2, keepalive=0.1)
    async with connected(options, tmp_path) as (agent, connection, news, lost):
        await connection.spawn(specs(tmp_path, 1, ("/bin/sleep", "300")))
        assert (await connection.run(["sleep", "2"])).code == 0  # five times what the agent waits for a sign of life
        assert lost == [] and proxy.count == 1 and alive(news[0][3])
        assert len(agent._stream._kept) < 200


async def test_a_daemon_that_was_promised_nothing(sshd, proxy, tmp_path):
    """Without keepalive silence is no sign: jobs go on, however short the patience."""
    async with connected(sshd.options(proxy.port, link_patience=0.1, keepalive=0.0), tmp_path) as (
        _,
        connection,
        _,
        lost,
    ):
        assert (await connection.run(["sleep", "1"])).code == 0
        assert lost == [] and proxy.count == 1
