"""ML objects in databases before applications start: real servers."""

import hashlib
import importlib.util
import logging
import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asim import Experiment, Function, JobState, MLModel, Orchestrator, Script
from asim.client.keys import shard_tag
from asim.database.config import slot_ranges
from asim.errors import ConfigError, ConfigTypeError, DatabaseError, EntityExistsError, MissingFileError
from tests.conftest import missing
from tests.integration.conftest import python, sh, until

from .conftest import CLUSTER, connect
from .test_colocated import PING, run

pytestmark = pytest.mark.anyio
DEADLINE = 60
NEGATE = "def negate(x):\n\treturn torch.neg(x)\n"


@pytest.fixture
def torch() -> None:
    """Scripts need it, where the database runs."""
    if importlib.util.find_spec("torch") is None:
        missing("torch is not installed")


def timestwo(x):
    return 2 * x


def onnx_model(factor: float = 2.0, padding: int = 0) -> bytes:
    """A real model that multiplies by a number; ``padding`` makes it larger by so many bytes."""
    try:
        from onnx import TensorProto, helper
    except ImportError:
        missing("onnx is not installed")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], doc_string="-" * padding)
    model.ir_version = 8
    return model.SerializeToString()


def model(name: str = "double", factor: float = 2.0, **fields: object) -> MLModel:
    """One that is real."""
    return MLModel(**{"name": name, "backend": "ONNX", "source": onnx_model(factor)} | fields)


async def deployed(exp: Experiment, shards: int = 1, **options: object) -> Orchestrator:
    """A database that runs."""
    db = exp.create_database(port=0, db_nodes=shards, **options)
    await exp.start(db)
    return db


def keys(db: Orchestrator, name: str) -> list[tuple[int, bytes]]:
    """Where a name's copies must be: shard and key."""
    shards = db.num_shards
    if shards == 1:
        return [(0, name.encode())]
    return [(i, b"{" + shard_tag(first) + b"}." + name.encode()) for i, (first, _) in enumerate(slot_ranges(shards))]


def lowered(stats: dict) -> dict:
    """Names in lower case: versions differ."""
    return {name.lower(): value for name, value in stats.items()}


def stores(db: Orchestrator) -> list[int]:
    """How often each server was told to store a model or a script, in vain or not."""
    return [
        sum(
            lowered(connect(db, shard).info("commandstats")).get(f"cmdstat_ai.{verb}", {"calls": 0})["calls"]
            for verb in ("modelstore", "scriptset")
        )
        for shard in range(db.num_shards)
    ]


def blob(db: Orchestrator, key: bytes, shard: int = 0) -> bytes:
    """A model as it is in the database."""
    return connect(db, shard).execute_command("AI.MODELGET", key, "BLOB")


def meta(db: Orchestrator, key: bytes, shard: int = 0) -> dict[str, object]:
    """What the database says of a model."""
    words = connect(db, shard).execute_command("AI.MODELGET", key, "META")
    return dict(zip([word.decode() for word in words[::2]], words[1::2], strict=True))


# -- with a start


