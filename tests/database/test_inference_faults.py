"""What goes wrong while models run: each has a defined outcome, nobody waits without end, and the database goes on.

The table in ``docs/explanation/inference.md`` says the same in words.
"""

import os
import signal
import subprocess
from pathlib import Path

import anyio
import numpy as np
import psutil
import pytest
import redis

from asim import Experiment, JobState, Orchestrator
from tests.conftest import FILES
from tests.integration import ml_models as models
from tests.integration.conftest import alive, until
from tests.integration.ml_models import need

from .conftest import connect, node_pids, pids
from .inference import (
    DEADLINE,
    Waiting,
    X,
    computes,
    count,
    growing_model,
    kill,
    mlp_works,
    number,
    prepared,
    said,
    started,
    store,
    tensor,
    workers,
)  # fmt: skip
from .test_faults import small_disk as small_disk

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what counts is outside of it."""
    return "asyncio"


ENDED = "the worker that ran this ended"


async def replaced(db: Orchestrator, worker: int) -> int:
    """The worker that takes the place of one that ended."""
    await until(lambda: workers(db) not in ([], [worker]))
    return workers(db)[0]


# -- workers and models that break


async def test_a_worker_killed_during_a_run(exp: Experiment) -> None:
    """Who waits for that run is told; the queued ones are done by the next worker, which loads the model by itself."""
    db = await started(exp)
    client = prepared(db)
    running = Waiting(db, *count("forever", "a"))
    (worker,) = workers(db)
    await computes(worker)
    queued = [Waiting(db, *count("few", f"b{i}")) for i in range(5)]
    for one in queued:
        await one.is_blocked(db)
    os.kill(worker, signal.SIGKILL)
    assert ENDED in await running.answer()
    assert [await one.answer() for one in queued] == [b"OK"] * 5
    assert [number(client, f"b{i}") for i in range(5)] == [4.0] * 5
    assert not client.exists("a")
    assert f"worker {worker} of CPU was killed by SIGKILL" in said(db)


@pytest.mark.slow
async def test_a_model_that_hangs_past_its_timeout(exp: Experiment) -> None:
    """The error comes at TIMEOUT; the worker is killed some seconds after that, and the next request is served."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    with anyio.fail_after(3):
        assert "TIMEDOUT" in await Waiting(db, *count("forever", "y", "TIMEOUT", 200)).answer()
    assert alive(worker)  # the run may be about to end
    assert mlp_works(client)
    assert workers(db) != [worker]
    assert "killed by SIGALRM" in said(db)
    assert not client.exists("y")


