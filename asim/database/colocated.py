"""A database beside an application: ``python -m asim.database.colocated CONFIG -- PROGRAM ARGUMENT…``.

Every rank of the application is started through this program. The first one on a host starts a node
(:mod:`asim.database.node`); all wait until it is ready, and then *become* their program (``exec``), so that arguments,
exit codes and signals are nobody's business but the program's. How the end of the last rank is noticed:
:mod:`asim.database.ranks`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ..config import Config
from ..errors import AsimError
from .address import Address, address_variables
from .config import NodeConfig, report_of
from .ranks import is_locked, write_down
from .talk import Refused
from .uploading import upload

USAGE = "usage: python -m asim.database.colocated CONFIG -- PROGRAM [ARGUMENT ...]"


class Place:
    """The directory, private to this user, host and job, where the ranks of one host meet.

    :param mark: what the ranks of one job have in common and no other job has.
    """

    def __init__(self, mark: str) -> None:
        self._base = os.path.join(tempfile.gettempdir(), f"asim-{os.getuid()}")
        mark = f"{socket.gethostname()} {mark}"  # the directory of temporary files may be one for many hosts
        self.path = os.path.join(self._base, hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()[:24])
        self.alive = f"{self.path}/alive"
        self._stay = self._door = -1

    def enter(self) -> None:
        """Become one of those who need the place, then wait until nobody else is at its door.

        (The last node may just be removing the place: then there is a new one.)

        :raises AsimError: somebody else has a directory of that name, or the file system has no locks.
        """
        while True:
            _private(self._base)
            try:
                _private(self.path)
                self._stay = os.open(self.alive, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                self._door = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                continue
            os.set_inheritable(self._stay, True)
            self._lock()
            if _same(self._door, f"{self.path}/lock") and _same(self._stay, self.alive):
                write_down(self._stay)
                return
            os.close(self._stay)
            os.close(self._door)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._stay, fcntl.LOCK_SH)
            fcntl.flock(self._door, fcntl.LOCK_EX)
        except OSError as exc:
            shutil.rmtree(self.path, ignore_errors=True)
            what = f"files cannot be locked ({exc.strerror}); set TMPDIR to a directory on a disk of this host"
            raise AsimError(f"{self.path}: {what}") from exc

    def open_door(self) -> None:
        """Let the next rank in. The lock on ``alive`` stays until this process, or what it becomes, ends."""
        os.close(self._door)

    def leave(self) -> None:
        """Go without a database; who is last removes the place."""
        os.close(self._stay)
        if not is_locked(self.alive):
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._door)

    def read(self) -> dict[str, Any] | None:
        """What the first rank has found out, if there was one."""
        try:
            with open(f"{self.path}/database.json", "rb") as file:
                found: dict[str, Any] = json.load(file)
                return found
        except (FileNotFoundError, ValueError):
            return None

    def tell(self, report: Mapping[str, Any]) -> None:
        """Tell the other ranks."""
        with open(f"{self.path}/database.json", "w", encoding="utf-8") as file:
            json.dump(dict(report), file)


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _private(path: str) -> None:
    """A directory of this user alone.

    :raises AsimError: somebody else has one of that name.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise AsimError(f"{path} is not a private directory of this user; remove it, or set TMPDIR")


