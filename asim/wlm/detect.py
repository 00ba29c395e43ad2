"""Which workload manager is here."""

from __future__ import annotations

import os
import shutil

from ..config import Config

_INSIDE = {"slurm": ("SLURM_JOB_ID", "SLURM_JOBID"), "pbs": ("PBS_JOBID",), "lsf": ("LSB_JOBID",)}
"""Slurm first: it can set PBS's variables for those who miss them."""


_SLURM = (
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/run/slurm/conf/slurm.conf",
    "/usr/local/etc/slurm.conf",
)
_SGE = ("/var/lib/gridengine/default/common/act_qmaster", "/opt/sge/default/common/act_qmaster")


def detect_launcher() -> str:
    """The launcher's word for this machine: "slurm", "pbs" (Torque, too), "lsf", "sge", or "local" for none of them.

    Inside a job its variables decide; elsewhere the commands that are in PATH (``sbatch``, ``bsub``, ``qsub``). Nothing
    is run. The commands of Slurm and Grid Engine count only with a configuration: ``SLURM_CONF`` or ``SGE_ROOT``, or a file
    where it usually is (beside the command, for Slurm); packages bring the commands alone to machines without a cluster.
    """
    environ = Config.from_env().environ
    for launcher, names in _INSIDE.items():
        if any(environ.get(name) for name in names):
            return launcher
    if environ.get("SGE_ROOT") and environ.get("JOB_ID"):
        return "sge"
    sbatch = _which("sbatch")
    if sbatch and (environ.get("SLURM_CONF") or _there(*_SLURM, _beside(sbatch))):
        return "slurm"
    if _which("bsub"):
        return "lsf"
    if not _which("qsub"):
        return "local"
    if environ.get("SGE_ROOT") or (_which("qconf") and _there(*_SGE)):
        return "sge"
    return "local" if _which("qconf") else "pbs"


def _beside(command: str) -> str:
    """Where a Slurm that was installed under a prefix of its own has its configuration."""
    return os.path.join(os.path.dirname(os.path.dirname(command)), "etc", "slurm.conf")


def _there(*paths: str) -> bool:
    return any(map(os.path.exists, paths))


def _which(command: str) -> str | None:
    return shutil.which(command, path=Config.from_env().search_path)
