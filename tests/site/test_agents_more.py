"""Agents on the nodes of an allocation when starting them goes wrong, or they are gone. Most on a real Slurm."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim import Ensemble, SubmitError
from asim.agent import node
from asim.agent.protocol import FileAction
from asim.launchers.base import JobKey, JobStatus
from asim.launchers.nodes import NodeAgents
from asim.plan import JobSpec
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
        with anyio.fail_after(10), pytest.raises(SubmitError, match="0 of 4 agents.*code 7: srun: error: no such thing"):
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


class Bench:
    """Node agents of this host that say that they have so many CPUs each."""

    def __init__(self, place: Path) -> None:
        self.place, self.told = place, {}
        self.agents = NodeAgents("r", str(place), sys.executable, 0.5, self._sink)
        Path(self.agents.secret_path).write_text(self.agents.secret)

    def _sink(self, rows: Any) -> None:
        for key, status in rows:
            self.told.setdefault(key, []).append(status)

    def states(self, key: int) -> list[Any]:
        return [status.state for status in self.told.get(key, [])]

    def start(self, command: tuple[str, ...], cpus: int) -> asyncio.Future[Any]:
        return asyncio.ensure_future(
            asyncio.create_subprocess_exec(*command, env={**os.environ, "SLURM_CPUS_ON_NODE": str(cpus)})
        )
