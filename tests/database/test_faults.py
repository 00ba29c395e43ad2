"""What goes wrong with databases: each has a defined outcome, an event and a status, and nothing hangs."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
import redis

from asim import EventStream, Experiment, JobState
from asim.errors import AsimError, DatabaseError
from asim.runtime import deployment
from tests.conftest import missing
from tests.integration.conftest import alive, python, sh, until

from .conftest import CLUSTER, connect, node_pids, pids

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 30


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases are looked at ten times as often."""
    monkeypatch.setattr(deployment, "HEALTH_PERIOD", 0.2)


async def event(stream: EventStream, name: str, words: str) -> JobState:
    """The state in the first event of this job whose reason has these words."""
    with anyio.fail_after(DEADLINE):
        async for found in stream:
            if found.name == name and words in found.reason:
                return found.state
    raise AssertionError


@pytest.mark.parametrize("nodes", [1, CLUSTER])
async def test_the_server_is_killed(exp: Experiment, nodes: int) -> None:
    """kill -9 of redis-server: its shard FAILED with the signal's name, the database is inactive, models go on."""
    db = exp.create_database(port=0, db_nodes=nodes)
    await exp.start(db)
    await exp.start(sh(exp, "m", "sleep 60"), block=False)
    stream = exp.events()
    os.kill(pids(db)[0], signal.SIGKILL)
    assert await event(stream, "orchestrator_0", "exit code 1") is JobState.FAILED
    await until(lambda: db._handle is None)
    assert not await db.is_active() and exp.get_status(db)[0] is JobState.FAILED
    job = exp._jobs([db])[0]
    assert "redis-server was killed by SIGKILL" in job.stderr.read_text()
    with pytest.raises(DatabaseError, match="is not running"):
        db.get_address()


async def test_the_node_is_killed(exp: Experiment) -> None:
    """kill -9 of the node: its server ends with it, and the shard FAILED."""
    db = exp.create_database(port=0)
    await exp.start(db)
    server, stream = pids(db)[0], exp.events()
    os.kill(node_pids(db)[0], signal.SIGKILL)
    assert await event(stream, "orchestrator_0", "SIGKILL") is JobState.FAILED
    await until(lambda: not alive(server))
    await until(lambda: db._handle is None)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
    assert await db.is_active()


async def test_the_node_is_killed_with_nobody_to_see(home: Path) -> None:
    """Without any agent, too, the kernel ends a server whose node was killed."""
    from asim.database.config import NodeConfig

    config = NodeConfig(name="o", run="r", directory=str(home), ports=[0], interfaces=["lo"], secret="s")
    Path("c.json").write_text(config.to_json())
    node = subprocess.Popen([sys.executable, "-P", "-m", "asim.database.node", "c.json", "0"])
    try:
        await until(Path(config.report(0)).exists, DEADLINE)
        import json

        server = json.loads(Path(config.report(0)).read_text())["pid"]
        assert alive(server)
    finally:
        node.kill()
        node.wait()
    await until(lambda: not alive(server))


