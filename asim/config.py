"""The one place that reads the environment, once per Experiment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ConfigError, allowed

LOG_LEVELS = ("quiet", "info", "debug", "developer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings that come from outside the program.

    :ivar environ: the environment that jobs start from.
    :ivar cwd: the driver's current directory.
    :ivar python: the interpreter that runs agents (``ASIM_PYTHON``).
    :ivar log_level: of loggers made by :func:`asim.log.get_logger` (``ASIM_LOG_LEVEL``).
    """

    environ: Mapping[str, str]
    cwd: str
    python: str
    log_level: str = "info"

    @classmethod
    def from_env(cls) -> Config:
        """Read ``os.environ`` and the current directory now.

        :raises ConfigError: a variable has a value that is not allowed.
        """
        environ = dict(os.environ)
        level = environ.get("ASIM_LOG_LEVEL", "info").lower()
        if level not in LOG_LEVELS:
            raise ConfigError(allowed("ASIM_LOG_LEVEL", level, f"must be one of {', '.join(LOG_LEVELS)}"))
        python = environ.get("ASIM_PYTHON") or sys.executable
        return cls(environ=environ, cwd=os.getcwd(), python=python, log_level=level)

    @property
    def search_path(self) -> str:
        """``PATH``."""
        return self.environ.get("PATH", os.defpath)
