"""Schedulers and SSH: asim beside bare shell loops, on a private Slurm of four nodes and a private sshd. See README.md here.

Needs slurmctld, slurmd, munge and sshd (see docs/how-to/schedulers.md), and root, as whom the daemons run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from asim import Experiment, JobState, SSHOptions  # noqa: E402
from asim.launchers.scheduled import ScheduledLauncher  # noqa: E402

Row = dict[str, Any]
STEPS, ARRAY, WAITING, FAR = 200, 1000, 10_000, 1000
BARE_AT_ONCE = (4, 8, 16, 32)


# -- what is measured inside an allocation, each in a fresh process


async def steps(place: str, placement: Any) -> Row:
    """So many members of one task, as steps or as processes of agents; then once more, with the agents there."""
    async with Experiment("bench", place, launcher="slurm") as exp:
        settings = exp.create_run_settings("/bin/true", run_args={"ntasks": 1, "nodes": 1})
        ensemble = exp.create_ensemble("e", run_settings=settings, replicas=STEPS, placement=placement)
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            group = await exp.start(ensemble)
            seconds.append(time.perf_counter() - began)
            assert group.status is JobState.COMPLETED, group
    return {"first": seconds[0], "again": seconds[1]}


def bare_steps(at_once: int) -> Row:
    """The same by xargs, which keeps ``at_once`` of them running."""
    step = f"srun -N1 -n1 --exact --jobid={os.environ['SLURM_JOB_ID']} /bin/true"
    began = time.perf_counter()
    subprocess.run(["sh", "-c", f"seq {STEPS} | xargs -P {at_once} -I{{}} {step}"], check=True)
    return {"first": time.perf_counter() - began}


# -- what is measured outside


async def array(place: str) -> Row:
    """An array of 1000 members: all that start does, the submit by itself, and how late ends are noticed."""
    async with Experiment("bench", place, launcher="slurm") as exp:
        settings = exp.create_run_settings("/bin/true", run_command="")
        batch = exp.create_batch_settings(nodes=1, time="00:10:00", batch_args={"hold": None})
        ensemble = exp.create_ensemble("e", run_settings=settings, batch_settings=batch, replicas=ARRAY, pack="array")
        await exp.start(exp.create_model("warm", settings))
        inner, took = ScheduledLauncher.submit, []

        async def submit(launcher: ScheduledLauncher, jobs: Any) -> None:
            began = time.perf_counter()
            await inner(launcher, jobs)
            took.append(time.perf_counter() - began)

        ScheduledLauncher.submit = submit  # type: ignore[method-assign]
        began = time.perf_counter()
        group = await exp.start(ensemble, block=False)
        seconds = time.perf_counter() - began
        scripts = sorted(Path(place, ".asim").glob("*.sh"))
        bare = []
        for _ in range(5):
            began = time.perf_counter()
            job = subprocess.check_output(
                ["sbatch", "--parsable", f"--array=0-{ARRAY - 1}", str(scripts[0])], text=True
            )
            bare.append(time.perf_counter() - began)
            subprocess.run(["scancel", job.strip()], check=True)
        await group.cancel()
    return {"start": seconds, "submit": max(took), "bare": statistics.median(bare)}


async def noticing(place: str, files: bool) -> Row:
    """Seconds between the end of a member and the news of it, with the files of members or by the queue alone."""
    from asim.launchers import scheduled

    if not files:
        scheduled.LOOK = 1e6
    late = []
    async with Experiment("bench", place, launcher="slurm") as exp:
        batch = exp.create_batch_settings(nodes=1, time="00:10:00")
        for number in range(8):
            sleep = ["-c", f"sleep {2 + number * 0.13}; date +%s.%N"]
            model = exp.create_model(
                f"m{number}", exp.create_run_settings("/bin/sh", sleep, run_command=""), batch_settings=batch
            )
            group = await exp.start(model)
            assert group.status is JobState.COMPLETED
            late.append(time.time() - float(Path(group.jobs[0].spec.stdout).read_text()))
    return {"late": late}


async def waiting(place: str) -> Row:
    """CPU time of the driver while so many jobs wait."""
    async with Experiment("bench", place, launcher="slurm") as exp:
        settings = exp.create_run_settings("/bin/true", run_command="")
        batch = exp.create_batch_settings(nodes=1, batch_args={"hold": None})
        ensemble = exp.create_ensemble("e", run_settings=settings, batch_settings=batch, replicas=WAITING, pack="array")
        began = time.perf_counter()
        group = await exp.start(ensemble, block=False)
        took = time.perf_counter() - began
        await asyncio.sleep(20)
        cpu, children = _cpu(), _cpu(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        await asyncio.sleep(60)
        wall = time.perf_counter() - began
        share = (_cpu() - cpu) / wall
        await group.cancel()
    return {"start": took, "driver": share, "all": share + (_cpu(resource.RUSAGE_CHILDREN) - children) / wall}


def _cpu(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


async def far(place: str, port: int) -> Row:
    """1000 processes over one SSH connection, and the same by asyncssh, eight channels at a time."""
    import asyncssh

    options = SSHOptions(
        port=port, config=(), known_hosts=f"{place}/known_hosts", identity_files=f"{place}/id", fetch="never"
    )
    async with Experiment("bench", f"{place}/exp", host="root@127.0.0.1", ssh=options) as exp:
        await exp.start(exp.create_model("warm", exp.create_run_settings("/bin/true")))
        ensemble = exp.create_ensemble("e", run_settings=exp.create_run_settings("/bin/true"), replicas=FAR)
        began = time.perf_counter()
        group = await exp.start(ensemble)
        ours = time.perf_counter() - began
        assert group.status is JobState.COMPLETED
    limit = asyncio.Semaphore(8)
    keys = {"known_hosts": f"{place}/known_hosts", "client_keys": [f"{place}/id"], "config": []}
    async with asyncssh.connect("127.0.0.1", port, username="root", **keys) as link:

        async def one() -> None:
            async with limit:
                while True:
                    with contextlib.suppress(asyncssh.ChannelOpenError):
                        assert (await link.run("/bin/true")).exit_status == 0
                        return

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(FAR)))
        theirs = time.perf_counter() - began
    return {"ours": ours, "asyncssh": theirs, "loop": bare_spawns()}


def bare_spawns() -> float:
    """Seconds in which a bare loop starts as many here and reaps them, without SSH, directories or output files."""
    began, left = time.perf_counter(), FAR
    with open(os.devnull, "w") as null:
        outputs = [(os.POSIX_SPAWN_DUP2, null.fileno(), 1), (os.POSIX_SPAWN_DUP2, null.fileno(), 2)]
        for number in range(FAR):
            os.posix_spawn("/bin/true", ["/bin/true"], os.environ, file_actions=outputs, setsid=True)
            while left > FAR - number and os.waitpid(-1, os.WNOHANG)[0]:
                left -= 1
        while left:
            os.waitpid(-1, 0)
            left -= 1
    return time.perf_counter() - began


# -- running it


INSIDE: dict[str, Callable[..., Any]] = {
    "steps": lambda place: steps(place, "step"),
    "agents": lambda place: steps(place, "agent"),
    "array": array,
    "files": lambda place: noticing(place, True),
    "queue": lambda place: noticing(place, False),
    "waiting": waiting,
    "far": lambda place, port: far(place, int(port)),
}


def child(name: str, *words: str, env: dict[str, str], allocation: bool = False) -> Row:
    """One measurement in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="asim-bench-") as scratch:
        place = words[0] if words else f"{scratch}/exp"
        argv = [sys.executable, __file__, "--inside", name, place, *words[1:]]
        if allocation:
            argv = ["salloc", "-Q", "-N4", "-n64", *argv]
        done = subprocess.run(argv, env=env, cwd=scratch, stdout=subprocess.PIPE, text=True, check=True)
        row: Row = json.loads(done.stdout.splitlines()[-1])
        return row


