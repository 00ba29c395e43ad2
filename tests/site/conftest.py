"""The sites, for the tests in this folder."""

from tests.site.hosts import hosts
from tests.site.sge import sge, sge_site
from tests.site.slurm import slurm, slurm_accounting, slurm_accounting_site, slurm_site

__all__ = ["hosts", "sge", "sge_site", "slurm", "slurm_accounting", "slurm_accounting_site", "slurm_site"]
