"""Torque's commands over a private Slurm: Slurm's own wrappers, unpacked beside the system, as their package and Grid
Engine's exclude each other.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asim import Experiment, QsubBatchSettings
from tests.conftest import missing
from tests.site.experiments import Lab
from tests.site.slurm import SlurmSite

PREFIX = Path(os.environ.get("ASIM_TORQUE", "/opt/asim-torque"))
"""Where Debian's ``slurm-wlm-torque`` was unpacked, with a link to sbatch beside ``qsub``: see ``.ci/run``."""
WRAPPERS = ("qsub", "qstat", "qdel")


class TorqueLab(Lab):
    """A user of a Slurm who knows Torque's commands only; they are counted as Slurm's are."""

    def __init__(self, site: SlurmSite, place: Path, environ: pytest.MonkeyPatch) -> None:
        super().__init__(site, place, environ)
        for name in WRAPPERS:
            text = f'echo {name} "$@" >> {self._log}\nexec {PREFIX}/usr/bin/{name} "$@"\n'
            self._program(place / "bin" / name, text)
        for name in [name for name in os.environ if name.startswith("PBS_")]:
            environ.delenv(name)

    def experiment(self, name: str = "exp", **options: Any) -> Experiment:
        return Experiment(name, launcher="torque", min_poll=0.2, max_poll=1, stop_grace=2, **options)

    def qsub(self, **options: Any) -> QsubBatchSettings:
        """Batch settings; Slurm reads their directives."""
        return QsubBatchSettings(nodes=1, **options)


def need_torque() -> None:
    """Skip where the wrappers are not, or lack what they use."""
    if gone := [name for name in (*WRAPPERS, "sbatch") if not (PREFIX / "usr/bin" / name).exists()]:
        missing(f"no {', '.join(gone)} in {PREFIX}/usr/bin, where Slurm's wrappers for Torque belong")
    found = ("/usr/bin/perl", "-e", 'exit !grep { -e "$_/Slurm.pm" } @INC')  # to load it takes a cluster
    if subprocess.run(found, check=False).returncode:
        missing("not installed: libslurm-perl")


@pytest.fixture
def lab(slurm: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TorqueLab:
    """A user of a Slurm with Torque's commands."""
    need_torque()
    return TorqueLab(slurm, tmp_path, monkeypatch)
