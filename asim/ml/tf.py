"""Keras models as the frozen graphs that a database runs, and training data for Keras.

``serialize_model`` and ``freeze_model`` here; ``StaticDataGenerator`` and ``DynamicDataGenerator`` are loaded, with Keras,
when they are first used.
"""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from .._lazy import exports
from ..errors import ConfigError, ConfigTypeError, allowed
from .extras import require

if TYPE_CHECKING:
    from .keras_data import DynamicDataGenerator, StaticDataGenerator

FREEZING = "tensorflow.python.framework.convert_to_constants"


def serialize_model(model: Any) -> tuple[bytes, list[str], list[str]]:
    """A Keras model as a frozen graph, as ``set_model`` and ``add_ml_model`` take it with the backend TF.

    :param model: a ``keras.Model`` whose inputs are known: functional, ``Sequential`` with an ``Input``, or a subclassed
        one that was called on ``keras.Input`` objects. Dimensions that are None stay free.
    :returns: the graph's bytes, the same ones for the same model; the names of its inputs, in the order of
        ``model.inputs``; and the names of its outputs. Pass them on as ``inputs=`` and ``outputs=``.
    :raises ConfigError: it is no such model.
    :raises MissingExtraError: tensorflow is not installed.
    """
    tensorflow = require("tensorflow", "tensorflow")
    keras = require("keras", "tensorflow")
    frozen = _frozen(tensorflow, keras, _checked(keras, model))
    graph = frozen.graph.as_graph_def()
    names = ([tensor.name.partition(":")[0] for tensor in tensors] for tensors in (frozen.inputs, frozen.outputs))
    inputs, outputs = names
    return graph.SerializeToString(deterministic=True), inputs, outputs


def freeze_model(model: Any, output_dir: str | os.PathLike[str], file_name: str) -> tuple[str, list[str], list[str]]:
    """Write a Keras model's frozen graph to a file; see :func:`serialize_model`.

    :param output_dir: made if it is not there.
    :param file_name: ``.pb`` is added if it does not end so. A file of this name is replaced, as a whole.
    :returns: the path, and the names of the inputs and of the outputs.
    :raises ConfigError: it is no such model.
    :raises MissingExtraError: tensorflow is not installed.
    :raises OSError: the file cannot be written.
    """
    if not file_name or Path(file_name).name != file_name:
        raise ConfigError(allowed("file_name", file_name, "must be a name, without directories"))
    data, inputs, outputs = serialize_model(model)
    target = Path(output_dir) / (file_name if file_name.endswith(".pb") else f"{file_name}.pb")
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, data)
    return str(target), inputs, outputs


def _checked(keras: Any, model: Any) -> Any:
    """The model, if it is one that can be traced."""
    if not isinstance(model, keras.Model):
        raise ConfigTypeError(allowed("model", type(model).__name__, "must be a keras.Model"))
    try:
        known = bool(model.inputs)
    except (AttributeError, ValueError):
        known = False
    if not known:
        what = "has no inputs yet; wrap it: x = keras.Input(shape); keras.Model(inputs=x, outputs=model(x))"
        raise ConfigError(allowed("model", model.name, what))
    return model


def _frozen(tensorflow: Any, keras: Any, model: Any) -> Any:
    """The model as one function with its weights as constants."""
    structure = getattr(model, "input", None)
    if structure is None:
        structure = model.inputs if len(model.inputs) > 1 else model.inputs[0]

    def call(*args: Any) -> Any:
        return model(keras.tree.pack_sequence_as(structure, args), training=False)

    specs = [
        tensorflow.TensorSpec(tensor.shape, tensor.dtype, name=f"args_{i}") for i, tensor in enumerate(model.inputs)
    ]
    concrete = tensorflow.function(call).get_concrete_function(*specs)
    return require(FREEZING, "tensorflow").convert_variables_to_constants_v2(concrete)


def _write(target: Path, data: bytes) -> None:
    """A file that is there as a whole or not at all."""
    temporary = target.with_name(f".{target.name}.{token_hex(6)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


__getattr__ = exports(__name__, {"asim.ml.keras_data": "DynamicDataGenerator StaticDataGenerator"})[1]
__all__ = ["DynamicDataGenerator", "StaticDataGenerator", "freeze_model", "serialize_model"]
