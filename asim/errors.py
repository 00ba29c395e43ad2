"""Every error that asim raises on purpose.

One root, :class:`AsimError`. Three kinds below it:

- *permanent*: the same input will always fail (:class:`ConfigError` and its subclasses, :class:`UnsupportedError`);
- *of the machinery*: a file could not be written, an agent died (:class:`FileActionError`, :class:`AgentError`,
  :class:`SubmitError`, whose ``transient`` says whether trying again can help; :class:`AllocationError`);
- *of a database* (:class:`DatabaseError` and its subclasses): they carry the command and what the server said;
- *of a job*: :class:`JobFailed`, raised only where the caller asked for it with ``check=True``.

The permanent ones also derive from the built-in exception that Python users expect (``ValueError``, ``TypeError``,
``FileNotFoundError`` …), so ``except FileNotFoundError`` works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class AsimError(Exception):
    """Root of all errors raised on purpose by asim."""


class ConfigError(AsimError, ValueError):
    """Input that can never work; the text names the field, the value and what is allowed."""


class ConfigTypeError(ConfigError, TypeError):
    """An argument of the wrong type."""


class MissingFileError(ConfigError, FileNotFoundError):
    """A file, directory or executable that the input names does not exist."""


class EntityExistsError(ConfigError, FileExistsError):
    """A name or a directory is already taken."""


class TemplateError(ConfigError):
    """A tagged input file cannot be configured (binary, or with strict tags something was left over)."""


class UserStrategyError(ConfigError):
    """A user-supplied permutation strategy returned something else than a list of dicts."""


class UnsupportedError(AsimError):
    """A combination that this launcher, platform or version cannot do."""


class MissingExtraError(AsimError, ImportError):
    """An optional dependency is not installed; the text has the exact ``pip install`` line."""


class FileActionError(AsimError, OSError):
    """A file could not be made, copied, moved or removed; nothing half made is left behind.

    :ivar errno: the operating system's error number.
    :ivar filename: the path that it was about.
    :ivar verb: the action that failed.
    :ivar done: how many actions of its batch were done before.
    """

    def __init__(
        self, message: str, errno: int | None = None, filename: str | None = None, verb: str = "", done: int = 0
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.filename = filename
        self.verb, self.done = verb, done

    def __str__(self) -> str:
        return str(self.args[0])


class AgentError(AsimError):
    """The agent could not be started, broke its protocol, or died while it was needed."""


class SubmitError(AsimError):
    """Jobs could not be handed to their launcher.

    :ivar transient: whether the same submit may succeed later.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class AllocationError(AsimError):
    """An allocation could not be had or given back, or this program is in none; the text has the scheduler's words."""


class JobFailed(AsimError):
    """Raised on request (``check=True``) when jobs did not complete.

    :ivar jobs: the jobs that did not complete.
    """

    def __init__(self, message: str, jobs: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.jobs = tuple(jobs)


class DatabaseError(AsimError):
    """A database answered with an error, or with something that makes no sense.

    :ivar command: what was asked, in short (``AI.TENSORGET key``).
    :ivar reply: the server's own words; empty when it said nothing.
    """

    def __init__(self, message: str, command: str = "", reply: str = "") -> None:
        super().__init__(message)
        self.command, self.reply = command, reply

    def __str__(self) -> str:
        return str(self.args[0])


class DatabaseConnectionError(DatabaseError, ConnectionError):
    """A database could not be reached in time, or the connection broke and the command cannot safely be sent again."""


class DatabaseTimeout(DatabaseError, TimeoutError):
    """A database took longer than the caller allows, or what was waited for did not come."""


class KeyNotFoundError(DatabaseError, KeyError):
    """There is no tensor, dataset, list, model or script of that name."""


def allowed(field: str, value: object, what: str) -> str:
    """The one wording of bad input: the field, the value it had, and what is allowed."""
    return f"{field} = {value!r}: {what}"
