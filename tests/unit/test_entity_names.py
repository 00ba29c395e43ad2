"""Names and texts that the operating system can take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.entities.names import LONGEST, check_name, check_text
from asim.errors import ConfigError, ConfigTypeError

anything = st.text(st.characters(exclude_categories=[]), max_size=6)


@pytest.mark.parametrize("name", ["m", "m_0", "a b", "é", "-x", "a.b", "x" * LONGEST, "é" * (LONGEST // 2), "\udcff"])
def test_good_names(name: str) -> None:
    """Anything that a file may be called is given back as it is, up to 200 bytes, also a byte that is not UTF-8."""
    assert check_name("name", name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "/", ".", "..", ".hidden", "a\nb", "\x7f", "\x1b", "x" * (LONGEST + 1), "é" * (LONGEST // 2 + 1)],
)
def test_bad_names(name: str) -> None:
    """Empty, too long in bytes, with a slash or a control character, or with a leading dot: refused with the rules."""
    with pytest.raises(ConfigError, match="Model: name = .*: must be 1 to 200 bytes, without '/'"):
        check_name("Model: name", name)


@pytest.mark.parametrize("name", [None, 1, b"m", ["m"]])
def test_names_of_another_type(name: object) -> None:
    """A name is text."""
    with pytest.raises(ConfigTypeError, match="name = .*: must be a str"):
        check_name("name", name)


@given(anything)
def test_names_are_file_names(name: str) -> None:
    """A name that is accepted is one plain component of a path; any other is a ConfigError, never another error."""
    try:
        check_name("name", name)
    except ConfigError:
        return
    encoded = name.encode("utf-8", "surrogateescape")
    assert 0 < len(encoded) <= LONGEST
    assert not set(encoded) & {0, ord("/")}
    assert name not in (".", "..")


@pytest.mark.parametrize("text", ["", "a\nb", "\udc80", "/x y/é"])
def test_good_texts(text: str) -> None:
    """Text that has bytes is given back."""
    assert check_text("path", text) == text


@pytest.mark.parametrize(("text", "what"), [("a\0b", "NUL"), ("\ud800", "surrogate that stands for no byte")])
def test_bad_texts(text: str, what: str) -> None:
    """NUL, and a surrogate that stands for no byte, are refused, in names too."""
    with pytest.raises(ConfigError, match=what):
        check_text("path", text)
    with pytest.raises(ConfigError, match=what):
        check_name("name", text)
