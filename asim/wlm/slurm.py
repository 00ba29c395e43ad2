"""Slurm's allocations: made and given back (awaitable), and what the one that this program is in has."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Mapping, Sequence

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.streams.text

from ..errors import AllocationError, ConfigError, allowed
from ..settings._text import Value, checked, flag_gnu, given, whole
from ._variables import number, variable

_RESERVED = frozenset({"t", "time", "N", "nodes", "A", "account", "no-shell"})
_SILENT = frozenset({"Q", "qu", "qui", "quie", "quiet"})
"""salloc then does not say the id of what it got. (It takes shortened names, too.)"""
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")
_ID = re.compile(r"(?:allocation|job) (\d+)")
_GRANTED = re.compile(r"Granted job allocation (\d+)")
_UNUSABLE = ("down", "drain", "drng", "fail", "unk", "maint", "boot", "inval", "pow_dn", "no_respond", "*")
_HOST = re.compile(r"((?:[^,\[]|\[[^\]]*\])+),?")
_RELEASE_WITHIN = 30.0


async def get_allocation(
    nodes: int = 1,
    time: str | None = None,
    account: str | None = None,
    options: Mapping[str, Value] | None = None,
) -> str:
    """Ask for nodes, and wait until they are granted. Release them with :func:`release_allocation`.

    :param nodes: how many.
    :param time: limit, ``HH:MM:SS`` or another of Slurm's forms; by default the partition's.
    :param account: account to charge.
    :param options: further options of ``salloc``; dashes in front are not needed. True, None and "" are flags.
    :returns: the allocation's id.
    :raises ConfigError: an option that has a parameter of its own here, or that keeps salloc from telling the id
        (``quiet``); a bad time.
    :raises AllocationError: refused, with Slurm's words; or there is no ``salloc``.
    Cancellation: the request is withdrawn; what may have been granted meanwhile is released.
    """
    argv = ["salloc", "--no-shell", *_flags(nodes, time, account, options)]
    said = ""
    process = await _started(argv)
    assert process.stderr is not None
    try:
        async for text in anyio.streams.text.TextReceiveStream(process.stderr, errors="replace"):
            said += text
        await process.wait()
    except BaseException:
        with anyio.CancelScope(shield=True):  # what was granted must not stay
            await _withdraw(process, said)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()
    granted = _GRANTED.search(said)
    if process.returncode or granted is None:
        raise AllocationError(f"salloc ended with code {process.returncode}: {said.strip()}")
    return granted[1]


async def release_allocation(alloc_id: str | int) -> None:
    """Give an allocation back; what runs in it is ended.

    :param alloc_id: its id.
    :raises ConfigError: that is no id.
    :raises AllocationError: Slurm does not do that, with its words.
    Cancellation: it may or may not be released.
    """
    job = str(alloc_id)
    if not re.fullmatch(r"\d+([_+]\d+)?", job):
        raise ConfigError(allowed("alloc_id", alloc_id, "must be the number that get_allocation returned"))
    await _output(["scancel", job])


async def validate(nodes: int = 1, ppn: int = 1, partition: str | None = None) -> bool:
    """Whether a partition has so many nodes that are up, each with so many CPUs. They may be busy.

    :param nodes: how many nodes.
    :param ppn: CPUs on each.
    :param partition: by default Slurm's default partition.
    :raises ConfigError: there is no such partition.
    :raises AllocationError: Slurm does not answer.
    """
    rows = [line.split("|") for line in (await _output(["sinfo", "-h", "-N", "-o", "%P|%N|%c|%t"])).splitlines()]
    known = {row[0].rstrip("*") for row in rows}
    wanted = (
        next((row[0].rstrip("*") for row in rows if row[0].endswith("*")), None) if partition is None else partition
    )
    if wanted not in known:
        raise ConfigError(allowed("partition", partition, f"must be one of {', '.join(sorted(known))}"))
    enough = [row for row in rows if row[0].rstrip("*") == wanted and int(row[2].rstrip("+")) >= ppn]
    return len([row for row in enough if not any(word in row[3] for word in _UNUSABLE)]) >= nodes


async def get_default_partition() -> str:
    """The partition of jobs that name none.

    :raises AllocationError: there is none, or Slurm does not answer.
    """
    names = (await _output(["sinfo", "-h", "-o", "%P"])).split()
    default = next((name[:-1] for name in names if name.endswith("*")), None)
    if default is None:
        raise AllocationError(f"Slurm has no default partition here, only {', '.join(names)}")
    return default


def get_hosts() -> list[str]:
    """The hosts of the allocation that this program is in, in Slurm's order.

    :raises AllocationError: ``SLURM_JOB_NODELIST`` is not set.
    """
    return expand_hosts(variable("SLURM_JOB_NODELIST", "SLURM_NODELIST"))


def get_queue() -> str:
    """Its partition.

    :raises AllocationError: ``SLURM_JOB_PARTITION`` is not set.
    """
    return variable("SLURM_JOB_PARTITION")


def get_tasks() -> int:
    """How many tasks it was made for.

    :raises AllocationError: ``SLURM_NTASKS`` is not set: neither inside an allocation, nor asked for when it was made.
    """
    return number("SLURM_NTASKS", "SLURM_NPROCS")


def get_tasks_per_node() -> dict[str, int]:
    """Host -> how many tasks it has room for.

    :raises AllocationError: ``SLURM_TASKS_PER_NODE`` or ``SLURM_JOB_NODELIST`` is not set.
    """
    counts: list[int] = []
    for part in variable("SLURM_TASKS_PER_NODE").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None:
            raise AllocationError(f"SLURM_TASKS_PER_NODE has {part!r}: must be like 24(x3) or 12")
        counts += [int(found[1])] * int(found[2] or 1)
    return dict(zip(get_hosts(), counts, strict=False))


def expand_hosts(text: str) -> list[str]:
    """Slurm's short form of host names: ``n[1-3,07],login`` -> ``n1 n2 n3 n07 login``."""
    hosts: list[str] = []
    for name in _HOST.findall(text):
        pieces = re.split(r"\[([^\]]*)\]", name)
        choices = [_numbers(piece) if at % 2 else [piece] for at, piece in enumerate(pieces)]
        hosts += ["".join(parts) for parts in itertools.product(*choices)]
    return hosts


