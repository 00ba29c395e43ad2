"""The frameworks in this process: each backend's answer is the framework's own, and every odd model is a clear error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from asim.engine.backends import BackendError, Threads, backend_of
from asim.engine.protocol import Call, Tensor
from asim.engine.tensors import Packer, arrays_of, wire

from . import ml_models as models
from .ml_models import mlp, need, onnx_cast, onnx_model, saved

X = np.array([[1, 2, 3], [4, 5, 6], [-1, 0, 0.5]], np.float32)
THREADS = Threads(0, 1)


def load(backend: str, blob: bytes, device: str = "CPU", inputs: Any = (), outputs: Any = ()) -> Any:
    """A runner; its data comes as the worker gets it."""
    return backend_of(backend).load(memoryview(blob), device, inputs, outputs, THREADS)


@pytest.fixture
def onnx() -> None:
    """With onnxruntime, and what makes its models."""
    need("onnx")
    need("onnxruntime")


@pytest.fixture
def torch() -> Iterator[Any]:
    """With torch; whether it keeps gradients is put back."""
    found = need("torch")
    yield found
    found.set_grad_enabled(True)


# -- the right answers


def test_onnx(onnx: None) -> None:
    """onnxruntime's answer, for any number of rows."""
    runner = load("ONNX", models.onnx_mlp())
    assert (runner.inputs, runner.outputs) == (1, 1)
    for rows in (3, 1, 2):
        assert np.allclose(runner.run([X[:rows]])[0], mlp(X[:rows]), atol=1e-5)


def test_torch(torch: Any) -> None:
    """Torch's answer, and the counts of inputs and outputs from the signature."""
    runner = load("TORCH", models.torch_mlp())
    assert (runner.inputs, runner.outputs) == (1, 1)
    for rows in (3, 1, 2):
        assert np.allclose(runner.run([X[:rows]])[0], mlp(X[:rows]), atol=1e-5)


@pytest.mark.slow
def test_tensorflow() -> None:
    """TensorFlow's answer from the bytes of a frozen Keras model; names may have the ":0" of TensorFlow or not."""
    blob = models.tensorflow_mlp()
    for names in (["x"], ["Identity"]), (["x:0"], ["Identity:0"]):
        runner = load("TF", blob, "CPU", *names)
        assert (runner.inputs, runner.outputs) == (1, 1)
        for rows in (3, 1):
            assert np.allclose(runner.run([X[:rows]])[0], mlp(X[:rows]), atol=1e-5)
    with pytest.raises(BackendError, match='no tensor "nothing" in the TensorFlow graph'):
        load("TF", blob, "CPU", ["nothing"], ["Identity"])
    with pytest.raises(BackendError, match="INPUTS here does not match"):
        runner.run([X, X])
    with pytest.raises(BackendError, match="no serialized GraphDef"):
        load("TF", b"nonsense" * 20, "CPU", ["x"], ["y"])
    with pytest.raises(BackendError, match="couldn't find CUDA"):
        load("TF", blob, "GPU:7", ["x"], ["Identity"])


def test_tflite() -> None:
    """LiteRT's answer, with room for another number of rows made each time it changes."""
    need("ai_edge_litert")
    runner = load("TFLITE", models.TFLITE)
    assert (runner.inputs, runner.outputs) == (1, 1)
    for rows in (3, 1, 3, 2, 2):
        (found,) = runner.run([X[:rows]])
        assert np.allclose(found, X[:rows] * 2 + [1, 2, 3])


@pytest.mark.slow
def test_tflite_by_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LiteRT the interpreter inside TensorFlow runs such a model, and its answer is LiteRT's."""
    need("ai_edge_litert")
    need("tensorflow")
    expected = [load("TFLITE", models.TFLITE).run([X[:rows]])[0] for rows in (3, 1)]
    for module in ("ai_edge_litert.interpreter", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, module, None)
    runner = load("TFLITE", models.TFLITE)
    assert type(runner._interpreter).__module__.startswith("tensorflow.")
    assert (runner.inputs, runner.outputs) == (1, 1)
    for wanted in expected:
        np.testing.assert_array_equal(runner.run([X[: len(wanted)]])[0], wanted)
    with pytest.raises(BackendError, match="INPUTS here does not match"):
        runner.run([X, X])


