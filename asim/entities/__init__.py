"""Models, ensembles and what hangs on them: values that the user makes and changes; nothing here touches the world."""

from .base import Entity as Entity
from .colocation import ColocatedDB as ColocatedDB
from .ensemble import Ensemble as Ensemble
from .files import EntityFiles as EntityFiles
from .kinds import models_of as models_of
from .mlobjects import Function as Function
from .mlobjects import MLModel as MLModel
from .mlobjects import Script as Script
from .model import Model as Model
from .orchestrator import DBNode as DBNode
from .orchestrator import Orchestrator as Orchestrator
