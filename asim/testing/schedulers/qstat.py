"""What a fake OpenPBS' ``qstat`` finds, and how it prints it."""

from __future__ import annotations

import getopt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from .attributes import View, is_over
from .forms import Pairs, as_json, as_plain
from .jobs import Job, Task
from .server import Answer, Request

_OPTIONS = "fJptxEF:wD:"
_USAGE = f"usage: \nqstat [{_OPTIONS}] [ job_identifier... | destination... ]\n"
_HEAD = (
    "Job id            Name             User              Time Use S Queue\n"
    "----------------  ---------------- ----------------  -------- - -----\n"
)


class Server(Protocol):
    """What is asked of the fake server."""

    host: str
    history: bool
    first_only: bool
    poll: float
    jobs: dict[int, Job]


class Finder:
    """Looks up what one ``qstat`` asks for."""

    def __init__(self, server: Server, request: Request) -> None:
        self.server, self.request = server, request
        self.options: Mapping[str, str] = {}
        self.view = View(server.host, history=server.history, zone=request.env.get("TZ", ""), poll=server.poll)
        self._first: dict[str, Pairs] = {}

    def answer(self) -> Answer:
        """What the command prints."""
        try:
            pairs, words = getopt.gnu_getopt(list(self.request.argv[1:]), _OPTIONS)
        except getopt.GetoptError as error:
            return Answer(2, "", f"qstat: invalid option -- '{error.opt[:1] or '-'}'\n{_USAGE}")
        self.options = dict(pairs)
        if self.options.get("-F", "json") != "json" or self.options.keys() >= {"-F", "-w"}:
            return Answer(2, "", _USAGE)
        found, code, errors = self._find(words)
        if self.server.first_only and "-F" in self.options and "-E" not in self.options and words:
            found = self._first
        return Answer(code, self._shown(found), "".join(f"qstat: {line}\n" for line in errors))

    def _shown(self, found: Mapping[str, Pairs]) -> str:
        if "-f" not in self.options:
            return (_HEAD + "".join(_row(job, pairs) for job, pairs in found.items())) if found else ""
        if "-F" in self.options:
            return as_json(self.server.host, found)
        return as_plain(found, wide="-w" in self.options)

    def _find(self, words: Sequence[str]) -> tuple[dict[str, Pairs], int, list[str]]:
        """The jobs, the exit code, and what is said about the others."""
        server = self.server
        if "-x" in self.options and not server.history:
            full = [word if "." in word else f"{word}.{server.host}" for word in words] or [""]
            return {}, 0, [f"PBS is not configured to maintain job history {word}" for word in full]
        if not words:
            jobs = (job for job in server.jobs.values() if "-x" in self.options or not is_over(job))
            return dict(pair for job in jobs for pair in self._with_tasks(job)), 0, []
        found: dict[str, Pairs] = {}
        code, errors = 0, []
        for word in words:
            wrong = self._one(word, found)
            if wrong and "-E" not in self.options:
                code = wrong[0]
                errors.append(wrong[1])
        return found, code, errors

    def _one(self, word: str, found: dict[str, Pairs]) -> tuple[int, str] | None:
        host = self.server.host
        match = id_pattern(host).fullmatch(word)
        if match is None:
            return (
                (170, f"Unknown queue destination {word}")
                if word[:1].isalpha()
                else (1, f"illegally formed job identifier: {word}")
            )
        full = f"{word.partition('.')[0]}.{host}"
        job = self.server.jobs.get(int(match[1]))
        tasks = named(job, match[2]) if job else []
        if job is None or not tasks or (is_over(job) and not self.server.history):
            return 153, f"Unknown Job Id {full}"
        if is_over(job) and "-x" not in self.options:
            return 35, f"{full} Job has finished, use -x or -H to obtain historical job information"
        shown = dict(self._with_tasks(job)) if match[2] in (None, "[]") else {full: self.view.task(tasks[0])}
        self._first = self._first or shown
        found |= shown
        return None

    def _with_tasks(self, job: Job) -> Iterator[tuple[str, Pairs]]:
        if not job.array:
            yield self.view.job_id(job), self.view.task(job.tasks[0])
            return
        yield self.view.job_id(job), self.view.array(job)
        if "-t" in self.options:
            yield from ((self.view.task_id(task), self.view.task(task)) for task in job.tasks)


def id_pattern(host: str) -> re.Pattern[str]:
    """``12``, ``12.host``, ``12[].host``, ``12[3].host``."""
    return re.compile(rf"(\d+)(\[\d*\])?(?:\.{re.escape(host)})?")


def named(job: Job, brackets: str | None) -> list[Task]:
    """The tasks that an id means; an array needs its brackets."""
    if not job.array or brackets in (None, "[]"):
        return job.tasks if job.array == (brackets == "[]") else []
    return [task for task in job.tasks if f"[{task.index}]" == brackets]


def _row(job: str, pairs: Pairs) -> str:
    used = pairs.get("resources_used")
    lasted = used["cput"] if isinstance(used, Mapping) else 0
    name = str(pairs["Job_Name"])
    name = name if len(name) <= 15 else f"{name[:15]}*"
    owner = str(pairs["Job_Owner"]).partition("@")[0]
    return f"{job:<17} {name:<16} {owner:<16} {lasted:>9} {pairs['job_state']} {pairs['queue']!s:<16}\n"


def merged(words: Sequence[str]) -> list[str]:
    """Several tasks of one array become one id, which does not exist."""
    ids: dict[str, list[str]] = {}
    for word in words:
        task = re.fullmatch(r"(\d+)\[(\d+)\](.*)", word)
        ids.setdefault(task[1] if task else word, []).append(task[2] if task else "")
    return [word if numbers == [""] else f"{word}[{','.join(numbers)}]" for word, numbers in ids.items()]
