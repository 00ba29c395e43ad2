"""Databases beside models: real servers, local and MPI ranks."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asim import Experiment, JobState, Model
from asim.errors import UnsupportedError
from asim.settings import Singularity
from tests.conftest import find_tool, missing
from tests.integration.conftest import alive, pids_in, python, sh, until
from tests.integration.ml_models import need

pytestmark = pytest.mark.anyio
DEADLINE = 30
PING = (
    "import os, socket, sys\n"
    "address = os.environ['SSDB']\n"
    "if address.startswith('unix://'):\n"
    "    s = socket.socket(socket.AF_UNIX); s.connect(address[7:])\n"
    "else:\n"
    "    host, port = address.split(':'); s = socket.create_connection((host, int(port)))\n"
    "f = s.makefile('rb')\n"
    "def ask(*words):\n"
    "    s.sendall(b'*%d\\r\\n' % len(words) + b''.join(b'$%d\\r\\n%s\\r\\n' % (len(w), w) for w in map(str.encode, words)))\n"
    "    line = f.readline().strip()\n"
    "    return f.read(int(line[1:]) + 2)[:-2].decode() if line[:1] == b'$' else line.decode()\n"
    "info = dict(l.split(':', 1) for l in ask('INFO').split('\\r\\n') if ':' in l)\n"
)


def places() -> list[Path]:
    """What is left of the places where ranks meet."""
    return list(Path(os.environ["TMPDIR"], f"asim-{os.getuid()}").glob("*"))


async def run(exp: Experiment, *models: Model) -> None:
    """Run models to their ends; their servers are gone then, and so are their files."""
    with anyio.fail_after(DEADLINE):
        group = await exp.start(*models)
        for job in group:
            assert job.status is JobState.COMPLETED, (job.reason, job.stderr.read_text())
        await until(lambda: not places())


async def test_tcp(exp: Experiment) -> None:
    """A model finds its own database at SSDB; it ends with the model."""
    model = python(exp, "m", PING + "print(ask('SET', 'k', 'v'), os.environ['SR_DB_TYPE'], info['process_id'])")
    model.colocate_db_tcp(port=0)
    await run(exp, model)
    answer, kind, pid = Path(exp.exp_path, "m.out").read_text().split()
    assert (answer, kind) == ("+OK", "Standalone")
    await until(lambda: not alive(int(pid)))


async def test_uds(exp: Experiment) -> None:
    """A database at a Unix domain socket, with no port open."""
    path = Path("s.sock").absolute()
    model = python(exp, "m", PING + "print(address, info['tcp_port'])")
    model.colocate_db_uds(unix_socket=str(path))
    await run(exp, model)
    assert Path(exp.exp_path, "m.out").read_text().split() == [f"unix://{path}", "0"]


async def test_arguments_survive(exp: Experiment) -> None:
    """Blanks, quotes, $, backslashes, newlines, empty and non-ASCII arguments arrive as they are."""
    odd = ["a b", "'", '"', "$HOME", "`id`", "\\", "x\ny", "", "ü€", "*", "--", "-c"]
    model = python(exp, "m", "import sys; print(ascii(sys.argv[1:]))", *odd)
    model.colocate_db_tcp(port=0)
    await run(exp, model)
    assert Path(exp.exp_path, "m.out").read_text().strip() == ascii(odd)


@pytest.mark.slow
async def test_a_python_of_its_own(exp: Experiment) -> None:
    """Variables that change Python reach the program, and not the Python that starts its database."""
    settings = exp.create_run_settings("/bin/sh", ["-c", 'echo "$PYTHONHOME $SSDB"'], env_vars={"PYTHONHOME": "/none"})
    model = exp.create_model("m", settings)
    model.colocate_db_tcp(port=0)
    await run(exp, model)
    assert Path(exp.exp_path, "m.out").read_text().startswith("/none 127.0.0.1:")


async def test_exit_codes_and_signals_pass(exp: Experiment) -> None:
    """The model's own exit code, or the signal that ended it, is the job's."""
    failing, killed = sh(exp, "f", "exit 7"), sh(exp, "k", "kill -SEGV $$")
    for model in (failing, killed):
        model.colocate_db_tcp(port=0)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(failing, killed)
    assert (group["f"].returncode, group["k"].returncode) == (7, -signal.SIGSEGV)
    await until(lambda: not places())


@pytest.mark.slow
async def test_sigpipe_is_as_for_any_program(exp: Experiment) -> None:
    """The wrapper's ignored SIGPIPE is not inherited: ``yes | head`` ends quietly."""
    model = exp.create_model(
        "m", exp.create_run_settings("/bin/bash", ["-c", "set -o pipefail; yes | head -1; echo $?"])
    )
    model.colocate_db_tcp(port=0)
    await run(exp, model)
    assert Path(exp.exp_path, "m.out").read_text().split() == ["y", "141"]
    assert "Broken pipe" not in Path(exp.exp_path, "m.err").read_text()


