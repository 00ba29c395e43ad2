"""Where the files of databases may be, and what is there already."""

import os
import sys
from pathlib import Path

import anyio
import pytest

from asim import Experiment
from asim.errors import ConfigError, DatabaseError

from .conftest import config, connect, pids

pytestmark = pytest.mark.anyio
DEADLINE = 30


@pytest.mark.parametrize("name", ["a[1]*?", "a b'\"$;\\", "ü€", os.fsdecode(b"\xff"), "x" * 200 + "/" + "y" * 200])
@pytest.mark.slow
async def test_odd_directories(exp: Experiment, home: Path, name: str) -> None:
    """Any directory will do. (Redis takes the path of its configuration for a pattern, and finds nothing.)"""
    db = exp.create_database(port=0, path=home / name)
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
        assert connect(db).set("k", "v") and connect(db).save()
        assert (home / name / "orchestrator_0" / "dump.rdb").exists()
        assert config(db, "bind", "protected-mode") == {"bind": "127.0.0.1", "protected-mode": "no"}
        async with Experiment("later") as later:
            assert await (await later.reconnect_orchestrator(db.checkpoint_file)).is_active()


@pytest.mark.slow
async def test_a_file_where_the_socket_is_to_be(exp: Experiment, home: Path) -> None:
    """Redis would remove what is at the path of its socket; asim refuses, and the file is still there."""
    (home / "data.h5").write_text("data")
    with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError, match=r"data\.h5 exists and is no socket"):
        await exp.start(exp.create_database(port=0, unix_socket=str(home / "data.h5")))
    assert (home / "data.h5").read_text() == "data"


@pytest.mark.slow
async def test_two_databases_at_one_socket(exp: Experiment, home: Path) -> None:
    """Of two databases in one start with one socket path neither takes it away from the other."""
    one, two = (exp.create_database(port=0, unix_socket=str(home / "s"), db_identifier=name) for name in ("a", "b"))
    with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError, match="unix_socket"):
        await exp.start(one, two)
    assert not await one.is_active() and not await two.is_active()


@pytest.mark.slow
async def test_a_stale_socket_is_replaced(exp: Experiment, home: Path) -> None:
    """A socket that a killed server left behind is in nobody's way."""
    db = exp.create_database(port=0, unix_socket=str(home / "s"))
    with anyio.fail_after(DEADLINE):
        await exp.start(db)
        os.kill(pids(db)[0], 9)
        await exp.wait(db)
        assert (home / "s").exists()
        await exp.start(db)
    assert connect(db).ping()


async def test_a_checkpoint_that_cannot_be_read(exp: Experiment, home: Path) -> None:
    """A directory instead of the checkpoint is an error that says so."""
    with pytest.raises(ConfigError, match=r"checkpoint = .*cannot be read: Is a directory"):
        await exp.reconnect_orchestrator(home)


@pytest.mark.slow
async def test_a_file_system_without_locks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be locked, the ranks of a model cannot meet: the job fails and says what to change."""
    (home / "lib").mkdir()
    (home / "lib" / "sitecustomize.py").write_text(
        "import errno, fcntl\ndef flock(*_): raise OSError(errno.ENOSYS, 'Function not implemented')\nfcntl.flock = flock"
    )
    monkeypatch.setenv("PYTHONPATH", f"{home}/lib")  # in the driver's environment, where it is for every Python
    async with Experiment("exp") as exp:
        model = exp.create_model("m", exp.create_run_settings(sys.executable, ["-c", "open('ran', 'w')"]))
        model.colocate_db_tcp(port=0)
        with anyio.fail_after(DEADLINE):
            group = await exp.start(model)
        assert "cannot be locked (Function not implemented); set TMPDIR" in group["m"].stderr.read_text()
    assert not Path("ran").exists()
