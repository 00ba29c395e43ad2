"""Which database training data go through, as the uploader and the downloader are told it."""

from __future__ import annotations

from typing import TypeVar

from ..client.core import Core
from ..client.face import Face
from ..client.keys import Prefixes, to_bytes
from ..client.options import Options, from_environ
from ..config import Config
from ..errors import ConfigTypeError, allowed

AnyFace = TypeVar("AnyFace", bound=Face)


def whereabouts(address: str | None, cluster: bool | None, client: Face | None) -> tuple[Options, Prefixes]:
    """Where the database is, and the prefixes of names.

    :param address: None = what the environment says; otherwise that is asked for the prefixes only.
    :param cluster: None = what the environment says, or with an address of one's own a single server.
    :param client: one that is there already, which is not asked for anything else then.
    :raises ConfigError: there is no address, or a value makes no sense.
    """
    if client is not None:
        return client._core.options, client._core.prefixes
    environ = dict(Config.from_env().environ)
    if address is not None:
        environ["SSDB"] = address.removeprefix("tcp://")
        environ.setdefault("SR_DB_TYPE", "Standalone")
    if cluster is not None:
        environ["SR_DB_TYPE"] = "Clustered" if cluster else "Standalone"
    return from_environ(environ)


def checked_face(client: object, kind: type[AnyFace]) -> AnyFace | None:
    """A client that was given, if it is of the right face.

    :raises ConfigTypeError: it is not.
    """
    if client is None or isinstance(client, kind):
        return client
    what = f"must be an asim.{kind.__name__}; the classes without Sync take asim.Client, the others asim.SyncClient"
    raise ConfigTypeError(allowed("client", type(client).__name__, what))


def connected(kind: type[AnyFace], options: Options, prefixes: Prefixes) -> AnyFace:
    """A client made of what :func:`whereabouts` found; nothing is connected yet."""
    made = kind.__new__(kind)
    made._begin(Core(options, prefixes))
    return made


def sources(prefixes: Prefixes, name: str, wanted: bool) -> list[bytes]:
    """The keys under which something may be: one for each producer that was registered, or the bare name."""
    producers = prefixes.sources if wanted else ()
    return [to_bytes(f"{one}.{name}") for one in producers] or [to_bytes(name)]
