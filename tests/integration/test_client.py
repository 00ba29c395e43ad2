"""Both faces of the client against a real server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import numpy as np
import pytest

import asim
from asim import (
    Client,
    ConfigError,
    ConfigTypeError,
    DatabaseError,
    DatabaseTimeout,
    DataSet,
    KeyNotFoundError,
    MissingFileError,
    SyncClient,
)
from tests.chaos.conftest import anyio_backend as anyio_backend

from .databases import address as address
from .databases import server as server

pytestmark = pytest.mark.anyio
TYPES = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?"]


@pytest.fixture
async def client(address: str, anyio_backend: object) -> AsyncIterator[Client]:
    """An async client."""
    async with Client(address, connect_timeout=5, timeout=10) as client:
        yield client


def a_dataset(name: str) -> DataSet:
    """A dataset with a tensor and metadata."""
    dataset = DataSet(name)
    dataset.add_tensor("t", np.arange(6).reshape(2, 3))
    dataset.add_meta_scalar("n", 7)
    dataset.add_meta_string("s", "words")
    return dataset


async def test_every_type(client: Client) -> None:
    """Tensors of every type of the wire, and text, come out as they went in."""
    for dtype in TYPES:
        await client.put_tensor(dtype, np.arange(6).astype(dtype).reshape(2, 3))
        got = await client.get_tensor(dtype)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.arange(6).astype(dtype).reshape(2, 3))
        got[0, 0] = 1  # writable
    words = np.array([["a", "ü"], ["", "long"]])
    await client.put_tensor("text", words)
    np.testing.assert_array_equal(await client.get_tensor("text"), words)


@pytest.mark.parametrize("size", [1, 100, 65535, 65536, 65537, 262144, 3_000_001])
async def test_every_size(client: Client, size: int) -> None:
    """Tensors around each border (joined, alone, landed) are whole, also many at the same time."""
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    await client.put_tensor("x", data)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.get_tensor("x")) for _ in range(8)]
    for task in tasks:
        np.testing.assert_array_equal(task.result(), data)


async def test_many_tasks_share_connections(client: Client) -> None:
    """Hundreds of tasks get their own replies over two connections."""

    async def work(number: int) -> None:
        for turn in range(5):
            await client.put_tensor(f"k{number}", np.full(3, number * 10 + turn))
            assert (await client.get_tensor(f"k{number}"))[0] == number * 10 + turn

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(work(number))
    (server,) = client._servers.values()
    assert len(server._wires) == 2


async def test_renaming_and_copying(client: Client) -> None:
    """Tensors are renamed, copied, deleted; what is not there is an error where SmartRedis has one."""
    await client.put_tensor("a", np.ones(2))
    await client.copy_tensor("a", "b")
    await client.rename_tensor("b", "c")
    assert [await client.tensor_exists(name) for name in "abc"] == [True, False, True]
    await client.delete_tensor("a")
    await client.delete_tensor("a")
    assert not await client.key_exists("a")
    with pytest.raises(KeyNotFoundError, match="RENAME a: ERR no such key"):
        await client.rename_tensor("a", "b")
    with pytest.raises(KeyNotFoundError):
        await client.copy_tensor("a", "b")
    await client.execute("SET", "word", "x")
    with pytest.raises(DatabaseError, match="WRONGTYPE"):
        await client.get_tensor("word")


async def test_datasets_and_lists(client: Client) -> None:
    """Datasets are put, fetched, copied, renamed, deleted, and collected in lists."""
    for number in range(3):
        await client.put_dataset(a_dataset(f"d{number}"))
        await client.append_to_list("l", a_dataset(f"d{number}"))
    got = await client.get_dataset("d1")
    assert (got.get_meta_scalars("n").tolist(), got.get_meta_strings("s")) == ([7], ["words"])
    await client.copy_list("l", "m")
    await client.rename_list("m", "n")
    assert await client.get_list_length("n") == 3
    assert [one.name for one in await client.get_dataset_list_range("n", -2, -1)] == ["d1", "d2"]
    await client.rename_dataset("d1", "e")
    assert not await client.dataset_exists("d1")
    with pytest.raises(KeyNotFoundError, match="dataset 'd1' does not exist"):
        await client.get_datasets_from_list("n")
    await client.delete_list("n")
    assert await client.get_datasets_from_list("n") == []
    await client.delete_dataset("e")
    with pytest.raises(KeyNotFoundError):
        await client.delete_dataset("e")
    with pytest.raises(ConfigTypeError, match=r"must be an asim\.DataSet"):
        await client.put_dataset("d")  # type: ignore[arg-type]


async def test_half_a_dataset_is_none(client: Client) -> None:
    """A dataset that another client is still putting is not there yet."""
    await client.execute("HSET", "{d}.meta", "n", b"\x04" + bytes(8))
    assert not await client.dataset_exists("d")
    with pytest.raises(KeyNotFoundError, match="not been put completely"):
        await client.get_dataset("d")


async def test_models_and_scripts(client: Client, tmp_path: Path) -> None:
    """Models and scripts are stored from bytes, files and functions, fetched and deleted."""
    (tmp_path / "model").write_bytes(b"model")
    (tmp_path / "script.py").write_text("def f(x):\n    return x\n")
    await client.set_model_from_file("m", tmp_path / "model", "TORCH", tag="t")
    assert await client.get_model("m") == b"model"
    await client.set_script_from_file("s", tmp_path / "script.py")
    assert await client.get_script("s") == "def f(x):\n    return x\n"
    await client.set_function("f", a_dataset)
    assert (await client.get_script("f")).startswith("def a_dataset(")
    await client.set_model_from_file_multigpu("g", tmp_path / "model", "TORCH", 1, 2)
    assert [await client.model_exists(f"g{gpu}") for gpu in ("", ".GPU:0", ".GPU:1", ".GPU:2")] == [1, 0, 1, 1]
    await client.delete_model_multigpu("g", 1, 2)
    await client.delete_model("m")
    with pytest.raises(KeyNotFoundError, match="AI.MODELDEL m"):
        await client.delete_model("m")
    with pytest.raises(MissingFileError, match="no/such"):
        await client.set_model_from_file("m", "no/such", "TORCH")
    for wrong in ({"backend": "CAFFE"}, {"device": "TPU"}, {"min_batch_size": 2}, {"inputs": ["x"]}, {"model": b""}):
        with pytest.raises(ConfigError):
            await client.set_model(**{"name": "m", "model": b"x", "backend": "TORCH", **wrong})  # type: ignore[arg-type]


async def test_pipelines(client: Client) -> None:
    """Operations of a pipeline are done in order, each with its own result or error."""
    with pytest.raises(KeyNotFoundError, match="AI.TENSORGET none"):
        async with client.pipeline() as pipe:
            pipe.put_tensor("a", np.arange(3))
            before = pipe.tensor_exists("a")
            pipe.put_dataset(a_dataset("d"))
            dataset = pipe.get_dataset("d")
            missing = pipe.get_tensor("none")
            pipe.rename_tensor("a", "b")
            after = pipe.get_tensor("b")
            wrong = pipe.put_tensor("c", np.zeros(1, "f2"))
            assert len(pipe) == 8
            with pytest.raises(ConfigError, match="not been executed"):
                _ = after.value
    assert before.value is True
    assert dataset.value.name == "d"
    assert isinstance(missing.error, KeyNotFoundError)
    assert isinstance(wrong.error, ConfigTypeError)
    assert after.value.tolist() == [0, 1, 2]


async def test_pipelines_are_few_round_trips(client: Client) -> None:
    """A thousand operations cost the server a few reads, and an exception in the block sends nothing."""
    async with client.pipeline() as pipe:
        for number in range(1000):
            pipe.put_tensor(f"k{number}", np.zeros(1))
    assert await client.execute("DBSIZE") == 1000
    with pytest.raises(RuntimeError):
        async with client.pipeline() as pipe:
            pipe.delete_tensor("k1")
            raise RuntimeError
    assert await client.tensor_exists("k1")


async def test_waiting(client: Client) -> None:
    """A wait ends soon after what it waits for has come, and with an error when it does not come in time."""
    async with asyncio.TaskGroup() as group:
        waits = [
            group.create_task(client.wait_for_tensor("a", 5)),
            group.create_task(client.wait_for_key("a", 5)),
            group.create_task(client.wait_for_dataset("d", 5)),
            group.create_task(client.wait_for_list("l", 2, 5)),
            group.create_task(client.wait_for_model("s", 5)),
        ]
        await client.append_to_list("l", a_dataset("d"))
        assert not any(wait.done() for wait in waits)
        await client.put_tensor("a", np.zeros(1))
        await client.put_dataset(a_dataset("d"))
        await client.append_to_list("l", a_dataset("d"))
        await client.set_script("s", "pass")
    with pytest.raises(DatabaseTimeout, match=r"no tensor 'never' within 0\.02 s"):
        await client.wait_for_tensor("never", 0.02)


async def test_prefixes(address: str, anyio_backend: object) -> None:
    """Names are stored with one prefix and looked for with another, until a switch says otherwise."""
    async with Client(address, put_prefix="me", get_prefixes=["you", "me"]) as client:
        await client.put_tensor("t", np.zeros(1))
        assert not await client.tensor_exists("t")
        client.set_data_source("me")
        assert await client.tensor_exists("t")
        assert await client.key_exists("me.t")
        client.use_tensor_ensemble_prefix(False)
        assert await client.tensor_exists("me.t")


async def test_from_env(address: str, anyio_backend: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both faces find the database in SmartRedis' variables."""
    monkeypatch.setenv("SSDB_x", address)
    monkeypatch.setenv("SR_DB_TYPE_x", "Standalone")
    async with Client.from_env("x") as client:
        await client.put_tensor("t", np.zeros(1))
        assert repr(client) == f"Client({address!r})"


