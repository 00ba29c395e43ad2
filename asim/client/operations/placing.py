"""Where models and scripts are: one copy, or one on every shard of a cluster; and how they are run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DatabaseError, DatabaseTimeout, KeyNotFoundError, MissingFileError, allowed
from ..cluster import Shard
from ..codec import Command, command, to_tensor
from ..core import Core
from ..keys import shard_key, slot_of
from ..steps import Blocking, Op, Shards
from .tensors import get, put

DEVICES = ("CPU", "GPU")


def read_file(file: str | Path) -> Op[bytes]:
    """A file's content.

    :raises MissingFileError: there is no such file.
    """
    content: bytes = yield Blocking(lambda: _read(file))
    return content


def _read(file: str | Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except FileNotFoundError as exc:
        raise MissingFileError(f"there is no file {str(file)!r}") from exc


def checked_device(device: str) -> str:
    """A device's name as the server wants it."""
    name = device.upper()
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or bool(colon) != number.isdecimal():
        raise ConfigError(allowed("device", device, "must be CPU, GPU, CPU:n or GPU:n"))
    return name


def names_of(names: str | Sequence[str] | None) -> list[str]:
    """One name, several or none as a list."""
    return [names] if isinstance(names, str) else list(names or ())


def gpu_names(name: str, first_gpu: int, num_gpus: int) -> list[tuple[str, str]]:
    """The names of the copies for each GPU, with their devices.

    :raises ConfigError: the numbers make no sense.
    """
    if first_gpu < 0 or num_gpus < 1:
        raise ConfigError(allowed("first_gpu, num_gpus", (first_gpu, num_gpus), "must be at least 0 and 1"))
    return [(f"{name}.GPU:{gpu}", f"GPU:{gpu}") for gpu in range(first_gpu, first_gpu + num_gpus)]


def gpu_name(name: str, offset: int, first_gpu: int, num_gpus: int) -> str:
    """The name of the copy that a caller with this offset uses."""
    return gpu_names(name, first_gpu, num_gpus)[offset % num_gpus][0]


def put_key(core: Core, name: str) -> bytes:
    """The key under which a model or script is stored."""
    return core.prefixes.put(name, core.prefixes.models)


def get_key(core: Core, name: str) -> bytes:
    """The key under which a model or script is looked for."""
    return core.prefixes.get(name, core.prefixes.models)


def everywhere(key: bytes, make: Callable[[bytes], Command]) -> Op[list[Any]]:
    """One command for every copy, together."""
    shards: Sequence[Shard] = yield Shards()
    replies: list[Any] = yield [make(shard_key(shard.tag, key)) for shard in shards] or [make(key)]
    return replies


def first_copy(key: bytes) -> Op[bytes]:
    """The key of the copy that is asked when any will do."""
    shards: Sequence[Shard] = yield Shards()
    return shard_key(shards[0].tag, key) if shards else key


def delete_copies(core: Core, verb: str, name: str, first_gpu: int, num_gpus: int) -> Op[None]:
    """Remove the copies for each GPU, of which some may be missing, and the one for any GPU."""
    for copy, _ in gpu_names(name, first_gpu, num_gpus):
        try:
            yield from everywhere(get_key(core, copy), lambda key: command(verb, key, again=False))
        except KeyNotFoundError:
            continue
    yield from everywhere(get_key(core, name), lambda key: command(verb, key, again=False))


Run = Callable[[bytes, Sequence[bytes], Sequence[bytes]], Command]
"""From the keys of a model or script, of its inputs and of its outputs to the command that runs it."""


def run(core: Core, name: str, inputs: Sequence[str], outputs: Sequence[str], make: Run) -> Op[None]:
    """Run a model or a script.

    In a cluster all keys of a run must be on one shard: the one of the first input is taken, the inputs are copied
    there under names that nobody else has, and the outputs are copied from there to where they belong.

    :raises DatabaseTimeout: the server says that waiting and running took too long.
    """
    key = get_key(core, name)
    sources = [core.prefixes.get(one, core.prefixes.tensors) for one in inputs]
    targets = [core.prefixes.put(one, core.prefixes.tensors) for one in outputs]
    shards: Sequence[Shard] = yield Shards()
    if not shards:
        yield from _run(make(key, sources, targets))
        return
    shard = _shard_of([*sources, *targets], shards)
    copies = [_temporary(core, shard, one) for one in sources]
    results = [_temporary(core, shard, one) for one in targets]
    try:
        yield from _transfer(sources, copies)
        yield from _run(make(shard_key(shard.tag, key), copies, results))
        yield from _transfer(results, targets)
    except Exception:
        yield _removal(copies + results)
        raise
    yield _removal(copies + results)


def _run(one: Command) -> Op[None]:
    """Run it; RedisAI answers that it took too long as if that were a success."""
    try:
        reply = yield one
    except DatabaseError as exc:
        if exc.reply.startswith("ERR TIMEDOUT"):
            raise DatabaseTimeout(str(exc), one.text, exc.reply) from exc
        raise
    if reply == b"TIMEDOUT":
        raise DatabaseTimeout(f"{one.text}: the server gave up before the run began", one.text, "TIMEDOUT")


def _shard_of(keys: Sequence[bytes], shards: Sequence[Shard]) -> Shard:
    """The shard of the first key."""
    slot = slot_of(keys[0]) if keys else 0
    return next(shard for shard in shards if shard.first <= slot <= shard.last)


def _temporary(core: Core, shard: Shard, key: bytes) -> bytes:
    """The key of a tensor for the time of a run; unlike SmartRedis', no other run has it."""
    return shard_key(shard.tag, b"%b.%b.TMP" % (key, core.unique()))


def _transfer(sources: Sequence[bytes], targets: Sequence[bytes]) -> Op[None]:
    """Copy tensors between shards, all at the same time."""
    fetches = [get(source) for source in sources]
    replies: list[Any] = yield fetches
    tensors = [to_tensor(reply, one) for one, reply in zip(fetches, replies, strict=True)]
    yield [put(target, tensor) for target, tensor in zip(targets, tensors, strict=True)]


def _removal(keys: Sequence[bytes]) -> list[Command]:
    """The command that removes keys of one slot, if there are any."""
    return [command("UNLINK", keys[0], *keys[1:])] if keys else []
