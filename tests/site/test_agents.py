"""Agents on the nodes of an allocation of a real Slurm: one srun starts them, they start the members."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import anyio
import pytest

from asim import Ensemble, RunSettings, SrunSettings, UnsupportedError
from asim.runtime.job import Job
from tests.site.experiments import (
    Allocated,
    C,
    F,
    Lab,
    R,
    T,
    X,
    allocation,
    anyio_backend,
    ends,
    lab,
    processes,
    state_of,
    until,
    wait_until,
)

__all__ = ["allocation", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def sh(text: str, *args: str) -> RunSettings:
    """A shell line, in the words of a run command that must not be used."""
    return SrunSettings("/bin/sh", ["-c", text, "sh", *args])


def agents(lab: Lab) -> dict[str, int]:
    """Node -> the process of its agent."""
    found = {}
    for pid in processes(f"{lab.place}/"):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if b"node" in words and not words[0].endswith(b"srun"):
            found[dict(item.partition(b"=")[::2] for item in environment)[b"SLURMD_NODENAME"].decode()] = pid
    return found


def node_of(job: Job) -> str:
    """Where it said that it was."""
    return job.stdout.read_text().strip()


async def test_two_hundred(lab: Lab, allocation: Allocated) -> None:
    """200 members are started by one srun, spread over all nodes, and each has its own code, output and times."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", {"x": list(range(200))}, run_settings=sh("echo $SLURMD_NODENAME; exit $(($2 % 4))"),
                            params_as_args="x", placement="agent")  # fmt: skip
        for number, model in enumerate(ensemble.models):
            model.run_settings.exe_args = ["-c", f"echo $SLURMD_NODENAME; exit {number % 4}"]
        with anyio.fail_after(30):
            group = await exp.start(ensemble)
    assert ends(group) == [(C, 0), (F, 1), (F, 2), (F, 3)] * 50
    counts = Counter(map(node_of, group))
    assert set(counts) == {"n1", "n2", "n3", "n4"}
    assert min(counts.values()) >= 20
    assert all(job.started_at and job.ended_at and job.started_at <= job.ended_at for job in group)
    assert len(lab.calls("srun")) == 1
    assert not agents(lab)


async def test_as_many_as_there_are_cpus(lab: Lab, allocation: Allocated) -> None:
    """A node runs no more members at once than it has CPUs for; the others follow."""
    async with lab.experiment() as exp:
        settings = sh("sleep 600")
        settings.set_cpus_per_task(8)
        group = await exp.start(Ensemble("e", run_settings=settings, replicas=10, placement="agent"), block=False)
        for job in group[:8]:
            await state_of(job, R)
        await exp.stop(group[0].model)
        await state_of(group[8], R)
        assert group[9].status is not R
    assert {job.status for job in group} == {X}


async def test_stopping(lab: Lab, allocation: Allocated) -> None:
    """One that runs, one that waits, one that is too slow; at the end everything on every node is gone."""
    async with lab.experiment() as exp:
        slow = Ensemble("slow", run_settings=sh("sleep 210.1"), replicas=1, placement="agent", timeout=0.5)
        ensemble = Ensemble("e", run_settings=sh("sleep 210.1 & sleep 210.1"), replicas=80, placement="agent")
        group = await exp.start(slow, ensemble, block=False)
        await state_of(group[1], R)
        with anyio.fail_after(20):
            await exp.stop(group[1].model, group[80].model)
            await group[0]
        assert [group[at].status for at in (0, 1, 80)] == [T, X, X]
        assert group[80].reason == "stopped before it started"
        assert group[2].status is R
    assert {job.status for job in group[1:]} == {X}
    assert not processes("210.1")
    assert not agents(lab)


