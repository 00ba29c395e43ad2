"""Agents in an allocation, over a host that only remembers what it was told to run."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim.agent.protocol import Completed
from asim.config import Config
from asim.errors import AsimError, SubmitError, UnsupportedError
from asim.launchers import nodes
from asim.launchers.allocation import Allocation

from .fakes import Agent, Manager

pytestmark = pytest.mark.anyio


class Nodes(Agent):
    """A host, and what starts agents from there. What lasts is run as ``starts`` says.

    :ivar held: commands that last, as they were begun.
    :ivar running: those that have not ended.
    :ivar starts: what begins agents; None: a command that starts nothing, and does not end.
    """

    def __init__(self, place: Path) -> None:
        super().__init__(Manager(), {})
        self.place, self.held, self.running, self.ended = place, list[tuple[str, ...]](), 0, 0
        self.starts: Any = None
        self.version = "mpirun (Open MPI) 4.1.4"

    async def files(self, actions: Any) -> None:
        actions = list(actions)
        await super().files(actions)
        for action in actions:
            if action[0] == "write":
                await anyio.Path(action[1]).write_text(action[2])
            elif action[0] == "remove":
                await anyio.Path(action[1]).unlink(missing_ok=True)

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float, lasting: bool = False) -> Completed:
        words = tuple(argv)
        if not lasting:
            return Completed(words, 0, self.version, "")
        self.held.append(words)
        self.running += 1
        try:
            if self.starts is None:
                await anyio.sleep_forever()
            result: Completed = await self.starts(words)
            return result
        finally:
            self.running -= 1
            self.ended += 1


@pytest.fixture
def host(tmp_path: Path) -> Nodes:
    """A host whose PATH has all that can start agents."""
    for name in ("srun", "pbsdsh", "ssh", "mpirun"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "nodes").write_text("n1\nn1\nn2\n")
    return Nodes(tmp_path)


@asynccontextmanager
async def inside(host: Nodes, launcher: str = "torque", **environ: str) -> AsyncIterator[Allocation]:
    """The driver in an allocation of two nodes."""
    place = str(host.place)
    known = {"PBS_JOBID": "1", "PBS_NODEFILE": f"{place}/nodes", "PATH": place, **environ}
    config = Config(environ=known, cwd=place, python=sys.executable)
    it = Allocation(launcher, config, "r", place, 0.2, lambda: host)  # type: ignore[arg-type, return-value]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as it.tasks:
            yield it
            await it.aclose()
            it.tasks.cancel_scope.cancel()


async def refused(it: Allocation) -> str:
    """What is said when the agents are not started."""
    with pytest.raises(AsimError) as told:
        await it.agents(lambda _: None)
    return str(told.value)


async def given_up(it: Allocation, host: Nodes) -> None:
    """Begin to start agents; when all commands run that there will be, the wait for agents is cancelled."""
    async with anyio.create_task_group() as group:
        group.start_soon(it.agents, lambda _: None)
        while not host.held:  # they begin in one turn of the loop
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def test_commands_that_do_not_start_agents(host: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """When agents do not call in time, what was to start them is stopped; it would hold the nodes as long as we live."""
    monkeypatch.setattr(nodes, "WITHIN", 0.2)
    async with inside(host) as it:
        for times in (1, 2, 3):
            assert "0 of 2 agents in the allocation could be started: they did not call within" in await refused(it)
            while host.running:
                await anyio.sleep(0.01)
            assert host.ended == len(host.held) == 2 * times
    assert not [*host.place.glob(".asim-*")]


async def test_a_start_that_is_cancelled(host: Nodes) -> None:
    """Who gives up waiting for agents leaves none of these commands, and no secret."""
    async with inside(host) as it:
        await given_up(it, host)
        while host.running:
            await anyio.sleep(0.01)
        assert host.ended == 2
    assert not [*host.place.glob(".asim-*")]


async def test_one_command_that_fails(host: Nodes) -> None:
    """When one of several fails, its words are told at once, and the others are stopped."""

    async def starts(words: tuple[str, ...]) -> Completed:
        if "1" in words:
            return Completed(words, 255, "", "pbsdsh: no such node")
        await anyio.sleep_forever()
        raise AssertionError

    host.starts = starts
    (host.place / "nodes").write_text("n1\nn2\n")
    async with inside(host) as it:
        words = "0 of 2 agents in the allocation could be started: pbsdsh ended with code 255: pbsdsh: no such node"
        assert await refused(it) == words
        while host.running:
            await anyio.sleep(0.01)
        assert host.ended == 2


async def test_agents_that_call(host: Nodes) -> None:
    """A start that goes well leaves its commands alone, has all agents, and takes away what has secrets in it."""
    seen: list[bool] = []

    async def starts(words: tuple[str, ...]) -> Completed:
        seen.append(await anyio.Path(host.place, ".asim-r.secret").exists())
        done = await anyio.run_process(words[4:], check=False, env={**os.environ, "OMPI_COMM_WORLD_RANK": "0"})
        return Completed(words, done.returncode, "", "")

    host.starts = starts
    async with inside(host) as it:
        agents = await it.agents(lambda _: None)
        assert await it.agents(lambda _: None) is agents
        assert sorted(node.cpus for node in agents._nodes) == [1, 2]
        assert not [*host.place.glob(".asim-*")]
        assert host.running == 2
        await it.aclose()
        while host.running:
            await anyio.sleep(0.01)
    assert seen == [True, True]
    modes = [action[3] for action in host.actions if action[0] == "write"]
    assert modes == [0o600] * 2


@pytest.mark.parametrize(
    ("there", "environ", "program"),
    [
        ("pbsdsh ssh mpirun", {}, "pbsdsh"),
        ("ssh mpirun", {}, "ssh"),
        ("mpirun", {}, "mpirun"),
        ("pbsdsh ssh mpirun", {"ASIM_AGENT_STARTER": "mpirun"}, "mpirun"),
    ],
)
async def test_which_program(host: Nodes, there: str, environ: dict[str, str], program: str) -> None:
    """The first that is there; a user's choice goes before all."""
    for name in {"pbsdsh", "ssh", "mpirun"} - set(there.split()):
        (host.place / name).unlink()
    async with inside(host, **environ) as it:
        await given_up(it, host)
    assert {command[0] for command in host.held} == {program}
    assert len(host.held) == (1 if program == "mpirun" else 2)


