"""What an Experiment does with the output of its jobs: following it while they run, and having it here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config import Config
from .entities import Entity
from .errors import ConfigError, UnsupportedError, allowed
from .status import JobState
from .values import one_of

if TYPE_CHECKING:
    from .launching import Launching
    from .runtime.session import Session

LOOK = 0.25
"""Seconds between two looks at a file that is followed."""
Stream = Literal["stdout", "stderr"]


class Outputs:
    """The methods of :class:`~asim.Experiment` for output files."""

    name: str
    config: Config
    _launching: Launching
    _session: Session | None

    if TYPE_CHECKING:  # Experiment has them

        def _runtime(self) -> Session: ...
        def _jobs(self, entities: Any) -> list[Any]: ...

    @property
    def local_path(self) -> Path:
        """Where output files are on this machine: the experiment's directory, or with ``host=`` their copies in
        ``<current directory>/<name>``.
        """
        if self._launching.far is not None:
            return Path(self.config.cwd, self.name)
        return Path(self._runtime().path)

    async def fetch(self, *entities: Entity) -> list[Path]:
        """Copy output files of these entities (none given: of all) from the far host to :attr:`local_path`.

        What ``SSHOptions.fetch`` says is copied: output files, or what matches its patterns in the directories of jobs.
        Only what differs is sent. This is done at the end by itself.

        :returns: the files here.
        :raises UnsupportedError: this experiment has no far host.
        :raises AgentError: there is no link.
        :raises FileActionError: a file cannot be read there, or written here; the others were fetched.
        Cancellation: files that are whole stay.
        """
        far = self._launching.far
        if far is None:
            raise UnsupportedError(allowed("host", None, "output files are on this machine already"))
        session = self._runtime()
        jobs = self._jobs(entities) if entities else list(session.monitor.latest.values())
        return await session.written.fetch(jobs, str(self.local_path))

    async def follow(self, entity: Entity, stream: Stream = "stdout") -> AsyncIterator[str]:
        """The lines of a job's output as they are written, from its first; ends when the job has ended. Those of each
        attempt follow those of the one before.

        A line that was not finished is given at the end. Bytes that are no UTF-8 become U+FFFD.

        :param entity: a model that was started.
        :raises ConfigError: it was never started, or is an ensemble.
        Cancellation: nothing happens to the job.
        """
        import anyio

        jobs = self._jobs([entity])
        if len(jobs) != 1:
            raise ConfigError(allowed("entity", entity.name, "must be one model; of an ensemble, one of its members"))
        job = jobs[0]
        path = job.spec.stderr if one_of("stream", stream, ("stdout", "stderr")) == "stderr" else job.spec.stdout
        session, offset, rest, attempt = self._runtime(), 0, b"", job.attempt
        while True:
            ended = job.status.terminal
            if job.attempt != attempt and job.status is not JobState.PENDING:  # a new file; the old one was put aside
                if rest:
                    yield rest.decode("utf-8", "replace")
                offset, rest, attempt = 0, b"", job.attempt
            data = await session.written.read_from(path, offset)
            offset += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace")
            if ended and not data:
                break
            if not data:
                with anyio.move_on_after(LOOK):
                    await job.wait()
        if rest:
            yield rest.decode("utf-8", "replace")
