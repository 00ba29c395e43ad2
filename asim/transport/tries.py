"""How long something is tried again over new links: after a longer pause each time, and not for ever."""

from __future__ import annotations

import asyncio

from ..errors import AgentError

FIRST_PAUSE, MOST_PAUSE = 0.1, 10.0
"""Seconds between two attempts: each twice the one before."""


class Tries:
    """Attempts at one thing whose link is cut again and again.

    :param patience: seconds from the first cut, or from the last that had brought it further, until it is given up.
    """

    def __init__(self, patience: float) -> None:
        self._patience, self._pause = patience, FIRST_PAUSE
        self._until: float | None = None

    async def again(self, why: object, *, further: bool = False) -> None:
        """Wait a little before the next attempt; there is always one.

        :param why: what ended the last one.
        :param further: whether that one got further than those before.
        :raises AgentError: there were enough.
        """
        now = asyncio.get_running_loop().time()
        if further or self._until is None:
            self._until, self._pause = now + self._patience, FIRST_PAUSE
        elif now + self._pause > self._until:
            raise AgentError(f"given up: for {self._patience:g} s every link was cut before anything was done: {why}")
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, MOST_PAUSE)
