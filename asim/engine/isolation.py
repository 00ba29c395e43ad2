"""What a worker gives up before it touches a model: networks, other processes, and memory without end.

It is no sandbox. A model is code, and runs as the user who runs the database; this stops the cheap tricks and the accidents.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from struct import pack
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_FILTER_MODE = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of the filter, on 32-bit words
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in what the filter sees of a system call
_OOM_FIRST = 1000

# architecture, then the numbers of socket, and of ptrace, process_vm_readv, process_vm_writev, io_uring_setup (which can
# make sockets, too) and pidfd_getfd (which can take other processes')
_CALLS = {
    "x86_64": (0xC000003E, 41, (101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, 198, (117, 270, 271, 425, 438)),
}
_X32 = 0x40000000


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *arguments: Any) -> None:
    words = [item if isinstance(item, ctypes.Array) else ctypes.c_ulong(item) for item in arguments]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    if _libc().prctl(option, *words):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def end_with_parent(parent: int) -> None:
    """Linux: be killed when the thread that started this process ends.

    :param parent: the process that it should be a child of.
    :raises SystemExit: it is not, any more.
    """
    if sys.platform.startswith("linux"):
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        raise SystemExit(0)


def isolate(memory: int) -> list[str]:
    """Give up what a worker does not need. What the kernel refuses stays as it is.

    :param memory: bytes of memory of its own that this process may have; 0: no limit.
    :returns: what was refused, in words.
    """
    problems = []
    steps = [("core dumps", _no_core), ("memory", lambda: _limit(memory)), ("order of killing", _killed_first)]
    if sys.platform.startswith("linux"):
        steps.append(("system calls", _filter_calls))
    for what, step in steps:
        try:
            step()
        except (OSError, ValueError) as exc:
            problems.append(f"{what}: {exc}")
    return problems


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit(memory: int) -> None:
    """By RLIMIT_DATA, not RLIMIT_AS: address space is also reserved without being used, by CUDA in terabytes."""
    if memory:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _killed_first() -> None:
    """When memory runs out, the kernel is to kill a worker, and not the database, be that as large as it may."""
    if sys.platform.startswith("linux"):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(_OOM_FIRST))


def _filter_calls() -> None:
    """Refuse, from here on and in all that is started from here, sockets to networks and access to other processes."""
    machine = platform.machine()
    if machine not in _CALLS:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    code = b"".join(_program(*_CALLS[machine]))
    text = ctypes.create_string_buffer(code, len(code))
    length = len(code) // 8
    program = ctypes.create_string_buffer(pack("HxxxxxxP", length, ctypes.addressof(text)))
    _prctl(_PR_SET_SECCOMP, _FILTER_MODE, program)


def _program(architecture: int, make_socket: int, others: tuple[int, ...]) -> Iterator[bytes]:
    """The filter: of each jump, how many instructions to skip if it is so, and if it is not."""
    refuse = 7 + len(others)  # index of the last instruction but one
    yield _instruction(_LOAD, 0, 0, _ARCHITECTURE)
    yield _instruction(_EQUAL, 0, refuse - 2, architecture)
    yield _instruction(_LOAD, 0, 0, _NUMBER)
    yield _instruction(_AT_LEAST, refuse - 4, 0, _X32)  # the other numbers of the same calls
    for index, number in enumerate(others):
        yield _instruction(_EQUAL, refuse - 5 - index, 0, number)
    yield _instruction(_EQUAL, 0, 3, make_socket)
    yield _instruction(_LOAD, 0, 0, _FIRST_ARGUMENT)
    # a Unix domain socket, or any other call, is allowed
    yield _instruction(_EQUAL, 1, 0, int(socket.AF_UNIX))
    yield _instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM)
    yield _instruction(_RETURN, 0, 0, _ALLOW)


def _instruction(code: int, if_so: int, if_not: int, value: int) -> bytes:
    return pack("HBBI", code, if_so, if_not, value)


def default_memory(workers: int) -> int:
    """Bytes that each of some workers on this host may use: together three quarters of what there is."""
    return _memory() * 3 // 4 // max(workers, 1)


def _memory() -> int:
    """Bytes of memory of this host, or of the control group that this process is in, if that has fewer."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limits():
        try:
            with open(path) as file:
                found.append(int(file.read()))
        except (OSError, ValueError):
            continue  # "max", or none
    return min(found)


def _limits() -> Iterator[str]:
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return
    for _, controllers, group in groups:
        if not controllers:
            yield f"/sys/fs/cgroup{group.rstrip('/')}/memory.max"
        elif "memory" in controllers.split(","):
            yield f"/sys/fs/cgroup/memory{group.rstrip('/')}/memory.limit_in_bytes"
    yield "/sys/fs/cgroup/memory.max"  # in a container, whose group is the root of what it sees
    yield "/sys/fs/cgroup/memory/memory.limit_in_bytes"