async def test_a_run_that_ends_soon_after_its_timeout(exp: Experiment) -> None:
    """It is told that it timed out, nothing appears afterwards, and the worker lives on."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    assert "TIMEDOUT" in await Waiting(db, *count("many", "y", "TIMEOUT", 50)).answer()
    assert mlp_works(client)
    assert workers(db) == [worker]
    assert not client.exists("y")


@pytest.mark.parametrize("without", ["TIMEOUT", "worker"])
async def test_no_run_is_longer_than_the_execution_timeout(exp: Experiment, without: str) -> None:
    """Without TIMEOUT, too, a run ends at model_execution_timeout, and those behind it in the queue are served."""
    db = await started(exp, model_execution_timeout=1000)
    client = prepared(db)
    (worker,) = workers(db)
    if without == "worker":
        await kill(db, worker)  # the limit is for the run, and not for the start of a worker
    hangs = Waiting(db, *count("forever"))
    await hangs.is_blocked(db)
    behind = Waiting(db, *count("few", "z"))
    assert ENDED in await hangs.answer()
    assert await behind.answer() == b"OK"
    assert number(client, "z") == 4.0


@pytest.mark.slow
async def test_the_import_of_a_framework_is_not_counted(exp: Experiment) -> None:
    """Importing torch takes longer than a run may: models are stored and run all the same, also by a worker that is new."""
    need("torch")
    db = await started(exp, model_execution_timeout=500)
    client = connect(db, socket_timeout=DEADLINE)
    tensor(client, "X", X)
    store(client, "mlp", models.torch_mlp(), "TORCH")
    assert mlp_works(client)
    for _ in range(3):
        await kill(db, workers(db)[0])
        assert mlp_works(client)
    assert "SIGALRM" not in said(db)


async def test_a_model_that_kills_workers_is_quarantined(exp: Experiment) -> None:
    """The third worker in a row is the last: clear errors from then on, also for the queued; others go on; a new one lifts it."""
    db = await started(exp)
    client = prepared(db)
    for death in range(3):
        running = Waiting(db, *count("forever"))
        (worker,) = workers(db)
        await computes(worker)
        if death == 2:
            queued = Waiting(db, *count("forever"))
            await queued.is_blocked(db)
        os.kill(worker, signal.SIGSEGV)
        assert ENDED in await running.answer()
        if death < 2:
            await replaced(db, worker)
    assert "quarantine" in await queued.answer()
    info = client.execute_command("AI.INFO", "count")
    assert info[info.index(b"state") + 1] == b"quarantined"
    with pytest.raises(redis.ResponseError, match="quarantine"):
        client.execute_command(*count("few"))
    assert mlp_works(client)
    store(client, "count", client.execute_command("AI.MODELGET", "count", "BLOB"))
    assert client.execute_command(*count("few")) == b"OK"
    info = client.execute_command("AI.INFO", "count")
    assert info[info.index(b"state") + 1] == b"ready"


CRASH = """
def crash(x):
    return torch.ops.aten._sparse_coo_tensor_unsafe(torch.full([1, 1], 1 << 50, dtype=torch.long), x, [4]).to_dense()
"""


@pytest.mark.slow
async def test_a_crash_inside_the_framework(exp: Experiment) -> None:
    """A function that makes torch write where there is no memory costs its caller an error and a worker, nobody else anything."""
    need("torch")
    db = await started(exp)
    client = prepared(db)
    client.execute_command("AI.SCRIPTSET", "bad", "CPU", "SOURCE", CRASH)
    (worker,) = workers(db)
    words = "AI.SCRIPTRUN", "bad", "crash", "INPUTS", "x", "OUTPUTS", "y"
    for _ in range(3):
        assert ENDED in await Waiting(db, *words).answer()
    assert "quarantine" in await Waiting(db, *words).answer()
    assert mlp_works(client)
    assert said(db).count("was killed by SIGSEGV") == 3
    assert workers(db) != [worker]


async def test_a_stopped_worker(exp: Experiment) -> None:
    """SIGSTOP: no timer ends it. TIMEOUT answers all the same, other devices go on; after SIGCONT everything does."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    store(client, "other", models.onnx_mlp(), "ONNX")
    client.execute_command("AI.MODELSTORE", "other", "ONNX", "CPU:1", "BLOB", models.onnx_mlp())
    os.kill(worker, signal.SIGSTOP)
    try:
        taken, queued = (Waiting(db, *count("few", name, "TIMEOUT", 300)) for name in "ab")
        assert "TIMEDOUT" in await taken.answer()
        assert "TIMEDOUT" in await queued.answer()
        patient = Waiting(db, *count("few", "c"))
        await patient.is_blocked(db)
        assert client.execute_command("AI.MODELEXECUTE", "other", "INPUTS", 1, "X", "OUTPUTS", 1, "Y") == b"OK"
    finally:
        os.kill(worker, signal.SIGCONT)
    assert await patient.answer() == b"OK"
    assert mlp_works(client)
    assert not client.exists("a", "b")


