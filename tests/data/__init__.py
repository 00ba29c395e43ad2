"""What real commands answered: ``<workload manager>/<version>/NAME.txt``.

A file has a line ``# command:`` (as a shell would be given it), perhaps ``# note:`` and ``# as:``, ``# exit code:``, and then
``--- stdout (N bytes)`` and ``--- stderr (N bytes)``, each with so many bytes after it, and a line break where the text has
none at its end.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from asim.launchers.dialect import Completed

ROOT = Path(__file__).parent


def load(path: str | Path) -> Completed:
    """One recording, by its path below this folder (``slurm/22.05/squeue-running.txt``) or an absolute one."""
    head, _, rest = (ROOT / path).read_bytes().partition(b"--- stdout (")
    facts = dict(line[2:].split(": ", 1) for line in head.decode().splitlines() if line.startswith("# "))
    stdout, rest = _block(rest)
    stderr, _ = _block(rest.partition(b"--- stderr (")[2])
    return Completed(tuple(shlex.split(facts["command"])), int(facts["exit code"]), stdout, stderr)


def _block(rest: bytes) -> tuple[str, bytes]:
    """``N bytes)``, a line break and N bytes; and what follows."""
    size, _, rest = rest.partition(b" bytes)\n")
    end = int(size)
    return rest[:end].decode("utf-8", "surrogateescape"), rest[end:]


def record(path: Path, done: Completed, note: str = "") -> None:
    """Write such a file."""
    out, err = (text.encode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    head = [f"# command: {shlex.join(done.argv)}", *([f"# note: {note}"] if note else []), f"# exit code: {done.code}"]
    parts = ["\n".join(head).encode() + b"\n"]
    for name, text in (("stdout", out), ("stderr", err)):
        parts += [
            f"--- {name} ({len(text)} bytes)\n".encode(),
            text,
            b"" if text.endswith(b"\n") or not text else b"\n",
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts))
