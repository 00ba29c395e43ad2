"""The models of :mod:`inference`, with random weights: ``python inference_models.py DIRECTORY NAME`` writes one of them.

Making them needs their frameworks, so each is made in a process of its own and kept in a file.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

MLP = (16, 32, 4)
"""Features in, hidden, and out of the tiny network."""
IMAGE = (1, 3, 224, 224)
SCRIPT = "def double(x):\n    return 2 * x\n"
BIG = 200_000_000
"""Bytes of the model that is uploaded."""


def mlp_weights():
    import numpy as np

    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype("f4") for shape in itertools.pairwise(MLP)]


def mlp_onnx():
    nodes = [("MatMul", ["x", "w0"], ["a"]), ("Tanh", ["a"], ["b"]), ("MatMul", ["b", "w1"], ["y"])]
    return _onnx(nodes, ["rows", MLP[0]], ["rows", MLP[-1]], zip(("w0", "w1"), mlp_weights(), strict=True))


def mlp_torch():
    import torch

    layers = [torch.nn.Linear(*weights.shape, bias=False) for weights in mlp_weights()]
    with torch.no_grad():
        for layer, weights in zip(layers, mlp_weights(), strict=True):
            layer.weight.copy_(torch.from_numpy(weights.T.copy()))
    return _traced(torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1]), torch.zeros(2, MLP[0]))


def mlp_tf():
    return _frozen(*_tf_function(None))


def mlp_tflite():
    return _lite(*_tf_function(1))


def _frozen(function, module):
    """A graph with the input ``x`` and the output ``Identity``."""
    return _constants(function).graph.as_graph_def().SerializeToString()


def _constants(function):
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


def _lite(function, module):
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()


def _tf_function(rows):
    import tensorflow as tf

    module = tf.Module()
    module.weights = [tf.Variable(weights) for weights in mlp_weights()]
    first, second = module.weights
    function = tf.function(lambda x: tf.matmul(tf.tanh(tf.matmul(x, first)), second))
    return function.get_concrete_function(tf.TensorSpec([rows, MLP[0]], tf.float32, name="x")), module


def resnet_torch():
    import torch

    return _traced(_resnet(), torch.zeros(IMAGE))


def resnet_onnx():
    import io

    import torch

    out = io.BytesIO()
    torch.onnx.export(_resnet(), (torch.zeros(IMAGE),), out, dynamo=False, input_names=["x"], output_names=["y"])
    return out.getvalue()


def resnet_tf():
    return _frozen(*_keras_resnet())


def resnet_tflite():
    return _lite(_constants(_keras_resnet()[0]), None)


def _keras_resnet():
    """The same network, which wants the colours last."""
    import tensorflow as tf

    model = tf.keras.applications.ResNet50(weights=None, classifier_activation=None)
    function = tf.function(lambda x: model(tf.transpose(x, [0, 2, 3, 1]), training=False))
    return function.get_concrete_function(tf.TensorSpec(IMAGE, tf.float32, name="x")), model


def _resnet():
    """ResNet-50: 25.6 million parameters, 4.1 GFLOP an image."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    def unit(come, go, size, stride=1):
        return [nn.Conv2d(come, go, size, stride, size // 2, bias=False), nn.BatchNorm2d(go)]

    class Block(nn.Module):
        def __init__(self, come, width, stride):
            super().__init__()
            go = 4 * width
            inner = [*unit(come, width, 1), nn.ReLU(), *unit(width, width, 3, stride), nn.ReLU(), *unit(width, go, 1)]
            self.inner = nn.Sequential(*inner)
            self.outer = nn.Identity() if come == go else nn.Sequential(*unit(come, go, 1, stride))

        def forward(self, x):
            return torch.relu(self.inner(x) + self.outer(x))

    layers, come = [*unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(count):
            layers.append(Block(come, width, 1 if number or width == 64 else 2))
            come = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(come, 1000)).eval()


def big_onnx(size=BIG):
    """A matrix of so many bytes."""
    import numpy as np

    columns = 1000
    weights = np.random.default_rng(0).random((size // 4 // columns, columns), "f4")
    return _onnx([("MatMul", ["x", "w"], ["y"])], ["rows", len(weights)], ["rows", columns], [("w", weights)])


def big_torch(size=BIG):
    """The same for torch."""
    import torch

    layer = torch.nn.Linear(size // 4000, 1000, bias=False).eval()
    return _traced(layer, torch.zeros(1, size // 4000))


def first_onnx():
    """Gives the first element of each row: it takes any input, and does nothing."""
    import numpy as np

    constants = [("from", np.array([0])), ("to", np.array([1])), ("axis", np.array([1]))]
    return _onnx([("Slice", ["x", "from", "to", "axis"], ["y"])], ["rows", "columns"], ["rows", 1], constants)


def _onnx(nodes, shape, result, weights):
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def _traced(module, example):
    import io

    import torch

    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, example), out)
    return out.getvalue()


class Store:
    """The models that could be made, and why others could not."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.missing: dict[str, str] = {}

    def path(self, name: str) -> Path:
        """Where a model is, or something else that belongs to it."""
        return self._directory / name

    def get(self, name: str) -> bytes | None:
        """A model, made if it is not there."""
        path = self.path(name)
        if not path.exists() and name not in self.missing:
            words = [sys.executable, __file__, str(path), name]
            made = subprocess.run(words, capture_output=True, text=True, check=False, env=QUIET)
            if made.returncode:
                self.missing[name] = (made.stderr.strip().splitlines() or ["?"])[-1]
        return None if name in self.missing else path.read_bytes()


QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    target, made = Path(sys.argv[1]), globals()[sys.argv[2].replace(".", "_")]()
    target.with_suffix(".part").write_bytes(made)
    target.with_suffix(".part").rename(target)
