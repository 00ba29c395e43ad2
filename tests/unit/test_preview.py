"""A plan as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from asim.entities import Entity
from asim.errors import ConfigError
from asim.plan import LaunchPlan
from asim.preview import FORMATS, VERBOSITIES, Format, Verbosity, as_dict, as_text, check_options
from asim.settings import SbatchSettings, SrunSettings

from .makers import ensemble, file, model, planned, settings, wlm


def text(plan: LaunchPlan, verbosity: Verbosity = "info", output: Format = "plain_text") -> str:
    """The preview."""
    return as_text(plan, verbosity, output)


def rich_plan() -> LaunchPlan:
    """A plan with everything that a preview can show."""
    one = model(
        "one",
        {"THERMO": [95, 100], "n": np.int64(3)},
        settings(exe_args=["a b"], env_vars={"A": "1", "B": "x"}),
        params_as_args="n",
        path="there",
        timeout=90,
        retries=2,
    )
    group = ensemble("group", 4)
    group.after(one, when="ended")
    group.attach_generator_files(to_copy="data", to_symlink="mesh", to_configure="in.t")
    return planned(one, group, sources=[file("/w/data"), file("/w/mesh"), file("/w/in.t", b"x = ;10;")])


def test_head() -> None:
    """The preview begins with the experiment, and ends with one line end."""
    shown = text(planned(model()))
    assert shown.startswith("Experiment exp\n  path      /w/exp\n  launcher  local\n")
    assert shown.endswith("\n")
    assert not shown.endswith("\n\n")


def test_model() -> None:
    """Of a model everything is shown that decides how it runs, quoted for a shell."""
    shown = text(rich_plan())
    assert (
        "Model one\n"
        "  runs      /bin/prog 'a b' -n 3\n"
        "  in        /w/exp/there\n"
        "  output    /w/exp/there/one.out, /w/exp/there/one.err\n"
        "  params    THERMO = 95 100, n = 3\n"
        "  timeout   90 s\n"
        "  retries   2\n"
        "  env       sets A, B\n"
    ) in shown


def test_member() -> None:
    """Of a member also its files and what it waits for are shown."""
    shown = text(rich_plan())
    assert (
        "Member group_0\n"
        "  runs      /bin/prog\n"
        "  in        /w/exp/group/group_0\n"
        "  output    /w/exp/group/group_0/group_0.out, /w/exp/group/group_0/group_0.err\n"
        "  copy      data from /w/data\n"
        "  symlink   mesh from /w/mesh\n"
        "  configure in.t from /w/in.t\n"
        "  after     one is ended\n"
    ) in shown


def test_programs_in_a_file() -> None:
    """The file that lists the programs of an MPMD job is shown, as start would write it."""
    one = SrunSettings("/bin/prog", ["a b"], {"n": 2})
    one.make_mpmd(SrunSettings("/bin/other"))
    one.set_multi_prog()
    plan = planned(model("one", run_settings=one), model("two"), context=wlm("slurm"))
    path = f"{plan.jobs[0].outputs}/one.mpmd"
    lines = text(plan).splitlines()
    at = lines.index(f"  programs  in {path}")
    assert lines[at + 1 : at + 3] == ["  | 0-1 /bin/prog 'a b'", "  | 2-2 /bin/other"]
    assert plan.files == {path: "0-1 /bin/prog 'a b'\n2-2 /bin/other\n"}
    assert [row["mpmd"] for row in as_dict(plan)["jobs"]] == [{"path": path, "text": plan.files[path]}, None]


def test_directories_and_warnings() -> None:
    """What is generated, what is made, and what the user should know."""
    lines = text(rich_plan()).splitlines()
    assert "Generates /w/exp/group" in lines
    assert "Makes /w/exp/there if it is missing" in lines
    assert [line for line in lines if line.startswith("Warning: ")] == [
        "Warning: group_0: /w/in.t: tags that name no parameter keep their text: '10' (line 1)"
    ]


def shown_members(plan: LaunchPlan, verbosity: Verbosity) -> list[str]:
    """The lines that name a job or stand for some."""
    return [line for line in text(plan, verbosity).splitlines() if line.startswith(("M", "…")) and "Makes" not in line]


def test_info_shows_first_and_last_member() -> None:
    """At the level "info" the members between the first and the last are only counted, for each ensemble."""
    plan = planned(ensemble("a", 5), model("m"), ensemble("b", 3), ensemble("c", 2), ensemble("d", 1))
    assert shown_members(plan, "info") == [
        "Member a_0",
        "… 3 more members of a",
        "Member a_4",
        "Model m",
        "Member b_0",
        "… 1 more members of b",
        "Member b_2",
        "Member c_0",
        "Member c_1",
        "Member d_0",
    ]


@pytest.mark.parametrize("verbosity", ["debug", "developer"])
def test_other_levels_show_every_member(verbosity: Verbosity) -> None:
    """The other levels show every member."""
    assert shown_members(planned(ensemble("a", 4)), verbosity) == [f"Member a_{number}" for number in range(4)]


def test_models_are_never_left_out() -> None:
    """Models that are in no ensemble are all shown."""
    assert shown_members(planned(*(model(name) for name in "abcd")), "info") == [f"Model {name}" for name in "abcd"]


def test_environment() -> None:
    """Values of variables are shown to developers only."""
    plan = rich_plan()
    for verbosity in ("info", "debug"):
        assert "  env       sets A, B\n" in text(plan, verbosity)  # type: ignore[arg-type]
    shown = text(plan, "developer")
    assert "  env       A=1\n  env       B=x\n" in shown
    assert "sets" not in shown


def test_batch_job() -> None:
    """Of a batch job the submit command and the whole script are shown."""
    plan = planned(ensemble("e", batch_settings=SbatchSettings(nodes=2)), context=wlm("slurm"))
    lines = text(plan).splitlines()
    start = lines.index("Batch job e: sbatch --parsable /w/exp/.asim/t.1.sh")
    script = plan.batches[0].text.splitlines()
    assert lines[start + 1 : start + 1 + len(script)] == [f"  | {line}" for line in script]
    assert script[0].startswith("#!")


def test_replaced_directory() -> None:
    """What is replaced is said to be."""
    plan = rich_plan()
    object.__setattr__(plan.units[0], "replaces", True)
    assert "Generates /w/exp/group (replacing what is there)\n" in text(plan)


# -- JSON


def plans() -> Sequence[tuple[str, Any]]:
    """Plans of several kinds."""
    return [
        ("model", planned(model())),
        ("everything", rich_plan()),
        ("batch", planned(ensemble("e", 5, batch_settings=SbatchSettings()), context=wlm("slurm"))),
        ("batches", planned(ensemble("e", 3, batch_settings=SbatchSettings(), pack="separate"), context=wlm("slurm"))),
    ]


@pytest.mark.parametrize("plan", [pytest.param(plan, id=name) for name, plan in plans()])
@pytest.mark.parametrize("verbosity", VERBOSITIES)
def test_json_is_complete(plan: LaunchPlan, verbosity: Verbosity) -> None:
    """JSON can be read back and has every job in full at every level."""
    read = json.loads(text(plan, verbosity, "json"))
    assert read == json.loads(json.dumps(as_dict(plan)))
    assert [row["name"] for row in read["jobs"]] == [job.name for job in plan.jobs]
    for row, job in zip(read["jobs"], plan.jobs, strict=True):
        assert (tuple(row["argv"]), row["cwd"], row["stdout"], row["stderr"]) == (
            job.argv,
            job.cwd,
            job.stdout,
            job.stderr,
        )
        assert row["env"] == dict(job.env)
        assert row["ensemble"] == (job.ensemble.name if job.ensemble else None)
    assert [row["script"] for row in read["batches"]] == [submit.text for submit in plan.batches]
    assert [
        (row["name"], row["script_path"], tuple(row["submit"]), tuple(row["members"])) for row in read["batches"]
    ] == [(submit.batch.name, submit.batch.script, submit.command.argv, submit.names) for submit in plan.batches]
    assert read["directories"] == plan.directories
    assert read["warnings"] == list(plan.warnings)


def test_json_of_a_job() -> None:
    """The row of a job has parameters as text, limits, dependencies and files."""
    read = as_dict(rich_plan())
    one, *members = read["jobs"]
    assert one["params"] == {"THERMO": "95 100", "n": "3"}
    assert (one["timeout_s"], one["retries"], one["after"], one["files"]) == (90.0, 2, [], [])
    assert (members[3]["timeout_s"], members[3]["retries"]) == (None, 0)
    assert members[3]["after"] == [{"name": "one", "when": "ended"}]
    assert members[3]["files"] == [
        {"action": "copy", "path": "data", "source": "/w/data"},
        {"action": "symlink", "path": "mesh", "source": "/w/mesh"},
        {"action": "configure", "path": "in.t", "source": "/w/in.t"},
    ]
    assert read["generates"] == [{"name": "group", "path": "/w/exp/group", "replaces": False}]
    assert read["experiment"] == {"name": "exp", "path": "/w/exp", "launcher": "local"}


def test_any_text_can_be_shown() -> None:
    """Text that is not UTF-8 is in the JSON as escapes, and read back the same."""
    entity: Entity = model("m", run_settings=settings(exe_args=["\udcff", "é"]))
    read = json.loads(text(planned(entity), "info", "json").encode().decode())
    assert read["jobs"][0]["argv"][1:] == ["\udcff", "é"]


# -- options


def test_good_options() -> None:
    """Every combination of the known options is accepted."""
    assert [check_options(verbosity, output) for verbosity in VERBOSITIES for output in FORMATS] == [None] * 6


@pytest.mark.parametrize(
    ("verbosity", "output", "what"),
    [
        ("loud", "json", "verbosity_level = 'loud': must be one of info, debug, developer"),
        ("INFO", "json", "verbosity_level = 'INFO'"),
        ("info", "html", "output_format = 'html': must be one of plain_text, json"),
        ("info", None, "output_format = None"),
    ],
)
def test_bad_options(verbosity: str, output: Any, what: str) -> None:
    """An unknown option is an error that lists the known ones."""
    with pytest.raises(ConfigError, match=what):
        check_options(verbosity, output)
