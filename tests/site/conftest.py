"""The sites, for the tests in this folder."""

from pathlib import Path

import pytest

from tests.site.hosts import hosts
from tests.site.sge import sge, sge_site
from tests.site.slurm import slurm, slurm_accounting, slurm_accounting_site, slurm_site

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs real daemons is in the slow suite, whatever its own time."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.slow)


__all__ = ["hosts", "sge", "sge_site", "slurm", "slurm_accounting", "slurm_accounting_site", "slurm_site"]
