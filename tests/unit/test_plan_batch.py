"""Plans for workload managers: batch jobs, and steps in them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from asim.entities import Ensemble
from asim.launchers.batches import Submit
from asim.plan import LaunchPlan
from asim.settings import (
    BatchSettings,
    BsubBatchSettings,
    JsrunSettings,
    MpirunSettings,
    QsubBatchSettings,
    RunSettings,
    SbatchSettings,
    SgeQsubBatchSettings,
    SrunSettings,
)

from .makers import ensemble, file, model, planned, wlm
from .settings.scripts import calls

HEADS = {
    "slurm": [
        "#SBATCH --output=/w/exp/e.out",
        "#SBATCH --error=/w/exp/e.err",
        "#SBATCH --job-name=e",
        "#SBATCH --nodes=10",
    ],
    "pbs": ["#PBS -o /w/exp/e.out", "#PBS -e /w/exp/e.err", "#PBS -N e", "#PBS -l nodes=10"],
    "lsf": ["#BSUB -J e", "#BSUB -o /w/exp/e.out", "#BSUB -e /w/exp/e.err", "#BSUB -nnodes 10"],
    "sge": ["#$ -o /w/exp/e.out", "#$ -e /w/exp/e.err", "#$ -N e", "#$ -pe mpi 10"],
}
BATCH: dict[str, BatchSettings] = {
    "slurm": SbatchSettings(nodes=10),
    "pbs": QsubBatchSettings(nodes=10),
    "lsf": BsubBatchSettings(nodes=10),
    "sge": SgeQsubBatchSettings(ncpus=10, pe_type="mpi"),
}
SCRIPT = "/w/exp/.asim/t.1.sh"
SUBMIT = {
    "slurm": ("sbatch", "--parsable", SCRIPT),
    "pbs": ("qsub", SCRIPT),
    "sge": ("qsub", "-terse", "-N", "e.t.1", SCRIPT),
    "lsf": ("sh", "-c", 'script=$1; shift; exec "$@" < "$script"', "sh", SCRIPT, "bsub", "-Jd", "t.1"),
}
every = pytest.mark.parametrize("launcher", BATCH)


def script(plan: LaunchPlan) -> list[str]:
    """The lines of the plan's only batch script."""
    (submit,) = plan.batches
    return submit.text.splitlines()


def runs(plan: LaunchPlan) -> list[str]:
    """The lines of the batch script that run members."""
    return [line for line in script(plan) if line.startswith("asim_member ")]


def described(submit: Submit) -> tuple[str, str, tuple[str, ...]]:
    """Name, path of the script, and members of a batch job."""
    return submit.batch.name, submit.batch.script, submit.names


@every
def test_case_3_models_added_by_hand(launcher: str) -> None:
    """Seed, case 3: two models of different programs in one batch job, named and described as the system wants it."""
    group = Ensemble("e", batch_settings=BATCH[launcher])
    group.add_model(model("model_1", {"THERMO": [95, 100]}, MpirunSettings("exe", "path/to/script_1")))
    group.add_model(model("model_2", {"THERMO": [95, 100]}, MpirunSettings("exe", "path/to/script_2")))
    plan = planned(group, context=wlm(launcher))
    (submit,) = plan.batches
    assert described(submit) == ("e", SCRIPT, ("model_1", "model_2"))
    assert (submit.batch.mark, submit.batch.size, submit.keys) == ("t.1", 0, (1, 2))
    assert [line for line in script(plan) if line.startswith("#")][1:] == HEADS[launcher]
    assert [
        f"asim_member {number} /w /w/exp/model_{number}.out /w/exp/model_{number}.err 0"
        f' mpirun --wdir /w exe path/to/script_{number} & asim_pids="$asim_pids $!"'
        for number in (1, 2)
    ] == runs(plan)
    assert "asim_ends=/w/exp/.asim/t.ends" in script(plan)
    assert "asim_stops=/w/exp/.asim/t.stops" in script(plan)
    assert script(plan)[-3:] == ['exit "$asim_status"', ") &", 'asim_guard "$!"']


