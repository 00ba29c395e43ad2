"""ONNX models, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import WRONG_INPUTS, BackendError, Threads, cuda_index, require

QUIET = 3
"""onnxruntime's level of logging: errors only."""
SPINNING = "0"
"""Threads that wait busily ("1") save up to a quarter of a long run on idle CPUs, and take them from the simulation and the
server for tens of milliseconds after it."""


def prepare() -> Any:
    """Import onnxruntime.

    :raises BackendError: it is not installed.
    """
    return require("ONNX", "onnxruntime")


def load(blob: Any, device: str, inputs: Sequence[str], outputs: Sequence[str], threads: Threads) -> Session:
    """A model of the ONNX format."""
    ort = prepare()
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads, options.inter_op_num_threads = threads.intra, threads.inter
    options.add_session_config_entry("session.intra_op.allow_spinning", SPINNING)
    session = ort.InferenceSession(bytes(blob), options, providers=_providers(ort, device))
    return Session(session, ort.RunOptions())


def _providers(ort: Any, device: str) -> list[Any]:
    index = cuda_index(device)
    if index is None:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BackendError("ERR GPU requested but onnxruntime couldn't find CUDA: pip install onnxruntime-gpu")
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]


class Session:
    """A model."""

    def __init__(self, session: Any, options: Any) -> None:
        self._session, self._options = session, options  # else it makes new options for each run
        # without the checks that are done here, and a dictionary: a tenth of what a tiny model costs
        self._run = getattr(session, "_sess", session).run
        self._names = [item.name for item in session.get_inputs()]
        self.inputs: int | None = len(self._names)
        self._results = [item.name for item in session.get_outputs()]
        self.outputs: int | None = len(self._results)

    def run(self, arrays: Sequence[Any]) -> Sequence[Any]:
        """Run it."""
        if len(arrays) != self.inputs:
            raise BackendError(WRONG_INPUTS)
        found: Sequence[Any] = self._run(self._results, dict(zip(self._names, arrays)), self._options)  # noqa: B905  (it takes time)
        return found
