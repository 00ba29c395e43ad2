"""Databases that an experiment starts: real servers, real clusters."""

import os
import shutil
import socket
from pathlib import Path

import anyio
import numpy as np
import pytest
import redis

import asim
from asim import Experiment, JobState
from asim.database.server_program import can_listen, free_port
from asim.errors import (
    ConfigError,
    DatabaseError,
    EntityExistsError,
    FileActionError,
    MissingFileError,
)
from tests.integration.conftest import alive, marked, python, sh, until

from .conftest import CLUSTER, config, connect, pids

pytestmark = pytest.mark.anyio
DEADLINE = 30


def three_ports() -> int:
    """The first of three ports that nobody has, nor those of their buses."""
    port = free_port(["127.0.0.1"], cluster=True)
    while not all(can_listen("127.0.0.1", port + more) for more in (0, 1, 2, 10_000, 10_001, 10_002)):
        port += 3
    return port


# -- starting


async def test_standalone(exp: Experiment) -> None:
    """A standalone database answers native and AI commands as soon as ``start`` returns, and is gone after ``stop``."""
    db = exp.create_database(port=0)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(db)
    assert len(group) == 0 and exp.get_status(db) == [JobState.RUNNING]
    assert await db.is_active() and db.hosts == [socket.gethostname()]
    client = connect(db)
    client.execute_command("AI.TENSORSET", "t", "INT8", 1, "BLOB", b"\1")
    assert client.execute_command("AI.TENSORGET", "t", "VALUES") == [1]
    server = pids(db)[0]
    await exp.stop(db)
    assert exp.get_status(db) == [JobState.CANCELLED]
    assert not alive(server) and not await db.is_active()
    with pytest.raises(DatabaseError, match="is not running"):
        db.get_address()


async def test_cluster_on_one_host(exp: Experiment) -> None:
    """Three shards agree on all slots; the state is ok everywhere, and commands are redirected as in any cluster."""
    db = exp.create_database(port=0, db_nodes=3)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
    assert len(set(db.get_address())) == 3 and await db.is_active()
    host, _, port = db.get_address()[0].rpartition(":")
    cluster = redis.RedisCluster(host=host, port=int(port))
    for number in range(50):
        cluster.set(f"k{number}", number)
    assert sum(connect(db, shard).dbsize() for shard in range(3)) == 50
    for shard in range(3):
        found = config(db, "cluster-*", shard=shard)
        assert (found["cluster-require-full-coverage"], found["cluster-node-timeout"]) == ("yes", "15000")


async def test_several_databases(exp: Experiment) -> None:
    """Two databases in one start are both usable; a model is told of both, and its own environment wins."""
    one, two = exp.create_database(port=0), exp.create_database(port=0, db_identifier="two")
    model = sh(exp, "m", "env | grep -E '^(SSDB|SR_|SSKEY)' | sort > \"$0\"", "seen")
    with anyio.fail_after(DEADLINE):
        await exp.start(one, two, model)
    seen = dict(line.split("=", 1) for line in Path("seen").read_text().splitlines())
    assert seen["SSDB"] == one.get_address()[0] and seen["SSDB_two"] == two.get_address()[0]
    assert seen["SR_DB_TYPE"] == "Standalone" and seen["SR_SOCKET_TIMEOUT_two"] == "60000"
    assert seen["SSKEYOUT"] == "m"
    assert "m" in exp.summary() and "DBNode" in exp.summary()


@pytest.mark.slow
async def test_consecutive_ports(exp: Experiment) -> None:
    """A cluster at port p is at p, p+1, p+2."""
    port = three_ports()
    db = exp.create_database(port=port, db_nodes=3)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
    assert db.get_address() == [f"127.0.0.1:{port + shard}" for shard in range(3)]


async def test_a_unix_socket(exp: Experiment) -> None:
    """A database also listens at a socket that only its owner can use."""
    path = Path("d/s").absolute()
    db = exp.create_database(port=0, unix_socket=str(path))
    await exp.start(db)
    assert redis.Redis(unix_socket_path=str(path)).ping()
    assert path.parent.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o077 == 0


