"""Builds the module: ``python -m asim.engine.build``. Standard library only, so a build hook can load it by path."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "module"
"""Where the C files are."""

INSTALL = "install a C compiler (Debian: apt install gcc libc6-dev; conda: conda install gcc_linux-64), or set CC"
FLAGS = ("-std=c17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
SANITIZE = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


class BuildError(RuntimeError):
    """The module could not be compiled; the text says what is missing, or is the compiler's own."""


def module_file() -> Path:
    """Where the compiled module is in this installation, if it was compiled."""
    return SOURCES.parent / "asim_engine.so"


def compiler() -> str | None:
    """The C compiler's command line: $CC if that is set, else the first of cc, gcc and clang in PATH."""
    if chosen := os.environ.get("CC", "").strip():
        words = shlex.split(chosen)
        return chosen if shutil.which(words[0]) else None
    return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def build(out: Path | None = None, *, sanitize: bool = False, flags: tuple[str, ...] = ()) -> Path:
    """Compile the module. An older file stays as it is until the new one is complete.

    :param out: the file to write; by default :func:`module_file`.
    :param sanitize: with address and undefined-behaviour sanitizers (for tests).
    :param flags: more words for the compiler.
    :raises BuildError: no compiler, no source files, the compiler failed, or the file cannot be written.
    """
    target, sources = out or module_file(), sorted(str(path) for path in SOURCES.glob("*.c"))
    command = compiler()
    if not sources:
        raise BuildError(f"no C files in {SOURCES}: this installation lacks the engine's sources")
    if command is None:
        chosen = os.environ.get("CC", "").strip()
        found = f"CC = {chosen!r} is no program that can be run" if chosen else "no cc, gcc or clang in PATH"
        raise BuildError(f"the engine cannot be compiled: {found}; {INSTALL}")
    half = _temporary(target)
    try:
        words = [*shlex.split(command), *FLAGS, *(SANITIZE if sanitize else ()), *flags, "-o", half, *sources]
        _compile(words)
        os.chmod(half, 0o755)
        os.replace(half, target)
    except OSError as error:
        raise BuildError(f"{target} could not be written: {error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(half)
    return target


def _temporary(target: Path) -> str:
    """A new empty file beside ``target``."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise BuildError(f"{target} could not be written: {error}") from error
    os.close(handle)
    return name


def _compile(words: list[str]) -> None:
    """Run the compiler once."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise BuildError(f"{shlex.join(words)}\nended with {done.returncode}:\n{said}\n{INSTALL}")
    if done.stderr:
        sys.stderr.write(done.stderr)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m asim.engine.build", description="Compile asim's engine.")
    parser.add_argument("--sanitize", action="store_true", help="with address and undefined-behaviour sanitizers")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"the file to write (default: {module_file()})")
    options = parser.parse_args(arguments)
    try:
        path = build(options.out, sanitize=options.sanitize)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
