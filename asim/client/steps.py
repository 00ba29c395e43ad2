"""What operations ask of their driver, and what the driver asks of a face: the vocabulary between the layers.

An operation is a generator: it yields steps, receives their results, and returns the operation's result. It knows no
sockets and no event loop, so one text of each operation serves both faces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from .codec import Command

T = TypeVar("T")


class Pause(NamedTuple):
    """Wait for some seconds."""

    seconds: float


class Blocking(NamedTuple):
    """Call something that reads files; its result is the step's."""

    call: Callable[[], Any]


class Shards(NamedTuple):
    """Asks for the cluster's shards, in order of their slots; none when the database is a single server."""


class Each(NamedTuple):
    """Commands, sent together, whose error replies do not raise: they are among the results, as exceptions."""

    commands: Sequence[Command]


Step = Command | list[Command] | Each | Pause | Blocking | Shards
"""A command gives its reply, a list of commands (sent together) the list of their replies; an error reply raises."""

Op = Generator[Step, Any, T]


class Exchange(NamedTuple):
    """Commands for one server, to be sent together; the outcome is the list of their replies, or a :class:`Lost`.

    ``patience`` is how many seconds the replies may take.
    """

    address: str
    commands: Sequence[Command]
    patience: float


class Lost(Exception):
    """A connection that could not be made, or broke before all replies had come.

    :ivar sent: whether the server may have seen the commands.
    :ivar late: the replies took longer than the exchange allows.
    :ivar final: trying again cannot help.
    """

    def __init__(self, reason: str, *, sent: bool, late: bool = False, final: bool = False) -> None:
        super().__init__(reason)
        self.sent, self.late, self.final = sent, late, final


Outcome = list[Any] | Lost
Flow = Generator[list[Exchange] | Pause | Blocking, Any, T]
"""What a face performs: exchanges at the same time (giving their outcomes in order), a pause, a blocking call."""
