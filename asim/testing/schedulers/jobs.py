"""Runs the jobs of a fake workload manager: queue, slots, limits, signals, output. All verbs need the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple


@dataclass(eq=False, slots=True)
class Job:
    """One submit.

    :ivar limit: seconds that a task may run; 0: no limit.
    :ivar slots: slots that a task takes.
    :ivar throttle: tasks that may run at once; 0: no limit.
    :ivar after: dependencies: what must have happened, and the number of the other job.
    :ivar facts: whatever else its workload manager keeps.
    """

    number: int
    name: str
    script: Path
    cwd: str
    env: Mapping[str, str]
    created: float
    array: bool = False
    limit: float = 0
    slots: int = 1
    throttle: int = 0
    held: bool = False
    after: Sequence[tuple[str, int]] = ()
    facts: dict[str, str] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Task:
    """One task of an array, or the whole job.

    :ivar state: ``waiting``, ``running``, ``exiting``, ``ended``.
    :ivar code: how its process ended: exit code, or negative the signal; None: it never ran.
    :ivar why: why it was ended: ``deleted``, ``forced``, ``limit``, ``dependency``, or not at all.
    :ivar delivered: whether its output reached its place.
    """

    job: Job
    index: int | None = None
    state: str = "waiting"
    code: int | None = None
    why: str = ""
    started: float = 0.0
    ended: float = 0.0
    delivered: bool = True
    pid: int = 0
    process: subprocess.Popen[bytes] | None = None
    signals: list[int] = field(default_factory=list)
    next_signal: float = 0.0


class Start(NamedTuple):
    """How a task is started."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdout: Path
    stderr: Path | None


class Machine:
    """Starts tasks when there is room, and watches them.

    :param slots: how many there are.
    :param start: says how a task is started.
    :param deliver: called when a task's process has ended; puts its output in place.
    :param grace: seconds between the signals that end a task.
    :param scale: length of a second of a job's time limit.
    :param exiting: seconds between the end of a process and of its job.
    :ivar lock: guards everything here.
    """

    def __init__(
        self,
        slots: int,
        start: Callable[[Task], Start],
        deliver: Callable[[Task], None],
        *,
        grace: float,
        scale: float,
        exiting: float,
    ) -> None:
        self.lock = threading.RLock()
        self.jobs: dict[int, Job] = {}
        self.free = slots
        self.grace, self.scale, self.exiting = grace, scale, exiting
        self._start, self._deliver = start, deliver
        self._waiting: list[Task] = []
        self._active: list[Task] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="fake-scheduler", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Take a job with its tasks."""
        self.jobs[job.number] = job
        self._waiting += job.tasks
        self._step()

    def end(self, task: Task, why: str, signals: Sequence[int]) -> None:
        """End a task by signals, one after the other; one that waits just ends."""
        task.why = task.why or why
        if task.state == "waiting":
            self._waiting.remove(task)
            task.state, task.ended = "ended", time.time()
        elif task.state == "running":
            task.signals, task.next_signal = list(signals), 0.0
            self._signal(task, time.time())

    def close(self) -> None:
        """Kill what runs, and stop."""
        self._closed.set()
        self._thread.join()
        with self.lock:
            for task in self._active:
                _kill(task, signal.SIGKILL)
                if task.process:
                    task.process.wait()

    # --- the loop

    def _loop(self) -> None:
        while not self._closed.wait(0.01):
            with self.lock:
                self._step()

    def _step(self) -> None:
        now = time.time()
        for task in list(self._active):
            self._look(task, now)
        for task in list(self._waiting):
            if self.free <= 0:
                break
            if self._may_start(task) and task.job.slots <= self.free:
                self._begin(task)

    def _look(self, task: Task, now: float) -> None:
        assert task.process
        code = task.process.poll()
        limit = task.job.limit * self.scale
        if task.state == "running" and code is not None:
            _kill(task, signal.SIGKILL)  # what is left of its session
            task.state, task.code, task.ended = "exiting", code, now
        if task.state == "exiting" and now >= task.ended + self.exiting:
            self._finish(task)
        elif task.state == "running" and task.signals:
            self._signal(task, now)
        elif task.state == "running" and limit and now > task.started + limit and not task.why:
            self.end(task, "limit", (signal.SIGTERM, signal.SIGKILL))

    def _signal(self, task: Task, now: float) -> None:
        if now >= task.next_signal:
            _kill(task, task.signals.pop(0))
            task.next_signal = now + self.grace

    def _finish(self, task: Task) -> None:
        self._active.remove(task)
        self.free += task.job.slots
        self._deliver(task)
        task.state = "ended"

    def _may_start(self, task: Task) -> bool:
        job = task.job
        if job.held or (job.throttle and sum(other.state == "running" for other in job.tasks) >= job.throttle):
            return False
        for kind, number in job.after:
            met = _met(kind, self.jobs.get(number))
            if met is False:
                self.end(task, "dependency", ())
            if not met:
                return False
        return True

    def _begin(self, task: Task) -> None:
        start = self._start(task)
        with _open(start.stdout) as out, _open(start.stderr or start.stdout) as err:
            task.process = subprocess.Popen(
                start.argv,
                cwd=start.cwd,
                env=start.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err if start.stderr else subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        task.state, task.started, task.pid = "running", time.time(), task.process.pid
        self.free -= task.job.slots
        self._waiting.remove(task)
        self._active.append(task)


def _open(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _kill(task: Task, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(task.pid, number)


def _met(kind: str, other: Job | None) -> bool | None:
    """Whether a dependency is met; None: not yet; False: it never will be."""
    if other is None:
        return False
    if kind == "after":
        return True if any(task.started for task in other.tasks) else None
    if any(task.state != "ended" for task in other.tasks):
        return None
    good = all(task.code == 0 and not task.why for task in other.tasks)
    ran = all(task.code is not None for task in other.tasks)
    return {"afterok": good, "afternotok": not good and ran, "afterany": True}[kind]
