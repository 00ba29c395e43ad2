"""The part of an array's script in which each task finds its member. Pure.

Members of an array are mostly the same but for a number in their names. Such a word is written once for all tasks, with
the number left to the shell: schedulers keep the script, and send it to the node of every task. Words for which there
is no such rule are listed for each task.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache

TASK = "asim_task"
NOBODY = f'{{ echo "no member has the number ${TASK}" >&2; exit 2; }}'
_NUMBER = re.compile("([0-9]{1,9})")
"""As far as every shell can count. (What a longer one consists of is taken for numbers beside each other.)"""
_UNSAFE = re.compile("[^A-Za-z0-9_@%+=:,./-]")


def array(rows: Sequence[Sequence[str]], index: str) -> list[str]:
    """Lines that call ``asim_member`` with the words of this task. A task that has none fails.

    :param rows: the words of each task, from task 0 on; not empty.
    :param index: shell expression for the number of the task.
    """
    words, listed = _words(rows)
    lines = [f"{TASK}={index}", f'[ "${TASK}" -ge 0 ] && [ "${TASK}" -lt {len(rows)} ] || {NOBODY}']
    if listed:
        cases = [f"  {number}) set -- {joined(row)} ;;" for number, row in enumerate(listed)]
        lines += [f'case "${TASK}" in', *cases, "esac"]
    return [*lines, f"asim_member {' '.join(words)}"]


def joined(words: Iterable[str]) -> str:
    """Words for a POSIX shell, as :func:`shlex.join` writes them; faster where nothing is to be quoted."""
    words = list(words)
    return " ".join(words) if all(words) and not _UNSAFE.search("".join(words)) else shlex.join(words)


def _words(rows: Sequence[Sequence[str]]) -> tuple[list[str], Sequence[Sequence[str]]]:
    """The words of every task as shell text, and for each task what its positional parameters in there are."""
    if len({len(row) for row in rows}) > 1:
        return ['"$@"'], rows
    words, listed = [], []
    for column in zip(*rows, strict=True):
        word = _rule(column)
        if word is None:
            listed.append(column)
            word = f'"${{{len(listed)}}}"'
        words.append(word)
    return words, list(zip(*listed, strict=True))


def _rule(values: Sequence[str]) -> str | None:
    """Shell text that is each of these values in the task of its place; None: they are not all the same, nor do they
    differ in one number that counts up.
    """
    if values.count(values[0]) == len(values):
        return shlex.quote(values[0])
    parts, others = _NUMBER.split(values[0]), _NUMBER.split(values[1])
    found = {part for part, other in zip(parts, others, strict=False) if part != other}
    if len(found) != 1 or not _NUMBER.fullmatch(number := found.pop()):
        return None
    first = int(number)
    shape = "".join("\0" if part != other else part for part, other in zip(parts, others, strict=False))
    constant = shape.split("\0")  # the text around the number, which may be there several times
    if list(values) != [number.join(constant) for number in _numbers(first, len(values))]:
        return None  # this also catches leading zeros, and whatever the first two do not show
    counted = f'"$(({TASK} + {first}))"' if first else f'"${TASK}"'
    return counted.join(text and shlex.quote(text) for text in constant)


@lru_cache(8)
def _numbers(first: int, count: int) -> list[str]:
    """As many, in words: an array's members are mostly counted in the same way in several places."""
    return [str(number) for number in range(first, first + count)]
