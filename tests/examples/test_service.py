"""``examples/service`` over real HTTP: sweeps at once, events, cancellation, clients that go away, and its end."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.integration.conftest import marked, until

from .conftest import EXAMPLES

pytestmark = [pytest.mark.anyio, pytest.mark.lammps]

LONG = {"temperatures": [1.0, 2.0], "steps": 10_000_000}
SHORT = {"temperatures": [1.0, 2.0, 3.0], "steps": 100, "size": 4}


@asynccontextmanager
async def served(results: Path) -> AsyncIterator[tuple[httpx.AsyncClient, subprocess.Popen[str]]]:
    """The app on a free port, and a client for it; stopped afterwards if it still runs."""
    command = [sys.executable, str(EXAMPLES / "service/app.py"), "--port", "0", "--results", str(results)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        with anyio.fail_after(20):
            address = await anyio.to_thread.run_sync(listening, server)
        async with httpx.AsyncClient(base_url=address, timeout=20) as client:
            yield client, server
    finally:
        server.terminate()
        await anyio.to_thread.run_sync(server.communicate)


def listening(server: subprocess.Popen[str]) -> str:
    """The address that the server says it listens on."""
    assert server.stderr
    for line in server.stderr:
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise AssertionError("the server ended before it listened")


async def events(client: httpx.AsyncClient, sweep: str) -> AsyncIterator[dict[str, Any]]:
    """The events of a sweep as they come."""
    async with client.stream("GET", f"/sweeps/{sweep}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        kind = ""
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield {"event": kind, **json.loads(value)}


async def create(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """Start a sweep; its id."""
    answer = await client.post("/sweeps", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def run_token(results: Path) -> str:
    """The mark that the service's processes carry."""
    return next((results / ".asim").glob("*.journal.jsonl")).name.removesuffix(".journal.jsonl")


@pytest.mark.usefixtures("lammps")
async def test_two_sweeps_at_once_with_their_events(tmp_path):
    """Both event streams tell every member's end; the records have results of the real program; bad input is a 400."""
    ends: dict[str, list[str]] = {}

    async def follow(client: httpx.AsyncClient, sweep: str) -> None:
        async for event in events(client, sweep):
            if event["event"] == "state" and event["state"] == "COMPLETED":
                ends.setdefault(sweep, []).append(event["name"])
            last = event
        assert last["event"] == "end" and last["status"] == "COMPLETED"

    async with served(tmp_path) as (client, _):
        with anyio.fail_after(40):
            sweeps = [await create(client, SHORT), await create(client, SHORT)]
            async with anyio.create_task_group() as tasks:
                for sweep in sweeps:
                    tasks.start_soon(follow, client, sweep)
        for sweep in sweeps:
            assert sorted(ends[sweep]) == [f"{sweep}_{number}" for number in range(3)]
            details = (await client.get(f"/sweeps/{sweep}")).json()
            assert [record["returncode"] for record in details["records"]] == [0, 0, 0]
            assert "Loop time" in Path(details["records"][0]["stdout"]).read_text()
        assert [one["id"] for one in (await client.get("/sweeps")).json()] == sweeps
        for body, field in (({"temperatures": [-1]}, "temperatures"), ({"temperatures": [1], "steps": 0}, "steps")):
            answer = await client.post("/sweeps", json=body)
            assert answer.status_code == 400 and field in answer.json()["error"]
        assert (await client.get("/sweeps/none")).status_code == 404


@pytest.mark.usefixtures("lammps")
async def test_a_client_that_goes_away_and_a_cancel(tmp_path):
    """A client that leaves in the middle disturbs nothing and leaves nothing; DELETE answers when all is gone."""
    async with served(tmp_path) as (client, _):
        sweep = await create(client, LONG)
        async for event in events(client, sweep):
            if event["event"] == "state" and event["state"] == "RUNNING":
                break  # closes the connection
        overview = {}
        with anyio.fail_after(10):
            while overview.get("watchers") != 0:
                overview = (await client.get(f"/sweeps/{sweep}")).json()
        assert overview["status"] == "RUNNING"
        assert marked(run_token(tmp_path))
        cancelled = (await client.delete(f"/sweeps/{sweep}")).json()
        assert {record["status"] for record in cancelled["records"]} == {"CANCELLED"}
        assert not marked(run_token(tmp_path))
        assert [event["event"] async for event in events(client, sweep)][-1] == "end"


@pytest.mark.usefixtures("lammps")
async def test_when_the_server_stops_its_jobs_stop(tmp_path):
    """SIGTERM to the server: clients that watch see the end, and no process of a sweep survives."""
    async with served(tmp_path) as (client, server):
        sweep = await create(client, LONG)
        last = {}
        with anyio.fail_after(30):
            async for last in events(client, sweep):
                if last["event"] == "state" and last["state"] == "RUNNING":
                    server.send_signal(signal.SIGTERM)
        assert last["event"] == "end" and last["status"] == "CANCELLED"
        await until(lambda: server.poll() is not None)
        assert not marked(run_token(tmp_path))