async def test_a_big_value_is_allowed(exp: Experiment) -> None:
    """The limit of 512 MiB for one value is raised, also that of the query buffer."""
    db = exp.create_database(port=0)
    await exp.start(db)
    found = config(db, "proto-max-bulk-len", "client-query-buffer-limit")
    assert all(int(value) > 1 << 32 for value in found.values())


@pytest.mark.slow
async def test_a_big_value(exp: Experiment) -> None:
    """A tensor of 600 MiB goes in and comes back."""
    await exp.start(exp.create_database(port=0))
    data = np.full(600 << 20, 7, np.uint8)
    data[-1] = 9
    async with exp.client() as client:
        await client.put_tensor("big", data)
        del data
        found = await client.get_tensor("big")
    assert (found.size, found[0], found[-1]) == (600 << 20, 7, 9)


async def test_options_and_setters(exp: Experiment) -> None:
    """Options given at creation and setters called later both reach every shard; a refused one names the shard."""
    db = exp.create_database(port=0, db_nodes=3, maxmemory_policy="allkeys-lru")
    await exp.start(db)
    await db.set_max_memory("100mb")
    await db.set_max_clients(100)
    await db.set_max_message_size(1 << 30)
    await db.enable_checkpoints(60)
    for shard in range(3):
        found = config(db, "*max*", "save", shard=shard)
        assert (found["maxmemory"], found["maxmemory-policy"]) == (str(100 << 20), "allkeys-lru")
        assert (found["maxclients"], found["proto-max-bulk-len"]) == ("100", str(1 << 30))
        assert found["save"] == "60 1"
    await db.set_eviction_strategy("noeviction")
    with pytest.raises(DatabaseError, match="orchestrator_0 refuses maxmemory = 'lots'"):
        await db.set_max_memory("lots")


async def test_load_from(exp: Experiment) -> None:
    """A database starts with the contents of an RDB file."""
    first = exp.create_database(port=0, db_identifier="first")
    await exp.start(first)
    client = connect(first)
    client.execute_command("AI.TENSORSET", "t", "INT8", 2, "BLOB", b"\1\2")
    client.save()
    second = exp.create_database(port=0, load_from=exp.exp_path + "/first/first_0/dump.rdb")
    await exp.start(second)
    assert connect(second).execute_command("AI.TENSORGET", "t", "VALUES") == [1, 2]


async def test_load_from_its_own_last_dump(exp: Experiment) -> None:
    """A database goes on with what it had saved, though its directory is moved aside."""
    db = exp.create_database(port=0)
    await exp.start(db)
    connect(db).set("k", "v")
    connect(db).save()
    await exp.stop(db)
    again = exp.create_database(port=0, load_from=exp.exp_path + "/orchestrator/orchestrator_0/dump.rdb")
    await exp.start(again)
    assert connect(again).get("k") == b"v"


async def test_load_from_nothing(exp: Experiment) -> None:
    """A file that does not exist is an error before anything is made; a broken one, one that says what Redis said."""
    with pytest.raises(MissingFileError, match=r"orchestrator: load_from = .*nothing.rdb"):
        await exp.start(exp.create_database(port=0, load_from="nothing.rdb"))
    with pytest.raises(MissingFileError, match=r"orchestrator: module = .*nothing.so"):
        await exp.start(exp.create_database(port=0, module="nothing.so"))
    assert not Path(exp.exp_path).exists()
    Path("broken.rdb").write_bytes(b"REDIS0009")
    with pytest.raises(DatabaseError, match=r"redis-server ended while it started: .*(EOF|[Rr]DB)"):
        await exp.start(exp.create_database(port=0, load_from="broken.rdb"))
    assert not list(Path(exp.exp_path, "orchestrator").glob(".asim-*_0.*"))


async def test_stop_and_start_at_once(exp: Experiment) -> None:
    """A database can be started again as soon as ``stop`` has returned."""
    db = exp.create_database(port=0)
    for _ in range(3):
        await exp.start(db)
        await exp.stop(db)


async def test_earlier_data_is_moved_aside(exp: Experiment) -> None:
    """A new start neither loads nor loses what an earlier one left; remove_stale_files removes it."""
    db = exp.create_database(port=0)
    await exp.start(db)
    connect(db).set("k", "v")
    connect(db).save()
    await exp.stop(db)
    await exp.start(db)
    home = Path(exp.exp_path, "orchestrator")
    assert connect(db).dbsize() == 0 and (home / "orchestrator_0.1/dump.rdb").exists()
    await db.remove_stale_files()
    assert not (home / "orchestrator_0.1").exists() and await db.is_active()


