"""asim's clients and the real SmartRedis understand each other, both ways, in every operation on data.

Three databases: one server by TCP, the same by its Unix socket, and a cluster of three shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from asim import DatabaseError, DataSet, KeyNotFoundError, SyncClient

from ..conftest import missing
from ..servers import RedisCluster, RedisServer
from ..smartredis.caller import SmartRedis, SmartRedisError, content, interpreter
from .databases import check

TYPES = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16"]
SCALARS = [np.float64(1.5), np.float32(-2.5), np.int32(-3), np.int64(1 << 40), np.uint32(1 << 31), np.uint64(1 << 63)]
SCRIPT = "def twice(x):\n    return 2 * x\n"


class Pair(NamedTuple):
    """Both clients of one database; SmartRedis is ``sr``."""

    sr: Any
    asim: SyncClient
    address: str
    cluster: bool


SLOW = pytest.mark.slow


@pytest.fixture(scope="module", params=["tcp", pytest.param("uds", marks=SLOW), pytest.param("cluster", marks=SLOW)])
def database(request: pytest.FixtureRequest) -> Iterator[RedisServer | RedisCluster]:
    """What to connect to."""
    check()
    if interpreter() is None:
        missing("there is no Python with SmartRedis (make smartredis)")
    with RedisCluster(3) if request.param == "cluster" else RedisServer() as running:
        running.by = request.param
        yield running


@pytest.fixture(scope="module")
def pair(database: Any) -> Iterator[Pair]:
    """Both clients, without prefixes."""
    cluster = database.by == "cluster"
    address = database.addresses[0] if cluster else f"127.0.0.1:{database.port}"
    if database.by == "uds":
        address = f"unix://{database.socket}"
    python = interpreter()
    assert python
    theirs = SmartRedis(python, SSDB=address, SR_DB_TYPE="Clustered" if cluster else "Standalone")
    with SyncClient(address, cluster=cluster, connect_timeout=5, timeout=10) as ours:
        yield Pair(theirs, ours, address, cluster)
    theirs.close()


def array(dtype: str, *shape: int) -> np.ndarray:
    """Numbers of a type, none like another if there are few."""
    return np.arange(np.prod(shape)).astype(dtype).reshape(shape)


def dataset(name: str) -> DataSet:
    """A dataset with everything that one can have."""
    made = DataSet(name)
    for dtype in TYPES:
        made.add_tensor(f"t_{dtype}", array(dtype, 2, 3))
    for value in SCALARS:
        made.add_meta_scalar(f"m_{value.dtype.name}", value)
        made.add_meta_scalar(f"m_{value.dtype.name}", value)
    for word in ("first", "", "zweite äöü", "x" * 300):
        made.add_meta_string("words", word)
    return made


def assert_same(one: DataSet, other: DataSet) -> None:
    """Both have the same tensors and metadata, of the same types."""
    assert one.name == other.name
    assert sorted(one.get_tensor_names()) == sorted(other.get_tensor_names())
    assert sorted(one.get_metadata_field_names()) == sorted(other.get_metadata_field_names())
    for name in one.get_tensor_names():
        assert one.get_tensor_type(name) == other.get_tensor_type(name)
        np.testing.assert_array_equal(one.get_tensor(name), other.get_tensor(name))
    for name in one.get_metadata_field_names():
        assert one.get_metadata_field_type(name) is other.get_metadata_field_type(name)
        np.testing.assert_array_equal(content(one, name), content(other, name))


# -- tensors


@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_both_ways(pair: Pair, dtype: str) -> None:
    """A tensor of every type that both know comes out as it went in, whoever put it."""
    for shape in ((1,), (7,), (2, 3, 4), (1, 1, 1, 1, 1, 2)):
        data = array(dtype, *shape)
        pair.sr.put_tensor(f"theirs_{dtype}", data)
        pair.asim.put_tensor(f"ours_{dtype}", data)
        for got in (pair.asim.get_tensor(f"theirs_{dtype}"), pair.sr.get_tensor(f"ours_{dtype}")):
            assert got.dtype == data.dtype
            np.testing.assert_array_equal(got, data)


def test_large_tensors_both_ways(pair: Pair) -> None:
    """Tensors that land in their own memory are the same too."""
    data = np.random.default_rng(1).random((1 << 18) + 3)
    pair.sr.put_tensor("large_theirs", data)
    pair.asim.put_tensor("large_ours", data)
    np.testing.assert_array_equal(pair.asim.get_tensor("large_theirs"), data)
    np.testing.assert_array_equal(pair.sr.get_tensor("large_ours"), data)


def test_fortran_order_is_sent_right(pair: Pair) -> None:
    """An array in Fortran order, which SmartRedis' Python client scrambles, is read by it as it is."""
    data = np.asfortranarray(array("float64", 3, 5))
    pair.asim.put_tensor("fortran", data)
    np.testing.assert_array_equal(pair.sr.get_tensor("fortran"), data)


