"""News about lists for the blocking face; see :mod:`asim.client.notices`."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .link import Link, connect
from .notices import SAFETY, Pauses, accepted, enable, places, subscriptions
from .steps import Lost

if TYPE_CHECKING:
    from .sync import SyncClient


class SyncWatch:
    """Waits for changes of lists, for one thread: look, and :meth:`wait` if that was in vain.

    Notices stay in the socket until a wait takes them, so none that comes while its user looks is missed.

    :param client: whose database it is.
    :param keys: of the lists, as the server knows them.
    :ivar stale: something came without a notice, so the subscription is worth nothing any more.
    """

    def __init__(self, client: SyncClient, keys: Sequence[bytes]) -> None:
        self._client, self._keys = client, keys
        self._process = os.getpid()
        self._links: list[Link] = []
        self._pauses = Pauses()
        self.stale = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def told(self) -> bool:
        """Whether the servers tell of changes; if not, :meth:`wait` is a pause."""
        return self._pauses.told

    @property
    def usable(self) -> bool:
        """Whether another wait may use it."""
        lost = any(link.closed for link in self._links)
        return not lost and not self.stale and self._process == os.getpid()

    def open(self) -> None:
        """Subscribe.

        :raises DatabaseError: the servers of a cluster cannot be found.
        """
        core = self._client._core
        try:
            for address, keys in self._client._run(places(core, self._keys)).items():
                told = self._client._run(enable(core, address))
                self._pauses.told &= self._subscribe(address, keys) and told
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connections."""
        for link in self._links:
            link.close()

    def wait(self, seconds: float = SAFETY) -> bool:
        """Return when it is time to look; whether a notice says so, or only the time.

        :param seconds: to wait at most.
        """
        pause = self._pauses.next(seconds)
        here = [link for link in self._links if not link.closed]
        if not here:
            time.sleep(pause)
            return False
        poll = select.poll()
        for link in here:
            poll.register(link, select.POLLIN)
        ready = {number for number, _ in poll.poll(pause * 1000)}
        heard = [self._hear(link) for link in here if link.fileno() in ready]
        return any(heard)

    def _hear(self, link: Link) -> bool:
        """Take all that has come; it says no more than that it came."""
        try:
            heard = bool(link.hear())
            while link.hear():
                pass
        except Lost:
            self._pauses.told = False
            return True
        return heard

    def _subscribe(self, address: str, keys: Sequence[bytes]) -> bool:
        """Listen to one server; whether it lets us."""
        options = self._client._core.options
        try:
            link = connect(address, options)
        except Lost:
            return False
        self._links.append(link)
        try:
            link.send(subscriptions(keys), options.timeout)
            return accepted(link.receive(len(keys)))
        except Lost:
            return False
