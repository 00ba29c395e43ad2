"""PyTorch modules as the bytes that a database runs, and training data for PyTorch's loaders.

``serialize_model`` here; ``StaticDataGenerator``, ``DynamicDataGenerator`` and ``DataLoader`` are loaded, with torch, when
they are first used.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from .._lazy import exports
from ..errors import ConfigError, ConfigTypeError, allowed
from .extras import require

if TYPE_CHECKING:
    from .torch_data import DataLoader, DynamicDataGenerator, StaticDataGenerator

METHODS = ("auto", "script", "trace")


def serialize_model(
    module: Any, example_inputs: Any = None, *, method: Literal["auto", "script", "trace"] = "auto"
) -> bytes:
    """A module as TorchScript, as ``set_model`` and ``add_ml_model`` take it with the backend TORCH.

    It is written in evaluation mode (dropout off, batch norm fixed) and as on the CPU; the database puts it on the
    device that it is stored for. The module itself stays as it is: its mode, its device, its parameters.

    :param module: a ``torch.nn.Module``, also one that is TorchScript already.
    :param example_inputs: what the module could be called with: a tensor, an array, or a tuple of these. Needed for
        tracing only.
    :param method: ``script`` compiles the module's source, with its branches and loops; ``trace`` records one run, so
        branches and loops become what they were in that run; ``auto`` scripts, and traces what cannot be scripted.
    :returns: bytes that ``torch.jit.load`` reads.
    :raises ConfigError: torch cannot make TorchScript of it; says what to do.
    :raises MissingExtraError: torch is not installed.
    """
    torch = require("torch", "torch")
    if not isinstance(module, torch.nn.Module):
        what = "must be a torch.nn.Module; a function goes to add_function or set_function"
        raise ConfigTypeError(allowed("module", type(module).__name__, what))
    if method not in METHODS:
        raise ConfigError(allowed("method", method, f"must be one of {', '.join(METHODS)}"))
    if method == "trace" and example_inputs is None:
        raise ConfigError(allowed("example_inputs", None, "method='trace' runs the module, so give it inputs"))
    with _quiet(), _evaluating(module):
        return _saved(torch, _scripted(torch, module, _inputs(torch, example_inputs), method))


def _scripted(torch: Any, module: Any, inputs: tuple[Any, ...] | None, method: str) -> Any:
    """The module as TorchScript."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    problem: Exception | None = None
    if method != "trace":
        try:
            return torch.jit.script(module)
        except Exception as exc:  # noqa: BLE001  (whatever torch says; it has many kinds of errors for this)
            problem = exc
        if method == "script" or inputs is None:
            what = "cannot be scripted; give example_inputs and method='trace' or 'auto'"
            raise ConfigError(f"{allowed('module', type(module).__name__, what)}:\n{problem}") from problem
    try:
        with torch.no_grad():
            return torch.jit.trace(module, inputs)
    except Exception as exc:
        also = f"\n(and it cannot be scripted: {problem})" if problem else ""
        what = "cannot be traced with these example_inputs"
        raise ConfigError(f"{allowed('module', type(module).__name__, what)}:\n{exc}{also}") from exc


def _inputs(torch: Any, given: Any) -> tuple[Any, ...] | None:
    """Example inputs as a tuple of tensors, as far as they are arrays."""
    if given is None:
        return None
    items = given if isinstance(given, tuple) else (given,)
    return tuple(torch.as_tensor(item) if hasattr(item, "__array__") else item for item in items)


def _saved(torch: Any, scripted: Any) -> bytes:
    """TorchScript as bytes, on the CPU. What is elsewhere is read back from bytes, so that it need not be moved."""
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    if any(tensor.device.type != "cpu" for tensor in (*scripted.parameters(), *scripted.buffers())):
        buffer.seek(0)
        here = torch.jit.load(buffer, map_location="cpu")
        buffer = io.BytesIO()
        torch.jit.save(here, buffer)
    return buffer.getvalue()


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """In evaluation mode; each part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's advice to use something else than TorchScript, which is what databases run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


__getattr__ = exports(__name__, {"asim.ml.torch_data": "DataLoader DynamicDataGenerator StaticDataGenerator"})[1]
__all__ = ["DataLoader", "DynamicDataGenerator", "StaticDataGenerator", "serialize_model"]
