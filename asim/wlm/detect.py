"""Which workload manager is here."""

from __future__ import annotations

import shutil

from ..config import Config

_INSIDE = {"slurm": ("SLURM_JOB_ID", "SLURM_JOBID"), "pbs": ("PBS_JOBID",), "lsf": ("LSB_JOBID",)}
"""Slurm first: it can set PBS's variables for those who miss them."""


def detect_launcher() -> str:
    """The launcher's word for this machine: "slurm", "pbs" (Torque, too), "lsf", "sge", or "local" for none of them.

    Inside a job its variables decide; elsewhere the commands that are in PATH (``sbatch``, ``bsub``, ``qsub``). Nothing
    is run: commands that are installed without a cluster look like one.
    """
    environ = Config.from_env().environ
    for launcher, names in _INSIDE.items():
        if any(environ.get(name) for name in names):
            return launcher
    if environ.get("SGE_ROOT") and environ.get("JOB_ID"):
        return "sge"
    for launcher, command in (("slurm", "sbatch"), ("lsf", "bsub")):
        if _which(command):
            return launcher
    if _which("qsub"):
        return "sge" if environ.get("SGE_ROOT") or _which("qconf") else "pbs"
    return "local"


def _which(command: str) -> str | None:
    return shutil.which(command, path=Config.from_env().search_path)
