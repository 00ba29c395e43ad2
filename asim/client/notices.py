"""News about lists: the server says when one has changed, over connections that are for nothing else.

Servers tell of changes if their setting ``notify-keyspace-events`` has ``K`` and ``l``; asim's databases have these, and
others get them from the first who waits, if they let everybody set that. A server that refuses is asked again and
again instead. Either way the caller looks for himself after every ``wait``: a notice says only that looking is worth
it. So none that is lost does harm, and it costs a second at most (see :data:`SAFETY`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import DatabaseError
from . import servers
from .codec import Command, command
from .core import Core
from .keys import slot_of
from .operations.admin import config_get, config_set
from .replies import ErrorReply
from .steps import Lost, Op, Shards
from .wire import Wire

if TYPE_CHECKING:
    from .client import Client

CHANNEL = b"__keyspace@0__:"
SETTING = "notify-keyspace-events"
SAFETY = 1.0
"""Seconds after which a look is due though no notice came: what renames a list, moves its slot to another server, or
changes the setting again tells nobody."""
FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.1


def places(core: Core, keys: Sequence[bytes]) -> Op[dict[str, list[bytes]]]:
    """The servers that have some keys: each tells of its own keys only."""
    shards = yield Shards()
    found: dict[str, list[bytes]] = {}
    for key in keys:
        slot = slot_of(key)
        address = next((one.address for one in shards if one.first <= slot <= one.last), core.options.address)
        found.setdefault(address, []).append(key)
    return found


def enable(core: Core, address: str) -> Op[bool]:
    """Have a server tell of changes of lists, beside what it tells already; whether it does.

    A server that does not answer is no error here: the next look will say so.
    """
    try:
        flags = (yield from config_get(core, SETTING, address)).get(SETTING, "")
        missing = "".join(flag for flag in "Kl" if flag not in flags and not (flag == "l" and "A" in flags))
        if missing:
            yield from config_set(core, SETTING, flags + missing, address)
    except DatabaseError:
        return False
    return True


def subscriptions(keys: Sequence[bytes]) -> list[Command]:
    """One command for each key, because each gets one reply."""
    return [command("SUBSCRIBE", None, CHANNEL + key) for key in keys]


def accepted(replies: Sequence[Any]) -> bool:
    """Whether all subscriptions were."""
    return not any(isinstance(reply, ErrorReply) for reply in replies)


class Pauses:
    """How long to wait before the next look.

    :ivar told: whether every server tells of changes; without that, the pauses grow from 1 ms to 0.1 s.
    """

    def __init__(self) -> None:
        self.told = True
        self._pause = FIRST_PAUSE

    def next(self, seconds: float) -> float:
        """The next pause, ``seconds`` at most."""
        if self.told:
            return min(SAFETY, seconds)
        pause, self._pause = self._pause, min(self._pause * 1.5, LONGEST_PAUSE)
        return min(pause, seconds)


class NoticeWire(Wire):
    """A connection on which replies come that nobody asked for.

    :param heard: called for every notice, and when the connection is lost.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> None:
        self._heard = heard
        super().__init__(sock, loop)

    def close(self, lost: Lost | None = None) -> None:
        """End the connection."""
        super().close(lost)
        self._heard()

    def _take(self, reply: object) -> None:
        if isinstance(reply, list) and reply[:1] == [b"message"]:
            self._heard()
        else:
            super()._take(reply)


class Watch:
    """Waits for changes of lists, for asyncio: take :attr:`news`, look, and :meth:`wait` if that was in vain.

    :param client: whose database it is.
    :param keys: of the lists, as the server knows them.
    :ivar news: set by the next notice. What comes after it was taken is never missed.
    :ivar stale: something came without a notice, so the subscription is worth nothing any more.
    """

    def __init__(self, client: Client, keys: Sequence[bytes]) -> None:
        self._client, self._keys = client, keys
        self._loop = asyncio.get_running_loop()
        self._wires: list[NoticeWire] = []
        self._pauses = Pauses()
        self.news = asyncio.Event()
        self.stale = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
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
        lost = any(wire.lost is not None for wire in self._wires)
        return not lost and not self.stale and self._loop is asyncio.get_running_loop()

    async def open(self) -> None:
        """Subscribe.

        :raises DatabaseError: the servers of a cluster cannot be found.

        Cancellation: the connections are closed.
        """
        core = self._client._core
        try:
            for address, keys in (await self._client._run(places(core, self._keys))).items():
                told = await self._client._run(enable(core, address))
                self._pauses.told &= await self._subscribe(address, keys) and told
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connections."""
        for wire in self._wires:
            if self._loop.is_closed():
                wire.discard()
            else:
                wire.close()

    async def wait(self, news: asyncio.Event, seconds: float = SAFETY) -> bool:
        """Return when it is time to look; whether a notice says so, or only the time.

        :param news: as it was before the last look.
        :param seconds: to wait at most.
        """
        if any(wire.lost is not None for wire in self._wires):
            self._pauses.told = False
        try:
            async with asyncio.timeout(self._pauses.next(seconds)):
                return await news.wait()
        except TimeoutError:
            return False

    async def _subscribe(self, address: str, keys: Sequence[bytes]) -> bool:
        """Listen to one server; whether it lets us."""
        options = self._client._core.options
        try:
            wire = await servers.connect(address, options, partial(NoticeWire, heard=self._notice))
        except Lost:
            return False
        self._wires.append(wire)
        outcome = await wire.request(subscriptions(keys), options.timeout).future
        return not isinstance(outcome, Lost) and accepted(outcome)

    def _notice(self) -> None:
        """Wake everybody who waits, and nobody who will look anyway."""
        news, self.news = self.news, asyncio.Event()
        news.set()
