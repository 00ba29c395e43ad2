"""What LSF's ``bsub`` accepts, from its documentation. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

VALUED = {
    "J", "Jd", "o", "oo", "e", "eo", "q", "n", "W", "We", "P", "R", "m", "w", "G", "g", "app", "sla", "U", "u", "L", "M",
    "cwd", "env", "i", "nnodes", "alloc_flags", "ln_slots", "ln_mem", "cn_cu", "cn_mem", "csm", "step_cgroup", "gpu", "a",
    "b", "t", "sp", "E", "Ep", "v", "S", "D", "C", "c", "p", "T", "ptl", "hostfile", "network", "core_isolation", "smt",
}  # fmt: skip
BARE = {"x", "r", "rn", "H", "N", "B", "ul", "K", "I", "Ip", "Is", "Zs", "jsm"}
ARRAY = re.compile(r"([^\[]*)\[(\d+)-(\d+)\](?:%(\d+))?")
CONDITION = re.compile(r"(done|ended|exit)\((\d+)\)")
KINDS = {"done": "afterok", "ended": "afterany", "exit": "afternotok"}


def options(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options, and the command after them."""
    found: dict[str, str] = {}
    words = list(argv)
    while words and words[0].startswith("-"):
        name = words.pop(0)[1:]
        if name not in VALUED | BARE or (name in VALUED and not words):
            raise ValueError(f"Illegal option -- {name}")
        found[name] = words.pop(0) if name in VALUED else ""
    return found, words


def directives(text: str) -> dict[str, str]:
    """Every ``#BSUB`` line of a script."""
    lines = (line[5:] for line in text.splitlines() if line.startswith("#BSUB"))
    return {name: value for line in lines for name, value in options(shlex.split(line))[0].items()}


def minutes(limit: str) -> float:
    """A run limit, ``[hours:]minutes[/host]``, in minutes."""
    hours, _, rest = limit.partition("/")[0].rpartition(":")
    return float(hours or 0) * 60 + float(rest or 0)
