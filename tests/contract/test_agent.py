"""The agent as a program: what it does with broken input and scarce resources."""

import os
import random
import resource
import sys

import anyio
import pytest

from asim.agent.protocol import ProcessSpec
from asim.errors import AgentError
from asim.transport.connection import AgentConnection
from asim.transport.local import LocalAgent
from tests import fuzz_agent

pytestmark = pytest.mark.anyio


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_broken_input_ends_an_agent_cleanly(seed, tmp_path):
    """Twenty mutated conversations each: no crash, no garbage back, nothing left running."""
    rng = random.Random(seed)
    for number in range(20):
        place = tmp_path / str(number)
        place.mkdir()
        fuzz_agent.one(rng, str(place))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_broken_input_over_broken_links(seed, tmp_path):
    """Five daemons each: nothing that arrives over however many connections makes one stumble."""
    rng = random.Random(seed)
    for number in range(5):
        place = tmp_path / str(number)
        place.mkdir()
        fuzz_agent.one_daemon(rng, str(place))


@pytest.fixture
async def agent(tmp_path):
    """An agent, its connection, and what it told."""
    news, lost = [], []
    child, connection = LocalAgent(sys.executable, os.environ), AgentConnection(news.extend, lost.append)
    await child.start(connection)
    await connection.hello(run="r", cap=None, grace=0.5, records=f"{tmp_path}/records", on_eof="stop")
    yield child, connection, news, lost
    await connection.bye()
    await child.last_words()


def specs(place, count, argv=("/bin/true",)):
    """Processes that write into one directory."""
    return [
        ProcessSpec(key=key, argv=argv, cwd=str(place), stdout=f"{place}/{key}.o", stderr=f"{place}/{key}.e")
        for key in range(1, count + 1)
    ]


@pytest.mark.parametrize("limit", ["files", "processes"])
async def test_scarce_resources_only_slow_it_down(agent, tmp_path, limit):
    """Without descriptors (EMFILE) or processes (EAGAIN) to spare the agent backs off, and every job still runs."""
    child, connection, news, _ = agent
    which = resource.RLIMIT_NOFILE if limit == "files" else resource.RLIMIT_NPROC
    if limit == "processes" and os.geteuid() == 0:
        pytest.skip("the limit on processes does not hold for root")
    old = resource.prlimit(child.pid, which)
    resource.prlimit(child.pid, which, (6, old[1]) if limit == "files" else (1, old[1]))
    await connection.spawn(specs(tmp_path, 20))
    await anyio.sleep(0.2)  # it must be refused for a while; how often is not the point
    assert not any(row[1] == "end" for row in news)
    resource.prlimit(child.pid, which, old)
    with anyio.fail_after(10):
        while sum(row[1] == "end" and row[3] == 0 for row in news) < 20:
            await anyio.sleep(0.01)
    assert not any(row[1] == "error" for row in news)


async def test_a_wrong_version_is_refused_in_words(agent):
    """A second hello, and one of another version, are told why."""
    _, connection, _, lost = agent
    connection._write(b"\x00\x00\x00\x11" + b'["hello",99,null]')
    with anyio.fail_after(5):
        while not lost:
            await anyio.sleep(0.01)
    assert isinstance(lost[0], AgentError) and "unexpected message 'hello'" in str(lost[0])


async def test_first_process_runs_while_the_rest_is_still_on_its_way(agent, tmp_path):
    """The first of many jobs has ended before the last is written."""
    _, connection, news, _ = agent
    written = []

    def lazily():
        for spec in specs(tmp_path, 100_000):
            if any(row[1] == "end" for row in news):
                return
            written.append(spec.key)
            yield spec

    await connection.spawn(lazily())
    assert len(written) < 100_000