async def test_a_model_starts_when_the_database_is_ready(exp: Experiment) -> None:
    """A model in the same start finds its database at the first try."""
    db = exp.create_database(port=0, db_nodes=3)
    code = (
        "import os, socket\n"
        "for address in os.environ['SSDB'].split(','):\n"
        "    host, port = address.split(':'); s = socket.create_connection((host, int(port)))\n"
        "    s.sendall(b'CLUSTER INFO\\r\\n'); assert b'cluster_state:ok' in s.recv(4096)"
    )
    with anyio.fail_after(DEADLINE):
        group = await exp.start(db, python(exp, "m", code), check=True)
    assert group["m"].status is JobState.COMPLETED


# -- errors


@pytest.mark.parametrize("nodes", [1, CLUSTER])
async def test_a_port_in_use(exp: Experiment, nodes: int) -> None:
    """A taken port is refused with the name of its owner, and nothing is left running."""
    with socket.socket() as other:
        port = three_ports()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        db = exp.create_database(port=port, db_nodes=nodes)
        with (
            anyio.fail_after(DEADLINE),
            pytest.raises(DatabaseError, match=rf"{port} on 127.0.0.1 is in use by .*{os.getpid()}"),
        ):
            await exp.start(db)
    assert exp.get_status(db)[0] is JobState.FAILED
    assert all(status.terminal for status in exp.get_status(db)) and not await db.is_active()


async def test_an_unknown_interface(exp: Experiment) -> None:
    """An interface that does not exist is refused with those that do."""
    with pytest.raises(DatabaseError, match=r"interface: 'ib7' does not exist .*; it has .*lo"):
        await exp.start(exp.create_database(port=0, interface="ib7"))


async def test_no_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a redis-server the error says where it was looked for and how to get one."""
    monkeypatch.setenv("ASIM_REDIS_SERVER", "/nonexistent")
    async with Experiment("exp") as exp:
        with pytest.raises(DatabaseError, match=r"ASIM_REDIS_SERVER.*PATH.*pip install 'asim\[database\]'"):
            await exp.start(exp.create_database(port=0))


async def test_no_engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an installation without the compiled engine the error says what to install and what to run."""
    package = Path(asim.__file__).parent
    shutil.copytree(package, home / "site/asim", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(home / "site"))
    async with Experiment("exp") as exp:
        with pytest.raises(DatabaseError, match=r"no compiled engine.*install one \(Debian.* -m asim\.engine\.build"):
            await exp.start(exp.create_database(port=0))


async def test_a_directory_that_cannot_be_made(exp: Experiment) -> None:
    """A path that cannot be a directory is an error, and nothing is left running."""
    Path("file").write_text("")
    with pytest.raises(FileActionError, match="Not a directory: .*file"):
        await exp.start(exp.create_database(port=0, path=Path("file/db").absolute()))


async def test_an_option_that_redis_refuses(exp: Experiment) -> None:
    """A bad option ends the start with Redis' own words."""
    with pytest.raises(DatabaseError, match="redis-server ended while it started: .*Bad directive"):
        await exp.start(exp.create_database(port=0, nonsense_option="1"))


@pytest.mark.slow
async def test_one_of_two_fails(exp: Experiment) -> None:
    """When one database of a start fails, the other is stopped again, and no model is started."""
    good, bad = exp.create_database(port=0), exp.create_database(port=0, db_identifier="bad", nonsense="1")
    model = sh(exp, "m", "true")
    with pytest.raises(DatabaseError, match="database bad"):
        await exp.start(good, bad, model)
    assert exp.get_status(good) == [JobState.CANCELLED] and exp.get_status(model) == [JobState.NEW]
    with anyio.fail_after(DEADLINE):
        await exp.start(good)


async def test_the_same_name_twice(exp: Experiment) -> None:
    """A second database of a running one's name is refused."""
    await exp.start(exp.create_database(port=0))
    with pytest.raises(EntityExistsError, match="db_identifier = 'orchestrator'"):
        await exp.start(exp.create_database(port=0))


