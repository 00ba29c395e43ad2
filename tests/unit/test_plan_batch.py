"""Plans for workload managers: batch jobs, and steps in them."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from asim.entities import Ensemble
from asim.plan import BatchPlan, LaunchPlan
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
SUBMIT = {
    "slurm": ("sbatch", "--parsable", "/w/exp/e.sh"),
    "pbs": ("qsub", "/w/exp/e.sh"),
    "sge": ("qsub", "/w/exp/e.sh"),
}
every = pytest.mark.parametrize("launcher", BATCH)


def script(plan: LaunchPlan) -> list[str]:
    """The lines of the plan's only batch script."""
    (batch,) = plan.batches
    return batch.script.splitlines()


def runs(plan: LaunchPlan) -> list[str]:
    """The lines of the batch script that run members."""
    return [line for line in script(plan) if line.startswith("( ")]


@every
def test_case_3_models_added_by_hand(launcher: str) -> None:
    """Seed, case 3: two models of different programs in one batch job, named and described as the system wants it."""
    group = Ensemble("e", batch_settings=BATCH[launcher])
    group.add_model(model("model_1", {"THERMO": [95, 100]}, MpirunSettings("exe", "path/to/script_1")))
    group.add_model(model("model_2", {"THERMO": [95, 100]}, MpirunSettings("exe", "path/to/script_2")))
    plan = planned(group, context=wlm(launcher))
    (batch,) = plan.batches
    assert (batch.name, batch.script_path, batch.members) == ("e", "/w/exp/e.sh", ("model_1", "model_2"))
    assert [line for line in script(plan) if line.startswith("#")][1:] == HEADS[launcher]
    assert [
        f"( cd /w && exec mpirun --wdir /w exe path/to/script_{number} > /w/exp/model_{number}.out 2> /w/exp/model_{number}.err ) &"
        for number in (1, 2)
    ] == runs(plan)
    assert script(plan)[-1] == 'exit "$asim_status"'


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
    assert [shlex.split(line.partition("exec ")[2])[:2] for line in lines] == [
        ["exe", "--THERMO=95"],
        ["exe", "--THERMO=100"],
    ]


@every
def test_case_5_replicas(launcher: str) -> None:
    """Seed, case 5: replicas run the same command, each with its own output files."""
    group = Ensemble("e", batch_settings=BATCH[launcher], run_settings=RunSettings("exe"), replicas=3)
    plan = planned(group, context=wlm(launcher))
    assert runs(plan) == [
        f"( cd /w && exec exe > /w/exp/e_{number}.out 2> /w/exp/e_{number}.err ) &" for number in range(3)
    ]
    assert [spec.name for spec in plan.jobs] == ["e_0", "e_1", "e_2"]
    assert [line for line in script(plan) if line.startswith("wait ")] == [
        f'wait "$asim_pid_{number}" || asim_status=$?' for number in range(3)
    ]


@pytest.mark.parametrize("launcher", SUBMIT)
def test_submit_command(launcher: str) -> None:
    """The command that submits the script."""
    (batch,) = planned(ensemble(batch_settings=BATCH[launcher]), context=wlm(launcher)).batches
    assert batch.submit == SUBMIT[launcher]


def test_submit_command_of_lsf() -> None:
    """bsub is told the script."""
    (batch,) = planned(ensemble(batch_settings=BATCH["lsf"]), context=wlm("lsf")).batches
    assert batch.submit[0] == "bsub"
    assert "/w/exp/e.sh" in batch.submit[-1]


def test_srun_in_a_batch_job() -> None:
    """Steps of srun in a batch job run in its allocation and write their files themselves."""
    run = SrunSettings("exe", run_args={"nodes": 5}, alloc=123)
    plan = planned(ensemble(run_settings=run, batch_settings=SbatchSettings(nodes=10)), context=wlm("slurm"))
    assert plan.jobs[1].argv == (
        *("srun", "--output", "/w/exp/e_1.out", "--error", "/w/exp/e_1.err", "--job-name", "e_1", "--nodes=5", "exe"),
    )
    assert runs(plan)[1] == f"( cd /w && exec {shlex.join(plan.jobs[1].argv)} ) &"


def test_model_as_a_batch_job() -> None:
    """A model with batch settings is a batch job of one member."""
    one = model(run_settings=RunSettings("exe"), batch_settings=SbatchSettings(), path="there")
    plan = planned(one, context=wlm("slurm"))
    (batch,) = plan.batches
    assert isinstance(batch, BatchPlan)
    assert (batch.name, batch.script_path, batch.members) == ("m", "/w/exp/m.sh", ("m",))
    assert runs(plan) == [
        "( cd /w/exp/there && exec exe > /w/exp/there/m.out 2> /w/exp/there/m.err ) &",
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
    assert [batch.members for batch in plan.batches] == [("e_0", "e_1"), ("f_0", "f_1")]
    assert all(f"/w/exp/{batch.name}.out" in batch.script for batch in plan.batches)
