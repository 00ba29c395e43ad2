"""A fake OpenPBS 23.06.06: ``qsub``, ``qstat``, ``qdel``, ``pbsnodes``."""

from __future__ import annotations

import getopt
import json
import os
import pwd
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from .attributes import View, is_over, output_paths
from .forms import VERSION, as_json
from .jobs import Job, Start, Task
from .qstat import Finder, id_pattern, merged, named
from .qsub import Refusal, Submit, chunks, seconds, slots, usage
from .server import Answer, FakeScheduler, NeedStdin, Request

_VARIABLE = re.compile(r",(?=[A-Za-z_]\w*(?:=|,|$))")


class FakePBS(FakeScheduler):
    """OpenPBS 23.06.06 as it was recorded.

    The other parameters are those of every fake.

    :param history: whether finished jobs can be asked for (``job_history_enable``).
    :param first_only: print only the first of several jobs in JSON, as a later version does.
    :param poll: seconds after which a running job's host is first asked about it (substate 41, then 42).
    :param host: the name of the server and of its one execution host.
    :ivar home: where jobs run and what their HOME is, though they were submitted elsewhere.
    """

    COMMANDS: ClassVar = {"qsub": "_qsub", "qstat": "_qstat", "qdel": "_qdel", "pbsnodes": "_pbsnodes"}
    SUBMIT = "qsub"

    def __init__(
        self,
        directory: str | Path,
        *,
        history: bool = True,
        first_only: bool = False,
        poll: float = 2.0,
        host: str = "pbshost",
        **timing: Any,
    ) -> None:
        self.host, self.history, self.first_only = host, history, first_only
        self.poll = poll
        self.home = Path(directory).absolute() / "home"
        for folder in (self.home, Path(directory).absolute() / "aux"):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(Path(directory).absolute(), **timing)

    def _unreachable(self, argv: Sequence[str]) -> Answer:
        refused = "Connection refused\n"
        lost = f"{refused}{argv[0]}: cannot connect to server {self.host} (errno=15010)\n"
        if argv[0] == "qstat":
            return Answer(255, as_json(self.host, {}) if "json" in argv else "", lost)
        if argv[0] == "pbsnodes":
            return Answer(1, "", f"{refused}pbsnodes: cannot connect to server {self.host}, error=15010\n")
        down = f"{refused}Couldn't connect to cluster: {self.host}\n"
        return Answer(162, "", down if argv[0] == "qdel" else lost)

    # --- qsub

    def _qsub(self, request: Request) -> Answer:
        if request.argv[1:] == ("--version",):
            return _version()
        submit = Submit()
        try:
            submit.read(request.argv[1:])
            if request.env.get("PBS_SERVER", self.host) != self.host:
                submit.options["q"] = f"@{request.env['PBS_SERVER']}"
            name, text = self._script(request, submit)
            submit.directives(text)
            submit.check()
            job = self._job(request, submit, name, text)
        except Refusal as refusal:
            return refusal.answer
        self._take(job, submit.indices())
        return Answer(0, "" if "z" in submit.options else f"{View(self.host).job_id(job)}\n")

    def _script(self, request: Request, submit: Submit) -> tuple[str, str]:
        """The default name, and the script's text."""
        if submit.words[:1] == ["--"]:
            return "STDIN", "exec " + " ".join(f"'{word}'" for word in submit.words[1:]) + "\n"
        if not submit.words:
            if request.stdin is None:
                raise NeedStdin
            return "STDIN", request.stdin
        path = Path(request.cwd) / submit.words[0]
        if path.is_dir():
            raise Refusal(1, "script not a file")
        if not path.exists():
            raise Refusal(1, "script file:: No such file or directory")
        return path.name[:15], path.read_text(errors="surrogateescape")

    def _job(self, request: Request, submit: Submit, name: str, text: str) -> Job:
        options, number = submit.options, self.next_number
        variables = self._variables(request, options)
        job = Job(
            number,
            options.get("N", name),
            self._keep(text, f"{number}.SC"),
            str(self.home),
            variables,
            time.time(),
            limit=seconds(submit.resources.get("walltime", "")),
            slots=slots(submit.resources),
            throttle=submit.throttle(),
            held="h" in options or options.get("q") == "holdq",
            after=[(kind, int(job.partition(".")[0])) for kind, job in submit.after],
            facts={
                "user": _user(),
                "queue": options.get("q", "workq"),
                "work": request.cwd,
                "home": str(self.home),
                "arguments": " ".join(request.argv[1:]),
                "variables": json.dumps(variables),
                "resources": json.dumps(submit.resources),
                **{key: options[key] for key in "oejkJS" if key in options},
            },
        )
        if submit.after:
            depend = ((kind, job if "." in job else f"{job}.{self.host}") for kind, job in submit.after)
            job.facts["depend"] = ",".join(f"{kind}:{job}@{self.host}" for kind, job in depend)
        self.next_number += 1
        return job

    def _variables(self, request: Request, options: Mapping[str, str]) -> dict[str, str]:
        """What the job is told of the place it was submitted from. ``-V`` passes nothing, as recorded."""
        env = request.env
        given = {}
        for part in _VARIABLE.split(options["v"]) if options.get("v") else ():
            name, equals, value = part.partition("=")
            if not equals and name not in env:
                raise Refusal(1, "cannot send environment with the job")
            given[name] = value.strip('"') if equals else env[name]
        names = {"HOME": "HOME", "LANG": "LANG", "LOGNAME": "LOGNAME", "PATH": "PATH", "SHELL": "SHELL"}
        origin = {f"PBS_O_{name}": env.get(source, "") for name, source in names.items()}
        work = {"PBS_O_WORKDIR": request.cwd, "PBS_O_SYSTEM": "Linux"}
        return origin | work | given | {"PBS_O_QUEUE": options.get("q", "workq"), "PBS_O_HOST": self.host}

    # --- running

    def _start(self, task: Task) -> Start:
        job = task.job
        name = View(self.host).task_id(task)
        nodes = self.directory / "aux" / name
        parts = chunks(json.loads(job.facts["resources"]))
        nodes.write_text(f"{self.host}\n" * sum(part.get("mpiprocs", 1) for part in parts))
        temporary = self.directory / "aux" / f"pbs.{name}"
        temporary.mkdir(exist_ok=True)
        env = self._environment(task, name) | {"PBS_NODEFILE": str(nodes), "TMPDIR": str(temporary)}
        threads = str(parts[0].get("ompthreads", parts[0].get("ncpus", 1)))
        env |= {"NCPUS": threads, "OMP_NUM_THREADS": threads}
        shell = job.facts.get("S", "/bin/bash")
        out, err = self._spooled(task)
        argv = (shell, "-c", '"$0"', str(job.script))
        return Start(argv, str(self.home), env, out, None if "j" in job.facts and job.facts["j"] != "n" else err)

    def _environment(self, task: Task, name: str) -> dict[str, str]:
        job = task.job
        user, home = job.facts["user"], str(self.home)
        array = {"PBS_ARRAY_ID": f"{job.number}[].{self.host}", "PBS_ARRAY_INDEX": str(task.index)} if job.array else {}
        return {
            "ENVIRONMENT": "BATCH",
            "HOME": home,
            "LOGNAME": user,
            "USER": user,
            "SHELL": "/bin/bash",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBDIR": home,
            "PBS_JOBID": name,
            "PBS_JOBNAME": job.name,
            "PBS_QUEUE": job.facts["queue"],
            "PBS_NODENUM": "0",
            "PBS_TASKNUM": "1",
            "PBS_MOMPORT": "15003",
            "PBS_JOBCOOKIE": f"{job.number:032X}",
            **job.env,
            **array,
        }

    def _spooled(self, task: Task) -> tuple[Path, Path]:
        """Where output is until the job ends; with ``-k d`` at its place at once."""
        name = View(self.host).task_id(task)
        if "d" in task.job.facts.get("k", ""):
            out, err = output_paths(task.job, task.index)
            return Path(out), Path(err)
        return self.spool / f"{name}.OU", self.spool / f"{name}.ER"

    def _deliver(self, task: Task) -> None:
        spooled = self._spooled(task)
        if task.why == "limit":
            said = f"=>> PBS: job killed: walltime {task.job.limit + 1:.0f} exceeded limit {task.job.limit:.0f}\n"
            with spooled[1].open("a") as file:
                file.write(said)
        if "d" in task.job.facts.get("k", ""):
            return
        joined = task.job.facts.get("j", "n")
        paths = output_paths(task.job, task.index)
        targets = (paths[1] if joined == "eo" else paths[0], None if joined != "n" else paths[1])
        for source, target in zip(spooled, targets, strict=True):
            if target is not None and source.exists():
                task.delivered = self._copy(source, Path(target)) and task.delivered

    def _copy(self, source: Path, target: Path) -> bool:
        if target == Path(os.devnull):
            return True
        if target.is_dir():
            target /= source.name
        try:
            shutil.copyfile(source, target)
            target.chmod(0o600)
        except OSError:
            shutil.move(source, self.undelivered / source.name)
            return False
        source.unlink()
        return True

    # --- qstat, qdel, pbsnodes

    def _qstat(self, request: Request) -> Answer:
        if request.argv[1:] == ("--version",):
            return _version()
        return Finder(self, request).answer()

    def _qdel(self, request: Request) -> Answer:
        if request.argv[1:] == ("--version",):
            return _version()
        try:
            pairs, words = getopt.getopt(list(request.argv[1:]), "W:x")
        except getopt.GetoptError as error:
            return Answer(2, "", f"qdel: invalid option -- '{error.opt}'\n{_QDEL_USAGE}")
        if not words:
            return Answer(2, "", _QDEL_USAGE)
        code, errors = 0, []
        for word in merged(words):
            wrong = self._delete(word, dict(pairs))
            if wrong:
                code = wrong[0]
                errors.append(f"qdel: {wrong[1]}\n")
        return Answer(code, "", "".join(errors))

    def _delete(self, word: str, options: Mapping[str, str]) -> tuple[int, str] | None:
        match = id_pattern(self.host).fullmatch(word)
        if match is None and not re.fullmatch(r"\d+\[\d+,[\d,]+\](\.\w+)?", word):
            return 1, f"illegally formed job identifier: {word}"
        job = self.jobs.get(int(match[1])) if match else None
        tasks = [] if job is None or match is None else named(job, match[2])
        if job is None or not tasks or (not self.history and is_over(job)):
            return 153, f"Unknown Job Id {word if '[' not in word or '.' in word else f'{word}.{self.host}'}"
        if is_over(job) and "-x" in options:
            del self.jobs[job.number]
            return None
        if is_over(job):
            return 35, f"Job has finished {word.partition('.')[0]}.{self.host}"
        if match is not None and match[2] not in (None, "[]") and tasks[0].state == "ended":
            return 55, f"Request invalid for finished array subjob {word.partition('.')[0]}.{self.host}"
        forced = options.get("-W") == "force"
        for task in tasks:
            signals = (signal.SIGKILL,) if forced else (signal.SIGTERM, signal.SIGKILL)
            self._machine.end(task, "forced" if forced else "deleted", signals)
        return None

    def _pbsnodes(self, request: Request) -> Answer:
        if request.argv[1:] == ("--version",):
            return _version()
        if request.argv[1:] not in (("-a", "-F", "json"), ("-F", "json", self.host)):
            unknown = f"Node: {request.argv[-1]},  Error: Unknown node \n"
            return Answer(2, "", usage().answer.err) if request.argv[-1:] == ("-a",) else Answer(1, "", unknown)
        resources = {"arch": "linux", "host": self.host, "mem": "24684096kb", "ncpus": 4, "vnode": self.host}
        node = {"Mom": self.host, "ntype": "PBS", "state": "free", "pcpus": 4, "resources_available": resources}
        node |= {"resources_assigned": {}, "resv_enable": "True", "sharing": "default_shared", "license": "l"}
        return Answer(0, as_json(self.host, {self.host: node}, top="nodes"))


_QDEL_USAGE = "usage:\n\tqdel [-W force|suppress_email=X] [-x] job_identifier...\n\tqdel --version\n"


def _version() -> Answer:
    return Answer(0, f"pbs_version = {VERSION}\n")


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
