"""What the tests with real processes share."""

import os
import sys
from pathlib import Path

import anyio
import pytest

from asim import Experiment, Model
from tests.conftest import BACKENDS

PLAIN, UVLOOP = BACKENDS


@pytest.fixture(params=[PLAIN, pytest.param(*UVLOOP.values, id=UVLOOP.id, marks=pytest.mark.slow)])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Plain asyncio in the fast suite; that uvloop makes no difference is left to the slow one."""
    return request.param


pytestmark = pytest.mark.anyio


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


async def until(condition, deadline: float = 10) -> None:
    """Wait for something that only the file system or the process table tells."""
    with anyio.fail_after(deadline):
        while not condition():
            await anyio.sleep(0.01)


async def pids_in(path: Path, count: int = 1) -> list[int]:
    """Process numbers that a job writes to a file, once there are enough."""
    await until(lambda: path.exists() and len(path.read_text().split()) >= count)
    return [int(word) for word in path.read_text().split()]


def sh(exp: Experiment, name: str, script: str, *args: str, **options: object) -> Model:
    """A model that runs a shell script."""
    return exp.create_model(name, exp.create_run_settings("/bin/sh", ["-c", script, *args]), **options)


def python(exp: Experiment, name: str, code: str, *args: str, **options: object) -> Model:
    """A model that runs Python code."""
    settings = exp.create_run_settings(sys.executable, ["-I", "-S", "-c", code, *args])
    return exp.create_model(name, settings, **options)


@pytest.fixture
async def exp(home: Path):
    """An experiment with a short grace; when it is over, nothing that it started is left."""
    async with Experiment("exp", stop_grace=0.5) as experiment:
        yield experiment
    token = experiment._session.token if experiment._session else "none"
    assert not marked(token)


def marked(token: str) -> list[int]:
    """Processes that carry a run's mark in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if f"ASIM_JOB_ID={token}.".encode() in Path(f"/proc/{entry}/environ").read_bytes() and alive(
                    int(entry)
                ):
                    found.append(int(entry))
            except OSError:
                pass
    return found
