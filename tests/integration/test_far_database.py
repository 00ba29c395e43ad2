"""Databases of an experiment on another host, over a real sshd: its own programs, and ports that lead there."""

import os
import sys
from pathlib import Path

import anyio
import numpy as np
import pytest

import asim.transport.ssh  # noqa: F401  (importing asyncssh blocks: not in a test)
from asim import Client, Experiment, JobState
from asim.database.server_program import find_server
from asim.engine.build import module_file
from asim.errors import ConfigError, DatabaseError
from tests.conftest import missing
from tests.integration.ssh import Proxy, SSHServer
from tests.integration.ssh import sshd as sshd

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

START = "import os, asim, numpy as np; c = asim.SyncClient(os.environ['SSDB']); "


@pytest.fixture(autouse=True)
def needed() -> None:
    """Skip where no database can be started."""
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    if not module_file().exists():
        missing("the engine was not compiled")


def far(sshd: SSHServer, home: Path, port: int | None = None) -> Experiment:
    """One on that host, where asim is installed."""
    ssh = sshd.options(port, python=sys.executable)
    return Experiment("exp", exp_path=home / "far", host="127.0.0.1", ssh=ssh, stop_grace=1)


@pytest.mark.parametrize("shards", [1, 3])
async def test_tensors_through_a_link_that_is_cut(sshd, home, shards):
    """Whatever shard a tensor is on, it is put and got through forwarded ports, also over a link that was made again."""
    tensors = {f"t{number}": np.arange(number, number + 1000.0) for number in range(20)}
    async with Proxy(sshd.port) as proxy:
        sshd.know(proxy.port)
        with anyio.fail_after(90):
            async with far(sshd, home, proxy.port) as exp:
                db = exp.create_database(port=0, db_nodes=shards)
                await exp.start(db)
                async with exp.client(db) as client:
                    for name, tensor in tensors.items():
                        await client.put_tensor(name, tensor)
                    for cuts in range(1, 3):
                        links = proxy.count
                        proxy.cut()
                        if cuts == 2:
                            await client.put_tensor("t0", tensors["t0"])
                        for name, tensor in tensors.items():
                            assert np.array_equal(await client.get_tensor(name), tensor)
                        assert proxy.count == links + 1
                        tensors[f"after{cuts}"] = np.full((2, 3), cuts)
                        await client.put_tensor(f"after{cuts}", tensors[f"after{cuts}"])
                    before = proxy.carried
                    await client.put_tensor("large", np.random.default_rng(0).random(1 << 20))
                    assert proxy.carried - before > 7 << 20  # it really went through the link
                assert exp.get_status(db) == [JobState.RUNNING] * shards and await db.is_active()


async def test_a_program_there_finds_what_was_put_here(sshd, home):
    """Jobs there and the driver here mean the same database by different addresses."""
    code = START + "c.put_tensor('there', c.get_tensor('here') * 2)"
    with anyio.fail_after(90):
        async with far(sshd, home) as exp:
            db = exp.create_database(port=0)
            await exp.start(db)
            async with exp.client() as client:
                await client.put_tensor("here", np.arange(5.0))
                model = exp.create_model("m", exp.create_run_settings(sys.executable, ["-c", code]))
                (job,) = await exp.start(model)
                assert job.status is JobState.COMPLETED, job.reason
                assert np.array_equal(await client.get_tensor("there"), np.arange(5.0) * 2)


async def test_a_socket_there(sshd, home):
    """A Unix socket there is reached by the same way as a port, also over a link that was made again."""
    path = home / "db.sock"
    async with Proxy(sshd.port) as proxy:
        sshd.know(proxy.port)
        with anyio.fail_after(60):
            async with far(sshd, home, proxy.port) as exp:
                db = exp.create_database(port=0, unix_socket=str(path))
                await exp.start(db)
                async with Client(f"unix://{path}", route=exp._runtime().route) as client, exp.client(db) as other:
                    await client.put_tensor("x", np.arange(3))
                    proxy.cut()
                    assert np.array_equal(await client.get_tensor("x"), np.arange(3))
                    assert np.array_equal(await other.get_tensor("x"), np.arange(3))


async def test_a_database_beside_a_model_is_the_models_own(sshd, home):
    """A colocated database works there for its model, and the driver has no client of it."""
    code = START + "c.put_tensor('x', np.arange(3)); print(c.get_tensor('x').sum())"
    with anyio.fail_after(60):
        async with far(sshd, home) as exp:
            model = exp.create_model("m", exp.create_run_settings(sys.executable, ["-c", code]))
            model.colocate_db_uds(unix_socket=str(home / "s.sock"))
            group = await exp.start(model, block=False)
            with pytest.raises(ConfigError, match="exactly one must be running, but there run: none"):
                exp.client()
            with pytest.raises(DatabaseError, match="database m is not running"):
                exp.client(model)
            await group.wait()
            assert group[0].status is JobState.COMPLETED, group[0].reason
    assert (home / "exp/m.out").read_text().strip() == "3"
