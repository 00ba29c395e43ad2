"""The one reading of the environment."""

from __future__ import annotations

import os
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from asim.config import LOG_LEVELS, Config
from asim.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without asim's variables, and an empty current directory."""
    for name in [name for name in os.environ if name.startswith("ASIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults(tmp_path: Path) -> None:
    """Without variables: this interpreter, level info, the current directory."""
    config = Config.from_env()
    assert (config.python, config.log_level, config.cwd) == (sys.executable, "info", str(tmp_path))


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """ASIM_PYTHON and ASIM_LOG_LEVEL (in any case) are read."""
    monkeypatch.setenv("ASIM_PYTHON", "/opt/python")
    monkeypatch.setenv("ASIM_LOG_LEVEL", "DEBUG")
    config = Config.from_env()
    assert (config.python, config.log_level) == ("/opt/python", "debug")


def test_empty_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty ASIM_PYTHON is none."""
    monkeypatch.setenv("ASIM_PYTHON", "")
    assert Config.from_env().python == sys.executable


@pytest.mark.parametrize("level", ["verbose", ""])
def test_bad_level(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """An unknown level is an error that lists the levels."""
    monkeypatch.setenv("ASIM_LOG_LEVEL", level)
    with pytest.raises(ConfigError, match=f"ASIM_LOG_LEVEL = '{level}': must be one of {', '.join(LOG_LEVELS)}"):
        Config.from_env()


def test_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is changed in the environment afterwards does not change a config, and a config cannot be changed."""
    monkeypatch.setenv("SOME", "before")
    config = Config.from_env()
    monkeypatch.setenv("SOME", "after")
    assert config.environ["SOME"] == "before"
    with pytest.raises(FrozenInstanceError):
        config.cwd = "/"  # type: ignore[misc]


def test_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search path is PATH, and the system's default where there is none."""
    monkeypatch.setenv("PATH", "/opt/bin:/bin")
    assert Config.from_env().search_path == "/opt/bin:/bin"
    monkeypatch.delenv("PATH")
    assert Config.from_env().search_path == os.defpath
