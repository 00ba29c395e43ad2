"""The ML helpers' API as type checkers see it. Never run: mypy reads it (strict), and every wrong type is an error."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from asim import Client, SyncClient
from asim.ml import DataDownloader, DataInfo, SyncDataDownloader, SyncTrainingDataUploader, TrainingDataUploader
from asim.ml.onnx import input_names, mlp
from asim.ml.tf import freeze_model
from asim.ml.torch import serialize_model

Batch = NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]


async def async_face(array: NDArray[np.float32], client: Client) -> None:
    """What the async classes take and give."""
    async with TrainingDataUploader("l", target_name=None, rank=1, client=client) as uploader:
        assert_type(uploader, TrainingDataUploader)
        assert_type(uploader.client, Client)
        assert_type(await uploader.put_batch(array), None)
        assert_type(await uploader.publish_info(), None)
    async with DataDownloader(DataInfo("l"), 8, seed=1, timeout=3, client=client) as data:
        assert_type(await data.init_samples(timeout=1), None)
        assert_type(await data.wait_for_data(), int)
        async for batch in data:
            assert_type(batch, Batch)
    assert_type(await DataInfo("l").publish(client), None)


def blocking_face(array: NDArray[np.float32]) -> None:
    """What the blocking classes take and give."""
    with SyncTrainingDataUploader("l", address="h:1", cluster=True) as uploader:
        assert_type(uploader.put_batch(array, array), None)
    with SyncDataDownloader("l", replica_rank=1, num_replicas=2) as data:
        assert_type(data.update_data(), int)
        assert_type(len(data), int)
        assert_type(data.target_name, str | None)
    assert_type(DataInfo("l").download(SyncClient("h:1")), None)


def models(module: Any, array: NDArray[np.float32]) -> None:
    """What makes bytes of models."""
    assert_type(serialize_model(module, array, method="trace"), bytes)
    assert_type(freeze_model(module, ".", "m"), tuple[str, list[str], list[str]])
    assert_type(input_names(mlp([array], [array])), list[str])