async def test_administration(client: Client, address: str) -> None:
    """Servers are asked about themselves, configured, and emptied."""
    assert (await client.get_db_node_info([address]))[0]["Server"]["redis_mode"] == "standalone"
    await client.config_set("maxmemory-samples", "7", address)
    assert await client.config_get("maxmemory-samp*") == {"maxmemory-samples": "7"}
    with pytest.raises(ConfigError, match="single server"):
        await client.get_db_cluster_info(address)
    with pytest.raises(DatabaseError, match="CONFIG SET"):
        await client.config_set("no-such-setting", "7")
    await client.put_tensor("t", np.zeros(1))
    await client.flush_db()
    assert await client.execute("DBSIZE") == 0
    assert await client.execute("ECHO", b"\0\xff") == b"\0\xff"


async def test_one_task_waits_for_a_command_that_blocks(client: Client) -> None:
    """A command that blocks its connection does not keep other tasks waiting."""
    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(client.execute("BLPOP", "queue", "5"))
        with anyio.fail_after(4):
            while b"cmd=blpop" not in await client.execute("CLIENT", "LIST"):
                await anyio.sleep(0.001)
            for _ in range(5):
                await client.put_tensor("t", np.zeros(1))
            assert not blocked.done()
        await client.execute("RPUSH", "queue", "x")
    assert blocked.result() == [b"queue", b"x"]


