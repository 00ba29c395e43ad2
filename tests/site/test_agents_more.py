"""Agents on the nodes of an allocation when starting them goes wrong, or they are gone. Most on a real Slurm."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim import Ensemble, Model, RunSettings, SubmitError
from asim.launchers.base import JobKey, JobStatus
from asim.launchers.nodes import NodeAgents
from asim.plan import JobSpec
from asim.status import JobState
from asim.transport.connection import AgentConnection
from tests.site.experiments import Allocated, C, F, Lab, R, allocation, anyio_backend, lab, processes, state_of, until
from tests.site.test_agents import agents, node_of, sh

__all__ = ["allocation", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def group_of(text: str, replicas: int = 4, **options: Any) -> Ensemble:
    """Members that agents start."""
    return Ensemble("e", run_settings=sh(text), replicas=replicas, placement="agent", **options)


async def test_srun_that_fails_at_once(lab: Lab, allocation: Allocated) -> None:
    """The start fails at once with srun's words, leaves no secret, also without a grace; the next one works."""
    async with lab.experiment(stop_grace=0) as exp:
        lab.hook("srun", "echo 'srun: error: no such thing' >&2; exit 7")
        with (
            anyio.fail_after(10),
            pytest.raises(SubmitError, match="0 of 4 agents.*code 7: srun: error: no such thing"),
        ):
            await exp.start(group_of("true"))
        assert not list(lab.place.glob("**/*.secret"))
        lab.hook("srun", None)
        with anyio.fail_after(20):
            group = await exp.start(group_of("true"))
    assert {job.status for job in group} == {C}


async def test_the_end_while_agents_are_being_started(lab: Lab, allocation: Allocated) -> None:
    """Who ends the experiment does not wait for agents that do not come; nothing of them is left."""
    lab.hook("srun", "sleep 316.1")
    errors: list[str] = []

    async def start() -> None:
        with pytest.raises(SubmitError) as told:
            await exp.start(group_of("true"))
        errors.append(str(told.value))

    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            async with lab.experiment() as exp:
                tasks.start_soon(start)
                await until(lambda: processes("316.1"))
    assert errors == ["0 of 4 agents in the allocation could be started: the experiment ended"]
    assert not list(lab.place.glob("**/*.secret"))
    await until(lambda: not processes("316.1"))


async def test_agents_that_are_all_gone(lab: Lab, allocation: Allocated) -> None:
    """When every agent has died the next members get new ones, also those that are tried again."""
    async with lab.experiment() as exp:
        line = f"echo $SLURMD_NODENAME; while [ ! -e {lab.place}/go ]; do sleep 0.216; done"
        group = await exp.start(group_of(line, retries=1), block=False)
        for job in group:
            await state_of(job, R)
        first = agents(lab)
        for pid in first.values():
            os.kill(pid, signal.SIGKILL)
        (lab.place / "go").touch()
        with anyio.fail_after(30):
            await group.wait()
            assert {(job.status, job.attempt) for job in group} == {(C, 2)}
            again = await exp.start(group_of("echo $SLURMD_NODENAME", 8))
        assert {job.status for job in again} == {C}
        assert set(map(node_of, again)) <= set(first)
    assert not agents(lab)


# -- without a workload manager


@asynccontextmanager
async def bench(place: Path, cpus: Sequence[int]) -> AsyncIterator[tuple[NodeAgents, dict[int, list[JobStatus]]]]:
    """Agents of this host that say that they have so many CPUs, and what was told of each member."""
    told: dict[int, list[JobStatus]] = {}

    def sink(rows: Sequence[tuple[JobKey, JobStatus]]) -> None:
        for key, status in rows:
            told.setdefault(key, []).append(status)

    found = NodeAgents("r", str(place), sys.executable, 0.5, sink)
    command = await found.listen()
    (place / Path(found.secret_path).name).write_text(found.secret)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.serve)
        for count in cpus:
            tasks.start_soon(partial(anyio.run_process, command, env={**os.environ, "SLURM_CPUS_ON_NODE": str(count)}))
        with anyio.fail_after(20):
            await found.ready(len(cpus))
        try:
            yield found, told
        finally:
            with anyio.fail_after(20, shield=True):
                await found.aclose()


def member(place: Path, key: int, cpus: int, *argv: str) -> tuple[JobKey, JobSpec]:
    """One that writes its output there."""
    model = Model(f"m{key}", run_settings=RunSettings(argv[0]))
    spec = JobSpec(
        name=model.name, model=model, ensemble=None, argv=argv, env=(), cwd=str(place), outputs=str(place), timeout=None,
        retries=None, placement="agent", cpus=cpus,
    )  # fmt: skip
    return JobKey(key), spec


async def test_more_than_a_small_node_has(tmp_path: Path) -> None:
    """One that needs a large node waits for it, though a small one is free; one that none can hold gets the largest."""
    async with bench(tmp_path, (2, 8)) as (found, told):

        def states(key: int) -> list[JobState]:
            return [status.state for status in told.get(key, [])]

        found.submit([member(tmp_path, 1, 7, "sleep", "316.2"), member(tmp_path, 2, 8, "sleep", "316.2")])
        await until(lambda: states(1) == [R])
        found.submit([member(tmp_path, 3, 99, "true")])
        with anyio.move_on_after(0.5):
            await until(lambda: bool(states(2)))
        assert not states(2)
        found.cancel([JobKey(1)], 0.1)
        await until(lambda: states(2) == [R])
        found.cancel([JobKey(2)], 0.1)
        await until(lambda: states(3) == [R, C])


async def test_a_node_that_goes_while_members_are_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its members fail; that is not the end of handing out members, and of all that goes on beside it."""
    spawn = AgentConnection.spawn
    gone: list[AgentConnection] = []

    async def slow(self: AgentConnection, specs: Any) -> None:
        if not gone:  # what the first is given takes long enough for the second to go
            gone.append(self)
            (other,) = [node.connection for node in found._nodes if node.connection is not self]
            other.close()
            await until(lambda: len(found._nodes) == 1)
        await spawn(self, specs)

    monkeypatch.setattr(AgentConnection, "spawn", slow)
    async with bench(tmp_path, (1, 1)) as (found, told):
        found.submit([member(tmp_path, key, 1, "true") for key in (1, 2)])
        await until(lambda: {key: rows[-1].state for key, rows in told.items()} == {1: C, 2: F})
        found.submit([member(tmp_path, 3, 1, "true")])
        await until(lambda: 3 in told and told[3][-1].state is C)
        assert told[2][-1].reason.startswith("NODE_FAIL: ")


async def test_a_node_that_vanishes_is_looked_for(tmp_path: Path) -> None:
    """A node without power says nothing: the driver's system must ask, else its members would run for ever."""
    async with bench(tmp_path, (1,)) as (found, _):
        transport: Any = found._nodes[0].connection._transport
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, every, times = (sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE)
        assert idle + every * times <= 120


KEEPALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
