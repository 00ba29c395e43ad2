"""Batches of training data into the database, from a simulation or from the driver."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Generic, Self

from ..client.client import Client
from ..client.codec import Array
from ..client.dataset import DataSet
from ..client.operations.datasets import put_dataset
from ..client.operations.lists import append_to_list
from ..client.steps import Op
from ..client.sync import SyncClient
from ..errors import ConfigError, allowed
from .info import DataInfo
from .source import AnyFace, checked_face, connected, whereabouts

_log = logging.getLogger("asim.ml")


class Upload(Generic[AnyFace]):
    """What both faces of the uploader share.

    Each batch is stored as a dataset ``training_samples_<batch>``, with the rank before the number if there is one, and
    then appended to the list. So whoever reads the list finds whole batches only.

    :param list_name: the aggregation list.
    :param sample_name: the tensor of each dataset that has the samples.
    :param target_name: the tensor that has the targets; None where there are none.
    :param num_classes: into how many classes the targets fall; None where they are no classes.
    :param cluster: whether the database is a cluster; None = what the environment says.
    :param address: of the database; None = what the environment says, as for ``Client.from_env``.
    :param rank: this process's number among those that write to the same list with the same prefix.
    :param verbose: log every batch at level info instead of debug.
    :param client: use this client instead of one of its own; whoever made it closes it.
    :ivar batch_idx: the number of the next batch. A process that goes on where another has ended sets it, or it would
        write over that one's batches.
    :raises ConfigError: a name is empty, or there is no database.
    """

    _kind: type[AnyFace]

    def __init__(
        self,
        list_name: str = "training_data",
        sample_name: str = "samples",
        target_name: str | None = "targets",
        num_classes: int | None = None,
        cluster: bool | None = None,
        address: str | None = None,
        rank: int | None = None,
        verbose: bool = False,
        *,
        client: AnyFace | None = None,
    ) -> None:
        self.info = DataInfo(list_name, sample_name, target_name, num_classes)
        self.rank, self.batch_idx, self.verbose = rank, 0, verbose
        self._owned = client is None
        given = checked_face(client, self._kind)
        self.client: AnyFace = given or connected(self._kind, *whereabouts(address, cluster, None))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.list_name!r}, rank={self.rank}, batch_idx={self.batch_idx})"

    @property
    def list_name(self) -> str:
        """The aggregation list."""
        return self.info.list_name

    @property
    def sample_name(self) -> str:
        """The tensor of each dataset that has the samples."""
        return self.info.sample_name

    @property
    def target_name(self) -> str | None:
        """The tensor of each dataset that has the targets."""
        return self.info.target_name

    @property
    def num_classes(self) -> int | None:
        """Into how many classes the targets fall."""
        return self.info.num_classes

    def _batch(self, samples: Array, targets: Array | None) -> DataSet:
        """The next batch; its number is taken at once, so that tasks may put batches at the same time."""
        words = ["training_samples", *([] if self.rank is None else [str(self.rank)]), str(self.batch_idx)]
        dataset = DataSet("_".join(words))
        dataset.add_tensor(self.sample_name, samples)
        if targets is not None:
            dataset.add_tensor(self._name_for_targets(), targets)
        shapes = [dataset.get_tensor_dims(name) for name in dataset.get_tensor_names()]
        if not shapes[0] or shapes[0][:1] != shapes[-1][:1]:
            what = "must begin with the same number, that of the samples"
            raise ConfigError(allowed("shapes of samples and targets", shapes, what))
        self.batch_idx += 1
        return dataset

    def _name_for_targets(self) -> str:
        if self.target_name and self.target_name != self.sample_name:
            return self.target_name
        raise ConfigError(allowed("target_name", self.target_name, "must be another than sample_name to have targets"))

    def _put(self, dataset: DataSet) -> Op[None]:
        """Store a batch, then tell of it."""
        core = self.client._core
        yield from put_dataset(core, dataset)
        yield from append_to_list(core, self.list_name, dataset)
        _log.log(logging.INFO if self.verbose else logging.DEBUG, "%s is in list %s", dataset.name, self.list_name)


class TrainingDataUploader(Upload[Client]):
    """Writes batches of training data to a list in the database, for asyncio; SmartSim's readers understand it.

    Use it as ``async with TrainingDataUploader(...) as uploader:``, or :meth:`aclose` it. Several tasks may put batches
    at the same time. The arguments are those of both faces; see :class:`SyncTrainingDataUploader` for the blocking one.
    """

    _kind = Client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connections, unless the client was given."""
        if self._owned:
            await self.client.aclose()

    async def publish_info(self) -> None:
        """Store the names and the number of classes for those who read; one process has to do that once."""
        await self.info.publish(self.client)

    async def put_batch(self, samples: Array, targets: Array | None = None) -> None:
        """Store a batch and append it to the list.

        :param samples: array whose first dimension counts samples; the others are the same in all batches.
        :param targets: array whose first dimension is that of the samples.
        :raises ConfigError: their first dimensions differ, or targets have no name.
        :raises DatabaseConnectionError: the connection was lost; the batch may or may not be in the list.

        Cancellation: the batch may be stored and not be in the list; its number is not used again.
        """
        await self.client._run(self._put(self._batch(samples, targets)))


class SyncTrainingDataUploader(Upload[SyncClient]):
    """Writes batches of training data to a list in the database, and blocks: for simulations, MPI ranks and scripts.

    Use it as ``with SyncTrainingDataUploader(...) as uploader:``, or :meth:`close` it.
    """

    _kind = SyncClient

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, unless the client was given."""
        if self._owned:
            self.client.close()

    def publish_info(self) -> None:
        """Store the names and the number of classes for those who read; one process has to do that once."""
        self.info.publish(self.client)

    def put_batch(self, samples: Array, targets: Array | None = None) -> None:
        """Store a batch and append it to the list.

        :param samples: array whose first dimension counts samples; the others are the same in all batches.
        :param targets: array whose first dimension is that of the samples.
        :raises ConfigError: their first dimensions differ, or targets have no name.
        :raises DatabaseConnectionError: the connection was lost; the batch may or may not be in the list.
        """
        self.client._run(self._put(self._batch(samples, targets)))
