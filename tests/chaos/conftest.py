"""Fixtures of the integration tests serve here, too."""

from tests.integration.conftest import anyio_backend as anyio_backend
from tests.integration.conftest import exp as exp
