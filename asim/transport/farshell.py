"""Small programs on the far side, run by its ``/bin/sh``, whatever the user's shell and its start-up files say.

Every answer is one line that begins with a mark; whatever else is written is noise, and shown only when there is no
answer.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncssh

from ..errors import AgentError
from .sshlink import CUT, Connected, opened, was_cut
from .tries import Tries

MARK = b"\nASIM-LINK "
NOISE = 1 << 20
"""Bytes that start-up files may write before the first answer."""
SLOW = 60.0
"""Seconds that start-up files and a small program may take."""
FLAGS = "-I -S -E"
CANDIDATES = ["python3", *(f"python3.{minor}" for minor in range(14, 5, -1)), "/usr/bin/python3", "python"]

PROBE = """
for python in %s; do
  "$python" %s -c 'import sys; sys.exit(sys.version_info < (3, 6))' </dev/null >/dev/null 2>&1 || continue
  exec "$python" %s - <<'ASIM-END'
%s
ASIM-END
done
printf '\\nASIM-LINK nopython\\n'
"""
LOOK = """
import hashlib, json, os, socket, stat, sys
cache, name, data = os.path.expanduser(%r).rstrip('/') or '/', %r, %r
path = os.path.join(cache, name)
def ours(info, kind):
    return kind(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022
def opened(path, flags, mode):
    return os.fdopen(os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600), mode)
def write(data):
    temporary = os.path.join(cache, '.%%s.%%s' %% (name, os.urandom(8).hex()))
    with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 'wb') as file:
        file.write(data)
    os.rename(temporary, path)
def digest():
    try:
        with opened(path, os.O_RDONLY, 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest() if ours(os.fstat(file.fileno()), stat.S_ISREG) else ''
    except OSError:
        return ''
why = found = ''
try:
    if data:
        os.makedirs(cache, 0o700, exist_ok=True)
    if not ours(os.lstat(cache), stat.S_ISDIR):
        raise OSError(cache + ' must be a directory of yours, no link, that nobody else can write to (chmod go-w); '
            'or name another one by ssh.cache')
    if data:
        import base64
        write(base64.b64decode(data))
    found = digest()
except OSError as exc:
    why = str(exc)
print('\\nASIM-LINK here ' + json.dumps({'python': sys.executable, 'path': path, 'digest': found, 'why': why,
    'version': sys.version.split()[0], 'host': socket.gethostname(), 'home': os.path.expanduser('~'), 'cache': cache}))
"""
LOGIN = """
case "$SHELL" in */bash|*/zsh|*/ksh|*/sh|*/dash) ;; *) SHELL=/bin/sh ;; esac
"$SHELL" -lc 'exec "$0" "$@"' %s </dev/null
"""
"""As in a login shell, so that commands are found where the user finds them."""

SFTP = (
    "exec /bin/sh -c 'for p in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/lib64/ssh /usr/libexec; do "
    'p="$p/sftp-server"; if [ -x "$p" ]; then printf "\\nASIM-LINK sftp\\n"; exec "$p"; fi; done; '
    'printf "\\nASIM-LINK none\\n"\''
)
"""Runs the server's own program after a line that ends the noise (in which OpenSSH's clients drown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """What is known of the far side.

    :ivar python: its interpreter.
    :ivar agent: the path of the agent's file.
    :ivar home: the user's home.
    :ivar host: its own name.
    """

    python: str
    agent: str
    home: str
    host: str
    cache: str

    def command(self, *arguments: str) -> str:
        """A command line that runs the agent's file."""
        return " ".join(map(shlex.quote, [self.python, *FLAGS.split(), self.agent, *arguments]))


class _Process(asyncssh.SSHClientProcess[bytes]):
    """Tells whenever something comes, and whether that is more noise than there may be."""

    def __init__(self, heard: Callable[[bool], None]) -> None:
        super().__init__()
        self._heard, self._noise, self._tail = heard, 0, b""

    def data_received(self, data: bytes, datatype: Any) -> None:
        if MARK not in self._tail:
            self._noise += len(data)
            if not datatype:
                self._tail = self._tail[-len(MARK) :] + data
        self._heard(self._noise > NOISE and MARK not in self._tail)
        super().data_received(data, datatype)


async def _run(connection: asyncssh.SSHClientConnection, script: str, heard: Callable[[bool], None]) -> Any:
    """How ``/bin/sh`` there ended, and what it wrote."""

    async def make() -> tuple[Any, Any]:
        return await connection.create_session(lambda: _Process(heard), "exec /bin/sh", encoding=None)

    channel, process = await opened(connection, make)
    try:
        channel.write(script.encode(errors="surrogateescape"))
        channel.write_eof()
        return await process.wait()
    finally:
        channel.close()  # of one that is given up: it ends at the latest when it next says something


