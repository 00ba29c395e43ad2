"""Experiments on a private Slurm, whose commands are counted and can be made to misbehave."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim import Experiment, RunSettings, SbatchSettings
from asim.runtime.group import JobGroup
from asim.runtime.job import Job
from asim.status import JobState
from tests.conftest import BACKENDS
from tests.integration.conftest import alive, until
from tests.servers import until as wait_until
from tests.site.slurm import SlurmSite

__all__ = [
    "Allocated", "C", "F", "L", "Lab", "P", "R", "T", "X", "accounted", "alive", "allocation", "anyio_backend", "ends", "lab",
    "processes", "state_of", "until", "wait_until",
]  # fmt: skip

C, F, L, P = JobState.COMPLETED, JobState.FAILED, JobState.LOST, JobState.PENDING
R, T, X = JobState.RUNNING, JobState.TIMEOUT, JobState.CANCELLED
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "srun")


@pytest.fixture(params=BACKENDS[:1])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Plain asyncio: daemons are slow enough, and that uvloop makes no difference is proved elsewhere."""
    return request.param


class Lab:
    """A user of a site, in an empty directory of their own.

    :param site: the cluster.
    :param place: the directory.
    :param environ: where the site's environment is put; experiments take theirs from there.
    """

    def __init__(self, site: SlurmSite, place: Path, environ: pytest.MonkeyPatch) -> None:
        self.site, self.place, self.environ = site, place, environ
        self._log = place / "commands.log"
        bin_ = place / "bin"
        bin_.mkdir()
        path = site.env["PATH"]
        for name in COMMANDS:
            real, hook = shutil.which(name, path=path), bin_ / f"{name}.hook"
            text = f'echo {name} "$@" >> {self._log}\n[ ! -e {hook} ] || . {hook}\nexec {real} "$@"\n'
            self._program(bin_ / name, text)
        for name, value in {**site.env, "PATH": f"{bin_}:{path}"}.items():
            environ.setenv(name, value)
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name not in site.env]:
            environ.delenv(name)
        environ.chdir(place)
        self._earlier = {job for job, _ in self._queue()}

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)

    # -- what is run

    def experiment(self, name: str = "exp", **options: Any) -> Experiment:
        """One that polls often and waits for nothing long."""
        return Experiment(name, launcher="slurm", **{"min_poll": 0.2, "max_poll": 1, "stop_grace": 2, **options})

    def script(self, name: str, text: str) -> str:
        """A program for members; its path."""
        self._program(self.place / name, text)
        return str(self.place / name)

    def sh(self, text: str, *args: str, **options: Any) -> RunSettings:
        """A member that is a shell line."""
        return RunSettings("/bin/sh", ["-c", text, "sh", *args], **options)

    def python(self, text: str, **options: Any) -> RunSettings:
        """A member that is a Python program."""
        return RunSettings(sys.executable, ["-c", text], **options)

    def batch(self, **args: Any) -> SbatchSettings:
        """Batch settings, with options of sbatch."""
        return SbatchSettings(batch_args={name.replace("_", "-"): value for name, value in args.items()})

    # -- what was run

    def calls(self, name: str = "") -> list[str]:
        """The commands so far that are (or begin with) this one."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [line for line in lines if line.split(" ", 1)[0] == name or not name]

    def hook(self, name: str, text: str | None) -> None:
        """Shell lines that run before a command; None: none any more."""
        path = self.place / "bin" / f"{name}.hook"
        if text is None:
            path.unlink()
        else:
            fresh = path.with_suffix(".new")
            fresh.write_text(f"{text}\n")
            fresh.rename(path)

    def jobs(self, columns: str = "%i %T") -> list[str]:
        """What the queue has of this user, ended or not, in order."""
        return [row for job, row in self._queue(columns) if job not in self._earlier]

    def _queue(self, columns: str = "%i") -> list[tuple[str, str]]:
        words = ("squeue", "-h", "-r", "-t", "all", "-S", "i", "-o", f"%A {columns}")
        rows = (line.partition(" ") for line in self.site.run(*words).stdout.splitlines())
        return [(job, row) for job, _, row in rows]

    def job_of(self, job: Job) -> str:
        """Slurm's id of the batch job that has this one, from the journal's notes."""
        for file in self.place.glob("*/.asim/*.journal.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            found = [str(row["batch"]) for row in rows if "batch" in row and job.key in row["keys"]]
            if found:
                return found[-1]
        raise AssertionError(f"no batch job of {job.name}")

    def logs(self) -> str:
        """For messages."""
        return self.site.logs()


def ends(group: JobGroup | list[Job]) -> list[tuple[JobState, int | None]]:
    """State and exit code of each."""
    return [(job.status, job.returncode) for job in group]


async def state_of(job: Job, state: JobState, within: float = 20) -> None:
    """Wait until a job is in a state."""
    with anyio.fail_after(within):
        while job.status is not state:
            await anyio.sleep(0.01)


def processes(*marks: str) -> list[int]:
    """Those that have all these texts in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and alive(int(entry.name)):
                line = (entry / "cmdline").read_bytes()
                found += [int(entry.name)] if all(mark.encode() in line for mark in marks) else []
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture
def lab(slurm: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A user of a Slurm without accounting."""
    return Lab(slurm, tmp_path, monkeypatch)


@pytest.fixture
def accounted(slurm_accounting: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A user of a Slurm with accounting."""
    return Lab(slurm_accounting, tmp_path, monkeypatch)


class Allocated:
    """An allocation that the driver is in, as ``salloc`` leaves it to its command.

    :ivar id: the job's number.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab, self._told = lab, lab.place / "salloc.env"
        line = f"env -0 > {self._told}.new; mv {self._told}.new {self._told}; exec sleep 600"
        argv = ["salloc", "--quiet", "--nodes=4", "--exclusive", "sh", "-c", line]
        self._process = subprocess.Popen(argv, env=lab.site.env, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until(self._told.exists, 20, "the allocation")
        pairs = (item.split("=", 1) for item in self._told.read_text().rstrip("\0").split("\0"))
        self.env = {name: value for name, value in pairs if name.startswith("SLURM") and name != "SLURM_CONF"}
        self.id = self.env["SLURM_JOB_ID"]

    def enter(self) -> None:
        """Experiments that are made from now on are in it."""
        for name, value in self.env.items():
            self._lab.environ.setenv(name, value)

    def end(self) -> None:
        """Give it back."""
        self._lab.site.run("scancel", self.id, check=False)
        self._process.kill()
        self._process.wait(20)


@pytest.fixture
def allocation(lab: Lab) -> Iterator[Allocated]:
    """All four nodes, with the driver inside."""
    allocation = Allocated(lab)
    allocation.enter()
    yield allocation
    allocation.end()
