"""ML models, scripts and functions: what is recorded, what is refused."""

from __future__ import annotations

import copy
import logging
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from asim.entities.mlhost import MLObjects
from asim.entities.mlobjects import Function, MLModel, Script, whole
from asim.errors import ConfigError, ConfigTypeError, EntityExistsError

TEXT = "def negate(x):\n\treturn torch.neg(x)\n"


class Host(MLObjects):
    """As small as a host can be."""

    __slots__ = ("_ml", "name")

    def __init__(self) -> None:
        self.name = "m"
        self._ml = ()


class BytesPath:
    """A path that is not text."""

    def __fspath__(self) -> bytes:
        return b"/x"


def timestwo(x: Any) -> Any:
    """The function of the seed documents."""
    return 2 * x


def script(**fields: Any) -> Script:
    """A script named s."""
    return Script(**{"name": "s", "source": TEXT} | fields)


def model(**fields: Any) -> MLModel:
    """A model named n."""
    return MLModel(**{"name": "n", "backend": "TF", "source": b"graph"} | fields)


def function(**fields: Any) -> Function:
    """A function named f."""
    given: dict[str, Any] = {"name": "f", "source": timestwo}
    return Function(**given | fields)


# fmt: off
PLACES: list[tuple[Any, ...]] = [
    ({"device": "gpu"}, ["GPU:0"], "GPU"), ({"device": "GPU", "first_device": 2}, ["GPU:2"], "GPU:2"),
    ({"device": "GPU", "devices_per_node": 2}, ["GPU:0", "GPU:1"], "GPU"),
    ({"device": "Gpu", "devices_per_node": 2, "first_device": 1}, ["GPU:1", "GPU:2"], "GPU:1"),
    ({"device": "gpu:1"}, ["GPU:1"], "GPU:1"), ({"device": "GPU:3", "first_device": 3}, ["GPU:3"], "GPU:3"),
    ({"device": "GPU", "first_device": 99_999}, ["GPU:99999"], "GPU:99999"),
]
TYPES: list[tuple[Any, ...]] = [
    (script, "name", [5, None]), (script, "device", [None, 0]),
    (script, "devices_per_node", [True, "2"]), (script, "first_device", [0.0, None]),
    (script, "source", [b"text", None]), (function, "source", [5, Path("f.py")]), (model, "source", ["graph.pb", None]),
    (model, "backend", [None]), (model, "tag", [1]), (model, "inputs", [5, {"a"}]), (model, "outputs", [b"out"]),
    (model, "batch_size", [1.5]), (model, "min_batch_size", ["1"]), (model, "min_batch_timeout", [False]),
]
VALUES: list[tuple[Any, ...]] = [
    (script, {"device": "GPU:1", "devices_per_node": 2}, "devices_per_node = 2: must be 1 with device = 'GPU:1'"),
    (script, {"device": "GPU:1", "first_device": 2}, "s: first_device = 2: must be left out"),
    (script, {"device": "GPU", "devices_per_node": 0}, "s: devices_per_node = 0"),
    (script, {"devices_per_node": -1}, "devices_per_node = -1"), (script, {"first_device": -1}, "first_device = -1"),
    (script, {"device": "GPU", "devices_per_node": 100_001}, "s: devices_per_node = 100001"),
    (script, {"device": "GPU", "first_device": 100_000}, "s: devices_per_node = 1: no device may be above"),
    (script, {"name": ""}, "Script: name = ''"), (script, {"name": "a\0"}, "Script: name = "),
    (script, {"name": "\ud800"}, "Script: name = "), (script, {"source": ""}, "s: script = ''"),
    (function, {"source": ""}, "f: function = ''"), (function, {"source": None}, "f: function = None"),
    (model, {"source": b""}, "n: model = b''"), (model, {"tag": "\0"}, "n: tag"),
    (model, {"backend": "CAFFE"}, "n: backend = 'CAFFE': must be one of TORCH, ONNX, TF, TFLITE"),
    (model, {"batch_size": -1}, "n: batch_size = -1"), (model, {"min_batch_size": -1}, "n: min_batch_size = -1"),
    (model, {"min_batch_timeout": -1}, "n: min_batch_timeout = -1"),
    (model, {"batch_size": 2, "min_batch_size": 3}, "n: min_batch_size = 3: must not be more than batch_size = 2"),
    (model, {"min_batch_size": 1}, "n: min_batch_size = 1: must not be more than batch_size = 0"),
    (model, {"batch_size": 2, "min_batch_timeout": 10}, "n: min_batch_timeout = 10"),
    (model, {"inputs": ""}, r"n: inputs\[0\] = ''"), (model, {"outputs": ["a", ""]}, r"n: outputs\[1\] = ''"),
]
CLASHES: list[tuple[Any, ...]] = [
    (model(), model(source=b"other"), "n"), (model(), script(name="n"), "n"), (script(name="f"), function(), "f"),
    (function(), function(source=lambda x: x), "f"), (script(device="GPU"), script(device="CPU"), "s"),
    (script(device="GPU"), model(name="s.GPU:0"), "s.GPU:0"),
    (model(name="s.GPU:1"), script(device="GPU", devices_per_node=2), "s.GPU:1"),
]
TF: dict[str, Any] = {"backend": "TF"}
SOURCES: list[tuple[Any, ...]] = [
    ("add_ml_model", TF, "n: model_path = None: must be given if, and only if, model is not"),
    ("add_ml_model", TF | {"model": b"m", "model_path": "/m"}, "n: model_path = '/m'"),
    ("add_ml_model", TF | {"model_path": ""}, "n: model_path = ''"), ("add_function", {}, "n: function = None: must"),
    ("add_script", {}, "n: script_path = None: must be given if, and only if, script is not"),
    ("add_script", {"script": TEXT, "script_path": "/s.py"}, "n: script_path = '/s.py'"),
]
# fmt: on


