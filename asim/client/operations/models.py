"""Operations on models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, ConfigTypeError, allowed
from ..codec import Arg, Command, command
from ..core import Core
from ..steps import Op, Shards
from .placing import (
    checked_device,
    delete_copies,
    everywhere,
    first_copy,
    get_key,
    gpu_name,
    gpu_names,
    names_of,
    put_key,
    read_file,
    run,
)

BACKENDS = ("TF", "TFLITE", "TORCH", "ONNX")
Names = str | Sequence[str] | None


def set_model(
    core: Core,
    name: str,
    model: bytes,
    backend: str,
    device: str = "CPU",
    batch_size: int = 0,
    min_batch_size: int = 0,
    min_batch_timeout: int = 0,
    tag: str = "",
    inputs: Names = None,
    outputs: Names = None,
) -> Op[None]:
    """Store a model; in a cluster, on every shard.

    :param name: of the model; the put prefix is put before it if models have prefixes.
    :param model: serialized.
    :param backend: TORCH, ONNX, TF or TFLITE.
    :param device: CPU, GPU, CPU:n or GPU:n.
    :param batch_size: the largest number of samples that are run together; 0 = requests are not joined.
    :param min_batch_size: how many samples to wait for.
    :param min_batch_timeout: milliseconds to wait for them at most; 0 = 10 ms.
    :param tag: a word of the user's.
    :param inputs: names of the graph's inputs (TF only).
    :param outputs: names of the graph's outputs (TF only).
    :raises ConfigError: a value is not allowed.
    :raises DatabaseError: the server refused, e.g. because the backend could not load the model.
    """
    data = _checked_bytes(model)
    options = _options(backend, batch_size, min_batch_size, min_batch_timeout, tag, inputs, outputs)
    yield from _store(core, name, data, backend, checked_device(device), options)


def set_model_from_file(
    core: Core,
    name: str,
    model_file: str | Path,
    backend: str,
    device: str = "CPU",
    batch_size: int = 0,
    min_batch_size: int = 0,
    min_batch_timeout: int = 0,
    tag: str = "",
    inputs: Names = None,
    outputs: Names = None,
) -> Op[None]:
    """Store a model that is in a file; the rest is as for ``set_model``.

    :param model_file: read by this process, in a thread.
    :raises MissingFileError: there is no such file.
    """
    model = yield from read_file(model_file)
    batch = (batch_size, min_batch_size, min_batch_timeout)
    yield from set_model(core, name, model, backend, device, *batch, tag, inputs, outputs)


def set_model_multigpu(
    core: Core,
    name: str,
    model: bytes,
    backend: str,
    first_gpu: int,
    num_gpus: int,
    batch_size: int = 0,
    min_batch_size: int = 0,
    min_batch_timeout: int = 0,
    tag: str = "",
    inputs: Names = None,
    outputs: Names = None,
) -> Op[None]:
    """Store a model once for each of several GPUs, and once for any; the rest is as for ``set_model``.

    :param first_gpu: number of the first GPU, from 0.
    :param num_gpus: how many GPUs.
    """
    data = _checked_bytes(model)
    options = _options(backend, batch_size, min_batch_size, min_batch_timeout, tag, inputs, outputs)
    for copy, device in [*gpu_names(name, first_gpu, num_gpus), (name, "GPU")]:
        yield from _store(core, copy, data, backend, device, options)


def set_model_from_file_multigpu(
    core: Core,
    name: str,
    model_file: str | Path,
    backend: str,
    first_gpu: int,
    num_gpus: int,
    batch_size: int = 0,
    min_batch_size: int = 0,
    min_batch_timeout: int = 0,
    tag: str = "",
    inputs: Names = None,
    outputs: Names = None,
) -> Op[None]:
    """Store a model that is in a file for several GPUs; see ``set_model_multigpu``.

    :param model_file: read by this process, in a thread.
    :raises MissingFileError: there is no such file.
    """
    model = yield from read_file(model_file)
    batch = (batch_size, min_batch_size, min_batch_timeout)
    yield from set_model_multigpu(core, name, model, backend, first_gpu, num_gpus, *batch, tag, inputs, outputs)


def get_model(core: Core, name: str) -> Op[bytes]:
    """Fetch a model, serialized.

    :param name: of the model; the get prefix is put before it if models have prefixes.
    :raises KeyNotFoundError: there is none of this name.
    """
    key = yield from first_copy(get_key(core, name))
    reply: Any = yield command("AI.MODELGET", key, b"BLOB")
    return b"".join(reply) if isinstance(reply, list) else bytes(reply)


def run_model(core: Core, name: str, inputs: Names = None, outputs: Names = None) -> Op[None]:
    """Run a model on tensors that are in the database; returns when its outputs are there too.

    :param name: of the model.
    :param inputs: names of the tensors that it gets, looked for with the get prefix.
    :param outputs: names under which its results are stored, with the put prefix.
    :raises KeyNotFoundError: the model or an input is not there.
    :raises DatabaseError: the run failed; the text is the backend's.
    :raises DatabaseTimeout: waiting and running took longer than the client's timeout for models.

    Cancellation: a run that has begun goes on in the server, and its outputs are stored; in a cluster, copies of tensors
    that were made for it (their keys end in ``.TMP``) may stay, and the outputs do not reach their names.
    """

    def make(key: bytes, sources: Sequence[bytes], targets: Sequence[bytes]) -> Command:
        words: list[Arg] = [b"INPUTS", len(sources), *sources, b"OUTPUTS", len(targets), *targets]
        return command("AI.MODELEXECUTE", key, *words, b"TIMEOUT", core.options.model_timeout_ms, alone=True)

    yield from run(core, name, names_of(inputs), names_of(outputs), make)


def run_model_multigpu(
    core: Core,
    name: str,
    offset: int,
    first_gpu: int,
    num_gpus: int,
    inputs: Names = None,
    outputs: Names = None,
) -> Op[None]:
    """Run one of the copies that ``set_model_multigpu`` stored; the rest is as for ``run_model``.

    :param offset: which: a rank's number, say; copies are taken in turn.
    :param first_gpu: as when it was stored.
    :param num_gpus: as when it was stored.
    """
    yield from run_model(core, gpu_name(name, offset, first_gpu, num_gpus), inputs, outputs)


def delete_model(core: Core, name: str) -> Op[None]:
    """Remove a model; in a cluster, from every shard.

    :param name: of the model.
    :raises KeyNotFoundError: there is none of this name.
    """
    yield from everywhere(get_key(core, name), lambda key: command("AI.MODELDEL", key, again=False))


def delete_model_multigpu(core: Core, name: str, first_gpu: int, num_gpus: int) -> Op[None]:
    """Remove all copies that ``set_model_multigpu`` stored.

    :param first_gpu: as when it was stored.
    :param num_gpus: as when it was stored.
    :raises KeyNotFoundError: there is no copy for any GPU.
    """
    yield from delete_copies(core, "AI.MODELDEL", name, first_gpu, num_gpus)


def model_exists(core: Core, name: str) -> Op[bool]:
    """Whether there is a model or a script.

    :param name: of the model.
    """
    key = yield from first_copy(get_key(core, name))
    return bool((yield command("EXISTS", key)))


def set_model_chunk_size(core: Core, chunk_size: int) -> Op[None]:
    """Set the size of the pieces in which models are sent, here and in the server (in a cluster, in all).

    :param chunk_size: bytes, above 0.
    """
    if chunk_size < 1:
        raise ConfigError(allowed("chunk_size", chunk_size, "must be at least 1 byte"))
    addresses = dict.fromkeys(shard.address for shard in (yield Shards()))
    words = ("AI.CONFIG MODEL_CHUNK_SIZE", None, chunk_size)
    yield [command(*words, address=address) for address in addresses] or [command(*words)]
    core.chunk_size = chunk_size


def _store(core: Core, name: str, data: memoryview, backend: str, device: str, options: Sequence[Arg]) -> Op[None]:
    """Store one model on every shard."""
    chunks = [data[start : start + core.chunk_size] for start in range(0, len(data), core.chunk_size)]
    words: list[Arg] = [backend.upper(), device, *options, b"BLOB", *chunks]
    yield from everywhere(put_key(core, name), lambda key: command("AI.MODELSTORE", key, *words, alone=True))


def _options(
    backend: str, batch: int, min_batch: int, min_timeout: int, tag: str, inputs: Names, outputs: Names
) -> list[Arg]:
    """The options of AI.MODELSTORE in their fixed order; zeros are left out.

    :raises ConfigError: they do not fit together.
    """
    if backend.upper() not in BACKENDS:
        raise ConfigError(allowed("backend", backend, f"must be one of {', '.join(BACKENDS)}"))
    if (not batch and (min_batch or min_timeout)) or (min_timeout and not min_batch):
        text = "min_batch_size needs batch_size, and min_batch_timeout needs min_batch_size"
        raise ConfigError(
            allowed("batch_size, min_batch_size, min_batch_timeout", (batch, min_batch, min_timeout), text)
        )
    if backend.upper() != "TF" and (inputs or outputs):
        raise ConfigError(allowed("inputs, outputs", (inputs, outputs), "only TF models have them"))
    words: list[Arg] = ["TAG", tag] if tag else []
    numbers = {"BATCHSIZE": batch, "MINBATCHSIZE": min_batch, "MINBATCHTIMEOUT": min_timeout}
    words += [word for name, number in numbers.items() if number for word in (name, number)]
    for word, names in (("INPUTS", names_of(inputs)), ("OUTPUTS", names_of(outputs))):
        words += [word, len(names), *names] if names else []
    return words


def _checked_bytes(model: bytes) -> memoryview:
    """A serialized model as bytes without a copy."""
    if not isinstance(model, (bytes, bytearray, memoryview)):
        raise ConfigTypeError(allowed("model", type(model).__name__, "must be bytes"))
    if not len(model):
        raise ConfigError(allowed("model", model, "must not be empty"))
    return memoryview(model).cast("B")