def test_renaming_copying_deleting(pair: Pair) -> None:
    """What one client renames, copies or deletes the other sees so; in a cluster also when the servers differ."""
    for number in range(4):
        data = array("int32", number + 1)
        a, b, c = (f"{name}{number}" for name in "abc")
        pair.sr.put_tensor(a, data)
        pair.asim.rename_tensor(a, b)
        assert pair.sr.tensor_exists(b)
        assert not pair.sr.tensor_exists(a)
        pair.sr.copy_tensor(b, c)
        np.testing.assert_array_equal(pair.asim.get_tensor(c), data)
        pair.sr.rename_tensor(c, a)
        pair.asim.copy_tensor(a, c)
        np.testing.assert_array_equal(pair.sr.get_tensor(c), data)
        pair.asim.delete_tensor(a)
        pair.sr.delete_tensor(b)
        assert [pair.asim.tensor_exists(name) for name in (a, b, c)] == [False, False, True]
        assert [pair.sr.key_exists(name) for name in (a, b, c)] == [False, False, True]


def test_polls_see_the_other_client(pair: Pair) -> None:
    """Polls of one client find what the other has put."""
    pair.sr.put_tensor("polled_theirs", array("int8", 1))
    pair.asim.put_tensor("polled_ours", array("int8", 1))
    assert pair.asim.poll_tensor("polled_theirs", 1, 2)
    assert pair.asim.poll_key("polled_theirs", 1, 2)
    assert pair.sr.poll_tensor("polled_ours", 1, 2)
    assert not pair.asim.poll_tensor("polled_never", 1, 2)


# -- datasets


def test_datasets_both_ways(pair: Pair) -> None:
    """A dataset with every type of tensor and metadata comes out as it went in, whoever put it."""
    pair.sr.put_dataset(dataset("theirs"))
    pair.asim.put_dataset(dataset("ours"))
    assert_same(pair.asim.get_dataset("theirs"), dataset("theirs"))
    assert_same(pair.sr.get_dataset("ours"), dataset("ours"))
    assert pair.asim.dataset_exists("theirs")
    assert pair.sr.dataset_exists("ours")
    assert pair.asim.poll_dataset("theirs", 1, 1)
    assert pair.sr.poll_dataset("ours", 1, 1)


def test_datasets_renamed_copied_deleted(pair: Pair) -> None:
    """What one client does to a dataset the other sees."""
    pair.sr.put_dataset(dataset("one"))
    pair.asim.copy_dataset("one", "two")
    pair.sr.rename_dataset("two", "three")
    pair.asim.rename_dataset("three", "four")
    assert [pair.sr.dataset_exists(name) for name in ("one", "two", "three", "four")] == [True, False, False, True]
    got = pair.sr.get_dataset("four")
    np.testing.assert_array_equal(got.get_tensor("t_int16"), array("int16", 2, 3))
    assert got.get_meta_strings("words") == dataset("x").get_meta_strings("words")
    pair.asim.delete_dataset("one")
    assert not pair.sr.dataset_exists("one")
    pair.sr.delete_dataset("four")
    with pytest.raises(KeyNotFoundError):
        pair.asim.get_dataset("four")


def test_datasets_without_metadata_or_tensors(pair: Pair) -> None:
    """Datasets with only tensors or only metadata are understood."""
    bare = DataSet("bare")
    bare.add_tensor("t", array("float32", 2))
    words = DataSet("words")
    words.add_meta_string("s", "x")
    for data in (bare, words):
        pair.sr.put_dataset(data)
        assert_same(pair.asim.get_dataset(data.name), data)
        pair.asim.put_dataset(data)
        assert_same(pair.sr.get_dataset(data.name), data)


# -- lists


def test_lists_both_ways(pair: Pair) -> None:
    """Both append to one list, and both read all of it and parts of it in order."""
    for number in range(4):
        data = DataSet(f"entry{number}")
        data.add_tensor("t", array("int64", number + 1))
        client = pair.sr if number % 2 else pair.asim
        client.put_dataset(data)
        client.append_to_list("mixed", data)
    assert pair.asim.get_list_length("mixed") == pair.sr.get_list_length("mixed") == 4
    for client in (pair.asim, pair.sr):
        assert [one.name for one in client.get_datasets_from_list("mixed")] == [f"entry{i}" for i in range(4)]
        assert [one.name for one in client.get_dataset_list_range("mixed", 1, 2)] == ["entry1", "entry2"]
        assert [len(one.get_tensor("t")) for one in client.get_datasets_from_list("mixed")] == [1, 2, 3, 4]
        assert client.poll_list_length("mixed", 4, 1, 1)
        assert client.poll_list_length_gte("mixed", 3, 1, 1)
        assert client.poll_list_length_lte("mixed", 5, 1, 1)
        assert not client.poll_list_length("mixed", 5, 1, 1)


