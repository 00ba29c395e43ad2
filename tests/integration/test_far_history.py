"""The history of an experiment on another host, over a real sshd."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim import AsimError, Experiment
from asim.runtime import history
from asim.runtime.history import read_history
from asim.runtime.journal import header
from asim.status import JobState
from asim.transport import far as far_module
from asim.transport import ssh as ssh
from tests.integration.conftest import until
from tests.integration.ssh import SSHServer
from tests.integration.ssh import sshd as sshd
from tests.unit.test_journal import NOBODY, keep, lines_for

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def far(sshd: SSHServer, name: str, **options: Any) -> Experiment:
    """One on that host, in a directory of this test's own with blanks and quotes."""
    return Experiment(
        name, Path.cwd() / "far it's" / name, host="127.0.0.1", ssh=sshd.options(), stop_grace=1, **options
    )


def ends(rows: list[dict[str, Any]]) -> list[tuple[str, str, int | None]]:
    """Name, state and exit code of each."""
    return [(row["name"], row["status"], row["returncode"]) for row in rows]


async def test_earlier_runs(sshd, home):
    """Runs on the far host are told in their order, the current one left out, with the paths that files have there."""
    for line in ("exit 0", "exit 3"):
        async with far(sshd, "runs") as exp:
            await exp.start(exp.create_model(f"m{line[-1]}", exp.create_run_settings("sh", ["-c", line])))
    async with far(sshd, "runs") as exp:
        assert ends(await exp.history()) == [
            ("m0", "COMPLETED", 0),
            ("m3", "FAILED", 3),
        ]  # the first thing that is asked
        await exp.start(exp.create_model("now", exp.create_run_settings("true")))
        rows = await exp.history()
    assert ends(rows) == [("m0", "COMPLETED", 0), ("m3", "FAILED", 3)]
    there = str(home / "far it's/runs")
    assert [row["stdout"] for row in rows] == [f"{there}/m0.out", f"{there}/m3.out"]
    assert all(row["started_at"] < row["ended_at"] and row["host"] == os.uname().nodename for row in rows)
    assert ends(await anyio.to_thread.run_sync(read_history, there))[:2] == ends(rows)


async def test_nothing_to_tell(sshd, home):
    """A directory that is not there has no history."""
    async with far(sshd, "fresh") as exp:
        assert await exp.history() == []


async def test_detached_jobs(sshd, home):
    """What was detached is RUNNING while its agent lives, and has its end and code afterwards; a killed agent's is LOST."""
    async with far(sshd, "left", on_exit="detach") as exp:
        go = home / "go"
        line = f"while [ ! -e '{go}' ]; do sleep 0.05; done; exit 4"
        model = exp.create_model("waits", exp.create_run_settings("sh", ["-c", line]))
        group = await exp.start(model, block=False)
        with anyio.fail_after(20):
            while group[0].status is not JobState.RUNNING:
                await anyio.sleep(0.01)
    async with far(sshd, "left") as exp:
        (row,) = await exp.history()
        assert (row["status"], row["reason"], row["ended_at"]) == ("RUNNING", "", None)
        assert row["pid"] == group[0].pid
        go.touch()
        with anyio.fail_after(20):
            while (row := (await exp.history())[0])["status"] == "RUNNING":
                await anyio.sleep(0.05)
        assert (row["status"], row["returncode"], row["reason"]) == ("FAILED", 4, "exit code 4")


async def test_an_agent_that_was_killed(sshd, home):
    """An agent that is gone without having recorded an end is told from one that lives."""
    async with far(sshd, "killed", on_exit="detach") as exp:
        model = exp.create_model("m", exp.create_run_settings("sleep", ["318.1"]))
        group = await exp.start(model, block=False)
        with anyio.fail_after(20):
            while group[0].status is not JobState.RUNNING:
                await anyio.sleep(0.01)
    (path,) = (home / "far it's/killed/.asim").glob("*.journal.jsonl")
    agent = json.loads(path.read_text().splitlines()[0])["agent"]["pid"]
    async with far(sshd, "killed") as exp:
        assert ends(await exp.history()) == [("m", "RUNNING", None)]
        os.kill(agent, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{agent}").exists())
        (row,) = await exp.history()
        assert (row["status"], row["reason"]) == ("LOST", "its agent is gone and left no record of its end")
    pid = group[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def test_members_of_batch_jobs(sshd, home):
    """What members wrote of themselves is read, of many runs, and of the last attempt of each."""
    place = home / "far it's/batch"
    place.mkdir(parents=True)
    for number in range(3):
        token = f"2026010{number}T000000.000000-00000000"
        keep(place, token, [header(token, "batch", "slurm", NOBODY), *lines_for("a", "b", "c")])
        told = place / f".asim/{token}.ends"
        told.mkdir()
        texts = {
            "1.0.start": "1.5 n1 77\n", "1.0.end": "143 2.0\n", "1.1.start": "3.5 n2 78\n", "1.1.end": f"{number} 4.25\n",
            "2.0.start": "1.0 n1 79\n", "2.0.end": "126 2.0 cannot write /d\u00e9:\u2028x\n", "3.0.start": "", "note": "x\n",
        }  # fmt: skip
        for name, text in texts.items():
            (told / name).write_text(text)
    (place / ".asim/other.ends").mkdir()
    (place / ".asim/other.ends/1.0.end").write_text("9 9\n")
    async with far(sshd, "batch") as exp:
        rows = await exp.history()
    assert ends(rows)[::3] == [("a", "COMPLETED", 0), ("a", "FAILED", 1), ("a", "FAILED", 2)]
    assert ends(rows)[1:3] == [("b", "FAILED", None), ("c", "LOST", None)]
    assert rows[1]["reason"] == "cannot write /dé:\u2028x"
    assert (rows[0]["host"], rows[0]["pid"], rows[0]["ended_at"].timestamp()) == ("n2", 78, 4.25)
    local = await anyio.to_thread.run_sync(read_history, str(place))
    assert [row for row in rows if row["name"] != "c"] == [row for row in local if row["name"] != "c"]


async def test_long_journals(sshd, home, monkeypatch):
    """A journal that is longer than one piece is read whole, also when a piece ends with the file."""
    place = home / "far it's/long"
    place.mkdir(parents=True)
    names = [f"m{number}" for number in range(40)]
    text = [header("t", "long", "local", NOBODY), *lines_for(*names)]
    keep(place, "t", text, [[[number, "end", 1.0, 0, None, None]] for number in range(1, 41)])
    size = len("".join(text).encode())
    async with far(sshd, "long") as exp:
        for piece in (size // 3, size, size + 1):
            for module in (far_module, history):
                monkeypatch.setattr(module, "PIECE", piece)
            assert ends(await exp.history()) == [(name, "COMPLETED", 0) for name in names]


async def test_after_the_end(sshd, home):
    """Without a connection the history is an error in words, not an empty list."""
    exp = far(sshd, "closed")
    async with exp:
        await exp.start(exp.create_model("m", exp.create_run_settings("true")))
    with pytest.raises(AsimError, match="closed"):
        await exp.history()
