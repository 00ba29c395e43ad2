"""A connection of the user ``asim`` on which large arguments are streamed: from a file, a block at a time, or from memory.

(:class:`asim.Client` wants a whole argument at once. A model may be larger than the driver's memory.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import IO, Any

import anyio
import hiredis
from anyio import to_thread
from anyio.abc import SocketStream

from ..client.options import host_and_port
from ..errors import DatabaseConnectionError, DatabaseError, DatabaseTimeout
from .config import ADMIN
from .objects import DIGEST, Content, Copy, Word, pairs

BLOCK = 4 << 20
"""Bytes that are read and sent at a time; an upload needs about twice as much memory."""
CONNECT = 10.0
"""Seconds in which a server accepts a connection and a password."""
STALL = 60.0
"""Seconds in which a server takes a block, or answers a small question: others may keep it busy."""
LOADING = 600.0
"""Seconds that a worker may take to import its backend and to load a model."""
_NOTHING = ("ERR cannot find run info", "ERR model key is empty", "ERR script key is empty")


@asynccontextmanager
async def sender(address: str, secret: str, where: str) -> AsyncIterator[Sender]:
    """A connection to one server, with ``async with``.

    :param address: ``host:port``.
    :param where: the database and its shard, for errors.
    :raises DatabaseConnectionError: it cannot be made.

    Cancellation: it is closed, and a server forgets a command that came in part.
    """
    async with AsyncExitStack() as stack:
        try:
            with anyio.fail_after(CONNECT):
                stream = await stack.enter_async_context(await anyio.connect_tcp(*host_and_port(address)))
                made = Sender(stream, address)
                await made.ask("AUTH", ADMIN, secret)
        except (OSError, DatabaseTimeout) as exc:
            raise DatabaseConnectionError(f"{where}: cannot connect to {address}: {exc}", "AUTH") from exc
        yield made


class Sender:
    """One connection that is made already; one command at a time.

    :raises DatabaseError: (any method) the server's error; DatabaseConnectionError, DatabaseTimeout: no answer.
    """

    def __init__(self, stream: SocketStream, address: str) -> None:
        self._stream, self._address = stream, address
        self._reader = hiredis.Reader()

    async def ask(self, *words: Word, patience: float = STALL) -> Any:
        """One small command; its answer."""
        (reply,) = await self.ask_all([words], patience)
        if isinstance(reply, DatabaseError):
            raise reply
        return reply

    async def ask_all(self, commands: Sequence[Sequence[Word]], patience: float = STALL) -> list[Any]:
        """Several small commands in one round trip; errors of the server are among the answers, as exceptions."""
        await self._send(b"".join(head(words) for words in commands))
        return [await self._answer(str(words[0]), patience) for words in commands]

    async def look(self, copy: Copy) -> tuple[dict[bytes, Any], dict[bytes, Any]] | None:
        """What the server says of a key: AI.INFO, and AI.MODELGET META if it is a model. None: there is nothing."""
        commands: list[tuple[Word, ...]] = [("AI.INFO", copy.key)]
        if not copy.upload.script:
            commands.append(("AI.MODELGET", copy.key, "META"))
        replies = await self.ask_all(commands)
        for reply in replies:
            if isinstance(reply, DatabaseError):
                if reply.reply.startswith((*_NOTHING, "WRONGTYPE")):
                    return None
                raise reply
        return pairs(replies[0]), pairs(replies[1]) if len(replies) > 1 else {}

    async def source(self, copy: Copy) -> bytes:
        """The text of a script."""
        return bytes(await self.ask("AI.SCRIPTGET", copy.key, "SOURCE"))

    async def store(self, copy: Copy, sent: Callable[[int], None]) -> None:
        """Store an object under one key; returns when a worker has loaded it.

        :param sent: told how many bytes went out.
        :raises DatabaseError: the server's, or its backend's, words.
        :raises OSError: the file cannot be read.
        """
        words, content = copy.upload.words(copy.key, copy.device), copy.upload.content
        await self._send(head(words, 1) + b"$%d\r\n" % content.size)
        async with reading(content) as read:
            left = content.size
            while left:
                block = await read(min(left, BLOCK))
                left -= len(block)
                await self._send(block)
                sent(len(block))
        await self._send(b"\r\n")
        reply = await self._answer(str(words[0]), LOADING)
        if isinstance(reply, DatabaseError):
            raise reply

    async def _send(self, data: bytes | memoryview) -> None:
        try:
            with anyio.fail_after(STALL):
                await self._stream.send(data)  # type: ignore[arg-type]  # any buffer will do
        except TimeoutError as exc:
            raise DatabaseTimeout(f"{self._address}: it took nothing for {STALL:g} s") from exc
        except anyio.BrokenResourceError as exc:
            raise DatabaseConnectionError(f"{self._address}: the connection was lost") from exc

    async def _answer(self, verb: str, patience: float) -> Any:
        try:
            with anyio.fail_after(patience):
                while (reply := self._reader.gets()) is False:
                    self._reader.feed(await self._stream.receive())
        except TimeoutError as exc:
            raise DatabaseTimeout(f"{self._address}: no answer to {verb} within {patience:g} s", verb) from exc
        except (anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            raise DatabaseConnectionError(f"{self._address}: the connection was lost before {verb} was done") from exc
        return DatabaseError(str(reply), verb, str(reply)) if isinstance(reply, hiredis.ReplyError) else reply


def head(words: Iterable[Word], more: int = 0) -> bytes:
    """The bytes of a command, of which ``more`` arguments are still to come."""
    items = [word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape") for word in words]
    return b"".join([b"*%d\r\n" % (len(items) + more), *(b"$%d\r\n%b\r\n" % (len(item), item) for item in items)])


@asynccontextmanager
async def reading(content: Content) -> AsyncIterator[Callable[[int], Any]]:
    """A function that gives the next bytes, at most as many as it is told.

    :raises OSError: the file cannot be read, or has become shorter.
    """
    if content.data is not None:
        view, place = memoryview(content.data), 0

        async def from_memory(size: int) -> memoryview:
            nonlocal place
            place += size
            return view[place - size : place]

        yield from_memory
        return
    file: IO[bytes] = await to_thread.run_sync(lambda: open(content.path, "rb", 0))  # noqa: SIM115

    async def from_file(size: int) -> bytes:
        block: bytes = await to_thread.run_sync(file.read, size)
        if not block:
            raise OSError(None, "it became shorter while it was uploaded", content.path)
        return block

    try:
        yield from_file
    finally:
        file.close()


def digest_in(info: dict[bytes, Any]) -> str:
    """The digest that a worker has computed; "": none has."""
    return bytes(info.get(DIGEST) or b"").decode("ascii", "replace").lower()
