"""Operations on datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import ConfigTypeError, allowed
from ..codec import Command, Tensor, command, from_array, to_array, to_tensor
from ..core import Core
from ..dataset import COMPLETE, DataSet, decode_metadata, encode_metadata, with_tensors
from ..keys import dataset_key, dataset_name, to_bytes
from ..steps import Op
from .tensors import get, put


def put_dataset(core: Core, dataset: DataSet) -> Op[None]:
    """Store a dataset: its metadata and all of its tensors, in one round trip.

    Readers see it when it is complete. Tensors of an older dataset of the same name that this one has not stay stored,
    though no longer part of it.

    :param dataset: it must not be changed until this has returned. The put prefix is put before its name.
    :raises ConfigTypeError: it is no :class:`DataSet`.

    Cancellation: it may be stored in part; then it is not there for readers.
    """
    base = put_base(core, checked(dataset).name)
    tensors = [(name, from_array(dataset.get_tensor(name), name)) for name in dataset.get_tensor_names()]
    yield writing(base, encode_metadata(dataset), tensors)


def get_dataset(core: Core, name: str) -> Op[DataSet]:
    """Fetch a dataset, in two round trips.

    :param name: of the dataset; the get prefix is put before it.
    :raises KeyNotFoundError: there is none of this name, or it is not complete yet.
    """
    return (yield from fetch([get_base(core, name)]))[0]


def delete_dataset(core: Core, name: str) -> Op[None]:
    """Remove a dataset with all of its tensors.

    :param name: of the dataset; the get prefix is put before it.
    :raises KeyNotFoundError: there is none of this name.
    """
    base = get_base(core, name)
    _, tensors = decode_metadata(name, (yield metadata(base)))
    yield command("UNLINK", base + b".meta", *(part(base, tensor) for tensor in tensors))


def copy_dataset(core: Core, src_name: str, dest_name: str) -> Op[None]:
    """Copy a dataset, through this process.

    :param src_name: looked for with the get prefix.
    :param dest_name: stored with the put prefix.
    :raises KeyNotFoundError: there is none of the first name.
    """
    source = get_base(core, src_name)
    dataset, names = decode_metadata(src_name, (yield metadata(source)))
    tensors = yield from fetch_tensors([(source, name) for name in names])
    fields = encode_metadata(with_tensors(dataset, dict.fromkeys(names)))  # type: ignore[arg-type]
    yield writing(put_base(core, DataSet(dest_name).name), fields, list(zip(names, tensors, strict=True)))


def rename_dataset(core: Core, old_name: str, new_name: str) -> Op[None]:
    """Rename a dataset: copy it, then remove the old one. The same name again does nothing.

    :param old_name: looked for with the get prefix.
    :param new_name: stored with the put prefix.
    :raises KeyNotFoundError: there is none of the old name.

    Cancellation: both may exist.
    """
    if get_base(core, old_name) == put_base(core, new_name):
        return
    yield from copy_dataset(core, old_name, new_name)
    yield from delete_dataset(core, old_name)


def dataset_exists(core: Core, name: str) -> Op[bool]:
    """Whether there is a dataset that is complete.

    :param name: of the dataset; the get prefix is put before it.
    """
    return bool((yield command("HEXISTS", get_base(core, name) + b".meta", COMPLETE)))


# -- shared with the lists of datasets


def checked(dataset: DataSet) -> DataSet:
    """The argument, if it is a dataset."""
    if not isinstance(dataset, DataSet):
        raise ConfigTypeError(allowed("dataset", type(dataset).__name__, "must be an asim.DataSet"))
    return dataset


def put_base(core: Core, name: str) -> bytes:
    """The base key under which a dataset is stored."""
    return dataset_key(core.prefixes.put(name, core.prefixes.datasets), name)


def get_base(core: Core, name: str) -> bytes:
    """The base key under which a dataset is looked for."""
    return dataset_key(core.prefixes.get(name, core.prefixes.datasets), name)


def metadata(base: bytes) -> Command:
    """The command that fetches a dataset's metadata."""
    return command("HGETALL", base + b".meta")


def part(base: bytes, tensor: str) -> bytes:
    """The key of one of a dataset's tensors."""
    return base + b"." + to_bytes(tensor)


def writing(base: bytes, fields: Sequence[bytes], tensors: Iterable[tuple[str, Tensor]]) -> list[Command]:
    """The commands that store a dataset; what marks it as complete goes and comes first and last."""
    meta = base + b".meta"
    commands = [command("DEL", meta)]
    if fields:
        commands.append(command("HMSET", meta, *fields))
    commands += [put(part(base, name), tensor) for name, tensor in tensors]
    return [*commands, command("HSET", meta, COMPLETE, b"1")]


def fetch(bases: Sequence[bytes]) -> Op[list[DataSet]]:
    """Datasets by their base keys: all metadata in one round trip, all tensors in the next."""
    replies = yield [metadata(base) for base in bases]
    found = [decode_metadata(dataset_name(base), reply) for base, reply in zip(bases, replies, strict=True)]
    wanted = [(base, name) for base, (_, names) in zip(bases, found, strict=True) for name in names]
    tensors = iter((yield from fetch_tensors(wanted)))
    return [
        with_tensors(dataset, {name: to_array(next(tensors), f"AI.TENSORGET {name}") for name in names})
        for dataset, names in found
    ]


def fetch_tensors(wanted: Sequence[tuple[bytes, str]]) -> Op[list[Tensor]]:
    """Tensors of datasets, in one round trip."""
    commands = [get(part(base, name)) for base, name in wanted]
    replies: list[Any] = yield commands
    return [to_tensor(reply, one) for one, reply in zip(commands, replies, strict=True)]