@pytest.mark.parametrize(("place", "devices", "plain"), PLACES)
def test_every_gpu_keeps_its_copy(place: dict[str, Any], devices: list[str], plain: str) -> None:
    """Each GPU of the range has a key of its own, beside the plain name; first_device counts with one GPU too."""
    thing = script(**place)
    assert thing.devices == tuple(devices)
    assert thing.keys == (*((f"s.{device}", device) for device in devices), ("s", plain))


@pytest.mark.parametrize("device", ["CPU", "cpu", "CPU:1"])
def test_one_copy_on_cpu(device: str, caplog: pytest.LogCaptureFixture) -> None:
    """On CPU there is the plain name only, and the defaults are no reason for a warning."""
    thing = script(device=device)
    assert (thing.devices, thing.keys) == ((device.upper(),), (("s", device.upper()),))
    assert not caplog.records


@pytest.mark.parametrize(
    "place", [{"devices_per_node": 2}, {"first_device": 1}, {"device": "cpu:0", "first_device": 1}]
)
def test_numbers_are_ignored_on_cpu(place: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """On CPU there is one copy, and one warning, which a copy of the object does not repeat."""
    with caplog.at_level(logging.WARNING, "asim"):
        thing = replace(script(**place), name="t")
    assert [(record.name, record.levelname) for record in caplog.records] == [("asim", "WARNING")]
    assert "s: devices_per_node" in caplog.text
    assert (thing.devices_per_node, thing.first_device, len(thing.keys)) == (1, 0, 1)


@pytest.mark.parametrize("device", ["", "TPU", "GPU:", "GPU:x", "GPU:-1", "GPU:01", "GPU:٣", "GPU:100000", "GPU\n"])
def test_bad_devices_are_refused(device: str) -> None:
    """A device that cannot be is refused, with what is allowed."""
    with pytest.raises(ConfigError, match=r"s: device = .*: must be CPU or GPU"):
        script(device=device)


@pytest.mark.parametrize(("make", "field", "values"), TYPES)
def test_wrong_types_are_refused(make: Callable[..., Any], field: str, values: list[object]) -> None:
    """A wrong type is a ConfigTypeError that says which, and what would be right."""
    argument = {script: "script", function: "function", model: "model"}[make] if field == "source" else field
    for value in values:
        with pytest.raises(ConfigTypeError, match=f": {argument} = {re.escape(repr(value))}: must be "):
            make(**{field: value})


def test_wrong_types_inside() -> None:
    """Names must be text one by one, and a path must be text."""
    with pytest.raises(ConfigTypeError, match=r"n: outputs\[1\] = 1"):
        model(outputs=["a", 1])
    with pytest.raises(ConfigTypeError, match="s: script_path = b'/x'"):
        script(source=BytesPath())
    with pytest.raises(ConfigTypeError, match="n: model_path = 5"):
        Host().add_ml_model("n", "TF", model_path=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("make", "fields", "text"), VALUES)
def test_bad_values_are_refused(make: Callable[..., Any], fields: dict[str, Any], text: str) -> None:
    """A value that can never work is refused at once, with its field and its value."""
    with pytest.raises(ConfigError, match=text) as caught:
        make(**fields)
    assert not isinstance(caught.value, ConfigTypeError)


def test_errors_and_reprs_do_not_repeat_a_source() -> None:
    """A source of the wrong type is quoted only in part, and a repr has none at all."""
    for make in (lambda: script(source=b"x" * 9999), lambda: model(source="x" * 9999)):
        with pytest.raises(ConfigTypeError) as caught:
            make()
        assert len(str(caught.value)) < 200
    for thing, text in ((model(), "graph"), (script(), "torch"), (function(), "timestwo")):
        assert text not in repr(thing)


@pytest.mark.parametrize("given", ["torch", "Onnx", "TF", "tflite", "TF-LITE", "tf-lite"])
def test_backends(given: str) -> None:
    """All four backends in any case, one of them in two spellings."""
    assert model(backend=given).backend == given.upper().replace("-", "")


def test_sources_are_memory_or_path() -> None:
    """What is in memory becomes immutable, a path becomes a Path."""
    assert model(source=bytearray(b"graph")).source == b"graph"
    assert type(model(source=memoryview(b"graph")).source) is bytes
    assert model(source=PurePosixPath("a/b.pb")).source == Path("a/b.pb")
    assert script(source=PurePosixPath("s.py")).source == Path("s.py")
    assert (script().source, function(source=TEXT).source, function().source) == (TEXT, TEXT, timestwo)


def test_names_of_inputs_and_outputs() -> None:
    """One name, several, or none become a tuple."""
    assert (model(inputs="x").inputs, model(outputs=["a", "b"]).outputs) == (("x",), ("a", "b"))
    assert (model(inputs=None).inputs, model(outputs=()).outputs) == ((), ())


def test_numpy_numbers() -> None:
    """Numbers of numpy are numbers, its bools and arrays are not."""
    made = model(batch_size=np.int64(4), min_batch_size=np.int32(2), min_batch_timeout=np.uint8(10))
    assert (made.batch_size, made.min_batch_size, made.min_batch_timeout) == (4, 2, 10)
    assert type(made.batch_size) is int
    for value in (np.True_, np.array([1, 2]), np.float64(1)):
        with pytest.raises(ConfigTypeError, match="n = "):
            whole("n", value)


def test_objects_are_values() -> None:
    """Frozen, without a dict, equal and hashed by value, and they can be copied and sent elsewhere."""
    for thing in (model(inputs="x"), script(), function()):
        assert copy.deepcopy(thing) == pickle.loads(pickle.dumps(thing)) == thing
        assert hash(copy.copy(thing)) == hash(thing)
        assert not hasattr(thing, "__dict__")
        with pytest.raises(FrozenInstanceError):
            thing.name = "other"  # type: ignore[misc]
    assert model() != model(tag="v2")


# --- the mixin


def test_calls_of_the_seed() -> None:
    """The calls of the seed documents work as they stand there."""
    host = Host()
    host.add_ml_model("cnn", "TF", model=b"graph", device="CPU", inputs=["x"], outputs=["y"])
    host.add_ml_model(name="cnn2", backend="TF", model=b"graph", device="GPU", devices_per_node=2, first_device=0)
    host.add_function(name="example_func", function=timestwo, device="GPU", devices_per_node=2, first_device=0)
    host.add_function("test_func", function=timestwo, device="CPU")
    host.add_script(name="example_script", script=TEXT, device="GPU", devices_per_node=2, first_device=0)
    host.add_script("test_script1", script_path="torch_script.py", device="CPU")
    assert [thing.name for thing in host.db_models] == ["cnn", "cnn2"]
    assert [type(thing) for thing in host.db_scripts] == [Function, Function, Script, Script]
    assert host.ml_objects == (*host.db_models, *host.db_scripts)
    assert host.ml_objects[1].devices == ("GPU:0", "GPU:1")
    assert host.ml_objects[-1].source == Path("torch_script.py")


def test_all_arguments_of_a_model_arrive() -> None:
    """Every argument, by position in SmartSim's order, ends in its field."""
    host = Host()
    host.add_ml_model("n", "onnx", None, Path("/m.onnx"), "GPU", 2, 1, 8, 4, 100, "v1", "in", ["out"])
    assert host.db_models == (
        MLModel(
            name="n", backend="ONNX", source=Path("/m.onnx"), device="GPU", devices_per_node=2, first_device=1,
            batch_size=8, min_batch_size=4, min_batch_timeout=100, tag="v1", inputs=("in",), outputs=("out",),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("method", "fields", "text"), SOURCES)
def test_exactly_one_source(method: str, fields: dict[str, Any], text: str) -> None:
    """Neither and both are refused, instead of one of them winning, and nothing is added."""
    host = Host()
    with pytest.raises(ConfigError, match=text) as caught:
        getattr(host, method)("n", **fields)
    assert not isinstance(caught.value, ConfigTypeError)
    assert host.ml_objects == ()


def test_prepared_objects() -> None:
    """Each method takes its own kind, add_object all kinds, and none anything else."""
    host = Host()
    host.add_ml_model_object(model())
    host.add_script_object(script())
    host.add_function_object(function())
    host.add_object(script(name="t"))
    assert host.ml_objects == (model(), script(), function(), script(name="t"))
    adders: list[Any] = [host.add_ml_model_object, host.add_script_object, host.add_function_object, host.add_object]
    for add, thing in zip(adders, (script(), function(), model(), "text"), strict=True):
        with pytest.raises(ConfigTypeError, match=r"m: ML object = .* must be of type"):
            add(thing)


def test_same_object_again_is_nothing() -> None:
    """An equal object is the same object, whether prepared or made anew."""
    host = Host()
    for _ in range(2):
        host.add_ml_model("n", "TF", b"graph")
        host.add_object(model())
        host.add_function("f", timestwo)
    assert host.ml_objects == (model(), function())


@pytest.mark.parametrize(("first", "second", "key"), CLASHES)
def test_two_objects_under_one_key(first: Any, second: Any, key: str) -> None:
    """A different object under a key that is taken is refused, whatever its kind, and nothing changes."""
    host = Host()
    host.add_object(first)
    with pytest.raises(EntityExistsError, match=f"m: name of ML object = '{second.name}': its key '{key}' is taken"):
        host.add_object(second)
    assert host.ml_objects == (first,)
