"""Small real models, made by their own frameworks. Each importer is called in a test: without the framework it is skipped."""

from __future__ import annotations

import base64
import io
import warnings
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tests.conftest import missing

WEIGHTS = [
    np.linspace(-1, 1, 30, dtype=np.float32).reshape(3, 10),
    np.linspace(1, -1, 20, dtype=np.float32).reshape(10, 2),
]
TFLITE = zlib.decompress(
    base64.b64decode(
        "eNptUz1P21AUvUkMRGClKQTUIQNDx8o1tF0QEokCCKrwIRpVXVo3UgyylDgoeUawMdCtIyMDQgyM/ARmhDp0zsjcH1CpNec+Xztu"
        "4UlH7/n6nnO/3isTUWO1/qZEs1SmF1SiIpmw5cnAmWAj+g7cA3cZogFgG0Q5fOMIb17jmsWccXyZwlsEngF9t3fg+XtOy91tBm2l"
        "eZCgszAMDTnngW6g9gPl2CTabP/xN/Lh70MgC7yVfwPwx+Q8BdS2Nj+u7HxY39p0NlYa1eVqowrdKC/WH035djzf6QW+8jquc+D2"
        "+l7X1z5c5wC4AS45R+AUUML9Ijl/TWrn3AtJDLa91NZRbYtjku5L3F9D9+h+99vFzdXnSk7qMiTHeWt+zkIXbiUWa85Z7yybhmvt"
        "TxjWgV+pHmJV/o9ravPxUvSvUjkG5wTguWzU13dma10f9Su3Zekel7R/IcmUtQpi55meS1+uRL/T9HyS/D89wZ9I8bEminLmWCZm"
        "G8+Z+fGdYn5J1z3kS6+nTTmvCTfuXZxDrJcR2whgZ6K5nkmO/P83+OwW11UW31eig7aGrH0Nv+fYt5s95SncErdVa7bbC3YqHvu9"
        "Dx/rGbKn9Uj2TtD+h/9T+EWpLyd9smEfifxfHyXTn9H9JZlQtMZg1SvRyIqGEg2Muq9SMVmH3zwlr57v8lAnXUvmid7cYZ96/L6d"
        "Q3QnXVtWNPK6J4bcS54taQtHnoxiTj4AfLSj6g=="
    )
)
"""``x * 2 + [1, 2, 3]`` of any number of rows, converted by TensorFlow 2.21."""


def need(module: str) -> Any:
    """A framework, or no test."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        return missing(f"{module} is not installed")


def mlp(x: Any) -> Any:
    """What the network computes, by numpy."""
    return np.maximum(x @ WEIGHTS[0], 0) @ WEIGHTS[1]


def onnx_model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Any = ()) -> bytes:
    """A model of these nodes; inputs and outputs are names, types and shapes."""
    need("onnx")
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def onnx_mlp() -> bytes:
    """:func:`mlp` in ONNX."""
    nodes = [("MatMul", ["x", "w0"], ["a"]), ("Relu", ["a"], ["b"]), ("MatMul", ["b", "w1"], ["y"])]
    weights = [("w0", WEIGHTS[0]), ("w1", WEIGHTS[1])]
    return onnx_model(nodes, [("x", 1, ["n", 3])], [("y", 1, ["n", 2])], weights)


def onnx_cast(to: int, dtype: int = 1) -> bytes:
    """A model that gives its input as another type."""
    return onnx_model([("Cast", ["x"], ["y"], {"to": to})], [("x", dtype, None)], [("y", to, None)])


def saved(module: Any) -> bytes:
    """A TorchScript module as a file's bytes."""
    torch = need("torch")
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), out)
    return out.getvalue()


@cache
def torch_mlp() -> bytes:
    """:func:`mlp` in TorchScript."""
    torch = need("torch")
    layers = [torch.nn.Linear(*array.shape, bias=False) for array in WEIGHTS]
    with torch.no_grad():
        for layer, array in zip(layers, WEIGHTS, strict=True):
            layer.weight.copy_(torch.from_numpy(array.T.copy()))
    return saved(torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1]).eval())


@cache
def tensorflow_mlp() -> bytes:
    """:func:`mlp` as a frozen graph of a Keras model, with the input ``x`` and the output ``Identity``."""
    need("tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        dense = [keras.layers.Dense(10, "relu", use_bias=False), keras.layers.Dense(2, use_bias=False)]
        model = keras.Sequential([keras.layers.Input((3,)), *dense])
        model.set_weights(WEIGHTS)
        function = tf.function(model).get_concrete_function(tf.TensorSpec([None, 3], tf.float32, name="x"))
        return convert_variables_to_constants_v2(function).graph.as_graph_def().SerializeToString()
