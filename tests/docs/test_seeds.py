"""The code examples that SmartSim users come with: only the import has changed, and `await` was added."""

import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from asim import DatabaseError, Ensemble, JobState
from asim.database.server_program import find_server
from asim.engine.build import module_file
from asim.settings import SbatchSettings, SrunSettings
from tests.conftest import missing

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


async def test_model_files(home, monkeypatch):
    """Model, "Files": a tagged file is configured into the model's directory; a tag that names nothing keeps its text."""
    monkeypatch.setenv("PATH", str(home))  # the commands of a workload manager may be installed here, without a cluster
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
    (submit,) = plan.batches
    assert "#SBATCH --nodes=10" in submit.text
    assert submit.command.argv == ("sbatch", "--parsable", submit.batch.script)
    assert submit.names == ("model_1", "model_2")
    assert "Batch job ensemble" in (home / "preview.txt").read_text()
    await exp.aclose()


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
        assert len(plan.batches[0].names) == len(ensemble)
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


# -- ML models and scripts


@pytest.fixture
def database():
    """A redis-server and the compiled engine."""
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    if not module_file().exists():
        missing("the engine was not compiled")


def needs(*packages):
    """Skip without these packages."""
    for package in packages:
        if find_spec(package) is None:
            missing(f"{package} is not installed")


def timestwo(x):
    return 2*x  # fmt: skip


torch_script_str = "def negate(x):\n\treturn torch.neg(x)\n"


def gpu_keys(name):
    """Where an object is stored that two GPUs of a node get."""
    return {f"{name}.GPU:0": "GPU:0", f"{name}.GPU:1": "GPU:1", name: "GPU"}


async def starts_or_says_why(exp, *entities):
    """Start what wants two GPUs; where there are none the refusal is about just that, and nothing runs."""
    try:
        group, refusal = await exp.start(*entities), None
    except DatabaseError as error:
        group, refusal = None, error
    if refusal is None:
        assert group.status is JobState.COMPLETED
    else:
        assert "GPU requested" in refusal.reply and "on GPU" in str(refusal)
        assert not exp._session.monitor.work


def create_tf_cnn():
    """Create a Keras CNN for model purposes

    """  # fmt: skip
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import keras
    from keras import Input

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="cnn")
            self.conv = keras.layers.Conv2D(1, 3, 1)

        def call(self, x):
            return self.conv(x)

    from asim.ml.tf import serialize_model

    n = Net()
    input_shape = (3, 3, 1)
    inputs = Input(input_shape)
    outputs = n(inputs)
    model = keras.Model(inputs=inputs, outputs=outputs, name=n.name)

    return serialize_model(model)


@pytest.fixture(scope="module")
def cnn():
    """The serialized network of the examples, made once."""
    needs("tensorflow", "keras")
    return create_tf_cnn()


@pytest.mark.slow
async def test_ensemble_ml_model_in_memory(home, database, cnn):
    """Ensemble, "AI Models": a Keras CNN in memory is in the database when the members start, and runs there."""
    sr_test_script = str(home / "script.py")
    (home / "script.py").write_text("print('ran')")
    model, inputs, outputs = cnn

    from asim import Experiment

    async with Experiment("getting-started", launcher="local") as exp:
        run_settings = exp.create_run_settings(
            exe=sys.executable,
            exe_args=sr_test_script
        )  # fmt: skip
        smartsim_ensemble = exp.create_ensemble("smartsim_model", run_settings=run_settings, replicas=2)
        smartsim_ensemble.add_ml_model("cnn", "TF", model=model, device="CPU", inputs=inputs, outputs=outputs)
        db = exp.create_database(port=6780, interface="lo")
        group = await exp.start(db, smartsim_ensemble,  block=True)  # fmt: skip
        assert [job.stdout.read_text() for job in group] == ["ran\n"] * 2
        async with exp.client() as client:
            assert await client.get_model("cnn") == model
            await client.put_tensor("x", np.ones((2, 3, 3, 1), np.float32))
            await client.run_model("cnn", ["x"], ["y"])
            assert (await client.get_tensor("y")).shape == (2, 1, 1, 1)


@pytest.mark.slow
async def test_model_ml_model_on_gpus(home, database, cnn):
    """Model, "Loading an In-Memory ML Model": two GPUs get a copy each, and the plain name stands for all."""
    model, inputs, outputs = cnn

    from asim import Experiment

    async with Experiment("getting-started", launcher="local") as exp:
        smartsim_model = exp.create_model("smartsim_model", exp.create_run_settings("/bin/true"))
        smartsim_model.add_ml_model(name="cnn", backend="TF", model=model, device="GPU", devices_per_node=2, first_device=0, inputs=inputs, outputs=outputs)  # fmt: skip
        db = exp.create_database(port=0)
        plan = await exp.preview(db, smartsim_model, output_filename="preview.txt")
        assert dict(plan.uploads["orchestrator"][0].keys) == gpu_keys("cnn")
        await starts_or_says_why(exp, db, smartsim_model)


@pytest.mark.slow
async def test_model_function_and_script_on_gpus(home, database):
    """Model, "TorchScript functions" and "TorchScript Scripts": keys for each GPU, and an honest refusal without one."""
    needs("torch")

    from asim import Experiment

    async with Experiment("getting-started", launcher="local") as exp:
        smartsim_model = exp.create_model("smartsim_model", exp.create_run_settings("/bin/true"))
        smartsim_model.add_function(
            name="example_func", function=timestwo, device="GPU", devices_per_node=2, first_device=0
        )
        smartsim_model.add_script(
            name="example_script", script=torch_script_str, device="GPU", devices_per_node=2, first_device=0
        )
        db = exp.create_database(port=0)
        plan = await exp.preview(db, smartsim_model, output_filename="preview.txt")
        assert [dict(upload.keys) for upload in plan.uploads["orchestrator"]] == [
            gpu_keys("example_func"),
            gpu_keys("example_script"),
        ]
        assert "example_func.GPU:1 on GPU:1" in (home / "preview.txt").read_text()
        await starts_or_says_why(exp, db, smartsim_model)


@pytest.mark.slow
async def test_ensemble_functions_and_scripts(home, database):
    """Ensemble, "TorchScript functions" and "TorchScript Scripts": a Python function and a file, and both run."""
    needs("torch")
    torch_script = str(home / "torch_script.py")
    (home / "torch_script.py").write_text(torch_script_str)

    from asim import Experiment

    async with Experiment("getting-started", launcher="local") as exp:
        ensemble = exp.create_ensemble("ens", run_settings=exp.create_run_settings("/bin/true"), replicas=2)
        ensemble.add_function("test_func", function=timestwo, device="CPU")
        ensemble.add_script("test_script1", script_path=torch_script, device="CPU")
        assert (await exp.start(exp.create_database(port=0), ensemble)).status is JobState.COMPLETED
        async with exp.client() as client:
            await client.put_tensor("x", np.array([1.5, -2], np.float32))
            await client.run_script("test_func", "timestwo", ["x"], ["two"])
            await client.run_script("test_script1", "negate", ["x"], ["minus"])
            assert list(await client.get_tensor("two")) == [3, -4]
            assert list(await client.get_tensor("minus")) == [-1.5, 2]
