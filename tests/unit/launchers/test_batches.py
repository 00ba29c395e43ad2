"""From jobs to batch scripts: which jobs share one, what it is called, and what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from asim.launchers.base import JobKey
from asim.launchers.batches import Folders, Submit, submits
from asim.plan import JobSpec
from asim.settings import RunSettings, SbatchSettings, SrunSettings
from tests.unit.makers import ensemble, model, planned, wlm
from tests.unit.settings.scripts import calls

from .fakes import FakeDialect

FOLDERS = Folders.of("/w/exp", "t")


def made(
    specs: Sequence[JobSpec], keys: Sequence[int] = (), dialect: Any = None, throttle: int | None = None
) -> list[Submit]:
    """What is submitted for these jobs."""
    numbered = zip(map(JobKey, keys or range(1, len(specs) + 1)), specs, strict=True)
    return list(submits(dialect or FakeDialect(), numbered, FOLDERS, "t", grace=5, throttle=throttle))


def specs(pack: Any = "job", count: int = 3, name: str = "e", **kwargs: Any) -> list[JobSpec]:
    """The members of an ensemble with batch settings."""
    group = ensemble(name, count, batch_settings=SbatchSettings(), pack=pack, **kwargs)
    return planned(group, context=wlm("slurm")).jobs


def members(submit: Submit) -> list[str]:
    """The lines of its members."""
    return [line.strip() for line in submit.text.splitlines() if "asim_member " in line]


def test_folders() -> None:
    """Everything of a run is in the experiment's own folder, under its token."""
    assert FOLDERS == ("/w/exp/.asim", "/w/exp/.asim/t.ends", "/w/exp/.asim/t.stops")


def test_jobs_without_batch_are_left_out() -> None:
    """Processes are none of the scheduler's business."""
    plain = planned(ensemble("p", 2), context=wlm("slurm")).jobs
    assert made(plain) == []
    assert [submit.keys for submit in made([plain[0], *specs(count=2), plain[1]])] == [(2, 3)]


def test_entities_do_not_share_a_job() -> None:
    """Two ensembles with the same settings are two jobs, however their members are mixed."""
    first, second = specs(count=2), specs(count=2, name="f")
    mixed = [first[0], second[0], second[1], first[1]]
    assert [(submit.batch.name, submit.keys, submit.names) for submit in made(mixed, [4, 5, 6, 7])] == [
        ("e", (4, 7), ("e_0", "e_1")),
        ("f", (5, 6), ("f_0", "f_1")),
    ]


def test_marks() -> None:
    """Every submit of a run has a mark of its own, which its script's name begins with, and scripts look for it."""
    found = made(specs("separate", 12), range(95, 107))
    assert [submit.batch.mark for submit in found] == [f"t.{key}" for key in range(95, 107)]
    assert all(submit.batch.script == f"/w/exp/.asim/{submit.batch.mark}.sh" for submit in found)
    assert all(f"asim_mark={submit.batch.mark} " in submit.text for submit in found)


def test_a_member_that_is_tried_again() -> None:
    """One member of a packed job that is submitted again has a script with itself alone."""
    (submit,) = made(specs()[1:2], [17])
    assert (submit.batch.mark, submit.keys, submit.batch.size) == ("t.17", (17,), 0)
    assert members(submit) == ["asim_member 17 /w /w/exp/e_1.out /w/exp/e_1.err 0 /bin/prog"]


@pytest.mark.parametrize(
    ("count", "most", "sizes"), [(3, 2, [2, 1]), (4, 2, [2, 2]), (5, 1000, [5]), (1001, 5000, [1000, 1])]
)
def test_arrays_are_cut(count: int, most: int, sizes: list[int]) -> None:
    """No array is larger than every site takes; tasks count from 0 in each."""
    dialect = FakeDialect()
    dialect.most = most
    found = made(specs("array", count), dialect=dialect)
    assert [submit.batch.size for submit in found] == sizes
    assert [len(submit.keys) for submit in found] == sizes
    assert all("\nasim_task=${TASK}\n" in submit.text for submit in found)
    for submit in found:
        keys = [int(words[0]) for words in calls(submit.text, submit.batch.size, "TASK")]
        assert keys == list(submit.keys)


def test_small_arrays_are_plain_jobs() -> None:
    """Where a system has no arrays so small, the members are jobs, each with its own output."""
    dialect = FakeDialect()
    dialect.least = 4
    found = made(specs("array", 3), dialect=dialect)
    assert [(submit.batch.name, submit.batch.size) for submit in found] == [("e_0", 0), ("e_1", 0), ("e_2", 0)]
    assert ["#SBATCH --output=/w/exp/e_1.batch.out" in submit.text for submit in found] == [False, True, False]
    assert all("case" not in submit.text.partition("called off")[2] for submit in found)


@pytest.mark.parametrize(("pack", "throttles"), [("array", [2]), ("job", [None]), ("separate", [None] * 3)])
def test_throttle(pack: str, throttles: list[int | None]) -> None:
    """Only the tasks of an array can be kept from running all at once."""
    assert [submit.batch.throttle for submit in made(specs(pack), throttle=2)] == throttles


@pytest.mark.parametrize("pack", ["job", "array", "separate"])
def test_no_two_write_the_same_file(pack: str) -> None:
    """The scripts' own outputs are nobody's whose members' outputs are there."""
    found = made([*specs(pack), *specs(pack, name="f")])
    own = [line for submit in found for line in submit.text.splitlines() if "--output=" in line or "--error=" in line]
    assert len(set(own)) == len(own)
    outputs = {word for submit in found for line in members(submit) for word in line.split()}
    assert not {line.partition("=")[2] for line in own} & outputs


def test_commands_that_open_their_files_themselves() -> None:
    """srun gets its output files as options, so the script opens none; a plain command gets them from the script."""
    run = planned(model(run_settings=SrunSettings("exe"), batch_settings=SbatchSettings()), context=wlm("slurm")).jobs
    plain = planned(model(run_settings=RunSettings("exe"), batch_settings=SbatchSettings()), context=wlm("slurm")).jobs
    (by_srun,), (by_shell,) = made(run), made(plain)
    assert members(by_srun)[0].startswith("asim_member 1 /w '' '' 0 srun --output /w/exp/m.out ")
    assert members(by_shell) == ["asim_member 1 /w /w/exp/m.out /w/exp/m.err 0 exe"]


def test_submits_are_the_dialects() -> None:
    """The command is what the language makes of the batch."""
    (submit,) = made(specs("array"))
    assert submit.command == (("submit", "t.1", "3"), "")
    assert submit.batch.settings.submit_argv("x") == ("sbatch", "--parsable", "x")
