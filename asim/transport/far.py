"""A far host as the rest of asim sees it: what is there, what must be sent there, and what comes back.

Paths of users mean this machine where files are attached and read, and the far one where jobs run. What is attached is
sent once, under a name made of its content's place, into the experiment's directory there; the agent makes the copies.
"""

from __future__ import annotations

import base64
import fnmatch
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from anyio import to_thread

from ..agent.protocol import FileAction
from ..errors import AgentError, ConfigError, allowed
from .host import Host
from .options import SSHOptions
from .staging import listed

if TYPE_CHECKING:
    from .ssh import SSHAgent

LOG = logging.getLogger("asim")
READ = 'for p; do [ -f "$p" ] && base64 < "$p" | tr -d "\\n"; echo; done'
EXIST = 'for p; do if [ -e "$p" ] || [ -L "$p" ]; then echo y; else echo n; fi; done'
PART = '[ ! -f "$2" ] || { tail -c +"$1" | head -c "$3"; } < "$2"'
TEXTS = '{ print FILENAME ":" $0 }'
PIECE = 4 << 20
"""Bytes that are read of a file at once."""
SLICE = 200
"""Paths that one command is given."""
FIND = 60.0
"""Seconds that one command may take."""
MISSING = ": No such file or directory"
"""How find(1) ends a line about what is not there, or vanished while it looked."""


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

    @property
    def linked(self) -> bool:
        """Whether there is a connection that is not known to be cut."""
        return self._agent is not None and self._agent.link.up is not None

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
        """What a file has from ``offset`` on, :data:`PIECE` bytes at most; b"" if it is not there.

        :raises AgentError: it cannot be read.
        """
        _, talk = self._ready()
        done = await talk.run(("sh", "-c", PART, "sh", str(offset + 1), path, str(PIECE)), timeout=FIND)
        if done.code != 0:
            raise AgentError(f"{self.host}: {path} cannot be read: {done.words()}")
        return done.stdout.encode("utf-8", "surrogateescape")

    async def files_below(self, folder: str, *tests: str) -> list[str]:
        """The files in a directory there and below, as far as they pass these tests of find(1); none without it.

        :raises AgentError: not all of it can be looked at.
        """
        found, trouble = await self._find(folder, *tests)
        if trouble is not None:
            raise trouble
        return found

    async def _find(self, folder: str, *tests: str) -> tuple[list[str], AgentError | None]:
        """Those that are found, and why there may be more."""
        _, talk = self._ready()
        done = await talk.run(("env", "LC_ALL=C", "find", folder, *tests, "-type", "f", "-print0"), timeout=FIND)
        missing = done.code == 1 and all(line.endswith(MISSING) for line in done.stderr.splitlines())
        trouble = None if done.code == 0 or missing else AgentError(f"{self.host}: {done.words()}")
        return done.stdout.split("\0")[:-1], trouble  # behind the last mark may be a part of a path

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
        places, folders, files = await to_thread.run_sync(listed, sorted(sources), root)
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
        :raises AgentError: there is no link any more, or not all of these folders can be looked at.
        :raises FileActionError: a file cannot be fetched. In both cases the others were, as far as there is a link.
        """
        agent, _ = self._ready()
        wanted, trouble = self.options.fetch, None
        if wanted == "never":
            return []
        if wanted == "end":
            paths = await self.exist(dict.fromkeys(outputs))
        else:
            paths, trouble = await self._matching(folders, wanted)
        inside = self.directory.rstrip("/") + "/"
        rows = [(path, _below_here(to, path.removeprefix(inside))) for path in sorted(paths) if path.startswith(inside)]
        taken = [(path, here) for path, here in rows if here]
        await agent.get(taken, gone_ok=wanted != "end")
        if trouble is not None:
            raise trouble
        return await to_thread.run_sync(lambda: [here for _, here in taken if os.path.exists(here)])

    async def _matching(
        self, folders: Iterable[str], patterns: Sequence[str]
    ) -> tuple[frozenset[str], AgentError | None]:
        found: set[str] = set()
        trouble: AgentError | None = None
        for folder in dict.fromkeys(folders):
            paths, missed = await self._find(folder)
            trouble = trouble or missed
            found |= set(_that_match(self.host, folder, paths, patterns))
        return frozenset(found), trouble


def _that_match(host: str, folder: str, paths: Iterable[str], patterns: Sequence[str]) -> Iterator[str]:
    for path in paths:
        below, name = path.removeprefix(f"{folder.rstrip('/')}/"), path.rpartition("/")[2]
        if not any(fnmatch.fnmatch(below, one) or fnmatch.fnmatch(name, one) for one in patterns):
            continue
        if below.startswith(("/", "../")) or os.path.normpath(below) != below:  # no honest find(1) says so
            LOG.warning("%s names a file that cannot be in %s: %r; it is not fetched", host, folder, path)
        else:
            yield path


def _below_here(to: str, below: str) -> str:
    """Where a file goes; "" (and a warning) if that would be outside of ``to``: the far side must not write there."""
    here = os.path.normpath(f"{to}/{below}")
    if here.startswith(os.path.normpath(to).rstrip("/") + "/"):
        return here
    LOG.warning("%r would be written outside of %s; it is not fetched", here, to)
    return ""


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