def test_blocking_face(address: str) -> None:
    """The blocking client does the same, also large arrays, pipelines, polls, waits and threads' turns."""
    with SyncClient(address, connect_timeout=5, timeout=10) as client:
        data = np.random.default_rng(3).random(300_000)
        client.put_tensor("big", data)
        np.testing.assert_array_equal(client.get_tensor("big"), data)
        client.put_dataset(a_dataset("d"))
        with client.pipeline() as pipe:
            pipe.put_tensor("a", data[:9])
            got = [pipe.get_tensor("a"), pipe.get_tensor("big")]
        assert [len(one.value) for one in got] == [9, 300_000]
        assert client.get_dataset("d").get_tensor_dims("t") == [2, 3]
        assert not client.poll_tensor("never", 1, 2)
        client.wait_for_dataset("d", 1)
        with pytest.raises(KeyNotFoundError):
            client.get_tensor("none")
        assert client.tensor_exists("a")


def test_faces_are_the_same() -> None:
    """Every operation is a method of both faces, with one signature and one docstring."""

    def operations(kind: type) -> dict[str, object]:
        return {name: value.__wrapped__ for name, value in vars(kind).items() if hasattr(value, "__wrapped__")}

    assert operations(Client) == operations(SyncClient)
    assert len(operations(Client)) > 60
    assert all(inspect.getdoc(operation) for operation in operations(Client).values())
    assert str(inspect.signature(asim.Client("h:1").tensor_exists)) == "(name: 'str') -> 'bool'"
