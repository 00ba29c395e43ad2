"""``examples/service``: a real server in a process of its own, with real clients and the real LAMMPS."""

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest

from asim import JobState

from .conftest import EXAMPLES

pytestmark = [pytest.mark.anyio, pytest.mark.lammps, pytest.mark.usefixtures("lammps"), pytest.mark.slow]

SCRIPT = EXAMPLES / "service" / "app.py"
FOREVER = 10_000_000  # steps; many minutes
DEADLINE = 40.0  # seconds


@dataclass
class Server:
    """The service as a process.

    :ivar url: where it is.
    :ivar results: the directory of its sweeps.
    :ivar log: what it wrote.
    """

    process: subprocess.Popen[str]
    results: Path
    url: str = ""
    log: list[str] = field(default_factory=list)

    def read(self, ready: threading.Event) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"running on (http://\S+)", line):
                self.url = found[1]
                ready.set()
        ready.set()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=DEADLINE, trust_env=False)

    def jobs(self, sweep: str = "") -> list[psutil.Process]:
        """The processes that run in the directories of a sweep, or of any. (The server's own child is asim's agent.)"""
        inside, found = f"{self.results / sweep}/", psutil.process_iter(["cwd", "ppid"])
        return [
            process
            for process in found
            if f"{process.info['cwd']}/".startswith(inside) and process.info["ppid"] != self.process.pid
        ]

    def simulating(self, sweep: str) -> int:
        """How many members of a sweep have come so far that LAMMPS itself runs."""
        return sum(process.name() == "lmp" and not process.children() for process in self.jobs(sweep))


@contextmanager
def serve(results: Path) -> Iterator[Server]:
    """Run the service on a free port; it must end by SIGTERM, and leave nothing."""
    command = [sys.executable, SCRIPT, "--port", "0", "--results", results]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        server, ready = Server(process, results), threading.Event()
        reader = threading.Thread(target=server.read, args=[ready])
        reader.start()
        try:
            assert ready.wait(DEADLINE) and server.url, server.log
            yield server
            process.terminate()
            process.wait(DEADLINE)
        finally:
            process.kill()
            reader.join()
    assert server.jobs() == []
    assert "Traceback" not in "".join(server.log) and "ERROR" not in "".join(server.log)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, lammps: str) -> Iterator[Server]:
    """One service for all tests that do not end it."""
    with serve(tmp_path_factory.mktemp("service") / "results") as running:
        yield running


Event = tuple[str, dict[str, Any]]


