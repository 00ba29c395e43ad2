"""What an Experiment does with databases, beside starting them like everything else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .entities import Orchestrator
from .errors import ConfigError, ConfigTypeError, DatabaseError, allowed
from .values import check_text

if TYPE_CHECKING:
    from .client.client import Client
    from .entities.mlobjects import MLObject
    from .runtime.session import Session


class Databases:
    """The methods of :class:`~asim.Experiment` for databases."""

    name: str

    if TYPE_CHECKING:  # Experiment has it

        def _runtime(self) -> Session: ...

    async def reconnect_orchestrator(self, checkpoint: str | os.PathLike[str]) -> Orchestrator:
        """Use a database that another process started, perhaps on another day, and left running.

        What is started from now on is told of it. It does not end with this experiment; :meth:`stop` ends it.

        :param checkpoint: its ``checkpoint_file``. (JSON, readable by its owner only: it holds a password.)
        :raises MissingFileError: there is no such file.
        :raises ConfigError: it is something else.
        :raises DatabaseError: the database is not alive any more, or another server has its address.
        """
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise ConfigTypeError(allowed("checkpoint", checkpoint, "must be a path (str or os.PathLike)"))
        return await self._runtime().reconnect(check_text("checkpoint", os.fspath(checkpoint)))

    def client(self, database: Orchestrator | None = None, **options: Any) -> Client:
        """A client of a running database: ``async with exp.client() as client``.

        :param database: None: the only one that runs.
        :param options: see :class:`~asim.Client`.
        :raises ConfigError: none runs, or several and none was named.
        """
        from .client.client import Client

        running = list(self._runtime().databases.usable)
        if database is None and len(running) != 1:
            shown = ", ".join(entity.name for entity in running) or "none"
            raise ConfigError(allowed("database", None, f"exactly one must be running, but there run: {shown}"))
        chosen = running[0] if database is None else database
        if chosen not in running:
            raise DatabaseError(f"database {chosen.name} is not running in experiment {self.name}")
        options.setdefault("route", self._runtime().route)
        return Client(chosen.get_address()[0], cluster=chosen.is_cluster, **options)

    async def upload(self, database: Orchestrator, *objects: MLObject, replace: bool = False) -> None:
        """Have ML models, scripts and functions in a running database; returns when workers have loaded them.

        Everything is uploaded at once, in a cluster to every shard. What is there already is not sent again.

        :param database: it runs in this experiment.
        :param objects: each an :class:`~asim.MLModel`, :class:`~asim.Script` or :class:`~asim.Function`.
        :param replace: they may take the place of others with their names that this experiment uploaded.
        :raises ConfigError: an object could never be stored; MissingFileError: its file is not there.
        :raises EntityExistsError: a different object has one of its keys.
        :raises DatabaseError: the database does not run, or refused one of them; its text has the object, the key, the
            shard, and the words of the server. The other objects may be there, or not.

        Cancellation: what is under way is given up. What is stored whole stays, and is not sent again the next time.
        """
        if not isinstance(database, Orchestrator):
            raise ConfigTypeError(allowed("database", database, "must be an Orchestrator"))
        await self._runtime().upload(database, objects, replace=replace)
