"""Random commands; and the same, and all of the engine's tests, with sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asim.engine import build

from .. import fuzz_engine, fuzz_workers, sanitized
from ..conftest import missing
from ..servers import RedisServer
from .engine import PROGRAMS, debug_args, make_server

__all__ = ["make_server"]

REDIS = [label for label in PROGRAMS if label.startswith("redis")]
HERE = Path(__file__).parent


def test_fuzz(make_server: Any) -> None:
    """Ten thousand random commands get ten thousand replies, and the server lives."""
    with make_server(*fuzz_engine.ARGS) as server:
        seen = fuzz_engine.fuzz(server, 10_000, seed=1)
        assert sum(seen.values()) >= 10_000
        assert seen["AI.TENSORSET ok"] > 500
        assert seen["RESTORE ok"] > 50
        assert server.stop() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a sanitized module."""
    if not sanitized.library() or not REDIS:
        missing("there is no compiler with sanitizers, or no redis-server")
    directory = tmp_path_factory.mktemp("sanitized")
    sanitized.make(directory)
    return directory


def run_fuzz(label: str, directory: Path, count: int) -> int | None:
    """Fuzz a server with the module in this directory; returns its exit code."""
    args = [*debug_args(label), *fuzz_engine.ARGS]
    module, env = directory / "asim_engine.so", sanitized.environment(directory)
    with RedisServer(PROGRAMS[label], module, directory / label, args, env=env) as server:
        fuzz_engine.fuzz(server, count, seed=2)
        return server.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("label", REDIS)
def test_fuzz_sanitized(place: Path, label: str) -> None:
    """A hundred thousand random commands: nothing is read or written out of bounds, used after it was freed, or lost."""
    code = run_fuzz(label, place, 100_000)
    assert (code, sanitized.reports(place)) == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("label", REDIS)
def test_workers_sanitized(place: Path, label: str) -> None:
    """Random clients and workers that answer wrongly, or die: every client is answered, and no memory is misused."""
    module, env = place / "asim_engine.so", sanitized.environment(place)
    for seed in range(3):
        answers, code = fuzz_workers.run(15_000, seed, binary=PROGRAMS[label], module=module, env=env)
        assert answers.total() > 5000
        assert (code, sanitized.reports(place)) == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("label", REDIS)
def test_suite_sanitized(place: Path, label: str) -> None:
    """The engine's own tests pass with sanitizers, which have nothing to say."""
    files = [
        str(path)
        for path in HERE.glob("test_engine_*.py")
        if path.stem not in ("test_engine_fuzz", "test_engine_build")
    ]
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-k", f"{label} and not memory and not background", *files]
    env = {**os.environ, sanitized.VARIABLE: str(place)}
    done = subprocess.run(words, cwd=HERE.parents[1], env=env, capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode, sanitized.reports(place)) == (0, ""), done.stdout[-3000:]


INJECTED = {
    "leak": ("tensor.c", "    bytes_release(&tensor->bytes);\n    redis.Free(tensor);", "    bytes_release(&tensor->bytes);"),
    "overflow": ("tensor.c", "alloc_or_null(total)", "alloc_or_null(total - 1)"),
    "use after free": ("store.c", "    if (redis.ModuleTypeReplaceValue(", "    release(value);\n    if (redis.ModuleTypeReplaceValue("),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("label", REDIS)
@pytest.mark.parametrize("fault", INJECTED)
def test_sanitizers_notice(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str, fault: str
) -> None:
    """The two tests above would notice a fault: each kind, put in on purpose, is reported."""
    assert place
    name, old, new = INJECTED[fault]
    sources = Path(shutil.copytree(build.SOURCES, tmp_path / "module"))
    text = (sources / name).read_text()
    assert old in text
    (sources / name).write_text(text.replace(old, new))
    monkeypatch.setattr(build, "SOURCES", sources)
    sanitized.make(tmp_path)
    try:
        code = run_fuzz(label, tmp_path, 500)
    except AssertionError:
        code = 66
    assert code not in (0, None)
    assert {"leak": "LeakSanitizer", "overflow": "heap-buffer-overflow"}.get(fault, "free") in sanitized.reports(
        tmp_path
    )
