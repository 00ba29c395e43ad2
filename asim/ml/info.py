"""What those who write training data tell those who read them."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from typing import Any, overload

from ..client.client import Client
from ..client.codec import command
from ..client.core import Core
from ..client.dataset import DataSet, decode_metadata
from ..client.keys import dataset_key, dataset_name
from ..client.operations.datasets import get_base, put_dataset
from ..client.steps import Each, Op
from ..client.sync import SyncClient
from ..errors import ConfigError, ConfigTypeError, KeyNotFoundError, allowed

_log = logging.getLogger("asim.ml")


class DataInfo:
    """Names in the datasets of one list: which tensor has the samples, which the targets, and how many classes.

    It is stored beside the list, as the dataset ``<list_name>_info``; SmartSim reads and writes the same.

    :param list_name: the aggregation list whose datasets are the batches.
    :param sample_name: the tensor of each dataset that has the samples.
    :param target_name: the tensor that has the targets; None or empty: there are none. The name of the samples: they are their own targets.
    :param num_classes: into how many classes the targets fall; None where they are no classes.
    :raises ConfigError: the name of the list or of the samples is empty, or the number of classes is below 1.
    """

    def __init__(
        self,
        list_name: str,
        sample_name: str = "samples",
        target_name: str | None = "targets",
        num_classes: int | None = None,
    ) -> None:
        for field, name in (("list_name", list_name), ("sample_name", sample_name)):
            if not isinstance(name, str) or not name:
                raise ConfigError(allowed(field, name, "must be a string that is not empty"))
        if num_classes is not None and int(num_classes) < 1:
            raise ConfigError(allowed("num_classes", num_classes, "must be at least 1, or None"))
        self.list_name, self.sample_name, self.target_name = list_name, sample_name, target_name or None
        self.num_classes = None if num_classes is None else int(num_classes)

    def __repr__(self) -> str:
        return f"DataInfo({self.list_name!r}, {self.sample_name!r}, {self.target_name!r}, {self.num_classes!r})"

    @property
    def name(self) -> str:
        """Of the dataset that it is stored as."""
        return f"{self.list_name}_info"

    @overload
    def publish(self, client: Client) -> Coroutine[Any, Any, None]: ...
    @overload
    def publish(self, client: SyncClient) -> None: ...
    def publish(self, client: Client | SyncClient) -> Any:
        """Store it; to be awaited if the client is an async one.

        :param client: its put prefix is put before the name.
        """
        return client._run(self._publish(client._core))

    @overload
    def download(self, client: Client) -> Coroutine[Any, Any, None]: ...
    @overload
    def download(self, client: SyncClient) -> None: ...
    def download(self, client: Client | SyncClient) -> Any:
        """Take over what is stored; to be awaited if the client is an async one.

        Where nothing is stored everything stays as it is, with a warning in the log.

        :param client: its get prefix is put before the name.
        """
        return client._run(self._download([get_base(client._core, self.name)]))

    def _publish(self, core: Core) -> Op[None]:
        dataset = DataSet(self.name)
        dataset.add_meta_string("sample_name", self.sample_name)
        if self.target_name:
            dataset.add_meta_string("target_name", self.target_name)
        if self.num_classes:
            dataset.add_meta_scalar("num_classes", self.num_classes)
        yield from put_dataset(core, dataset)

    def _download(self, bases: Sequence[bytes]) -> Op[bool]:
        """Take over the first that is stored; whether there was one."""
        for base in bases:
            (reply,) = yield Each([command("HGETALL", base + b".meta")])
            if isinstance(reply, Exception):
                raise reply
            try:
                self._adopt(decode_metadata(dataset_name(base), reply)[0])
            except KeyNotFoundError:
                continue
            return True
        _log.warning("there is no dataset %r: the names are taken to be %r", self.name, self)
        return False

    def _adopt(self, dataset: DataSet) -> None:
        """What is not stored is not there: an info without a target name says that there are no targets."""
        fields = dataset.get_metadata_field_names()
        self.sample_name = dataset.get_meta_strings("sample_name")[0]
        self.target_name = dataset.get_meta_strings("target_name")[0] if "target_name" in fields else None
        self.num_classes = int(dataset.get_meta_scalars("num_classes")[0]) if "num_classes" in fields else None


def info_of(named: object) -> DataInfo:
    """An argument that is an info, or the name of a list.

    :raises ConfigTypeError: it is neither.
    """
    if isinstance(named, DataInfo):
        return DataInfo(named.list_name, named.sample_name, named.target_name, named.num_classes)
    if not isinstance(named, str):
        what = "must be a DataInfo or the name of a list"
        raise ConfigTypeError(allowed("data_info_or_list_name", type(named).__name__, what))
    return DataInfo(named)


def info_bases(keys: Sequence[bytes], name: str) -> list[bytes]:
    """The base keys of a stored info, from its keys with their prefixes."""
    return [dataset_key(key, name) for key in keys]
