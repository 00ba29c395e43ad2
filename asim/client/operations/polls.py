"""Operations that look again and again: polls with SmartRedis' arguments, and waits with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ...errors import DatabaseTimeout
from ..core import Core
from ..steps import Op, Pause
from .datasets import dataset_exists
from .lists import get_list_length
from .models import model_exists
from .tensors import key_exists, tensor_exists

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.1


def poll_tensor(core: Core, name: str, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look for a tensor several times.

    :param name: of the tensor; the get prefix is put before it.
    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most; there is no pause after the last.
    :returns: whether it was found.
    """
    return (yield from _poll(lambda: tensor_exists(core, name), poll_frequency_ms, num_tries))


def poll_key(core: Core, key: str, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look for a key, as the server knows it, several times.

    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most.
    :returns: whether it was found.
    """
    return (yield from _poll(lambda: key_exists(core, key), poll_frequency_ms, num_tries))


def poll_dataset(core: Core, name: str, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look for a complete dataset several times.

    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most.
    :returns: whether it was found.
    """
    return (yield from _poll(lambda: dataset_exists(core, name), poll_frequency_ms, num_tries))


def poll_model(core: Core, name: str, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look for a model or a script several times.

    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most.
    :returns: whether it was found.
    """
    return (yield from _poll(lambda: model_exists(core, name), poll_frequency_ms, num_tries))


def poll_list_length(core: Core, name: str, list_length: int, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look several times whether a list has a certain length.

    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most.
    :returns: whether it had.
    """
    return (yield from _poll(lambda: _length(core, name, list_length.__eq__), poll_frequency_ms, num_tries))


def poll_list_length_gte(core: Core, name: str, list_length: int, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look several times whether a list has at least a certain length.

    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most.
    :returns: whether it had.
    """
    return (yield from _poll(lambda: _length(core, name, list_length.__le__), poll_frequency_ms, num_tries))


def poll_list_length_lte(core: Core, name: str, list_length: int, poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look several times whether a list has at most a certain length.

    :param poll_frequency_ms: milliseconds between two looks.
    :param num_tries: how many looks at most.
    :returns: whether it had.
    """
    return (yield from _poll(lambda: _length(core, name, list_length.__ge__), poll_frequency_ms, num_tries))


def wait_for_tensor(core: Core, name: str, timeout: float) -> Op[None]:
    """Wait until there is a tensor; the looks are 1 ms apart at first, 0.1 s later.

    :param name: of the tensor; the get prefix is put before it.
    :param timeout: seconds.
    :raises DatabaseTimeout: there was none in time.

    Cancellation: nothing is left behind.
    """
    yield from _wait(lambda: tensor_exists(core, name), f"tensor {name!r}", timeout)


def wait_for_dataset(core: Core, name: str, timeout: float) -> Op[None]:
    """Wait until there is a complete dataset.

    :param timeout: seconds.
    :raises DatabaseTimeout: there was none in time.
    """
    yield from _wait(lambda: dataset_exists(core, name), f"dataset {name!r}", timeout)


def wait_for_model(core: Core, name: str, timeout: float) -> Op[None]:
    """Wait until there is a model or a script.

    :param timeout: seconds.
    :raises DatabaseTimeout: there was none in time.
    """
    yield from _wait(lambda: model_exists(core, name), f"model {name!r}", timeout)


def wait_for_key(core: Core, key: str, timeout: float) -> Op[None]:
    """Wait until there is a key, as the server knows it.

    :param timeout: seconds.
    :raises DatabaseTimeout: there was none in time.
    """
    yield from _wait(lambda: key_exists(core, key), f"key {key!r}", timeout)


def wait_for_list(core: Core, name: str, length: int, timeout: float) -> Op[None]:
    """Wait until a list has at least a certain length.

    :param timeout: seconds.
    :raises DatabaseTimeout: it had not in time.
    """
    yield from _wait(lambda: _length(core, name, length.__le__), f"list {name!r} of {length}", timeout)


def _length(core: Core, name: str, wanted: Callable[[int], bool]) -> Op[bool]:
    """Whether a list's length is as wanted."""
    return wanted((yield from get_list_length(core, name)))


def _poll(look: Callable[[], Op[bool]], poll_frequency_ms: int, num_tries: int) -> Op[bool]:
    """Look a number of times, at fixed intervals."""
    for attempt in range(num_tries):
        if attempt:
            yield Pause(poll_frequency_ms / 1000)
        if (yield from look()):
            return True
    return False


def _wait(look: Callable[[], Op[bool]], what: str, timeout: float) -> Op[None]:
    """Look until the time is over, at growing intervals; the last look is at the end."""
    end = monotonic() + timeout
    pause = FIRST_PAUSE
    while not (yield from look()):
        left = end - monotonic()
        if left <= 0:
            raise DatabaseTimeout(f"no {what} within {timeout:g} s")
        yield Pause(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
