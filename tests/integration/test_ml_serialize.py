"""Models as bytes: what the frameworks read back gives what the models gave."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asim import ConfigError, ConfigTypeError, MissingFileError
from asim.ml import onnx as onnx_helpers
from asim.ml import tf as tf_helpers
from asim.ml import torch as torch_helpers

from ..conftest import missing


def framework(name: str) -> Any:
    """An optional package, or a skip."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return missing(f"{name} is not installed")


# -- torch


@pytest.fixture(scope="module")
def torch() -> Any:
    """PyTorch."""
    found = framework("torch")
    found.manual_seed(0)
    return found


def loaded(torch: Any, data: bytes, *inputs: Any) -> Any:
    """What TorchScript bytes answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(data))(*inputs)


def network(torch: Any) -> Any:
    """A module that answers differently in training mode."""
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
    )


@pytest.mark.parametrize("method", ["auto", "script", "trace"])
def test_a_torch_module_by_each_method(torch: Any, method: Any) -> None:
    """The bytes answer as the module does in evaluation mode, and the module keeps the mode of each of its parts."""
    module, x = network(torch), torch.randn(5, 3)
    module[2].eval()
    data = torch_helpers.serialize_model(module, x, method=method)
    assert [part.training for part in module.modules()] == [True, True, True, False, True]
    torch.testing.assert_close(loaded(torch, data, x), module.eval()(x))


def test_a_module_that_cannot_be_scripted_is_traced(torch: Any) -> None:
    """``auto`` traces where scripting fails, if it has inputs, also arrays; otherwise the error says what to give."""

    class Twisted(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any, *others: Any) -> Any:
            return x + sum({"a": one}["a"] for one in others)

    x = torch.ones(2, 3)
    data = torch_helpers.serialize_model(Twisted(), (x.numpy(), x))
    torch.testing.assert_close(loaded(torch, data, x, 3 * x), 4 * x)
    with pytest.raises(ConfigError, match="give example_inputs and method='trace'"):
        torch_helpers.serialize_model(Twisted())
    with pytest.raises(ConfigError, match="cannot be scripted"):
        torch_helpers.serialize_model(Twisted(), x, method="script")
    with pytest.raises(ConfigError, match="cannot be traced with these example_inputs"):
        torch_helpers.serialize_model(network(torch), torch.ones(2, 7), method="trace")


def test_torchscript_is_taken_as_it_is(torch: Any) -> None:
    """A module that is TorchScript already, with a branch that tracing would lose, is not made anew."""

    class Branch(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            if float(x.sum()) > 0:
                return x
            return -x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(Branch())
    data = torch_helpers.serialize_model(scripted)
    assert float(loaded(torch, data, torch.tensor([-2.0]))) == 2.0
    assert scripted.training


def test_what_torch_cannot_take(torch: Any) -> None:
    """Wrong arguments are errors that say what is allowed."""
    with pytest.raises(ConfigTypeError, match="add_function"):
        torch_helpers.serialize_model(lambda x: x)
    with pytest.raises(ConfigError, match="method = 'export': must be one of auto, script, trace"):
        torch_helpers.serialize_model(network(torch), method="export")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="example_inputs"):
        torch_helpers.serialize_model(network(torch), method="trace")


# -- onnx


@pytest.fixture(scope="module")
def onnx() -> Any:
    """The package onnx, with onnxruntime."""
    framework("onnxruntime")
    return framework("onnx")


def run_onnx(data: bytes, **inputs: Any) -> Any:
    """What onnxruntime answers."""
    runtime = framework("onnxruntime")
    return runtime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


FUNCTIONS = {
    "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)), "softplus": lambda x: np.log1p(np.exp(x)), "identity": lambda x: x,
}  # fmt: skip


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_a_network_made_of_arrays(onnx: Any, activation: str) -> None:
    """onnxruntime computes from the graph what numpy computes from the arrays, for any number of rows."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=shape) for shape in ((3, 8), (8, 5), (5, 2))]
    biases = [rng.normal(size=size) for size in (8, 5, 2)]
    data = onnx_helpers.mlp(weights, biases, activation)
    assert (onnx_helpers.input_names(data), onnx_helpers.output_names(data)) == (["input"], ["output"])
    assert onnx_helpers.mlp(weights, biases, activation) == data
    for rows in (1, 4):
        x = rng.normal(size=(rows, 3)).astype("f4")
        want = x
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            want = want @ weight + bias
            want = FUNCTIONS[activation](want) if i < 2 else want
        np.testing.assert_allclose(run_onnx(data, input=x), want, rtol=1e-4, atol=1e-5)


