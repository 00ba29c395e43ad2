"""What all batch systems share: the script around the members' commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from ..errors import ConfigError, ConfigTypeError, UnsupportedError, allowed
from ._text import (
    LOG,
    Text,
    Value,
    checked,
    directive_value,
    flag_short,
    given,
    names,
    program,
    scalar,
    whole,
)
from .script import Member, Places, body


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchContext:
    """What a batch script needs and the settings do not know.

    :ivar name: the job's name.
    :ivar stdout: file for the script's own output.
    :ivar stderr: file for its errors.
    :ivar places: where members tell of themselves.
    """

    name: str
    stdout: str
    stderr: str
    places: Places


class BatchSettings:
    """What a batch system is asked for. Use the subclass of your system.

    :param batch_cmd: the submit command, a word or a path.
    :param batch_args: further options in order, without dashes. 0 is a value; ``None``, ``""`` and True are options
        without value (PBS and SGE: only True is); False leaves the option out.
    :param nodes: number of nodes.
    :param queue: queue or partition.
    :param time: time limit, as the system wants it written.
    :param account: account to charge.
    :raises ConfigError: bad text; ConfigTypeError for a wrong type. Both name the field and the value.
    """

    PREFIX: ClassVar[str] = "#"
    """What directives begin with."""
    FLAGS: ClassVar[Mapping[str, str]] = {}
    """Setter -> option."""
    BARE: ClassVar[bool] = True
    """Whether None and "" are options without value; otherwise they are refused."""
    ARRAYS: ClassVar[frozenset[str]] = frozenset()
    """Options that would run the script several times."""
    REPLACED: ClassVar[str] = ""
    """What the system does not leave as it is in the path of an output file (a regular expression); "": nothing."""
    FORWARDS: ClassVar[bool] = False
    """Whether a signal that the scheduler sends may reach the script alone, which then passes it on."""
    _flag = staticmethod(flag_short)

    def __init__(
        self,
        batch_cmd: str,
        batch_args: Mapping[str, Value] | None = None,
        *,
        nodes: int | None = None,
        queue: str | None = None,
        time: str | None = None,
        account: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in kwargs.items():
            raise ConfigTypeError(allowed(name, value, f"{type(self).__name__} has no such argument"))
        self.shebang = "#!/bin/bash"
        self.preamble: list[str] = []
        self.set_batch_command(batch_cmd)
        self.batch_args: dict[str, Value] = {}
        for name, item in (batch_args or {}).items():
            self.set_batch_arg(name, item)
        if nodes is not None:
            self.set_nodes(nodes)
        if queue:
            self.set_queue(queue)
        if time:
            self.set_walltime(time)
        if account:
            self.set_account(account)

    # --- setters

    def set_batch_command(self, command: str) -> None:
        """Submit with this command, a word or a path."""
        self.batch_cmd = program("batch_cmd", command)

    def set_batch_arg(self, arg: str, value: Value = None) -> None:
        """Set any option of the batch system; dashes in front are not needed."""
        key = checked("batch_args name", arg).strip().lstrip("-")
        if not key:
            raise ConfigError(allowed("batch_args name", arg, "must not be empty"))
        self.batch_args[key] = scalar(f"batch_args[{arg!r}]", value)

    def set_nodes(self, num_nodes: int) -> None:
        """Ask for this many nodes."""
        self._put("set_nodes", whole("nodes", num_nodes))

    def set_hostlist(self, host_list: Text) -> None:
        """Ask for these hosts: one name or a list of names."""
        self._put("set_hostlist", ",".join(names("host_list", host_list)))

    def set_queue(self, queue: str) -> None:
        """Submit to this queue."""
        self._put("set_queue", program("queue", queue))

    def set_walltime(self, walltime: str) -> None:
        """Time limit, as the system wants it written."""
        self._put("set_walltime", program("walltime", walltime))

    def set_account(self, account: str) -> None:
        """Charge this account."""
        self._put("set_account", program("account", account))

    def add_preamble(self, lines: Text) -> None:
        """Add shell lines that run before the members: one line or a list of lines. They are written as they are."""
        self.preamble += [checked("lines", lines)] if isinstance(lines, str) else _lines(lines)

    def copy(self) -> Self:
        """An independent copy."""
        twin = object.__new__(type(self))
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value.copy() if isinstance(value, (dict, list)) else value
        return twin

    # --- text

    def format_batch_args(self) -> list[str]:
        """The options, one text each, without the directive's prefix."""
        return self._options(self.batch_args)

    def directives(self, context: BatchContext) -> list[str]:
        """The scheduler's lines at the head of the script.

        :raises ConfigError: an option's value has a line break, or lacks its value.
        :raises UnsupportedError: an option would make an array, or the system would write to other files than ours.
        """
        texts = [*self._fixed(context), *self.format_batch_args()]
        for text in texts:
            directive_value("directive", text)  # whatever it is made of, it must stay one line
        return [f"{self.PREFIX} {text}" for text in texts]

    def script(self, context: BatchContext, members: Sequence[Member]) -> str:
        """The whole batch script.

        The members run at the same time, each in its directory, or in an array one in each task. The script ends when
        all have, with exit code 0 only if every one of them did; otherwise with that of one that failed.

        :param members: their commands; see :mod:`asim.settings.script` for what they tell.
        """
        places = replace(context.places, forwards=self.FORWARDS)
        head = [self.shebang, *self.directives(context), "", *self.preamble]
        return "\n".join([*head, body(members, places)])

    def submit_argv(self, script: str) -> tuple[str, ...]:
        """The command that submits a script.

        :param script: its path.
        """
        return (self.batch_cmd, script)

    # --- for subclasses

    def _fixed(self, context: BatchContext) -> list[str]:
        """Name and output files."""
        self._check_files(context)
        fixed = {"o": context.stdout, "e": context.stderr, "N": context.name}
        return [text for key, value in fixed.items() for text in self._option(key, value)]

    def _check_files(self, context: BatchContext) -> None:
        """Refuse output files that would be others."""
        for field, path in (("stdout", context.stdout), ("stderr", context.stderr)):
            if self.REPLACED and (found := re.search(self.REPLACED, path)):
                what = f"{self.batch_cmd} does not leave {found[0]!r} in it as it is: use another exp_path or name"
                raise UnsupportedError(allowed(field, path, what))

    def _options(self, args: Mapping[str, Value]) -> list[str]:
        for key, value in args.items():
            if key in self.ARRAYS and value is not False:
                what = 'would run every member once in each task; pack="array" makes the members the tasks of an array'
                raise UnsupportedError(allowed(f"batch_args[{key!r}]", value, what))
            if not self.BARE and (value is None or value == ""):
                what = "needs a value (True for an option that has none)"
                raise ConfigError(allowed(f"batch_args[{key!r}]", value, what))
        return [text for key, value in given(args).items() for text in self._option(key, value)]

    def _option(self, key: str, text: str | None) -> list[str]:
        """One option, as one text."""
        quoted = None if text is None else directive_value(key, text)
        return [" ".join(self._flag(key, quoted))]

    def _put(self, setter: str, value: Value) -> None:
        if setter in self.FLAGS:
            self.batch_args[self.FLAGS[setter]] = value
        else:
            LOG.warning("%s has no option for %s: ignored", type(self).__name__, setter)


def _lines(lines: Text) -> list[str]:
    if not isinstance(lines, Sequence):
        raise ConfigTypeError(allowed("lines", lines, "must be str or a list of str"))
    return [checked(f"lines[{index}]", line) for index, line in enumerate(lines)]