def database(config: NodeConfig, mark: str, objects: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The report of the database of this host; it is started if no rank has done so.

    :param objects: what is uploaded to it then, before any rank goes on; see :mod:`asim.database.uploading`.

    :raises AsimError: it could not be started.
    """
    place = Place(mark)
    place.enter()
    try:
        found = place.read()
        if found is None or not (_lives(found) or "error" in found):
            run, secret = secrets.token_hex(8), secrets.token_hex(32)
            mine = replace(config, run=run, secret=secret, directory=place.path, alive=place.alive)
            found = _filled(mine, objects)
            place.tell(found)
        if "error" in found:
            raise AsimError(f"no colocated database: {found['error']}")
    except BaseException:
        place.leave()
        raise
    place.open_door()
    return found


def _lives(report: Mapping[str, Any]) -> bool:
    try:
        os.kill(int(report["node_pid"]), 0)
    except (KeyError, ProcessLookupError):
        return False
    return True


def _filled(config: NodeConfig, objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Start a node, and upload; other ranks still wait at the door. (If this one fails, its node finds itself deserted.)"""
    report = _start(config)
    if objects and "error" not in report:
        address = (report["ip"], report["port"]) if report["port"] else report["socket"]
        try:
            upload(address, config.secret, objects)
        except (AsimError, OSError, Refused) as exc:
            return {"error": str(exc)}
    return report


def _start(config: NodeConfig) -> dict[str, Any]:
    """Start a node that is nobody's child, and wait for its report."""
    path = f"{config.directory}/node.json"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(config.to_json())
    argv = [sys.executable, "-P", "-m", "asim.database.node", path, "0"]
    gone, told = os.pipe()  # closed by the kernel when the node ends
    child = os.fork()
    if not child:
        _become_node(argv, told, f"{config.directory}/node.log")
    os.close(told)
    os.waitpid(child, 0)
    try:
        return _wait_for_report(config, gone)
    finally:
        os.close(gone)


def _become_node(argv: list[str], told: int, log: str) -> NoReturn:
    try:
        if os.fork():
            os._exit(0)
        os.setsid()  # so that who kills this rank's process group (mpiexec does) leaves the node to the others, and to tidy up
        os.set_inheritable(told, True)
        null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, number in ((null, 0), (out, 1), (out, 2)):
            os.dup2(fd, number)
        os.closerange(3, told)
        os.closerange(told + 1, 1 << 16)  # above all the lock on ``alive``, which is for the ranks
        os.execv(argv[0], argv)
    finally:
        os._exit(127)


def _wait_for_report(config: NodeConfig, gone: int) -> dict[str, Any]:
    import select

    patience = time.monotonic() + config.deadline + 10
    while time.monotonic() < patience:
        ended = bool(select.select([gone], [], [], 0.002)[0])
        try:
            with open(config.report(0), "rb") as file:
                report = report_of(file.read(), config.run)
        except FileNotFoundError:
            report = None
        if report is not None:
            return report
        if ended:
            with open(f"{config.directory}/node.log", encoding="utf-8", errors="replace") as file:
                return {"error": "its node ended: " + " ".join(file.read().split())[-500:]}
    return {"error": f"it was not ready within {config.deadline:g} s"}


def variables(report: Mapping[str, Any], identifier: str) -> dict[str, str]:
    """What the application is told."""
    host = f"unix://{report['socket']}" if report["socket"] else f"{report['ip']}:{report['port']}"
    return address_variables(Address(identifier=identifier, hosts=(host,)))


def become(argv: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Turn this process into the application. Exit codes 126 and 127 as of a shell: cannot be run, does not exist."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and that would be inherited
    try:
        os.execvpe(argv[0], argv, dict(environ))
    except OSError as exc:
        print(f"{argv[0]}: {exc.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(exc, FileNotFoundError) else 126)


def main(arguments: list[str]) -> int:
    """``colocated CONFIG -- PROGRAM ARGUMENT…``."""
    if len(arguments) < 3 or arguments[1] != "--":
        print(USAGE, file=sys.stderr)
        return 2
    environ = Config.from_env().environ
    with open(arguments[0], "rb") as file:
        asked = json.load(file)
    identifier, held, objects = asked.pop("identifier"), asked.pop("env"), asked.pop("objects")
    config = NodeConfig.from_json(json.dumps({**asked, "run": "", "directory": "", "secret": ""}))
    mark = f"{environ.get('ASIM_JOB_ID', '')} {os.path.abspath(arguments[0])}"
    try:
        report = database(config, mark, objects)
    except (AsimError, OSError) as exc:
        print(f"asim: {exc}", file=sys.stderr)
        return 1
    told = {key: value for key, value in variables(report, identifier).items() if not _set_by_user(key, environ)}
    become(arguments[2:], {**environ, **held, **told})


def _set_by_user(key: str, environ: Mapping[str, str]) -> bool:
    return key.startswith("SR_SOCKET_TIMEOUT") and key in environ


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
