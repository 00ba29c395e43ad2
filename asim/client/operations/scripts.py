"""Operations on TorchScript programs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigTypeError, allowed
from ..codec import Command, command
from ..core import Core
from ..keys import to_bytes, to_name
from ..steps import Blocking, Op
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

Names = str | Sequence[str]


def set_script(core: Core, name: str, script: str, device: str = "CPU") -> Op[None]:
    """Store a script; in a cluster, on every shard.

    :param name: of the script; the put prefix is put before it if models have prefixes.
    :param script: TorchScript source.
    :param device: CPU, GPU, CPU:n or GPU:n.
    :raises DatabaseError: the server refused, e.g. because it does not compile.
    """
    words = (checked_device(device), b"SOURCE", to_bytes(script))
    yield from everywhere(put_key(core, name), lambda key: command("AI.SCRIPTSET", key, *words, alone=True))


def set_script_from_file(core: Core, name: str, file: str | Path, device: str = "CPU") -> Op[None]:
    """Store a script that is in a file; see ``set_script``.

    :param file: UTF-8 text, read by this process, in a thread.
    :raises MissingFileError: there is no such file.
    """
    yield from set_script(core, name, to_name((yield from read_file(file))), device)


def set_script_multigpu(core: Core, name: str, script: str, first_gpu: int, num_gpus: int) -> Op[None]:
    """Store a script once for each of several GPUs, and once for any.

    :param script: TorchScript source.
    :param first_gpu: number of the first GPU, from 0.
    :param num_gpus: how many GPUs.
    """
    for copy, device in [*gpu_names(name, first_gpu, num_gpus), (name, "GPU")]:
        yield from set_script(core, copy, script, device)


def set_script_from_file_multigpu(core: Core, name: str, file: str | Path, first_gpu: int, num_gpus: int) -> Op[None]:
    """Store a script that is in a file for several GPUs; see ``set_script_multigpu``.

    :param file: UTF-8 text, read by this process, in a thread.
    :raises MissingFileError: there is no such file.
    """
    yield from set_script_multigpu(core, name, to_name((yield from read_file(file))), first_gpu, num_gpus)


def set_function(core: Core, name: str, function: Callable[..., Any], device: str = "CPU") -> Op[None]:
    """Store the source of a Python function as a script; see ``set_script``.

    :param function: written so that TorchScript can compile it, in a file that still exists.
    :raises ConfigTypeError: it is no function, or its source is not to be had.
    """
    yield from set_script(core, name, (yield from _source(function)), device)


def set_function_multigpu(
    core: Core, name: str, function: Callable[..., Any], first_gpu: int, num_gpus: int
) -> Op[None]:
    """Store the source of a Python function for several GPUs; see ``set_script_multigpu`` and ``set_function``."""
    yield from set_script_multigpu(core, name, (yield from _source(function)), first_gpu, num_gpus)


def get_script(core: Core, name: str) -> Op[str]:
    """Fetch a script's source.

    :param name: of the script; the get prefix is put before it if models have prefixes.
    :raises KeyNotFoundError: there is none of this name.
    """
    key = yield from first_copy(get_key(core, name))
    return to_name((yield command("AI.SCRIPTGET", key, b"SOURCE")))


def run_script(core: Core, name: str, fn_name: str, inputs: Names, outputs: Names) -> Op[None]:
    """Call a function of a script on tensors that are in the database; returns when its results are there too.

    :param name: of the script.
    :param fn_name: of the function in it.
    :param inputs: names of the tensors that it gets, looked for with the get prefix.
    :param outputs: names under which its results are stored, with the put prefix.
    :raises KeyNotFoundError: the script or an input is not there.
    :raises DatabaseError: the run failed; the text is the backend's.

    Cancellation: as for ``run_model``.
    """

    def make(key: bytes, sources: Sequence[bytes], targets: Sequence[bytes]) -> Command:
        return command("AI.SCRIPTRUN", key, fn_name, b"INPUTS", *sources, b"OUTPUTS", *targets, alone=True)

    yield from run(core, name, names_of(inputs), names_of(outputs), make)


def run_script_multigpu(
    core: Core, name: str, fn_name: str, inputs: Names, outputs: Names, offset: int, first_gpu: int, num_gpus: int
) -> Op[None]:
    """Call a function of one of the copies that ``set_script_multigpu`` stored; the rest is as for ``run_script``.

    :param offset: which: a rank's number, say; copies are taken in turn.
    :param first_gpu: as when it was stored.
    :param num_gpus: as when it was stored.
    """
    yield from run_script(core, gpu_name(name, offset, first_gpu, num_gpus), fn_name, inputs, outputs)


def delete_script(core: Core, name: str) -> Op[None]:
    """Remove a script; in a cluster, from every shard.

    :param name: of the script.
    :raises KeyNotFoundError: there is none of this name.
    """
    yield from everywhere(get_key(core, name), lambda key: command("AI.SCRIPTDEL", key, again=False))


def delete_script_multigpu(core: Core, name: str, first_gpu: int, num_gpus: int) -> Op[None]:
    """Remove all copies that ``set_script_multigpu`` stored.

    :param first_gpu: as when it was stored.
    :param num_gpus: as when it was stored.
    :raises KeyNotFoundError: there is no copy for any GPU.
    """
    yield from delete_copies(core, "AI.SCRIPTDEL", name, first_gpu, num_gpus)


def _source(function: Callable[..., Any]) -> Op[str]:
    """The text of a function, without what it is indented by."""
    if not callable(function):
        raise ConfigTypeError(allowed("function", function, "must be a function"))
    source: str = yield Blocking(lambda: _read(function))
    return source


def _read(function: Callable[..., Any]) -> str:
    try:
        return inspect.cleandoc("\n" + inspect.getsource(function))
    except (OSError, TypeError) as exc:
        raise ConfigTypeError(allowed("function", function, "must have its source in a file")) from exc
