"""Containers: the words in front of an executable that run it in an image."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigTypeError, UnsupportedError, allowed
from ._text import LOG, checked, program, words

Mounts = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Container:
    """An image that an executable runs in. Immutable, so one may be shared by many settings.

    :param image: the image, as its run time wants it named.
    :param args: further arguments of the run time; a str is split as a shell would, a list is taken item by item.
    :param mount: what to bind: text as the run time wants it, a list of such, or a dict host path -> path inside
        ("" = the same path).
    :param working_directory: directory inside to start in; "" is the job's own.
    :raises ConfigTypeError: an argument of the wrong type.
    """

    image: str
    args: str | Sequence[str] = ""
    mount: Mounts = ""
    working_directory: str = ""

    def __post_init__(self) -> None:
        program("image", self.image)
        checked("working_directory", self.working_directory)
        # frozen, but lists of the caller must not stay shared
        object.__setattr__(self, "args", self._split_args())
        object.__setattr__(self, "mount", self._split_mounts())
        if self.mount and self.working_directory and not self._covers(self.working_directory):
            LOG.warning("%s: working directory %s is not mounted, it is added", self.image, self.working_directory)

    def prefix(self, cwd: str) -> tuple[str, ...]:
        """The words in front of the executable.

        :param cwd: the job's directory, used when the container has no working directory of its own.
        """
        raise UnsupportedError(f"container {self.image!r}: use Singularity or Apptainer, a plain Container cannot run")

    def _split_args(self) -> tuple[str, ...]:
        if isinstance(self.args, str):
            return tuple(shlex.split(checked("args", self.args)))
        return tuple(words("args", self.args))

    def _split_mounts(self) -> tuple[str, ...]:
        if isinstance(self.mount, str):
            return tuple(part for part in checked("mount", self.mount).split(",") if part)
        if isinstance(self.mount, Mapping):
            pairs = [
                (checked("mount", host), checked(f"mount[{host!r}]", inside)) for host, inside in self.mount.items()
            ]
            return tuple(f"{host}:{inside}" if inside else host for host, inside in pairs)
        if not isinstance(self.mount, Sequence):
            raise ConfigTypeError(allowed("mount", self.mount, "must be str, a list of str or a dict of str"))
        return tuple(words("mount", self.mount))

    def _covers(self, directory: str) -> bool:
        """Whether a mount makes ``directory`` visible inside: itself or one above it."""
        insides = (mount.split(":")[1] if ":" in mount else mount for mount in self.mount)
        return any(f"{directory}/".startswith(f"{inside.rstrip('/')}/") for inside in insides)


class Singularity(Container):
    """A Singularity image. The working directory (the job's own by default) is always mounted."""

    WORD: ClassVar[str] = "singularity"
    """The program, found on the host where the job runs."""

    def prefix(self, cwd: str) -> tuple[str, ...]:
        directory = self.working_directory or cwd
        mounts = list(self.mount) if self._covers(directory) else [directory, *self.mount]
        return (self.WORD, "exec", "--pwd", directory, *self.args, "--bind", ",".join(mounts), self.image)


class Apptainer(Singularity):
    """The same under Singularity's newer name."""

    WORD: ClassVar[str] = "apptainer"
