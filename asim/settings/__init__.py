"""Run and batch settings: what command runs a job, and what a scheduler is asked for. Pure text in, text out."""

from __future__ import annotations

from .aprun import AprunSettings as AprunSettings
from .base import RunSettings as RunSettings
from .batch import BatchContext as BatchContext
from .batch import BatchSettings as BatchSettings
from .bsub import BsubBatchSettings as BsubBatchSettings
from .container import Apptainer as Apptainer
from .container import Container as Container
from .container import Singularity as Singularity
from .jsrun import JsrunSettings as JsrunSettings
from .mpi import MpiexecSettings as MpiexecSettings
from .mpi import MpirunSettings as MpirunSettings
from .mpi import OrterunSettings as OrterunSettings
from .pals import PalsMpiexecSettings as PalsMpiexecSettings
from .qsub import QsubBatchSettings as QsubBatchSettings
from .sbatch import SbatchSettings as SbatchSettings
from .select import RUN_COMMANDS as RUN_COMMANDS
from .select import batch_settings_class as batch_settings_class
from .select import candidates as candidates
from .select import run_settings_class as run_settings_class
from .sge import SgeQsubBatchSettings as SgeQsubBatchSettings
from .srun import SrunSettings as SrunSettings
from .step import Step as Step
from .step import StepContext as StepContext

__all__ = [
    "RUN_COMMANDS",
    "Apptainer",
    "AprunSettings",
    "BatchContext",
    "BatchSettings",
    "BsubBatchSettings",
    "Container",
    "JsrunSettings",
    "MpiexecSettings",
    "MpirunSettings",
    "OrterunSettings",
    "PalsMpiexecSettings",
    "QsubBatchSettings",
    "RunSettings",
    "SbatchSettings",
    "SgeQsubBatchSettings",
    "Singularity",
    "SrunSettings",
    "Step",
    "StepContext",
    "batch_settings_class",
    "candidates",
    "run_settings_class",
]
