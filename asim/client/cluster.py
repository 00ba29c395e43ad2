"""Which server of a cluster has which keys, and what its redirections mean, without any I/O."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

from ..errors import DatabaseError
from .keys import SLOTS, shard_tag
from .options import host_and_port


class Shard(NamedTuple):
    """A range of hash slots on one server; ``tag`` is in the keys of its copies of models and scripts."""

    first: int
    last: int
    address: str
    tag: bytes


class SlotMap:
    """Slot -> server, from the reply to ``CLUSTER SLOTS`` and from what ``MOVED`` teaches since.

    :param reply: the server's reply.
    :param asked: the address that answered; servers that do not know their own host are reached by this one's.
    :raises DatabaseError: the reply makes no sense, or a slot has no server.
    """

    def __init__(self, reply: Any, asked: str) -> None:
        try:
            self.shards = tuple(sorted(_shard(row, asked) for row in reply))
        except (TypeError, ValueError, IndexError) as exc:
            raise DatabaseError(f"CLUSTER SLOTS: unexpected reply {reply!r:.200}", "CLUSTER SLOTS") from exc
        if sum(shard.last - shard.first + 1 for shard in self.shards) != SLOTS:
            raise DatabaseError(f"CLUSTER SLOTS: {asked} does not know the servers of all slots", "CLUSTER SLOTS")
        self._firsts = [shard.first for shard in self.shards]
        self._moved: dict[int, str] = {}

    def shard(self, slot: int) -> Shard:
        """The range that a slot is in."""
        return self.shards[bisect_right(self._firsts, slot) - 1]

    def address(self, slot: int) -> str:
        """The server that has a slot now."""
        return self._moved.get(slot) or self.shard(slot).address

    def moved(self, slot: int, address: str) -> None:
        """Remember that a slot is on another server than the map said."""
        self._moved[slot] = address

    @property
    def addresses(self) -> list[str]:
        """All servers that have slots, each once."""
        return list(dict.fromkeys(shard.address for shard in self.shards))


def _shard(row: Any, asked: str) -> Shard:
    """One row of CLUSTER SLOTS: first, last, [host, port, ...], replicas."""
    first, last, (host, port, *_) = row[:3]
    return Shard(int(first), int(last), joined(host.decode() if host else "", port, asked), shard_tag(first))


def joined(host: str, port: int | str, asked: str) -> str:
    """An address that a server gave; an empty or unknown host means the one that was asked."""
    if host in ("", "?"):
        host = host_and_port(asked)[0]
    return f"{host}:{int(port)}"


class Redirect(NamedTuple):
    """Where a command should go instead: for good (``MOVED``), or this once after ``ASKING`` (``ASK``)."""

    slot: int
    address: str
    asking: bool


def redirect(text: str, asked: str) -> Redirect | None:
    """What an error reply says about the place of a key; None if it says something else."""
    words = text.split()
    if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    return Redirect(int(words[1]), joined(host, port, asked), words[0] == "ASK")


BUSY = ("LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN")
"""Errors that say that a command was not done and may be soon."""
