"""An application that means harm: every known way from an open Redis to code, files or other users is tried."""

import os
from pathlib import Path

import anyio
import pytest
import redis

from asim import Experiment
from tests.integration.conftest import sh, until

from .conftest import CLUSTER, config, connect

pytestmark = pytest.mark.anyio

REFUSED = [
    # code
    "MODULE LOAD /tmp/evil.so", "MODULE LOADEX /tmp/evil.so", "MODULE UNLOAD asim", "MODULE LIST",
    "EVAL return(1) 0", "EVALSHA 0 0", "EVAL_RO return(1) 0", "SCRIPT LOAD return(1)", "FUNCTION LOAD x", "FCALL f 0",
    "DEBUG SLEEP 0", "DEBUG SEGFAULT", "DEBUG OBJECT k", "RESTORE k 0 x", "RESTORE-ASKING k 0 x",
    # files
    "CONFIG SET dir /tmp", "CONFIG SET dbfilename x.so", "CONFIG SET logfile /tmp/x", "CONFIG SET aclfile /tmp/x",
    "CONFIG SET appendfilename x", "CONFIG SET appendonly yes", "CONFIG SET unixsocket /tmp/x", "CONFIG REWRITE",
    "CONFIG SET maxmemory 1gb dir /tmp", "CONFIG SET save x dbfilename y", "ASIM.CONFIGSET dir /tmp",
    "ASIM.CONFIGSET maxmemory 1gb dir /tmp", "CONFIG SET DIR /tmp", "config set Dir /tmp", "BGREWRITEAOF",
    # the network and other servers
    "REPLICAOF 127.0.0.1 1", "SLAVEOF NO ONE", "MIGRATE 127.0.0.1 1 k 0 1", "PSYNC ? -1", "SYNC", "REPLCONF listening-port 1",
    "CONFIG SET bind 0.0.0.0", "CONFIG SET port 0", "CONFIG SET protected-mode no", "CONFIG SET masteruser x",
    "CONFIG SET replica-announce-ip 1.2.3.4", "CONFIG SET cluster-announce-ip 1.2.3.4", "FAILOVER",
    "CLUSTER MEET 127.0.0.1 1", "CLUSTER RESET HARD", "CLUSTER FORGET x", "CLUSTER FAILOVER TAKEOVER",
    # rights, and other users
    "ACL SETUSER default +@all", "ACL LIST", "ACL SETUSER evil on nopass ~* +@all", "ACL GETUSER asim", "ACL LOAD",
    "CONFIG SET requirepass x", "CONFIG SET masterauth x", "MONITOR", "SHUTDOWN", "SHUTDOWN NOSAVE",
    "CLIENT KILL TYPE normal", "CLIENT LIST", "CONFIG SET maxclients 1", "CLIENT PAUSE 1000", "SLOWLOG GET", "LATENCY DOCTOR", "SWAPDB 0 1",
    "CONFIG RESETSTAT",
]  # fmt: skip


@pytest.mark.parametrize("nodes", [1, CLUSTER])
async def test_everything_dangerous_is_refused(exp: Experiment, nodes: int) -> None:
    """Whoever connects without credentials gets NOPERM for each of these, or an error of an unknown command; never OK."""
    db = exp.create_database(port=0, db_nodes=nodes)
    await exp.start(db)
    granted = []
    for line in REFUSED:
        client = connect(db)
        try:
            granted.append((line, client.execute_command(*line.split())))
        except redis.exceptions.ResponseError as exc:
            words = str(exc).lower()
            if not any(
                word in words
                for word in (
                    "permissions",
                    "unknown command",
                    "unknown subcommand",
                    "not allowed",
                    "sets only parameters",
                )
            ):
                granted.append((line, exc))
        client.close()
    assert granted == []
    assert await db.is_active()


@pytest.mark.slow
async def test_nothing_changed(exp: Experiment) -> None:
    """After all attempts the paths, the listening addresses and the rules are what they were."""
    db = exp.create_database(port=0)
    await exp.start(db)
    names = ("dir", "dbfilename", "logfile", "bind", "port", "appendonly", "requirepass")
    before = config(db, *names)
    rules = await db._handle.clients[0].execute("ACL", "GETUSER", "default")
    for line in REFUSED:
        with pytest.raises(redis.exceptions.ResponseError):
            connect(db).execute_command(*line.split())
    assert config(db, *names) == before
    assert await db._handle.clients[0].execute("ACL", "GETUSER", "default") == rules


