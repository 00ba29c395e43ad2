"""From jobs to batch scripts: which jobs share one, and its text. Pure; ``start`` submits what this makes and ``preview``
prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..settings.batch import BatchContext
from ..settings.script import Member, Places
from .base import JobKey
from .dialect import Batch, Command, Dialect

if TYPE_CHECKING:
    from ..plan import BatchRequest, JobSpec

ARRAY = 1000
"""Tasks that one array has at most: what Slurm and LSF take unless a site says otherwise."""
FOLDER = ".asim"


class Submit(NamedTuple):
    """One script, and whose commands are in it."""

    batch: Batch
    command: Command
    text: str
    keys: tuple[JobKey, ...]
    names: tuple[str, ...]


class Folders(NamedTuple):
    """Where one run keeps its scripts and hears of their members."""

    scripts: str
    ends: str
    stops: str

    @classmethod
    def of(cls, experiment: str, token: str) -> Folders:
        """Those of a run of an experiment."""
        base = f"{experiment}/{FOLDER}/{token}"
        return cls(f"{experiment}/{FOLDER}", f"{base}.ends", f"{base}.stops")


def submits(
    dialect: Dialect,
    jobs: Iterable[tuple[JobKey, JobSpec]],
    folders: Folders,
    token: str,
    *,
    grace: float,
    throttle: int | None,
) -> Iterator[Submit]:
    """What is submitted for these jobs, in order: one script for each batch entity, or as its ``pack`` says.

    :param throttle: how many tasks of an array may run at once.
    """
    groups: dict[int, list[tuple[JobKey, JobSpec]]] = {}
    for key, spec in jobs:
        if spec.batch is not None:
            groups.setdefault(id(spec.batch), []).append((key, spec))
    for rows in groups.values():
        request = rows[0][1].batch
        assert request is not None
        for part in _parts(dialect, request, rows):
            yield _submit(dialect, request, part, folders, token, grace, throttle)


def _parts(
    dialect: Dialect, request: BatchRequest, rows: Sequence[tuple[JobKey, JobSpec]]
) -> Iterator[Sequence[tuple[JobKey, JobSpec]]]:
    if request.pack == "job":
        yield rows
        return
    size = min(ARRAY, dialect.most) if request.pack == "array" and len(rows) >= dialect.least else 1
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _submit(
    dialect: Dialect,
    request: BatchRequest,
    rows: Sequence[tuple[JobKey, JobSpec]],
    folders: Folders,
    token: str,
    grace: float,
    throttle: int | None,
) -> Submit:
    array = request.pack == "array" and len(rows) >= dialect.least
    mark = f"{token}.{rows[0][0]}"
    own = request.pack == "separate" or (request.pack == "array" and not array)
    name, home = (rows[0][1].name, _beside(request.home, rows[0][1].name)) if own else (request.name, request.home)
    places = Places(
        ends=folders.ends, stops=folders.stops, mark=mark, grace=grace, index=dialect.index if array else ""
    )
    batch = Batch(
        name=name,
        mark=mark,
        script=f"{folders.scripts}/{mark}.sh",
        settings=request.settings,
        size=len(rows) if array else 0,
        throttle=throttle if array else None,
    )
    context = BatchContext(name=name, stdout=f"{home}.out", stderr=f"{home}.err", places=places)
    members = [_member(key, spec) for key, spec in rows]
    text = request.settings.script(context, members)
    names = tuple(spec.name for _, spec in rows)
    return Submit(batch, dialect.submit(batch), text, tuple(key for key, _ in rows), names)


def _beside(home: str, name: str) -> str:
    """A member's script writes its own output beside the member's, under a name that is not the member's."""
    return f"{home.rpartition('/')[0]}/{name}.batch"


def _member(key: JobKey, spec: JobSpec) -> Member:
    stdout, stderr = ("", "") if spec.own_files else (spec.stdout, spec.stderr)
    return Member(key=key, cwd=spec.cwd, argv=spec.argv, env=spec.env, stdout=stdout, stderr=stderr, limit=spec.timeout)
