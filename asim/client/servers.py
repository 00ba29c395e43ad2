"""The async face's connections to one server: some that all tasks share, and one for each run of a model."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from errno import EINPROGRESS
from typing import TypeVar

from ..errors import AgentError
from .codec import Command, command
from .options import UNIX, Options, host_and_port
from .replies import ErrorReply
from .steps import Exchange, Lost, Outcome
from .wire import Wire

AnyWire = TypeVar("AnyWire", bound=Wire)
IDLE = 16
"""How many connections for runs are kept when nothing runs."""


class Server:
    """Connections to one address, made when they are needed."""

    def __init__(self, address: str, options: Options) -> None:
        self._address = address
        self._options = options
        self._wires: list[Wire] = []
        self._idle: list[Wire] = []
        self._busy: set[Wire] = set()
        self._connecting = asyncio.Lock()

    async def ask(self, exchange: Exchange) -> Outcome:
        """Perform an exchange.

        Cancellation: replies that still come are dropped; what was not sent is taken back.
        """
        commands = exchange.commands
        alone = commands[0].alone if len(commands) == 1 else any(one.alone for one in commands)
        wire = None if alone else self._free()
        if wire is None:
            try:
                wire = await (self._runner() if alone else self._shared())
            except Lost as lost:
                return lost
        if alone:
            return await self._run(wire, exchange)
        request = wire.request(commands, exchange.patience)
        try:
            return await request.future
        except asyncio.CancelledError:
            wire.abandon(request)
            raise

    def close(self) -> None:
        """End all connections; what is under way is lost."""
        for wire in (*self._wires, *self._idle, *self._busy):
            wire.close()

    def discard(self) -> None:
        """Let go of connections whose event loop is closed."""
        for wire in (*self._wires, *self._idle, *self._busy):
            wire.discard()

    async def _run(self, wire: Wire, exchange: Exchange) -> Outcome:
        """Use a connection of one's own; a cancelled caller's is closed, which tells the server that nobody waits."""
        self._busy.add(wire)
        try:
            outcome = await wire.request(exchange.commands, exchange.patience).future
            if len(self._idle) < IDLE and wire.lost is None:
                self._idle.append(wire)
            return outcome
        finally:
            self._busy.discard(wire)
            if wire not in self._idle:
                wire.close()

    def _free(self) -> Wire | None:
        """The shared connection with the least to do; None if another should be made."""
        return self._best(anyway=self._connecting.locked())

    def _best(self, anyway: bool) -> Wire | None:
        """An idle connection, or the one with the least to do if there are enough or if any will do."""
        best: Wire | None = None
        for wire in self._wires:
            if wire.lost is not None:
                self._wires = [other for other in self._wires if other.lost is None]
                return self._best(anyway)
            if not wire.load:
                return wire
            if best is None or wire.load < best.load:
                best = wire
        return best if anyway or len(self._wires) >= self._options.connections else None

    async def _shared(self) -> Wire:
        """The same, after it was made; by another task, perhaps."""
        async with self._connecting:
            wire = self._best(anyway=False)
            if wire is None:
                wire = await connect(self._address, self._options)
                self._wires.append(wire)
            return wire

    async def _runner(self) -> Wire:
        """A connection that nobody shares."""
        while self._idle:
            wire = self._idle.pop()
            if wire.lost is None:
                return wire
        return await connect(self._address, self._options)


async def connect(
    address: str,
    options: Options,
    kind: Callable[[socket.socket, asyncio.AbstractEventLoop], AnyWire] = Wire,  # type: ignore[assignment]
) -> AnyWire:
    """A new connection.

    :param kind: what it is made into.
    :raises Lost: it could not be made.

    Cancellation: the socket is closed.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(options.connect_timeout):
            there = await options.route(address) if options.route else address
            wire = kind(await _socket(there, loop), loop)
            try:
                await _introduce(wire, options)
            except BaseException:
                wire.close()
                raise
            return wire
    except TimeoutError as exc:
        raise Lost(f"no connection within {options.connect_timeout:g} s", sent=False) from exc
    except (OSError, AgentError) as exc:
        raise Lost(f"cannot connect: {exc}", sent=False) from exc


async def _socket(address: str, loop: asyncio.AbstractEventLoop) -> socket.socket:
    """A connected socket."""
    if address.startswith(UNIX):
        return await _connected(socket.AF_UNIX, address.removeprefix(UNIX), loop)
    host, port = host_and_port(address)
    error: OSError = OSError(f"{host} has no address")
    for family, _, _, _, place in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return await _connected(family, place, loop)
        except OSError as exc:
            error = exc
    raise error


async def _connected(family: int, place: object, loop: asyncio.AbstractEventLoop) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(place)  # type: ignore[arg-type]
        if code == EINPROGRESS:
            code = await _connects(sock, loop)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _connects(sock: socket.socket, loop: asyncio.AbstractEventLoop) -> int:
    """Wait for what connecting comes to; uvloop's own sock_connect leaks sockets when it is cancelled."""
    done: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _settle, done)
    try:
        await done
    finally:
        loop.remove_writer(sock)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


async def _introduce(wire: Wire, options: Options) -> None:
    """Say who is there, if the database wants to know."""
    greeting = greetings(options)
    if not greeting:
        return
    outcome = await wire.request(greeting, options.timeout).future
    refused(outcome)


def greetings(options: Options) -> Sequence[Command]:
    """The commands that begin a connection."""
    if options.password is None:
        return ()
    words = [options.username, options.password] if options.username else [options.password]
    return (command("AUTH", None, *words),)


def refused(outcome: Outcome) -> None:
    """Look at the replies to :func:`greetings`.

    :raises Lost: the server does not want this client.
    """
    if isinstance(outcome, Lost):
        raise outcome
    for reply in outcome:
        if isinstance(reply, ErrorReply):
            raise Lost(f"the server refused: {reply.text}", sent=False, final=True)
