"""Batch scripts, run by real shells."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from asim.settings import BatchContext, BatchSettings
from asim.settings.script import Member, Places
from tests.conftest import missing

WITHIN = 30
"""Seconds in which any of these scripts must end."""
SHELLS = ["bash", "dash"]


class Ended(NamedTuple):
    """How a script ended, and what it said itself."""

    code: int
    stdout: str
    stderr: str


class Tells(BatchSettings):
    """Settings of no system, whose scripts pass signals on."""

    FORWARDS = True


class Job:
    """The directories of one run, in which scripts are started.

    :ivar ends: what members tell.
    :ivar stops: what is to end.
    """

    def __init__(self, root: Path, shell: str = "bash") -> None:
        if not shutil.which(shell):
            missing(f"there is no {shell}")
        self.root, self.shell = root, shell
        self.ends, self.stops = root / "ends", root / "stops"
        self.ends.mkdir(exist_ok=True)
        self.stops.mkdir(exist_ok=True)
        self.places = Places(ends=str(self.ends), stops=str(self.stops), mark="t.1", grace=0.5)

    def member(self, key: int, *argv: str, **kwargs: object) -> Member:
        """A command with output files of its own."""
        known = {"cwd": str(self.root), "stdout": f"{self.root}/{key}.out", "stderr": f"{self.root}/{key}.err"}
        return Member(key=key, argv=argv, **{**known, **kwargs})  # type: ignore[arg-type]

    def sh(self, key: int, script: str, **kwargs: object) -> Member:
        """A command in a shell's words."""
        return self.member(key, "sh", "-c", script, **kwargs)

    def text(self, *members: Member, batch: BatchSettings | None = None, index: str = "") -> str:
        """The script."""
        context = BatchContext(
            name="job", stdout="/dev/null", stderr="/dev/null", places=replace(self.places, index=index)
        )
        return (batch or BatchSettings("submit")).script(context, members)

    @contextmanager
    def started(self, text: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """The script while it runs, in a session of its own; whatever is left is killed."""
        script = self.root / "script"
        script.write_bytes(text.encode("utf-8", "surrogateescape"))
        with (self.root / "said").open("wb") as out, (self.root / "said.err").open("wb") as err:
            environ = {"PATH": "/usr/bin:/bin", **env}
            argv = [self.shell, str(script)]
            with subprocess.Popen(argv, stdout=out, stderr=err, env=environ, start_new_session=True) as process:
                try:
                    yield process
                finally:
                    with suppress(ProcessLookupError):
                        process.kill()

    def run(self, text: str, **env: str) -> Ended:
        """Run a script to its end."""
        with self.started(text, **env) as process:
            code = process.wait(WITHIN)
        return Ended(code, (self.root / "said").read_text(), (self.root / "said.err").read_text())

    def told(self) -> dict[str, list[str]]:
        """What members told: name of the file -> its words."""
        return {path.name: path.read_text().split() for path in self.ends.iterdir() if path.name[0] != "."}

    def codes(self) -> dict[str, str]:
        """The exit codes among that."""
        return {name: words[0] for name, words in self.told().items() if name.endswith(".end")}


def run(text: str, shell: str = "bash") -> Ended:
    """The end of a shell's text. (Not by a pipe: what is left asleep for a moment would keep it open.)"""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = subprocess.run(
            [shell, "-s"], input=text.encode(), stdout=out, stderr=err, timeout=60, check=False
        ).returncode
        said = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
    return Ended(code, *said)


def calls(text: str, count: int, variable: str, shell: str = "bash") -> list[list[str]]:
    """The words that ``asim_member`` gets in each of the first tasks of an array's script.

    :param variable: the one that tells a task its number.
    """
    member = text.rpartition("\n(\n")[2].rpartition("\n) &")[0]
    head = 'asim_member() { printf "%s\\0" "$#" "$@"; }\ntask() {\n'
    script = f'{head}{member}\n}}\n{variable}=0\nwhile [ "${variable}" -lt {count} ]; do task; {variable}=$(({variable} + 1)); done'
    done = subprocess.run(
        [shell, "-s"], input=script.encode("utf-8", "surrogateescape"), stdout=subprocess.PIPE, timeout=60, check=True
    )
    words, found = iter(done.stdout.decode("utf-8", "surrogateescape").split("\0")), []
    while size := next(words):
        found.append([next(words) for _ in range(int(size))])
    return found


every_shell = pytest.mark.parametrize("shell", SHELLS)
