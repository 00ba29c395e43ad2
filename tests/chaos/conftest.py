"""Fixtures of the integration tests serve here, too."""

import pytest

from tests.conftest import BACKENDS
from tests.integration.conftest import exp as exp

PLAIN, UVLOOP = BACKENDS


@pytest.fixture(params=[PLAIN, pytest.param(*UVLOOP.values, id=UVLOOP.id, marks=pytest.mark.slow)])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """What goes wrong does so in the agent and in asim; that uvloop makes no difference is left to the slow suite."""
    return request.param