@every
def test_case_4_params(launcher: str) -> None:
    """Seed, case 4: a member for each parameter set, its values among its arguments."""
    group = Ensemble(
        "e",
        "THERMO",
        params_as_args={"THERMO": [95, 100]},
        batch_settings=BATCH[launcher],
        run_settings=RunSettings("exe"),
    )
    lines = runs(planned(group, context=wlm(launcher)))
    assert [shlex.split(line)[6:8] for line in lines] == [["exe", "--THERMO=95"], ["exe", "--THERMO=100"]]


@every
def test_case_5_replicas(launcher: str) -> None:
    """Seed, case 5: replicas run the same command, each with its own output files."""
    group = Ensemble("e", batch_settings=BATCH[launcher], run_settings=RunSettings("exe"), replicas=3)
    plan = planned(group, context=wlm(launcher))
    assert runs(plan) == [
        f'asim_member {number + 1} /w /w/exp/e_{number}.out /w/exp/e_{number}.err 0 exe & asim_pids="$asim_pids $!"'
        for number in range(3)
    ]
    assert [spec.name for spec in plan.jobs] == ["e_0", "e_1", "e_2"]
    assert script(plan)[-5:] == [
        'for asim_pid in $asim_pids; do asim_wait "$asim_pid" || asim_status=$asim_code; done',
        'kill "$asim_watcher"',
        'exit "$asim_status"',
        ") &",
        'asim_guard "$!"',
    ]


@pytest.mark.parametrize("launcher", SUBMIT)
def test_submit_command(launcher: str) -> None:
    """The command that submits the script. (bsub reads it; SGE and LSF are told the mark.)"""
    (submit,) = planned(ensemble(batch_settings=BATCH[launcher]), context=wlm(launcher)).batches
    assert submit.command == (SUBMIT[launcher], "")


def test_srun_in_a_batch_job() -> None:
    """Steps of srun in a batch job run in its allocation and write their files themselves."""
    run = SrunSettings("exe", run_args={"nodes": 5}, alloc=123)
    plan = planned(ensemble(run_settings=run, batch_settings=SbatchSettings(nodes=10)), context=wlm("slurm"))
    assert plan.jobs[1].argv == (
        *("srun", "--output", "/w/exp/e_1.out", "--error", "/w/exp/e_1.err", "--job-name", "e_1"),
        *("--exact", "--nodes=5", "exe"),
    )
    line = f"asim_member 2 /w '' '' 0 {shlex.join(plan.jobs[1].argv)}"
    assert runs(plan)[1] == f'{line} & asim_pids="$asim_pids $!"'


def test_model_as_a_batch_job() -> None:
    """A model with batch settings is a batch job of one member."""
    one = model(run_settings=RunSettings("exe"), batch_settings=SbatchSettings(), path="there")
    plan = planned(one, context=wlm("slurm"))
    (submit,) = plan.batches
    assert described(submit) == ("m", SCRIPT, ("m",))
    assert runs(plan) == ["asim_member 1 /w/exp/there /w/exp/there/m.out /w/exp/there/m.err 0 exe"]
    assert script(plan)[1:4] == [
        "#SBATCH --output=/w/exp/m.batch.out",
        "#SBATCH --error=/w/exp/m.batch.err",
        "#SBATCH --job-name=m",
    ]


def test_generated_members_run_in_their_directories() -> None:
    """Members with attached files run, and write, where these will be."""
    group = ensemble(batch_settings=SbatchSettings())
    group.attach_generator_files(to_copy="f")
    plan = planned(group, context=wlm("slurm"), sources=[file("/w/f")])
    assert [line.split()[2] for line in runs(plan)] == ["/w/exp/e/e_0", "/w/exp/e/e_1"]


def test_programs_are_not_looked_up_here() -> None:
    """The programs of a workload manager are those of its nodes: words stay words, missing or not."""
    run = SrunSettings("only-there")
    spec = planned(model(run_settings=run), context=wlm("slurm"), absent=["srun", "only-there"]).jobs[0]
    assert (spec.argv[0], spec.argv[-1]) == ("srun", "only-there")


