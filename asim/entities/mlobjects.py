"""ML models, scripts and functions that a database gets before an application starts. Files are read when used."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import ConfigError, ConfigTypeError, allowed
from ..settings._text import LOG, checked
from ..values import check_text

BACKENDS = ("TORCH", "ONNX", "TF", "TFLITE")

PathText: TypeAlias = str | os.PathLike[str]
Memory: TypeAlias = bytes | bytearray | memoryview
Code: TypeAlias = str | Callable[..., Any]
_DEVICE = re.compile(r"(CPU|GPU)(:(0|[1-9][0-9]{0,4}))?")  # RedisAI allows 9 characters
_DEVICES = "must be CPU or GPU, in any case, or one device such as GPU:1 (numbers up to 99999)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A name, and the devices to be on. On CPU the two numbers are ignored with a warning (they become 1 and 0)."""

    name: str
    device: str = "CPU"
    devices_per_node: int = 1
    first_device: int = 0

    def __post_init__(self) -> None:
        _filled(f"{type(self).__name__}: name", self.name)
        device = checked(f"{self.name}: device", self.device).upper()
        _must(_DEVICE.fullmatch(device), f"{self.name}: device", self.device, _DEVICES)
        count = whole(f"{self.name}: devices_per_node", self.devices_per_node, least=1)
        first = whole(f"{self.name}: first_device", self.first_device)
        if device.startswith("CPU"):
            if (count, first) != (1, 0):
                LOG.warning("%s: devices_per_node = %d, first_device = %d: ignored on CPU", self.name, count, first)
            count, first = 1, 0
        one = device != "GPU"
        what = f"must be 1 with device = {device!r}" if one else "no device may be above GPU:99999"
        _must(count == 1 if one else first + count <= 100_000, f"{self.name}: devices_per_node", count, what)
        what = f"must be left out with device = {device!r}, or agree with it"
        _must(not (one and first) or device == f"GPU:{first}", f"{self.name}: first_device", first, what)
        _assign(self, device=device, devices_per_node=count, first_device=first)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that hold a copy; of "GPU" those from ``first_device`` on, ``devices_per_node`` of them."""
        if self.device != "GPU":
            return (self.device,)
        return tuple(f"GPU:{number}" for number in range(self.first_device, self.first_device + self.devices_per_node))

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """The (key, device) pairs under which it is stored: ``name.GPU:i`` for every GPU, then ``name`` for the whole.

        ``name`` is on "GPU", as in SmartRedis. A server takes that for its GPU 0, so when this is not among the
        devices, ``name`` is on the first of them. On CPU there is only ``name``.
        """
        if self.device.startswith("CPU"):
            return ((self.name, self.device),)
        copies = tuple((f"{self.name}.{device}", device) for device in self.devices)
        return (*copies, (self.name, copies[0][1] if self.first_device else self.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class MLModel(Placed):
    """A serialized ML model.

    :param name: key under which it is stored.
    :param backend: what runs it, in any case: TORCH, ONNX, TF, or TFLITE (also spelled TF-LITE).
    :param source: the model in memory (bytes), or the ``Path`` of its file.
    :param device: CPU, GPU, or one device such as GPU:1; in any case.
    :param devices_per_node: number of GPUs that get a copy.
    :param first_device: number of the first of these GPUs.
    :param batch_size: requests that are run together, at most; 0: each for itself.
    :param min_batch_size: requests to wait for before a batch is run; 0: do not wait.
    :param min_batch_timeout: milliseconds to wait for that many; 0: 10 ms.
    :param tag: text stored with the model, for example its version.
    :param inputs: names of inputs, one or several (TF only).
    :param outputs: names of outputs, one or several (TF only).
    :raises ConfigError: naming the field, the value, and what is allowed; ConfigTypeError for a wrong type.
    """

    backend: str
    source: bytes | Path = field(repr=False)
    batch_size: int = 0
    min_batch_size: int = 0
    min_batch_timeout: int = 0
    tag: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Placed.__post_init__(self)
        at = f"{self.name}: "
        backend = checked(f"{at}backend", self.backend).upper().replace("TF-LITE", "TFLITE")
        _must(backend in BACKENDS, f"{at}backend", self.backend, f"must be one of {', '.join(BACKENDS)}, in any case")
        for number in ("batch_size", "min_batch_size", "min_batch_timeout"):
            _assign(self, **{number: whole(at + number, getattr(self, number))})
        what = f"must not be more than batch_size = {self.batch_size}"
        _must(self.min_batch_size <= self.batch_size, f"{at}min_batch_size", self.min_batch_size, what)
        what = "must be 0 unless min_batch_size says what to wait for"
        _must(self.min_batch_size or not self.min_batch_timeout, f"{at}min_batch_timeout", self.min_batch_timeout, what)
        inputs, outputs = names_of(f"{at}inputs", self.inputs), names_of(f"{at}outputs", self.outputs)
        source = _source(f"{at}model", self.source, Memory | os.PathLike, "must be bytes, or a path in model_path")
        _assign(self, backend=backend, source=source, tag=checked(f"{at}tag", self.tag), inputs=inputs, outputs=outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script(Placed):
    """TorchScript source: text (str), or the ``Path`` of a file. Otherwise like :class:`MLModel`."""

    source: str | Path = field(repr=False)

    def __post_init__(self) -> None:
        Placed.__post_init__(self)
        what = "must be text, or a path in script_path"
        _assign(self, source=_source(f"{self.name}: script", self.source, str | os.PathLike, what))


@dataclass(frozen=True, slots=True, kw_only=True)
class Function(Placed):
    """A function for TorchScript: a Python callable, or source text. Otherwise like :class:`MLModel`."""

    source: Code = field(repr=False)

    def __post_init__(self) -> None:
        Placed.__post_init__(self)
        if not callable(self.source):
            _must(self.source is not None, f"{self.name}: function", None, "must be given")
            _source(f"{self.name}: function", self.source, str, "must be a callable or source text")


MLObject: TypeAlias = MLModel | Script | Function


def whole(field: str, value: Any, least: int = 0) -> int:
    """A whole number (also one of numpy's) as an int.

    :raises ConfigTypeError: not a whole number; a bool is none either.
    :raises ConfigError: less than ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ConfigTypeError(allowed(field, value, "must be an int"))
    _must(number >= least, field, number, f"must be {least} or more")
    return number


def _must(good: object, field: str, value: object, what: str) -> None:
    if not good:
        raise ConfigError(allowed(field, value, what))


def _assign(owner: Placed, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(owner, name, value)  # frozen, but still being made


def _filled(field: str, value: object) -> str:
    text = check_text(field, checked(field, value))
    _must(text, field, text, "must not be empty")
    return text


def names_of(field: str, value: object) -> tuple[str, ...]:
    """One name, several, or none.

    :raises ConfigTypeError: something else.
    """
    listed = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        raise ConfigTypeError(allowed(field, value, "must be a name or a list of names"))
    return tuple(_filled(f"{field}[{index}]", name) for index, name in enumerate(listed))


def either(field: str, memory: object, path: PathText | None) -> Any:
    """What is in memory, or else the path.

    :raises ConfigError: neither was given, or both.
    """
    what = f"must be given if, and only if, {field.rpartition(' ')[2]} is not"
    _must((memory is None) != (path is None), f"{field}_path", path, what)
    return memory if path is None else _path(f"{field}_path", path)


def _path(field: str, value: object) -> Path:
    return Path(_filled(field, os.fspath(value) if isinstance(value, os.PathLike) else value))


def _source(field: str, value: Any, kinds: Any, what: str) -> Any:
    """A path, or what is in memory, which is not empty. Errors quote no more than its beginning."""
    if not isinstance(value, kinds):
        raise ConfigTypeError(allowed(field, value[:40] if isinstance(value, (str, bytes)) else value, what))
    if isinstance(value, os.PathLike):
        return _path(f"{field}_path", value)
    _must(value, field, value, "must not be empty")
    return bytes(value) if isinstance(value, Memory) else value
