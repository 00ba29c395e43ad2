"""What OpenPBS' ``qsub`` accepts, and what it says of the rest, as recorded. Pure."""

from __future__ import annotations

import getopt
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .server import Answer

OPTIONS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
QUEUES = {"workq": (), "holdq": (), "closedq": (), "shortq": (("walltime", 600), ("ncpus", 2))}
"""Queues and their limits. Jobs of holdq are never started, and closedq takes none."""
MOST = 10000
_USAGE = f"usage: qsub [options: {OPTIONS}] [script | -- command [arg1 ...]]\n       qsub --version\n"
_RESOURCES = {
    "ncpus", "mem", "vmem", "pmem", "pvmem", "cput", "pcput", "walltime", "nodes", "select", "place", "mpiprocs",
    "ompthreads", "host", "vnode", "arch", "file", "nice", "software", "ngpus", "naccelerators", "nodect", "ppn",
}  # fmt: skip
_ARRAY = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?:%(\d+))?")
_DEPEND = re.compile(r"(afterok|afternotok|afterany|after):(.+)")
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+)(?:\.\d+)?")


class Refusal(Exception):
    """``qsub`` does not take it.

    :ivar answer: what it says.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(code, "", f"qsub: {text}\n")


def usage(text: str = "") -> Refusal:
    """Wrong usage: exit code 2 and how it is used."""
    refusal = Refusal(2, text)
    refusal.answer = Answer(2, "", (f"qsub: {text}\n" if text else "") + _USAGE)
    return refusal


@dataclass(slots=True)
class Submit:
    """What one ``qsub`` asks for.

    :ivar options: option letter -> value; of ``-l`` and ``-W`` see the other two.
    :ivar words: script, or ``--`` and a command.
    :ivar after: dependencies: kind and job.
    """

    options: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    after: list[tuple[str, str]] = field(default_factory=list)

    def read(self, argv: Sequence[str]) -> None:
        """Take options, the later ones before those that are there."""
        if any(word.startswith("--") and word != "--" for word in argv[: _first_word(argv)]):
            raise usage("invalid option -- '-'")
        try:
            pairs, self.words = getopt.getopt(list(argv), OPTIONS)
        except getopt.GetoptError as error:
            kind = "option requires an argument" if "requires" in error.msg else "invalid option"
            raise usage(f"{kind} -- '{error.opt}'") from None
        if "--" in argv[: len(argv) - len(self.words)]:
            self.words = ["--", *self.words]
        elif len(self.words) > 1:
            raise usage()
        for name, value in pairs:
            self._set(name[1], value)

    def directives(self, script: str) -> None:
        """Take the script's own options, which come after those of the command line."""
        mine = Submit()
        for line in script.split("\n"):
            if line.startswith("#PBS"):
                mine.read(shlex.split(line[4:]))
            elif line.strip() and not line.startswith(("#", ":")):
                break
        self.options = mine.options | self.options
        self.resources = mine.resources | self.resources
        self.after = self.after or mine.after

    def check(self) -> None:
        """What the server says."""
        queue = self.options.get("q", "workq")
        if "@" in queue:
            cut = queue.partition("@")[2][:7]
            answer = Answer(160, "", f"Unknown Host.\nqsub: cannot connect to server {cut} (errno=15008)\n")
            refusal = Refusal(160, "")
            refusal.answer = answer
            raise refusal
        check_resources(self.resources)
        if queue not in QUEUES:
            raise Refusal(170, "Unknown queue")
        if queue == "closedq":
            raise Refusal(173, "Queue is not enabled")
        have = {"walltime": seconds(self.resources.get("walltime", "")), "ncpus": slots(self.resources)}
        if any(have[name] > most for name, most in QUEUES[queue]):
            raise Refusal(188, "Job violates queue and/or server resource limits")
        if len(self.indices() or ()) > MOST:
            raise Refusal(3, "Array job exceeds server or queue size limit")

    def indices(self) -> Sequence[int] | None:
        """The array's indices; None: no array."""
        match = _ARRAY.fullmatch(self.options.get("J", ""))
        return range(int(match[1]), int(match[2]) + 1, int(match[3] or 1)) if match else None

    def throttle(self) -> int:
        """How many tasks may run at once; 0: no limit."""
        match = _ARRAY.fullmatch(self.options.get("J", ""))
        return int(match[4] or 0) if match else 0

    def _set(self, name: str, value: str) -> None:
        if name == "l":
            for part in re.split(r",(?=\w+=)", value):
                resource, _, amount = part.partition("=")
                self.resources[resource] = amount
        elif name == "W":
            self._attribute(value)
        else:
            _check_option(name, value)
            self.options[name] = value

    def _attribute(self, text: str) -> None:
        name, _, value = text.partition("=")
        match = _DEPEND.fullmatch(value)
        if name == "depend" and match:
            self.after += [(match[1], job) for job in match[2].split(":")]
        elif name == "depend" or (name == "umask" and not value.isdecimal()):
            raise usage("illegal -W value")
        elif name not in ("umask", "group_list", "sandbox", "stagein", "stageout"):
            raise Refusal(154, "Error (15002) submitting job")


