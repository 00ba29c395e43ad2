"""Models, ensembles and what hangs on them: values that the user makes and changes; nothing here touches the world."""

from .base import Entity as Entity
from .colocation import ColocatedDB as ColocatedDB
from .ensemble import Ensemble as Ensemble
from .files import EntityFiles as EntityFiles
from .mlobjects import Function as Function
from .mlobjects import MLModel as MLModel
from .mlobjects import Script as Script
from .model import Model as Model
