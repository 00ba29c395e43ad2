"""The frameworks that run models: one module each, imported when it is first needed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol

MODULES = {"TORCH": "torch", "ONNX": "onnx", "TF": "tensorflow", "TFLITE": "tflite"}
"""Backends, and the modules of this package that have them; ``pip install 'asim[…]'`` has the same names."""
WRONG_INPUTS = "Number of keys given as INPUTS here does not match model definition"
WRONG_OUTPUTS = "Number of keys given as OUTPUTS here does not match model definition"


class BackendError(Exception):
    """What a client is to be told, word by word."""


class Threads(NamedTuple):
    """How many threads a framework may use between operations, and inside of one; 0: as it likes."""

    inter: int = 0
    intra: int = 0


class Runner(Protocol):
    """A loaded model. Several threads may run it at once.

    :ivar inputs: how many it takes; None: it depends.
    :ivar outputs: how many it gives; None: it depends.
    """

    inputs: int | None
    outputs: int | None

    def run(self, arrays: Sequence[Any]) -> Sequence[Any]:
        """Run it: numpy arrays in, numpy arrays out. May raise anything."""


class Backend(Protocol):
    """What each module of this package has."""

    def prepare(self) -> object:
        """Import the framework.

        :raises BackendError: it is not installed.
        """

    def load(self, blob: Any, device: str, inputs: Sequence[str], outputs: Sequence[str], threads: Threads) -> Runner:
        """A model from its bytes. May raise anything.

        :param inputs: names of inputs, as ``outputs``; only TF's models have them.
        """


def backend_of(name: str) -> Backend:
    """The backend of that name.

    :raises BackendError: there is none.
    """
    if name not in MODULES:
        raise BackendError(f"ERR unsupported backend {name!r}; there are {', '.join(MODULES)}")
    return importlib.import_module(f"{__name__}.{MODULES[name]}")


def require(backend: str, *modules: str) -> ModuleType:
    """Import the first of these modules that is installed.

    :raises BackendError: none is; says how to install one.
    """
    problem = ""
    for module in modules:
        try:
            return importlib.import_module(module)
        except ImportError as exc:
            problem = problem or str(exc)
    what = f"pip install 'asim[{MODULES[backend]}]'"
    raise BackendError(f"ERR {backend} cannot be used where the database runs ({problem}): {what}")


def cuda_index(device: str) -> int | None:
    """Which GPU a device is; None: it is a CPU."""
    kind, _, number = device.partition(":")
    return int(number or 0) if kind.upper() == "GPU" else None


def no_strings(backend: str, arrays: Sequence[Any]) -> None:
    """Refuse STRING tensors.

    :raises BackendError: there is one.
    """
    if any(array.dtype.hasobject for array in arrays):
        raise BackendError(f"ERR {backend} takes no STRING tensors")
