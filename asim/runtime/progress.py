"""How far an upload is, told now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ..database.objects import Upload

LOG = logging.getLogger("asim")
PERIOD = 5.0
"""Seconds between two reports."""
MANY = 10
MUCH = 100_000_000
"""From so many objects, or bytes, on its beginning is told, too."""


class Progress:
    """Counts what was stored in one database.

    :param servers: how many get a copy.
    :param tell: publishes words among the experiment's events.
    """

    def __init__(self, database: str, uploads: Sequence[Upload], servers: int, tell: Callable[[str], None]) -> None:
        self._database, self._tell, self._servers = database, tell, servers
        self._objects = len(uploads)
        self._total = servers * sum(upload.content.size * len(upload.keys) for upload in uploads)
        self._copies = servers * sum(len(upload.keys) for upload in uploads)
        self._bytes = self._stored = self._present = 0
        self._began = self._told = time.monotonic()

    def begin(self) -> None:
        """Say what is going to be uploaded, if that is much."""
        if self._objects >= MANY or self._total >= MUCH:
            where = f" to {self._servers} shards" if self._servers > 1 else ""
            self._say(f"uploading {self._objects} ML objects, {self._total / 1e6:.1f} MB{where}")

    def moved(self, count: int) -> None:
        """So many bytes were sent."""
        self._bytes += count
        if time.monotonic() - self._told >= PERIOD:
            done = self._stored + self._present
            self._say(f"uploading: {self._bytes / 1e6:.1f} MB sent, {done} of {self._copies} copies are there")

    def stored(self) -> None:
        """One copy is there."""
        self._stored += 1

    def present(self) -> None:
        """One copy was there before."""
        self._present += 1

    def end(self) -> None:
        """Say what was done."""
        seconds = time.monotonic() - self._began
        there = f"; there already: {self._present}" if self._present else ""
        self._say(f"copies of ML objects stored: {self._stored}, {self._bytes / 1e6:.1f} MB in {seconds:.2f} s{there}")

    def _say(self, words: str) -> None:
        self._told = time.monotonic()
        LOG.info("database %s: %s", self._database, words)
        self._tell(words)
