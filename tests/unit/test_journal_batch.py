"""What an experiment's directory remembers of batch jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asim.runtime.history import read_history
from asim.runtime.journal import header

from .test_journal import NOBODY, keep, lines_for, myself

__all__ = ["myself"]

BATCH = json.dumps({"batch": "12", "launcher": "slurm", "script": "/w/t.1.sh", "keys": [1, 2, 9]}) + "\n"


def ended(key: int, status: str, code: int | None, reason: str) -> str:
    """The line of a member that ended."""
    return json.dumps({"ended": key, "status": status, "reason": reason, "time": 60.0, "code": code}) + "\n"


def rows(home: Path) -> dict[str, dict[str, Any]]:
    """Name -> what is known."""
    return {row["name"]: row for row in read_history(str(home))}


def test_ends_of_members(tmp_path: Path) -> None:
    """Members have the ends, codes and reasons that their driver wrote down; of the others the batch job is named."""
    end = ended(1, "TIMEOUT", -15, "TIMEOUT: it reached its time limit")
    keep(tmp_path, "t", [header("t", "exp", "slurm", NOBODY), *lines_for("a", "b", "c"), BATCH, end])
    found = rows(tmp_path)
    assert (found["a"]["status"], found["a"]["returncode"]) == ("TIMEOUT", -15)
    assert (found["a"]["reason"], found["a"]["ended_at"].timestamp()) == ("TIMEOUT: it reached its time limit", 60.0)
    assert (found["b"]["status"], found["b"]["reason"]) == (
        "LOST",
        "job 12 of slurm, which this driver did not see the end of",
    )
    assert found["c"]["reason"] == "its agent is gone and left no record of its end"


def test_a_driver_that_still_runs(tmp_path: Path, myself: dict[str, object]) -> None:
    """Batch jobs of an experiment whose driver lives are not lost."""
    lines = [header("t", "exp", "slurm", myself), *lines_for("a", "b"), BATCH, ended(1, "COMPLETED", 0, "")]
    keep(tmp_path, "t", lines)
    assert {name: row["status"] for name, row in rows(tmp_path).items()} == {"a": "COMPLETED", "b": "RUNNING"}


@pytest.mark.parametrize("code", [{}, {"code": None}])
def test_ends_without_a_code(code: dict[str, None], tmp_path: Path) -> None:
    """Journals of earlier versions have no codes; they are read as ever."""
    line = json.dumps({"ended": 1, "status": "CANCELLED", "reason": "x", "time": 5.0, **code}) + "\n"
    keep(tmp_path, "t", [header("t", "exp", "local", NOBODY), *lines_for("a"), line])
    assert (rows(tmp_path)["a"]["status"], rows(tmp_path)["a"]["returncode"]) == ("CANCELLED", None)