@pytest.mark.slow
async def test_the_directory_of_a_running_database(home: Path) -> None:
    """Another experiment cannot start a database in the directory of one that runs."""
    async with Experiment("a") as first, Experiment("b") as second:
        await first.start(first.create_database(port=0, path=home / "d"))
        with pytest.raises(DatabaseError, match="is still running"):
            await second.start(second.create_database(port=0, path=home / "d"))


async def test_cancelled_while_it_starts(exp: Experiment) -> None:
    """A start that nobody waits for any longer leaves no database behind."""
    db = exp.create_database(port=0, db_nodes=3)
    with anyio.move_on_after(0.1):
        await exp.start(db)
    with anyio.fail_after(DEADLINE):
        while not all(status.terminal for status in exp.get_status(db)):
            await anyio.sleep(0.01)


# -- ends


async def test_databases_go_last(home: Path) -> None:
    """At the end of an experiment, an application that writes its last words to the database still can."""
    code = (
        "import os, signal, socket, sys\n"
        "host, port = os.environ['SSDB'].split(':')\n"
        "s = socket.create_connection((host, int(port)))\n"
        "def end(*_):\n"
        "    s.sendall(b'PING\\r\\n'); open('words', 'wb').write(s.recv(99)); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open('up', 'w').close(); signal.pause()"
    )
    async with Experiment("exp") as exp:
        db = exp.create_database(port=0)
        await exp.start(db)
        await exp.start(python(exp, "m", code), block=False)
        await until(Path("up").exists)
        token = exp._runtime().token
    assert Path("words").read_bytes() == b"+PONG\r\n"
    assert not marked(token)


async def test_on_exit_wait_does_not_wait_for_databases(home: Path) -> None:
    """``on_exit="wait"`` waits for the work, and then stops the database."""
    with anyio.fail_after(DEADLINE):
        async with Experiment("exp", on_exit="wait") as exp:
            db = exp.create_database(port=0)
            await exp.start(db)
            group = await exp.start(sh(exp, "m", "sleep 0.2"), block=False)
            await exp.poll(interval=0.1, verbose=False)
    assert group["m"].status is JobState.COMPLETED and exp.get_status(db) == [JobState.CANCELLED]


# -- preview and generate


async def test_preview(exp: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    """A preview shows the database, and writes and starts nothing."""
    await exp.preview(exp.create_database(port=7000, db_nodes=3, maxmemory="1gb"))
    text = capsys.readouterr().out
    assert "Database orchestrator" in text and "port 7002" in text and "option    maxmemory 1gb" in text
    assert not Path(exp.exp_path).exists()


async def test_generate_then_start(exp: Experiment) -> None:
    """``generate(db, overwrite=True)`` then ``start(db)``, as scripts of SmartSim do."""
    db = exp.create_database(port=0)
    await exp.generate(db, overwrite=True)
    await exp.start(db)
    assert await db.is_active()


async def test_client(exp: Experiment) -> None:
    """``exp.client()`` is connected to the one database that runs."""
    with pytest.raises(ConfigError, match="there run: none"):
        exp.client()
    await exp.start(exp.create_database(port=0))
    async with exp.client() as client:
        assert not await client.key_exists("nothing")


async def test_a_database_whose_run_command_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a launcher whose commands are not here, the start says which one, and nothing is left."""
    monkeypatch.setenv("PATH", str(home))
    async with Experiment("exp", launcher="slurm") as exp:
        db = exp.create_database(port=0, db_nodes=3, interface="ib0", run_command="srun")
        with pytest.raises(DatabaseError, match="no such executable: srun"):
            await exp.start(db)


async def test_databases_do_not_count_for_max_concurrent(home: Path) -> None:
    """With one job at a time, a cluster of three still starts, and so do models, one after the other."""
    async with Experiment("exp", max_concurrent=1) as exp:
        with anyio.fail_after(DEADLINE):
            await exp.start(sh(exp, "before", "sleep 0.2"), block=False)
            db = exp.create_database(port=0, db_nodes=3)
            group = await exp.start(db, sh(exp, "a", "echo $$ >> pids"), sh(exp, "b", "echo $$ >> pids"))
        assert {job.status for job in group} == {JobState.COMPLETED}
        first, second = sorted(group, key=lambda job: job.started_at or 0)
        assert second.started_at >= first.ended_at
