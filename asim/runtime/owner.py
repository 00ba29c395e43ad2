"""The one task that an Experiment owns, and in whose task group everything that must not be cut short runs.

A shield in the caller's task does not hold against a native asyncio cancellation (``asyncio.timeout``, Ctrl-C), so what
must finish once begun (a submit, whose job ids would be lost) does not run in the caller's task at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..errors import AsimError

LOG = logging.getLogger("asim")
T = TypeVar("T")


class Outcome(Generic[T]):
    """A result on its way from an owned task to the one that waits for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.abandoned = False
        self.values: list[T] = []
        self.error: Exception | None = None


class Owner:
    """Starts with the first :meth:`run`; ends with :meth:`aclose`."""

    def __init__(self) -> None:
        self._group: TaskGroup | None = None
        self._ready, self._stop = anyio.Event(), anyio.Event()
        self._task: asyncio.Task[None] | None = None

    async def _serve(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._ready.set()
                await self._stop.wait()
                group.cancel_scope.cancel()
        finally:
            self._group = None

    async def _opened(self) -> TaskGroup:
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name="asim experiment")
        await self._ready.wait()
        if self._group is None:
            raise AsimError("the experiment is closed")
        return self._group

    async def run(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        abandoned: Callable[[T], Coroutine[Any, Any, None]] | None = None,
    ) -> T:
        """Do ``work`` in an owned task and wait for it.

        Cancellation: only the waiting ends; ``work`` goes on, and what it returns is given to ``abandoned``, because
        nobody else received it.
        """
        group = await self._opened()
        outcome: Outcome[T] = Outcome()

        async def owned() -> None:
            try:
                outcome.values.append(await work())
            except Exception as exc:  # noqa: BLE001  (it is raised again where the caller waits)
                outcome.error = exc
            finally:
                outcome.done.set()
            if outcome.abandoned and abandoned is not None:
                for value in outcome.values:
                    await abandoned(value)

        group.start_soon(owned)
        try:
            await outcome.done.wait()
        except BaseException:
            if outcome.done.is_set() and abandoned is not None:
                for value in outcome.values:
                    group.start_soon(abandoned, value)
            outcome.abandoned = not outcome.done.is_set()
            raise
        if outcome.error is not None:
            raise outcome.error
        if not outcome.values:
            raise AsimError("the experiment was closed meanwhile")
        return outcome.values[0]

    @property
    def alive(self) -> bool:
        """Whether owned tasks can run (or could, once the first is started)."""
        return self._task is None or not self._task.done()

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, Any]], *arguments: object) -> None:
        """Do ``work`` in an owned task that nobody waits for. An error of it is logged, and ends nothing else."""

        async def owned() -> None:
            try:
                await work(*arguments)
            except Exception:
                LOG.exception("in the background")

        if self._group is not None:
            self._group.start_soon(owned)

    async def aclose(self) -> None:
        """End the owned task; what still runs in it is cancelled."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])
