"""New entries of lists to samples: what both faces of the downloader share, as operations without any I/O."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..client.codec import Array, command, to_array, to_tensor
from ..client.dataset import decode_metadata
from ..client.keys import Prefixes, dataset_name
from ..client.operations.datasets import metadata, part
from ..client.operations.tensors import get
from ..client.steps import Each, Op
from ..errors import AsimError, KeyNotFoundError
from .info import DataInfo, info_bases, info_of
from .samples import Samples
from .source import sources

_log = logging.getLogger("asim.ml")
BLOCK = 128
"""How many batches are fetched together."""


class Reader:
    """The entries of a list that are this replica's, each read once.

    Entry ``i`` is for replica ``i % num_replicas``; with several producers that holds for each one's list.

    :param named: what to read; of a list's name, what is stored about it is read before its first entry.
    :ivar info: the names in the datasets.
    :ivar samples: what was read so far.
    """

    def __init__(self, named: DataInfo | str, prefixes: Prefixes, replica_rank: int, num_replicas: int) -> None:
        self.info = info_of(named)
        self.samples = Samples()
        self.replica_rank, self.num_replicas = replica_rank, num_replicas
        self.keys = sources(prefixes, self.info.list_name, prefixes.lists)
        self._bases = info_bases(sources(prefixes, self.info.name, prefixes.datasets), self.info.name)
        self._seen = dict.fromkeys(self.keys, 0)
        self._informed = isinstance(named, DataInfo)
        self._guessing = False

    @property
    def autoencoder(self) -> bool:
        """Whether the samples are their own targets."""
        return self.info.target_name == self.info.sample_name

    @property
    def need_targets(self) -> bool:
        """Whether each batch has targets of its own."""
        return bool(self.info.target_name) and not self.autoencoder

    def is_mine(self, entry: int) -> bool:
        """Whether this replica reads an entry of a list, by its position there."""
        return entry % self.num_replicas == self.replica_rank

    def read(self) -> Op[int]:
        """Fetch what is new, and return how many samples that was; one round trip if nothing is.

        :raises AsimError: the first of the entries that cannot be used; they are left out, the others are kept.

        Cancellation: what was not kept is fetched the next time.
        """
        before = len(self.samples)
        problems: list[AsimError] = []
        for key in self.keys:
            yield from self._read(key, problems)
        if problems:
            more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
            raise type(problems[0])(f"{problems[0]}{more}") from problems[0]
        return len(self.samples) - before

    def _read(self, key: bytes, problems: list[AsimError]) -> Op[None]:
        """What is new in one list."""
        while True:
            start = self._seen[key]
            length, bases = yield [command("LLEN", key), command("LRANGE", key, start, start + BLOCK - 1)]
            if self._seen[key] != start:
                continue  # another task has read on meanwhile
            if length < start:
                _log.warning("list %s has become shorter: it is read again from its beginning", self.info.list_name)
                self._seen[key] = 0
                continue
            if not bases:
                return
            yield from self._entries(key, start, bases, problems)
            if len(bases) < BLOCK:
                return

    def _entries(self, key: bytes, start: int, bases: Sequence[bytes], problems: list[AsimError]) -> Op[None]:
        """Fetch some entries, and keep them if no other task was faster."""
        if not self._informed:
            self._guessing = not (yield from self.info._download(self._bases))
            self._informed = True
        mine = [base for i, base in enumerate(bases, start) if self.is_mine(i)]
        found = (yield from self._batches(mine)) if mine else []
        if self._seen[key] != start:
            return
        self._seen[key] = start + len(bases)
        for base, batch in zip(mine, found, strict=True):
            try:
                if isinstance(batch, AsimError):
                    raise batch
                self.samples.append(*batch, f"dataset {dataset_name(base)!r}")
            except AsimError as error:
                problems.append(error)

    def _batches(self, bases: Sequence[bytes]) -> Op[list[tuple[Array, Array | None] | AsimError]]:
        """The samples and targets of some datasets, or why there are none."""
        replies = yield Each([metadata(base) for base in bases])
        names = [self._names(base, reply) for base, reply in zip(bases, replies, strict=True)]
        commands = [
            get(part(base, name))
            for base, wanted in zip(bases, names, strict=True)
            if not isinstance(wanted, AsimError)
            for name in wanted
        ]
        tensors = zip(commands, (yield Each(commands)) if commands else [], strict=True)
        return [
            wanted if isinstance(wanted, AsimError) else _batch([next(tensors) for _ in wanted]) for wanted in names
        ]

    def _names(self, base: bytes, reply: Any) -> list[str] | AsimError:
        """Which tensors of a dataset are wanted."""
        if isinstance(reply, AsimError):
            return reply
        try:
            _, has = decode_metadata(dataset_name(base), reply)
        except AsimError as error:
            return error
        if self._guessing:
            self._guessing = False
            if self.info.target_name not in has:
                self.info.target_name = None
        wanted = [self.info.sample_name, *([self.info.target_name or ""] if self.need_targets else [])]
        lacking = [name for name in wanted if name not in has]
        if lacking:
            what = f"dataset {dataset_name(base)!r} has the tensors {has}, but not {lacking[0]!r}"
            return KeyNotFoundError(f"{what}: pass a DataInfo with the right names (target_name=None: no targets)")
        return wanted


def _batch(replies: Sequence[tuple[Any, Any]]) -> tuple[Array, Array | None] | AsimError:
    """Replies, each with its command, as samples and targets."""
    try:
        arrays = []
        for one, reply in replies:
            if isinstance(reply, AsimError):
                return reply
            arrays.append(to_array(to_tensor(reply, one), one))
    except AsimError as error:
        return error
    return arrays[0], arrays[1] if len(arrays) > 1 else None
