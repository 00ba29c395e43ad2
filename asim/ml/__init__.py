"""Helpers for machine learning beside simulations: models as bytes, and training data through the database.

Nothing heavy is imported before it is used; :mod:`asim.ml.torch`, :mod:`asim.ml.tf` and :mod:`asim.ml.onnx` need their
frameworks.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .._lazy import exports as _exports

if _TYPE_CHECKING:
    from .download import DataDownloader as DataDownloader
    from .download import SyncDataDownloader as SyncDataDownloader
    from .info import DataInfo as DataInfo
    from .upload import SyncTrainingDataUploader as SyncTrainingDataUploader
    from .upload import TrainingDataUploader as TrainingDataUploader

__all__, __getattr__, __dir__ = _exports(
    __name__,
    {
        ".download": "DataDownloader SyncDataDownloader",
        ".info": "DataInfo",
        ".upload": "SyncTrainingDataUploader TrainingDataUploader",
    },
)