async def test_agent_that_is_killed(lab: Lab, allocation: Allocated) -> None:
    """When an agent dies its members FAIL with Slurm's word for it, and nothing of them is left; the others go on."""
    async with lab.experiment() as exp:
        line = f"echo $SLURMD_NODENAME; while [ ! -e {lab.place}/go ]; do sleep 0.211; done"
        group = await exp.start(Ensemble("e", run_settings=sh(line), replicas=8, placement="agent"), block=False)
        for job in group:
            await state_of(job, R)
        await until(lambda: all(map(node_of, group)))
        os.kill(agents(lab)["n3"], signal.SIGKILL)
        lost = [job for job in group if node_of(job) == "n3"]
        with anyio.fail_after(20):
            for job in lost:
                await job
        (lab.place / "go").touch()
        with anyio.fail_after(20):
            await group.wait()
        later = Ensemble("later", run_settings=sh("echo $SLURMD_NODENAME"), replicas=20, placement="agent")
        with anyio.fail_after(20):
            again = await exp.start(later)
    assert lost
    assert all(job.status is F and job.reason.startswith("NODE_FAIL: ") for job in lost)
    assert {job.status for job in group if job not in lost} == {C}
    assert {job.status for job in again} == {C}
    assert set(map(node_of, again)) == {"n1", "n2", "n4"}


DRIVER = """
import anyio, sys
from asim import Ensemble, Experiment, SrunSettings
async def main():
    async with Experiment("driver", launcher="slurm") as exp:
        ensemble = Ensemble("e", run_settings=SrunSettings("sleep", "209.1"), replicas=8, placement="agent")
        await exp.start(ensemble)
anyio.run(main)
"""


def test_driver_that_is_killed(lab: Lab, allocation: Allocated) -> None:
    """When the driver is killed nothing that it started is left running on any node."""
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(DRIVER)], cwd=lab.place) as driver:
        wait_until(lambda: len(processes("209.1")) >= 8, 20, "the members")
        driver.kill()
    wait_until(lambda: not [pid for pid in processes("209.1") if pid != driver.pid], 20, "the end of the members")
    wait_until(lambda: not agents(lab), 20, "the end of the agents")


async def test_outside_an_allocation(lab: Lab) -> None:
    """Outside an allocation that is an error that says what is needed."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", run_settings=sh("true"), replicas=2, placement="agent")
        with (
            anyio.fail_after(10),
            pytest.raises(UnsupportedError, match="placement = 'agent': only inside an allocation"),
        ):
            await exp.start(ensemble)


async def test_batch_settings(lab: Lab, allocation: Allocated) -> None:
    """Members of a batch job are not started by agents."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", run_settings=sh("true"), batch_settings=lab.batch(), replicas=2, placement="agent")
        with anyio.fail_after(10), pytest.raises(UnsupportedError, match="members of batch jobs are started by"):
            await exp.start(ensemble)


async def test_strangers(lab: Lab, allocation: Allocated) -> None:
    """Who does not know the secret is told nothing, and is in nobody's way."""
    async with lab.experiment() as exp:
        first = await exp.start(Ensemble("a", run_settings=sh("sleep 600"), replicas=1, placement="agent"), block=False)
        await state_of(first[0], R)
        (line,) = lab.calls("srun")
        port = int(line.split()[-2])
        answers = [await anyio.to_thread.run_sync(talk, port, words) for words in TALK]
        with anyio.fail_after(20):
            await exp.start(Ensemble("b", run_settings=sh("true"), replicas=8, placement="agent"), check=True)
        assert not list(Path(lab.place).glob("**/*.secret"))
    assert all(len(answer) in (0, 98) for answer in answers), (
        answers
    )  # the driver's proof, which helps nobody, or nothing


TALK = [b"", b"\n", b"a" * 32 + b"\n" + b"0" * 64 + b" host 4\n", b"GET / HTTP/1.0\r\n\r\n", b"x" * 5000, b"\0\n\n\n\n"]


def talk(port: int, words: bytes) -> bytes:
    """What a stranger hears."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(2)
        try:
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(1000):
                heard += data
        except OSError:
            pass
    return heard
