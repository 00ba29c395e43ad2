"""Uploaders, downloaders and what they know, as far as no database is needed."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from asim import Client, ConfigError, ConfigTypeError, SyncClient
from asim.client.notices import Pauses
from asim.ml import DataDownloader, DataInfo, SyncDataDownloader, SyncTrainingDataUploader, TrainingDataUploader
from asim.ml.reading import Reader

HEAVY = ("numpy", "torch", "tensorflow", "keras", "onnx", "onnxruntime", "asim.client")


@pytest.mark.parametrize("module", ["asim.ml", "asim.ml.extras"])
def test_the_package_is_light(module: str) -> None:
    """Importing ``asim.ml`` loads neither numpy nor the client nor a framework."""
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("module", ["torch", "tf", "onnx", "data"])
def test_frameworks_are_loaded_when_used(module: str) -> None:
    """Importing a helper loads no framework yet: only some programs that have it need it."""
    code = f"import sys, asim.ml.{module}; print([name for name in {HEAVY[1:6]} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_names_of_smartsim() -> None:
    """Uploader, downloader and info are also where SmartSim has them."""
    from asim import ml
    from asim.ml import data

    assert {name: getattr(data, name) for name in data.__all__} == {name: getattr(ml, name) for name in ml.__all__}


@pytest.mark.parametrize("wrong", [{"list_name": ""}, {"sample_name": ""}, {"num_classes": 0}, {"list_name": 3}])
def test_names_are_needed(wrong: dict[str, object]) -> None:
    """An empty name, and fewer than one class, are ValueErrors as in SmartSim."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DataInfo(**{"list_name": "l", **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SyncTrainingDataUploader(**wrong, address="h:1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"replica_rank": 2, "num_replicas": 2}, "replica_rank = 2: must be from 0 to num_replicas - 1 = 1"),
        ({"replica_rank": -1}, "replica_rank = -1"),
        ({"address": "nowhere"}, "address = 'nowhere'"),
    ],
)
def test_wrong_arguments(wrong: dict[str, object], text: str) -> None:
    """Arguments that make no sense are errors before anything is connected."""
    with pytest.raises(ConfigError, match=text):
        SyncDataDownloader("l", **{"address": "h:1", **wrong})  # type: ignore[arg-type]


def test_another_type_than_an_info() -> None:
    """Something that is neither an info nor a name is a TypeError, as in SmartSim."""
    with pytest.raises(ConfigTypeError, match="data_info_or_list_name = 'int': must be a DataInfo or the name"):
        SyncDataDownloader(3, address="h:1")  # type: ignore[arg-type]


def test_targets_that_do_not_fit() -> None:
    """Another number of targets than of samples, or targets without a name, are noticed before they are sent."""
    uploader = SyncTrainingDataUploader(address="127.0.0.1:1")
    with pytest.raises(ConfigError, match="must begin with the same number"):
        uploader.put_batch(np.zeros((3, 1)), np.zeros(2))
    auto = SyncTrainingDataUploader(target_name="samples", address="127.0.0.1:1")
    with pytest.raises(ConfigError, match="target_name"):
        auto.put_batch(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ConfigError, match=r"shapes of samples and targets = \[\[\]\]"):
        uploader.put_batch(np.float32(3))  # type: ignore[arg-type]
    assert (uploader.batch_idx, auto.batch_idx) == (0, 0)


def test_a_client_of_the_other_face() -> None:
    """An async client in a blocking class, and the reverse, would fail later with a text that helps nobody."""
    for made, client in ((SyncDataDownloader, Client("h:1")), (DataDownloader, SyncClient("h:1"))):
        with pytest.raises(ConfigTypeError, match="client = '(Sync)?Client': must be an asim"):
            made("l", client=client)  # type: ignore[arg-type]
    with pytest.raises(ConfigTypeError, match=r"must be an asim\.Client"):
        TrainingDataUploader(client=SyncClient("h:1"))  # type: ignore[arg-type]


