"""Servers whose engine was built with address and undefined-behaviour sanitizers.

The sanitizers' library takes the place of malloc in the whole server, so that it also knows the module's memory, which
comes from the server. That works with Redis, whatever its allocator was; Valkey loads modules in a way that it refuses.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from asim.engine import build

VARIABLE = "ASIM_TEST_SANITIZED"
"""Names the directory of a sanitized module: the engine's tests then use it, and leave reports there."""


def library() -> str | None:
    """The compiler's sanitizer library, if it has one."""
    compiler = build.compiler()
    if compiler is None:
        return None
    words = [*compiler.split(), "-print-file-name=libasan.so"]
    path = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return path if Path(path).is_absolute() else None


def make(directory: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile the module into ``directory``."""
    return build.build(directory / "asim_engine.so", sanitize=True, flags=flags)


def environment(directory: Path) -> dict[str, str]:
    """What the server must be started with; its reports go to ``directory``."""
    log = f"log_path={directory}/report"
    return {
        "LD_PRELOAD": library() or "",
        "ASAN_OPTIONS": f"detect_leaks=1:allocator_may_return_null=1:exitcode=66:{log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log}",
    }


def reports(directory: Path) -> str:
    """What the sanitizers complained about; empty when there was nothing."""
    texts = [path.read_text(errors="replace") for path in sorted(directory.glob("report*"))]
    return "\n".join(text for text in texts if "ERROR: " in text or "runtime error" in text)


def chosen() -> Path | None:
    """The directory that the environment names."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