def test_tflite_goes_on_after_an_error() -> None:
    """A wrong type or shape is the interpreter's own error, and the next run is right."""
    need("ai_edge_litert")
    runner = load("TFLITE", models.TFLITE)
    for wrong in (X.astype("f8"), np.ones((2, 4), np.float32)):
        with pytest.raises((ValueError, RuntimeError)):
            runner.run([wrong])
        assert np.allclose(runner.run([X])[0], X * 2 + [1, 2, 3])


def test_onnx_takes_and_gives_text(onnx: None) -> None:
    """STRING tensors are text for models that take it."""
    blob = onnx_model([("Identity", ["x"], ["y"])], [("x", 8, [2])], [("y", 8, [2])])
    arrays = arrays_of(b"a\0\xc3\xa4\0", [Tensor(9, (2,), 0, 5)])
    assert wire(load("ONNX", blob).run(arrays)[0], 0) == (9, (2,), b"a\0\xc3\xa4\0")


def test_text_that_is_wrong() -> None:
    """STRING tensors that are no text, or of another length than their shape says, are errors and not garbage."""
    with pytest.raises(BackendError, match="not UTF-8"):
        arrays_of(b"\xff\0", [Tensor(9, (1,), 0, 2)])
    with pytest.raises(BackendError, match="has 1 elements"):
        arrays_of(b"a\0", [Tensor(9, (2,), 0, 2)])
    with pytest.raises(BackendError, match="NUL"):
        wire(np.array(["a\0b"], object), 0)


# -- shapes of torch's modules


