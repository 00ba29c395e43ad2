"""The code examples that SmartSim users come with: only the import has changed, and `await` was added.

Those that need a database or ML come with the versions that bring these.
"""

import sys

import pytest

from asim import Ensemble, JobState, UnsupportedError
from asim.settings import SbatchSettings, SrunSettings

pytestmark = pytest.mark.anyio


async def test_model_initialize_a_standard_model(home):
    """Model, "Initialize A Standard Model": runs a script of the current directory; outputs are in the experiment's."""
    (home / "script.py").write_text("print('hello')")

    from asim import Experiment

    # Init Experiment and specify to launch locally
    exp = Experiment(name="getting-started", launcher="local")
    settings = exp.create_run_settings(exe="python", exe_args="script.py")
    model = exp.create_model(name="example-model", run_settings=settings)
    await exp.start(model)

    assert (home / "getting-started/example-model.out").read_text() == "hello\n"
    assert (home / "getting-started/example-model.err").read_text() == ""
    await exp.aclose()


async def test_model_files(home):
    """Model, "Files": a tagged file is configured into the model's directory; a tag that names nothing keeps its text."""
    (home / "configure_inputs.txt").write_text("THERMO = ;10;\n")
    application, exe_ex = str(home / "application"), sys.executable
    (home / "application").write_text("print(open('configure_inputs.txt').read())")

    from asim import Experiment
    from asim.log import get_logger

    logger = get_logger("Experiment Log")
    # Initialize the Experiment
    exp = Experiment("getting-started", launcher="auto")
    # Initialize a RunSettings object
    model_settings = exp.create_run_settings(exe=exe_ex, exe_args=application)
    # Initialize a Model object
    model = exp.create_model("model", model_settings)
    # Attach value configuration file
    model.attach_generator_files(to_configure=str(home / "configure_inputs.txt"))

    group = await exp.start(model)
    assert group[0].stdout.read_text() == "THERMO = 10\n\n"
    with_value = exp.create_model("with_value", model_settings, params={"THERMO": 20})
    with_value.attach_generator_files(to_configure="configure_inputs.txt")
    group = await exp.start(with_value)
    assert group[0].stdout.read_text() == "THERMO = 20\n\n"
    logger.info(exp.summary())
    await exp.aclose()


async def test_ensemble_appending(home):
    """Ensemble, "Appending" (case 3): batch settings first, models added by hand, parameters that are lists."""
    exe = sys.executable

    from asim import Experiment

    exp = Experiment("getting-started", launcher="slurm")
    sbatch_settings = exp.create_batch_settings(nodes=10)
    ensemble = exp.create_ensemble(sbatch_settings)
    srun_settings_1 = exp.create_run_settings(exe=exe, exe_args="path/to/script_1")
    srun_settings_2 = exp.create_run_settings(exe=exe, exe_args="path/to/script_2")
    model_1 = exp.create_model(name="model_1", run_settings=srun_settings_1, params={"THERMO": [95, 100]})
    model_2 = exp.create_model(name="model_2", run_settings=srun_settings_2, params={"THERMO": [95, 100]})
    ensemble.add_model(model_1)
    ensemble.add_model(model_2)

    assert isinstance(sbatch_settings, SbatchSettings) and isinstance(srun_settings_1, SrunSettings)
    assert ensemble.name == "ensemble" and ensemble.models == [model_1, model_2]
    plan = await exp.preview(ensemble, output_filename="preview.txt")
    assert "#SBATCH --nodes=10" in plan.batches[0].script
    assert plan.batches[0].submit == ("sbatch", "--parsable", plan.batches[0].script_path)
    assert "Batch job ensemble" in (home / "preview.txt").read_text()
    with pytest.raises(UnsupportedError, match="slurm"):
        await exp.start(ensemble)


@pytest.mark.parametrize("case", [1, 2, 4, 5])
async def test_ensemble_cases(home, case):
    """Ensemble, "Initialize": the combinations of run settings, params, replicas and batch settings make members."""
    from asim import Experiment

    exp = Experiment("getting-started", launcher="slurm" if case > 2 else "local")
    batch = {"batch_settings": exp.create_batch_settings(nodes=10)} if case > 2 else {}
    settings = exp.create_run_settings("/bin/echo")
    what = (
        {"params": "THERMO", "params_as_args": {"THERMO": [95, 100, 105]}, "perm_strategy": "all_perm"}
        if case in (1, 4)
        else {"replicas": 4}
    )
    ensemble = exp.create_ensemble("ens", run_settings=settings, **what, **batch)
    assert isinstance(ensemble, Ensemble) and len(ensemble) == (3 if case in (1, 4) else 4)
    assert ensemble.batch is (case > 2)
    if case == 1:
        group = await exp.start(ensemble)
        assert [job.stdout.read_text() for job in group] == ["--THERMO=95\n", "--THERMO=100\n", "--THERMO=105\n"]
    elif case == 2:
        assert (await exp.start(ensemble)).status is JobState.COMPLETED
    else:
        plan = await exp.preview(ensemble, output_filename="preview.txt")
        assert len(plan.batches[0].members) == len(ensemble)
    await exp.aclose()


async def test_model_data_collision_prevention(home):
    """Model, "Data Collision Prevention": prefixing is on unless switched off, and can be asked for."""
    from asim import Experiment

    exp = Experiment("getting-started", launcher="auto")
    settings = exp.create_run_settings(exe="python", exe_args="/path/to/producer_1.py")
    settings.set_nodes(1)
    settings.set_tasks_per_node(1)
    producer_1 = exp.create_model("producer_1", settings)
    assert producer_1.query_key_prefixing() is True
    producer_1.enable_key_prefixing()
    consumer = exp.create_model("consumer", exp.create_run_settings(exe="python", exe_args="/path/to/consumer.py"))
    consumer.disable_key_prefixing()
    assert consumer.query_key_prefixing() is False
    consumer.register_incoming_entity(producer_1)
    assert consumer.incoming_entities == (producer_1,)
