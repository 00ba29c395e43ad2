"""Who still needs a colocated database: the file ``alive``, which every rank holds locked and has written itself into.

The lock also counts the children of a rank, and the kernel lets go of it however they end. But a program may close files
that it does not know, as daemons do; so the number and the start of each rank's process are in the file as well.
"""

from __future__ import annotations

import fcntl
import os


def is_locked(path: str) -> bool:
    """Whether anybody holds a lock on this file."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_down(fd: int) -> None:
    """Write this process into the file. It stays the same process when it becomes another program."""
    os.write(fd, b"%d %s\n" % (os.getpid(), _start(os.getpid())))


def needed(path: str) -> bool:
    """Whether a process that holds the lock, or is written in the file, still runs."""
    if is_locked(path):
        return True
    with open(path, "rb") as file:
        rows = [line.partition(b" ") for line in file.read().splitlines()]
    return any(pid.isdigit() and start and start == _start(int(pid)) for pid, _, start in rows)


def _start(pid: int) -> bytes:
    """When a process started, so that another one with its number is told apart; b"" if it ended, or without /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            row = file.read()
    except OSError:
        return b""
    rest = row[row.rindex(b")") + 2 :].split()
    return b"" if rest[0] in b"ZX" else rest[19]