def test_torch_outputs_are_flattened(torch: Any) -> None:
    """Tuples and lists of tensors become outputs in order."""

    class Many(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x, (x + 1, x + 2)

    class Listed(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            return [x, x + 1]

    many, listed = load("TORCH", saved(Many())), load("TORCH", saved(Listed()))
    assert [found[0, 0] for found in many.run([X])] == [1, 2, 3]
    assert [found[0, 0] for found in listed.run([X])] == [1, 2]
    assert listed.outputs is None


def test_torch_counts_of_a_pair(torch: Any) -> None:
    """Two inputs and a pair of outputs are counted; with a default value the number of inputs is open."""

    class Pair(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x, y):  # type: ignore[no-untyped-def]
            return x + y, x - y

    class Default(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x, y: int = 3):  # type: ignore[no-untyped-def]
            return x + y

    pair, default = load("TORCH", saved(Pair())), load("TORCH", saved(Default()))
    assert (pair.inputs, pair.outputs) == (2, 2)
    assert default.inputs is None
    assert default.run([X])[0][0, 0] == 4
    with pytest.raises(BackendError, match="INPUTS here does not match"):
        pair.run([X])


def test_torch_may_differentiate(torch: Any) -> None:
    """A potential gives forces: a module that differentiates works, beside one for which gradients are off."""

    class Forces(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            y = x.detach().requires_grad_()
            grad = torch.autograd.grad([(y * y).sum()], [y])[0]
            assert grad is not None
            return grad

    forces, plain = load("TORCH", saved(Forces())), load("TORCH", models.torch_mlp())
    for _ in range(3):
        assert np.allclose(forces.run([X])[0], 2 * X)
        plain.run([X])
        assert not torch.is_grad_enabled()


def test_torch_no_tensor(torch: Any) -> None:
    """A number is no tensor."""

    class Number(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x.shape[0]

    with pytest.raises(BackendError, match="no tensor, but int"):
        load("TORCH", saved(Number())).run([X])


# -- types


@pytest.mark.parametrize(
    ("dtype", "value", "code", "expected"),
    [
        ("bfloat16", 1.5, 0, 1.5), ("float16", 1.5, 0, 1.5), ("bool", 1, 6, 1), ("float64", 2, 1, 2), ("int8", -3, 2, -3),
        ("uint16", 7, 7, 7), ("uint32", 2**32 - 1, 5, 2**32 - 1), ("uint64", 2**63 - 1, 5, 2**63 - 1),
    ],
)  # fmt: skip
def test_types_of_torch(torch: Any, dtype: str, value: Any, code: int, expected: Any) -> None:
    """Every type of torch's reaches the wire, in the nearest type that that has."""
    from asim.engine.backends.torch import Tensors

    array = Tensors(torch, torch.device("cpu")).back(torch.tensor([value]).to(getattr(torch, dtype)))
    found, dims, data = wire(array, 0)
    assert (found, dims, data.item()) == (code, (1,), expected)


@pytest.mark.parametrize(("to", "code", "expected"), [(10, 0, 2.0), (9, 6, 1), (12, 5, 2), (13, 5, 2), (11, 1, 2.0)])
def test_types_of_onnx(onnx: None, to: int, code: int, expected: float) -> None:
    """float16, bool, uint32 and uint64 outputs are cast; double stays."""
    (array,) = load("ONNX", onnx_cast(to)).run([np.array([2], np.float32)])
    found, _, data = wire(array, 0)
    assert (found, data.item()) == (code, expected)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([2**63], np.uint64), "values of uint64 that INT64 has no room for"),
        (np.array([1j]), "type complex128"),
        (np.empty((0, 4), np.float32), r"empty, of shape \[0, 4\]"),
        (np.array(["2020"], "M8[Y]"), "type datetime64"),
    ],
)
def test_what_no_tensor_can_be(array: Any, words: str) -> None:
    """What would lose its value is an error with the output's number."""
    with pytest.raises(BackendError, match=f"output 4 of the model .*{words}"):
        wire(array, 4)


def test_shapes_on_the_wire() -> None:
    """A scalar has the shape [1], and a transposed array is sent row by row, again and again."""
    assert wire(np.float32(3) * np.ones((), np.float32), 0)[1] == (1,)
    packer = Packer()
    for array in (np.arange(6.0).reshape(2, 3).T, np.arange(6.0).reshape(3, 2), np.arange(6.0).reshape(2, 3).T):
        _, (data,) = packer.pack([array], 0)
        assert np.asarray(data).tobytes() == array.tobytes("C")


@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_a_batch_of_another_size(shape: tuple[int, ...]) -> None:
    """Rows of a merged batch that are not there cannot be told apart: an error, in RedisAI's words."""
    with pytest.raises(BackendError, match="^ERR Model did not generate the expected batch size$"):
        Packer().pack([np.zeros(shape, np.float32)], 3)


def test_many_shapes_are_not_kept() -> None:
    """A million shapes do not fill the memory of a worker."""
    packer = Packer()
    for rows in range(1, 3000):
        packer.pack([np.zeros(rows, np.int8)], rows)
    assert len(packer._heads) <= 1024


# -- scripts

SOURCE = """
    def double(x):
        return 2 * x

    def both(x, y):
        return x + y, x - y

    def stacked(x, xs: List[Tensor]):
        return torch.stack([x] + xs)

    def number(x: Tensor, y: int):
        return x * y

    def size(x):
        return x.shape[0]

    def slope(x):
        y = x.detach().requires_grad_()
        found = torch.autograd.grad([(y * y).sum()], [y])[0]
        assert found is not None
        return found

    def entry(tensors: List[Tensor], keys: List[str], args: List[str]):
        return [tensors[0] * int(args[0]), tensors[-1] + len(keys)]
    """


@pytest.fixture
def script(torch: Any) -> Any:
    """The functions above, indented as `inspect.getsource` gives those in a class or a test."""
    from asim.engine.backends import script

    return script.load(SOURCE.encode(), "CPU", ["entry"], THREADS)


@pytest.mark.parametrize(
    ("call", "inputs", "expected"),
    [
        (Call(function="double"), 1, [2]),
        (Call(function="double"), 3, [2]),  # what is too much is ignored
        (Call(function="both"), 2, [3, -1]),
        (Call(function="slope"), 1, [2]),
        (Call(function="entry", keys=["k"], args=["5"], entry_point=True), 2, [5, 3]),
    ],
)
def test_calls(script: Any, call: Call, inputs: int, expected: list[float]) -> None:
    """Functions get their inputs by position, entry points all of them, with keys and arguments."""
    arrays = [np.full(2, number + 1, np.float32) for number in range(inputs)]
    assert [found[0] for found in script.call(call, arrays, len(expected))] == expected


def test_calls_with_a_list(script: Any) -> None:
    """A list at the end takes what is left, or what comes after `$`."""
    arrays = [np.full(1, number, np.float32) for number in range(3)]
    for variadic in (None, 1):
        (found,) = script.call(Call(function="stacked", variadic=variadic), arrays, 1)
        assert found.ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "inputs", "words"),
    [
        (Call(function="nothing"), 1, "Function does not exist: nothing"),
        (Call(function="both"), 1, "Wrong number of inputs provided to function: both"),
        (Call(function="stacked"), 0, "Wrong number of inputs provided to function: stacked"),
        (Call(function="stacked", variadic=2), 3, "Wrong number of inputs provided to function: stacked"),
        (Call(function="number"), 2, "Unsupported input type in function definition: number"),
        (Call(function="double"), 1, "Function returned unexpected number of outputs - double"),
        (Call(function="size"), 1, "Function returned non-tensor valuessize"),
    ],
)
def test_wrong_calls(script: Any, call: Call, inputs: int, words: str) -> None:
    """Each mistake has RedisAI's words, which programs look for."""
    with pytest.raises(BackendError) as caught:
        script.call(call, [np.ones(2, np.float32)] * inputs, 2)
    assert str(caught.value) == words


