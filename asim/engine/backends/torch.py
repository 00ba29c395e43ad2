"""TorchScript modules. They are read by ``torch.jit.load`` alone, which makes no Python objects; pickles are never loaded."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from . import WRONG_INPUTS, BackendError, Threads, cuda_index, no_strings, require

_SETUP = threading.Lock()
_ready: set[int] = set()


def prepare() -> Any:
    """Import torch.

    :raises BackendError: it is not installed.
    """
    return require("TORCH", "torch")


def configured(threads: Threads) -> Any:
    """Torch, told once how many threads it may use."""
    torch = prepare()
    with _SETUP:
        if not _ready:
            _ready.add(1)
            if threads.intra:
                torch.set_num_threads(threads.intra)
            if threads.inter:
                torch.set_num_interop_threads(threads.inter)
    return torch


def device_of(torch: Any, device: str) -> Any:
    """Torch's device.

    :raises BackendError: it is a GPU that torch does not find.
    """
    index = cuda_index(device)
    if index is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BackendError("GPU requested but Torch couldn't find CUDA")
    if index >= torch.cuda.device_count():
        raise BackendError(f"ERR {device} requested but Torch found only {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", index)


def load(blob: Any, device: str, inputs: Sequence[str], outputs: Sequence[str], threads: Threads) -> Module:
    """A module that ``torch.jit.save`` wrote."""
    torch = configured(threads)
    where = device_of(torch, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return Module(torch, torch.jit.load(io.BytesIO(blob), map_location=where), where)


class Tensors:
    """Numpy arrays to tensors on a device, and back."""

    def __init__(self, torch: Any, device: Any) -> None:
        self.torch = torch
        self._device = None if device.type == "cpu" else device

    def of(self, arrays: Sequence[Any], gradients: bool = False) -> list[Any]:
        """Tensors, on the CPU in the arrays' own memory.

        :param gradients: whether what runs next in this thread differentiates.
        """
        torch = self.torch
        if torch.is_grad_enabled() != gradients:
            torch.set_grad_enabled(gradients)
        try:
            tensors = [torch.from_numpy(array) for array in arrays]
        except TypeError:
            no_strings("TORCH", arrays)
            raise
        return [tensor.to(self._device) for tensor in tensors] if self._device else tensors

    def back(self, tensor: Any) -> Any:
        """An array."""
        try:
            return tensor.numpy()
        except (RuntimeError, TypeError):  # on a GPU, with a gradient, or of a type that numpy does not have
            plain = tensor.detach()
            plain = plain.float() if plain.is_floating_point() and plain.element_size() < 4 else plain
            return plain.to_dense().numpy(force=True)


class Module:
    """A TorchScript module."""

    def __init__(self, torch: Any, module: Any, device: Any) -> None:
        self._tensors, self._tensor, self._module = Tensors(torch, device), torch.Tensor, module
        schema = module.forward.schema
        self._least, self.inputs, self.listed = _inputs(schema.arguments[1:])
        self.outputs = _outputs(schema.returns)
        self._gradients = differentiates(module)

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """``forward`` of these arrays."""
        if len(arrays) < self._least:
            raise BackendError(WRONG_INPUTS)
        tensors = self._tensors.of(arrays, self._gradients)
        found = self._module([*tensors]) if self.listed else self._module(*tensors)
        if isinstance(found, self._tensor):
            return [self._tensors.back(found)]
        flat = list(flattened(found, self._tensor))
        return [self._tensors.back(tensor) for tensor in flat]


def _inputs(arguments: Sequence[Any]) -> tuple[int, int | None, bool]:
    """The least number of inputs, their number if only one is possible, and whether they go into one list."""
    if len(arguments) == 1 and is_list(arguments[0].type):
        return 0, None, True
    least = sum(not argument.has_default_value() for argument in arguments)
    return least, len(arguments) if least == len(arguments) else None, False


def _outputs(returns: Sequence[Any]) -> int | None:
    """How many tensors a method gives, if that is known."""
    kinds = [returned.type for returned in returns]
    if len(kinds) == 1 and kinds[0].kind() == "TupleType":
        kinds = kinds[0].elements()
    return len(kinds) if all(kind.kind() == "TensorType" for kind in kinds) else None


def differentiates(code: Any) -> bool:
    """Whether a module or function differentiates, as one does that gives the forces of a potential."""
    graph = code.inlined_graph
    return any(graph.findAllNodes(name) for name in ("aten::grad", "aten::backward"))


def is_list(kind: Any) -> bool:
    """Whether a type of TorchScript is List[Tensor]."""
    return bool(kind.kind() == "ListType" and kind.getElementType().kind() == "TensorType")


def flattened(found: Any, tensor: type) -> Any:
    """The tensors in tuples and lists, in order.

    :raises BackendError: there is something else.
    """
    if isinstance(found, tensor):
        yield found
    elif isinstance(found, (tuple, list)):
        for item in found:
            yield from flattened(item, tensor)
    else:
        raise BackendError(f"ERR the model returned something that is no tensor, but {type(found).__name__}")