def measure(only: str, rounds: int) -> Iterator[Row]:
    """Every comparison; medians of rounds that take turns."""
    from tests.integration.ssh import SSHServer
    from tests.site.slurm import SlurmSite

    def wanted(name: str) -> bool:
        return not only or name in only.split(",")

    with tempfile.TemporaryDirectory(prefix="asim-s", dir="/tmp") as scratch:
        if any(map(wanted, ("steps", "array", "noticing", "waiting"))):
            with SlurmSite(Path(scratch) / "slurm") as site:
                env = {**site.env, "PYTHONPATH": str(ROOT)}
                if wanted("steps"):
                    yield from compare_steps(env, rounds)
                if wanted("array"):
                    rows = [child("array", env=env) for _ in range(rounds)]
                    ours, bare, whole = (_median(rows, name) for name in ("submit", "bare", "start"))
                    note = f"{ours * 1e3:.0f} ms / {bare * 1e3:.0f} ms; all that start does: {whole * 1e3:.0f} ms"
                    yield row("array of 1000 submitted / one bare sbatch", ours / bare, "<= 1.5", note)
                if wanted("noticing"):
                    late = child("files", env=env)["late"]
                    yield row(
                        "end noticed by the members' files, s",
                        statistics.median(late),
                        "<= 1",
                        f"worst {max(late):.2f}",
                    )
                    late = child("queue", env=env)["late"]
                    yield row(
                        "end noticed by the queue, s", statistics.median(late), "<= 2 polls", f"worst {max(late):.2f}"
                    )
                if wanted("waiting"):
                    found = child("waiting", env=env)
                    yield row(
                        "driver CPU while 10,000 jobs wait, % of a core",
                        100 * found["driver"],
                        "<= 1",
                        f"submitted in {found['start']:.2f} s",
                    )
        if wanted("far"):
            server = SSHServer(Path(scratch) / "ssh")
            try:
                words = (str(server.place), str(server.port))
                rows = [child("far", *words, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(rounds)]
            finally:
                server.stop()
            ratio = statistics.median(one["asyncssh"] / one["ours"] for one in rows)
            yield row(
                "1000 processes over SSH: asim / asyncssh by 8",
                ratio,
                ">= 5",
                f"{_median(rows, 'ours'):.2f} s / {_median(rows, 'asyncssh'):.2f} s; "
                f"a bare loop here, without SSH: {_median(rows, 'loop'):.2f} s",
            )


def compare_steps(env: dict[str, str], rounds: int) -> Iterator[Row]:
    """Steps and agents beside the best bare loop."""
    bare: dict[int, list[float]] = {}
    ours, agents, again = [], [], []
    for _ in range(rounds):
        for at_once in BARE_AT_ONCE:
            words = ["salloc", "-Q", "-N4", "-n64", sys.executable, __file__, "--bare", str(at_once)]
            text = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
            bare.setdefault(at_once, []).append(json.loads(text)["first"])
        ours.append(child("steps", env=env, allocation=True)["first"])
        found = child("agents", env=env, allocation=True)
        agents.append(found["first"])
        again.append(found["again"])
    at_once, seconds = min(((count, statistics.median(times)) for count, times in bare.items()), key=lambda one: one[1])
    mine, most, warm = (STEPS / statistics.median(times) for times in (ours, agents, again))
    best = STEPS / seconds
    yield row(
        "200 srun steps: rate / best bare loop",
        mine / best,
        ">= 0.85",
        f"{mine:.0f}/s, xargs -P {at_once}: {best:.0f}/s",
    )
    yield row(
        "200 members by agents: rate / best bare loop",
        most / best,
        ">= 5",
        f"{most:.0f}/s with the start of the agents, then {warm:.0f}/s",
    )


def row(what: str, value: float, goal: str, note: str) -> Row:
    """One line of the table."""
    return {"what": what, "value": value, "goal": goal, "note": note}


def _median(rows: list[Row], name: str) -> float:
    return statistics.median(one[name] for one in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="of steps,array,noticing,waiting,far")
    parser.add_argument("--rounds", type=int, default=3, help="how often the comparisons are run; medians are shown")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.bare:
        print(json.dumps(bare_steps(args.bare)))
    elif args.inside:
        print(json.dumps(asyncio.run(INSIDE[args.inside[0]](*args.inside[1:]))))
    else:
        print("| what | measured | goal | |\n|---|---|---|---|")
        for one in measure(args.only, args.rounds):
            print(f"| {one['what']} | {one['value']:.2f} | {one['goal']} | {one['note']} |", flush=True)


if __name__ == "__main__":
    main()
