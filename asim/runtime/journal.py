"""What an experiment's directory remembers: who was started, and how it ended.

``<exp>/.asim/<run>.journal.jsonl`` is the driver's: a header for each agent, one line per job before it is submitted, and
the ends that no agent has seen (cancelled while it waited, say).
``<exp>/.asim/<run>.exits.jsonl`` is the agent's: starts and ends as they happen, also when no driver is left.
``<exp>/.asim/<run>.ends/`` is the batch jobs': a file for each start and each end (:mod:`asim.settings.script`).
A *run* is one Experiment object's life; its token sorts by time. The first two only ever grow by whole lines. :mod:`asim.runtime.history` reads them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, islice

from ..agent.protocol import FileAction
from ..launchers.base import JobKey, JobStatus, Launcher
from ..plan import JobSpec

FOLDER = ".asim"
ENDING = ".journal.jsonl"
SLICE = 256
"""Jobs written between two chances for other work."""


def new_token() -> str:
    """A name for a run: sorts by time, unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


def journal_path(experiment: str, token: str) -> str:
    return f"{experiment}/{FOLDER}/{token}{ENDING}"


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
