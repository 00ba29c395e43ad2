"""Runs under SmartRedis' own interpreter: reads calls as JSON lines, makes them, writes the results as JSON lines."""

import base64
import json
import os
import sys

import numpy as np
from smartredis import Client, Dataset

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the library prints on stdout


def pack(value):
    """A value as JSON can have it."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": value.dtype.name, "shape": value.shape}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Dataset):
        return {"dataset": value.get_name(), "tensors": [[n, pack(value.get_tensor(n))] for n in value.get_tensor_names()],
                "fields": [[n, pack(field(value, n))] for n in value.get_metadata_field_names()]}  # fmt: skip
    if type(value).__name__ == "PyDataset":
        return pack(Dataset.from_pybind(value))
    if isinstance(value, (list, tuple)):
        return [pack(one) for one in value]
    if isinstance(value, dict):
        return {"dict": [[name, pack(one)] for name, one in value.items()]}
    return value.item() if isinstance(value, np.generic) else value


def field(dataset, name):
    """A metadata field, whatever it has."""
    if dataset.get_metadata_field_type(name) is str:
        return dataset.get_meta_strings(name)
    return dataset.get_meta_scalars(name)


def unpack(value):
    """The reverse."""
    if isinstance(value, list):
        return [unpack(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = np.frombuffer(base64.b64decode(value["array"]), value["dtype"])
        return array.reshape(value["shape"]).copy()
    if "bytes" in value:
        return base64.b64decode(value["bytes"])
    return globals()[value["function"]] if "function" in value else made(value)


def f(x):
    """What callers name where a method wants a function: its source must be in a file."""
    return x


def made(value):
    """A dataset."""
    dataset = Dataset(value["dataset"])
    for name, tensor in value["tensors"]:
        dataset.add_tensor(name, unpack(tensor))
    for name, items in value["fields"]:
        items = unpack(items)
        for item in items:
            (dataset.add_meta_string if isinstance(items, list) else dataset.add_meta_scalar)(name, item)
    return dataset


def main():
    """Serve until stdin ends."""
    client = Client()
    for line in sys.stdin:
        method, args = json.loads(line)
        try:
            answer = {"result": pack(getattr(client, method)(*unpack(args)))}
        except Exception as exc:  # noqa: BLE001  (the caller's process raises it)
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


if __name__ == "__main__":
    main()
