"""Databases that another process started, perhaps on another day."""

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process

from asim import Experiment, JobState
from asim.errors import ConfigError, DatabaseError, EntityExistsError, MissingFileError
from tests.integration.conftest import alive, sh, until

from .conftest import CLUSTER

pytestmark = pytest.mark.anyio
DEADLINE = 30

DRIVER = """
import asyncio, sys
from asim import Experiment
async def main():
    async with Experiment("exp", on_exit={on_exit!r}) as exp:
        db = exp.create_database(port=0, db_nodes={nodes})
        await exp.start(db)
        (await asyncio.to_thread(print, db.checkpoint_file, *[s.pid for s in db._handle.shards], flush=True))
        if {on_exit!r} == "stop":
            await asyncio.sleep(60)
asyncio.run(main())
"""


@asynccontextmanager
async def driver(on_exit: str, nodes: int = 1) -> AsyncIterator[tuple[Path, list[int], Process]]:
    """A driver in another process: its database's checkpoint, the servers' process ids, itself."""
    code = DRIVER.format(on_exit=on_exit, nodes=nodes)
    with anyio.fail_after(DEADLINE):
        async with await anyio.open_process([sys.executable, "-c", code], stderr=None) as process:
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive()
            path, *numbers = line.decode().split()
            yield Path(path), [int(number) for number in numbers], process


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, CLUSTER])
async def test_detach_and_reconnect(home: Path, nodes: int) -> None:
    """A database left running on purpose is found again by its checkpoint, used, and stopped; then it is refused."""
    async with driver("detach", nodes) as (checkpoint, servers, process):
        await process.wait()
    assert checkpoint.stat().st_mode & 0o077 == 0
    async with Experiment("later") as exp:
        db = await exp.reconnect_orchestrator(checkpoint)
        assert await db.is_active() and db.num_shards == nodes
        assert exp.get_status(db) == [JobState.RUNNING] * nodes
        await db.set_max_memory("1gb")
        group = await exp.start(sh(exp, "m", 'echo "$SSDB $SR_DB_TYPE"'))
        assert group["m"].stdout.read_text().split()[0] == ",".join(db.get_address())
        with pytest.raises(EntityExistsError, match="is running in this experiment"):
            await exp.reconnect_orchestrator(checkpoint)
        await exp.stop(db)
        with anyio.fail_after(DEADLINE):
            await until(lambda: not any(alive(pid) for pid in servers))
        with pytest.raises(DatabaseError, match="is not alive"):
            await exp.reconnect_orchestrator(checkpoint)


@pytest.mark.slow
async def test_a_detached_database_is_still_known(home: Path) -> None:
    """After a detaching experiment has ended, its database still says where it is and that it lives."""
    async with Experiment("exp", on_exit="detach") as exp:
        db = exp.create_database(port=0)
        await exp.start(db)
    assert await db.is_active() and len(db.get_address()) == 1
    async with Experiment("last") as last:
        again = await last.reconnect_orchestrator(db.checkpoint_file)
        await last.stop(again)
        await last.stop(again)
        assert last.get_status(again) == [JobState.CANCELLED]
    assert not await db.is_active()


@pytest.mark.slow
async def test_a_reconnected_database_survives_the_experiment(home: Path) -> None:
    """An experiment does not end a database that it did not start."""
    async with driver("detach") as (checkpoint, (server,), process):
        await process.wait()
    async with Experiment("later") as exp:
        await exp.reconnect_orchestrator(checkpoint)
    assert alive(server)
    async with Experiment("last") as exp:
        await exp.stop(await exp.reconnect_orchestrator(checkpoint))
    await until(lambda: not alive(server))


async def test_another_server_at_the_same_address(exp: Experiment) -> None:
    """A checkpoint whose address is now another server's is refused."""
    db = exp.create_database(port=0)
    await exp.start(db)
    data = json.loads(Path(db.checkpoint_file).read_text())
    data["shards"][0]["run_id"] = "0" * 40
    data["db_identifier"] = "other"
    Path("c.json").write_text(json.dumps(data))
    with pytest.raises(DatabaseError, match="another server than the one that was started"):
        await exp.reconnect_orchestrator("c.json")


async def test_checkpoints_that_are_none(exp: Experiment) -> None:
    """A missing file and a file of another kind are refused with their names."""
    with pytest.raises(MissingFileError, match="nothing.json"):
        await exp.reconnect_orchestrator("nothing.json")
    for text in ("{", "[]", '{"version": 1}', "x"):
        Path("c.json").write_text(text)
        with pytest.raises(ConfigError, match=r"c.json.* is not the checkpoint file"):
            await exp.reconnect_orchestrator("c.json")


@pytest.mark.slow
async def test_the_driver_is_killed(home: Path) -> None:
    """After kill -9 of the driver, its database ends."""
    async with driver("stop", 3) as (_, servers, process):
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await until(lambda: not any(alive(pid) for pid in servers), DEADLINE)
