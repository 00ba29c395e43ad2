"""What the files of earlier runs tell: who was started, and how it ended. See :mod:`asim.runtime.journal`.

Journals are read first, then it is looked whether their agents live, then records and ends are read: what an agent that
dies meanwhile has written is so never missed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from ..launchers._told import end_of, start_of
from ..launchers.base import JobKey, JobStatus
from ..launchers.batches import Folders
from ..launchers.local import lines_of
from ..status import JobState
from ..transport.far import PIECE, FarHost
from .journal import ENDING, FOLDER, journal_path, records_path

Row = dict[str, Any]
HOST_NAME = "/proc/sys/kernel/hostname"
_ENDS = ("-maxdepth", "2", "-path", "./*.ends/*", "(", "-name", "*.start", "-o", "-name", "*.end", ")")


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of the host that the directory is on.

    :ivar host: its name.
    :ivar stats: their numbers -> what ``/proc/<number>/stat`` says; b"" or none of those that are gone.
    """

    host: str
    stats: Mapping[int, bytes]

    def has(self, agent: Mapping[str, Any]) -> bool:
        """Whether an agent lives; its start stamp tells it from a later process of its number."""
        stat = self.stats.get(agent.get("pid", 0))
        if not stat or b")" not in stat:
            return False
        rest = stat[stat.rindex(b")") + 2 :].split()
        return self.host == agent.get("host") and rest[0] not in b"ZX" and int(rest[19]) == agent.get("stamp")


def read_history(experiment: str, but: str = "") -> list[Row]:
    """The jobs of all runs that this directory remembers, oldest first (does file I/O; call it in a thread).

    :param but: a run to leave out.
    """
    rows: list[Row] = []
    for path in sorted(Path(experiment, FOLDER).glob(f"*{ENDING}")):
        token = path.name.removesuffix(ENDING)
        if token != but:
            journal = path.read_bytes()
            running = Processes(os.uname().nodename, {pid: _stat(pid) for pid in agents_of(journal)})
            ends = Path(Folders.of(experiment, token).ends)
            told = {file.name: _bytes(file).decode(errors="replace") for file in ends.glob("[0-9]*.[0-9]*.*")}
            rows += rows_of(token, journal, running, _bytes(records_path(experiment, token)), told)
    return rows


async def far_history(far: FarHost, but: str = "") -> list[Row]:
    """The same of a far host, which is connected to.

    :raises AgentError: there is no link any more.
    """
    home = far.directory
    found = await far.files_below(f"{home}/{FOLDER}", "-maxdepth", "1", "-name", f"*{ENDING}")
    tokens = sorted({path.rpartition("/")[2].removesuffix(ENDING) for path in found} - {but})
    journals = await _whole(far, [journal_path(home, token) for token in tokens])
    pids = sorted({pid for journal in journals for pid in agents_of(journal)})
    host, *stats = await far.read([HOST_NAME, *(f"/proc/{pid}/stat" for pid in pids)])
    running = Processes(host.decode().strip(), dict(zip(pids, stats, strict=True)))
    records = await _whole(far, [records_path(home, token) for token in tokens])
    told = await far.texts_below(f"{home}/{FOLDER}", *_ENDS) if tokens else {}

    def rows() -> list[Row]:
        ends: dict[str, dict[str, str]] = {}
        for path, text in told.items():
            folder, _, name = path.rpartition("/")
            ends.setdefault(folder, {})[name] = text
        files = zip(tokens, journals, records, strict=True)
        return [
            row
            for token, journal, data in files
            for row in rows_of(token, journal, running, data, ends.get(f"{token}.ends", {}))
        ]

    return await to_thread.run_sync(rows)


async def _whole(far: FarHost, paths: Sequence[str]) -> list[bytes]:
    """What these files have, however large; b"" for one that is not there."""
    found = [b""] * len(paths)

    async def read(number: int, path: str) -> None:
        piece = await far.read_from(path, 0)
        found[number] = piece
        while len(piece) == PIECE:
            piece = await far.read_from(path, len(found[number]))
            found[number] += piece

    async with anyio.create_task_group() as group:
        for number, path in enumerate(paths):
            group.start_soon(read, number, path)
    return found