@pytest.mark.parametrize("shards", [1, CLUSTER])
@pytest.mark.usefixtures("torch")
async def test_everything_is_there_before_a_model_starts(exp: Experiment, shards: int) -> None:
    """A model in memory, one in a file, a script and a function: on every shard when the application begins."""
    Path("m.onnx").write_bytes(onnx_model(3))
    db = exp.create_database(port=0, db_nodes=shards)
    code = PING + "print(ask('EXISTS', 'double'), ask('EXISTS', 'times'))"
    app = python(exp, "m", code if shards == 1 else "pass")
    app.add_ml_model("double", "ONNX", onnx_model(), tag="v1", batch_size=8, min_batch_size=2, min_batch_timeout=10)
    app.add_ml_model("triple", "onnx", model_path="m.onnx")
    app.add_script("negate", NEGATE)
    app.add_function("times", timestwo)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(db, app)
    assert group.status is JobState.COMPLETED, group[0].stderr.read_text()
    if shards == 1:
        assert group[0].stdout.read_text().split() == [":1", ":1"]
    for shard, key in keys(db, "double"):
        assert blob(db, key, shard) == onnx_model()
        found = meta(db, key, shard)
        assert (found["backend"], found["device"], found["tag"]) == (b"ONNX", b"CPU", b"v1")
        assert (found["batchsize"], found["minbatchsize"], found["minbatchtimeout"]) == (8, 2, 10)
    assert [blob(db, key, shard) for shard, key in keys(db, "triple")] == [onnx_model(3)] * shards
    for name, text in (("negate", NEGATE), ("times", "def timestwo(x):\n    return 2 * x\n")):
        for shard, key in keys(db, name):
            assert connect(db, shard).execute_command("AI.SCRIPTGET", key, "SOURCE").decode() == text
    assert stores(db) == [4] * shards


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_members_share_one_upload(exp: Experiment) -> None:
    """The objects of an ensemble are stored once, however many members and models have them."""
    db = await deployed(exp)
    ensemble = exp.create_ensemble("e", replicas=20, run_settings=exp.create_run_settings("/bin/true"))
    ensemble.add_script("negate", NEGATE)
    other = sh(exp, "m", "true")
    other.add_script("negate", NEGATE)
    with anyio.fail_after(DEADLINE):
        await exp.start(ensemble, other)
    assert stores(db) == [1]


@pytest.mark.parametrize("shards", [1, CLUSTER])
@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_a_restart_sends_nothing_again(exp: Experiment, shards: int) -> None:
    """What is there is only looked at; what somebody removed or replaced meanwhile is stored again."""
    db = await deployed(exp, shards)
    app = sh(exp, "m", "true")
    app.add_object(model())
    app.add_function("times", timestwo)
    with anyio.fail_after(DEADLINE):
        await exp.start(app)
        await exp.start(app)
        assert stores(db) == [2] * shards
        shard, key = keys(db, "double")[-1]
        connect(db, shard).execute_command("AI.MODELDEL", key)
        await exp.start(app)
        assert sum(stores(db)) == 2 * shards + 1
        assert blob(db, key, shard) == onnx_model()
        shard, key = keys(db, "times")[0]
        connect(db, shard).execute_command("AI.SCRIPTSET", key, "CPU", "SOURCE", NEGATE)
        await exp.start(app)
        assert sum(stores(db)) == 2 * shards + 3
    assert b"timestwo" in connect(db, shard).execute_command("AI.SCRIPTGET", key, "SOURCE")


@pytest.mark.slow
async def test_a_file_that_changed_is_sent_again(exp: Experiment) -> None:
    """The same object with new contents in its file takes the place of the old ones."""
    Path("m.onnx").write_bytes(onnx_model(2))
    db = await deployed(exp)
    app = sh(exp, "m", "true")
    app.add_ml_model("m", "ONNX", model_path="m.onnx")
    with anyio.fail_after(DEADLINE):
        await exp.start(app)
        Path("m.onnx").write_bytes(onnx_model(3))
        await exp.start(app)
    assert stores(db) == [2]
    assert blob(db, b"m") == onnx_model(3)


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_databases_are_chosen_by_name(exp: Experiment) -> None:
    """An object goes to the databases that were named; without names to all; an unknown name is refused."""
    one, two = exp.create_database(port=0, db_identifier="one"), exp.create_database(port=0, db_identifier="two")
    app = sh(exp, "m", "true")
    app.add_script("a", NEGATE, db_identifier="one")
    app.add_script("b", NEGATE, db_identifier=["one", "two"])
    app.add_script("c", NEGATE)
    app.add_script("d", NEGATE, db_identifier="two")
    app.add_script("d", NEGATE + "#", db_identifier="one")
    with anyio.fail_after(DEADLINE):
        await exp.start(one, two, app)
    found = [sorted(key.decode() for key in connect(db).scan_iter()) for db in (one, two)]
    assert found == [["a", "b", "c", "d"], ["b", "c", "d"]]
    app.add_script("e", NEGATE, db_identifier="three")
    with pytest.raises(ConfigError, match=r"m: e: db_identifier = 'three': must be .*: 'one', 'two'"):
        await exp.start(app)


