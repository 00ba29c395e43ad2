"""Submitting batch jobs: their scripts, the submits at the same time, and what is known of those under way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import anyio

from ..errors import AgentError, AsimError, SubmitError
from ..status import JobState
from ._driver import Party, Scheduler
from ._notes import Notes
from .base import JobKey, JobStatus
from .batches import Folders, Submit
from .tracking import Evidence, Tracker

if TYPE_CHECKING:
    from ..agent.protocol import FileAction

LOG = logging.getLogger("asim")
Files = Callable[[Iterable["FileAction"]], Awaitable[None]]


class Submitting:
    """The submits of one experiment.

    :param tracker: follows what was accepted.
    :param notes: for the journal.
    :param folders: where scripts and the files of members are.
    :param files: does file actions there.
    :param accepted: awaited for each accepted submit, with what its members have told already.
    :ivar pending: mark of each submit that has no answer yet -> its members.
    """

    def __init__(
        self,
        tracker: Tracker,
        notes: Notes,
        folders: Folders,
        files: Files,
        accepted: Callable[[Submit, Evidence], Awaitable[None]],
    ) -> None:
        self._tracker, self._notes, self._folders = tracker, notes, folders
        self._files, self._accepted = files, accepted
        self.pending: dict[str, Sequence[JobKey]] = {}

    async def submit(self, scheduler: Scheduler, by: Party, wanted: Sequence[Submit], *, alone: bool) -> Evidence:
        """All at the same time, as far as the scheduler takes them; returns the ends of members that were refused.

        :param alone: there is nothing else in this start, so that it fails if nothing was taken.
        :raises SubmitError: nothing was taken.
        :raises AgentError: no command could be run any more.
        """
        actions: list[FileAction] = [("mkdirs", folder) for folder in self._folders]
        actions += [("write", submit.batch.script, submit.text, 0o700) for submit in wanted]
        await self._files(actions)
        refusals: list[tuple[Submit, AsimError]] = []

        async def one(submit: Submit) -> None:
            try:
                await self._one(scheduler, by, submit)
            except AsimError as exc:
                refusals.append((submit, exc))

        async with anyio.create_task_group() as group:
            for submit in wanted:
                group.start_soon(one, submit)
        for _, exc in refusals:
            if isinstance(exc, AgentError) or (alone and len(refusals) == len(wanted)):
                raise exc
        return [
            (key, JobStatus(JobState.FAILED, 0.0, reason=f"could not be submitted: {exc}"))
            for submit, exc in refusals
            for key in submit.keys
        ]

    async def _one(self, scheduler: Scheduler, by: Party, submit: Submit) -> None:
        batch, name = submit.batch, scheduler.dialect.name
        self._tracker.expect(submit.keys)
        self.pending[batch.mark] = submit.keys
        try:
            job = await scheduler.submit(by, batch)
            if job is None:
                await self.call_off([batch.mark])
                words = f"{batch.name}: {name} does not say whether it was submitted, so it was called off"
                raise SubmitError(words, transient=True)
            tasks = [scheduler.dialect.task(job, number) for number in range(batch.size)]
            early = self._tracker.add(job, submit.keys, tasks, anyio.current_time())
        finally:
            self.pending.pop(batch.mark, None)
            self._tracker.forget(submit.keys)
        self._notes.submitted(job, name, batch.script, submit.keys)
        LOG.info("%s: %s job %s, %s", batch.name, name, job, batch.script)
        await self._accepted(submit, early)

    async def call_off(self, names: Iterable[JobKey | str]) -> None:
        """Keep members, and whole scripts by their marks, from starting; end those members whose scripts look for it."""
        actions: list[FileAction] = [("append", f"{self._folders.stops}/{name}", "") for name in names]  # may be there
        if actions:
            await self._files(actions)
