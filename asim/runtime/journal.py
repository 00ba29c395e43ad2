"""What an experiment's directory remembers: who was started, and how it ended.

``<exp>/.asim/<run>.journal.jsonl`` is the driver's: a header for each agent, one line per job before it is submitted, and
the ends that no agent has seen (cancelled while it waited, say).
``<exp>/.asim/<run>.exits.jsonl`` is the agent's: starts and ends as they happen, also when no driver is left.
``<exp>/.asim/<run>.ends/`` is the batch jobs': a file for each start and each end (:mod:`asim.settings.script`).
A *run* is one Experiment object's life; its token sorts by time. The first two only ever grow by whole lines.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..agent.protocol import FileAction
from ..launchers._told import end_of, start_of
from ..launchers.base import JobKey, JobStatus, Launcher
from ..launchers.batches import Folders
from ..launchers.local import lines_of
from ..plan import JobSpec
from ..status import JobState

FOLDER = ".asim"
SLICE = 256
"""Jobs written between two chances for other work."""


def new_token() -> str:
    """A name for a run: sorts by time, unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


def journal_path(experiment: str, token: str) -> str:
    return f"{experiment}/{FOLDER}/{token}.journal.jsonl"


def records_path(experiment: str, token: str) -> str:
    return f"{experiment}/{FOLDER}/{token}.exits.jsonl"


def header(token: str, experiment: str, launcher: str, agent: Mapping[str, object]) -> str:
    """The first line of a journal."""
    return json.dumps({"run": token, "experiment": experiment, "launcher": launcher, "agent": dict(agent)}) + "\n"


def job_actions(path: str, head: str, jobs: Iterable[tuple[JobKey, JobSpec, int]]) -> Iterator[FileAction]:
    """Append one line per job that is about to be submitted (after ``head``), a slice at a time; then onto the disk."""
    lines = _lines(jobs)
    if head:
        yield ("append", path, head)
    while text := "".join(islice(lines, SLICE)):
        yield ("append", path, text)
    yield ("sync", path)


def _lines(jobs: Iterable[tuple[JobKey, JobSpec, int]]) -> Iterator[str]:
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for key, spec, attempt in jobs:
        row = {
            "key": key,
            "name": spec.name,
            "ensemble": spec.ensemble.name if spec.ensemble else None,
            "attempt": attempt,
            "argv": spec.argv,
            "cwd": spec.cwd,
            "outputs": spec.outputs,
        }
        yield encode(row) + "\n"


class Diary:
    """Writes one run's journal, through the agent of the host where the experiment's directory is."""

    def __init__(self, name: str, path: str, token: str) -> None:
        self._name, self._path, self._token = name, path, token
        self._head = ""

    def introduce(self, launcher: str, agent: Mapping[str, object]) -> None:
        """What follows is told by this agent."""
        self._head = header(self._token, self._name, launcher, agent)

    async def started(self, launcher: Launcher, jobs: Iterable[tuple[JobKey, JobSpec, int]]) -> None:
        """These are about to be submitted. They are on the disk when this returns."""
        head, self._head = self._head, ""
        folder = ("mkdirs", f"{self._path}/{FOLDER}")
        try:
            await launcher.files(chain([folder], job_actions(journal_path(self._path, self._token), head, jobs)))
        except BaseException:
            self._head = head
            raise

    async def ended(self, launcher: Launcher, ends: Iterable[tuple[JobKey, JobStatus]]) -> None:
        """These ended without any launcher having seen it: cancelled while they waited, refused, lost."""
        rows = ({"ended": key, "status": end.state.value, "reason": end.reason, "time": end.time} for key, end in ends)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        await launcher.files([("append", journal_path(self._path, self._token), text)])


def read_history(experiment: str, but: str = "") -> list[dict[str, Any]]:
    """The jobs of all runs that this directory remembers, oldest first (does file I/O; call it in a thread).

    :param but: a run to leave out.
    """
    folder = Path(experiment) / FOLDER
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.journal.jsonl")):
        token = path.name.removesuffix(".journal.jsonl")
        if token != but:
            told = list(_told(Path(Folders.of(experiment, token).ends)))
            rows += _run(token, path.read_bytes(), records_path(experiment, token), told)
    return rows


def _told(folder: Path) -> Iterator[tuple[JobKey, JobStatus]]:
    """What members of batch jobs said of themselves; of one that was run again, of its last run."""
    last: dict[int, int] = {}
    for path in folder.glob("[0-9]*.[0-9]*.*"):
        words = path.name.split(".")
        if words[0].isdecimal() and words[1].isdecimal():
            last[int(words[0])] = max(int(words[1]), last.get(int(words[0]), 0))
    for key, number in last.items():
        started, ended = ((folder / f"{key}.{number}.{kind}") for kind in ("start", "end"))
        if started.exists():
            yield JobKey(key), start_of(started.read_text(errors="replace"))
        if ended.exists() and (end := end_of(ended.read_text(errors="replace"))):
            yield JobKey(key), end.status


def _run(token: str, journal: bytes, records: str, told: Iterable[tuple[JobKey, JobStatus]]) -> list[dict[str, Any]]:
    agent: Mapping[str, Any] = {}
    absent = JobState.LOST
    rows: dict[int, dict[str, Any]] = {}
    ends: list[tuple[JobKey, JobStatus]] = []
    for line in filter(None, map(_loads, journal.splitlines())):
        if "agent" in line:
            agent = line["agent"]
            absent = JobState.RUNNING if _alive(agent) else JobState.LOST
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
    data = Path(records).read_bytes() if os.path.exists(records) else b""
    for key, status in chain(told, ends, lines_of(data)):
        if key in rows:
            _apply(rows[key], status)
    starts: list[dict[str, Any]] = []
    of_name: dict[str, int] = {}
    for row in rows.values():  # a row for each start: of several attempts, the last
        if row["attempt"] > 1 and row["name"] in of_name:
            starts[of_name[row["name"]]] = row
        else:
            of_name[row["name"]] = len(starts)
            starts.append(row)
    return starts


def _apply(row: dict[str, Any], status: JobStatus) -> None:
    when = datetime.fromtimestamp(status.time, UTC)
    if status.state is JobState.RUNNING:
        row.update(started_at=when, pid=status.pid, host=status.host or row["host"])
    else:
        row.update(status=status.state.value, returncode=status.code, reason=status.reason, ended_at=when)


def _row(token: str, line: Mapping[str, Any], agent: Mapping[str, Any], absent: JobState) -> dict[str, Any]:
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


def _alive(agent: Mapping[str, Any]) -> bool:
    """Whether the agent of a run still lives on this host; its start stamp tells it from a later process of its number."""
    try:
        stat = Path(f"/proc/{agent['pid']}/stat").read_bytes()
    except (OSError, KeyError):
        return False
    rest = stat[stat.rindex(b")") + 2 :].split()
    return os.uname().nodename == agent.get("host") and rest[0] not in b"ZX" and int(rest[19]) == agent.get("stamp")
