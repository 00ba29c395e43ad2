"""What a dialect makes of recorded answers, in a form that can be compared and read."""

from __future__ import annotations

import json
from pathlib import Path

from asim.errors import SubmitError
from asim.launchers.dialect import Completed, Dialect, SchedulerError
from tests.data import ROOT, load


class Recordings:
    """All answers of one version, and what each of them proves.

    ``expected.json`` beside them has ``{kind: {file: proof}}``; ``?again`` and ``?never`` stand for no answer, ``!again``
    and ``!never`` for a refusal.
    """

    def __init__(self, folder: str) -> None:
        self.folder: Path = ROOT / folder
        self.expected: dict[str, dict[str, object]] = json.loads((self.folder / "expected.json").read_text())

    def names(self) -> list[str]:
        """The recordings that are there."""
        return sorted(path.stem for path in self.folder.glob("*.txt"))

    def load(self, name: str) -> Completed:
        """One of them."""
        return load(self.folder / f"{name}.txt")

    def seen(self, kind: str, name: str, dialect: Dialect) -> object:
        """What the dialect makes of it."""
        return proof(kind, self.load(name), dialect)


MARKS = ("m1x", "m2x", "m3x-ok", "m6x", "m3", "zz")


def proof(kind: str, done: Completed, dialect: Dialect) -> object:
    """What an answer proves, as ``expected.json`` writes it."""
    try:
        if kind == "submit":
            return dialect.submitted(done)
        if kind == "cancel":
            return dialect.cancelled(done)
        if kind == "find":
            return dict(dialect.find_read(done, MARKS))
        read = dialect.read_status if kind == "status" else dialect.read_account
        return {
            job: f"{status.state} {'-' if status.code is None else status.code} {int(status.time)} {status.reason}".rstrip()
            for job, status in read(done).items()
        }
    except SubmitError as error:
        return "!again" if error.transient else "!never"
    except SchedulerError as error:
        return "?again" if error.transient else "?never"
