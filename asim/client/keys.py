"""Names to keys: prefixes, hash slots, and the tags of a cluster's shards, without any I/O."""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass, field

from ..errors import ConfigError, ConfigTypeError, allowed

SLOTS = 16384


def to_bytes(name: str) -> bytes:
    """A name as it is on the wire; names that came from there come out as they were."""
    if not isinstance(name, str):
        raise ConfigTypeError(allowed("name", name, "must be a string"))
    if not name:
        raise ConfigError(allowed("name", name, "must not be empty"))
    return name.encode(errors="surrogateescape")


def to_name(key: bytes) -> str:
    """The reverse of :func:`to_bytes`."""
    return key.decode(errors="surrogateescape")


@dataclass(slots=True, kw_only=True)
class Prefixes:
    """What is put before names: ``write`` where something is stored, ``read`` where it is looked for.

    :ivar sources: the prefixes that :meth:`read_from` allows.
    :ivar tensors, datasets, lists, models: whether names of this kind are prefixed at all.
    """

    write: str = ""
    sources: tuple[str, ...] = ()
    read: str = field(init=False)
    tensors: bool = True
    datasets: bool = True
    lists: bool = True
    models: bool = False

    def __post_init__(self) -> None:
        self.read = self.sources[0] if self.sources else ""

    def read_from(self, source: str) -> None:
        """Look for names of another producer from now on.

        :raises ConfigError: it is not among ``sources``.
        """
        if source not in self.sources:
            raise ConfigError(allowed("source_id", source, f"must be one of SSKEYIN = {', '.join(self.sources)!r}"))
        self.read = source

    def put(self, name: str, wanted: bool) -> bytes:
        """The key under which something is stored."""
        return to_bytes(f"{self.write}.{name}") if wanted and self.write and to_bytes(name) else to_bytes(name)

    def get(self, name: str, wanted: bool) -> bytes:
        """The key under which something is looked for."""
        return to_bytes(f"{self.read}.{name}") if wanted and self.read and to_bytes(name) else to_bytes(name)


def dataset_key(key: bytes, name: str) -> bytes:
    """A dataset's base key: the prefix of ``key``, then the name in braces, so that all of its parts share a slot."""
    bare = to_bytes(name)
    return key[: len(key) - len(bare)] + b"{" + bare + b"}"


def dataset_name(base: bytes) -> str:
    """The name in a dataset's base key."""
    start = base.find(b"{")
    return to_name(base[start + 1 : -1] if base.endswith(b"}") else base)


# -- clusters


def slot_of(key: bytes) -> int:
    """The hash slot of a key: that of the text between its first ``{`` and the first ``}`` after it, if there is any."""
    start = key.find(b"{")
    if start >= 0:
        stop = key.find(b"}", start + 1)
        if stop > start + 1:
            key = key[start + 1 : stop]
    return crc_hqx(key, 0) % SLOTS


def shard_tag(slot: int) -> bytes:
    """The text of two bytes (rarely three) whose hash slot is ``slot``, the one that every SmartRedis client finds.

    It is CRC16 run backwards: multiples of its polynomial are added until the lowest bits are gone, and what then
    stands above them is the text. Where that has a brace, which would end the tag, the next bits are cleared too.
    """
    value, cleared = slot, 0
    while cleared < 16 or set(tag := _bytes_above(value, cleared)) & set(b"{}"):
        if value >> cleared & 1:
            value ^= 0x11021 << cleared
        cleared += 1
    return tag


def _bytes_above(value: int, cleared: int) -> bytes:
    """What stands above the remainder of 16 bits, in as many bytes as bits were cleared."""
    return (value >> 16).to_bytes((cleared + 7) // 8, "big")


def shard_key(tag: bytes, key: bytes) -> bytes:
    """The key of one shard's copy of a model, script or temporary tensor."""
    return b"{" + tag + b"}." + key