async def test_a_worker_that_was_stopped_for_good(exp: Experiment) -> None:
    """A worker that is stopped can be killed, as any process: then the run is an error, and another one takes over."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    os.kill(worker, signal.SIGSTOP)
    run = Waiting(db, *count("few"))
    await run.is_blocked(db)
    os.kill(worker, signal.SIGKILL)
    assert ENDED in await run.answer()
    assert mlp_works(client)


# -- data that change meanwhile


async def test_inputs_that_change_in_the_queue(exp: Experiment) -> None:
    """Deleted, replaced, renamed, of another type, or the whole database emptied: the run has what was there when asked for."""
    db = await started(exp)
    client = prepared(db)
    before = Waiting(db, *count("many", "first"))
    await before.is_blocked(db)
    runs = []
    for number_ in range(4):
        tensor(client, f"in{number_}", np.array([number_], np.float32))
        words = "AI.MODELEXECUTE", "count", "INPUTS", 2, f"in{number_}", "few", "OUTPUTS", 1, f"out{number_}"
        runs.append(Waiting(db, *words))
        await runs[-1].is_blocked(db)
    client.delete("in0", "few")
    tensor(client, "in1", np.array([100], np.float32))
    client.rename("in2", "elsewhere")
    client.execute_command("SET", "in3", "text")
    client.execute_command("AI.MODELDEL", "count")
    assert await before.answer() == b"OK"
    assert [await run.answer() for run in runs] == [b"OK"] * 4
    assert [number(client, f"out{i}") for i in range(4)] == [3.0, 4.0, 5.0, 6.0]


async def test_everything_is_deleted_meanwhile(exp: Experiment) -> None:
    """FLUSHALL while runs wait: they are answered, and nothing of them hangs."""
    db = await started(exp)
    client = prepared(db)
    running = Waiting(db, *count("many", "a"))
    (worker,) = workers(db)
    await running.is_blocked(db)
    queued = Waiting(db, *count("few", "b"))
    await queued.is_blocked(db)
    client.flushall()
    assert [await running.answer(), await queued.answer()] == [b"OK", b"OK"]
    assert number(client, "b") == 4.0
    assert "model key is empty" in await Waiting(db, *count()).answer()
    assert workers(db) == [worker]


async def test_outputs_that_others_write(exp: Experiment) -> None:
    """A tensor that came meanwhile is overwritten, as the run ends later; anything else is left as it is, with an error."""
    db = await started(exp)
    client = prepared(db)
    runs = [Waiting(db, *count("many", name)) for name in ("mine", "text")]
    for one in runs:
        await one.is_blocked(db)
    tensor(client, "mine", np.array([7], np.float32))
    client.execute_command("SET", "text", "words")
    assert await runs[0].answer() == b"OK"
    assert "WRONGTYPE" in await runs[1].answer()
    assert number(client, "mine") == 300_001.0
    assert client.get("text") == b"words"


@pytest.mark.slow
async def test_a_thousand_queued_runs(exp: Experiment) -> None:
    """A thousand clients wait for one worker: others are answered meanwhile, and each gets its own result."""
    await queue_and_run(await started(exp), 1000)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_ten_thousand_queued_runs(exp: Experiment, files: None) -> None:
    """The same with ten thousand clients, each of which has a connection of its own."""
    await queue_and_run(await started(exp, maxclients=FILES - 100), 10_000)


async def queue_and_run(db: Orchestrator, number_: int) -> None:
    """So many clients wait while the worker stands still; then each gets what it asked for."""
    client = prepared(db)
    first = Waiting(db, *count("many"))
    (worker,) = workers(db)
    await computes(worker)
    os.kill(worker, signal.SIGSTOP)
    try:
        runs = [Waiting(db, *count("few", f"y{i}")) for i in range(number_)]
        await until(lambda: client.info("clients")["blocked_clients"] > number_, DEADLINE)
        assert client.ping()
    finally:
        os.kill(worker, signal.SIGCONT)
    tensor(client, "x", np.array([5], np.float32))  # makes no difference to them
    assert [await one.answer() for one in (first, *runs)] == [b"OK"] * (number_ + 1)
    assert {number(client, f"y{i}") for i in range(number_)} == {4.0}
    assert workers(db) == [worker]


async def test_clients_that_leave(exp: Experiment) -> None:
    """Who leaves while its run is queued: it is never done. Who leaves while it runs: its result is thrown away."""
    db = await started(exp)
    client = prepared(db)
    running = Waiting(db, *count("many", "a"))
    (worker,) = workers(db)
    await computes(worker)
    queued = Waiting(db, *count("forever", "b"))
    await queued.is_blocked(db)
    running.leave()
    queued.leave()
    assert mlp_works(client)  # and so the queued one, which would take for ever, is not in the way
    assert workers(db) == [worker]
    assert not client.exists("a", "b")


# -- too much


async def test_outputs_larger_than_maxmemory(exp: Experiment) -> None:
    """One output may be more than there is room for; then runs are refused, as writes are, until something is deleted."""
    db = await started(exp, maxmemory="64mb")
    client = prepared(db)
    store(client, "grow", growing_model())
    tensor(client, "n", np.array([32 << 20], np.int64))  # 128 MB
    words = "AI.MODELEXECUTE", "grow", "INPUTS", 1, "n", "OUTPUTS", 1, "big"
    assert client.execute_command(*words) == b"OK"
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.execute_command(*words)
    assert client.execute_command("AI.TENSORGET", "big", "META")[3] == [32 << 20]
    client.delete("big")
    await until(lambda: client.info("memory")["used_memory"] < 64 << 20)  # it is freed in the background
    assert mlp_works(client)


async def test_outputs_larger_than_a_worker_may_have(exp: Experiment) -> None:
    """A tensor that does not fit into worker_memory is an error in the framework's words, and the worker goes on."""
    db = await started(exp, worker_memory="1gb")
    client = prepared(db)
    store(client, "grow", growing_model())
    (worker,) = workers(db)
    tensor(client, "n", np.array([1 << 40], np.int64))
    with pytest.raises(redis.ResponseError, match="(?i)alloc|memory"):
        client.execute_command("AI.MODELEXECUTE", "grow", "INPUTS", 1, "n", "OUTPUTS", 1, "big")
    assert mlp_works(client)
    assert workers(db) == [worker]


