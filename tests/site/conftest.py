"""The sites, for the tests in this folder."""

from tests.site.slurm import slurm, slurm_accounting, slurm_accounting_site, slurm_site

__all__ = ["slurm", "slurm_accounting", "slurm_accounting_site", "slurm_site"]
