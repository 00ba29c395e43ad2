"""Looking up programs, attached files and directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asim.plan import Needs
from asim.runtime.survey import find_program, look, look_at


def program(path: Path, mode: int = 0o755) -> Path:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


# -- programs


def test_word_in_the_search_path(tmp_path: Path) -> None:
    """A word is looked for in the search path, first come first served, and never in the current directory."""
    first, second = program(tmp_path / "a/prog"), program(tmp_path / "b/prog")
    search = f"{first.parent}:{second.parent}"
    assert find_program("prog", str(tmp_path), search) == str(first)
    assert find_program("prog", str(first.parent), str(tmp_path)) is None
    assert find_program("prog", str(first.parent), "") is None


def test_paths(tmp_path: Path) -> None:
    """A path is looked at where it leads from the driver's directory, and given back absolute and short."""
    made = program(tmp_path / "bin/prog")
    for word in ("bin/prog", "./bin/prog", "bin/../bin/prog", str(made)):
        assert find_program(word, str(tmp_path), "/nowhere") == str(made)
    assert find_program("prog", str(tmp_path), "/nowhere") is None


def test_what_is_no_program(tmp_path: Path) -> None:
    """A directory, a file that is not executable and a path where nothing is are none."""
    program(tmp_path / "plain", 0o644)
    (tmp_path / "folder").mkdir()
    for word in ("plain", "folder", "nothing"):
        assert find_program(f"./{word}", str(tmp_path), str(tmp_path)) is None
        assert find_program(word, str(tmp_path), str(tmp_path)) is None


def test_linked_program(tmp_path: Path) -> None:
    """A link to a program is the program under its own name: some programs look at how they are called."""
    program(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert find_program("link", "/", str(tmp_path)) == str(tmp_path / "link")


# -- attached files


def test_a_file(tmp_path: Path) -> None:
    """A file has its mode, and its contents if they were asked for."""
    path = tmp_path / "f"
    path.write_bytes(b"\xff\0")
    path.chmod(0o640)
    for read, data in ((False, None), (True, b"\xff\0")):
        source = look_at(str(path), read)
        assert source is not None
        assert (source.path, source.kind, source.mode, source.data) == (str(path), "file", 0o640, data)
        assert (source.real, source.entries) == ("", {})


def test_a_directory(tmp_path: Path) -> None:
    """A directory has everything below it by relative paths, parents before what is in them, in order."""
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "b").write_bytes(b"B")
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "sub/c").write_bytes(b"C")
    (tmp_path / "sub-x").write_bytes(b"X")
    source = look_at(str(tmp_path), True)
    assert source is not None
    assert source.kind == "dir"
    assert [(name, entry.kind, entry.data) for name, entry in source.entries.items()] == [
        ("a", "file", b"A"),
        ("b", "file", b"B"),
        ("sub", "dir", None),
        ("sub/c", "file", b"C"),
        ("sub/deep", "dir", None),
        ("sub-x", "file", b"X"),
    ]
    assert source.entries["sub/c"].path == str(tmp_path / "sub/c")
    unread = look_at(str(tmp_path), False)
    assert unread is not None
    assert {entry.data for entry in unread.entries.values()} == {None}


def test_links_inside_a_directory(tmp_path: Path) -> None:
    """Links inside a directory are links, never followed: not to files, not to directories, not in circles."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_bytes(b"F")
    for name, target in (("file", "../f"), ("dir", ".."), ("self", "self"), ("gone", "nowhere")):
        (tmp_path / "d" / name).symlink_to(target)
    source = look_at(str(tmp_path / "d"), True)
    assert source is not None
    assert {(entry.kind, entry.data) for entry in source.entries.values()} == {("link", None)}
    assert len(source.entries) == 4


def test_links_that_the_user_gave(tmp_path: Path) -> None:
    """A link that was given is followed, and where it leads is told."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"F")
    (tmp_path / "to_f").symlink_to("d/f")
    (tmp_path / "to_d").symlink_to("d")
    one, other = look_at(str(tmp_path / "to_f"), True), look_at(str(tmp_path / "to_d"), True)
    assert one is not None
    assert (one.kind, one.path, one.real, one.data) == ("file", str(tmp_path / "to_f"), str(tmp_path / "d/f"), b"F")
    assert other is not None
    assert (other.kind, other.real, list(other.entries)) == ("dir", str(tmp_path / "d"), ["f"])


def test_nothing_there(tmp_path: Path) -> None:
    """A path where nothing is, a link that leads nowhere or in circles, and a path through a file are nothing."""
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "f").touch()
    for name in ("nothing", "gone", "self", "f/x"):
        assert look_at(str(tmp_path / name), True) is None


@pytest.mark.parametrize("read", [True, False])
def test_a_pipe(tmp_path: Path, read: bool) -> None:
    """A pipe is something else, and never opened: that would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    source, around = look_at(str(tmp_path / "pipe"), read), look_at(str(tmp_path), read)
    assert source is not None
    assert (source.kind, source.data) == ("other", None)
    assert around is not None
    assert around.entries["pipe"].kind == "other"


# -- all at once


def test_look(tmp_path: Path) -> None:
    """What is there of what is needed; what is not there is absent; a dangling link takes a place, too."""
    prog = program(tmp_path / "prog")
    (tmp_path / "link").symlink_to("nowhere")
    wanted = Needs(
        programs=frozenset({"prog", "no-such"}),
        sources={str(tmp_path / "prog"): True, str(tmp_path / "none"): False},
        targets=frozenset(str(tmp_path / name) for name in ("prog", "link", "free")),
    )
    facts = look(wanted, "/", str(tmp_path))
    assert facts.programs == {"prog": str(prog)}
    assert list(facts.sources) == [str(prog)]
    assert facts.sources[str(prog)].data == b"#!/bin/sh\n"
    assert facts.taken == {str(prog), str(tmp_path / "link")}
