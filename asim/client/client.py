"""The async face of the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from ..errors import ConfigError, allowed
from .core import Core
from .face import Face, as_method
from .operations import admin, datasets, lists, models, polls, scripts, tensors
from .pipeline import Pipeline
from .servers import Server
from .steps import Blocking, Exchange, Lost, Op, Outcome, Pause, T

P = ParamSpec("P")


def awaited(
    operation: Callable[Concatenate[Core, P], Op[T]],
) -> Callable[Concatenate[Client, P], Coroutine[Any, Any, T]]:
    """An operation as a method of :class:`Client`, with its signature and its docstring."""

    @wraps(operation)
    async def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(operation(self._core, *args, **kwargs))

    as_method(operation, method)
    return method


class Client(Face):
    """A client of a database, for asyncio; wire-compatible with SmartRedis, whose method names it has.

    Any number of tasks may use one client at the same time: their commands share a few connections, and each task's
    own commands stay in order. It belongs to the event loop in which it is first used, until that is closed. Use it as ``async with Client(...) as client:``; leaving the block ends the connections.

    Cancellation of any method: a reply that still comes is dropped and never seen by another caller; whether a command
    was done is unknown. A run of a model has its own connection, which is closed, so that the server need not begin
    what nobody waits for.

    :raises DatabaseError: (any method) a server answered with an error; it carries the command and the server's text.
    :raises DatabaseConnectionError: a server could not be reached in time, or the connection was lost and the command
        is not one that may be sent twice.
    :raises DatabaseTimeout: an answer did not come in time.
    """

    _servers: dict[str, Server]
    _open: bool

    def _begin(self, core: Core) -> None:
        super()._begin(core)
        self._servers, self._open = {}, True
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections. What other tasks are waiting for fails with DatabaseConnectionError."""
        self._open = False
        for server in self._servers.values():
            if self._loop is not None and self._loop.is_closed():
                server.discard()
            else:
                server.close()

    def pipeline(self) -> AsyncPipeline:
        """Collect operations and perform them together, in few round trips; see :class:`Pipeline`.

        >>> async with client.pipeline() as pipe:
        ...     pipe.put_tensor("a", a)
        ...     b = pipe.get_tensor("b")
        >>> b.value
        """
        return AsyncPipeline(self._core, self._run)

    put_tensor = awaited(tensors.put_tensor)
    get_tensor = awaited(tensors.get_tensor)
    delete_tensor = awaited(tensors.delete_tensor)
    rename_tensor = awaited(tensors.rename_tensor)
    copy_tensor = awaited(tensors.copy_tensor)
    tensor_exists = awaited(tensors.tensor_exists)
    key_exists = awaited(tensors.key_exists)

    put_dataset = awaited(datasets.put_dataset)
    get_dataset = awaited(datasets.get_dataset)
    delete_dataset = awaited(datasets.delete_dataset)
    copy_dataset = awaited(datasets.copy_dataset)
    rename_dataset = awaited(datasets.rename_dataset)
    dataset_exists = awaited(datasets.dataset_exists)

    append_to_list = awaited(lists.append_to_list)
    get_list_length = awaited(lists.get_list_length)
    get_datasets_from_list = awaited(lists.get_datasets_from_list)
    get_dataset_list_range = awaited(lists.get_dataset_list_range)
    copy_list = awaited(lists.copy_list)
    rename_list = awaited(lists.rename_list)
    delete_list = awaited(lists.delete_list)

    set_model = awaited(models.set_model)
    set_model_from_file = awaited(models.set_model_from_file)
    set_model_multigpu = awaited(models.set_model_multigpu)
    set_model_from_file_multigpu = awaited(models.set_model_from_file_multigpu)
    get_model = awaited(models.get_model)
    run_model = awaited(models.run_model)
    run_model_multigpu = awaited(models.run_model_multigpu)
    delete_model = awaited(models.delete_model)
    delete_model_multigpu = awaited(models.delete_model_multigpu)
    model_exists = awaited(models.model_exists)
    set_model_chunk_size = awaited(models.set_model_chunk_size)

    set_script = awaited(scripts.set_script)
    set_script_from_file = awaited(scripts.set_script_from_file)
    set_script_multigpu = awaited(scripts.set_script_multigpu)
    set_script_from_file_multigpu = awaited(scripts.set_script_from_file_multigpu)
    set_function = awaited(scripts.set_function)
    set_function_multigpu = awaited(scripts.set_function_multigpu)
    get_script = awaited(scripts.get_script)
    run_script = awaited(scripts.run_script)
    run_script_multigpu = awaited(scripts.run_script_multigpu)
    delete_script = awaited(scripts.delete_script)
    delete_script_multigpu = awaited(scripts.delete_script_multigpu)

    poll_tensor = awaited(polls.poll_tensor)
    poll_key = awaited(polls.poll_key)
    poll_dataset = awaited(polls.poll_dataset)
    poll_model = awaited(polls.poll_model)
    poll_list_length = awaited(polls.poll_list_length)
    poll_list_length_gte = awaited(polls.poll_list_length_gte)
    poll_list_length_lte = awaited(polls.poll_list_length_lte)
    wait_for_tensor = awaited(polls.wait_for_tensor)
    wait_for_dataset = awaited(polls.wait_for_dataset)
    wait_for_model = awaited(polls.wait_for_model)
    wait_for_key = awaited(polls.wait_for_key)
    wait_for_list = awaited(polls.wait_for_list)

    get_db_node_info = awaited(admin.get_db_node_info)
    get_db_cluster_info = awaited(admin.get_db_cluster_info)
    get_ai_info = awaited(admin.get_ai_info)
    flush_db = awaited(admin.flush_db)
    config_get = awaited(admin.config_get)
    config_set = awaited(admin.config_set)
    save = awaited(admin.save)
    execute = awaited(admin.execute)

    async def _run(self, op: Op[T]) -> T:
        """Perform an operation."""
        flow = self._core.drive(op)
        outcome: Any = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if type(step) is list:
                outcome = [await self._ask(step[0])] if len(step) == 1 else await self._ask_all(step)
            elif type(step) is Pause:
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                assert isinstance(step, Blocking)
                outcome = await asyncio.to_thread(step.call)

    async def _ask(self, exchange: Exchange) -> Outcome:
        """One exchange with one server."""
        if not self._open:
            return Lost("the client was closed", sent=False, final=True)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._settle(loop)
        server = self._servers.get(exchange.address)
        if server is None:
            server = self._servers[exchange.address] = Server(exchange.address, self._core.options)
        return await server.ask(exchange)

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this event loop from now on.

        :raises ConfigError: the one before is not closed.
        """
        if self._loop is not None and not self._loop.is_closed():
            what = "a client belongs to the event loop in which it was first used, which is not closed; make another"
            raise ConfigError(allowed("client", self._core.options.address, what))
        servers, self._servers, self._loop = self._servers, {}, loop
        for server in servers.values():
            server.discard()

    async def _ask_all(self, exchanges: list[Exchange]) -> list[Outcome]:
        """Several servers at the same time."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(exchange)) for exchange in exchanges]
        return [task.result() for task in tasks]


class AsyncPipeline(Pipeline):
    """A :class:`Pipeline` of :class:`Client`."""

    def __init__(self, core: Core, run: Callable[[Op[None]], Coroutine[Any, Any, None]]) -> None:
        super().__init__(core)
        self._run = run

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.execute()

    async def execute(self) -> list[Any]:
        """Perform what was collected since the last time, and return the results in order.

        :raises AsimError: the error of the first operation that failed; all were tried, and their results have theirs.
        """
        await self._run(self._together())
        return self._take()
