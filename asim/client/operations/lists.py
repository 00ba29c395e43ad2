"""Operations on aggregation lists: lists of datasets, which stay where they are."""

from __future__ import annotations

from ..codec import command
from ..core import Core
from ..dataset import DataSet
from ..keys import slot_of
from ..steps import Op
from .datasets import checked, fetch, put_base


def append_to_list(core: Core, list_name: str, dataset: DataSet) -> Op[None]:
    """Append a dataset's name to a list; the list is made if there is none. The dataset itself is not stored by this.

    :param list_name: stored with the put prefix.
    :param dataset: one that is, or will be, put.
    :raises ConfigTypeError: it is no :class:`DataSet`.
    :raises DatabaseConnectionError: the connection was lost, and it may or may not have been appended.
    """
    base = put_base(core, checked(dataset).name)
    yield command("RPUSH", core.prefixes.put(list_name, core.prefixes.lists), base, again=False)


def get_list_length(core: Core, list_name: str) -> Op[int]:
    """How many datasets a list has; 0 if there is none.

    :param list_name: looked for with the get prefix.
    """
    return int((yield command("LLEN", core.prefixes.get(list_name, core.prefixes.lists))))


def get_datasets_from_list(core: Core, list_name: str) -> Op[list[DataSet]]:
    """Fetch all datasets of a list, in three round trips whatever their number.

    :param list_name: looked for with the get prefix.
    :raises KeyNotFoundError: a dataset of the list is not there.
    """
    return (yield from get_dataset_list_range(core, list_name, 0, -1))


def get_dataset_list_range(core: Core, list_name: str, start_index: int, end_index: int) -> Op[list[DataSet]]:
    """Fetch some datasets of a list.

    :param list_name: looked for with the get prefix.
    :param start_index: of the first, from 0; negative numbers count from the end.
    :param end_index: of the last, which is included; -1 is the end of the list.
    :raises KeyNotFoundError: a dataset of the list is not there.
    """
    key = core.prefixes.get(list_name, core.prefixes.lists)
    bases: list[bytes] = yield command("LRANGE", key, int(start_index), int(end_index))
    return (yield from fetch(bases)) if bases else []


def copy_list(core: Core, src_name: str, dest_name: str) -> Op[None]:
    """Copy a list (the names in it, not the datasets); what was the second list is replaced.

    :param src_name: looked for with the get prefix; one that does not exist is an empty list.
    :param dest_name: stored with the put prefix.
    :raises DatabaseConnectionError: the connection was lost, and it may or may not have been copied.
    """
    source = core.prefixes.get(src_name, core.prefixes.lists)
    yield from _copy(source, core.prefixes.put(dest_name, core.prefixes.lists))


def rename_list(core: Core, src_name: str, dest_name: str) -> Op[None]:
    """Rename a list; what was the second list is replaced. At once, unless in a cluster it changes servers.

    :param src_name: looked for with the get prefix.
    :param dest_name: stored with the put prefix.
    :raises KeyNotFoundError: there is no such list (not noticed when it changes servers).
    :raises DatabaseConnectionError: the connection was lost, and it may or may not have been renamed.
    """
    source = core.prefixes.get(src_name, core.prefixes.lists)
    target = core.prefixes.put(dest_name, core.prefixes.lists)
    if not core.options.cluster or slot_of(source) == slot_of(target):
        yield command("RENAME", source, target, again=False)
        return
    yield from _copy(source, target)
    yield command("DEL", source)


def delete_list(core: Core, list_name: str) -> Op[None]:
    """Remove a list, not its datasets; one that is not there is no error.

    :param list_name: looked for with the get prefix.
    """
    yield command("DEL", core.prefixes.get(list_name, core.prefixes.lists))


def _copy(source: bytes, target: bytes) -> Op[None]:
    """The entries of one list to another."""
    entries: list[bytes] = yield command("LRANGE", source, 0, -1)
    if source == target:
        return
    commands = [command("DEL", target)]
    if entries:
        commands.append(command("RPUSH", target, *entries, again=False))
    yield commands