def _numbers(text: str) -> list[str]:
    """``1-3,07`` -> 1 2 3 07; leading zeros are kept."""
    found: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += [f"{at:0{len(first)}}" for at in range(int(first), int(last or first) + 1)]
    return found


# -- commands


def _flags(nodes: int, time: str | None, account: str | None, options: Mapping[str, Value] | None) -> Sequence[str]:
    others = {checked("options name", name).strip().lstrip("-"): value for name, value in (options or {}).items()}
    for name in others.keys() & _RESERVED:
        raise ConfigError(allowed(f"options[{name!r}]", others[name], "use the parameters nodes, time and account"))
    for name in given(others).keys() & _SILENT:
        what = "salloc would not tell the allocation's id, and nobody could release it; leave it out"
        raise ConfigError(allowed(f"options[{name!r}]", others[name], what))
    if time is not None and not _TIME.fullmatch(checked("time", time)):
        raise ConfigError(allowed("time", time, "must be HH:MM:SS, or another of Slurm's forms"))
    own: dict[str, Value] = {
        "nodes": whole("nodes", nodes, least=1),
        "job-name": "asim",
        "time": time,
        "account": account,
    }
    fixed: dict[str, Value] = {name: value for name, value in own.items() if value is not None}
    texts = given({**fixed, **others})
    return [word for name, text in texts.items() for word in flag_gnu(name, text)]


async def _started(argv: Sequence[str]) -> anyio.abc.Process:
    await anyio.lowlevel.checkpoint()
    try:
        with anyio.CancelScope(shield=True):  # once it runs, it must be in our hands
            process = await anyio.open_process(argv, stdin=-3, stdout=-3, start_new_session=True)
    except FileNotFoundError:
        raise AllocationError(f"{argv[0]} is not in PATH") from None
    return process


async def _listen(process: anyio.abc.Process, until: re.Pattern[str] | None = None) -> str:
    """What it says on stderr, to the end or until that has a match."""
    assert process.stderr is not None
    said = ""
    async for text in anyio.streams.text.TextReceiveStream(process.stderr, errors="replace"):
        said += text
        if until and until.search(said):
            break
    return said


async def _withdraw(process: anyio.abc.Process, said: str) -> None:
    """End salloc, and cancel the job that it speaks of, whether it waits or was just granted.

    A request that salloc has sent but not spoken of yet would be nobody's: so it is left to speak first.
    """
    with anyio.move_on_after(_RELEASE_WITHIN):
        said += await _listen(process, until=_ID) if not _ID.search(said) else ""
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        said += await _listen(process)
        await process.wait()
    if process.returncode is None:
        process.kill()
    for job in dict.fromkeys(_ID.findall(said)):
        with anyio.move_on_after(_RELEASE_WITHIN):
            await anyio.run_process(["scancel", job], check=False)


async def _output(argv: Sequence[str]) -> str:
    """What a command prints.

    :raises AllocationError: it is not there, or fails.
    """
    try:
        done = await anyio.run_process(argv, check=False)
    except FileNotFoundError:
        raise AllocationError(f"{argv[0]} is not in PATH") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or "without a word"
        raise AllocationError(f"{argv[0]} ended with code {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")
