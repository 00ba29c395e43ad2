"""Loggers for driver scripts."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from asim.errors import ConfigError
from asim.log import get_logger


@pytest.fixture
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A logger's name of this test's own; the logger is emptied again."""
    monkeypatch.delenv("ASIM_LOG_LEVEL", raising=False)
    name = f"test.{request.node.name}"
    yield name
    logging.getLogger(name).handlers.clear()


def test_writes_to_standard_output_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A message goes to standard output once, also when the logger was asked for twice, with its name and level."""
    get_logger(name)
    logger = get_logger(name)
    assert logger is logging.getLogger(name)
    logger.info("a message")
    out, err = capsys.readouterr()
    assert out.count("a message") == 1
    assert name in out
    assert "INFO" in out
    assert err == ""


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (None, logging.INFO),
        ("quiet", logging.WARNING),
        ("info", logging.INFO),
        ("DEBUG", logging.DEBUG),
        ("developer", logging.DEBUG),
    ],
)
def test_levels(name: str, level: str | None, number: int) -> None:
    """The four levels in any case; without one it is info."""
    assert get_logger(name, level).level == number


def test_level_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASIM_LOG_LEVEL decides where the caller does not, and only there."""
    monkeypatch.setenv("ASIM_LOG_LEVEL", "quiet")
    assert get_logger(name).level == logging.WARNING
    assert get_logger(name, "debug").level == logging.DEBUG


def test_format(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The caller's format is used."""
    get_logger(name, fmt="<%(message)s>").warning("x")
    assert capsys.readouterr().out == "<x>\n"


def test_unknown_level(name: str) -> None:
    """An unknown level is an error that lists the levels, and no handler is added."""
    with pytest.raises(ConfigError, match="log_level = 'loud': must be one of quiet, info, debug, developer"):
        get_logger(name, "loud")
    assert not logging.getLogger(name).handlers


def test_asim_has_no_handler() -> None:
    """asim's own logger has no handlers: what becomes of its messages is the program's choice."""
    import asim.settings.base  # noqa: F401  (a module that logs)

    assert logging.getLogger("asim").handlers == []
