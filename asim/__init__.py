"""asim: run simulations and large ensembles from asyncio, with SmartSim's vocabulary."""

from .entities import Ensemble as Ensemble
from .entities import Function as Function
from .entities import MLModel as MLModel
from .entities import Model as Model
from .entities import Script as Script
from .errors import AgentError as AgentError
from .errors import AsimError as AsimError
from .errors import ConfigError as ConfigError
from .errors import ConfigTypeError as ConfigTypeError
from .errors import EntityExistsError as EntityExistsError
from .errors import FileActionError as FileActionError
from .errors import JobFailed as JobFailed
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
from .runtime.job import Job as Job
from .runtime.job import JobGroup as JobGroup
from .settings import Apptainer as Apptainer
from .settings import AprunSettings as AprunSettings
from .settings import BatchSettings as BatchSettings
from .settings import BsubBatchSettings as BsubBatchSettings
from .settings import Container as Container
from .settings import JsrunSettings as JsrunSettings
from .settings import MpiexecSettings as MpiexecSettings
from .settings import MpirunSettings as MpirunSettings
from .settings import OrterunSettings as OrterunSettings
from .settings import PalsMpiexecSettings as PalsMpiexecSettings
from .settings import QsubBatchSettings as QsubBatchSettings
from .settings import RunSettings as RunSettings
from .settings import SbatchSettings as SbatchSettings
from .settings import SgeQsubBatchSettings as SgeQsubBatchSettings
from .settings import Singularity as Singularity
from .settings import SrunSettings as SrunSettings
from .status import JobState as JobState

__version__ = "0.1.0"