@pytest.mark.slow
async def test_a_program_that_does_not_exist_on_the_host(exp: Experiment) -> None:
    """What cannot be run is told as a shell does, by 127 and its name."""
    model = sh(exp, "m", "true")
    program = Path("p").absolute()
    program.write_text("#!/nonexistent\n")
    program.chmod(0o755)
    model.run_settings = exp.create_run_settings(program)
    model.colocate_db_tcp(port=0)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(model)
    assert group["m"].returncode == 127 and "No such file" in group["m"].stderr.read_text()


async def test_stopping(exp: Experiment) -> None:
    """A stopped model takes its database with it."""
    model = python(exp, "m", PING + "print(info['process_id'], flush=True); import time; time.sleep(60)")
    model.colocate_db_tcp(port=0)
    await exp.start(model, block=False)
    (pid,) = await pids_in(Path(exp.exp_path, "m.out"))
    with anyio.fail_after(DEADLINE):
        await exp.stop(model)
        assert exp.get_status(model) == [JobState.CANCELLED]
        await until(lambda: not alive(pid) and not places())


@pytest.mark.slow
async def test_members_have_a_database_each(exp: Experiment) -> None:
    """Three members at once, each with a database of its own at a free port."""
    ensemble = exp.create_ensemble(
        "e",
        run_settings=exp.create_run_settings(sys.executable, ["-I", "-S", "-c", PING + "print(info['process_id'])"]),
        replicas=3,
    )
    for member in ensemble:
        member.colocate_db_tcp(port=0)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(ensemble)
    assert all(job.status is JobState.COMPLETED for job in group)
    assert len({job.stdout.read_text() for job in group}) == 3


@pytest.mark.slow
async def test_pinning_options_and_log(exp: Experiment) -> None:
    """The server is pinned where asked, has the options that were given, and logs when debug is on."""
    cpu = max(os.sched_getaffinity(0))
    code = PING + "print(os.sched_getaffinity(int(info['process_id'])), os.sched_getaffinity(0), info['maxmemory'])"
    model = python(exp, "m", code)
    model.colocate_db_tcp(port=0, custom_pinning=[cpu], debug=True, maxmemory="10mb")
    await run(exp, model)
    mine, own, memory = Path(exp.exp_path, "m.out").read_text().replace(", ", ",").split()
    assert mine == f"{{{cpu}}}" and int(memory) == 10 << 20
    assert own == str(os.sched_getaffinity(0)).replace(", ", ",")
    assert "Ready to accept connections" in Path(exp.exp_path, "m-db.log").read_text()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"custom_pinning": [4000]}, "custom_pinning: none of the cpus"),
        ({"nonsense": "1"}, "redis-server ended while it started"),
        ({"ifname": "ib7"}, "interface: 'ib7' does not exist"),
    ],
)
async def test_a_database_that_cannot_start(exp: Experiment, how: dict[str, object], words: str) -> None:
    """The program is not run; the job fails, and its error output says why."""
    model = sh(exp, "m", "touch ran")
    model.colocate_db_tcp(port=0, **how)  # type: ignore[arg-type]
    with anyio.fail_after(DEADLINE):
        group = await exp.start(model)
    assert group["m"].status is JobState.FAILED and words in group["m"].stderr.read_text()
    assert not Path("ran").exists() and not places()


