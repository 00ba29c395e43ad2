"""Loggers for driver scripts. asim itself logs to the logger "asim" and never adds a handler to it."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from .config import Config
from .errors import ConfigError, allowed

_LEVELS = {"quiet": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG, "developer": logging.DEBUG}
_FORMAT = "%(asctime)s %(name)s[%(process)d] %(levelname)s %(message)s"


def get_logger(name: str, log_level: str | None = None, fmt: str | None = None) -> logging.Logger:
    """A logger that writes to standard output.

    :param name: the logger's name; the same name gives the same logger.
    :param log_level: quiet, info, debug or developer; None: ``ASIM_LOG_LEVEL``, else info.
    :param fmt: format of its lines, as :mod:`logging` wants it.
    :raises ConfigError: an unknown level.
    """
    level = (log_level or Config.from_env().log_level).lower()
    if level not in _LEVELS:
        raise ConfigError(allowed("log_level", log_level, f"must be one of {', '.join(_LEVELS)}"))
    logger = logging.getLogger(name)
    logger.setLevel(_LEVELS[level])
    handler = next((handler for handler in logger.handlers if isinstance(handler, _Handler)), None)
    if handler is None and not logger.handlers:  # the user's own handlers are left alone
        handler = _Handler(sys.stdout)
        logger.addHandler(handler)
        logger.propagate = False
    if handler is not None:
        handler.setFormatter(logging.Formatter(fmt or _FORMAT))
    return logger


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that :func:`get_logger` adds, so that it is known again."""
