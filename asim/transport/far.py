"""A far host as the rest of asim sees it: what is there, what must be sent there, and what comes back.

Paths of users mean this machine where files are attached and read, and the far one where jobs run. What is attached is
sent once, under a name made of its content's place, into the experiment's directory there; the agent makes the copies.
"""

from __future__ import annotations

import base64
import errno
import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from anyio import to_thread

from ..agent.protocol import FileAction
from ..errors import AgentError, ConfigError, FileActionError, allowed
from .host import Host
from .options import SSHOptions

if TYPE_CHECKING:
    from .ssh import SSHAgent

READ = 'for p; do [ -f "$p" ] && base64 < "$p" | tr -d "\\n"; echo; done'
EXIST = 'for p; do if [ -e "$p" ] || [ -L "$p" ]; then echo y; else echo n; fi; done'
PART = '[ ! -f "$2" ] || tail -c +"$1" "$2" | head -c "$3"'
TEXTS = '{ print FILENAME ":" $0 }'
PIECE = 4 << 20
"""Bytes that are read of a file at once."""
SLICE = 200
"""Paths that one command is given."""
FIND = 60.0


class FarHost:
    """The host of ``Experiment(host=...)``.

    :param host: ``user@host``, or a name of the SSH config file.
    :param options: how to reach it.
    :ivar directory: the experiment's directory there, absolute once :meth:`resolve` was called.
    """

    def __init__(self, host: str, options: SSHOptions, directory: str) -> None:
        self.host, self.options, self.directory = host, options, directory
        self._agent: SSHAgent | None = None
        self._talk: Host | None = None

    # -- connecting

    async def resolve(self) -> str:
        """Connect once, and learn where ``~`` is.

        :raises AgentError: the host cannot be reached.
        """
        if not self.directory.startswith("~"):
            return self.directory
        from .farshell import ask
        from .ssh import SSHAgent

        agent = SSHAgent(self.host, self.options)
        try:
            home = " ".join((await ask(agent.link.get, "printf '\\nASIM-LINK home %s\\n' \"$HOME\""))[1:]).strip()
        finally:
            await agent.link.close()
        if not home.startswith("/"):
            raise AgentError(f"{self.host} says that the home there is {home!r}: give exp_path as an absolute path")
        self.directory = home + self.directory[1:]
        return self.directory

    def agent(self) -> SSHAgent:
        """A new agent there, of a launcher that is about to be opened."""
        from .ssh import SSHAgent

        self._agent = SSHAgent(self.host, self.options)
        return self._agent

    def bind(self, host: Host) -> None:
        """That agent can now be asked."""
        self._talk = host

    def _ready(self) -> tuple[SSHAgent, Host]:
        if self._agent is None or self._talk is None:
            raise AgentError(f"{self.host} has not been connected to")
        return self._agent, self._talk

    @property
    def where(self) -> str:
        """What tells this host from others: one name may lead to several, by other ports or on other ways."""
        return f"{self.host} {self.options}"

    # -- looking

    async def read(self, paths: Sequence[str]) -> list[bytes]:
        """What these files have in them; b"" for one that is not there."""
        return [base64.b64decode(line) for line in await self._each(READ, paths)]

    async def exist(self, paths: Iterable[str]) -> frozenset[str]:
        """Those of these paths that are taken there."""
        wanted = list(paths)
        answers = await self._each(EXIST, wanted)
        return frozenset(path for path, answer in zip(wanted, answers, strict=True) if answer == "y")

    async def read_from(self, path: str, offset: int) -> bytes:
        """What a file has from ``offset`` on, :data:`PIECE` bytes at most; b"" if it is not there."""
        _, talk = self._ready()
        done = await talk.run(("sh", "-c", PART, "sh", str(offset + 1), path, str(PIECE)), timeout=FIND)
        return done.stdout.encode("utf-8", "surrogateescape") if done.code == 0 else b""

    async def files_below(self, folder: str, *tests: str) -> list[str]:
        """The files in a directory there and below, as far as they pass these tests of find(1); none without it."""
        _, talk = self._ready()
        done = await talk.run(("find", folder, *tests, "-type", "f", "-print0"), timeout=FIND)
        return [path for path in done.stdout.split("\0") if path]

    async def texts_below(self, folder: str, *tests: str) -> dict[str, str]:
        """What is in these files: path below the directory -> lines. By two programs, however many files there are.

        :raises AgentError: there is no such directory, or one of them cannot be read.
        """
        _, talk = self._ready()
        command = ("find", ".", *tests, "-type", "f", "-exec", "awk", TEXTS, "{}", "+")
        done = await talk.run(command, cwd=folder, timeout=FIND)
        if done.code != 0:
            raise AgentError(f"{self.host}: {done.words()}")
        found: dict[str, str] = {}
        for row in filter(None, done.stdout.split("\n")):
            path, _, line = row.removeprefix("./").partition(":")
            found[path] = f"{found.get(path, '')}{line}\n"
        return found

    async def _each(self, script: str, paths: Sequence[str]) -> list[str]:
        _, talk = self._ready()
        lines: list[str] = []
        for start in range(0, len(paths), SLICE):
            done = await talk.run(("sh", "-c", script, "sh", *paths[start : start + SLICE]), timeout=FIND)
            if done.code != 0:
                raise AgentError(f"{self.host}: {done.words()}")
            lines += done.stdout.splitlines()
        return lines

    async def route(self, address: str) -> str:
        """From the address of a server there to one here that leads to it."""
        agent, _ = self._ready()
        if address.startswith("unix://"):
            return f"127.0.0.1:{await agent.forward_path(address.removeprefix('unix://'))}"
        host, _, port = address.rpartition(":")
        return f"127.0.0.1:{await agent.forward(host.strip('[]'), int(port))}"

    # -- sending

    async def staged(self, actions: Iterable[FileAction]) -> list[FileAction]:
        """The same actions with the sources of copies and links sent there first, as far as they are not there yet.

        :raises FileActionError: a source cannot be read, or the far side refused it.
        """
        taken = list(actions)
        sources = {action[2] for action in taken if action[0] in ("copy", "symlink")}
        if not sources:
            return taken
        agent, _ = self._ready()
        root = f"{self.directory}/.asim/staged"
        places, folders, files = await to_thread.run_sync(_listed, sorted(sources), root)
        await self._make([("mkdirs", folder) for folder in folders])
        await agent.put(files)
        return [
            (action[0], action[1], places[action[2]], *action[3:]) if action[0] in ("copy", "symlink") else action
            for action in taken
        ]

    async def _make(self, actions: list[FileAction]) -> None:
        _, talk = self._ready()
        await talk.files(actions)

    # -- fetching

    async def fetch(self, outputs: Iterable[str], folders: Iterable[str], to: str) -> list[str]:
        """Copy files from there: these outputs, or with patterns (``SSHOptions.fetch``) what matches in these folders.

        :param to: directory here; below it everything has the place that it has below the experiment's directory there.
        :returns: the paths here.
        :raises AgentError: there is no link any more.
        """
        agent, _ = self._ready()
        wanted = self.options.fetch
        if wanted == "never":
            return []
        paths = await self.exist(dict.fromkeys(outputs)) if wanted == "end" else await self._matching(folders, wanted)
        inside = self.directory.rstrip("/") + "/"
        rows = [(path, f"{to}/{path.removeprefix(inside)}") for path in sorted(paths) if path.startswith(inside)]
        await agent.get(rows)
        return [here for _, here in rows]

    async def _matching(self, folders: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
        found: set[str] = set()
        for folder in dict.fromkeys(folders):
            for path in await self.files_below(folder):
                below, name = path.removeprefix(f"{folder}/"), path.rpartition("/")[2]
                if any(fnmatch.fnmatch(below, one) or fnmatch.fnmatch(name, one) for one in patterns):
                    found.add(path)
        return frozenset(found)


def _listed(sources: Sequence[str], root: str) -> tuple[dict[str, str], list[str], list[tuple[str, str]]]:
    """Where each source goes below ``root``; directories to make there; (here, there) of every file (blocking).

    What is in a directory is part of the name of its place, so that nothing is left there of what was in it before.
    """
    places: dict[str, str] = {}
    folders: list[str] = []
    files: list[tuple[str, str]] = []
    for path in sources:
        inner, names = _below(path) if os.path.isdir(path) else ([], [""])
        told = "\0".join((path, *inner, "", *names))
        place = f"{root}/{hashlib.sha256(os.fsencode(told)).hexdigest()[:16]}"
        there = places[path] = f"{place}/{os.path.basename(path)}"
        folders += [there + name for name in inner] or [place]
        files += [(path + name, there + name) for name in names]
    for here, _ in files:
        _regular(here)
    return places, folders, files


def _below(path: str) -> tuple[list[str], list[str]]:
    """The directories and files below one, as what is to be added to its path. Links are followed."""
    inner: list[str] = []
    names: list[str] = []
    for folder, _, found in os.walk(path, onerror=_refuse, followlinks=True):
        inner.append(folder[len(path) :])
        names += [f"{folder[len(path) :]}/{name}" for name in found]
    return sorted(inner), sorted(names)


def _regular(path: str) -> None:
    """Reading anything but a file (a pipe, say) may never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "not a file or directory", path)
    except OSError as exc:
        _refuse(exc)


def _refuse(error: OSError) -> None:
    raise FileActionError(f"{error.strerror}: {error.filename}", error.errno, error.filename, "stage") from error


def directory_of(name: str, given: str | None) -> str:
    """The experiment's directory on a far host: absolute, or from the home there.

    :raises ConfigError: it is relative.
    """
    path = f"~/{name}" if given in (None, name) else given  # an Experiment has its name for a directory by default
    found = os.path.normpath(path)
    if not path.startswith(("/", "~/")) or not found.startswith(("/", "~")):
        raise ConfigError(
            allowed("exp_path", path, "with host= it must be absolute, or begin with ~/ (the home there)")
        )
    return found
