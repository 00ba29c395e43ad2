"""Frozen graphs of TensorFlow, run in a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import WRONG_INPUTS, BackendError, Threads, cuda_index, require


def prepare() -> Any:
    """Import TensorFlow.

    :raises BackendError: it is not installed.
    """
    return require("TF", "tensorflow")


def load(blob: Any, device: str, inputs: Sequence[str], outputs: Sequence[str], threads: Threads) -> Graph:
    """A serialized GraphDef, whose inputs and outputs have these names."""
    tensorflow = prepare()
    tf = tensorflow.compat.v1
    where = _device(tensorflow, device)
    definition = tf.GraphDef()
    try:
        definition.ParseFromString(bytes(blob))
    except Exception as exc:
        raise BackendError(f"ERR this is no serialized GraphDef of TensorFlow: {exc}") from exc
    graph = tf.Graph()
    with graph.as_default(), tf.device(where):
        tf.import_graph_def(definition, name="")
    options = tf.ConfigProto(
        inter_op_parallelism_threads=threads.inter or -1,  # in the caller's thread: less than half the cost per run
        intra_op_parallelism_threads=threads.intra,
        allow_soft_placement=True,
    )
    options.gpu_options.allow_growth = True
    session = tf.Session(graph=graph, config=options)
    return Graph(session, [_tensor(graph, name) for name in inputs], [_tensor(graph, name) for name in outputs])


def _device(tensorflow: Any, device: str) -> str:
    index = cuda_index(device)
    if index is None:
        return "/CPU:0"
    if index >= len(tensorflow.config.list_physical_devices("GPU")):
        raise BackendError("ERR GPU requested but TensorFlow couldn't find CUDA")
    return f"/GPU:{index}"


def _tensor(graph: Any, name: str) -> Any:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as exc:
        raise BackendError(f'ERR there is no tensor "{name}" in the TensorFlow graph') from exc


class Graph:
    """A graph with its session."""

    circular = True  # TensorFlow's graphs refer to themselves

    def __init__(self, session: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self._run, self._inputs, self._outputs = session.run, inputs, list(outputs)
        self.inputs: int | None = len(inputs)
        self.outputs: int | None = len(outputs)
        self._session = session  # closes the graph when it goes

    def run(self, arrays: Sequence[Any]) -> Sequence[Any]:
        """Run it."""
        if len(arrays) != self.inputs:
            raise BackendError(WRONG_INPUTS)
        found: Sequence[Any] = self._run(self._outputs, dict(zip(self._inputs, arrays, strict=True)))
        return found
