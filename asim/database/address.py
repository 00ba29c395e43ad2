"""Where a running database is, and how applications are told."""

from __future__ import annotations

from dataclasses import dataclass

SOCKET_TIMEOUT_MS = 60_000
"""SmartRedis' own default, 250 ms, makes it repeat any inference that takes longer."""
MOST_ADDRESSES = 128
"""SmartRedis cuts a longer list in the middle of an address."""
STANDARD = "orchestrator"
"""The identifier whose variables have no suffix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How a running database is reached.

    :ivar identifier: its name.
    :ivar hosts: ``host:port`` of each shard, or one ``unix:///path``.
    """

    identifier: str
    hosts: tuple[str, ...]

    @property
    def cluster(self) -> bool:
        """Whether it has several shards."""
        return len(self.hosts) > 1


def suffix(identifier: str) -> str:
    """What follows the names of the variables of this database."""
    return f"_{identifier}" if identifier and identifier != STANDARD else ""


def address_variables(address: Address) -> dict[str, str]:
    """The variables that say where a database is."""
    end = suffix(address.identifier)
    return {
        f"SSDB{end}": ",".join(address.hosts[:MOST_ADDRESSES]),
        f"SR_DB_TYPE{end}": "Clustered" if address.cluster else "Standalone",
        f"SR_SOCKET_TIMEOUT{end}": str(SOCKET_TIMEOUT_MS),
    }