@pytest.mark.slow
async def test_a_program_that_closes_all_files(exp: Experiment) -> None:
    """Daemons close what they inherited, the lock that counts ranks too: the database stays until the program ends."""
    code = PING + (
        "import fcntl, glob\n"
        "place, = glob.glob(sys.argv[1])\n"
        "os.closerange(3, s.fileno()); os.closerange(s.fileno() + 1, 1024)\n"
        "fcntl.flock(os.open(place + '/alive', os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"  # nobody holds it
        "import time; time.sleep(0.4)\n"  # several looks of the node
        "print(ask('SET', 'k', 'v'))"
    )
    model = python(exp, "m", code, f"{os.environ['TMPDIR']}/asim-{os.getuid()}/*")
    model.colocate_db_tcp(port=0)
    await run(exp, model)
    assert Path(exp.exp_path, "m.out").read_text() == "+OK\n"


@pytest.mark.slow
async def test_a_killed_process_group(exp: Experiment) -> None:
    """mpiexec kills the process groups of its ranks; the node is in none of them, ends by itself, and tidies up."""
    model = python(exp, "m", PING + "import signal; os.killpg(0, signal.SIGKILL)")
    model.colocate_db_tcp(port=0)
    with anyio.fail_after(DEADLINE):
        group = await exp.start(model)
        assert group["m"].returncode == -signal.SIGKILL
        await until(lambda: not places())


@pytest.mark.slow
async def test_members_at_one_socket(exp: Experiment) -> None:
    """Of members that start at once with one socket path, one has it and the others fail; none gets another's data."""
    settings = exp.create_run_settings("/bin/sh", ["-c", "touch up; sleep 60"])
    ensemble = exp.create_ensemble("e", run_settings=settings, replicas=3)
    for member in ensemble:
        member.colocate_db_uds(unix_socket="s.sock")
    with anyio.fail_after(DEADLINE):
        group = await exp.start(ensemble, block=False)
        await until(lambda: Path("up").exists() and sum(job.status.terminal for job in group) == 2)
        failed = [job for job in group if job.status.terminal]
        assert all("s.sock" in job.stderr.read_text() for job in failed)
        await exp.stop(ensemble)


@pytest.mark.slow
async def test_a_socket_in_use(exp: Experiment) -> None:
    """Redis would take away the socket of another server; asim refuses."""
    path = Path("s.sock").absolute()
    first = sh(exp, "a", "touch up; sleep 60")
    first.colocate_db_uds(unix_socket=str(path))
    await exp.start(first, block=False)
    await until(Path("up").exists)
    second = sh(exp, "b", "true")
    second.colocate_db_uds(unix_socket=str(path))
    with anyio.fail_after(DEADLINE):
        group = await exp.start(second)
    assert group["b"].status is JobState.FAILED and "listens at" in group["b"].stderr.read_text()


async def test_a_container_is_refused(exp: Experiment) -> None:
    """A program in a container cannot have a database beside it, and the plan says so."""
    settings = exp.create_run_settings("sh", container=Singularity("image.sif"))
    model = exp.create_model("m", settings)
    model.colocate_db_tcp()
    with pytest.raises(UnsupportedError, match="m: container"):
        await exp.start(model)


def mpi_model(exp: Experiment, name: str, ranks: int, code: str) -> Model:
    """A model of several MPI ranks on this host."""
    mpiexec = find_tool("mpiexec")
    if mpiexec is None:
        missing("there is no mpiexec")
        raise AssertionError
    settings = exp.create_run_settings(sys.executable, ["-I", "-S", "-c", code], run_command=mpiexec)
    settings.set_tasks(ranks)
    return exp.create_model(name, settings)