async def test_messages_that_may_not_be_large(exp: Experiment) -> None:
    """Where proto-max-bulk-len is too small for an output, the error says that something ended; small ones go on."""
    db = await started(exp, proto_max_bulk_len="1mb")
    client = prepared(db)
    store(client, "grow", growing_model())
    tensor(client, "n", np.array([1 << 20], np.int64))  # 4 MB
    assert ENDED in await Waiting(db, "AI.MODELEXECUTE", "grow", "INPUTS", 1, "n", "OUTPUTS", 1, "big").answer()
    assert mlp_works(client)


async def test_no_connections_are_left(exp: Experiment) -> None:
    """Where clients have taken every connection a worker cannot attach; who waits is told or served when some have gone."""
    db = await started(exp, maxclients=40)
    client = connect(db, socket_timeout=DEADLINE)
    client.ping()
    upload = Waiting(db, "PING")
    others: list[redis.Redis] = []
    with pytest.raises(redis.exceptions.ConnectionError, match="max number of clients"):
        for _ in range(60):
            others.append(connect(db))
            others[-1].ping()
    assert upload.send("AI.MODELSTORE", "mlp", "ONNX", "CPU", "BLOB", models.onnx_mlp()) == b"PONG"
    await until(lambda: said(db).count("ended with exit code 1") >= 3)
    for other in others:
        other.close()
    answer = await upload.answer()
    assert answer == b"OK" or (answer.startswith("no inference worker for CPU: ") and "exit code 1" in answer)
    tensor(client, "X", X)
    with anyio.fail_after(DEADLINE):
        while not await _served(client):
            await anyio.sleep(0.05)


async def _served(client: redis.Redis) -> bool:
    try:
        store(client, "mlp", models.onnx_mlp())
    except redis.ResponseError:
        return False
    return mlp_works(client)


# -- the server, the node, the driver, the disk


