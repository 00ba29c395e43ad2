"""Ports here whose connections come out on the far side, also after the link was made again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ..errors import AgentError
from .sshlink import CUT, Connected, was_cut

PIECE = 1 << 16
Place = tuple[str, int] | str
"""Host and port, or the path of a Unix socket, as seen from the far side."""


class Forwards:
    """The forwarded ports of one link.

    :param connected: gives a connection that lives.
    """

    def __init__(self, connected: Connected) -> None:
        self._connected = connected
        self._servers: dict[Place, asyncio.Server] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, place: Place) -> int:
        """The local port that leads to ``place``; the same one each time."""
        async with self._opening:  # two at once would open two ports, of which one is never closed
            if place not in self._servers:
                made = await asyncio.start_server(lambda r, w: self._accept(place, r, w), "127.0.0.1", 0)
                self._servers[place] = made
        port: int = self._servers[place].sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Close all ports and end what goes through them."""
        for server in self._servers.values():
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers.clear()

    def _accept(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(place, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(self, place: Place) -> tuple[Any, Any]:
        """A connection from the far side; over a new link if this one is found to be cut."""
        while True:
            live = await self._connected()
            try:
                if isinstance(place, str):
                    return await live.open_unix_connection(place, encoding=None)
                return await live.open_connection(*place, encoding=None)
            except CUT:
                if not await was_cut(live):
                    raise

    async def _carry(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until both ends have said that they are done, or one is gone."""
        far: Any = None
        try:
            far_reader, far = await self._reach(place)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far))
                group.create_task(_pump(far_reader, writer))
        except (*CUT, AgentError, ExceptionGroup):
            pass  # the one who connected sees that it is closed
        finally:
            writer.close()
            if far is not None:
                far.close()
            with contextlib.suppress(*CUT):
                await writer.wait_closed()


async def _pump(reader: Any, writer: Any) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