def test_replicas_outside_a_batch_job() -> None:
    """Under a workload manager every command has its own output files, so replicas do not share one."""
    first, second = planned(ensemble(run_settings=SrunSettings("exe")), context=wlm("slurm")).jobs
    assert "/w/exp/e_0.out" in first.argv
    assert "/w/exp/e_1.out" in second.argv


def test_model_beside_a_batch_job() -> None:
    """Only what is in a batch job is written as its step: a model beside it has the same command as alone."""
    one = model(run_settings=SrunSettings("exe", alloc=123))
    alone = planned(one, context=wlm("slurm")).jobs[0]
    beside = planned(one, ensemble(batch_settings=SbatchSettings()), context=wlm("slurm")).jobs[0]
    assert "--jobid" in alone.argv
    assert beside.argv == alone.argv


def test_files_of_commands() -> None:
    """Files that a command reads are in the plan, with their texts."""
    run = JsrunSettings("exe")
    run.make_mpmd(JsrunSettings("other"))
    plan = planned(model(run_settings=run), context=wlm("lsf"))
    ((path, text),) = plan.files.items()
    assert path in plan.jobs[0].argv
    assert "exe" in text
    assert "other" in text


@every
def test_two_batch_jobs(launcher: str) -> None:
    """Several batch entities are as many batch jobs, each with its own members."""
    groups: list[Any] = [ensemble(name, batch_settings=BATCH[launcher]) for name in ("e", "f")]
    plan = planned(*groups, context=wlm(launcher))
    assert [submit.names for submit in plan.batches] == [("e_0", "e_1"), ("f_0", "f_1")]
    assert [submit.batch.mark for submit in plan.batches] == ["t.1", "t.3"]
    assert all(f"/w/exp/{submit.batch.name}.out" in submit.text for submit in plan.batches)


# -- how members are packed


def packed(pack: Any, count: int = 3, launcher: str = "slurm", **kwargs: Any) -> LaunchPlan:
    """The plan of an ensemble."""
    context = replace(wlm(launcher), **kwargs)
    return planned(ensemble(replicas=count, batch_settings=BATCH[launcher], pack=pack), context=context)


def test_separate() -> None:
    """pack="separate": a batch job for each member, called after it, whose own output is beside the member's."""
    plan = packed("separate")
    assert [described(submit) for submit in plan.batches] == [
        (f"e_{number}", f"/w/exp/.asim/t.{number + 1}.sh", (f"e_{number}",)) for number in range(3)
    ]
    for number, submit in enumerate(plan.batches):
        lines = submit.text.splitlines()
        assert f"#SBATCH --output=/w/exp/e_{number}.batch.out" in lines
        assert f"#SBATCH --job-name=e_{number}" in lines
        assert f"asim_mark=t.{number + 1} " in submit.text
        own = f"asim_member {number + 1} /w /w/exp/e_{number}.out /w/exp/e_{number}.err 0 /bin/prog"
        assert [line for line in lines if line.startswith("asim_member ")] == [own]


def test_array() -> None:
    """pack="array": one submit with as many tasks, each its own member, and no more at once than was said."""
    plan = packed("array", max_concurrent=2)
    (submit,) = plan.batches
    assert (submit.batch.size, submit.batch.throttle, submit.keys) == (3, 2, (1, 2, 3))
    assert submit.command.argv == ("sbatch", "--parsable", "--array=0-2%2", "--open-mode=append", SCRIPT)
    lines = script(plan)
    start = lines.index("asim_task=${SLURM_ARRAY_TASK_ID}")
    assert lines[start + 1 :] == [
        (
            '[ "$asim_task" -ge 0 ] && [ "$asim_task" -lt 3 ] || '
            '{ echo "no member has the number $asim_task" >&2; exit 2; }'
        ),
        'asim_member "$((asim_task + 1))" /w /w/exp/e_"$asim_task".out /w/exp/e_"$asim_task".err 0 /bin/prog',
        ") &",
        'asim_guard "$!"',
    ]
    assert calls(submit.text, 3, "SLURM_ARRAY_TASK_ID") == [
        [f"{number + 1}", "/w", f"/w/exp/e_{number}.out", f"/w/exp/e_{number}.err", "0", "/bin/prog"]
        for number in range(3)
    ]