async def shell(
    connection: asyncssh.SSHClientConnection, script: str, timeout: float = SLOW, *, talks: bool = False
) -> list[str]:
    """Run a script by ``/bin/sh`` there; the words of its (last) answer.

    :param timeout: seconds that it may take.
    :param talks: it says something now and then while it works; ``timeout`` is how long it may be silent.
    :raises AgentError: there is no answer, or not in time; with what was written instead.
    Cancellation: the channel is closed; the script may go on.
    """
    flooded = False
    try:
        async with asyncio.timeout(timeout) as limit:

            def heard(too_much: bool) -> None:
                nonlocal flooded
                flooded = flooded or too_much  # it may never end: whatever comes is kept
                if flooded or talks:
                    with contextlib.suppress(RuntimeError):  # nobody waits any longer
                        limit.reschedule(asyncio.get_running_loop().time() + (0 if flooded else timeout))

            done = await _run(connection, script, heard)
    except TimeoutError:
        if flooded:
            raise AgentError(f"more than {NOISE} bytes came before the far side's answer") from None
        what = "said nothing for" if talks else "did not end in"
        raise AgentError(f"the far side's start-up files or the program after them {what} {timeout:g} s") from None
    except CUT as exc:
        raise AgentError(f"a command could not be run there: {exc}") from exc
    output = _bytes(done.stdout)
    _, mark, line = output.rpartition(MARK)
    if not mark and done.exit_status is None and done.exit_signal is None:
        raise AgentError("a command could not be run there: the link is cut") from ConnectionError()
    if not mark:
        said = (output[-1000:] + b"\n" + _bytes(done.stderr)[-1000:]).decode(errors="replace").strip()
        raise AgentError(f"the far side did not answer as expected (exit code {done.exit_status}): {said}")
    return line.partition(b"\n")[0].decode(errors="surrogateescape").split(" ", 2)


async def ask(
    connected: Connected, script: str, timeout: float = SLOW, *, talks: bool = False, patience: float = SLOW
) -> list[str]:
    """As :func:`shell`, again over the new link when this one is cut: for what may be done twice.

    :param patience: seconds after which it is given up, when every new link is cut, too.
    """
    tries = Tries(patience)
    while True:
        live = await connected()
        try:
            return await shell(live, script, timeout, talks=talks)
        except AgentError as exc:
            if not isinstance(exc.__cause__, CUT) or not await was_cut(live):
                raise
            await tries.again(exc)


class _Quiet:
    """A connection whose SFTP sessions begin after the noise; without a server program the subsystem must do."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def open_session(self, *given: Any, **named: Any) -> Any:
        writer, reader, errors = await self._connection.open_session(SFTP, encoding=None)
        try:
            async with asyncio.timeout(SLOW):
                await reader.readuntil(MARK)
                kind = await reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, TimeoutError) as exc:
            writer.close()
            raise ConnectionError("the far side did not answer as expected") from exc
        if kind == b"sftp\n":
            return writer, reader, errors
        writer.close()
        return await self._connection.open_session(*given, **named)


async def sftp(connection: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
    """A new SFTP client."""
    quiet: Any = _Quiet(connection)
    return await asyncssh.SSHClientConnection.start_sftp_client(quiet)


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else b""


def _found(words: list[str]) -> dict[str, str]:
    """What :data:`LOOK` says."""
    found = decoded(words)
    if not (isinstance(found, dict) and {"python", "path", "digest", "why", "home", "host", "cache"} <= found.keys()):
        raise AgentError(f"the far side did not answer as expected: {' '.join(words)[:1000]}")
    return found


def decoded(words: list[str]) -> Any:
    """The JSON in an answer.

    :raises AgentError: it is none.
    """
    try:
        return json.loads(" ".join(words))
    except ValueError:
        raise AgentError(f"the far side did not answer as expected: {' '.join(words)[:1000]}") from None


async def prepare(
    connection: asyncssh.SSHClientConnection, python: str | None, cache: str, name: str, data: bytes
) -> Far:
    """Find an interpreter there, and see to it that the agent's file is there, whole.

    :raises AgentError: there is no usable Python, or the file cannot be written.
    """
    wanted = hashlib.sha256(data).hexdigest()
    found: dict[str, str] = {}
    for contents in (b"", data):
        look = LOOK % (cache, name, base64.b64encode(contents).decode())
        names = " ".join(map(shlex.quote, [python] if python else CANDIDATES))
        kind, *rest = await shell(connection, PROBE % (names, FLAGS, FLAGS, look))
        if kind != "here":
            what = python or "none of " + ", ".join(CANDIDATES)
            raise AgentError(f"no usable Python there: {what} is Python 3.6 or later; name one by ssh.python")
        found = _found(rest)
        if found["digest"] == wanted:
            return Far(python=found["python"], agent=found["path"], **{k: found[k] for k in ("home", "host", "cache")})
    raise AgentError(f"the agent's file cannot be written there: {found['path']}: {found['why'] or 'it is not whole'}")


async def serve(connection: asyncssh.SSHClientConnection, far: Far, token: str) -> str:
    """Start the agent's daemon, unless it is there; the directory of its socket.

    :raises AgentError: it cannot be started.
    """
    place = far.cache + "/run"
    command = far.command("serve", place, token)
    try:
        answer = await shell(connection, LOGIN % command)
    except AgentError:  # a login shell that does something else: without it
        answer = await shell(connection, command + " </dev/null")
    if answer[0] != "serving" or len(answer) < 3:
        raise AgentError(f"the agent cannot be started there: {' '.join(answer[2:])}")
    return answer[2]
