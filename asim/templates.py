"""Tagged input files: text in, text out.

A file is compiled once for a set of parameter names (:func:`compile_template`) and rendered once per member
(:meth:`Template.render`), so a thousand members cost a thousand joins and one scan. The scan is a single pass from left
to right: what a tag was replaced with is never looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from .errors import ConfigError, ConfigTypeError, TemplateError, allowed

# What may stand between two delimiters as a default. No blank, bracket, "=", "<" or ">": the statements of a program
# and the entries of an INI file contain one of these and so are no tags.
_DEFAULT = re.compile(r"""[\w.+\-/:,%*@~#^\\'"]+""")
# What makes the name after it the end of a longer one: `my_dt`, `max-dt`, `grid.dt`. NUL stands for a tag.
_JOINS = re.compile(r"[\w\0][-.]?\Z")
_BLANK = " \t"


@dataclass(frozen=True, slots=True)
class Unused:
    """A tag that named no parameter and fell back to its default.

    :ivar text: the default, without delimiters.
    :ivar line: the line that it is on, from 1.
    """

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Template:
    """A file's text, cut at the places where values go.

    :ivar parts: literals at even positions, names of parameters at odd ones; always an odd number of items.
    :ivar names: the parameters that it uses.
    :ivar unused: the tags that fell back to their defaults, in the order of the text.
    """

    parts: tuple[str, ...]
    names: frozenset[str]
    unused: tuple[Unused, ...]

    def render(self, values: Mapping[str, str]) -> str:
        """The text with every parameter replaced.

        :param values: the text of each parameter; more than :attr:`names` does no harm.
        :raises KeyError: when a parameter of :attr:`names` has no value.
        """
        parts = list(self.parts)
        parts[1::2] = [values[name] for name in self.parts[1::2]]
        return "".join(parts)


def compile_template(text: str, names: Collection[str], tag: str = ";") -> Template:
    """Find the tags of ``text``.

    A tag is the delimiter, a word, the delimiter, on one line. The name of a parameter becomes its value. Another word
    is a default: after ``NAME =``, ``NAME:`` or ``NAME`` and a blank, NAME being a whole word and a parameter, it is
    replaced by the value of NAME; else it stays, without its delimiters, and is listed in :attr:`Template.unused`.
    Anything else between two delimiters is left alone, and the second one may open a tag.

    :param text: the text of the file, with its own line ends.
    :param names: the parameters. A name with a line break in it is in no tag.
    :param tag: the delimiter, taken as it is.
    :raises ConfigError: when the delimiter is empty or has a line break in it.
    """
    _check_tag(tag)
    known = frozenset(name for name in names if "\n" not in name and "\r" not in name)
    lengths = sorted({len(name) for name in known}, reverse=True)
    parts: list[str] = []
    literal: list[str] = []
    unused: list[Unused] = []
    done = counted = 0
    line = 1
    for start, end, word in _tags(text, tag, known):
        before = text[done:start]
        literal.append(before)
        name = word if word in known else _assigned("\0" + before if done else before, known, lengths)
        if name is None:
            line += _line_ends(text, counted, start)
            counted = start
            unused.append(Unused(word, line))
            literal.append(word)
        else:
            parts += ["".join(literal), name]
            literal.clear()
        done = end
    literal.append(text[done:])
    parts.append("".join(literal))
    return Template(tuple(parts), frozenset(parts[1::2]), tuple(unused))


def decode(data: bytes, origin: str) -> str:
    """The text of a file. Bytes that are not UTF-8 are kept such that :func:`encode` gives them back.

    :param origin: the file, for the error.
    :raises TemplateError: when there are NUL bytes: the file is binary.
    """
    if b"\0" in data:
        raise TemplateError(f"{origin}: is binary (it has NUL bytes) and cannot be configured; copy or link it instead")
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of a text that came from :func:`decode`.

    :raises TemplateError: when a value brought in a character that UTF-8 does not have (half a surrogate pair).
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise TemplateError(f"a value has a character that UTF-8 cannot write: {error}") from error


def _check_tag(tag: object) -> None:
    if not isinstance(tag, str):
        raise ConfigTypeError(allowed("tag", tag, "must be a str"))
    if not tag or "\n" in tag or "\r" in tag:
        raise ConfigError(allowed("tag", tag, "must have at least one character and no line break"))


def _tags(text: str, tag: str, known: frozenset[str]) -> Iterator[tuple[int, int, str]]:
    """Where each tag starts and ends, delimiters included, and the word in it."""
    width = len(tag)
    start = text.find(tag)
    while start >= 0:
        stop = text.find(tag, start + width)
        if stop < 0:
            return
        word = text[start + width : stop]
        if word in known or _DEFAULT.fullmatch(word):
            yield start, stop + width, word
            start = text.find(tag, stop + width)
        else:
            start = stop


def _assigned(before: str, known: frozenset[str], lengths: list[int]) -> str | None:
    """The parameter that ``before`` ends in, as ``NAME =``, ``NAME:`` or ``NAME`` and a blank; the longest one.

    No name has a line break in it, so only the last line of ``before`` can count.

    :param lengths: the lengths that the names have, longest first.
    """
    left = before.rstrip(_BLANK)
    if left.endswith(("=", ":")):
        left = left[:-1].rstrip(_BLANK)
    elif left == before:
        return None
    for length in lengths:
        cut = len(left) - length
        if cut >= 0 and left[cut:] in known and not _JOINS.search(left[max(0, cut - 2) : cut]):
            return left[cut:]
    return None


def _line_ends(text: str, start: int, stop: int) -> int:
    """The number of line ends in ``text[start:stop]``."""
    return text.count("\n", start, stop) + text.count("\r", start, stop) - text.count("\r\n", start, stop)