def test_a_thousand_members_are_one_submit() -> None:
    """An ensemble of 1000 costs one command; one of 2500 as many as sites take arrays, and nobody is left out."""
    (submit,) = packed("array", 1000).batches
    assert (submit.batch.size, len(submit.keys)) == (1000, 1000)
    parts = packed("array", 2500).batches
    assert [part.batch.size for part in parts] == [1000, 1000, 500]
    assert [part.keys[0] for part in parts] == [1, 1001, 2001]
    assert [name for part in parts for name in part.names] == [f"e_{number}" for number in range(2500)]
    assert len({part.batch.script for part in parts}) == 3
    words = [words for part in parts for words in calls(part.text, part.batch.size, "SLURM_ARRAY_TASK_ID")]
    assert [(one[0], one[2]) for one in words] == [(f"{n + 1}", f"/w/exp/e_{n}.out") for n in range(2500)]
    assert all(len(part.text) < 6000 for part in parts)


def test_arrays_too_small_for_a_system() -> None:
    """PBS has no arrays of one: such a member is a job of its own, with its own name; also the one that is left over."""
    (one,) = packed("array", 1, "pbs").batches
    assert (one.batch.size, one.batch.name, one.command.argv) == (0, "e_0", ("qsub", SCRIPT))
    assert "case " not in one.text.partition("called off")[2]
    (task,) = packed("array", 1, "slurm").batches
    assert task.batch.size == 1
    assert [part.batch.size for part in packed("array", 1001, "pbs").batches] == [1000, 0]


def test_only_arrays_are_throttled() -> None:
    """The limit of jobs at once is no option of other batch jobs."""
    for pack in ("job", "separate"):
        assert {submit.batch.throttle for submit in packed(pack, max_concurrent=1).batches} == {None}


def test_members_with_batch_settings_of_their_own() -> None:
    """In an ensemble without batch settings, models that have some are batch jobs; the others are processes."""
    group = ensemble(replicas=1)
    own = model("own", batch_settings=SbatchSettings(), run_settings=RunSettings("exe"))
    group.add_model(own)
    plan = planned(group, context=wlm("slurm"))
    assert [submit.names for submit in plan.batches] == [("own",)]
    assert [spec.batch is None for spec in plan.jobs] == [True, False]
    assert plan.batches[0].keys == (2,)


def test_the_ensembles_settings_win() -> None:
    """In an ensemble that is a batch job, members are in it, whatever settings they have themselves."""
    group = ensemble(replicas=1, batch_settings=SbatchSettings(nodes=3))
    group.add_model(model("own", batch_settings=SbatchSettings(nodes=9), run_settings=RunSettings("exe")))
    (submit,) = planned(group, context=wlm("slurm")).batches
    assert submit.names == ("e_0", "own")
    assert "--nodes=3" in submit.text and "--nodes=9" not in submit.text


def test_time_limits_and_grace_are_in_the_script() -> None:
    """A member's own time limit, and the experiment's grace, are the script's business."""
    plan = planned(
        ensemble(replicas=1, batch_settings=SbatchSettings(), timeout=90), context=replace(wlm("slurm"), grace=7.5)
    )
    assert "asim_mark=t.1 asim_grace=7.5 " in plan.batches[0].text
    assert runs(plan) == ["asim_member 1 /w /w/exp/e_0.out /w/exp/e_0.err 90 /bin/prog"]


def test_settings_are_those_of_the_start() -> None:
    """What is changed after planning is not in the plan."""
    batch = SbatchSettings(nodes=1)
    plan = planned(ensemble(batch_settings=batch), context=wlm("slurm"))
    batch.set_nodes(5)
    assert "--nodes=1" in plan.batches[0].text


def test_processes_are_no_batches() -> None:
    """Without batch settings nothing is submitted, under a workload manager or not."""
    assert planned(ensemble(), context=wlm("slurm")).batches == []
    assert planned(ensemble()).batches == []
