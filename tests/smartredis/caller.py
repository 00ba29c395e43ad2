"""This side of the subprocess."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from asim import DataSet

ROOT = Path(__file__).parents[2]


def interpreter() -> Path | None:
    """The Python that has SmartRedis, if there is one."""
    path = Path(os.environ.get("ASIM_SMARTREDIS_PYTHON") or ROOT / ".venv-smartredis/bin/python")
    return path if path.exists() else None


class SmartRedisError(Exception):
    """What SmartRedis raised."""


class SmartRedis:
    """A SmartRedis client in a process of its own; every method is one of its methods."""

    def __init__(self, python: Path, **variables: str) -> None:
        environ = {"PATH": os.defpath, "SR_LOG_LEVEL": "QUIET", "SR_LOG_FILE": os.devnull, "SR_SOCKET_TIMEOUT": "10000",
                   "SR_CONN_TIMEOUT": "5", "SR_CMD_TIMEOUT": "5", **variables}  # fmt: skip
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environ, text=True,
        )  # fmt: skip

    def __getattr__(self, method: str) -> Any:
        return lambda *args: self.call(method, *args)

    def call(self, method: str, *args: Any) -> Any:
        """Call a method there."""
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([method, pack(args)]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        answer = json.loads(line or '{"error": "SmartRedis has died"}')
        if "error" in answer:
            raise SmartRedisError(answer["error"])
        return unpack(answer["result"])

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


def pack(value: Any) -> Any:
    """A value as JSON can have it."""
    if isinstance(value, np.ndarray):
        return {"array": base64.b64encode(value.tobytes()).decode(), "dtype": value.dtype.name, "shape": value.shape}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, DataSet):
        fields = [(name, pack(content(value, name))) for name in value.get_metadata_field_names()]
        tensors = [(name, pack(value.get_tensor(name))) for name in value.get_tensor_names()]
        return {"dataset": value.name, "tensors": tensors, "fields": fields}
    return [pack(one) for one in value] if isinstance(value, (list, tuple)) else value


def unpack(value: Any) -> Any:
    """The reverse."""
    if isinstance(value, list):
        return [unpack(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.frombuffer(base64.b64decode(value["array"]), value["dtype"]).reshape(value["shape"])
    if "bytes" in value:
        return base64.b64decode(value["bytes"])
    if "dict" in value:
        return {name: unpack(one) for name, one in value["dict"]}
    dataset = DataSet(value["dataset"])
    for name, tensor in value["tensors"]:
        dataset.add_tensor(name, unpack(tensor))
    for name, items in value["fields"]:
        items = unpack(items)
        for item in items:
            (dataset.add_meta_string if isinstance(items, list) else dataset.add_meta_scalar)(name, item)
    return dataset


def content(dataset: DataSet, name: str) -> Any:
    """A metadata field, whatever it has."""
    if dataset.get_metadata_field_type(name) is str:
        return dataset.get_meta_strings(name)
    return dataset.get_meta_scalars(name)
