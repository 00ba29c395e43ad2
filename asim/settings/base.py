"""Run settings: what is run, and the words of the run command that places it. Pure text in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, ClassVar, Self

from ..errors import ConfigError, ConfigTypeError, UnsupportedError, allowed
from ..units import Seconds, seconds
from ._setters import Setters
from ._text import LOG, Text, Value, checked, environment, flag_literal, given, program, scalar, whole, words
from .container import Container
from .step import Step, StepContext

__all__ = ["RunSettings", "Step", "StepContext"]


class RunSettings(Setters):
    """An executable, its arguments and environment, and optionally a run command whose arguments are taken literally.

    :param exe: executable, a word or a path; it is not looked up here.
    :param exe_args: arguments; a str is split at blanks, the items of a list are one argument each.
    :param run_command: parallel start prefix; a word is lower-cased, a path stays.
    :param run_args: its arguments in order. 0 is a value; ``None``, ``""`` and True are flags without value; False
        leaves the flag out. In this class keys are literal (``{"-np": 2}``), the subclasses add the dashes.
    :param env_vars: environment variables; None is "no value" (see :meth:`format_env_vars`).
    :param container: the container that the executable runs in.
    :param timeout: limit for one attempt, in seconds or a ``timedelta``.
    :param retries: how often to try again; kept as given.
    :raises ConfigError: bad text; ConfigTypeError for a wrong type. Both name the field and the value.
    """

    RESERVED: ClassVar[frozenset[str]] = frozenset()
    """Arguments that asim itself gives, so that users cannot."""
    FAMILY: ClassVar[str] = ""
    """Settings of one family can run together in one MPMD command; "" cannot."""
    OWN_FILES: ClassVar[bool] = False
    """Whether the run command is told its output files; otherwise a batch script redirects."""
    _IGNORED: ClassVar[frozenset[str]] = frozenset({"alloc", "fail_if_missing_exec"})  # other classes' arguments
    _flag = staticmethod(flag_literal)

    def __init__(
        self,
        exe: str | PathLike[str],
        exe_args: Text | None = None,
        run_command: str = "",
        run_args: Mapping[str, Value] | None = None,
        env_vars: Mapping[str, Value] | None = None,
        container: Container | None = None,
        *,
        timeout: Seconds | None = None,
        retries: Any = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs.keys() - self._IGNORED:
            raise ConfigTypeError(allowed(name, kwargs[name], f"{type(self).__name__} has no such argument"))
        if container is not None and not isinstance(container, Container):
            raise ConfigTypeError(allowed("container", container, "must be a Container"))
        self.exe = program("exe", exe)
        self.exe_args = exe_args
        run_command = checked("run_command", run_command)
        self.run_command = run_command if "/" in run_command else run_command.lower()
        self.run_args = run_args
        self.env_vars = env_vars
        self.container = container
        self.mpmd = []
        self.timeout = seconds("timeout", timeout)
        self.retries = retries
        self.node_memory = None

    @property
    def exe_args(self) -> list[str]:
        """The executable's arguments, one item each. Assigning a str splits it at blanks."""
        return self._exe_args

    @exe_args.setter
    def exe_args(self, value: Text | None) -> None:
        self._exe_args = words("exe_args", value)

    @property
    def run_args(self) -> dict[str, Value]:
        """The run command's arguments in order. Assigning copies, and drops reserved ones with a warning."""
        return self._run_args

    @run_args.setter
    def run_args(self, value: Mapping[str, Value] | None) -> None:
        self._run_args: dict[str, Value] = {}
        for name, item in (value or {}).items():
            key = self._key(name)
            if not self._refused(key):
                self._run_args[key] = scalar(f"run_args[{name!r}]", item)

    @property
    def env_vars(self) -> dict[str, str | None]:
        """Environment variables as text. Assigning copies and checks."""
        return self._env_vars

    @env_vars.setter
    def env_vars(self, value: Mapping[str, Value] | None) -> None:
        self._env_vars = environment(value)

    # --- changing

    def update_env(self, env_vars: Mapping[str, Value]) -> None:
        """Set environment variables.

        :param env_vars: name -> str, int, float, bool (kept as text) or None.
        :raises ConfigError: an empty name, ``=`` or NUL in a name, NUL in a value, a value of another type.
        """
        self._env_vars.update(environment(env_vars))

    def add_exe_args(self, args: Text) -> None:
        """Append arguments of the executable: a str is split at blanks, a list is taken item by item."""
        self._exe_args.extend(words("args", args))

    def set(self, arg: str, value: Value = None, condition: bool = True) -> None:
        """Set any argument of the run command; dashes in front are not needed (but literal in :class:`RunSettings`).

        A reserved argument is ignored with a warning; one that is already set is replaced with a warning.

        :param arg: its name.
        :param value: its value; None, "" and True are a flag without value, False leaves it out.
        :param condition: set it only if this is true.
        :raises ConfigTypeError: ``arg`` or ``value`` has the wrong type.
        """
        key, value = self._key(arg), scalar(f"run_args[{arg!r}]", value)
        if not condition:
            LOG.info("%s: %s not set, its condition is false", type(self).__name__, key)
        elif not self._refused(key):
            if key in self._run_args and self._run_args[key] != value:
                LOG.warning("%s: %s=%r replaces %r", type(self).__name__, key, value, self._run_args[key])
            self._run_args[key] = value

    def make_mpmd(self, settings: RunSettings) -> None:
        """Run another program in the same command (multiple program, multiple data).

        :param settings: the other program, of the same family of settings.
        :raises UnsupportedError: it belongs to another run command, or has an MPMD list itself.
        """
        if not self.FAMILY:
            self._lacks("make_mpmd")
        elif not isinstance(settings, RunSettings):
            raise ConfigTypeError(allowed("settings", settings, "must be run settings"))
        elif settings.FAMILY != self.FAMILY or settings.mpmd or settings is self:
            what = (
                f"an MPMD part of {type(self).__name__} must be another {self.FAMILY} settings without MPMD of its own"
            )
            raise UnsupportedError(allowed("settings", settings, what))
        else:
            self.mpmd.append(settings)

    def copy(self) -> Self:
        """An independent copy: changing one never changes the other."""
        twin = object.__new__(type(self))
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value.copy() if isinstance(value, (dict, list)) else value
        twin.mpmd = [part.copy() for part in self.mpmd]
        return twin

    # --- text

    def format_run_args(self) -> list[str]:
        """The run command's arguments as argument-list items."""
        args, dropped = {**self._run_args, **self._memory()}, self._dropped()
        return [item for key, text in given(args).items() if key not in dropped for item in self._flag(key, text)]

    def format_env_vars(self) -> list[str]:
        """The environment in this run command's own style; here ``K=V``, and ``K=`` for None."""
        return self._env_flags(self._env_vars)

    def step(self, context: StepContext) -> Step:
        """The command of one job.

        With ``context.launcher == "local"`` the agent places the process: directory, output files and environment are
        not in the command. Otherwise the run command is told all that. Settings without a run command that asim
        knows are placed by the agent everywhere.

        :raises UnsupportedError: the parts of an MPMD job need different values of one variable.
        """
        if context.launcher == "local" or not self.FAMILY:
            argv, env = self._command(context), self._union("_local_env")
        else:
            argv, env = self._command(context, self._head(context)), self._union("_spilled")
        out, err = (context.stdout, context.stderr) if context.in_batch and not self.OWN_FILES else ("", "")
        return Step(argv=tuple(argv), env=env, files=self._files(context), stdout=out, stderr=err)

    def placeless(self, launcher: str) -> bool:
        """Whether :meth:`step` is the same for every name, directory and output file."""
        return launcher == "local" and not any(
            part.container is not None and not part.container.working_directory for part in self._parts()
        )

    # --- for subclasses

    def _head(self, context: StepContext) -> list[str]:
        """What a workload manager's run command is told first: directory, files, environment."""
        return []

    def _part_head(self, context: StepContext) -> list[str]:
        """What it is told again for each further MPMD program."""
        return []

    def _env_flags(self, env: Mapping[str, str | None]) -> list[str]:
        """Environment variables in the run command's style."""
        return [f"{name}={value or ''}" for name, value in env.items()]

    def _own_env(self) -> dict[str, str | None]:
        return self._env_vars

    def _files(self, context: StepContext) -> dict[str, str]:
        """Files that the command reads."""
        return {}

    def _local_env(self) -> dict[str, str]:
        """The environment for a process that the agent starts."""
        return {name: value or "" for name, value in self._env_vars.items()}

    def _spilled(self) -> dict[str, str]:
        """Variables that the run command's own flag cannot carry, so that it must have them itself to pass them on."""
        return {}

    def _dropped(self) -> frozenset[str]:
        """Arguments that are never written."""
        return self.RESERVED

    # --- the mechanism

    def _command(self, context: StepContext, head: list[str] | None = None) -> list[str]:
        """Run command, ``head``, its arguments, program; then the other MPMD programs. No ``head``: the agent places."""
        word = context.run_command or self.run_command
        if context.alone and self.PLACES:
            word = ""  # it would ask its workload manager, which is what the agent is there to avoid
        argv = [word, *(head or ()), *self.format_run_args()] if word else []
        argv += self._boxed(context, context.exe, context.exe_args)
        for part in self.mpmd:
            part_head = [] if head is None else part._part_head(context)
            argv += [":", *part.format_run_args(), *part_head, *part._boxed(context, part.exe, part.exe_args)]
        return argv

    def _boxed(self, context: StepContext, exe: str, exe_args: Iterable[str]) -> list[str]:
        """The executable and its arguments, in its container if it has one."""
        return [*(self.container.prefix(context.cwd) if self.container else ()), exe, *exe_args]

    def _parts(self) -> list[RunSettings]:
        """All programs of the job, this one first."""
        return [self, *self.mpmd]

    def _union(self, method: str) -> dict[str, Any]:
        """The variables of all parts, for where they can have but one environment."""
        merged: dict[str, Any] = {}
        for index, part in enumerate(self._parts()):
            for name, value in getattr(part, method)().items():
                if merged.setdefault(name, value) != value:
                    what = f"another part of this MPMD job sets {merged[name]!r}, and all share one environment"
                    raise UnsupportedError(allowed(f"mpmd[{index - 1}].env_vars[{name!r}]", value, what))
        return merged

    def _memory(self) -> dict[str, Value]:
        """The flag for memory per node, where the run command counts per process or resource set: shared evenly."""
        flag, counts = self.SHARED_MEMORY
        if self.node_memory is None or flag in self._run_args or flag in self._dropped():
            return {}
        shares = next((self._run_args[key] for key in counts if self._run_args.get(key) is not None), None)
        if shares is None:
            what = f"{self.run_command} takes memory per share of a node only (--{flag}): also set --{counts[0]}"
            raise UnsupportedError(allowed("memory_per_node", self.node_memory, what))
        each = self.node_memory // whole(counts[0], str(shares), least=1)
        if each < 1:
            raise ConfigError(
                allowed("memory_per_node", self.node_memory, f"less than 1 MB for each of {shares} shares")
            )
        return {flag: each}

    def _key(self, name: str) -> str:
        """An argument's name as it is kept: without dashes where the class adds them."""
        key = checked("run_args name", name).strip()
        key = key.lstrip("-") if self.FAMILY else key
        if not key:
            raise ConfigError(allowed("run_args name", name, "must not be empty"))
        return key

    def _refused(self, key: str) -> bool:
        """Whether only asim may set this argument; says so in the log."""
        if key in self.RESERVED:
            LOG.warning("%s: argument %s is set by asim: ignored", type(self).__name__, key)
        return key in self.RESERVED