@pytest.mark.parametrize(("version", "word"), [("HYDRA build details:", "-ppn"), ("mpirun (Open MPI) 4", "--map-by")])
async def test_which_mpirun(host: Nodes, version: str, word: str) -> None:
    """It is asked whose it is: the two have different words for one process on each host."""
    host.version = version
    async with inside(host, ASIM_AGENT_STARTER="mpirun") as it:
        await given_up(it, host)
    assert word in host.held[0]


async def test_no_program(host: Nodes) -> None:
    """None of them in PATH, or not the one that was chosen: an error that names them, and nothing is waited for."""
    for name in ("pbsdsh", "ssh", "mpirun"):
        (host.place / name).unlink()
    async with inside(host) as it:
        with pytest.raises(UnsupportedError, match="placement = 'agent': needs pbsdsh or ssh or mpirun in PATH"):
            await it.agents(lambda _: None)
    async with inside(host, ASIM_AGENT_STARTER="ssh") as it:
        assert await refused(it) == "placement = 'agent': needs ssh in PATH"
    assert not host.held


async def test_no_file_of_nodes(host: Nodes) -> None:
    """A list of hosts that is gone is told, with its path."""
    (host.place / "nodes").unlink()
    async with inside(host) as it:
        with pytest.raises(SubmitError, match=f"hosts of the allocation cannot be read: .*{host.place}/nodes"):
            await it.agents(lambda _: None)


async def test_a_job_of_one_host(host: Nodes) -> None:
    """A job that lists no hosts is here: its agent is started without the help of anybody."""
    async with inside(host, PBS_NODEFILE="") as it:
        await given_up(it, host)
    assert [command[0] for command in host.held] == [sys.executable]


async def test_no_allocation(host: Nodes) -> None:
    """Outside, and with a launcher that has no allocations, nothing is started, and it is said which of the two it is."""
    async with inside(host, PBS_JOBID="") as it:
        assert "only inside an allocation: in salloc" in await refused(it)
    async with inside(host, launcher="theirs") as it:
        assert "only inside an allocation, and the theirs launcher has none" in await refused(it)
    assert not host.held