async def events(client: httpx.AsyncClient, sweep: str) -> AsyncIterator[Event]:
    """The server-sent events of a sweep."""
    async with client.stream("GET", f"/sweeps/{sweep}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        kind = ""
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


async def read_all(client: httpx.AsyncClient, sweep: str, into: list[Event]) -> None:
    async for event in events(client, sweep):
        into.append(event)


async def start(client: httpx.AsyncClient, **body: object) -> str:
    response = await client.post("/sweeps", json=body)
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/sweeps/{response.json()['id']}"
    return str(response.json()["id"])


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again until it is so; the caller has a deadline."""
    while not condition():
        await anyio.sleep(0.01)


def states(seen: list[Event]) -> dict[str, list[str]]:
    """The states of every member, in the order in which they were told."""
    told: dict[str, list[str]] = {}
    for kind, data in seen:
        if kind == "state":
            told.setdefault(data["name"], []).append(data["state"])
    return told


def check_stream(seen: list[Event], sweep: str, members: int, state: str) -> None:
    """A whole stream: of this sweep only, every member forwards to its end, each change once, then the end of all."""
    told = states(seen)
    assert sorted(told) == sorted(f"{sweep}_{number}" for number in range(members))
    for its in told.values():
        assert its[-1] == state
        assert all(JobState(later).follows(JobState(earlier)) for earlier, later in itertools.pairwise(its))
    assert [kind for kind, _ in seen].index("end") == len(seen) - 1
    assert seen[-1][1]["status"] == state
    for name in told:
        times = [data["time"] for kind, data in seen if kind == "state" and data["name"] == name and data["time"]]
        assert times == sorted(times) and times


async def test_two_sweeps_at_once(server: Server) -> None:
    """Two sweeps that were accepted beside each other both run to their ends, and each stream tells its own in full."""
    first: list[Event] = []
    second: list[Event] = []
    with anyio.fail_after(DEADLINE):
        async with server.client() as client:
            one = await start(client, temperatures=[1.0, 2.0, 3.0], steps=1000)
            two = await start(client, temperatures=[1.5, 2.5], steps=500)
            overview = {row["id"]: row["status"] for row in (await client.get("/sweeps")).json()}
            assert {overview[one], overview[two]} <= {"PENDING", "RUNNING"}
            async with anyio.create_task_group() as readers:
                readers.start_soon(read_all, client, one, first)
                readers.start_soon(read_all, client, two, second)
            check_stream(first, one, 3, "COMPLETED")
            check_stream(second, two, 2, "COMPLETED")
            details = (await client.get(f"/sweeps/{two}")).json()
    assert details["status"] == "COMPLETED"
    assert [(row["param_TEMP"], row["param_run"], row["returncode"]) for row in details["records"]] == [
        (1.5, 500, 0),
        (2.5, 500, 0),
    ]
    assert "Loop time" in Path(details["records"][0]["stdout"]).read_text()


async def test_a_stream_that_is_opened_late_tells_how_it_ended(server: Server) -> None:
    """Who comes after the end gets the last states and the end, at once."""
    late: list[Event] = []
    with anyio.fail_after(DEADLINE):
        async with server.client() as client:
            sweep = await start(client, temperatures=[1.0], steps=1, size=3)
            await read_all(client, sweep, [])
            await read_all(client, sweep, late)
    check_stream(late, sweep, 1, "COMPLETED")
    assert len(late) == 2


async def test_a_client_that_goes_away_disturbs_nobody(server: Server) -> None:
    """A client that disconnects in the middle is noticed while the sweep runs; it, and who else watches, go on to the end."""
    other: list[Event] = []
    with anyio.fail_after(DEADLINE):
        async with server.client() as client, server.client() as leaver:
            sweep = await start(client, temperatures=[1.0, 2.0], steps=4000)

            async def watchers(number: int) -> dict[str, Any]:
                while (details := (await client.get(f"/sweeps/{sweep}")).json())["watchers"] != number:
                    await anyio.sleep(0.01)
                return dict(details)

            async with anyio.create_task_group() as readers:
                readers.start_soon(read_all, client, sweep, other)
                async with aclosing(events(leaver, sweep)) as leaving:
                    await anext(leaving)
                    assert (await watchers(2))["status"] in ("PENDING", "RUNNING")
                assert (await watchers(1))["status"] in ("PENDING", "RUNNING")
            check_stream(other, sweep, 2, "COMPLETED")
            await watchers(0)


async def test_cancel_ends_every_process_and_nothing_else(server: Server) -> None:
    """When DELETE answers, LAMMPS and its wrappers are gone; a sweep that waited for their places runs to its end."""
    seen: list[Event] = []
    with anyio.fail_after(DEADLINE):
        async with server.client() as client:
            doomed = await start(client, temperatures=[1.0, 2.0, 3.0], steps=FOREVER)
            other = await start(client, temperatures=[1.0], steps=100)
            async with anyio.create_task_group() as readers:
                readers.start_soon(read_all, client, doomed, seen)
                await until(lambda: server.simulating(doomed) > 0)
                running = server.jobs(doomed)
                answer = await client.delete(f"/sweeps/{doomed}")
                assert server.jobs(doomed) == [] and not any(process.is_running() for process in running)
            assert answer.status_code == 200 and answer.json()["status"] == "CANCELLED"
            assert {row["status"] for row in answer.json()["records"]} == {"CANCELLED"}
            check_stream(seen, doomed, 3, "CANCELLED")
            after: list[Event] = []
            await read_all(client, other, after)
            check_stream(after, other, 1, "COMPLETED")
            again = await client.delete(f"/sweeps/{doomed}")
            assert again.status_code == 200 and again.json() == answer.json() | {"watchers": 0}


BAD = {
    "temperatures missing": ('{"steps": 5}', "temperatures"),
    "temperatures empty": ('{"temperatures": []}', "temperatures"),
    "temperatures no list": ('{"temperatures": 1}', "temperatures"),
    "temperatures with text": ('{"temperatures": [1, "2"]}', "temperatures"),
    "temperatures negative": ('{"temperatures": [-1]}', "temperatures"),
    "temperatures NaN": ('{"temperatures": [NaN]}', "temperatures"),
    "temperatures bool": ('{"temperatures": [true]}', "temperatures"),
    "steps 0": ('{"temperatures": [1], "steps": 0}', "steps"),
    "steps text": ('{"temperatures": [1], "steps": "1\\nshell rm"}', "steps"),
    "size fraction": ('{"temperatures": [1], "size": 4.5}', "size"),
    "size too large": ('{"temperatures": [1], "size": 5000}', "size"),
    "unknown field": ('{"temperatures": [1], "stesp": 5}', "stesp"),
    "no object": ("[1, 2]", "body"),
    "no JSON": ("temperatures=1", "body"),
    "nothing": ("", "body"),
    "deep": ("[" * 100_000, "body"),
}


async def test_bad_input_is_refused_by_name(server: Server) -> None:
    """Each bad body is a 400 whose error begins with the field, and none starts anything."""
    with anyio.fail_after(DEADLINE):
        async with server.client() as client:
            before = (await client.get("/sweeps")).json()
            for case, (body, name) in BAD.items():
                response = await client.post("/sweeps", content=body)
                assert response.status_code == 400, case
                assert response.json()["error"].startswith(name), case
            assert (await client.get("/sweeps")).json() == before


async def test_an_unknown_sweep_is_not_found(server: Server) -> None:
    """Status, events and cancel of a sweep that does not exist are a 404 in JSON."""
    with anyio.fail_after(DEADLINE):
        async with server.client() as client:
            for method, path in ("GET", "/sweeps/x"), ("GET", "/sweeps/x/events"), ("DELETE", "/sweeps/x"):
                response = await client.request(method, path)
                assert response.status_code == 404 and response.json() == {"error": "there is no such sweep"}


async def test_stopping_the_server_stops_its_jobs(tmp_path: Path) -> None:
    """After SIGTERM nothing of agent, wrappers and LAMMPS is left when the server is gone; a watching client sees the end."""
    seen: list[Event] = []
    with anyio.fail_after(DEADLINE), serve(tmp_path / "results") as server:
        async with server.client() as client:
            sweep = await start(client, temperatures=[1.0, 2.0, 3.0], steps=FOREVER)
            async with anyio.create_task_group() as readers:
                readers.start_soon(read_all, client, sweep, seen)
                await until(lambda: server.simulating(sweep) > 0 and bool(seen))
                family = psutil.Process(server.process.pid).children(recursive=True)
                server.process.send_signal(signal.SIGTERM)
        code = await anyio.to_thread.run_sync(server.process.wait, DEADLINE)
        assert code in (0, -signal.SIGTERM)
        assert len(family) >= 3 and not any(process.is_running() for process in family)
        assert server.jobs() == []
    check_stream(seen, sweep, 3, "CANCELLED")
