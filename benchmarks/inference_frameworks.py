"""The frameworks called in process, as programs without a database do."""

from __future__ import annotations

import warnings
from pathlib import Path


def in_process(backend, path, threads):
    """A function from array to array.

    :param threads: that a run may use.
    """
    warnings.simplefilter("ignore")
    return globals()[f"_{backend.lower()}"](str(path), threads)


def _onnx(path, threads, spin=True):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(Path(path).read_bytes(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def _onnx_waiting(path, threads):
    """The same, whose threads sleep while they wait for each other, as those of asim's workers do."""
    return _onnx(path, threads, spin=False)


def _torch(path, threads):
    import torch

    torch.set_num_threads(threads)
    module = torch.jit.load(path)

    def run(array):
        with torch.no_grad():
            return module(torch.from_numpy(array)).numpy()

    return run


def _script(path, threads):
    import torch

    torch.set_num_threads(threads)
    unit = torch.jit.CompilationUnit(Path(path).read_text())
    return lambda array: unit.double(torch.from_numpy(array)).numpy()


def _tf(path, threads):
    from tensorflow.compat import v1 as tf

    graph, definition = tf.Graph(), tf.GraphDef()
    definition.ParseFromString(Path(path).read_bytes())
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    options = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = tf.Session(graph=graph, config=options)
    return lambda array: session.run("Identity:0", {"x:0": array})


def _tflite(path, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    come, go = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(array):
        interpreter.set_tensor(come, array)
        interpreter.invoke()
        return interpreter.get_tensor(go)

    return run