async def test_no_database_is_an_error(exp: Experiment) -> None:
    """An ML object that no database could hold is refused before anything is made."""
    app = sh(exp, "m", "true")
    app.add_script("negate", NEGATE)
    with pytest.raises(ConfigError, match="m: ML object = 'negate': no database is running"):
        await exp.start(app)
    assert not os.path.exists("exp")


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_two_objects_under_one_key(exp: Experiment) -> None:
    """Two models of one start, and one that comes later, may not want different objects under one key."""
    db = await deployed(exp)
    first, second = sh(exp, "first", "true"), sh(exp, "second", "true")
    first.add_script("x", NEGATE)
    second.add_function("x", timestwo)
    text = r"second: ML object = 'x': its key 'x' on database orchestrator belongs to .* script 'x' of first"
    with pytest.raises(EntityExistsError, match=text):
        await exp.start(first, second)
    assert stores(db) == [0]
    with anyio.fail_after(DEADLINE):
        await exp.start(first)
        with pytest.raises(EntityExistsError, match=text):
            await exp.start(second)
        with pytest.raises(EntityExistsError, match="belongs to a different object"):
            await exp.upload(db, model("x"))
    assert stores(db) == [1]


async def test_missing_file(exp: Experiment) -> None:
    """A file that is not there is noticed before a database is started."""
    db, app = exp.create_database(port=0), sh(exp, "m", "true")
    app.add_ml_model("m", "ONNX", model_path="none.onnx")
    with pytest.raises(MissingFileError, match=r"m: model_path = '/.*/none.onnx': no such file"):
        await exp.start(db, app)
    assert not os.path.exists("exp")


async def test_a_failure_starts_nothing(exp: Experiment) -> None:
    """What the server refuses is told with the object, the key and the shard; no job has run, no database is left."""
    db, app = exp.create_database(port=0), sh(exp, "m", "touch ran")
    for number in range(8):
        app.add_ml_model(f"m{number}", "ONNX", onnx_model(number))
    app.add_ml_model("bad", "ONNX", b"no model")
    app.add_ml_model("good", "ONNX", onnx_model())
    text = r"ONNX model 'bad' of m \(on CPU, from memory\): could not be stored as 'bad' in database orchestrator "
    with anyio.fail_after(DEADLINE):
        with pytest.raises(DatabaseError, match=text + r"\(orchestrator_0\): .*ONNXRuntimeError.*protobuf") as caught:
            await exp.start(db, app)
    assert (caught.value.command, "ONNXRuntimeError" in caught.value.reply) == ("AI.MODELSTORE", True)
    assert not Path("ran").exists()
    assert not await db.is_active()
    await until(lambda: all(job.status.terminal for job in exp._session.monitor.jobs))


