"""TensorFlow Lite models, run by LiteRT, or by the interpreter inside TensorFlow."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

from . import WRONG_INPUTS, BackendError, Threads, cuda_index, no_strings, require


def prepare() -> Any:
    """Import the interpreter's class.

    :raises BackendError: it is not installed.
    """
    found = require("TFLITE", "ai_edge_litert.interpreter", "tensorflow")
    return found.Interpreter if hasattr(found, "Interpreter") else found.lite.Interpreter


def load(blob: Any, device: str, inputs: Sequence[str], outputs: Sequence[str], threads: Threads) -> Interpreter:
    """A model in a flat buffer."""
    kind = prepare()
    if cuda_index(device) is not None:
        raise BackendError("ERR TFLITE models run on CPUs only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own interpreter is deprecated
        return Interpreter(kind(model_content=bytes(blob), num_threads=threads.intra or None))


class Interpreter:
    """A model. Its interpreter has the tensors in it, so only one thread at a time runs it."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter, self._lock = interpreter, threading.Lock()
        interpreter.allocate_tensors()
        details = interpreter.get_input_details()
        self._inputs = [item["index"] for item in details]
        self._outputs = [item["index"] for item in interpreter.get_output_details()]
        self._shapes = [tuple(item["shape"].tolist()) for item in details]
        self.inputs: int | None = len(self._inputs)
        self.outputs: int | None = len(self._outputs)

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Run it, with room made for inputs of another shape first."""
        if len(arrays) != self.inputs:
            raise BackendError(WRONG_INPUTS)
        no_strings("TFLITE", arrays)
        interpreter = self._interpreter
        with self._lock:
            shapes = [array.shape for array in arrays]
            if shapes != self._shapes:
                self._resize(shapes)
            for index, array in zip(self._inputs, arrays, strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._outputs]

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        self._shapes = []  # not known, should this fail
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes
