"""How the engine is compiled, and what is said where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asim.engine import build, installed
from asim.errors import MissingFileError

from ..conftest import missing
from ..servers import fresh_module


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH with nothing in it."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def need_compiler() -> None:
    """Skip without one."""
    if build.compiler() is None:
        missing("there is no C compiler")


@pytest.mark.slow
def test_builds_without_a_warning(tmp_path: Path) -> None:
    """The sources compile, also pedantically and with every warning an error; only OnLoad is visible; nothing is left over."""
    need_compiler()
    out = build.build(
        tmp_path / "engine.so",
        flags=("-O0", "-Werror", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wstrict-prototypes"),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["engine.so"]
    assert b"RedisModule_OnLoad" in out.read_bytes()


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    """`python -m asim.engine.build -o FILE` prints the file that it made."""
    need_compiler()
    words = [sys.executable, "-m", "asim.engine.build", "-o", str(tmp_path / "x.so")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(tmp_path / "x.so")
    assert (tmp_path / "x.so").stat().st_size > 10_000


@pytest.mark.usefixtures("no_compiler")
def test_no_compiler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a compiler the error says what is missing and what to install."""
    assert build.compiler() is None
    with pytest.raises(
        build.BuildError, match=r"no cc, gcc or clang in PATH; install a C compiler \(Debian: apt install gcc"
    ):
        build.build(tmp_path / "engine.so")
    assert build.main(["-o", str(tmp_path / "engine.so")]) == 1
    assert "no cc, gcc or clang" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_chosen_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$CC is used, words and all; one that does not exist is an error, not silently replaced."""
    monkeypatch.setenv("CC", "/no/such/cc -m64")
    with pytest.raises(build.BuildError, match="'/no/such/cc -m64' is no program"):
        build.build(tmp_path / "engine.so")
    seen = tmp_path / "seen"
    fake = tmp_path / "my cc"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{seen}"\necho "this is wrong" >&2\nexit 3\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CC", f"'{fake}' -funny")
    with pytest.raises(build.BuildError, match=r"ended with 3:\nthis is wrong"):
        build.build(tmp_path / "engine.so")
    assert seen.read_text().startswith("-funny\n-std=c17\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my cc", "seen"]


def test_unwritable(tmp_path: Path) -> None:
    """A place that cannot be written is named."""
    need_compiler()
    with pytest.raises(build.BuildError, match=r"nowhere/engine.so could not be written"):
        build.build(tmp_path / "nowhere" / "engine.so")


def test_missing_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation without the compiled engine says so, and how to get it."""
    monkeypatch.setattr(installed, "__file__", str(tmp_path / "installed.py"))
    with pytest.raises(MissingFileError, match=r"no compiled engine.*-m asim\.engine\.build"):
        installed.require_module()
    (tmp_path / "asim_engine.so").touch()
    assert installed.require_module() == str(tmp_path / "asim_engine.so")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "module")
    with pytest.raises(build.BuildError, match="lacks the engine's sources"):
        build.build()


def test_too_old_a_server(tmp_path: Path) -> None:
    """A server whose interface lacks something is told which function, and does not crash."""
    need_compiler()
    module, program = fresh_module(), tmp_path / "host"
    source = tmp_path / "host.c"
    source.write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\n"
        "static int get(const char *name, void **function) { (void)name; *function = 0; return 1; }\n"
        "int main(int argc, char **argv) { void *ctx[1] = {(void *)get}; (void)argc;\n"
        "int (*load)(void *, void **, int) = (int (*)(void *, void **, int))dlsym(dlopen(argv[1], RTLD_NOW),"
        ' "RedisModule_OnLoad");\nreturn load ? load(ctx, 0, 0) : 9; }\n'
    )
    subprocess.run([*str(build.compiler()).split(), "-o", program, source, "-ldl"], check=True, timeout=60)
    done = subprocess.run(
        [program, module], capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )
    assert (done.returncode, "lacks SetModuleAttribs" in done.stderr) == (1, True), done.stderr
