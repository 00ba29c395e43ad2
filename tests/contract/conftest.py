"""The choice of event loops is that of the integration tests."""

from tests.integration.conftest import anyio_backend as anyio_backend