async def test_ranks_leave_nothing_behind(home: Path) -> None:
    """When the experiment ends as soon as the ranks have, the server, its socket and its files are gone nevertheless."""
    path = Path("s.sock").absolute()
    async with Experiment("exp") as exp:
        model = mpi_model(exp, "m", 2, "pass")
        model.colocate_db_uds(unix_socket=str(path))
        with anyio.fail_after(DEADLINE):
            group = await exp.start(model)
    assert group["m"].status is JobState.COMPLETED
    assert not places() and not path.exists()


def test_other_cpus_by_default(home: Path) -> None:
    """Where the first cpu may not be used, a database that nobody pinned takes another; one that somebody did, fails."""
    from asim.database.config import NodeConfig
    from asim.database.node import Node
    from asim.errors import AsimError

    config = NodeConfig(name="o", run="r", directory="/", ports=[0], interfaces=["lo"], secret="", cpus=[4000])
    assert Node(replace(config, any_cpus=True), 0, 0)._cpus() == sorted(os.sched_getaffinity(0))[:1]
    with pytest.raises(AsimError, match=r"none of the cpus \[4000\] is available"):
        Node(config, 0, 0)._cpus()


async def test_all_ranks_share_one_database(exp: Experiment) -> None:
    """Four ranks: one server, ready before any of them runs; and it lives until the last has ended, not the first."""
    code = PING + (
        "rank = int(os.environ['PMI_RANK'])\n"
        "import time\n"
        "while rank == 3 and ask('LLEN', 'ended') != ':3': time.sleep(0.01)\n"
        "time.sleep(0.4) if rank == 3 else None\n"  # longer than the node takes to notice that nobody is left
        "assert ask('RPUSH', 'ended', str(rank)).startswith(':')\n"
        "open('rank%d' % rank, 'w').write(info['run_id'])"
    )
    model = mpi_model(exp, "m", 4, code)
    model.colocate_db_tcp(port=0)
    await run(exp, model)
    assert len({Path(f"rank{rank}").read_text() for rank in range(4)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "uds"])
async def test_all_ranks_find_the_objects(exp: Experiment, kind: str) -> None:
    """Four ranks: what is uploaded is there for the first command of each of them, and it is one database."""
    need("torch")
    code = PING.replace("info = ", "there = ask('EXISTS', 'negate')\ninfo = ") + (
        "open('rank' + os.environ['PMI_RANK'], 'w').write(there + ' ' + info['run_id'])"
    )
    model = mpi_model(exp, "m", 4, code)
    model.colocate_db_tcp(port=0) if kind == "tcp" else model.colocate_db_uds(str(Path("s.sock").absolute()))
    model.add_script("negate", "def negate(x):\n    return torch.neg(x)\n")
    await run(exp, model)
    found = [Path(f"rank{rank}").read_text().split() for rank in range(4)]
    assert [there for there, _ in found] == [":1"] * 4
    assert len({run_id for _, run_id in found}) == 1


@pytest.mark.slow
async def test_ranks_that_cannot_have_a_database(exp: Experiment) -> None:
    """When it cannot be started, no rank runs, and the job fails at once, not after a try per rank."""
    model = mpi_model(exp, "m", 4, "open('ran', 'w')")
    model.colocate_db_tcp(port=0, nonsense="1")
    with anyio.fail_after(DEADLINE):
        group = await exp.start(model)
    assert group["m"].status is JobState.FAILED and not Path("ran").exists()


@pytest.mark.slow
async def test_retries_get_a_new_database(exp: Experiment) -> None:
    """An attempt does not find the keys of the one before."""
    code = PING + "sys.exit(0 if ask('INCR', 'n') == ':1' and os.path.exists('x') else open('x', 'w') and 1)"
    settings = exp.create_run_settings(sys.executable, ["-I", "-S", "-c", code])
    model = exp.create_model("m", settings, retries=1)
    model.colocate_db_tcp(port=0)
    await run(exp, model)
