"""What an experiment's directory remembers."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asim.launchers.base import JobKey
from asim.runtime import journal
from asim.runtime.history import read_history
from asim.runtime.journal import header, job_actions, journal_path, new_token, records_path

from .makers import ensemble, model, planned

NOBODY = {"host": "h", "pid": 2**22 + 1, "stamp": 1}  # above the largest pid there can be


def stat_of(pid: int | str) -> list[bytes]:
    """The fields of a process after its name."""
    row = Path(f"/proc/{pid}/stat").read_bytes()
    return row[row.rindex(b")") + 2 :].split()


@pytest.fixture
def myself() -> dict[str, object]:
    """This very process, as an agent would describe itself."""
    return {"host": os.uname().nodename, "pid": os.getpid(), "stamp": int(stat_of("self")[19])}


def keep(home: Path, token: str, lines: list[str], rows: list[list[list[Any]]] | None = None) -> None:
    """Write the files of a run."""
    Path(home, ".asim").mkdir(exist_ok=True)
    Path(journal_path(str(home), token)).write_text("".join(lines))
    if rows is not None:
        Path(records_path(str(home), token)).write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines_for(*names: str, first: int = 1, attempt: int = 1) -> list[str]:
    """Journal lines of models, with keys from ``first`` on."""
    jobs = planned(*(model(name) for name in names)).jobs
    keyed = ((JobKey(first + number), spec, attempt) for number, spec in enumerate(jobs))
    return [action[2] for action in job_actions("/j", "", keyed) if action[0] == "append"]


def history(home: Path, but: str = "") -> dict[str, tuple[object, object]]:
    """Name -> (status, exit code)."""
    return {row["name"]: (row["status"], row["returncode"]) for row in read_history(str(home), but)}


# -- texts


def test_tokens() -> None:
    """Tokens begin with the time, so that they sort by it, no two are the same, and each may be a file name."""
    before = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    tokens = [new_token() for _ in range(50)]
    times = [token.rpartition("-")[0] for token in tokens]
    assert len(set(tokens)) == 50
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= f"{datetime.now(UTC):%Y%m%dT%H%M%S.999999}"
    assert all(set(token) <= set("0123456789abcdefT-.") for token in tokens)


def test_paths() -> None:
    """The two files of a run are beside each other in a hidden folder."""
    assert journal_path("/e", "t") == "/e/.asim/t.journal.jsonl"
    assert records_path("/e", "t") == "/e/.asim/t.exits.jsonl"


def test_lines() -> None:
    """Header and jobs are one line of JSON each, whatever the names."""
    assert json.loads(header("t", "e\n", "local", {"pid": 1})) == {
        "run": "t",
        "experiment": "e\n",
        "launcher": "local",
        "agent": {"pid": 1},
    }
    group = ensemble("é", 1)
    spec = planned(group).jobs[0]
    (_, path, line), sync = job_actions("/j", "", [(JobKey(3), spec, 2)])
    assert (path, sync) == ("/j", ("sync", "/j"))
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert json.loads(line) == {
        "key": 3,
        "name": "é_0",
        "ensemble": "é",
        "attempt": 2,
        "argv": ["/bin/prog"],
        "cwd": "/w",
        "outputs": "/w/exp",
    }


def test_lines_of_many() -> None:
    """The header comes first, then the jobs a slice at a time, each as a line; at the end all is put onto the disk."""
    jobs = planned(ensemble(replicas=2 * journal.SLICE + 1)).jobs
    head, *appends, sync = job_actions("/j", "head\n", ((JobKey(key), spec, 1) for key, spec in enumerate(jobs)))
    assert (head, sync) == (("append", "/j", "head\n"), ("sync", "/j"))
    assert [action[:2] for action in appends] == [("append", "/j")] * 3
    lines = "".join(action[2] for action in appends).splitlines()
    assert [json.loads(line)["key"] for line in lines] == list(range(len(jobs)))


# -- reading


def test_no_history(tmp_path: Path) -> None:
    """A directory that remembers nothing, or is not there, has no history."""
    assert read_history(str(tmp_path)) == []
    assert read_history(str(tmp_path / "no")) == []


def test_a_finished_run(tmp_path: Path) -> None:
    """Every row has how the job ended, when, where and what it was."""
    keep(
        tmp_path,
        "t",
        [header("t", "e", "local", NOBODY), *lines_for("good", "bad", "odd")],
        [
            [[1, "start", 10.0, 100], [2, "start", 11.0, 101]],
            [[1, "end", 12.0, 0, None, [0, 0, 1]]],
            [[2, "end", 13.0, -9, "timeout", [0, 0, 1]], [3, "error", 14.0, "no such executable: x"]],
        ],
    )
    good, bad, odd = read_history(str(tmp_path))
    assert good == {
        "run": "t",
        "name": "good",
        "ensemble": None,
        "status": "COMPLETED",
        "returncode": 0,
        "reason": "",
        "attempt": 1,
        "started_at": datetime.fromtimestamp(10, UTC),
        "ended_at": datetime.fromtimestamp(12, UTC),
        "pid": 100,
        "host": "h",
        "argv": ["/bin/prog"],
        "cwd": "/w",
        "stdout": "/w/exp/good.out",
        "stderr": "/w/exp/good.err",
    }
    assert (bad["status"], bad["returncode"], bad["reason"]) == ("TIMEOUT", -9, "stopped at its time limit")
    assert (odd["status"], odd["started_at"], odd["reason"]) == ("FAILED", None, "no such executable: x")


def test_runs_in_order(tmp_path: Path) -> None:
    """Runs come oldest first; the one that is asked to be left out is."""
    for token in ("20250102T000000-b", "20250101T000000-z", "20260101T000000-a"):
        keep(tmp_path, token, [header(token, "e", "local", NOBODY), *lines_for(token[:8])])
    assert list(history(tmp_path)) == ["20250101", "20250102", "20260101"]
    assert list(history(tmp_path, but="20250102T000000-b")) == ["20250101", "20260101"]


def test_the_last_attempt_counts(tmp_path: Path) -> None:
    """Of several attempts of a job there is one row, with the number and the end of the last."""
    keep(
        tmp_path,
        "t",
        [header("t", "e", "local", NOBODY), *lines_for("m"), *lines_for("m", first=2, attempt=2)],
        [[[1, "end", 1.0, 3, None, None]], [[2, "end", 2.0, 0, None, None]]],
    )
    (row,) = read_history(str(tmp_path))
    assert (row["attempt"], row["status"], row["returncode"]) == (2, "COMPLETED", 0)


def test_agent_that_is_gone(tmp_path: Path) -> None:
    """A job without a recorded end whose agent is gone is LOST, in words, though it was seen to start."""
    keep(tmp_path, "t", [header("t", "e", "local", NOBODY), *lines_for("m", "n")], [[[1, "start", 1.0, 5]]])
    started, other = read_history(str(tmp_path))
    assert (started["status"], other["status"]) == ("LOST", "LOST")
    assert started["pid"] == 5
    assert other["reason"] == "its agent is gone and left no record of its end"


def test_agent_that_lives(tmp_path: Path, myself: dict[str, object]) -> None:
    """A job without a recorded end whose agent lives is RUNNING; an end that was recorded counts more."""
    keep(
        tmp_path,
        "t",
        [header("t", "e", "local", myself), *lines_for("runs", "done")],
        [[[2, "end", 2.0, 0, None, None]]],
    )
    assert history(tmp_path) == {"runs": ("RUNNING", None), "done": ("COMPLETED", 0)}
    assert read_history(str(tmp_path))[0]["reason"] == ""


@pytest.mark.parametrize("change", [{"stamp": 1}, {"host": "elsewhere"}, {"stamp": None}])
def test_another_process_of_that_number(tmp_path: Path, myself: dict[str, object], change: dict[str, object]) -> None:
    """A process of that number that started at another time, or on another host, is not the agent."""
    keep(tmp_path, "t", [header("t", "e", "local", {**myself, **change}), *lines_for("m")])
    assert history(tmp_path) == {"m": ("LOST", None)}


def test_agent_without_a_number(tmp_path: Path) -> None:
    """A journal whose header says nothing of the agent has no living one."""
    keep(tmp_path, "t", [header("t", "e", "local", {}), *lines_for("m")])
    assert history(tmp_path) == {"m": ("LOST", None)}


def test_second_agent_of_a_run(tmp_path: Path, myself: dict[str, object]) -> None:
    """When a run got a second agent, its jobs are judged by that one, and earlier jobs by the first."""
    keep(
        tmp_path,
        "t",
        [
            header("t", "e", "local", NOBODY),
            *lines_for("first"),
            header("t", "e", "local", myself),
            *lines_for("second", first=2),
        ],
    )
    assert history(tmp_path) == {"first": ("LOST", None), "second": ("RUNNING", None)}


def test_writer_that_was_cut_off(tmp_path: Path) -> None:
    """A last line that is not whole, in either file, is left out; the others count."""
    keep(tmp_path, "t", [header("t", "e", "local", NOBODY), *lines_for("m", "n")], [[[1, "end", 1.0, 0, None, None]]])
    for path in (Path(journal_path(str(tmp_path), "t")), Path(records_path(str(tmp_path), "t"))):
        text = path.read_text()
        path.write_text(text + text.splitlines()[-1][:-5])
    assert history(tmp_path) == {"m": ("COMPLETED", 0), "n": ("LOST", None)}


def test_records_of_unknown_jobs(tmp_path: Path) -> None:
    """A record of a job that the journal does not have is left out."""
    keep(tmp_path, "t", [header("t", "e", "local", NOBODY)], [[[9, "end", 1.0, 0, None, None]]])
    assert history(tmp_path) == {}


def test_journal_without_header(tmp_path: Path) -> None:
    """A journal that lost its header still has its jobs."""
    keep(tmp_path, "t", lines_for("m"), [[[1, "end", 1.0, 0, None, None]]])
    (row,) = read_history(str(tmp_path))
    assert (row["status"], row["host"]) == ("COMPLETED", None)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Only journals are read."""
    Path(tmp_path, journal.FOLDER).mkdir()
    Path(tmp_path, journal.FOLDER, "notes.txt").write_text("{}")
    assert read_history(str(tmp_path)) == []
