"""Run commands: an agent starts only some of them at the same time, and none waits for another's end."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim.agent.protocol import ProcessSpec
from asim.transport.connection import AgentConnection
from asim.transport.local import LocalAgent

pytestmark = pytest.mark.anyio

AT_ONCE, STARTING = min(4 * len(os.sched_getaffinity(0)), 32), 0.2
"""What the agent has."""
News = list[list[Any]]


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[tuple[AgentConnection, News]]:
    """An agent and its news."""
    news: News = []
    child = LocalAgent(sys.executable, os.environ)
    connection = AgentConnection(lambda rows: news.extend(map(list, rows)), lambda _: None)
    await child.start(connection)
    await connection.hello(run="r", cap=None, grace=0.5, records=f"{tmp_path}/records", on_eof="stop")
    yield connection, news
    await connection.bye()
    await child.last_words()


def specs(place: Path, keys: range, *argv: str, paced: bool = True) -> list[ProcessSpec]:
    """Processes of one command."""
    return [
        ProcessSpec(
            key=key, argv=argv, cwd=str(place), stdout=f"{place}/{key}.o", stderr=f"{place}/{key}.e", paced=paced
        )
        for key in keys
    ]


async def heard(wanted: Callable[[], bool]) -> None:
    """Wait for news."""
    with anyio.fail_after(30):
        while not wanted():
            await anyio.sleep(0.005)


def starts(news: News) -> list[tuple[int, float]]:
    """Key and time of each start, in order."""
    return [(row[0], row[2]) for row in news if row[1] == "start"]


async def test_few_start_at_once(agent: tuple[AgentConnection, News], tmp_path: Path) -> None:
    """In any stretch of time that long no more than so many start; all come to run at the same time, in their order."""
    connection, news = agent
    count = 3 * AT_ONCE
    await connection.spawn(specs(tmp_path, range(count), "/bin/sleep", "60"))
    await heard(lambda: len(starts(news)) == count)
    assert not any(row[1] == "end" for row in news)
    times = [when for _, when in starts(news)]
    assert [key for key, _ in starts(news)] == list(range(count))
    assert min(late - early for early, late in zip(times, times[AT_ONCE:], strict=False)) > 0.9 * STARTING


async def test_ends_make_room(agent: tuple[AgentConnection, News], tmp_path: Path) -> None:
    """One that has ended makes room at once: many short ones are not held up by the time that starting may take."""
    connection, news = agent
    count = 60 * AT_ONCE
    await connection.spawn(specs(tmp_path, range(count), "/bin/true"))
    await heard(lambda: sum(row[1] == "end" for row in news) == count)
    times = [when for _, when in starts(news)]
    assert times[-1] - times[0] < 0.5 * STARTING * count / AT_ONCE


async def test_others_are_not_counted(agent: tuple[AgentConnection, News], tmp_path: Path) -> None:
    """What is no run command does not wait, and a database neither, though run commands wait before it."""
    connection, news = agent
    plain = specs(tmp_path, range(3 * AT_ONCE), "/bin/sleep", "60", paced=False)
    waiting = specs(tmp_path, range(1000, 1000 + 2 * AT_ONCE), "/bin/sleep", "60")
    (service,) = (replace(one, free=True) for one in specs(tmp_path, range(2000, 2001), "/bin/sleep", "60"))
    await connection.spawn([*plain, *waiting, service])
    await heard(lambda: len(starts(news)) == 5 * AT_ONCE + 1)
    order = [key for key, _ in starts(news)]
    assert order.index(2000) < order.index(1000 + AT_ONCE)
    times = [when for key, when in starts(news) if key < 1000]
    assert times[-1] - times[0] < STARTING


async def test_waiting_ones_never_start_when_stopped(agent: tuple[AgentConnection, News], tmp_path: Path) -> None:
    """Stopped while it waits for others to start: its end is told at once, and the program never runs."""
    connection, news = agent
    count = 4 * AT_ONCE
    await connection.spawn(specs(tmp_path, range(count), "/bin/sleep", "60"))
    await heard(lambda: bool(starts(news)))
    connection.stop(list(range(2 * AT_ONCE, count)), 0.5)
    await heard(lambda: len(starts(news)) == 2 * AT_ONCE)
    told = [row for row in news if row[1] == "end"]
    assert sorted(row[0] for row in told) == list(range(2 * AT_ONCE, count))
    assert all(row[3] is None and row[4] == "stop" for row in told)
    assert not any((tmp_path / f"{key}.o").exists() for key in range(2 * AT_ONCE, count))
