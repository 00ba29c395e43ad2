"""asim: run simulations and large ensembles from asyncio, with SmartSim's vocabulary.

Names are loaded when they are first used, so that ``import asim`` costs next to nothing.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._lazy import exports as _exports

if _TYPE_CHECKING:
    from .client.client import Client as Client
    from .client.dataset import DataSet as DataSet
    from .client.sync import SyncClient as SyncClient
    from .entities.ensemble import Ensemble as Ensemble
    from .entities.mlobjects import Function as Function
    from .entities.mlobjects import MLModel as MLModel
    from .entities.mlobjects import Script as Script
    from .entities.model import Model as Model
    from .entities.orchestrator import Orchestrator as Orchestrator
    from .errors import AgentError as AgentError
    from .errors import AllocationError as AllocationError
    from .errors import AsimError as AsimError
    from .errors import ConfigError as ConfigError
    from .errors import ConfigTypeError as ConfigTypeError
    from .errors import DatabaseConnectionError as DatabaseConnectionError
    from .errors import DatabaseError as DatabaseError
    from .errors import DatabaseTimeout as DatabaseTimeout
    from .errors import EntityExistsError as EntityExistsError
    from .errors import FileActionError as FileActionError
    from .errors import JobFailed as JobFailed
    from .errors import KeyNotFoundError as KeyNotFoundError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import MissingFileError as MissingFileError
    from .errors import SubmitError as SubmitError
    from .errors import TemplateError as TemplateError
    from .errors import UnsupportedError as UnsupportedError
    from .errors import UserStrategyError as UserStrategyError
    from .experiment import Experiment as Experiment
    from .launchers.base import Usage as Usage
    from .policies import Retry as Retry
    from .runtime.events import EventStream as EventStream
    from .runtime.events import JobEvent as JobEvent
    from .runtime.group import JobGroup as JobGroup
    from .runtime.job import Job as Job
    from .settings.aprun import AprunSettings as AprunSettings
    from .settings.base import RunSettings as RunSettings
    from .settings.batch import BatchSettings as BatchSettings
    from .settings.bsub import BsubBatchSettings as BsubBatchSettings
    from .settings.container import Apptainer as Apptainer
    from .settings.container import Container as Container
    from .settings.container import Singularity as Singularity
    from .settings.jsrun import JsrunSettings as JsrunSettings
    from .settings.mpi import MpiexecSettings as MpiexecSettings
    from .settings.mpi import MpirunSettings as MpirunSettings
    from .settings.mpi import OrterunSettings as OrterunSettings
    from .settings.pals import PalsMpiexecSettings as PalsMpiexecSettings
    from .settings.qsub import QsubBatchSettings as QsubBatchSettings
    from .settings.sbatch import SbatchSettings as SbatchSettings
    from .settings.sge import SgeQsubBatchSettings as SgeQsubBatchSettings
    from .settings.srun import SrunSettings as SrunSettings
    from .status import JobState as JobState
    from .transport.options import SSHOptions as SSHOptions

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = _exports(
    __name__,
    {
        ".client.client": "Client",
        ".client.dataset": "DataSet",
        ".client.sync": "SyncClient",
        ".entities.ensemble": "Ensemble",
        ".entities.mlobjects": "Function MLModel Script",
        ".entities.model": "Model",
        ".entities.orchestrator": "Orchestrator",
        ".errors": "AgentError AllocationError AsimError ConfigError ConfigTypeError DatabaseConnectionError DatabaseError"
        " DatabaseTimeout EntityExistsError FileActionError JobFailed KeyNotFoundError MissingExtraError MissingFileError SubmitError TemplateError UnsupportedError UserStrategyError",
        ".experiment": "Experiment",
        ".launchers.base": "Usage",
        ".policies": "Retry",
        ".runtime.events": "EventStream JobEvent",
        ".runtime.group": "JobGroup",
        ".runtime.job": "Job",
        ".settings.container": "Apptainer Container Singularity",
        ".settings.aprun": "AprunSettings",
        ".settings.batch": "BatchSettings",
        ".settings.bsub": "BsubBatchSettings",
        ".settings.jsrun": "JsrunSettings",
        ".settings.mpi": "MpiexecSettings MpirunSettings OrterunSettings",
        ".settings.pals": "PalsMpiexecSettings",
        ".settings.qsub": "QsubBatchSettings",
        ".settings.base": "RunSettings",
        ".settings.sbatch": "SbatchSettings",
        ".settings.sge": "SgeQsubBatchSettings",
        ".settings.srun": "SrunSettings",
        ".status": "JobState",
        ".transport.options": "SSHOptions",
    },
)
