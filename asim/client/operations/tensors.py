"""Operations on tensors and on plain keys."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError, allowed
from ..codec import Array, Command, Tensor, command, from_array, to_array, to_tensor
from ..core import Core
from ..keys import slot_of, to_bytes
from ..steps import Op


def get(key: bytes) -> Command:
    """The command that fetches a tensor."""
    return command("AI.TENSORGET", key, b"META", b"BLOB")


def put(key: bytes, tensor: Tensor) -> Command:
    """The command that stores a tensor."""
    data: Any = tensor.data
    return command("AI.TENSORSET", key, tensor.kind, *tensor.shape, b"BLOB", memoryview(data))


def put_tensor(core: Core, name: str, data: Array) -> Op[None]:
    """Store an array under a name; a tensor that was there is replaced.

    :param name: of the tensor; the put prefix is put before it.
    :param data: a numpy array of any shape and memory layout; a copy is made only if it is not in row-major order and
        in the machine's byte order. Its elements: float32, float64, int8/16/32/64, uint8, uint16; also bool and text,
        which SmartRedis cannot read, nor arrays without a dimension. It must not be changed until this has returned.
    :raises ConfigTypeError: it is no array, or its elements have no type on the wire; says which is nearest.
    :raises ConfigError: a dimension is zero, or the name is empty.
    :raises DatabaseError: the server refused.

    Cancellation: the tensor is either not changed or stored whole, as it was when this was called.
    """
    tensor = from_array(data, name)
    yield put(core.prefixes.put(_checked(name), core.prefixes.tensors), tensor)


def get_tensor(core: Core, name: str) -> Op[Array]:
    """Fetch a tensor as an array.

    :param name: of the tensor; the get prefix is put before it.
    :returns: a writable array in row-major order, on the memory in which the reply was received.
    :raises KeyNotFoundError: there is none of this name.
    :raises DatabaseError: something else is stored there.

    Cancellation: the reply is thrown away when it comes.
    """
    fetch = get(core.prefixes.get(name, core.prefixes.tensors))
    return to_array(to_tensor((yield fetch), fetch), fetch)


def delete_tensor(core: Core, name: str) -> Op[None]:
    """Remove a tensor; one that is not there is no error.

    :param name: of the tensor; the get prefix is put before it.
    """
    yield command("UNLINK", core.prefixes.get(name, core.prefixes.tensors))


def rename_tensor(core: Core, old_name: str, new_name: str) -> Op[None]:
    """Rename a tensor; what had the new name is replaced.

    In a cluster, a tensor whose new name belongs to another server travels through this process.

    :param old_name: looked for with the get prefix.
    :param new_name: stored with the put prefix.
    :raises KeyNotFoundError: there is none of the old name.
    :raises DatabaseConnectionError: the connection was lost, and it may or may not have been renamed.

    Cancellation: it may or may not be renamed; in a cluster both names may exist.
    """
    source = core.prefixes.get(old_name, core.prefixes.tensors)
    target = core.prefixes.put(_checked(new_name), core.prefixes.tensors)
    if not core.options.cluster or slot_of(source) == slot_of(target):
        yield command("RENAME", source, target, again=False)
        return
    yield from _copy(source, target)
    yield command("UNLINK", source)


def copy_tensor(core: Core, src_name: str, dest_name: str) -> Op[None]:
    """Copy a tensor, through this process; what had the new name is replaced.

    :param src_name: looked for with the get prefix.
    :param dest_name: stored with the put prefix.
    :raises KeyNotFoundError: there is none of the first name.
    """
    target = core.prefixes.put(_checked(dest_name), core.prefixes.tensors)
    yield from _copy(core.prefixes.get(src_name, core.prefixes.tensors), target)


def tensor_exists(core: Core, name: str) -> Op[bool]:
    """Whether there is a tensor.

    :param name: of the tensor; the get prefix is put before it.
    """
    return bool((yield command("EXISTS", core.prefixes.get(name, core.prefixes.tensors))))


def key_exists(core: Core, key: str) -> Op[bool]:
    """Whether there is a key, whatever it holds.

    :param key: as the server knows it, without any prefix.
    """
    return bool((yield command("EXISTS", to_bytes(key))))


def _copy(source: bytes, target: bytes) -> Op[None]:
    """One key to another; the elements stay as they were received."""
    fetch = get(source)
    yield put(target, to_tensor((yield fetch), fetch))


def _checked(name: str) -> str:
    """A name under which a tensor may be stored."""
    if name == ".meta":
        raise ConfigError(allowed("name", name, "is kept for the metadata of datasets"))
    return name