def test_lists_renamed_copied_deleted(pair: Pair) -> None:
    """What one client does to a list the other sees."""
    data = DataSet("member")
    data.add_tensor("t", array("int8", 2))
    pair.asim.put_dataset(data)
    pair.sr.append_to_list("l0", data)
    pair.asim.copy_list("l0", "l1")
    pair.sr.copy_list("l1", "l2")
    pair.asim.rename_list("l1", "l3")
    pair.sr.rename_list("l2", "l4")
    lengths = [1, 0, 0, 1, 1]
    assert [pair.sr.get_list_length(f"l{i}") for i in range(5)] == lengths
    assert [pair.asim.get_list_length(f"l{i}") for i in range(5)] == lengths
    pair.sr.delete_list("l0")
    pair.asim.delete_list("l3")
    assert pair.asim.get_list_length("l0") == pair.sr.get_list_length("l3") == 0


# -- models and scripts


def test_models_are_stored_both_ways(pair: Pair) -> None:
    """A model that one client stored is what the other gets; in a cluster, from the same shard's key."""
    model = bytes(range(256)) * 1000
    pair.sr.set_model("theirs", model, "TORCH", "CPU")
    pair.asim.set_model("ours", model, "TORCH", "CPU", batch_size=4, min_batch_size=2, min_batch_timeout=9, tag="v")
    assert pair.asim.get_model("theirs") == pair.sr.get_model("ours") == model
    assert pair.asim.model_exists("theirs")
    assert pair.sr.model_exists("ours")
    assert pair.asim.poll_model("theirs", 1, 1)
    assert pair.sr.poll_model("ours", 1, 1)
    pair.asim.delete_model("theirs")
    pair.sr.delete_model("ours")
    assert not pair.sr.model_exists("theirs")
    assert not pair.asim.model_exists("ours")


def test_models_of_tensorflow_have_names(pair: Pair) -> None:
    """The names of inputs and outputs go over the wire the same way."""
    for client, name in ((pair.sr, "tf_theirs"), (pair.asim, "tf_ours")):
        client.set_model(name, b"graph", "TF", "CPU", 0, 0, 0, "", ["x", "y"], ["z"])
    assert pair.asim.get_model("tf_theirs") == pair.sr.get_model("tf_ours") == b"graph"


def test_models_for_several_gpus(pair: Pair) -> None:
    """The copies for each GPU have the same names for both."""
    pair.sr.set_model_multigpu("m_theirs", b"model", "TORCH", 0, 2)
    pair.asim.set_model_multigpu("m_ours", b"model", "TORCH", 0, 2)
    for name in ("m_theirs", "m_ours"):
        for copy in (name, f"{name}.GPU:0", f"{name}.GPU:1"):
            assert pair.asim.get_model(copy) == pair.sr.get_model(copy) == b"model"
    pair.asim.delete_model_multigpu("m_theirs", 0, 2)
    pair.sr.delete_model_multigpu("m_ours", 0, 2)
    assert not any(pair.asim.model_exists(f"m_{who}{gpu}") for who in ("theirs", "ours") for gpu in ("", ".GPU:1"))


def test_scripts_are_stored_both_ways(pair: Pair) -> None:
    """A script that one client stored is what the other gets."""
    pair.sr.set_script("s_theirs", SCRIPT, "CPU")
    pair.asim.set_script("s_ours", SCRIPT, "CPU")
    assert pair.asim.get_script("s_theirs") == pair.sr.get_script("s_ours") == SCRIPT
    pair.sr.set_script_multigpu("g_theirs", SCRIPT, 0, 2)
    pair.asim.set_script_multigpu("g_ours", SCRIPT, 0, 2)
    assert pair.asim.get_script("g_theirs.GPU:1") == pair.sr.get_script("g_ours.GPU:1") == SCRIPT
    pair.asim.delete_script_multigpu("g_theirs", 0, 2)
    pair.sr.delete_script_multigpu("g_ours", 0, 2)
    pair.asim.delete_script("s_theirs")
    pair.sr.delete_script("s_ours")
    names = ("s_theirs", "s_ours", "g_theirs", "g_ours.GPU:0")
    assert not any(pair.sr.model_exists(name) or pair.asim.model_exists(name) for name in names)


