"""Fixtures for every kind of test."""

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("asim.testing.contracts")
REQUIRE_ALL = os.environ.get("ASIM_REQUIRE_ALL") == "1"
BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]

FILES = 10_300
"""What a process has open that has 10,000 connections."""


def missing(what: str) -> None:
    """Skip for a component that this machine lacks; where everything is required, that is a failure."""
    if REQUIRE_ALL:
        pytest.fail(f"ASIM_REQUIRE_ALL=1, but {what}", pytrace=False)
    pytest.skip(what)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs torch is slow: importing it takes as long as a hundred other tests."""
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Every async test runs on plain asyncio and on uvloop."""
    return request.param


@pytest.fixture
def files() -> Iterator[None]:
    """This process, and so a server that it starts, may have files enough open for 10,000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    except ValueError:
        missing(f"this user may not have {FILES} open files, but {hard}")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call in the event loop fails the test, unless it is the test's own."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    from blockbuster import blockbuster_ctx

    with blockbuster_ctx("asim", excluded_modules=["asim.testing"]) as blockbuster:
        for function in ("os.stat", "os.access"):  # looking up an executable
            blockbuster.functions[function].can_block_in("asim/factories.py", "_which")
            blockbuster.functions[function].can_block_in("asim/wlm/detect.py", "_which")
            blockbuster.functions[function].can_block_in("asim/wlm/detect.py", "_there")
        for listed in blockbuster.functions.values():  # the names of other packages' launchers
            listed.can_block_in("asim/launchers/registry.py", "plugins")
        blockbuster.functions["os.getcwd"].can_block_in("asim/config.py", "from_env")
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find_tool(name: str) -> str | None:
    """A program of the test environment: beside the interpreter, else in PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