def agents_of(journal: bytes) -> list[int]:
    """The process ids of the agents that a journal speaks of."""
    lines = (line for line in map(_loads, journal.splitlines()) if line and "agent" in line)
    return [line["agent"]["pid"] for line in lines if isinstance(line["agent"].get("pid"), int)]


def rows_of(token: str, journal: bytes, running: Processes, records: bytes, told: Mapping[str, str]) -> list[Row]:
    """The jobs of one run.

    :param records: what its agent recorded.
    :param told: what members of its batch jobs said of themselves: name of the file -> contents.
    """
    agent: Mapping[str, Any] = {}
    absent = JobState.LOST
    rows: dict[int, Row] = {}
    ends: list[tuple[JobKey, JobStatus]] = []
    for line in filter(None, map(_loads, journal.splitlines())):
        if "agent" in line:
            agent = line["agent"]
            absent = JobState.RUNNING if running.has(agent) else JobState.LOST
        elif "ended" in line:
            status = JobStatus(JobState[line["status"]], line["time"], line.get("code"), line["reason"])
            ends.append((JobKey(line["ended"]), status))
        elif "batch" in line:
            if absent is JobState.RUNNING:
                continue  # its driver looks after it
            words = f"job {line['batch']} of {line['launcher']}, which this driver did not see the end of"
            for key in line["keys"]:
                if key in rows:
                    rows[key].update(status=JobState.LOST.value, reason=words)
        else:
            rows[line["key"]] = _row(token, line, agent, absent)
    for key, status in chain(_told(told), ends, lines_of(records)):
        if key in rows:
            _apply(rows[key], status)
    return _starts(rows.values())


def _starts(rows: Iterable[Row]) -> list[Row]:
    """A row for each start: of several attempts, the last."""
    starts: list[Row] = []
    of_name: dict[str, int] = {}
    for row in rows:
        if row["attempt"] > 1 and row["name"] in of_name:
            starts[of_name[row["name"]]] = row
        else:
            of_name[row["name"]] = len(starts)
            starts.append(row)
    return starts


def _told(files: Mapping[str, str]) -> Iterator[tuple[JobKey, JobStatus]]:
    """What members of batch jobs said of themselves; of one that was run again, of its last run."""
    last: dict[int, int] = {}
    for name in files:
        words = name.split(".")
        if len(words) > 2 and words[0].isdecimal() and words[1].isdecimal():
            last[int(words[0])] = max(int(words[1]), last.get(int(words[0]), 0))
    for key, number in last.items():
        started, ended = (files.get(f"{key}.{number}.{kind}") for kind in ("start", "end"))
        if started is not None:
            yield JobKey(key), start_of(started)
        if ended is not None and (end := end_of(ended)):
            yield JobKey(key), end.status


def _apply(row: Row, status: JobStatus) -> None:
    when = datetime.fromtimestamp(status.time, UTC)
    if status.state is JobState.RUNNING:
        row.update(started_at=when, pid=status.pid, host=status.host or row["host"])
    else:
        row.update(status=status.state.value, returncode=status.code, reason=status.reason, ended_at=when)


def _row(token: str, line: Mapping[str, Any], agent: Mapping[str, Any], absent: JobState) -> Row:
    base = f"{line['outputs']}/{line['name']}"
    return {
        "run": token,
        "name": line["name"],
        "ensemble": line["ensemble"],
        "status": absent.value,
        "returncode": None,
        "reason": "" if absent is JobState.RUNNING else "its agent is gone and left no record of its end",
        "attempt": line["attempt"],
        "started_at": None,
        "ended_at": None,
        "pid": None,
        "host": agent.get("host"),
        "argv": line["argv"],
        "cwd": line["cwd"],
        "stdout": f"{base}.out",
        "stderr": f"{base}.err",
    }


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None  # the last line of a journal whose writer was cut off


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


def _stat(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return b""