def test_onnxruntime_of_old_takes_the_versions() -> None:
    """The graph's versions are those that onnxruntime 1.18 knows: opset at most 21, IR version at most 10."""
    assert onnx_helpers.OPSET <= 21
    assert onnx_helpers.IR_VERSION <= 10


def test_arrays_that_fit_no_network(onnx: Any) -> None:
    """Shapes that do not fit are named before a graph is made of them."""
    one, two = np.ones((3, 4)), np.ones((5, 2))
    with pytest.raises(ConfigError, match=r"shape of weights\[1\] = \(5, 2\)"):
        onnx_helpers.mlp([one, two], [np.ones(4), np.ones(2)])
    with pytest.raises(ConfigError, match=r"shape of biases\[0\] = \(3,\): must be \(4,\)"):
        onnx_helpers.mlp([one], [np.ones(3)])
    with pytest.raises(ConfigError, match="as many"):
        onnx_helpers.mlp([one], [])
    with pytest.raises(ConfigError, match="activation = 'swish': must be one of tanh"):
        onnx_helpers.mlp([one], [np.ones(4)], "swish")


def test_onnx_models_in_every_form(onnx: Any, tmp_path: Path) -> None:
    """A proto, its bytes, a file and a file with weights beside it all become bytes that onnxruntime runs."""
    data = onnx_helpers.mlp([np.ones((300, 2))], [np.zeros(2)])
    proto = onnx.load_from_string(data)
    onnx.save(proto, tmp_path / "one.onnx")
    onnx.save(proto, tmp_path / "two.onnx", save_as_external_data=True, location="two.data", size_threshold=0)
    assert (tmp_path / "two.onnx").stat().st_size < 1000
    for model in (data, onnx.load_from_string(data), tmp_path / "one.onnx", str(tmp_path / "two.onnx")):
        whole = onnx_helpers.serialize_model(model)
        assert run_onnx(whole, input=np.ones((1, 300), "f4")).tolist() == [[300, 300]]


def test_what_is_no_onnx_model(onnx: Any, tmp_path: Path) -> None:
    """Bytes that are none, a graph that is not valid, a missing file and another type are errors before any upload."""
    with pytest.raises(ConfigError, match="is no ONNX model"):
        onnx_helpers.serialize_model(b"\xff\xff\xff")
    broken = onnx.load_from_string(onnx_helpers.mlp([np.ones((3, 2))], [np.zeros(2)]))
    broken.graph.node[0].op_type = "Gemmmm"
    with pytest.raises(ConfigError, match="is not valid: .*Gemmmm"):
        onnx_helpers.serialize_model(broken)
    with pytest.raises(MissingFileError, match="there is no such file"):
        onnx_helpers.serialize_model(tmp_path / "none.onnx")
    with pytest.raises(ConfigTypeError, match="must be an onnx.ModelProto, bytes, or the path"):
        onnx_helpers.serialize_model(3)


# -- tensorflow


PROGRAM = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, keras, sys
import tensorflow as tf
from asim.ml.tf import freeze_model, serialize_model

def run(data, inputs, outputs, *arrays):
    graph = tf.compat.v1.GraphDef.FromString(data)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name="")
        return session.run([name + ":0" for name in outputs], {name + ":0": array for name, array in zip(inputs, arrays)})
"""


def tensorflow(code: str, directory: Path) -> None:
    """Run something with tensorflow in a process of its own: it takes seconds and prints at will."""
    framework("tensorflow")
    done = subprocess.run([sys.executable, "-c", PROGRAM + code], check=False, cwd=directory, capture_output=True, text=True, timeout=200,
                          env={**os.environ, "PYTHONPATH": str(Path(tf_helpers.__file__).parents[2])})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_keras_models(tmp_path: Path) -> None:
    """Frozen graphs of models of every kind answer as Keras does, and the same model gives the same bytes."""
    code = """
class Net(keras.Model):
    def __init__(self):
        super().__init__(name="cnn")
        self.conv = keras.layers.Conv2D(1, 3, 1)
    def call(self, x):
        return self.conv(x)

