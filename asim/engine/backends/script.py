"""Functions of TorchScript, compiled from source text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from ..protocol import Call
from . import BackendError, Threads
from .torch import Tensors, configured, device_of, differentiates, flattened, is_list

_IMPORT = re.compile(r"^(?:import|from) [^\n(]*$", re.MULTILINE)


def load(source: Any, device: str, entry_points: Sequence[str], threads: Threads) -> Script:
    """Compile source text. May raise anything.

    :param entry_points: functions that it must have.
    """
    torch = configured(threads)
    where = device_of(torch, device)
    unit = torch.jit.CompilationUnit(readable(bytes(source).decode()))
    script = Script(torch, unit, where)
    for name in entry_points:
        script.function(name)
    return script


def readable(source: str) -> str:
    """Source text as TorchScript's parser takes it.

    Functions may be indented, as those inside of others are; lines that import modules stay empty, as there is nothing to
    import (``torch`` and ``List`` are known); and the last line ends.
    """
    return _IMPORT.sub("", textwrap.dedent(source)) + "\n"


class Script:
    """A script. Several threads may call it at once."""

    inputs: int | None = None
    outputs: int | None = None

    def __init__(self, torch: Any, unit: Any, device: Any) -> None:
        self._tensors, self._tensor, self._unit = Tensors(torch, device), torch.Tensor, unit
        self._functions: dict[str, tuple[Any, Sequence[Any], bool]] = {}

    def function(self, name: str) -> tuple[Any, Sequence[Any], bool]:
        """A function, the types of its parameters, and whether it differentiates.

        :raises BackendError: there is none of that name.
        """
        if name not in self._functions:
            found = self._unit.find_function(name)
            if found is None:
                raise BackendError(f"Function does not exist: {name}")
            kinds = [argument.type for argument in found.schema.arguments]
            self._functions[name] = found, kinds, differentiates(found)
        return self._functions[name]

    def call(self, call: Call, arrays: Sequence[Any], expected: int) -> list[Any]:
        """Call a function with numpy arrays; it must give ``expected`` of them. May raise anything."""
        function, kinds, gradients = self.function(call.function)
        tensors = self._tensors.of(arrays, gradients)
        if call.entry_point:
            found = function(tensors, list(call.keys), list(call.args))
        else:
            found = function(*_bound(call, kinds, tensors))
        results = self._results(call.function, found)
        if len(results) != expected:
            raise BackendError(f"Function returned unexpected number of outputs - {call.function}")
        return [self._tensors.back(tensor) for tensor in results]

    def _results(self, name: str, found: Any) -> list[Any]:
        try:
            return list(flattened(found, self._tensor))
        except BackendError:
            raise BackendError(f"Function returned non-tensor values{name}") from None


def _bound(call: Call, kinds: Sequence[Any], tensors: list[Any]) -> list[Any]:
    """The inputs as a function's parameters want them: by position, a list at the end taking what is left.

    :raises BackendError: a parameter of another type, or too few inputs.
    """
    listed = bool(kinds) and is_list(kinds[-1])
    single = kinds[:-1] if listed else kinds
    if any(kind.kind() != "TensorType" for kind in single):
        raise BackendError(f"Unsupported input type in function definition: {call.function}")
    first = len(single) if call.variadic is None else call.variadic
    if len(tensors) < len(single) or (listed and first != len(single)):
        raise BackendError(f"Wrong number of inputs provided to function: {call.function}")
    return [*tensors[: len(single)], tensors[first:]] if listed else tensors[: len(single)]
