"""Running contenders: each in a fresh process and a fresh directory, interleaved with the C loop."""

from __future__ import annotations

import json
import os
import platform
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]
median = statistics.median


@dataclass(frozen=True)
class Case:
    """One comparison: how many members of what, and how many of them at once."""

    n: int
    task: str
    in_flight: int

    @property
    def argv(self) -> list[str]:
        """The command of a member: ``true``, ``sleep:SECONDS``, or a command line."""
        words = ["sleep", self.task[6:]] if self.task.startswith("sleep:") else shlex.split(self.task)
        path = shutil.which(words[0]) if words else None
        if path is None:
            raise SystemExit(f"task {self.task!r}: no such executable")
        return [os.path.abspath(path), *words[1:]]

    def __str__(self) -> str:
        return f"{self.n} x {self.task}, {self.in_flight} in flight"


@dataclass(frozen=True)
class Contender:
    """Something that can run members.

    :ivar script: in ``contenders/``.
    :ivar package: what pip calls it, if it needs an environment of its own.
    :ivar members: run no more than so many by default (0: as many as asked), because it is slow.
    :ivar rounds: run no more rounds than so many by default (0: all).
    :ivar note: what the reader of the table should know.
    """

    name: str
    script: str
    package: str = ""
    members: int = 0
    rounds: int = 0
    note: str = ""
    python: str = sys.executable

    def size(self, case: Case, full: bool) -> int:
        return case.n if full or not self.members else min(case.n, self.members)

    def runs_in(self, number: int, full: bool) -> bool:
        return full or not self.rounds or number < self.rounds


class Bench:
    """A place to run in: a scratch directory, the compiled programs, and limits.

    :param root: directory under which members get theirs.
    :param timeout: seconds for one contender's run.
    :param launcher: asim's launcher.
    """

    def __init__(self, root: Path, binaries: Path, timeout: float, launcher: str = "local") -> None:
        self.root, self.binaries, self.timeout, self.launcher = root, binaries, timeout, launcher

    def fresh(self) -> Path:
        """The scratch directory, empty."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        return self.root

    def call(self, command: Sequence[str], environ: dict[str, str] | None = None) -> Row:
        """Run a command in a new directory and read its RESULT; ``{"error": …}`` if there is none."""
        with self._scratch() as scratch:
            process = subprocess.Popen(
                [word.replace("{root}", str(scratch)) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environ,
                cwd=scratch,
                start_new_session=True,
            )
            return _result(*_output(process, self.timeout))

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        try:
            yield self.fresh()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    def compiled(self, name: str) -> str:
        """The program made of ``<name>.c``."""
        target = self.binaries / name
        if not target.exists():
            compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
            if compiler is None:
                raise SystemExit("a C compiler (cc) is needed for the C loop that everything is compared with")
            subprocess.run([compiler, "-O2", "-o", str(target), str(HERE / f"{name}.c")], check=True)
        return str(target)

    def limit(self, case: Case, n: int) -> Row:
        """The C loop."""
        return self.call([self.compiled("limit"), str(n), str(case.in_flight), "{root}", *case.argv])

    def contend(self, contender: Contender, case: Case, n: int) -> Row:
        """One run of one contender."""
        script = HERE / "contenders" / contender.script
        options = ["--n", str(n), "--in-flight", str(case.in_flight), "--root", "{root}", "--launcher", self.launcher]
        return self.call([contender.python, str(script), *options, "--", *case.argv], self._environ(contender))

    def _environ(self, contender: Contender) -> dict[str, str] | None:
        if not contender.package:
            return None
        home = self.binaries / "home"  # some keep files there
        home.mkdir(exist_ok=True)
        path = f"{Path(contender.python).parent}:{os.environ.get('PATH', '')}"
        return dict(os.environ, PATH=path, HOME=str(home), PYTHONWARNINGS="ignore")


@contextmanager
def bench(root: str | None, timeout: float, launcher: str = "local") -> Iterator[Bench]:
    """A :class:`Bench` whose files are gone afterwards.

    :param root: default: memory if the machine has a file system there, else the directory for temporary files.
    """
    if root is None:
        root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    os.makedirs(root, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="asim-bench-") as binaries:
        place = Path(tempfile.mkdtemp(prefix="asim-bench-", dir=os.path.abspath(root)))
        try:
            yield Bench(place / "run", Path(binaries), timeout, launcher)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _output(process: subprocess.Popen[str], timeout: float) -> tuple[str, str]:
    try:
        return process.communicate(timeout=timeout)[0], ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the session that was started for it, nothing else
        return process.communicate()[0], f"not done after {timeout:g} s; "
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def _result(output: str, trouble: str) -> Row:
    for line in output.splitlines():
        if "RESULT {" in line and not trouble:
            return dict(json.loads(line[line.index("RESULT ") + 7 :]))
    return {"error": f"{trouble}{output[-2000:].strip()}"}


def compare(
    place: Bench, cases: Sequence[Case], contenders: Sequence[Contender], rounds: int, full: bool
) -> Iterator[Row]:
    """Every contender in every case, ``rounds`` times in shuffled order, the C loop right before and after each."""
    for number in range(rounds):
        plan = [(case, one) for case in cases for one in contenders if one.runs_in(number, full)]
        random.Random(number).shuffle(plan)
        previous: tuple[tuple[str, int, int], Row] | None = None
        for case, contender in plan:
            size = contender.size(case, full)
            same = (case.task, case.in_flight, size)
            before = previous[1] if previous and previous[0] == same else place.limit(case, size)
            result = place.contend(contender, case, size)
            after = place.limit(case, size)
            previous = (same, after)
            yield _row(number, case, contender, size, before, result, after)


def _row(number: int, case: Case, contender: Contender, size: int, before: Row, result: Row, after: Row) -> Row:
    if "error" in before or "error" in after:
        raise SystemExit(f"the C loop failed: {before.get('error') or after.get('error')}")
    row = {
        "round": number,
        "members": case.n,
        "task": case.task,
        "in_flight": case.in_flight,
        "contender": contender.name,
        "load": round(os.getloadavg()[0], 2),
        "c_before_s": before["total_s"],
        "c_after_s": after["total_s"],
        "c_driver_cpu_s": (before["driver_cpu_s"] + after["driver_cpu_s"]) / 2,
        "n": size,
        **result,
    }
    if result.get("bad"):
        row["error"] = f"{result['bad']} members failed or left no output files"
    if "error" not in row:
        row["ratio"] = 2 * result["total_s"] / (before["total_s"] + after["total_s"])
    return row


def chosen(rows: Iterable[Row], contender: str, case: Case) -> list[Row]:
    """The good rows of one contender in one case."""
    same = (contender, case.n, case.task, case.in_flight)
    keys = ("contender", "members", "task", "in_flight")
    return [row for row in rows if tuple(row[key] for key in keys) == same and "error" not in row]


def machine(root: Path) -> Row:
    """What the figures depend on."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "file_system": _file_system(root),
        "load": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _file_system(root: Path) -> str:
    shown = subprocess.run(["stat", "-f", "-c", "%T", str(root.parent)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()