@pytest.mark.slow
async def test_large_files_come_in_blocks(exp: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of several blocks arrives whole."""
    from asim.database import sending

    monkeypatch.setattr(sending, "BLOCK", 300_000)
    Path("m.onnx").write_bytes(onnx_model(2, 3_500_000))
    db = await deployed(exp)
    with anyio.fail_after(DEADLINE):
        await exp.upload(
            db, MLModel(name="f", backend="ONNX", source=Path("m.onnx")), model("m", source=onnx_model(5, 2_500_000))
        )
    for name, data in (("f", onnx_model(2, 3_500_000)), ("m", onnx_model(5, 2_500_000))):
        assert hashlib.sha256(blob(db, name.encode())).digest() == hashlib.sha256(data).digest()


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_progress_is_told(exp: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    """Many objects are announced, and what was done is in the log and among the events of the database's job."""
    db = await deployed(exp)
    words = []
    with caplog.at_level(logging.INFO, "asim"), anyio.fail_after(DEADLINE):
        async with exp.events() as events:
            await exp.upload(db, *(Script(name=f"s{number}", source=NEGATE) for number in range(12)))
            async for event in events:
                words.append(event.reason)
                if "stored" in event.reason:
                    break
    assert words[0].startswith("uploading 12 ML objects")
    assert words[-1].startswith("copies of ML objects stored: 12, ")
    assert f"database orchestrator: {words[-1]}" in caplog.messages


# -- exp.upload


@pytest.mark.parametrize("shards", [1, CLUSTER])
@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_upload_at_any_time(exp: Experiment, shards: int) -> None:
    """The same without a start; again it sends nothing; with ``replace`` another object may take a name."""
    db = await deployed(exp, shards)
    with anyio.fail_after(DEADLINE):
        await exp.upload(db, model(), Function(name="times", source=timestwo))
        await exp.upload(db, model())
        assert stores(db) == [2] * shards
        with pytest.raises(EntityExistsError, match="belongs to a different object"):
            await exp.upload(db, model(factor=7))
        await exp.upload(db, model(factor=7), replace=True)
        with pytest.raises(EntityExistsError, match="belongs to a different object"):
            await exp.upload(db, model())
    assert [blob(db, key, shard) for shard, key in keys(db, "double")] == [onnx_model(7)] * shards


async def test_a_failed_replacement_keeps_the_old_object(exp: Experiment) -> None:
    """What could not be replaced is still there, needs not be sent again, and may not be replaced by accident."""
    db = await deployed(exp)
    with anyio.fail_after(DEADLINE):
        await exp.upload(db, model())
        with pytest.raises(DatabaseError, match="could not be stored as 'double'"):
            await exp.upload(db, model(source=b"no model"), replace=True)
        assert stores(db) == [2]
        with pytest.raises(EntityExistsError, match="belongs to a different object"):
            await exp.upload(db, model(factor=7))
        await exp.upload(db, model())
    assert stores(db) == [2]
    assert blob(db, b"double") == onnx_model()


async def test_the_first_of_two_uploads_is_cancelled(exp: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other call stores the object, and nothing else may take its key afterwards."""
    from asim.database import sending

    db = await deployed(exp)
    under_way, real = anyio.Event(), sending.Sender.store

    async def store(self, copy, sent):
        monkeypatch.setattr(sending.Sender, "store", real)
        under_way.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(sending.Sender, "store", store)
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as both, anyio.create_task_group() as group:
            group.start_soon(exp.upload, db, model())
            await under_way.wait()
            both.start_soon(exp.upload, db, model())
            preloader = exp._session._preloader
            await until(lambda: waits(preloader))
            group.cancel_scope.cancel()
        with pytest.raises(EntityExistsError, match="belongs to a different object"):
            await exp.upload(db, model(factor=7))
    assert blob(db, b"double") == onnx_model()


def waits(preloader) -> bool:
    """Whether an upload waits for another one of the same object."""
    locks = [lock for locks in preloader._locks.values() for lock in locks.values()]
    return any(lock.statistics().tasks_waiting for lock in locks)


async def test_workers_prepare_for_everything(exp: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told of every framework at once, although other connections are faster than the one that tells them."""
    from asim.database import sending
    from asim.database.server import RunningDatabase

    db = await deployed(exp)
    stored, prepared, first = anyio.Event(), [], True
    reached, store, ask_all = RunningDatabase.reached, sending.Sender.store, sending.Sender.ask_all

    async def slow_at_first(self, address):
        nonlocal first
        if first:
            first = False
            await stored.wait()
        return await reached(self, address)

    async def store_and_tell(self, copy, sent):
        await store(self, copy, sent)
        stored.set()

    async def ask_and_note(self, commands, *rest):
        prepared.extend(words[1:] for words in commands if words[0] == "ASIM.PREPARE")
        return await ask_all(self, commands, *rest)

    monkeypatch.setattr(RunningDatabase, "reached", slow_at_first)
    monkeypatch.setattr(sending.Sender, "store", store_and_tell)
    monkeypatch.setattr(sending.Sender, "ask_all", ask_and_note)
    with anyio.fail_after(DEADLINE):
        await exp.upload(db, model("large", source=onnx_model(2, 1_000_000), device="CPU:1"), model("small"))
    assert prepared == [("ONNX", "CPU:1"), ("ONNX", "CPU")]
    assert lowered(connect(db).info("commandstats"))["cmdstat_asim.prepare"]["calls"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_another_experiment_finds_them_there(exp: Experiment) -> None:
    """A database that was found again: what is in it already is recognised by its digest, and the rest is stored."""
    db = await deployed(exp)
    with anyio.fail_after(DEADLINE):
        await exp.upload(db, model(), Script(name="negate", source=NEGATE))
        async with Experiment("second") as second:
            found = await second.reconnect_orchestrator(db.checkpoint_file)
            await second.upload(found, model(), Script(name="negate", source=NEGATE), model("triple", 3.0))
    assert stores(db) == [3]


async def test_a_server_that_is_gone(exp: Experiment) -> None:
    """A server that accepts no connection is told with the database's and the shard's name."""
    db = await deployed(exp)
    db._handle.shards[0] = replace(db._handle.shards[0], port=1)
    text = r"database orchestrator \(orchestrator_0\): cannot connect to 127.0.0.1:1: "
    with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError, match=text):
        await exp.upload(db, model())


async def test_upload_refuses_what_cannot_be(exp: Experiment) -> None:
    """Wrong types, a database that does not run, a TF model without names, a function without source."""
    db = exp.create_database(port=0)
    with pytest.raises(DatabaseError, match="orchestrator is not running"):
        await exp.upload(db, model())
    await exp.start(db)
    with pytest.raises(ConfigTypeError, match="database = 'db': must be an Orchestrator"):
        await exp.upload("db", model())
    with pytest.raises(ConfigTypeError, match="objects = 'm': must be of type MLModel"):
        await exp.upload(db, "m")
    with pytest.raises(ConfigError, match=r"tf: inputs = \(\): a TF model needs"):
        await exp.upload(db, MLModel(name="tf", backend="TF", source=b"x", outputs=("y",)))
    with pytest.raises(ConfigTypeError, match="f: function = .*<lambda>': a lambda has no name"):
        await exp.upload(db, Function(name="f", source=lambda x: x))
    await exp.upload(db)
    assert stores(db) == [0]


@pytest.mark.slow
async def test_a_cancelled_upload_can_be_repeated(exp: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled in the middle of a model, nothing half is there, connections are closed, and the next one works."""
    from asim.database import sending

    db = await deployed(exp)
    halfway, real = anyio.Event(), sending.Sender.store

    async def store(self, copy, sent):
        def then(count):
            sent(count)
            halfway.set()

        await real(self, copy, then)

    monkeypatch.setattr(sending.Sender, "store", store)
    monkeypatch.setattr(sending, "BLOCK", 1 << 16)
    large = model("large", source=onnx_model(2, 20_000_000))
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(exp.upload, db, large)
            await halfway.wait()
            group.cancel_scope.cancel()
        assert connect(db).exists("large") == 0
        assert not exp._session._preloader.uploaded["orchestrator"]
        await until(lambda: connect(db).info("clients")["connected_clients"] <= 4)
        await exp.upload(db, large)
    assert blob(db, b"large") == large.source


async def test_a_cancelled_start_starts_nothing(exp: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled while it uploads gives that up: no job runs, and its database ends."""
    from asim.database import sending

    under_way, real = anyio.Event(), sending.Sender.store

    async def store(self, copy, sent):
        under_way.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(sending.Sender, "store", store)
    db, app = exp.create_database(port=0), sh(exp, "m", "touch ran")
    app.add_object(model())
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(exp.start, db, app)
            await under_way.wait()
            group.cancel_scope.cancel()
        await until(lambda: not exp._session.monitor.busy)
        assert not exp._session.monitor.work
        monkeypatch.setattr(sending.Sender, "store", real)
        assert (await exp.start(db, app)).status is JobState.COMPLETED
    assert Path("ran").exists()


@pytest.mark.slow
async def test_uploads_at_the_same_time(exp: Experiment) -> None:
    """The same object from several callers at once is stored once."""
    db = await deployed(exp)
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(exp.upload, db, model())
    assert stores(db) == [1]


@pytest.mark.parametrize("end", ["cancel", "kill"])
@pytest.mark.slow
async def test_a_server_that_goes_away(exp: Experiment, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that ends during an upload is an error with the object's name, in time."""
    from asim.database import sending

    db = await deployed(exp)
    real = sending.Sender.store

    async def store(self, copy, sent):
        if end == "kill":
            os.kill(db._handle.shards[0].pid, 9)
        else:
            await exp.stop(db)
        await real(self, copy, sent)

    monkeypatch.setattr(sending.Sender, "store", store)
    with anyio.fail_after(DEADLINE), pytest.raises(DatabaseError, match="'large' of exp .*the connection was lost"):
        await exp.upload(db, model("large", source=onnx_model(2, 20_000_000)))


# -- colocated


@pytest.mark.parametrize("kind", ["tcp", pytest.param("uds", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("torch")
async def test_colocated(exp: Experiment, kind: str) -> None:
    """A database beside a model has its objects before the model's first rank starts, also what is in memory."""
    Path("m.onnx").write_bytes(onnx_model(3, 300_000))
    size = len(onnx_model(2, 100_000))
    code = (
        "import hashlib\n" + PING + "def blob(name):\n"
        "    s.sendall(b'*3\\r\\n$12\\r\\nAI.MODELGET\\r\\n'.replace(b'12', b'11') + b'$%d\\r\\n%s\\r\\n$4\\r\\nBLOB\\r\\n' % (len(name), name))\n"
        "    size = int(f.readline()[1:])\n"
        "    return hashlib.sha256(f.read(size + 2)[:-2]).hexdigest()\n"
        "print(blob(b'memory'), blob(b'file'), ask('EXISTS', 'negate'), ask('AI.SCRIPTGET', 'times', 'SOURCE').split()[1])"
    )
    app = python(exp, "m", code)
    app.colocate_db_tcp(port=0) if kind == "tcp" else app.colocate_db_uds(unix_socket=str(Path("s.sock").absolute()))
    app.add_ml_model("memory", "ONNX", onnx_model(2, 100_000))
    app.add_ml_model("file", "ONNX", model_path="m.onnx")
    app.add_script("negate", NEGATE)
    app.add_function("times", timestwo)
    await run(exp, app)
    wanted = [hashlib.sha256(data).hexdigest() for data in (onnx_model(2, 100_000), onnx_model(3, 300_000))]
    assert Path(exp.exp_path, "m.out").read_text().split() == [*wanted, ":1", "timestwo(x):"]
    assert max(path.stat().st_size for path in Path(exp.exp_path, ".asim").glob("*.blob")) == size
    await run(exp, app)


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
async def test_colocated_and_standard(exp: Experiment) -> None:
    """Objects go to the colocated database, unless a standard one is named."""
    db = await deployed(exp)
    app = python(exp, "m", PING.replace("['SSDB']", "['SSDB_own']") + "print(ask('EXISTS', 'a', 'b', 'c'))")
    app.colocate_db_tcp(port=0, db_identifier="own")
    app.add_script("a", NEGATE)
    app.add_script("b", NEGATE, db_identifier="orchestrator")
    app.add_script("c", NEGATE, db_identifier=["own", "orchestrator"])
    with anyio.fail_after(DEADLINE):
        group = await exp.start(app)
    assert group[0].stdout.read_text().strip() == ":2", group[0].stderr.read_text()
    assert sorted(connect(db).scan_iter()) == [b"b", b"c"]


async def test_colocated_failure(exp: Experiment) -> None:
    """An object that its colocated database refuses: the program does not start, and its error file says why."""
    Path("m.onnx").write_bytes(onnx_model())
    app = sh(exp, "m", "touch ran")
    app.colocate_db_tcp(port=0)
    app.add_ml_model("gone", "ONNX", model_path="m.onnx")
    plan = await exp.preview(app, output_filename="p.txt")
    assert "model     gone (ONNX" in Path("p.txt").read_text()
    assert [upload.name for upload in plan.beside["m"]] == ["gone"]
    blocker = sh(exp, "b", "rm m.onnx; mkfifo none; mkdir m.onnx")
    app.after(blocker)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(blocker, app)
    assert group["m"].status is JobState.FAILED
    words = group["m"].stderr.read_text()
    assert "no colocated database: ONNX model 'gone' of m" in words
    assert "could not be stored as 'gone'" in words
    assert not Path("ran").exists()