async def test_the_server_sleeps(exp: Experiment) -> None:
    """A server that stands still for a while, with a run under way: the run and the queue are served when it goes on."""
    db = await started(exp)
    client = prepared(db)
    (worker,) = workers(db)
    running, queued = Waiting(db, *count("many", "a")), Waiting(db, *count("few", "b", "TIMEOUT", 60_000))
    await queued.is_blocked(db)
    process = psutil.Process(worker)
    os.kill(pids(db)[0], signal.SIGSTOP)
    try:
        await until(lambda: process.status() == psutil.STATUS_SLEEPING)  # it has done what it had
    finally:
        os.kill(pids(db)[0], signal.SIGCONT)
    assert [await running.answer(), await queued.answer()] == [b"OK", b"OK"]
    assert mlp_works(client)
    assert workers(db) == [worker]


async def test_the_server_is_killed(exp: Experiment) -> None:
    """kill -9 of the server: its workers end, also one in the middle of a run."""
    db = await started(exp)
    prepared(db)
    (worker,) = workers(db)
    Waiting(db, *count("forever"))
    await computes(worker)
    processes = [worker, *node_pids(db)]
    os.kill(pids(db)[0], signal.SIGKILL)
    await until(lambda: not any(map(alive, processes)))
    await until(lambda: exp.get_status(db)[0] is JobState.FAILED)


async def test_the_database_is_stopped(exp: Experiment) -> None:
    """A stop in the middle of a run takes the worker with it, in time."""
    db = await started(exp)
    prepared(db)
    (worker,) = workers(db)
    Waiting(db, *count("forever"))
    await computes(worker)
    with anyio.fail_after(10):
        await exp.stop(db)
    assert not alive(worker)


async def test_workers_stay_when_the_driver_leaves(home: Path) -> None:
    """A detached database runs models without its driver, and starts workers again."""
    async with Experiment("exp", on_exit="detach") as exp:
        db = await started(exp)
        client, checkpoint = prepared(db), db.checkpoint_file
        (worker,), node = workers(db), node_pids(db)[0]
    assert mlp_works(client)
    await kill(db, worker)
    assert mlp_works(client)
    async with Experiment("later") as later:
        found = await later.reconnect_orchestrator(checkpoint)
        await later.stop(found)
    await until(lambda: not alive(node))


async def test_a_full_disk(exp: Experiment, small_disk: Path) -> None:
    """Where the workers' log cannot grow, workers are started and started again all the same."""
    db = await started(exp, path=small_disk / "db")
    client = prepared(db)
    fill(small_disk)
    for _ in range(2):
        (worker,) = workers(db)
        await kill(db, worker)
        assert mlp_works(client)
    await exp.stop(db)


def fill(disk: Path) -> None:
    """Until there is no room."""
    subprocess.run(["dd", "if=/dev/zero", f"of={disk}/fill", "bs=4k"], check=False, capture_output=True)
    assert os.statvfs(disk).f_bavail == 0


# -- what is missing


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [("ONNX", "onnxruntime", "onnx"), ("TORCH", "torch", "torch"), ("TF", "tensorflow", "tensorflow")],
)
async def test_a_missing_backend(
    exp: Experiment, home: Path, monkeypatch: pytest.MonkeyPatch, backend: str, package: str, extra: str
) -> None:
    """A framework that is not installed where the database runs: the upload is an error with the line that installs it."""
    (home / "shadow").mkdir()
    (home / "shadow" / f"{package}.py").write_text(f'raise ImportError("No module named {package!r}")\n')
    monkeypatch.setenv("PYTHONPATH", str(home / "shadow"))
    async with Experiment("without", stop_grace=0.5) as without:
        db = without.create_database(port=0)
        await without.start(db)
        client = connect(db, socket_timeout=DEADLINE)
        with pytest.raises(redis.ResponseError) as caught:
            store(client, "m", b"anything", backend)
        assert f"pip install 'asim[{extra}]'" in str(caught.value)
        assert "No module named" in str(caught.value)
        assert not client.exists("m")
        assert len(workers(db)) == 1  # it goes on
        await without.stop(db)
