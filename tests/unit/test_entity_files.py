"""Attached files, as the user gave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from asim.entities.files import NO_FILES, EntityFiles
from asim.errors import ConfigError, ConfigTypeError


def test_forms_of_paths() -> None:
    """None, one text, one path, and a list of both become tuples of text."""
    files = EntityFiles.of("m", None, "a", ["b", Path("c/d")])
    assert files == EntityFiles(symlink=("a",), configure=("b", "c/d"))
    assert EntityFiles.of("m", Path("/x"), (), None).copy == ("/x",)


def test_truth() -> None:
    """Files are true when there are any, of whichever kind."""
    assert not NO_FILES
    assert not EntityFiles.of("m", [], None, ())
    for kind in ("copy", "symlink", "configure"):
        assert EntityFiles(**{kind: ("x",)})


def test_equal_files_are_one_key() -> None:
    """Equal attachments are equal and hash alike, so that members share what is made of them."""
    assert len({EntityFiles.of("a", "x", None, ["y"]), EntityFiles.of("b", ["x"], None, "y")}) == 1


@pytest.mark.parametrize("value", [1, {"x": 1}.keys(), {"a"}, b"x", [1], ["a", None], [["a"]]])
def test_other_types(value: object) -> None:
    """What is neither a path nor a list of paths is a type error that names owner and argument."""
    with pytest.raises(ConfigTypeError, match="m: to_copy = "):
        EntityFiles.of("m", value, None, None)  # type: ignore[arg-type]


class BytesPath:
    """A path of bytes."""

    def __fspath__(self) -> bytes:
        return b"x"


@pytest.mark.parametrize("value", ["", [""], "a\0b", BytesPath()])
def test_impossible_paths(value: object) -> None:
    """A path is text, not empty, and without NUL."""
    with pytest.raises(ConfigError, match="m: to_symlink = .*: (must be a non-empty text path|must not contain a NUL)"):
        EntityFiles.of("m", None, value, None)  # type: ignore[arg-type]


def test_path_without_bytes() -> None:
    """A path with a surrogate that stands for no byte is refused here, not by the file system later."""
    with pytest.raises(ConfigError, match="m: to_copy"):
        EntityFiles.of("m", "\ud800", None, None)


@pytest.mark.parametrize(
    "path", ["asim_params.json", "d/asim_params.txt", "/x/smartsim_params.txt/", ["a", "./asim_params.json"]]
)
def test_reserved_names(path: str | list[str]) -> None:
    """The files that asim (or SmartSim) writes itself cannot be attached."""
    with pytest.raises(ConfigError, match="m: to_configure = .*are written by asim itself"):
        EntityFiles.of("m", None, None, path)


def test_table() -> None:
    """The table has a row for each kind that has files, and a line for each file."""
    table = EntityFiles.of("m", ["a", "b"], None, "c").table()
    assert table.splitlines()[1].split("|")[1:3] == [" Strategy  ", " Files "]
    assert [line.split("|")[1].strip() for line in table.splitlines()[3::1] if "|" in line] == ["Copy", "", "Configure"]
    assert "Symlink" not in table


def test_empty_table() -> None:
    """Without files the table is a sentence."""
    assert NO_FILES.table() == "No file attached to this entity."
