"""A dialect's commands, run for real and read."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asim.launchers.base import JobStatus
from asim.launchers.dialect import Batch, Command, Completed, Dialect
from asim.settings import BatchSettings
from asim.status import JobState
from tests.servers import until
from tests.site.daemons import Daemons

WITHIN = 30.0
"""Seconds until a job must be where it is expected, on a busy machine."""
_NUMBERS = itertools.count()


class Asker:
    """One user of a workload manager.

    :param dialect: its language.
    :param site: where its commands are run.
    :param directory: where the user works.
    """

    def __init__(self, dialect: Dialect, site: Daemons, directory: Path) -> None:
        self.dialect, self.site, self.directory = dialect, site, directory
        self.commands: list[tuple[str, ...]] = []
        directory.mkdir(parents=True, exist_ok=True)

    def run(self, command: Command) -> Completed:
        """One command."""
        self.commands.append(command.argv)
        done = subprocess.run(
            command.argv, input=command.stdin, capture_output=True, text=True, errors="surrogateescape",
            env=self.site.env, cwd=self.directory, timeout=WITHIN, check=False,
        )  # fmt: skip
        return Completed(command.argv, done.returncode, done.stdout, done.stderr)

    def batch(self, text: str, settings: BatchSettings, **changes: Any) -> Batch:
        """A submit of a script with this text behind the directives."""
        mark = f"asim-{next(_NUMBERS)}"
        script = self.directory / f"{mark}.sh"
        directives = [f"{settings.PREFIX} {line}" for line in settings.format_batch_args()]
        script.write_text("\n".join(["#!/bin/bash", *directives, text, ""]))
        return Batch(name="job", mark=mark, script=str(script), settings=settings, **changes)

    def take(self, batch: Batch) -> str:
        """Submit it, which must go well."""
        return self.dialect.submitted(self.run(self.dialect.submit(batch)))

    def status(self, *jobs: str) -> Mapping[str, JobStatus]:
        """What the queue says."""
        answers = (self.dialect.read_status(self.run(command)) for command in self.dialect.status(jobs))
        return {job: status for answer in answers for job, status in answer.items()}

    def account(self, *jobs: str) -> Mapping[str, JobStatus]:
        """What the accounts say."""
        answers = (self.dialect.read_account(self.run(command)) for command in self.dialect.account(jobs))
        return {job: status for answer in answers for job, status in answer.items()}

    def cancel(self, *jobs: str) -> None:
        """Cancel, which must go well."""
        for command in self.dialect.cancel(jobs):
            self.dialect.cancelled(self.run(command))

    def find(self, *marks: str) -> Mapping[str, str]:
        """What is there with these marks."""
        answers = [self.dialect.find_read(self.run(command), marks) for command in self.dialect.find(marks)]
        return {mark: job for answer in answers for mark, job in answer.items()}

    def until_states(self, wanted: Mapping[str, JobState], within: float = WITHIN) -> Mapping[str, JobStatus]:
        """Ask until each of these jobs is in its state."""
        jobs: Sequence[str] = list(dict.fromkeys(base(job) for job in wanted))
        last: Mapping[str, JobStatus] = {}

        def there() -> bool:
            nonlocal last
            last = self.status(*jobs)
            return all(job in last and last[job].state is state for job, state in wanted.items())

        try:
            until(there, within)
        except AssertionError:
            raise AssertionError(f"wanted {dict(wanted)}, there is {dict(last)}{self.site.logs()}") from None
        return last


def base(job: str) -> str:
    """The array of a task."""
    return job.partition("_")[0].partition(".")[0]


def states(found: Mapping[str, JobStatus], jobs: Iterable[str]) -> list[str]:
    """State words of these, "" for those that are not there."""
    return [str(found[job].state) if job in found else "" for job in jobs]
