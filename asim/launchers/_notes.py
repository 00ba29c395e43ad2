"""What a driver learns of batch jobs, for the run's journal: so that it is known later, by others."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ..agent.protocol import FileAction
from .base import JobKey, JobStatus


class Notes:
    """Kept until they are written down.

    :param journal: path of the journal.
    :param files: does file actions where it is.
    """

    def __init__(self, journal: str, files: Callable[[Iterable[FileAction]], Awaitable[None]]) -> None:
        self._journal, self._files = journal, files
        self._rows: list[dict[str, object]] = []

    def submitted(self, job: str, launcher: str, script: str, keys: Sequence[JobKey]) -> None:
        """A submit was accepted."""
        self._rows.append({"batch": job, "launcher": launcher, "script": script, "keys": keys})

    def ended(self, key: JobKey, status: JobStatus) -> None:
        """A member has come to its end."""
        row = {"ended": key, "status": status.state.value, "reason": status.reason}
        self._rows.append({**row, "time": status.time or time.time(), "code": status.code})

    async def write_down(self) -> None:
        """Append them to the journal.

        :raises FileActionError: that is impossible.
        """
        rows, self._rows = self._rows, []
        if rows:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            await self._files([("append", self._journal, text)])