def check(model, *arrays, call=None):
    data, inputs, outputs = serialize_model(model)
    assert serialize_model(model) == (data, inputs, outputs), "not the same bytes again"
    assert len(inputs) == len(arrays) and all(":" not in name for name in inputs + outputs), (inputs, outputs)
    got = run(data, inputs, outputs, *arrays)
    want = model.predict(call if call is not None else arrays[0], verbose=0)
    want = list(want.values()) if isinstance(want, dict) else want if isinstance(want, list) else [want]
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    return inputs, outputs

rng = np.random.default_rng(1)
image = rng.normal(size=(1, 3, 3, 1)).astype("f4")
net, x = Net(), keras.Input((3, 3, 1))
wrapped = keras.Model(inputs=x, outputs=net(x), name=net.name)
assert check(wrapped, image)[0] == ["args_0"]
check(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(.5), keras.layers.Dense(2)]),
      rng.normal(size=(7, 4)).astype("f4"))
a, b = keras.Input((3,), name="zz"), keras.Input((2,), name="aa", dtype="float32")
both = keras.layers.Concatenate()([a, b])
one, two = rng.normal(size=(5, 3)).astype("f4"), rng.normal(size=(5, 2)).astype("f4")
outputs = [keras.layers.Dense(2)(both), keras.layers.Dense(4)(both)]
names = check(keras.Model([a, b], outputs), one, two, call=[one, two])
assert names[0] == ["args_0", "args_1"] and len(names[1]) == 2, names
check(keras.Model({"zz": a, "aa": b}, outputs[0]), two, one, call={"zz": one, "aa": two})

try:
    serialize_model(Net())
except ValueError as error:
    assert "keras.Input(shape)" in str(error), error
else:
    raise AssertionError("a model without inputs was taken")
"""
    tensorflow(code, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_frozen_files(tmp_path: Path) -> None:
    """``.pb`` is added where it is missing, directories are made, files are replaced, nothing else is left there."""
    code = """
x = keras.Input((4,))
model = keras.Model(x, keras.layers.Dense(2)(x))
for name in ("net", "net.pb"):
    path, inputs, outputs = freeze_model(model, "a/b", name)
    assert path == "a/b/net.pb", path
data = open(path, "rb").read()
assert (data, inputs, outputs) == serialize_model(model)
assert os.listdir("a/b") == ["net.pb"]
for wrong in ("", "x/y"):
    try:
        freeze_model(model, "a", wrong)
    except ValueError as error:
        assert "file_name" in str(error)
    else:
        raise AssertionError(wrong)
"""
    tensorflow(code, tmp_path)


# -- without the frameworks


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from asim.ml.torch import serialize_model; serialize_model(1)", "pip install 'asim[torch]'"),
        ("from asim.ml.torch import DataLoader", "pip install 'asim[torch]'"),
        ("from asim.ml.tf import serialize_model; serialize_model(1)", "pip install 'asim[tensorflow]'"),
        ("from asim.ml.tf import StaticDataGenerator", "pip install 'asim[tensorflow]'"),
        ("from asim.ml.onnx import mlp; import numpy; mlp([numpy.ones((1, 1))], [numpy.ones(1)])", "pip install 'asim[onnx]'"),
    ],
)  # fmt: skip
def test_missing_frameworks(code: str, line: str) -> None:
    """Without its framework a helper can be imported, and using it gives the line that installs what it needs."""
    hidden = "import sys; sys.modules.update(dict.fromkeys(['torch', 'tensorflow', 'keras', 'onnx', 'onnxruntime']));"
    done = subprocess.run(
        [sys.executable, "-c", hidden + code], check=False, capture_output=True, text=True, timeout=60
    )
    assert "asim.errors.MissingExtraError" in done.stderr
    assert done.stderr.rstrip().endswith(line)


def test_onnx_bytes_without_onnx(tmp_path: Path) -> None:
    """Where onnx is not installed a file is passed on as it is: the database finds out what is wrong with it."""
    (tmp_path / "m.onnx").write_bytes(b"x")
    code = "import sys; sys.modules['onnx'] = None; from asim.ml.onnx import serialize_model; print(serialize_model('m.onnx'))"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(Path(tf_helpers.__file__).parents[2])})  # fmt: skip
    assert done.stdout == "b'x'\n", done.stderr
