"""The blocking face of the client, for programs without an event loop: MPI ranks, scripts, notebooks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from .core import Core
from .face import Face, as_method
from .link import Link, connect
from .operations import admin, datasets, lists, models, polls, scripts, tensors
from .pipeline import Pipeline
from .steps import Blocking, Exchange, Lost, Op, Outcome, Pause, T

P = ParamSpec("P")


def blocking(operation: Callable[Concatenate[Core, P], Op[T]]) -> Callable[Concatenate[SyncClient, P], T]:
    """An operation as a method of :class:`SyncClient`, with its signature and its docstring."""

    @wraps(operation)
    def method(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(operation(self._core, *args, **kwargs))

    as_method(operation, method)
    return method


class SyncClient(Face):
    """A client of a database that blocks; the same operations as :class:`asim.Client`, over one connection to a server.

    Threads may share it; they take turns. A process that was forked makes connections of its own. Use it as ``with SyncClient(...) as client:``, or :meth:`close` it.
    An exception from outside (Ctrl-C) in the middle of a reply ends the connection, so nothing reads the rest.

    :raises DatabaseError: (any method) a server answered with an error; it carries the command and the server's text.
    :raises DatabaseConnectionError: a server could not be reached in time, or the connection was lost and the command
        is not one that may be sent twice.
    :raises DatabaseTimeout: an answer did not come in time.
    """

    _links: dict[str, Link]

    def _begin(self, core: Core) -> None:
        super()._begin(core)
        self._links, self._open, self._turn = {}, True, threading.Lock()
        self._process = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        self._open = False
        for link in self._links.values():
            link.close()

    def pipeline(self) -> SyncPipeline:
        """Collect operations and perform them together, in few round trips; see :class:`Pipeline`."""
        return SyncPipeline(self._core, self._run)

    put_tensor = blocking(tensors.put_tensor)
    get_tensor = blocking(tensors.get_tensor)
    delete_tensor = blocking(tensors.delete_tensor)
    rename_tensor = blocking(tensors.rename_tensor)
    copy_tensor = blocking(tensors.copy_tensor)
    tensor_exists = blocking(tensors.tensor_exists)
    key_exists = blocking(tensors.key_exists)

    put_dataset = blocking(datasets.put_dataset)
    get_dataset = blocking(datasets.get_dataset)
    delete_dataset = blocking(datasets.delete_dataset)
    copy_dataset = blocking(datasets.copy_dataset)
    rename_dataset = blocking(datasets.rename_dataset)
    dataset_exists = blocking(datasets.dataset_exists)

    append_to_list = blocking(lists.append_to_list)
    get_list_length = blocking(lists.get_list_length)
    get_datasets_from_list = blocking(lists.get_datasets_from_list)
    get_dataset_list_range = blocking(lists.get_dataset_list_range)
    copy_list = blocking(lists.copy_list)
    rename_list = blocking(lists.rename_list)
    delete_list = blocking(lists.delete_list)

    set_model = blocking(models.set_model)
    set_model_from_file = blocking(models.set_model_from_file)
    set_model_multigpu = blocking(models.set_model_multigpu)
    set_model_from_file_multigpu = blocking(models.set_model_from_file_multigpu)
    get_model = blocking(models.get_model)
    run_model = blocking(models.run_model)
    run_model_multigpu = blocking(models.run_model_multigpu)
    delete_model = blocking(models.delete_model)
    delete_model_multigpu = blocking(models.delete_model_multigpu)
    model_exists = blocking(models.model_exists)
    set_model_chunk_size = blocking(models.set_model_chunk_size)

    set_script = blocking(scripts.set_script)
    set_script_from_file = blocking(scripts.set_script_from_file)
    set_script_multigpu = blocking(scripts.set_script_multigpu)
    set_script_from_file_multigpu = blocking(scripts.set_script_from_file_multigpu)
    set_function = blocking(scripts.set_function)
    set_function_multigpu = blocking(scripts.set_function_multigpu)
    get_script = blocking(scripts.get_script)
    run_script = blocking(scripts.run_script)
    run_script_multigpu = blocking(scripts.run_script_multigpu)
    delete_script = blocking(scripts.delete_script)
    delete_script_multigpu = blocking(scripts.delete_script_multigpu)

    poll_tensor = blocking(polls.poll_tensor)
    poll_key = blocking(polls.poll_key)
    poll_dataset = blocking(polls.poll_dataset)
    poll_model = blocking(polls.poll_model)
    poll_list_length = blocking(polls.poll_list_length)
    poll_list_length_gte = blocking(polls.poll_list_length_gte)
    poll_list_length_lte = blocking(polls.poll_list_length_lte)
    wait_for_tensor = blocking(polls.wait_for_tensor)
    wait_for_dataset = blocking(polls.wait_for_dataset)
    wait_for_model = blocking(polls.wait_for_model)
    wait_for_key = blocking(polls.wait_for_key)
    wait_for_list = blocking(polls.wait_for_list)

    get_db_node_info = blocking(admin.get_db_node_info)
    get_db_cluster_info = blocking(admin.get_db_cluster_info)
    get_ai_info = blocking(admin.get_ai_info)
    flush_db = blocking(admin.flush_db)
    config_get = blocking(admin.config_get)
    config_set = blocking(admin.config_set)
    save = blocking(admin.save)
    execute = blocking(admin.execute)

    def _run(self, op: Op[T]) -> T:
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
                with self._turn:
                    outcome = self._ask_all(step)
            elif type(step) is Pause:
                time.sleep(step.seconds)
                outcome = None
            else:
                assert isinstance(step, Blocking)
                outcome = step.call()

    def _ask_all(self, exchanges: list[Exchange]) -> list[Outcome]:
        """Several servers: all are asked before the first is listened to."""
        if self._process != os.getpid():
            self._forked()
        try:
            said = [self._say(exchange) for exchange in exchanges]
            return [self._hear(exchange, link) for exchange, link in zip(exchanges, said, strict=True)]
        except BaseException:  # Ctrl-C, say: nobody may read what still comes
            for exchange in exchanges:
                if link := self._links.pop(exchange.address, None):
                    link.close()
            raise

    def _forked(self) -> None:
        """Let go of the connections: they are those of the process that this one was forked from."""
        self._process = os.getpid()
        links, self._links = self._links, {}
        for link in links.values():
            link.close()  # only this process's end of it

    def _say(self, exchange: Exchange) -> Link | Lost:
        """Send an exchange's commands."""
        if not self._open:
            return Lost("the client was closed", sent=False, final=True)
        try:
            link = self._links.get(exchange.address)
            if link is None or link.closed:
                link = self._links[exchange.address] = connect(exchange.address, self._core.options)
            link.send(exchange.commands, exchange.patience)
        except Lost as lost:
            return lost
        return link

    def _hear(self, exchange: Exchange, link: Link | Lost) -> Outcome:
        """Receive an exchange's replies."""
        if isinstance(link, Lost):
            return link
        try:
            return link.receive(len(exchange.commands))
        except Lost as lost:
            return lost


class SyncPipeline(Pipeline):
    """A :class:`Pipeline` of :class:`SyncClient`."""

    def __init__(self, core: Core, run: Callable[[Op[None]], None]) -> None:
        super().__init__(core)
        self._run = run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.execute()

    def execute(self) -> list[Any]:
        """Perform what was collected since the last time, and return the results in order.

        :raises AsimError: the error of the first operation that failed; all were tried, and their results have theirs.
        """
        self._run(self._together())
        return self._take()