@pytest.mark.slow
async def test_a_guessed_password(exp: Experiment) -> None:
    """The administrator's password is random, and no guess of the usual ones is it."""
    db = exp.create_database(port=0)
    await exp.start(db)
    for guess in ("", "asim", "redis", "orchestrator", db.name):
        with pytest.raises(redis.exceptions.AuthenticationError):
            connect(db).execute_command("AUTH", "asim", guess)


async def test_what_applications_need_is_allowed(exp: Experiment) -> None:
    """Data, AI commands, INFO, harmless configuration, SAVE, FLUSHDB, transactions and notifications work."""
    db = exp.create_database(port=0)
    await exp.start(db)
    client = connect(db)
    client.set("k", "v")
    client.hset("h", "f", "v")
    client.rpush("l", "1")
    client.rename("k", "k2")
    client.copy("k2", "k3")
    client.unlink("k3")
    client.execute_command("AI.TENSORSET", "t", "INT8", 1, "VALUES", 1)
    assert client.execute_command("AI.CONFIG", "GET", "MODEL_CHUNK_SIZE") > 0
    client.config_set("maxmemory", "1gb")
    client.config_set("notify-keyspace-events", "KEA")
    assert client.config_get("maxmemory") == {"maxmemory": str(1 << 30)}
    assert client.info("everything")["redis_version"]
    with client.pubsub() as listener:
        listener.psubscribe("__keyevent@0__:*")
        assert listener.get_message(timeout=5)["type"] == "psubscribe"
        client.set("n", "1")
        assert listener.get_message(timeout=5)["data"] == b"n"
    with client.pipeline(transaction=True) as pipe:
        assert pipe.set("a", 1).get("a").execute() == [True, b"1"]
    assert client.scan()[1] and client.dbsize() and client.lastsave()
    assert client.save()
    assert client.flushdb()
    assert client.type("t") == b"none"


async def test_only_the_asked_interface(exp: Experiment) -> None:
    """A database on "lo" is not reached by another address of this host, and no other port is open."""
    import psutil

    db = exp.create_database(port=0)
    await exp.start(db)
    server = psutil.Process(db._handle.shards[0].pid)
    listening = {tuple(row.laddr) for row in server.net_connections() if row.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", db._handle.shards[0].port)}


async def test_secrets_are_files_of_the_owner_only(exp: Experiment) -> None:
    """No file that holds the password can be read by others, and it is in no command line, environment or log."""
    db = exp.create_database(port=0)
    await exp.start(db)
    await exp.start(sh(exp, "m", "env"))
    secret = db._handle.secret.encode()
    found = [path for path in Path(exp.exp_path).rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert found and all(path.stat().st_mode & 0o077 == 0 for path in found)
    for pid in (db._handle.shards[0].pid, db._handle.shards[0].node_pid):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    assert Path(exp.exp_path, "orchestrator/orchestrator_0").stat().st_mode & 0o777 == 0o700


async def test_a_place_that_somebody_else_made(exp: Experiment, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Where ranks meet must be private: a directory that others may write to is refused, and the program does not run."""
    shared = home / "tmp"
    (shared / f"asim-{os.getuid()}").mkdir(parents=True)
    (shared / f"asim-{os.getuid()}").chmod(0o777)
    settings = exp.create_run_settings("/bin/sh", ["-c", "touch ran"], env_vars={"TMPDIR": str(shared)})
    model = exp.create_model("m", settings)
    model.colocate_db_tcp(port=0)
    with anyio.fail_after(30):
        group = await exp.start(model)
    assert "is not a private directory" in group["m"].stderr.read_text() and not Path("ran").exists()


async def test_the_same_rules_beside_a_model(exp: Experiment) -> None:
    """A colocated database refuses the same as a standard one."""
    path = Path("s.sock").absolute()
    model = sh(exp, "m", "touch up; sleep 60")
    model.colocate_db_uds(unix_socket=str(path))
    await exp.start(model, block=False)
    await until(Path("up").exists)
    client = redis.Redis(unix_socket_path=str(path))
    for line in ("CONFIG SET dir /tmp", "MODULE LIST", "DEBUG SLEEP 0", "SHUTDOWN"):
        with pytest.raises(redis.exceptions.ResponseError, match="permissions|not allowed"):
            client.execute_command(*line.split())
    assert path.stat().st_mode & 0o777 == 0o755  # as SmartSim has it: who may not write to it cannot connect
