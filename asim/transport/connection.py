"""The async face of one agent, whatever carries its bytes.

:class:`AgentConnection` is an asyncio protocol: the transport that it is given may be a socket pair here or an SSH
channel there. News about processes is handed to a callback as it arrives, in the loop, without a task in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from typing import Any, Literal, cast

from ..agent.protocol import (
    VERSION,
    Completed,
    Environment,
    FileAction,
    FrameDecoder,
    ProcessSpec,
    files_frames,
    frame,
    spawn_frame,
)
from ..errors import AgentError, FileActionError
from .host import Host as Host  # noqa: PLC0414  (a public name of this module too)
from .host import OnSeen
from .resume import Resumable

NewsRow = Sequence[Any]
"""``[key, "start" | "error" | "end", time, ...]``, see :mod:`asim.agent.main`."""

FRAME_SPECS = 64  # small enough that the first process runs while the rest is still being written


class _Run:
    """A command whose end is awaited, with what it has written so far."""

    def __init__(self, done: asyncio.Future[tuple[int | None, str, str]]) -> None:
        self.done = done
        self.parts: tuple[list[str], list[str]] = ([], [])


class AgentConnection(asyncio.Protocol):
    """A :class:`Host` that talks to one agent.

    :param on_news: called with the rows of each news message, in the event loop.
    :param on_lost: called once when the stream ends, with None if that was asked for by :meth:`bye`.
    """

    def __init__(
        self, on_news: Callable[[Sequence[NewsRow]], None], on_lost: Callable[[AgentError | None], None]
    ) -> None:
        self._on_news = on_news
        self._on_lost = on_lost
        self._decoder = FrameDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batches: dict[int, asyncio.Future[None]] = {}
        self._runs: dict[int, _Run] = {}
        self._watches: dict[str, OnSeen] = {}
        self._numbers = count(1)
        self._writable: asyncio.Future[None] | None = None
        self._leaving = False
        self._fatal: AgentError | None = None

    # -- what the owner does

    async def hello(self, **options: object) -> dict[str, Any]:
        """Introduce the driver; returns what the agent says of itself (``pid``, ``host``, ``python``, ``stamp``).

        :raises AgentError: when the agent ends instead of answering.
        """
        self._write(frame("hello", VERSION, options))
        return await asyncio.shield(self._ready)

    async def spawn(self, specs: Iterable[ProcessSpec]) -> None:
        remaining = iter(specs)
        while part := list(islice(remaining, FRAME_SPECS)):
            self._write(spawn_frame(part))
            await self._drained()

    async def files(self, actions: Iterable[FileAction]) -> None:
        number = next(self._numbers)
        done = self._batches[number] = asyncio.get_running_loop().create_future()
        written = False
        try:
            for data in files_frames(number, actions):
                self._write(data)
                await self._drained()
            written = True
            await done
        finally:
            if not written and self._transport is not None:  # the agent must not wait for the rest
                self._write(frame("files", number, [], True))
            self._batches.pop(number, None)
            if done.done() and not done.cancelled():
                done.exception()  # looked at, though a cancelled caller will not see it

    def stop(self, keys: Sequence[int], grace: float) -> None:
        self._write(frame("stop", list(keys), grace))

    async def run(
        self,
        command: Sequence[str],
        *,
        cwd: str = "/",
        env: Environment = (),
        stdin: str = "",
        timeout: float = 60.0,
        limit: int = 64 << 20,
        lasting: bool = False,
    ) -> Completed:
        number, argv = next(self._numbers), tuple(command)
        what = {"argv": argv, "env": env, "cwd": cwd, "stdin": stdin, "timeout": timeout, "limit": limit}
        what["lasting"] = lasting
        run = self._runs[number] = _Run(asyncio.get_running_loop().create_future())
        try:
            self._write(frame("run", number, what))
            code, stdout, stderr = await run.done
            return Completed(argv, code, stdout, stderr)
        except asyncio.CancelledError:
            if self._transport is not None:
                self._write(frame("unrun", number))
            raise
        finally:
            del self._runs[number]
            if run.done.done() and not run.done.cancelled():
                run.done.exception()  # looked at, though a cancelled caller will not see it

    def watch(self, directory: str, seconds: float, on_seen: OnSeen) -> None:
        if seconds:
            self._watches[directory] = on_seen
        else:
            self._watches.pop(directory, None)
        self._write(frame("watch", directory, seconds))

    async def bye(self, keep: Sequence[int] | Literal["all"] = ()) -> None:
        """Ask the agent to stop all but ``keep`` and to end.

        Returns when the stream has ended, or at once if something is kept (the agent then lives on, detached).
        Cancellation: the agent goes on stopping; only the waiting ends.
        """
        self._leaving = True
        if not self._closed.done():
            self._write(frame("bye", keep if keep == "all" else list(keep)))
            if keep:
                self.close()
        await asyncio.shield(self._closed)

    def close(self) -> None:
        """Close the stream. Without :meth:`bye` before it the agent does what its ``on_eof`` says."""
        self._leaving = True
        if self._transport is not None:
            self._transport.close()

    @property
    def reached(self) -> float | None:
        """Since when the agent can be reached, in the loop's time; None: its link is cut."""
        return self._transport.attached if isinstance(self._transport, Resumable) else 0.0

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._message(message)
        except Exception as exc:  # noqa: BLE001  (whatever it is, the owner must learn that nothing more comes)
            self._fatal = exc if isinstance(exc, AgentError) else AgentError(f"news could not be dealt with: {exc!r}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        asked = self._leaving and self._fatal is None
        error = self._fatal or (exc if isinstance(exc, AgentError) else None)
        error = error or AgentError("the agent died" + (f": {exc}" if exc else ""))
        self._transport = None
        self.resume_writing()
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._batches.values()]
        waiting += [run.done for run in self._runs.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # there may be nobody to look
        self._closed.set_result(None)
        self._on_lost(None if asked else error)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # -- inside

    def _message(self, message: Sequence[Any]) -> None:
        verb = message[0]
        if verb == "news":
            self._on_news(message[1])
        elif verb == "files":
            self._files_done(*message[1:])
        elif verb == "said":
            self._said(*message[1:])
        elif verb == "ran":
            self._ran(*message[1:])
        elif verb == "seen":
            if on_seen := self._watches.get(message[1]):
                on_seen([(name, content) for name, content in message[2]])
        elif verb == "ready":
            if not self._ready.done():
                self._ready.set_result(message[2])
        elif verb == "fatal":
            self._fatal = AgentError(f"the agent gave up: {message[1]}")
            if isinstance(self._transport, Resumable):
                self._transport.ended()
        elif verb == "ack" and isinstance(self._transport, Resumable):
            self._transport.acknowledged(message[1])
        elif verb == "ended" and isinstance(self._transport, Resumable):
            self._transport.ended()
        else:
            raise AgentError(f"the agent sent an unknown message {verb!r}")

    def _said(self, number: int, which: int, text: str) -> None:
        if run := self._runs.get(number):
            run.parts[which - 1].append(text)

    def _ran(self, number: int, code: int | None, stdout: str, stderr: str) -> None:
        run = self._runs.get(number)
        if run is not None and not run.done.done():
            run.done.set_result((code, "".join([*run.parts[0], stdout]), "".join([*run.parts[1], stderr])))

    def _files_done(self, number: int, done: int, error: Sequence[Any] | None) -> None:
        future = self._batches.get(number)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            code, words, path, verb = error
            future.set_exception(FileActionError(f"{words}: {path}", code, path, verb, done))

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise self._fatal or AgentError("the agent is gone")
        self._transport.write(data)

    async def _drained(self) -> None:
        """Wait while the other end is slow; in any case let other tasks run."""
        if self._writable is not None:
            await asyncio.shield(self._writable)
        else:
            await asyncio.sleep(0)
