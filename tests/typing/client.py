"""The client's API as type checkers see it. Never run: mypy reads it (strict), and every wrong type is an error."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from asim import Client, DatabaseError, DataSet, SyncClient


async def async_face(array: NDArray[np.float32]) -> None:
    """What the async client takes and gives."""
    async with Client("h:1", cluster=True, put_prefix="p", get_prefixes=["a"], timeout=3, connections=4) as client:
        assert_type(client, Client)
        assert_type(await client.put_tensor("x", array), None)
        assert_type(await client.get_tensor("x"), NDArray[Any])
        assert_type(await client.tensor_exists("x"), bool)
        assert_type(await client.get_dataset("d"), DataSet)
        assert_type(await client.get_datasets_from_list("l"), list[DataSet])
        assert_type(await client.get_list_length("l"), int)
        assert_type(await client.set_model("m", b"", "TORCH", batch_size=3), None)
        assert_type(await client.get_model("m"), bytes)
        assert_type(await client.run_model("m", ["x"], outputs="y"), None)
        assert_type(await client.poll_tensor("x", poll_frequency_ms=10, num_tries=3), bool)
        assert_type(await client.wait_for_list("l", 3, timeout=1), None)
        assert_type(await client.config_get("x"), dict[str, str])
        assert_type(client.use_tensor_ensemble_prefix(False), None)
        async with client.pipeline() as pipe:
            assert_type(pipe.get_tensor("x").value, NDArray[Any])
            assert_type(await pipe.execute(), list[Any])
    assert_type(Client.from_env("x"), Client)


def blocking_face(array: NDArray[np.float32]) -> None:
    """What the blocking client takes and gives."""
    with SyncClient("h:1", username="u", password="p") as client:
        assert_type(client, SyncClient)
        assert_type(client.put_tensor("x", array), None)
        assert_type(client.get_tensor("x"), NDArray[Any])
        assert_type(client.get_db_node_info(), list[dict[str, dict[str, str]]])
        with client.pipeline() as pipe:
            assert_type(pipe.tensor_exists("x").value, bool)
    assert_type(SyncClient.from_env(), SyncClient)


def data(dataset: DataSet) -> None:
    """What a dataset takes and gives."""
    dataset.add_tensor("t", np.zeros(3))
    dataset.add_meta_scalar("n", 3)
    dataset.add_meta_scalar("n", np.float32(3))
    assert_type(dataset.get_meta_strings("s"), list[str])
    assert_type(dataset.get_meta_scalars("n"), NDArray[Any])
    assert_type(dataset.get_tensor_type("t"), np.dtype[Any])
    assert_type(dataset.get_tensor_dims("t"), list[int])


def errors(error: DatabaseError) -> None:
    """What the errors carry."""
    assert_type(error.command, str)
    assert_type(error.reply, str)
