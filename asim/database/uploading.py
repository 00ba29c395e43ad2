"""ML objects into a colocated database, by the rank that started it, while the others wait. Blocking, and light."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import AsimError
from .config import ADMIN
from .talk import Address, Refused, Talk

BLOCK = 4 << 20
LOADING = 600.0
"""Seconds that a worker may take to import its backend and to load a model."""


def upload(address: Address, secret: str, objects: Sequence[Mapping[str, Any]]) -> None:
    """Upload what a configuration lists; see :func:`asim.database.targets.beside_config`.

    :param secret: of the user ``asim``.

    :raises AsimError: the first that failed: the object, the key, and the server's words.
    """
    if not objects:
        return
    talk = Talk(address, LOADING)
    try:
        talk("AUTH", ADMIN, secret)
        for hint in dict.fromkeys(tuple(hint) for one in objects for hint in one["prepare"]):
            with contextlib.suppress(Refused):  # a user's redisai.so does not know it
                talk("ASIM.PREPARE", *hint)
        for one in objects:
            for words in one["commands"]:
                try:
                    _store(talk, words, one)
                except (Refused, OSError, AsimError) as exc:
                    raise AsimError(f"{one['name']}: could not be stored as {words[1]!r}: {exc}") from exc
    finally:
        talk.close()


def _store(talk: Talk, words: Sequence[str | int], one: Mapping[str, Any]) -> None:
    with open(one["path"], "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        digest = hashlib.sha256()
        talk.begin([str(word) for word in words], 1)
        talk.send(b"$%d\r\n" % size)
        while size:
            block = file.read(min(size, BLOCK))
            if not block:
                raise AsimError(f"{one['path']} became shorter while it was uploaded")
            size -= len(block)
            digest.update(block)
            talk.send(block)
        talk.send(b"\r\n")
        talk.answer()
    _verify(talk, words, one, digest.hexdigest())


def _verify(talk: Talk, words: Sequence[str | int], one: Mapping[str, Any], digest: str) -> None:
    if one["digest"] and one["digest"] != digest:
        raise AsimError(f"{one['path']} was changed: its SHA-256 is {digest}, not {one['digest']}")
    found = _digest_there(talk, str(words[1]), words[0] == "AI.SCRIPTSET")
    if found and found != digest:
        raise AsimError(f"what is there afterwards differs: its SHA-256 is {found}, not {digest}")


def _digest_there(talk: Talk, key: str, script: bool) -> str:
    """The digest of what a worker has received; "": none has, and it is no script, whose text can be read back."""
    info = talk("AI.INFO", key)
    assert isinstance(info, list)
    found = dict(zip(info[::2], info[1::2], strict=False)).get(b"digest")
    if isinstance(found, bytes) and found:
        return found.decode("ascii", "replace").lower()
    source = talk("AI.SCRIPTGET", key, "SOURCE") if script else b""
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) and source else ""
