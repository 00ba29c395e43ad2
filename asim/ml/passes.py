"""Passes over training data that are in memory: batches, their order, and what may still come. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Generic

import numpy as np

from ..client.codec import Array
from ..errors import ConfigError, DatabaseTimeout, allowed
from .info import DataInfo
from .reading import Reader
from .source import AnyFace, checked_face, connected, whereabouts

_log = logging.getLogger("asim.ml")
Batch = Array | tuple[Array, Array]


class Download(Generic[AnyFace]):
    """What both faces of the downloader share.

    One pass over it is one epoch: ``floor(num_samples / batch_size)`` batches, each an array of samples, or the pair of
    samples and targets. Samples stay in memory in the pieces in which they came.

    :param data_info_or_list_name: what to read. Of a list's name, what the producer has published about it is read too.
    :param batch_size: samples in a batch.
    :param dynamic: whether :meth:`update_data`, and so each pass, looks for new data.
    :param shuffle: whether each pass has an order of its own.
    :param cluster: whether the database is a cluster; None = what the environment says.
    :param address: of the database; None = what the environment says, as for ``Client.from_env``. The producers whose
        lists are read are those in ``SSKEYIN`` either way.
    :param replica_rank: which of the replicas this is, from 0.
    :param num_replicas: among how many the list's entries are dealt out.
    :param verbose: log what arrives at level info instead of debug.
    :param init_samples: whether the first pass waits for one batch; otherwise call ``init_samples()``, or
        it is an error if there is none.
    :param max_fetch_trials: SmartSim's way to say a timeout: so many times ``wait_interval``. Below 1: no timeout.
    :param wait_interval: seconds; see ``max_fetch_trials``. Nothing is asked so rarely: new data are noticed at once.
    :param timeout: seconds that ``init_samples()`` waits at most; None = as ``max_fetch_trials`` says.
    :param seed: for the order; None = another one each time. Replicas with the same seed have different orders.
    :param client: use this client instead of one of its own; whoever made it closes it.
    :raises ConfigError: a value makes no sense, or (:class:`ConfigTypeError`) it is neither an info nor a name.
    """

    _kind: type[AnyFace]

    def __init__(
        self,
        data_info_or_list_name: DataInfo | str,
        batch_size: int = 32,
        dynamic: bool = True,
        shuffle: bool = True,
        cluster: bool | None = None,
        address: str | None = None,
        replica_rank: int = 0,
        num_replicas: int = 1,
        verbose: bool = False,
        init_samples: bool = True,
        max_fetch_trials: int = -1,
        wait_interval: float = 10.0,
        *,
        timeout: float | None = None,
        seed: int | None = None,
        client: AnyFace | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(allowed("batch_size", batch_size, "must be at least 1"))
        self._where = whereabouts(address, cluster, checked_face(client, self._kind))
        self._given = client
        self._made: AnyFace | None = None
        self.batch_size, self.dynamic, self.shuffle, self.verbose = int(batch_size), dynamic, shuffle, verbose
        self._wait_first, self._seed = init_samples, seed
        self._limit = max_fetch_trials * wait_interval if timeout is None and max_fetch_trials > 0 else timeout
        self._named = data_info_or_list_name
        self.set_replica(replica_rank, num_replicas)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.list_name!r}, batch_size={self.batch_size}, num_samples={self.num_samples})"
        )

    def __len__(self) -> int:
        """How many batches one pass has, of what is there."""
        return len(self._order) // self.batch_size

    def __bool__(self) -> bool:
        return True  # also without samples

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which makes a connection of its own."""
        return {**self.__dict__, "_given": None, "_made": None, "_listening": None}

    @property
    def client(self) -> AnyFace:
        """The client that it uses; made when it is first needed."""
        if self._given is None and self._made is None:
            self._made = connected(self._kind, *self._where)
        client = self._given or self._made
        assert client is not None
        return client

    @property
    def list_name(self) -> str:
        """The aggregation list."""
        return self._reader.info.list_name

    @property
    def sample_name(self) -> str:
        """The tensor of each dataset that has the samples."""
        return self._reader.info.sample_name

    @property
    def target_name(self) -> str | None:
        """The tensor of each dataset that has the targets."""
        return self._reader.info.target_name

    @property
    def num_classes(self) -> int | None:
        """Into how many classes the targets fall."""
        return self._reader.info.num_classes

    @property
    def autoencoder(self) -> bool:
        """Whether the samples are their own targets."""
        return self._reader.autoencoder

    @property
    def need_targets(self) -> bool:
        """Whether each batch has targets of its own."""
        return self._reader.need_targets

    @property
    def num_samples(self) -> int:
        """How many samples are there."""
        return len(self._reader.samples)

    @property
    def replica_rank(self) -> int:
        """Which of the replicas this is."""
        return self._reader.replica_rank

    @property
    def num_replicas(self) -> int:
        """Among how many the list's entries are dealt out."""
        return self._reader.num_replicas

    def set_replica(self, rank: int, of: int) -> None:
        """Be this replica from now on, and begin anew: what was read before is forgotten.

        :param rank: from 0.
        :param of: how many there are.
        :raises ConfigError: the rank is not among them.
        """
        if not 0 <= rank < of:
            raise ConfigError(allowed("replica_rank", rank, f"must be from 0 to num_replicas - 1 = {of - 1}"))
        self._reader = Reader(self._named, self._where[1], int(rank), int(of))
        self._order = np.arange(0)
        self._rng = np.random.default_rng(None if self._seed is None else [self._seed, rank])

    def _arrange(self) -> int:
        """An order for all that has come; returns how many samples are new in it."""
        new = self.num_samples - len(self._order)
        self._order = np.arange(self.num_samples)
        if self.shuffle:
            self._rng.shuffle(self._order)
        if new:
            level = logging.INFO if self.verbose else logging.DEBUG
            _log.log(level, "list %s: %d new samples, %d in all", self.list_name, new, self.num_samples)
        return new

    def _batch(self, order: Array, index: int) -> Batch:
        """One batch of an order."""
        samples, targets = self._reader.samples.take(order[index * self.batch_size : (index + 1) * self.batch_size])
        if self.autoencoder:
            return samples, samples
        return samples if targets is None else (samples, targets)

    def _pass(self) -> Iterator[Batch]:
        """All batches of the present order; what arrives meanwhile does not change it.

        :raises ConfigError: there is not one.
        """
        order, count = self._order, len(self)
        if not count:
            what = f"{self.batch_size} are needed for one batch: wait for them with init_samples()"
            raise ConfigError(allowed(f"samples of list {self.list_name}", self.num_samples, what))
        for index in range(count):
            yield self._batch(order, index)

    def _late(self, count: int, seconds: float) -> DatabaseTimeout:
        there = f"{self.num_samples} samples are there, not {count}"
        return DatabaseTimeout(f"list {self.list_name}: {there}, after {seconds:g} s")