def _first_word(argv: Sequence[str]) -> int:
    return argv.index("--") if "--" in argv else len(argv)


def _check_option(name: str, value: str) -> None:
    if name == "N" and len(value) > 230:
        raise Refusal(2, "Job name is too long ")
    good = {
        "N": lambda: value.isascii() and not re.search(r"[\s/]", value) and bool(value),
        "J": lambda: _good_array(value),
        "j": lambda: value in ("oe", "eo", "n"),
        "p": lambda: re.fullmatch(r"[-+]?\d+", value) is not None and abs(int(value)) <= 1024,
        "a": lambda: re.fullmatch(r"\d{4,12}(\.\d\d)?", value) is not None,
    }.get(name)
    if good is not None and not good():
        raise usage(f"illegal -{name} value")


def _good_array(value: str) -> bool:
    match = _ARRAY.fullmatch(value)
    return match is not None and int(match[1]) < int(match[2]) and match[3] != "0" and match[4] != "0"


def check_resources(resources: Mapping[str, str]) -> None:
    """What the server says of ``-l``."""
    for name, value in resources.items():
        if name not in _RESOURCES:
            raise Refusal(187, f"Unknown resource Resource_List.{name}")
        if name == "walltime" and not _TIME.fullmatch(value):
            raise Refusal(166, f"Illegal attribute or resource value Resource_List.{name}")
    if "select" in resources:
        _check_select(resources)


def _check_select(resources: Mapping[str, str]) -> None:
    if "nodes" in resources:
        raise Refusal(6, "Cannot be used with select or place: nodes")
    for name in ("ncpus", "mem", "mpiprocs"):
        if name in resources:
            raise Refusal(5, f'"-lresource=" cannot be used with "select" or "place", resource is: {name}')
    for chunk in resources["select"].split("+"):
        _check_chunk(chunk.split(":"))


def _check_chunk(parts: Sequence[str]) -> None:
    if parts[0].startswith("-"):
        raise Refusal(166, "Illegal attribute or resource value Resource_List.select")
    if parts[0] == "0":
        raise Refusal(166, "Illegal attribute or resource value")
    for part in parts[parts[0].isdecimal() :]:
        name, _, value = part.partition("=")
        if name not in _RESOURCES:
            raise Refusal(187, f"Unknown resource: {name}")
        if name in ("ncpus", "mpiprocs", "ompthreads") and not value.isdecimal():
            raise Refusal(166, f"Illegal attribute or resource value select.{name}")


# --- amounts


def seconds(walltime: str) -> float:
    """A time limit in seconds; 0: none."""
    match = _TIME.fullmatch(walltime)
    return float(int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + int(match[3])) if match else 0.0


def select(resources: Mapping[str, str]) -> str:
    """The chunks, as the server keeps them."""
    if "select" in resources:
        chunks = (chunk if chunk[:1].isdecimal() else f"1:{chunk}" for chunk in resources["select"].split("+"))
        return "+".join(chunk if "ncpus=" in chunk else f"{chunk}:ncpus=1" for chunk in chunks)
    if "nodes" in resources:
        count, *rest = resources["nodes"].split(":")
        ppn = next((part[4:] for part in rest if part.startswith("ppn=")), "")
        ncpus = next((part[6:] for part in rest if part.startswith("ncpus=")), ppn or "1")
        return f"{count}:ncpus={ncpus}" + (f":mpiprocs={ppn}" if ppn else "")
    return f"1:ncpus={resources.get('ncpus', '1')}"


def chunks(resources: Mapping[str, str]) -> list[dict[str, int]]:
    """One mapping for each chunk: its numbers by name."""
    found = []
    for chunk in select(resources).split("+"):
        count, *parts = chunk.split(":")
        numbers = {name: int(value) for name, _, value in (part.partition("=") for part in parts) if value.isdecimal()}
        found += [numbers] * int(count)
    return found


def slots(resources: Mapping[str, str]) -> int:
    """All cpus that are asked for."""
    return sum(chunk.get("ncpus", 1) for chunk in chunks(resources))
