"""Training data for Keras: datasets on the blocking face, that ``model.fit`` takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .download import SyncDataDownloader
from .extras import require
from .info import DataInfo
from .passes import Batch

keras: Any = require("keras", "tensorflow")


class StaticDataGenerator(SyncDataDownloader, keras.utils.PyDataset):  # type: ignore[misc]
    """The samples that are there when this is made, as a dataset for ``model.fit``; making it waits for one batch.

    Targets are one-hot vectors if the number of classes is known.

    :param data_info_or_list_name: what to read.
    :param batch_size: samples in a batch.
    :param shuffle: whether each epoch has an order of its own.
    :param init_samples: whether to wait at once; otherwise call ``init_samples()``.
    :param options: the others of ``SyncDataDownloader``, except ``dynamic``.
    """

    DYNAMIC = False

    def __init__(
        self,
        data_info_or_list_name: DataInfo | str,
        batch_size: int = 32,
        shuffle: bool = True,
        *args: Any,
        init_samples: bool = True,
        **options: Any,
    ) -> None:
        keras.utils.PyDataset.__init__(self)
        SyncDataDownloader.__init__(self, data_info_or_list_name, batch_size, self.DYNAMIC, shuffle, *args, **options)
        if init_samples:
            self.init_samples()

    def __getitem__(self, index: int) -> Any:
        """A batch of this epoch."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._batch(self._order, index)

    def on_epoch_end(self) -> None:
        """Make a new order, with what is new if dynamic. Keras calls it."""
        self.update_data()

    def _batch(self, order: Any, index: int) -> Batch:
        batch = super()._batch(order, index)
        if self.num_classes and self.need_targets and isinstance(batch, tuple):
            return batch[0], np.eye(self.num_classes, dtype=np.float32)[batch[1].astype(np.int64).reshape(-1)]
        return batch


class DynamicDataGenerator(StaticDataGenerator):
    """The same, and what has come during an epoch is among what the next one takes its batches from.

    Keras decides when ``fit`` begins how many batches each of its epochs has. So let each ``fit`` have one epoch, in a
    loop, where epochs are to become longer with the data.
    """

    DYNAMIC = True