def test_runs_of_what_is_not_there(pair: Pair) -> None:
    """A run of a model or script that is not there is an error with the server's text for both."""
    pair.asim.put_tensor("x", array("float32", 2))
    for call, args in (("run_model", ("none", ["x"], ["y"])), ("run_script", ("none", "f", ["x"], ["y"]))):
        with pytest.raises(DatabaseError) as ours:
            getattr(pair.asim, call)(*args)
        with pytest.raises(SmartRedisError) as theirs:
            getattr(pair.sr, call)(*args)
        assert ours.value.reply
        assert ours.value.reply in str(theirs.value)


# -- administration


def test_administration(pair: Pair) -> None:
    """Both get the same answers from the servers, and change the same things."""
    address = pair.address
    ours, theirs = pair.asim.get_db_node_info(address)[0], pair.sr.get_db_node_info([address])[0]
    assert ours["Server"]["run_id"] == theirs["Server"]["run_id"]
    assert set(theirs) <= set(ours)
    assert pair.asim.config_get("maxmemory-policy", address) == pair.sr.config_get("maxmemory-policy", address)
    pair.asim.config_set("maxmemory-samples", "6", address)
    assert pair.sr.config_get("maxmemory-samples", address) == {"maxmemory-samples": "6"}
    pair.sr.save([address])
    pair.asim.save(address)
    if pair.cluster:
        assert pair.asim.get_db_cluster_info(address)[0]["cluster_size"] == "3"
    pair.sr.put_tensor("flushed", array("int8", 1))
    pair.asim.flush_db()
    assert not pair.sr.tensor_exists("flushed")


def test_statistics_of_models(pair: Pair) -> None:
    """AI.INFO is read alike, but that numbers are numbers here."""
    pair.asim.set_model("counted", b"model", "TORCH")
    ours, theirs = pair.asim.get_ai_info(pair.address, "counted"), pair.sr.get_ai_info([pair.address], "counted")
    assert [{name: str(value) for name, value in ours[0].items()}] == theirs
    assert ours[0]["key"] == "counted"
    assert pair.asim.get_ai_info(pair.address, "counted", reset_stat=True)


def test_chunk_size(pair: Pair) -> None:
    """A model in many pieces is whole for the other client."""
    model = bytes(range(256)) * 40
    with SyncClient(pair.address, cluster=pair.cluster) as other:
        other.set_model_chunk_size(1000)
        other.set_model("pieces", model, "ONNX")
        assert pair.sr.get_model("pieces") == other.get_model("pieces") == model
        pair.sr.set_model_chunk_size(700)
        pair.sr.set_model("theirs", model, "ONNX", "CPU")
        assert pair.sr.get_model("theirs") == other.get_model("theirs") == model
        other.set_model_chunk_size(511 << 20)
        pair.sr.set_model_chunk_size(511 << 20)
        assert pair.sr.get_model("theirs") == other.get_model("theirs") == model


# -- prefixes


def test_prefixes(database: Any, pair: Pair) -> None:
    """With SSKEYIN and SSKEYOUT both find each other's tensors, datasets, lists and models, and nothing else."""
    python = interpreter()
    assert python
    kind = "Clustered" if pair.cluster else "Standalone"
    producer = SmartRedis(python, SSDB=pair.address, SR_DB_TYPE=kind, SSKEYOUT="one", SSKEYIN="two,one")
    consumer = SyncClient(pair.address, cluster=pair.cluster, put_prefix="two", get_prefixes=["one", "two"])
    try:
        for client in (producer, consumer):
            client.use_model_ensemble_prefix(True)
            client.put_tensor("t", array("int8", 3))
            client.put_dataset(dataset("d"))
            client.append_to_list("l", dataset("d"))
            client.set_script("s", SCRIPT)
        for client in (producer, consumer):
            np.testing.assert_array_equal(client.get_tensor("t"), array("int8", 3))
            assert_same(client.get_dataset("d"), dataset("d"))
            assert [one.name for one in client.get_datasets_from_list("l")] == ["d"]
            assert client.get_script("s") == SCRIPT
            client.set_data_source("two" if client is consumer else "one")
            assert client.tensor_exists("t")
        assert pair.asim.key_exists("one.t")
        assert pair.asim.key_exists("two.{d}.meta")
        consumer.use_tensor_ensemble_prefix(False)
        assert not consumer.tensor_exists("t")
    finally:
        producer.close()
        consumer.close()
