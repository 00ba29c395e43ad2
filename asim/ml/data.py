"""Training data through the database, under the name where SmartSim has it."""

from .download import DataDownloader, SyncDataDownloader
from .info import DataInfo
from .upload import SyncTrainingDataUploader, TrainingDataUploader

__all__ = ["DataDownloader", "DataInfo", "SyncDataDownloader", "SyncTrainingDataUploader", "TrainingDataUploader"]