@pytest.mark.parametrize("nodes", [1, CLUSTER])
async def test_a_stopped_shard(exp: Experiment, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: an event says that the shard does not answer (it is RUNNING still); after SIGCONT, that it is well."""
    from asim.database import server

    monkeypatch.setattr(server, "ANSWER", 0.5)
    db = exp.create_database(port=0, db_nodes=nodes)
    await exp.start(db)
    stream = exp.events()
    os.kill(pids(db)[0], signal.SIGSTOP)
    try:
        assert await event(stream, "orchestrator_0", "does not answer") is JobState.RUNNING
        assert not await db.is_active()
        assert "does not answer" in exp._jobs([db])[0].reason
    finally:
        os.kill(pids(db)[0], signal.SIGCONT)
    assert await event(stream, "orchestrator_0", "is well again") is JobState.RUNNING
    assert await db.is_active()


async def test_a_stopped_shard_is_stopped(exp: Experiment) -> None:
    """A database that does not answer can still be ended."""
    db = exp.create_database(port=0)
    await exp.start(db)
    server = pids(db)[0]
    os.kill(server, signal.SIGSTOP)
    with anyio.fail_after(DEADLINE):
        await exp.stop(db)
    assert not alive(server)


async def test_a_stopped_shard_of_another_experiment(exp: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping a database of another experiment that does not answer is an error; it is not said to have ended."""
    from asim.database import server

    db = exp.create_database(port=0)
    await exp.start(db)
    monkeypatch.setattr(server, "ANSWER", 0.5)
    async with Experiment("later") as later:
        found = await later.reconnect_orchestrator(db.checkpoint_file)
        os.kill(pids(db)[0], signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseError, match="orchestrator_0 did not end"):
                await later.stop(found)
            assert later.get_status(found) == [JobState.RUNNING]
        finally:
            os.kill(pids(db)[0], signal.SIGCONT)


async def test_a_full_disk_at_the_end(exp: Experiment, small_disk: Path) -> None:
    """A server beside a model that cannot save its data ends with the model all the same, and leaves nothing."""
    code = (
        "import os, socket\n"
        "host, port = os.environ['SSDB'].split(':'); s = socket.create_connection((host, int(port)))\n"
        "s.sendall(b'*3\\r\\n$3\\r\\nSET\\r\\n$1\\r\\nk\\r\\n$2000000\\r\\n' + os.urandom(2000000) + b'\\r\\n')\n"
        "assert s.recv(5) == b'+OK\\r\\n'"
    )
    settings = exp.create_run_settings(sys.executable, ["-I", "-S", "-c", code], env_vars={"TMPDIR": str(small_disk)})
    model = exp.create_model("m", settings)
    model.colocate_db_tcp(port=0, save="1 1")
    with anyio.fail_after(DEADLINE):
        group = await exp.start(model)
        assert group["m"].status is JobState.COMPLETED, group["m"].stderr.read_text()
        await until(lambda: not list(small_disk.glob("asim-*/*")))


async def test_memory_full(exp: Experiment) -> None:
    """At maxmemory writes are refused with Redis' error, reads go on, and an event says so; deleting makes it well."""
    db = exp.create_database(port=0, maxmemory="8mb")
    await exp.start(db)
    stream, client = exp.events(), connect(db)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        for number in range(32):
            client.execute_command("AI.TENSORSET", f"t{number}", "UINT8", 1 << 20, "BLOB", bytes(1 << 20))
    assert await event(stream, "orchestrator_0", "its memory is full") is JobState.RUNNING
    assert await db.is_active()  # it does its work, as far as it can
    assert client.execute_command("AI.TENSORGET", "t0", "META")[3] == [1 << 20]
    client.flushdb()
    assert await event(stream, "orchestrator_0", "is well again") is JobState.RUNNING


async def test_eviction(exp: Experiment) -> None:
    """With an eviction policy tensors are evicted like any key, and writes go on."""
    db = exp.create_database(port=0, maxmemory="8mb", maxmemory_policy="allkeys-lru")
    await exp.start(db)
    client = connect(db)
    for number in range(32):
        client.execute_command("AI.TENSORSET", f"t{number}", "UINT8", 1 << 20, "BLOB", bytes(1 << 20))
    assert 0 < client.dbsize() < 10 and client.exists("t31")


@pytest.fixture
def small_disk(home: Path):
    """A file system of 1 MB."""
    place = home / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        missing("a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_disk(exp: Experiment, small_disk: Path) -> None:
    """SAVE on a full disk is an error for who asked; the data stay, the database goes on, an event says it."""
    db = exp.create_database(port=0, path=small_disk / "db")
    await exp.start(db)
    client, stream = connect(db), exp.events()
    data = os.urandom(2 << 20)
    client.execute_command("AI.TENSORSET", "t", "UINT8", len(data), "BLOB", data)
    with pytest.raises(redis.exceptions.ResponseError):
        client.save()
    client.bgsave()
    assert await event(stream, "orchestrator_0", "its last save to disk failed") is JobState.RUNNING
    assert client.execute_command("AI.TENSORGET", "t", "BLOB") == data
    await exp.stop(db)


async def test_a_disk_that_is_full_at_the_start(exp: Experiment, small_disk: Path) -> None:
    """No room for the configuration: an error with the reason, and nothing is left running."""
    (small_disk / "fill").write_bytes(bytes(1 << 20))
    with anyio.fail_after(DEADLINE), pytest.raises(AsimError, match="No space left"):
        await exp.start(exp.create_database(port=0, path=small_disk / "db"))


async def test_half_a_command(exp: Experiment) -> None:
    """A client that sends half a command and stays hinders nobody, and the database still ends."""
    db = exp.create_database(port=0)
    await exp.start(db)
    host, port = db.get_address()[0].split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"*4\r\n$12\r\nAI.TENSORSET\r\n$1\r\nt\r\n$5\r\nFLO")
        connect(db).set("k", "v")
        with anyio.fail_after(DEADLINE):
            await exp.stop(db)


async def test_two_thousand_idle_connections(exp: Experiment, files: None) -> None:
    """2,000 connections that do nothing are all accepted, and asim's own still gets through."""
    db = exp.create_database(port=0)
    await exp.start(db)
    host, port = db.get_address()[0].split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(2000)]
    try:
        assert connect(db).info("clients")["connected_clients"] >= 2000
        assert await db.is_active()
    finally:
        for connection in idle:
            connection.close()


async def test_the_agent_is_killed(exp: Experiment) -> None:
    """kill -9 of the agent: databases end like every other job, and the next start gets new ones."""
    db = exp.create_database(port=0)
    await exp.start(db)
    server = pids(db)[0]
    agent = exp._runtime()._holder.about["pid"]
    os.kill(agent, signal.SIGKILL)
    await until(lambda: not alive(server), DEADLINE)
    await until(lambda: exp.get_status(db)[0].terminal)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
    assert await db.is_active()


async def test_a_database_that_ends_while_models_start(exp: Experiment) -> None:
    """Killing the server between two starts: the second model is started without the address of what is gone."""
    db = exp.create_database(port=0)
    await exp.start(db)
    os.kill(pids(db)[0], signal.SIGKILL)
    await until(lambda: exp.get_status(db)[0].terminal and db._handle is None)
    group = await exp.start(python(exp, "m", "import os; print('SSDB' in os.environ)"))
    assert group["m"].stdout.read_text().strip() == "False"


async def test_shut_down_by_hand(exp: Experiment) -> None:
    """A server that its administrator ends is COMPLETED, not FAILED."""
    db = exp.create_database(port=0)
    await exp.start(db)
    await db._handle.shut_down()
    with anyio.fail_after(DEADLINE):
        await until(lambda: exp.get_status(db)[0].terminal)
    assert exp.get_status(db) == [JobState.COMPLETED]


def test_a_long_log_is_rotated(home: Path) -> None:
    """A log that has grown is renamed under the running server, which goes on in a new one; three are kept."""
    from asim.database import server_process

    log = home / "redis.log"
    process = server_process.ServerProcess.__new__(server_process.ServerProcess)
    process.log = str(log)
    for number in range(5):
        log.write_bytes(b"%d" % number + bytes(server_process.LOG_BYTES))
        process._rotate_log()
        assert not log.exists()
    kept = sorted(path.name for path in home.glob("redis.log.*"))
    assert kept == ["redis.log.1", "redis.log.2", "redis.log.3"]
    assert (home / "redis.log.1").read_bytes()[:1] == b"4"
