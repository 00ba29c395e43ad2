"""The public API as type checkers see it. Never run: mypy reads it (strict), and every wrong type is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, assert_type

import asim
from asim import (
    Apptainer,
    AprunSettings,
    BatchSettings,
    BsubBatchSettings,
    Container,
    Ensemble,
    EventStream,
    Experiment,
    FileActionError,
    Function,
    Job,
    JobEvent,
    JobFailed,
    JobGroup,
    JobState,
    JsrunSettings,
    MLModel,
    Model,
    MpiexecSettings,
    MpirunSettings,
    OrterunSettings,
    PalsMpiexecSettings,
    QsubBatchSettings,
    Retry,
    RunSettings,
    SbatchSettings,
    Script,
    SgeQsubBatchSettings,
    Singularity,
    SrunSettings,
    SubmitError,
    Usage,
)
from asim.log import get_logger
from asim.plan import LaunchPlan


async def experiment() -> None:
    """What an Experiment takes and gives."""
    async with Experiment(
        "e", Path("/w"), "local", max_concurrent=4, on_exit="wait", stop_grace=timedelta(seconds=2)
    ) as exp:
        assert_type(exp, Experiment)
        assert_type(exp.name, str)
        assert_type(exp.exp_path, str)
        assert_type(exp.launcher, str)

        run = exp.create_run_settings("prog", ["-v"], run_args={"n": 2}, env_vars={"A": 1}, timeout=3)
        assert_type(run, RunSettings)
        batch = exp.create_batch_settings(nodes=2, time="01:00:00", batch_args={"x": None})
        assert_type(batch, BatchSettings)
        model = exp.create_model("m", run, {"THERMO": [95, 100]}, path=Path("p"), timeout=60, retries=Retry(times=2))
        assert_type(model, Model)
        assert_type(exp.create_ensemble(batch), Ensemble)
        ensemble = exp.create_ensemble("e", {"a": range(3)}, None, run, perm_strategy="random", replicas=2, seed=1)
        assert_type(ensemble, Ensemble)

        assert_type(await exp.generate(model, ensemble, tag="@", overwrite=True, strict_tags=True), None)
        group = await exp.start(model, ensemble, block=False, fail_fast=True)
        assert_type(group, JobGroup)
        assert_type(exp.finished(model), bool)
        assert_type(exp.get_status(model, ensemble), list[JobState])
        assert_type(await exp.wait(model, timeout=3), JobGroup)
        assert_type(await exp.poll(1, verbose=False), None)
        assert_type(await exp.stop(model), None)
        assert_type(await exp.preview(model, verbosity_level="debug", output_format="json"), LaunchPlan)
        assert_type(await exp.history(), list[dict[str, Any]])
        assert_type(exp.summary("grid"), str)
        assert_type(exp.events(buffer=10), EventStream)
        async for event in exp.events():
            assert_type(event, JobEvent)
            assert_type(event.job, Job)
            assert_type(event.state, JobState)
            assert_type(event.previous, JobState)
            assert_type(event.at, datetime)
            assert_type(event.missed, int)
    assert_type(await exp.aclose(), None)


async def jobs(group: JobGroup, model: Model, ensemble: Ensemble) -> None:
    """What a JobGroup and a Job give."""
    assert_type(await group, JobGroup)
    assert_type(await group.wait(3), JobGroup)
    assert_type(group.check(), JobGroup)
    assert_type(group.status, JobState)
    assert_type(group.returncode, int | None)
    assert_type(group.done, bool)
    assert_type(group.failed, list[Job])
    assert_type(group.records(), list[dict[str, Any]])
    assert_type(group.of(ensemble), JobGroup)
    assert_type(len(group), int)
    async for ended in group.as_completed():
        assert_type(ended, Job)
    for job in group:
        assert_type(job, Job)
        assert_type(await job, Job)
        assert_type(await job.wait(), Job)
        assert_type(job.check(), Job)
        assert_type(job.status, JobState)
        assert_type(job.status.terminal, bool)
        assert_type(job.status.smartsim, str)
        assert_type(job.returncode, int | None)
        assert_type(job.reason, str)
        assert_type(job.attempt, int)
        assert_type(job.pid, int | None)
        assert_type(job.usage, Usage | None)
        assert_type(job.model, Model)
        assert_type(job.stdout, Path)
        assert_type(job.cwd, Path)
        assert_type(job.started_at, datetime | None)
        assert_type(job.elapsed, float | None)
        assert_type(job.record(), dict[str, Any])
        assert_type(await job.cancel(), None)
        if job.usage:
            assert_type(job.usage.user_s, float)
            assert_type(job.usage.max_rss, int)
    assert_type(await group.cancel(), None)


def entities(run: RunSettings) -> None:
    """What models and ensembles take and give."""
    model = Model("m", {"a": 1}, run, params_as_args=["a"], enable_key_prefixing=False, timeout=timedelta(hours=1))
    assert_type(model.name, str)
    assert_type(model.path, str | None)
    assert_type(model.params, dict[str, object])
    assert_type(model.run_settings, RunSettings)
    assert_type(model.exe_args, list[str])
    assert_type(model.timeout, float | None)
    assert_type(model.retries, Retry | None)
    assert_type(model.query_key_prefixing(), bool)
    assert_type(model.attached_files_table, str)
    model.attach_generator_files(to_copy="a", to_symlink=[Path("b"), "c"], to_configure=None)
    model.colocate_db_tcp(port=6379, ifname=["lo", "ib0"], db_cpus=2)
    model.colocate_db_uds("/tmp/s", custom_pinning=[0, range(2, 4)])
    model.add_ml_model("n", "TORCH", model=b"x", device="GPU", devices_per_node=2)
    model.add_script("s", script="def f(x): return x", db_identifier=["a", "b"])
    model.add_function("f", function=max, db_identifier="a")
    assert_type(model.ml_objects, tuple[MLModel | Script | Function, ...])

    def strategy(names: list[str], values: list[list[object]], n_models: int) -> list[dict[str, object]]:
        return [dict.fromkeys(names, values[0][n_models])]

    ensemble = Ensemble("e", "a", None, {"a": [1, 2]}, None, run, strategy, fail_fast=True)
    assert_type(ensemble.models, list[Model])
    assert_type(ensemble["e_0"], Model)
    assert_type(ensemble[0], Model)
    assert_type(len(ensemble), int)
    assert_type([one.name for one in ensemble], list[str])
    assert_type(ensemble.batch, bool)
    Ensemble("p", run_settings=run, replicas=2, batch_settings=SbatchSettings(), pack="array", placement="agent")
    assert_type(ensemble.pack, Literal["job", "array", "separate"])
    assert_type(ensemble.placement, Literal["step", "agent"])
    ensemble.add_model(model)
    ensemble.after(model, when="ended")
    model.register_incoming_entity(ensemble)


def settings() -> Sequence[RunSettings]:
    """Every kind of run settings, and that a copy keeps its kind."""
    box = Singularity("i.sif", mount={"/a": "/b"}, args=["--nv"])
    assert_type(Apptainer("i.sif", working_directory="/w").prefix("/w"), tuple[str, ...])
    one = RunSettings("prog", "a b", "mpirun", {"-np": 2}, {"A": None}, box, timeout=3, retries=1)
    assert_type(one.exe_args, list[str])
    assert_type(one.env_vars, dict[str, str | None])
    assert_type(one.container, Container | None)
    assert_type(one.format_run_args(), list[str])
    one.set("x", condition=False)
    one.set_time(hours=30)
    one.update_env({"B": 1.5})
    srun = SrunSettings("prog", run_args={"n": 1}, alloc=12)
    assert_type(srun.copy(), SrunSettings)
    srun.make_mpmd(SrunSettings("other"))
    return [
        one,
        srun,
        AprunSettings("p"),
        JsrunSettings("p"),
        MpirunSettings("p"),
        MpiexecSettings("p"),
        OrterunSettings("p"),
        PalsMpiexecSettings("p"),
    ]


def batch_settings() -> Sequence[BatchSettings]:
    """Every kind of batch settings."""
    slurm = SbatchSettings(nodes=2, time="01:00:00", batch_args={"gres": "gpu:1"})
    assert_type(slurm.copy(), SbatchSettings)
    assert_type(slurm.submit_argv("x.sh"), tuple[str, ...])
    slurm.add_preamble(["module load x"])
    return [slurm, QsubBatchSettings(ncpus=4), BsubBatchSettings(smts=2), SgeQsubBatchSettings(pe_type="mpi")]


def errors() -> None:
    """What the errors carry."""
    try:
        get_logger("driver", "debug").info("x")
    except FileActionError as error:
        assert_type(error.errno, int | None)
    except SubmitError as error:
        assert_type(error.transient, bool)
    except JobFailed as error:
        assert_type(error.jobs, tuple[Any, ...])
    except asim.AsimError:
        raise


def values() -> None:
    """Small values of the API."""
    when: Callable[[int | None], bool] = lambda code: code == 3  # noqa: E731
    retry = Retry(times=2, backoff=0.5, factor=2, max_backoff=10, when=when)
    assert_type(retry.delay(1), float)
    assert_type(retry.wanted(1, None), bool)
    assert_type(JobState.RUNNING.follows(JobState.PENDING), bool)
    params: Mapping[str, object] = {"a": [1, 2]}
    Experiment("x").create_ensemble("y", params, params_as_args="a", run_settings=RunSettings("p"))
    assert_type(asim.__version__, str)
