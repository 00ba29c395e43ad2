"""ONNX models as the bytes that a database runs, their names, and networks made of numpy's arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..client.codec import Array
from ..errors import ConfigError, ConfigTypeError, MissingFileError, allowed
from .extras import find, require

OPSET = 17
IR_VERSION = 8
"""Of 2022, so that every onnxruntime of today takes them; nothing here needs more."""
ACTIVATIONS = {
    "tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "elu": "Elu", "softplus": "Softplus", "identity": "Identity",
}  # fmt: skip


def serialize_model(model: Any) -> bytes:
    """A model as ``set_model`` and ``add_ml_model`` take it with the backend ONNX.

    It is checked where the package ``onnx`` is installed; otherwise the database is the first to notice what is wrong.

    :param model: an ``onnx.ModelProto``, the bytes of one, or the path of a file. Weights that are in files beside that
        one become part of the bytes, if ``onnx`` is installed.
    :raises ConfigError: it is no model, or not a valid one; (:class:`MissingFileError`) there is no such file.
    """
    onnx = find("onnx")
    data = _bytes(onnx, model)
    if onnx is not None:
        _check(onnx, data)
    return data


def input_names(model: Any) -> list[str]:
    """The names of a model's inputs, without those that have a value already.

    :param model: an ``onnx.ModelProto``, the bytes of one, or the path of a file.
    :raises MissingExtraError: onnx is not installed.
    :raises ConfigError: it is no model.
    """
    graph = _parsed(model).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]


def output_names(model: Any) -> list[str]:
    """The names of a model's outputs.

    :param model: an ``onnx.ModelProto``, the bytes of one, or the path of a file.
    :raises MissingExtraError: onnx is not installed.
    :raises ConfigError: it is no model.
    """
    return [value.name for value in _parsed(model).graph.output]


def mlp(weights: Sequence[Array], biases: Sequence[Array], activation: str = "tanh") -> bytes:
    """A multilayer perceptron made of arrays: ``x @ W + b`` for each layer, with the activation after all but the last.

    Its input ``input`` has shape (n, features) with any n, its output ``output`` shape (n, results); both are float32.

    :param weights: of each layer, shape (inputs, outputs); the outputs of one are the inputs of the next.
    :param biases: of each layer, shape (outputs,).
    :param activation: tanh, relu, sigmoid, elu, softplus or identity.
    :raises ConfigError: the shapes do not fit, or there is no such activation.
    :raises MissingExtraError: onnx is not installed.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(allowed("activation", activation, f"must be one of {', '.join(ACTIVATIONS)}"))
    layers = _layers(weights, biases)
    onnx = require("onnx", "onnx")
    tensors = [
        onnx.numpy_helper.from_array(array, f"{name}{i}")
        for i, layer in enumerate(layers)
        for name, array in zip("Wb", layer, strict=True)
    ]
    ends = (("input", len(layers[0][0])), ("output", len(layers[-1][1])))
    first, last = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size]) for name, size in ends)
    nodes = _nodes(onnx.helper.make_node, len(layers), ACTIVATIONS[activation])
    graph = onnx.helper.make_graph(nodes, "mlp", [first], [last], tensors)
    versions = {"ir_version": IR_VERSION, "opset_imports": [onnx.helper.make_opsetid("", OPSET)]}
    return serialize_model(onnx.helper.make_model(graph, producer_name="asim", **versions))


def _layers(weights: Sequence[Array], biases: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Weights and biases as float32, once their shapes are checked."""
    if not len(weights) or len(weights) != len(biases):
        counts = len(weights), len(biases)
        raise ConfigError(allowed("weights and biases", counts, "must be as many, and at least one of each"))
    layers = [
        (np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
        for weight, bias in zip(weights, biases, strict=True)
    ]
    width = layers[0][0].shape[0] if layers[0][0].ndim == 2 else 0
    for i, (weight, bias) in enumerate(layers):
        if weight.ndim != 2 or weight.shape[0] != width or not weight.size:
            what = "must be (inputs, outputs), the inputs being the outputs of the layer before"
            raise ConfigError(allowed(f"shape of weights[{i}]", weight.shape, what))
        width = weight.shape[1]
        if bias.shape != (width,):
            raise ConfigError(allowed(f"shape of biases[{i}]", bias.shape, f"must be ({width},)"))
    return layers


def _nodes(make: Any, count: int, activation: str) -> list[Any]:
    """The graph's nodes."""
    nodes, value = [], "input"
    for i in range(count):
        last = i == count - 1
        target = "output" if last else f"z{i}"
        nodes.append(make("Gemm", [value, f"W{i}", f"b{i}"], [target]))
        if not last:
            value = f"a{i}"
            nodes.append(make(activation, [target], [value]))
    return nodes


def _bytes(onnx: Any, model: Any) -> bytes:
    """A model, however it is given, as bytes."""
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model)
    if hasattr(model, "SerializeToString"):
        return bytes(model.SerializeToString(deterministic=True))
    if not isinstance(model, (str, os.PathLike)):
        what = "must be an onnx.ModelProto, bytes, or the path of a file"
        raise ConfigTypeError(allowed("model", type(model).__name__, what))
    path = Path(model)
    if not path.is_file():
        raise MissingFileError(allowed("model", str(path), "there is no such file"))
    data = path.read_bytes()
    return _whole(onnx, path, data) if onnx is not None else data


def _whole(onnx: Any, path: Path, data: bytes) -> bytes:
    """The bytes of a file's model, with what is in files beside it."""
    model = _parse(onnx, data)
    if not any(tensor.external_data for tensor in model.graph.initializer):
        return data
    onnx.load_external_data_for_model(model, str(path.parent))
    return bytes(model.SerializeToString(deterministic=True))


def _parsed(model: Any) -> Any:
    """A model, however it is given, as a ModelProto."""
    onnx = require("onnx", "onnx")
    return model if isinstance(model, onnx.ModelProto) else _parse(onnx, _bytes(None, model))


def _parse(onnx: Any, data: bytes) -> Any:
    try:
        return onnx.load_from_string(data)
    except Exception as exc:
        raise ConfigError(allowed("model", f"{len(data)} bytes", f"is no ONNX model: {exc}")) from exc


def _check(onnx: Any, data: bytes) -> None:
    """What the checker finds wrong."""
    model = _parse(onnx, data)
    try:
        onnx.checker.check_model(model)
    except Exception as exc:
        raise ConfigError(allowed("model", model.graph.name or f"{len(data)} bytes", f"is not valid: {exc}")) from exc
