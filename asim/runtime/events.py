"""State changes as they happen, for whoever wants to watch."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import anyio

from ..errors import ConfigError, allowed
from ..status import JobState

if TYPE_CHECKING:
    from .job import Job

BUFFER = 10_000
"""Events kept for a consumer that is slower than the jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One change of one job's state.

    :ivar job: the handle.
    :ivar name: the job's name.
    :ivar state: the new state.
    :ivar previous: the state before.
    :ivar time: seconds since the epoch, on the host that saw it.
    :ivar attempt: which attempt of the job, from 1.
    :ivar reason: in words, "" when the state says it all.
    :ivar missed: how many events were dropped just before this one because the consumer was too slow.
    """

    job: Job
    name: str
    state: JobState
    previous: JobState
    time: float
    attempt: int
    reason: str
    missed: int = 0

    @property
    def at(self) -> datetime:
        """:attr:`time` as an aware datetime."""
        return datetime.fromtimestamp(self.time, UTC)


class EventStream:
    """One consumer's view: an async iterator that ends when nothing more can come.

    The newest ``buffer`` events are kept; a slow consumer loses the oldest and is told how many (``JobEvent.missed``).
    """

    def __init__(self, hub: EventHub, wanted: Callable[[Job], bool] | None, buffer: int) -> None:
        if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
            raise ConfigError(allowed("buffer", buffer, "must be an int of 1 or more"))
        self._hub, self._wanted = hub, wanted
        self._events: deque[JobEvent] = deque()
        self._buffer, self._missed, self.ended = buffer, 0, False
        self._wake = anyio.Event()

    def put(self, event: JobEvent) -> None:
        """Called for every event, in the loop; never waits."""
        if self.ended or (self._wanted is not None and not self._wanted(event.job)):
            return
        if len(self._events) == self._buffer:
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._wake.set()

    def end(self) -> None:
        """No more events come; what is buffered can still be read."""
        self._hub.streams.discard(self)
        self.ended = True
        self._wake.set()

    def close(self) -> None:
        """Stop listening."""
        self.end()
        self._hub.streams.discard(self)

    def __aiter__(self) -> AsyncIterator[JobEvent]:
        return self

    async def __anext__(self) -> JobEvent:
        while not self._events:
            if self.ended:
                self.close()
                raise StopAsyncIteration
            self._wake = anyio.Event()
            await self._wake.wait()
        event = self._events.popleft()
        if self._missed:
            event = replace(event, missed=self._missed)
            self._missed = 0
        return event

    async def aclose(self) -> None:
        """The same as :meth:`close`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class EventHub:
    """Hands every event to every stream. Costs nothing while nobody listens."""

    def __init__(self) -> None:
        self.streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._ended = False

    def stream(self, wanted: Callable[[Job], bool] | None = None, buffer: int = BUFFER) -> EventStream:
        stream = EventStream(self, wanted, buffer)
        self.streams.add(stream)
        if self._ended:
            stream.end()
        return stream

    def publish(self, job: Job, previous: JobState, when: float, reason: str) -> None:
        if self.streams:
            event = JobEvent(
                job=job,
                name=job.name,
                state=job.status,
                previous=previous,
                time=when,
                attempt=job.attempt,
                reason=reason,
            )
            for stream in tuple(self.streams):
                stream.put(event)

    def end(self) -> None:
        """The experiment is over: every stream ends once it is read empty."""
        self._ended = True
        for stream in tuple(self.streams):
            stream.end()
