"""Several operations together: their commands go out at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec

from ..errors import AsimError, ConfigError
from .codec import Command
from .core import Core
from .operations import datasets, lists, models, scripts, tensors
from .steps import Each, Op, Step, T

P = ParamSpec("P")

ONE_TRIP: frozenset[Callable[..., Any]] = frozenset(
    {
        tensors.put_tensor, tensors.get_tensor, tensors.delete_tensor, tensors.tensor_exists, tensors.key_exists,
        datasets.put_dataset, datasets.dataset_exists,
        lists.append_to_list, lists.get_list_length, lists.delete_list,
    }
)  # fmt: skip
"""Operations whose first step is their only one, so that what follows them need not wait for them."""


class Result(Generic[T]):
    """What one operation of a pipeline gave.

    :ivar done: whether it was performed.
    :ivar error: why it failed; None if it did not.
    """

    def __init__(self) -> None:
        self.done = False
        self.error: AsimError | None = None
        self._value: T | None = None

    @property
    def value(self) -> T:
        """What the operation returned.

        :raises AsimError: the operation failed, with its own error.
        :raises ConfigError: it has not been performed yet.
        """
        if not self.done:
            raise ConfigError("this pipeline has not been executed yet")
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]

    def _set(self, value: T | None, error: AsimError | None = None) -> None:
        self._value, self.error, self.done = value, error, True


class Entry(NamedTuple):
    """One operation that was collected."""

    op: Op[Any]
    result: Result[Any]
    one_trip: bool


def queued(operation: Callable[Concatenate[Core, P], Op[T]]) -> Callable[Concatenate[Pipeline, P], Result[T]]:
    """An operation as a method of :class:`Pipeline`, with its signature and its docstring."""

    @wraps(operation)
    def method(self: Pipeline, /, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
        result: Result[T] = Result()
        self._entries.append(Entry(operation(self._core, *args, **kwargs), result, operation in ONE_TRIP))
        return result

    return method


class Pipeline:
    """Operations that are collected, and performed together at the end of its block or by ``execute()``.

    Each method returns a :class:`Result` at once, which has a value when the pipeline was executed. The operations are
    performed in order. Simple ones in a row share one round trip; one that needs several, as ``get_dataset``, has them
    for itself. They are no transaction: other clients may come in between. If the block ends by an exception nothing is
    sent. Arrays must not be changed before the end.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        """How many operations are collected."""
        return len(self._entries)

    put_tensor = queued(tensors.put_tensor)
    get_tensor = queued(tensors.get_tensor)
    delete_tensor = queued(tensors.delete_tensor)
    rename_tensor = queued(tensors.rename_tensor)
    copy_tensor = queued(tensors.copy_tensor)
    tensor_exists = queued(tensors.tensor_exists)
    key_exists = queued(tensors.key_exists)

    put_dataset = queued(datasets.put_dataset)
    get_dataset = queued(datasets.get_dataset)
    delete_dataset = queued(datasets.delete_dataset)
    copy_dataset = queued(datasets.copy_dataset)
    rename_dataset = queued(datasets.rename_dataset)
    dataset_exists = queued(datasets.dataset_exists)

    append_to_list = queued(lists.append_to_list)
    get_list_length = queued(lists.get_list_length)
    get_datasets_from_list = queued(lists.get_datasets_from_list)
    get_dataset_list_range = queued(lists.get_dataset_list_range)
    copy_list = queued(lists.copy_list)
    rename_list = queued(lists.rename_list)
    delete_list = queued(lists.delete_list)

    set_model = queued(models.set_model)
    set_model_from_file = queued(models.set_model_from_file)
    set_model_multigpu = queued(models.set_model_multigpu)
    set_model_from_file_multigpu = queued(models.set_model_from_file_multigpu)
    get_model = queued(models.get_model)
    run_model = queued(models.run_model)
    run_model_multigpu = queued(models.run_model_multigpu)
    delete_model = queued(models.delete_model)
    delete_model_multigpu = queued(models.delete_model_multigpu)
    model_exists = queued(models.model_exists)
    set_model_chunk_size = queued(models.set_model_chunk_size)

    set_script = queued(scripts.set_script)
    set_script_from_file = queued(scripts.set_script_from_file)
    set_script_multigpu = queued(scripts.set_script_multigpu)
    set_script_from_file_multigpu = queued(scripts.set_script_from_file_multigpu)
    set_function = queued(scripts.set_function)
    set_function_multigpu = queued(scripts.set_function_multigpu)
    get_script = queued(scripts.get_script)
    run_script = queued(scripts.run_script)
    run_script_multigpu = queued(scripts.run_script_multigpu)
    delete_script = queued(scripts.delete_script)
    delete_script_multigpu = queued(scripts.delete_script_multigpu)

    def _take(self) -> list[Any]:
        """The results of all that was collected; from now on, new ones are."""
        entries, self._entries = self._entries, []
        return [entry.result.value for entry in entries]

    def _together(self) -> Op[None]:
        """All operations as one."""
        row: list[Entry] = []
        for entry in self._entries:
            if entry.one_trip:
                row.append(entry)
                continue
            yield from _row(row)
            row = []
            yield from _finish(entry, entry.op)
        yield from _row(row)


def _row(entries: Sequence[Entry]) -> Op[None]:
    """Operations of one step each, in one round trip."""
    begun: list[tuple[Entry, list[Command], bool]] = []
    for entry in entries:
        step = _first(entry)
        if step is not None:
            begun.append((entry, step if isinstance(step, list) else [step], isinstance(step, list)))
    if not begun:
        return
    try:
        replies = iter((yield Each([command for _, commands, _ in begun for command in commands])))
    except AsimError as error:
        for entry, _, _ in begun:
            entry.result._set(None, error)
        return
    for entry, commands, several in begun:
        mine = [next(replies) for _ in commands]
        yield from _finish(entry, _resumed(entry.op, mine, several))


def _first(entry: Entry) -> Command | list[Command] | None:
    """The commands of an operation's first step; None if it failed before."""
    try:
        step = next(entry.op)
        assert isinstance(step, (Command, list))
        return step
    except AsimError as error:
        entry.result._set(None, error)
        return None


def _resumed(op: Op[Any], replies: list[Any], several: bool) -> Op[Any]:
    """What is left of an operation after its first step."""
    error = next((reply for reply in replies if isinstance(reply, AsimError)), None)
    try:
        step: Step = op.throw(error) if error else op.send(replies if several else replies[0])
    except StopIteration as end:
        return end.value
    while True:
        try:
            step = op.send((yield step))
        except StopIteration as end:
            return end.value


def _finish(entry: Entry, op: Op[Any]) -> Op[None]:
    """Perform an operation to its end and keep what it gives."""
    try:
        entry.result._set((yield from op))
    except AsimError as error:
        entry.result._set(None, error)
