"""The one task that an Experiment owns, and in whose task group everything that must not be cut short runs.

A shield in the caller's task does not hold against a native asyncio cancellation (``asyncio.timeout``, Ctrl-C), so what
must finish once begun (a submit, whose job ids would be lost) does not run in the caller's task at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


class Outcome(Generic[T]):
    """A result on its way from an owned task to the one that waits for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.abandoned = False
        self.value: T | None = None
        self.error: BaseException | None = None


class Owner:
    """Starts with the first :meth:`run`; ends with :meth:`aclose`."""

    def __init__(self) -> None:
        self._group: TaskGroup | None = None
        self._stop = anyio.Event()
        self._task: asyncio.Task[None] | None = None

    async def _serve(self, ready: anyio.Event) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            ready.set()
            await self._stop.wait()
            group.cancel_scope.cancel()
        self._group = None

    async def _opened(self) -> TaskGroup:
        if self._task is None:
            ready = anyio.Event()
            self._task = asyncio.create_task(self._serve(ready), name="asim experiment")
            await ready.wait()
        while self._group is None:  # another task is opening it
            await asyncio.sleep(0)
        return self._group

    async def run(
        self, work: Callable[[], Awaitable[T]], abandoned: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """Do ``work`` in an owned task and wait for it.

        Cancellation: only the waiting ends; ``work`` goes on, and what it returns is given to ``abandoned``, because
        nobody else received it.
        """
        group = await self._opened()
        outcome: Outcome[T] = Outcome()

        async def owned() -> None:
            try:
                outcome.value = await work()
            except Exception as exc:
                outcome.error = exc
            else:
                if outcome.abandoned and abandoned is not None:
                    await abandoned(outcome.value)
            finally:
                outcome.done.set()

        group.start_soon(owned)
        try:
            await outcome.done.wait()
        except BaseException:
            outcome.abandoned = True
            if outcome.done.is_set() and outcome.error is None and abandoned is not None:
                value: Any = outcome.value
                group.start_soon(abandoned, value)
            raise
        if outcome.error is not None:
            raise outcome.error
        result: Any = outcome.value
        return result

    def start_soon(self, work: Callable[..., Awaitable[Any]], *arguments: object) -> None:
        """Do ``work`` in an owned task that nobody waits for. It must not raise."""
        if self._group is not None:
            self._group.start_soon(work, *arguments)

    async def aclose(self) -> None:
        """End the owned task; what still runs in it is cancelled."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])
