"""Training data out of the database, batch by batch, while they are still being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ..client.client import Client
from ..client.notices import SAFETY, Watch
from ..client.sync import SyncClient
from ..client.sync_notices import SyncWatch
from .passes import Batch, Download


class DataDownloader(Download[Client]):
    """Reads training data from a list in the database while they are being made, for asyncio.

    ``async for`` is one epoch. Use it as ``async with DataDownloader(...) as data:``, or :meth:`aclose` it. The
    arguments are those of both faces; see :class:`SyncDataDownloader` for the blocking one.

    Cancellation of any method: what had been fetched is kept, and nothing is lost or read twice.
    """

    _kind = Client
    _listening: Watch | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connections, unless the client was given."""
        if self._listening is not None:
            self._listening.close()
        if self._made is not None:
            await self._made.aclose()

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """One epoch: look for new data if dynamic, then every batch of a new order.

        :raises ConfigError: there is not enough for one batch, or a new entry does not fit to those before.
        :raises DatabaseTimeout: there was nothing in time.
        """
        if self._wait_first and not len(self):
            await self.init_samples()
        else:
            await self.update_data()
        for batch in self._pass():
            yield batch

    async def init_samples(self, timeout: float | None = None) -> None:
        """Wait until there are enough samples for one batch.

        :param timeout: seconds; None = as was said when this was made.
        :raises DatabaseTimeout: there were not in time.
        """
        await self._until(self.batch_size, self._limit if timeout is None else timeout)

    async def update_data(self) -> int:
        """Fetch what is new if dynamic, and make a new order. A pass does this by itself.

        :returns: how many samples were new.
        :raises ConfigError: a new entry does not fit to those before; it is left out.
        :raises KeyNotFoundError: a new entry's dataset, or its tensor, is not there; it is left out.
        """
        try:
            if self.dynamic:
                await self.client._run(self._reader.read())
        finally:
            new = self._arrange()
        return new

    async def wait_for_data(self, timeout: float | None = None) -> int:
        """Wait until something new has come, and fetch it.

        :param timeout: seconds; None = for ever.
        :returns: how many samples were new.
        :raises DatabaseTimeout: nothing came in time.
        """
        before = self.num_samples
        await self._until(before + 1, timeout)
        return self.num_samples - before

    async def _has(self, count: int) -> bool:
        """Look, and say whether there are enough samples."""
        await self.client._run(self._reader.read())
        return self.num_samples >= count

    async def _until(self, count: int, seconds: float | None) -> None:
        """Wait until there are so many samples: look whenever the server says that it is worth it."""
        try:
            async with asyncio.timeout(seconds) as scope:
                if not await self._has(count):
                    await self._watch(count)
        except TimeoutError:
            if not scope.expired():
                raise
            raise self._late(count, seconds or 0) from None
        finally:
            self._arrange()

    async def _watch(self, count: int) -> None:
        """Look again and again, and notice when that pays though no notice has come."""
        watch, told = await self._listen(), True
        while True:
            news, before = watch.news, self.num_samples
            enough = await self._has(count)
            watch.stale |= watch.told and not told and self.num_samples > before
            if enough:
                return
            told = await watch.wait(news)

    async def _listen(self) -> Watch:
        """The subscription; it is kept from one wait to the next."""
        if self._listening is None or not self._listening.usable:
            if self._listening is not None:
                self._listening.close()
            watch = Watch(self.client, self._reader.keys)
            await watch.open()
            self._listening = watch
        return self._listening


class SyncDataDownloader(Download[SyncClient]):
    """Reads training data from a list in the database while they are being made, and blocks.

    Iterating is one epoch. Use it as ``with SyncDataDownloader(...) as data:``, or :meth:`close` it. It can be pickled,
    with what it has read; the process that gets it makes a connection of its own, and so does one that was forked.
    """

    _kind = SyncClient
    _listening: SyncWatch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, unless the client was given."""
        if self._listening is not None:
            self._listening.close()
        if self._made is not None:
            self._made.close()

    def __iter__(self) -> Iterator[Any]:
        """One epoch: look for new data if dynamic, then every batch of a new order.

        :raises ConfigError: there is not enough for one batch, or a new entry does not fit to those before.
        :raises DatabaseTimeout: there was nothing in time.
        """
        if self._wait_first and not len(self):
            self.init_samples()
        else:
            self.update_data()
        yield from self._pass()

    def init_samples(self, timeout: float | None = None) -> None:
        """Wait until there are enough samples for one batch.

        :param timeout: seconds; None = as was said when this was made.
        :raises DatabaseTimeout: there were not in time.
        """
        self._until(self.batch_size, self._limit if timeout is None else timeout)

    def update_data(self) -> int:
        """Fetch what is new if dynamic, and make a new order. A pass does this by itself.

        :returns: how many samples were new.
        :raises ConfigError: a new entry does not fit to those before; it is left out.
        :raises KeyNotFoundError: a new entry's dataset, or its tensor, is not there; it is left out.
        """
        try:
            if self.dynamic:
                self.client._run(self._reader.read())
        finally:
            new = self._arrange()
        return new

    def wait_for_data(self, timeout: float | None = None) -> int:
        """Wait until something new has come, and fetch it.

        :param timeout: seconds; None = for ever.
        :returns: how many samples were new.
        :raises DatabaseTimeout: nothing came in time.
        """
        before = self.num_samples
        self._until(before + 1, timeout)
        return self.num_samples - before

    def _has(self, count: int) -> bool:
        """Look, and say whether there are enough samples."""
        self.client._run(self._reader.read())
        return self.num_samples >= count

    def _until(self, count: int, seconds: float | None) -> None:
        """Wait until there are so many samples: look whenever the server says that it is worth it."""
        end = None if seconds is None else monotonic() + seconds
        try:
            if not self._has(count):
                self._watch(count, end, seconds or 0)
        finally:
            self._arrange()

    def _watch(self, count: int, end: float | None, seconds: float) -> None:
        """Look again and again, and notice when that pays though no notice has come."""
        watch, told = self._listen(), True
        while True:
            before = self.num_samples
            enough = self._has(count)
            watch.stale |= watch.told and not told and self.num_samples > before
            if enough:
                return
            left = SAFETY if end is None else end - monotonic()
            if left <= 0:
                raise self._late(count, seconds)
            told = watch.wait(left)

    def _listen(self) -> SyncWatch:
        """The subscription; it is kept from one wait to the next."""
        if self._listening is None or not self._listening.usable:
            if self._listening is not None:
                self._listening.close()
            watch = SyncWatch(self.client, self._reader.keys)
            watch.open()
            self._listening = watch
        return self._listening
