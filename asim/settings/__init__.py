"""Run and batch settings: what command runs a job, and what a scheduler is asked for. Pure text in, text out.

Each class is loaded when it is first used: a script needs two of them, not twelve.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .._lazy import exports as _exports

if _TYPE_CHECKING:
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

__all__, __getattr__, __dir__ = _exports(
    __name__,
    {
        ".aprun": "AprunSettings",
        ".base": "RunSettings",
        ".batch": "BatchContext BatchSettings",
        ".bsub": "BsubBatchSettings",
        ".container": "Apptainer Container Singularity",
        ".jsrun": "JsrunSettings",
        ".mpi": "MpiexecSettings MpirunSettings OrterunSettings",
        ".pals": "PalsMpiexecSettings",
        ".qsub": "QsubBatchSettings",
        ".sbatch": "SbatchSettings",
        ".select": "RUN_COMMANDS batch_settings_class candidates run_settings_class",
        ".sge": "SgeQsubBatchSettings",
        ".srun": "SrunSettings",
        ".step": "Step StepContext",
    },
)
