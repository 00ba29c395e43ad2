"""Training data for PyTorch's loaders: datasets on the blocking face, also in the processes of loader workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..errors import ConfigError, ConfigTypeError, allowed
from .download import SyncDataDownloader
from .extras import require
from .info import DataInfo

torch: Any = require("torch", "torch")
loading: Any = require("torch.utils.data", "torch")


class StaticDataGenerator(SyncDataDownloader, loading.IterableDataset):  # type: ignore[misc]
    """The samples that are there when the first pass begins, as a dataset for :class:`DataLoader`.

    A pass gives batches of tensors: samples, or the pair of samples and targets. Targets that are classes stay numbers,
    as torch's losses want them. The first pass waits for one batch, in each worker.

    :param data_info_or_list_name: what to read.
    :param batch_size: samples in a batch.
    :param shuffle: whether each pass has an order of its own.
    :param options: the others of ``SyncDataDownloader``, except ``dynamic``.
    """

    DYNAMIC = False
    _parent = 0
    """The process of the loader, in one of its workers."""

    def __init__(
        self,
        data_info_or_list_name: DataInfo | str,
        batch_size: int = 32,
        shuffle: bool = True,
        *args: Any,
        **options: Any,
    ) -> None:
        SyncDataDownloader.__init__(self, data_info_or_list_name, batch_size, self.DYNAMIC, shuffle, *args, **options)

    def __iter__(self) -> Iterator[Any]:
        """One epoch."""
        for batch in super().__iter__():
            yield tuple(map(torch.from_numpy, batch)) if isinstance(batch, tuple) else torch.from_numpy(batch)

    def _has(self, count: int) -> bool:
        if self._parent and os.getppid() != self._parent:
            raise SystemExit("the process that these data are for has ended")  # nobody else would end this wait
        return super()._has(count)


class DynamicDataGenerator(StaticDataGenerator):
    """The samples that are there when a pass begins, those that came since the last one too.

    It is made as the other.
    """

    DYNAMIC = True


class DataLoader(loading.DataLoader):  # type: ignore[misc]
    """PyTorch's loader for these datasets: its workers deal the entries of the list out among themselves.

    With ``num_workers`` each worker is a replica with connections of its own, and lives until the loader is gone: what
    it has read stays there. In a distributed run give the dataset the rank of the process as ``replica_rank``; workers
    divide its share further.

    :param dataset: a :class:`StaticDataGenerator` or :class:`DynamicDataGenerator`.
    :param options: of ``torch.utils.data.DataLoader``; ``batch_size`` must be None, as batches come from the dataset.
    :raises ConfigError: there is a ``batch_size``, or (:class:`ConfigTypeError`) it is another dataset.
    """

    def __init__(self, dataset: Any, **options: Any) -> None:
        if not isinstance(dataset, StaticDataGenerator):
            what = "must be a StaticDataGenerator or DynamicDataGenerator"
            raise ConfigTypeError(allowed("dataset", type(dataset).__name__, what))
        if options.pop("batch_size", None) is not None:
            raise ConfigError(allowed("batch_size", "a number", "must be None: the dataset gives whole batches"))
        if options.get("num_workers"):
            options.setdefault("persistent_workers", True)
            options["worker_init_fn"] = partial(split, also=options.get("worker_init_fn"))
        super().__init__(dataset, batch_size=None, **options)


def split(worker: int, also: Callable[[int], object] | None = None) -> None:
    """Begin a loader's worker: its copy of the dataset reads its own share.

    :param worker: its number.
    :param also: what the user wants done.
    """
    info = loading.get_worker_info()
    dataset = info.dataset
    dataset._parent = os.getppid()
    dataset.set_replica(dataset.replica_rank * info.num_workers + info.id, dataset.num_replicas * info.num_workers)
    if also is not None:
        also(worker)