def test_a_script_as_a_file_has_it(torch: Any) -> None:
    """Imports at the top and a last line without an end are no error: files of Python have them."""
    from asim.engine.backends import script

    source = b"import torch\nfrom typing import List\ndef f(xs: List[torch.Tensor]):\n    return xs[0] + xs[1]"
    found = script.load(source, "CPU", [], THREADS).call(Call(function="f"), [X, X], 1)
    assert (found[0] == 2 * X).all()


def test_scripts_that_do_not_compile(torch: Any) -> None:
    """Torch's own words for what does not compile; a missing entry point is found when the script is stored."""
    from asim.engine.backends import script

    with pytest.raises(RuntimeError, match="undefined value nothing"):
        script.load(b"def f(x):\n    return nothing(x)\n", "CPU", [], THREADS)
    with pytest.raises(BackendError, match="Function does not exist: g"):
        script.load(b"def f(x):\n    return x\n", "CPU", ["g"], THREADS)


# -- what cannot be


@pytest.mark.parametrize(
    ("backend", "module", "extra"),
    [("TORCH", "torch", "torch"), ("ONNX", "onnxruntime", "onnx"), ("TF", "tensorflow", "tensorflow")],
)
def test_missing_frameworks(monkeypatch: pytest.MonkeyPatch, backend: str, module: str, extra: str) -> None:
    """A framework that is not there is an error with the exact line that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=rf"{backend} cannot be used .*: pip install 'asim\[{extra}\]'$"):
        load(backend, b"")
    with pytest.raises(BackendError, match="pip install"):
        backend_of(backend).prepare()


def test_missing_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    """TFLite models need LiteRT, or TensorFlow; the error tells how to get the smaller one."""
    for module in ("ai_edge_litert.interpreter", "ai_edge_litert", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"pip install 'asim\[tflite\]'"):
        load("TFLITE", models.TFLITE)


def test_unknown_backend() -> None:
    """A backend that there is not is an error that lists those that there are."""
    with pytest.raises(BackendError, match="'MXNET'; there are TORCH, ONNX, TF, TFLITE"):
        backend_of("MXNET")


def test_no_gpu(torch: Any) -> None:
    """A device that is not there is an error, not a model that runs elsewhere."""
    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    with pytest.raises(BackendError, match="^GPU requested but Torch couldn't find CUDA$"):
        load("TORCH", models.torch_mlp(), "GPU:1")
    need("onnxruntime")
    with pytest.raises(BackendError, match="onnxruntime couldn't find CUDA"):
        load("ONNX", b"", "GPU")
    need("ai_edge_litert")
    with pytest.raises(BackendError, match="CPUs only"):
        load("TFLITE", models.TFLITE, "GPU")


@pytest.mark.slow
@pytest.mark.parametrize("blob", [b"", b"nonsense" * 100, bytes(1000)], ids=["empty", "text", "zeros"])
@pytest.mark.parametrize(
    ("backend", "module"), [("TORCH", "torch"), ("ONNX", "onnxruntime"), ("TFLITE", "ai_edge_litert")]
)
def test_random_bytes(backend: str, module: str, blob: bytes) -> None:
    """What is no model is an exception of the framework, and the process goes on."""
    need(module)
    with pytest.raises((RuntimeError, ValueError, Exception), match=".+"):
        load(backend, blob)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["TORCH", "TFLITE"])
def test_no_text_for_numbers(backend: str) -> None:
    """STRING tensors are refused by name where a framework has no text."""
    need({"TORCH": "torch", "TFLITE": "ai_edge_litert"}[backend])
    runner = load(backend, models.torch_mlp() if backend == "TORCH" else models.TFLITE)
    with pytest.raises(BackendError, match=f"{backend} takes no STRING tensors"):
        runner.run([np.array(["a"], object)])


def test_wrong_number_of_inputs(onnx: None) -> None:
    """The number of inputs is checked in RedisAI's words."""
    with pytest.raises(BackendError, match="^Number of keys given as INPUTS here does not match model definition$"):
        load("ONNX", models.onnx_mlp()).run([X, X])
