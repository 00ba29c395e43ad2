"""How long something is tried again, and how often."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DatabaseError


class Effort:
    """How often and for how long something was tried: pauses that grow from 5 ms to half a second, and an end.

    :param limit: seconds from the first failure after which it is enough.
    """

    REDIRECTIONS = 32

    def __init__(self, clock: Callable[[], float], limit: float) -> None:
        self.limit = limit
        self._clock = clock
        self._since: float | None = None
        self._pause = 0.0025
        self._redirections = 0

    def exhausted(self) -> bool:
        """Whether the time is over; it begins with the first question."""
        if self._since is None:
            self._since = self._clock()
        return self._clock() - self._since >= self.limit

    def delay(self) -> float:
        """Seconds to wait before the next attempt, never past the end."""
        self._pause = min(0.5, self._pause * 2)
        self.exhausted()
        assert self._since is not None
        return max(0.001, min(self._pause, self._since + self.limit - self._clock()))

    def redirected(self) -> None:
        """Count a redirection.

        :raises DatabaseError: the servers send each other's way for ever.
        """
        self._redirections += 1
        if self._redirections > self.REDIRECTIONS:
            raise DatabaseError(f"redirected more than {self.REDIRECTIONS} times: the servers do not agree on a slot")
