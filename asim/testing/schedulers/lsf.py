"""A fake LSF, from its documentation: ``bsub``, ``bjobs``, ``bkill``, ``bhist``. It has not met a real one."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from .bsub import ARRAY, CONDITION, KINDS, directives, minutes
from .bsub import options as read_options
from .jobs import Job, Start, Task
from .server import Answer, FakeScheduler, NeedStdin, Request

_FIELDS = {
    "jobid", "jobindex", "stat", "exit_code", "exit_reason", "pend_reason", "job_description", "job_name", "queue", "user",
    "exec_host", "submit_time", "start_time", "finish_time", "pids",
}  # fmt: skip
_WHY = {
    "deleted": "TERM_OWNER: job killed by owner",
    "limit": "TERM_RUNLIMIT: job killed after reaching LSF run time limit",
    "dependency": "TERM_ORPHAN_SYSTEM: orphaned job terminated automatically by LSF",
}
_REPORT = "Sender: LSF System <lsfadmin@{host}>\nSubject: Job {job}: <{name}> in cluster <fake> {how}\n\n"


class FakeLSF(FakeScheduler):
    """LSF 10.1 as it is documented.

    The other parameters are those of every fake. Jobs run in the directory and with the variables of their submit.

    :param clean: seconds for which ``bjobs`` knows a job after its end; ``bhist`` knows it always.
    :param parse_scripts: whether the ``#BSUB`` lines of a script that is an argument are read, too.
    """

    COMMANDS: ClassVar = {"bsub": "_bsub", "bjobs": "_bjobs", "bkill": "_bkill", "bhist": "_bhist"}
    SUBMIT = "bsub"
    HOST = "lsfhost"

    def __init__(
        self, directory: str | Path, *, clean: float = 3600.0, parse_scripts: bool = False, **timing: float
    ) -> None:
        self.clean, self.parse_scripts = clean, parse_scripts
        super().__init__(Path(directory).absolute(), **timing)  # type: ignore[arg-type]

    def _unreachable(self, argv: Sequence[str]) -> Answer:
        return Answer(255, "", "LSF is down. Please wait ...\n")

    # --- bsub

    def _bsub(self, request: Request) -> Answer:
        try:
            options, words = read_options(request.argv[1:])
            text = self._script(request, words)
            if not words or self.parse_scripts:
                options = directives(text) | options
            return self._queue(request, options, text)
        except ValueError as error:
            return Answer(255, "", f"{error}. Job not submitted.\n")

    def _script(self, request: Request, words: Sequence[str]) -> str:
        """The script's text; a command is run as it is, and the lines of a script that it names are not read."""
        if not words:
            if request.stdin is None:
                raise NeedStdin
            return request.stdin
        path = Path(request.cwd) / words[0]
        return path.read_text() if self.parse_scripts and path.exists() else " ".join(words) + "\n"

    def _queue(self, request: Request, options: Mapping[str, str], text: str) -> Answer:
        queue = options.get("q", "normal")
        if queue != "normal":
            raise ValueError("closed: Queue has been closed" if queue == "closed" else f"{queue}: No such queue")
        name = options.get("J", "script")
        array = ARRAY.fullmatch(name)
        if "[" in name and not array:
            raise ValueError(f"{name}: Bad job array name or index list")
        indices = range(int(array[2]), int(array[3]) + 1) if array else None
        if indices is not None and (not indices or indices[0] < 1 or len(indices) > 1000):
            raise ValueError("Job array index too large")
        number = self.next_number
        self.next_number += 1
        job = Job(
            number,
            array[1] if array else name,
            self._keep(text, f"{number}.sh"),
            options.get("cwd", request.cwd),
            request.env,
            time.time(),
            limit=minutes(options.get("W", "")) * 60,
            throttle=int(array[4] or 0) if array else 0,
            held="H" in options,
            after=[(KINDS[kind], int(other)) for kind, other in CONDITION.findall(options.get("w", ""))],
            facts={"user": pwd.getpwuid(os.getuid()).pw_name, **options},
        )
        self._take(job, indices)
        default = "" if "q" in options else "default "
        return Answer(0, f"Job <{number}> is submitted to {default}queue <{queue}>.\n")

    # --- running

    def _start(self, task: Task) -> Start:
        job = task.job
        env = dict(job.env) | {
            "LSB_JOBID": str(job.number),
            "LSB_JOBINDEX": str(task.index or 0),
            "LSB_JOBNAME": f"{job.name}[{task.index}]" if job.array else job.name,
            "LSB_QUEUE": "normal",
            "LSB_HOSTS": self.HOST,
            "LSB_MCPU_HOSTS": f"{self.HOST} 1",
            "LS_SUBCWD": job.cwd,
        }
        out = self.spool / f"{_name(task)}.out"
        err = self.spool / f"{_name(task)}.err" if job.facts.keys() & {"e", "eo"} else None
        return Start(("/bin/sh", "-c", '"$0"', str(job.script)), job.cwd, env, out, err)

    def _deliver(self, task: Task) -> None:
        for keys, suffix in (("o", "out"), ("e", "err")):
            target = task.job.facts.get(keys) or task.job.facts.get(f"{keys}o")
            source = self.spool / f"{_name(task)}.{suffix}"
            if target and source.exists():
                self._append(task, source, target, over=f"{keys}o" in task.job.facts, report=keys == "o")

    def _append(self, task: Task, source: Path, target: str, *, over: bool, report: bool) -> None:
        path = Path(task.job.cwd) / target.replace("%J", str(task.job.number)).replace("%I", str(task.index or 0))
        how = "Done" if task.code == 0 else "Exited"
        head = _REPORT.format(host=self.HOST, job=task.job.number, name=task.job.name, how=how) if report else ""
        try:
            with path.open("w" if over else "a") as file:
                file.write(head + source.read_text(errors="replace"))
        except OSError:
            task.delivered = False

    # --- bjobs, bkill, bhist

    def _bjobs(self, request: Request) -> Answer:
        words = list(request.argv[1:])
        if words[:2] != ["-a", "-o"] or words[3:4] != ["-json"] or not set(words[2].split()) <= _FIELDS:
            return Answer(255, "", f"bjobs: illegal option -- {' '.join(words[:4])}\n")
        fields, ids = words[2].split(), words[4:]
        mine = [str(job.number) for job in self.jobs.values()]
        found = list(self._found(ids or mine, self._shown, fields, missing=bool(ids)))
        missing = sum("ERROR" in record for record in found)
        if not ids and not found:
            return Answer(0, "", "No job found\n")
        text = json.dumps({"COMMAND": "bjobs", "JOBS": len(found), "RECORDS": found}, indent=2, separators=(",", ":"))
        return Answer(255 if missing and missing == len(found) else 0, text + "\n")

    def _found(
        self,
        ids: Sequence[str],
        shown: Callable[[Task, Sequence[str]], dict[str, str]],
        fields: Sequence[str],
        *,
        missing: bool,
    ) -> Iterator[dict[str, str]]:
        for word in ids:
            tasks = [task for task in self._tasks(word) if not task.ended or time.time() < task.ended + self.clean]
            yield from (shown(task, fields) for task in tasks)
            if missing and not tasks:
                yield {"JOBID": word, "ERROR": f"Job <{word}> is not found"}

    def _tasks(self, word: str) -> list[Task]:
        match = re.fullmatch(r"(\d+)(?:\[(\d+)\])?", word)
        job = self.jobs.get(int(match[1])) if match else None
        if job is None or match is None:
            return []
        return [task for task in job.tasks if match[2] is None or str(task.index) == match[2]]

    def _shown(self, task: Task, fields: Sequence[str]) -> dict[str, str]:
        job = task.job
        code = _exit_code(task)
        values = {
            "jobid": str(job.number),
            "jobindex": str(task.index or 0),
            "stat": _state(task),
            "exit_code": str(code) if code else "",
            "exit_reason": _WHY.get(task.why, "") if task.state == "ended" else "",
            "pend_reason": "New job is waiting for scheduling;" if task.state == "waiting" else "",
            "job_description": job.facts.get("Jd", ""),
            "job_name": f"{job.name}[{task.index}]" if job.array else job.name,
            "queue": "normal",
            "user": job.facts["user"],
            "exec_host": self.HOST if task.started else "",
            "submit_time": _minute(job.created),
            "start_time": _minute(task.started),
            "finish_time": f"{_minute(task.ended)} L" if task.ended else "",
            "pids": str(task.pid) if task.state == "running" else "",
        }
        return {field.upper(): values[field] for field in fields}

    def _bkill(self, request: Request) -> Answer:
        if not request.argv[1:] or request.argv[1].startswith("-"):
            return Answer(255, "", "bkill: this fake takes job ids only\n")
        out, err = "", ""
        for word in request.argv[1:]:
            tasks = self._tasks(word)
            alive = [task for task in tasks if task.state != "ended"]
            for task in alive:
                self._machine.end(task, "deleted", (signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
            if alive:
                out += f"Job <{word}> is being terminated\n"
            else:
                err += f"Job <{word}>: {'Job has already finished' if tasks else 'No matching job found'}\n"
        return Answer(255 if err else 0, out, err)

    def _bhist(self, request: Request) -> Answer:
        if request.argv[1:5] != ("-n", "0", "-a", "-UF"):
            return Answer(255, "", f"bhist: illegal option -- {request.argv[1:5]}\n")
        zone = time.gmtime if request.env.get("TZ") == "UTC" else time.localtime
        tasks = [task for word in request.argv[5:] for task in self._tasks(word)]
        stamp: Callable[[float], str] = lambda when: time.strftime("%a %b %e %H:%M:%S", zone(when))  # noqa: E731
        text = "-" * 78 + "\n"
        return (
            Answer(0, text + "\n\n".join(_history(task, stamp) for task in tasks) + "\n")
            if tasks
            else Answer(255, "", "No matching job found\n")
        )


def _minute(when: float) -> str:
    """A time as ``bjobs`` writes it: without seconds and without year."""
    return time.strftime("%b %e %H:%M", time.localtime(when)) if when else ""


def _name(task: Task) -> str:
    return f"{task.job.number}.{task.index or 0}"


def _state(task: Task) -> str:
    if task.state == "waiting":
        return "PSUSP" if task.job.held else "PEND"
    if task.state != "ended":
        return "RUN"
    return "DONE" if task.code == 0 and not task.why else "EXIT"


def _exit_code(task: Task) -> int | None:
    """As a shell would say it: 128 and the signal."""
    return None if task.code is None or task.state != "ended" else 128 - task.code if task.code < 0 else task.code


def _history(task: Task, stamp: Callable[[float], str]) -> str:
    job = task.job
    name = f"{job.number}[{task.index}]" if job.array else str(job.number)
    lines = [
        f"Job <{name}>, Job Name <{job.name}>, User <{job.facts['user']}>, Project <default>, Command <script>",
        f"{stamp(job.created)}: Submitted from host <{FakeLSF.HOST}>, to Queue <normal>, CWD <{job.cwd}>;",
    ]
    if task.started:
        lines.append(f"{stamp(task.started)}: Dispatched 1 Task(s) on Host(s) <{FakeLSF.HOST}>;")
        lines.append(f"{stamp(task.started)}: Starting (Pid {task.pid});")
    if task.state == "ended":
        lines += _end_lines(task, stamp(task.ended))
    return "\n".join(lines) + "\n"


def _end_lines(task: Task, when: str) -> Iterator[str]:
    code = _exit_code(task)
    if code == 0 and not task.why:
        yield f"{when}: Done successfully. The CPU time used is 0.1 seconds;"
        return
    if code is not None:
        yield f"{when}: Exited with exit code {code}. The CPU time used is 0.1 seconds;"
    yield f"{when}: Completed <exit>{'; ' + _WHY[task.why] if task.why in _WHY else ''};"
