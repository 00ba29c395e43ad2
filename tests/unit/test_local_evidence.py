"""What the agent says, as evidence."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.launchers.base import JobStatus, Usage
from asim.launchers.local import ended_badly, lines_of, rows_of, status_of
from asim.status import JobState

USED = [1.5, 0.25, 2048]
USAGE = Usage(1.5, 0.25, 2048 * 1024)


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ([7, "start", 1.0, 123], JobStatus(JobState.RUNNING, 1.0, pid=123)),
        ([7, "error", 2.0, "no such executable: x"], JobStatus(JobState.FAILED, 2.0, reason="no such executable: x")),
        ([7, "end", 3.0, 0, None, USED], JobStatus(JobState.COMPLETED, 3.0, 0, usage=USAGE)),
        ([7, "end", 3.0, 2, None, USED], JobStatus(JobState.FAILED, 3.0, 2, "exit code 2", usage=USAGE)),
        ([7, "end", 3.0, -11, None, USED], JobStatus(JobState.FAILED, 3.0, -11, "killed by SIGSEGV", usage=USAGE)),
        ([7, "end", 3.0, -15, "stop", USED], JobStatus(JobState.CANCELLED, 3.0, -15, "stopped", usage=USAGE)),
        ([7, "end", 3.0, 0, "stop", USED], JobStatus(JobState.CANCELLED, 3.0, 0, "stopped", usage=USAGE)),
        ([7, "end", 3.0, None, "stop", None], JobStatus(JobState.CANCELLED, 3.0, None, "stopped before it started")),
        (
            [7, "end", 3.0, -9, "timeout", USED],
            JobStatus(JobState.TIMEOUT, 3.0, -9, "stopped at its time limit", usage=USAGE),
        ),
        ([7, "end", 3.0, None, "timeout", None], JobStatus(JobState.TIMEOUT, 3.0, None, "stopped at its time limit")),
    ],
)
def test_rows(row: list[Any], status: JobStatus) -> None:
    """Every kind of row is the evidence that it is; memory is in bytes."""
    assert status_of(row) == status


def test_end_without_code() -> None:
    """An end of which nobody knows the exit code (a process that could not be killed) is an end, and no success."""
    status = status_of([7, "end", 3.0, None, None, None])
    assert status.state.terminal
    assert status.state is not JobState.COMPLETED
    assert status.code is None


def test_exit_codes_in_words() -> None:
    """Signals have their names, unknown ones their numbers."""
    assert (ended_badly(1), ended_badly(137)) == ("exit code 1", "exit code 137")
    assert ended_badly(-signal.SIGKILL) == "killed by SIGKILL"
    assert ended_badly(-250) == "killed by signal 250"


def test_record_lines() -> None:
    """One line of the records file has several rows, in order."""
    line = json.dumps([[1, "start", 1.0, 10], [2, "error", 2.0, "no"]]).encode()
    assert rows_of(line) == [
        (1, JobStatus(JobState.RUNNING, 1.0, pid=10)),
        (2, JobStatus(JobState.FAILED, 2.0, reason="no")),
    ]


WHOLE = b'[[1,"end",3.0,0,null,[1.5,0.25,2048]]]'


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_line_that_was_cut_off(end: int) -> None:
    """A line that was cut off anywhere is no evidence, and no error; the lines around it count."""
    assert rows_of(WHOLE[:end]) == []
    data = WHOLE + b"\n" + WHOLE[:end] + b"\n" + WHOLE.replace(b"[[1", b"[[2") + b"\n"
    assert [key for key, _ in lines_of(data)] == [1, 2]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"3",
        b"{}",
        b'"text"',
        b"[3]",
        b"[[]]",
        b'[[1,"end"]]',
        b'[[1,"end",1.0,0]]',
        b'[[1,"end",1.0,0,"why",null]]',
        b'[[1,"end",1.0,0,null,3]]',
        b'[[1,"start",1.0]]',
        b'["abc"]',
        b"\xff",
        b'[{"a":1}]',
    ],
)
def test_line_of_something_else(line: bytes) -> None:
    """A line that the agent cannot have written is no evidence, and no error."""
    assert rows_of(line) == []


@given(st.binary(max_size=60))
def test_any_file(data: bytes) -> None:
    """Reading records never fails, whatever is in the file."""
    assert isinstance(lines_of(data), list)


def test_empty_file() -> None:
    """An empty file has no evidence."""
    assert lines_of(b"") == []