def test_another_replica_begins_anew() -> None:
    """A loader's worker has a copy of a dataset that was used before; what that had read is not the worker's share."""
    down = SyncDataDownloader("l", 2, address="h:1")
    down._reader.samples.append(np.arange(8), None, "batch")
    down._arrange()
    down.set_replica(1, 2)
    assert (len(down), down.num_samples, down.replica_rank) == (0, 0, 1)


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Database and prefixes come from SmartRedis' variables; an address of one's own leaves the prefixes."""
    for name, value in {"SSDB": "a:1", "SR_DB_TYPE": "Clustered", "SSKEYIN": "p,q", "SSKEYOUT": "me"}.items():
        monkeypatch.setenv(name, value)
    found = SyncDataDownloader("l")
    assert repr(found.client) == "SyncClient('a:1', cluster=True)"
    assert found._reader.keys == [b"p.l", b"q.l"]
    assert repr(SyncDataDownloader("l", address="tcp://b:2", cluster=False).client) == "SyncClient('b:2')"
    assert SyncDataDownloader("l", address="b:2", cluster=False)._reader.keys == [b"p.l", b"q.l"]
    assert SyncTrainingDataUploader("l").client._core.prefixes.write == "me"
    monkeypatch.delenv("SR_DB_TYPE")
    assert repr(SyncDataDownloader("l", address="b:2").client) == "SyncClient('b:2')"


def test_a_client_of_ones_own() -> None:
    """A given client is used, with its prefixes, and a pickled copy knows where the database is."""
    client = SyncClient("h:1", get_prefixes=["p"])
    down = SyncDataDownloader("l", client=client)
    assert down.client is client
    assert down._reader.keys == [b"p.l"]
    copy = pickle.loads(pickle.dumps(down))
    assert copy.client is not client
    assert repr(copy.client) == repr(client)
    assert repr(copy) == "SyncDataDownloader('l', batch_size=32, num_samples=0)"
    assert (copy.sample_name, copy.target_name, copy.num_classes) == ("samples", "targets", None)
    assert bool(copy)
    assert len(copy) == 0


@pytest.mark.parametrize("replicas", [1, 2, 3, 7])
def test_every_entry_has_one_replica(replicas: int) -> None:
    """Replicas divide the entries of a list among themselves: none is read twice, none is left."""
    taken = []
    for rank in range(replicas):
        down = SyncDataDownloader("l", address="h:1", replica_rank=rank, num_replicas=replicas)
        taken += [i for i in range(20) if down._reader.is_mine(i)]
    assert sorted(taken) == list(range(20))


def test_orders() -> None:
    """A seed gives the same order each time, another for each replica; without shuffling it is that of arrival."""

    def order(rank: int = 0, **options: object) -> list[int]:
        down = SyncDataDownloader("l", 1, address="h:1", replica_rank=rank, num_replicas=2, **options)  # type: ignore[arg-type]
        down._reader.samples.append(np.arange(50), None, "batch")
        assert down._arrange() == 50
        return [int(batch[0]) for batch in down._pass()]

    assert order(shuffle=False) == list(range(50))
    assert order(seed=3) == order(seed=3)
    assert len({tuple(order(rank, seed=seed)) for rank in (0, 1) for seed in (3, 4)}) == 4
    assert sorted(order()) == list(range(50))


def test_only_whole_batches() -> None:
    """A pass has floor(n / batch_size) batches; without one it is an error that says what to do."""
    down = SyncDataDownloader("l", 4, address="h:1")
    down._reader.samples.append(np.arange(3), None, "batch")
    down._arrange()
    with pytest.raises(ValueError, match=r"samples of list l = 3: 4 are needed for one batch: .*init_samples"):
        next(down._pass())
    down._reader.samples.append(np.arange(8), None, "batch")
    down._arrange()
    assert [len(batch) for batch in down._pass()] == [4, 4]
    assert (len(down), down.num_samples) == (2, 11)


def test_autoencoders() -> None:
    """Where samples are their own targets, each batch has them twice, and no targets are asked for."""
    down = SyncDataDownloader(DataInfo("l", "x", "x"), 2, address="h:1")
    down._reader.samples.append(np.arange(4), None, "batch")
    down._arrange()
    one, other = next(down._pass())
    assert one is other
    assert (down.autoencoder, down.need_targets) == (True, False)


def test_smartsims_way_to_say_a_timeout() -> None:
    """``max_fetch_trials`` times ``wait_interval`` is the time limit; below 1 there is none; ``timeout`` is stronger."""
    limits = [
        SyncDataDownloader("l", address="h:1", **options)._limit  # type: ignore[arg-type]
        for options in ({}, {"max_fetch_trials": 3}, {"max_fetch_trials": 2, "wait_interval": 0.5}, {"max_fetch_trials": 2, "timeout": 7})
    ]  # fmt: skip
    assert limits == [None, 30, 1, 7]


def test_pauses() -> None:
    """A server that tells is asked once a second; one that does not, after pauses that grow to 0.1 s; never too late."""
    pauses = Pauses()
    assert (pauses.next(60), pauses.next(0.3)) == (1, 0.3)
    pauses.told = False
    waits = [pauses.next(60) for _ in range(20)]
    assert (waits[0], waits[-1]) == (0.001, 0.1)
    assert waits == sorted(waits)
    assert pauses.next(0.05) == 0.05


def test_the_info_is_a_copy() -> None:
    """A downloader learns names without changing the info that the caller has."""
    info = DataInfo("l", target_name="")
    assert info.target_name is None
    reader = Reader(info, SyncClient("h:1")._core.prefixes, 0, 1)
    reader.info.sample_name = "other"
    assert repr(info) == "DataInfo('l', 'samples', None, None)"
