"""Operations on the servers themselves. Addresses are ``host:port`` or ``unix:///path``; without one, all servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError, ConfigTypeError, DatabaseError, allowed
from ..cluster import Shard
from ..codec import Arg, Command, command
from ..core import Core
from ..keys import shard_key, to_bytes, to_name
from ..options import parse_address
from ..steps import Op, Shards
from .placing import get_key

Addresses = str | Sequence[str] | None
CONTAINERS = frozenset(
    {"ACL", "AI.CONFIG", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "FUNCTION", "MEMORY", "MODULE", "OBJECT"}
)
"""Commands whose first argument says what they do."""
_SHARD_TAG = re.compile(rb"\A\{[^}]*\}\.", re.DOTALL)


def get_db_node_info(core: Core, addresses: Addresses = None) -> Op[list[dict[str, dict[str, str]]]]:
    """What servers say of themselves (INFO EVERYTHING).

    :param addresses: of the servers; None = all.
    :returns: for each server: section -> name -> value.
    """
    return [_sections(reply) for reply in (yield from _each(core, addresses, "INFO EVERYTHING"))]


def get_db_cluster_info(core: Core, addresses: Addresses = None) -> Op[list[dict[str, str]]]:
    """What servers say of their cluster (CLUSTER INFO).

    :param addresses: of the servers; None = all.
    :raises ConfigError: this client was not told that the database is a cluster.
    """
    if not core.options.cluster:
        raise ConfigError(allowed("cluster", False, "the database of this client is a single server"))
    return [_pairs(reply) for reply in (yield from _each(core, addresses, "CLUSTER INFO"))]


def get_ai_info(core: Core, addresses: Addresses, key: str, reset_stat: bool = False) -> Op[list[dict[str, str | int]]]:
    """The statistics of a model or script.

    :param addresses: of the servers; None = all.
    :param key: the model's name.
    :param reset_stat: set the counters to zero; with RedisAI, which then answers nothing else, the dicts are empty.
    :returns: for each server: key, type, backend, device, tag, duration (microseconds), samples, calls, errors.
    :raises DatabaseError: there is no such model.
    """
    shards: Sequence[Shard] = yield Shards()
    tags = {shard.address: shard.tag for shard in reversed(shards)}
    name = get_key(core, key)
    words: tuple[Arg, ...] = (b"RESETSTAT",) if reset_stat else ()
    commands = []
    for address in _chosen(core, addresses, shards):
        if shards and address not in tags:
            raise ConfigError(allowed("addresses", address, f"must be among {', '.join(tags)}"))
        copy = shard_key(tags[address], name) if shards else name
        commands.append(command("AI.INFO", copy, *words, again=not reset_stat, address=address))
    replies: list[Any] = yield commands
    return [_statistics(reply) for reply in replies]


def flush_db(core: Core, addresses: Addresses = None) -> Op[None]:
    """Remove everything from servers.

    :param addresses: of the servers; None = all.
    """
    yield from _each(core, addresses, "FLUSHDB")


def config_get(core: Core, expression: str, address: str | None = None) -> Op[dict[str, str]]:
    """A server's settings.

    :param expression: a name or a pattern with ``*``.
    :param address: of the server; None = the one that the client was given, or any of a cluster.
    """
    reply: list[bytes] = (yield from _each(core, address or _any(core), "CONFIG GET", expression))[0]
    words = list(map(to_name, reply))
    return dict(zip(words[::2], words[1::2], strict=True))


def config_set(core: Core, config_param: str, value: str, address: str | None = None) -> Op[None]:
    """Change one of a server's settings, until it ends.

    :param config_param: the setting's name.
    :param address: of the server; None = all.
    :raises DatabaseError: there is no such setting, or the value is not allowed.
    """
    yield from _each(core, address, "CONFIG SET", config_param, str(value))


def save(core: Core, addresses: Addresses = None) -> Op[None]:
    """Have servers write what they hold to their disks; returns when they have.

    :param addresses: of the servers; None = all.
    """
    yield from _each(core, addresses, "SAVE")


def execute(core: Core, *words: Arg, key: str | bytes | None = None, address: str | None = None) -> Op[Any]:
    """Send any command, as a way out where this class has no method.

    It has a connection of its own for its time, so it may block; but what it changes of the connection itself (SELECT,
    SUBSCRIBE, MULTI) has no place here.

    :param words: the command and its arguments.
    :param key: the key that decides which server of a cluster is asked; None = any.
    :param address: the server to ask, instead.
    :returns: the reply: bytes, int, None, or a list of them.
    :raises DatabaseError: the server answered with an error.
    :raises DatabaseConnectionError: the connection was lost, and it may or may not have been done.
    """
    verb, *rest = map(_word, words)
    name = to_name(verb) if isinstance(verb, bytes) else str(verb)
    if name.upper() in CONTAINERS and rest and isinstance(rest[0], str) and rest[0].isalpha():
        name = " ".join([name, rest[0]])  # as errors show it
        del rest[0]
    plain = command(name, None, *rest, again=False, alone=True, address=address)
    place = key if key is None or isinstance(key, bytes) else to_bytes(key)
    reply: Any = yield Command(plain.parts, plain.verb, place, plain.again, plain.alone, plain.address)
    return list(reply) if isinstance(reply, tuple) else reply


def _word(word: object) -> Arg:
    """A word of a command.

    :raises ConfigTypeError: it is something that Redis has no text for.
    """
    if isinstance(word, float):
        return repr(word)
    if isinstance(word, bool) or not isinstance(word, (str, int, bytes, bytearray, memoryview)):
        raise ConfigTypeError(allowed("words", word, "must be str, bytes, int or float"))
    return memoryview(word) if isinstance(word, bytearray) else word


def _any(core: Core) -> str:
    return core.options.address


def _chosen(core: Core, addresses: Addresses, shards: Sequence[Shard]) -> list[str]:
    """The servers to ask."""
    if addresses is None:
        return list(dict.fromkeys(shard.address for shard in shards)) or [core.options.address]
    return [parse_address(one) for one in ([addresses] if isinstance(addresses, str) else addresses)]


def _each(core: Core, addresses: Addresses, verb: str, *args: Arg) -> Op[list[Any]]:
    """One command to each of some servers."""
    shards: Sequence[Shard] = yield Shards()
    replies: list[Any] = yield [command(verb, None, *args, address=one) for one in _chosen(core, addresses, shards)]
    return replies


def _pairs(reply: bytes) -> dict[str, str]:
    """Lines ``name:value``."""
    lines = (line.partition(":") for line in to_name(reply).splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def _sections(reply: bytes) -> dict[str, dict[str, str]]:
    """Lines ``name:value`` under lines ``# Section``."""
    parts = re.split(rb"^# *", b"\n" + reply, flags=re.MULTILINE)[1:]
    return {to_name(part.splitlines()[0].strip()): _pairs(part) for part in parts}


def _statistics(reply: Any) -> dict[str, str | int]:
    """The flat array of AI.INFO; the tag of a shard is no part of a model's name."""
    if not isinstance(reply, list):
        return {}
    if len(reply) % 2:
        raise DatabaseError(f"AI.INFO: unexpected reply {reply!r:.200}", "AI.INFO")
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {
        to_name(name): to_name(_SHARD_TAG.sub(b"", value)) if isinstance(value, bytes) else int(value)
        for name, value in pairs
    }
