"""The forms in which OpenPBS 23.06.06 prints attributes, as recorded. Pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping

Pairs = dict[str, object]
"""Attributes in order; a mapping is a list of its own."""
VERSION = "23.06.06"
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


def as_json(host: str, jobs: Mapping[str, Pairs], *, top: str = "Jobs") -> str:
    """The JSON of this version: what looks like a number is one, and backslashes are not escaped everywhere."""
    head: Pairs = {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": host}
    return "{\n" + ",\n".join(_pairs({**head, **({top: jobs} if jobs else {})}, 1)) + "\n}\n"


def _pairs(pairs: Mapping[str, object], depth: int) -> Iterator[str]:
    pad = "    " * depth
    for name, value in pairs.items():
        if isinstance(value, Mapping):
            yield f'{pad}"{name}":{{\n' + ",\n".join(_pairs(value, depth + 1)) + f"\n{pad}}}"
        elif name == "pbs_version" or not _NUMBER.fullmatch(str(value)):
            text = json.dumps(str(value), ensure_ascii=False)
            yield f'{pad}"{name}":{text.replace(chr(92) * 2, chr(92)) if name == "Submit_arguments" else text}'
        else:
            yield f'{pad}"{name}":{value}'


def as_plain(jobs: Mapping[str, Pairs], *, wide: bool) -> str:
    """The plain form; long lines are folded unless ``wide``."""
    return "".join(f"Job Id: {job}\n" + "".join(_plain_lines(pairs, wide)) + "\n" for job, pairs in jobs.items())


def _plain_lines(pairs: Pairs, wide: bool) -> Iterator[str]:
    for name, value in pairs.items():
        if name == "Variable_List" and isinstance(value, Mapping):
            value = ",".join(f"{key}={item}" for key, item in value.items())
        items = (
            [(f"{name}.{key}", item) for key, item in value.items()] if isinstance(value, Mapping) else [(name, value)]
        )
        for key, item in items:
            yield _folded(f"    {key} = {item}", wide) + "\n"


def _folded(line: str, wide: bool) -> str:
    if wide or len(line) < 80:
        return line
    return line[:79] + "".join(f"\n\t{line[at : at + 72]}" for at in range(79, len(line), 72))
