"""The tag engine."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asim.errors import ConfigError, ConfigTypeError, TemplateError
from asim.templates import Template, Unused, compile_template, decode, encode

DELIMITERS = (";", "$", "|", "@", "@@", "<<", ".", "\\", "(", "^*", "[x]", "%", " ")
delimiters = st.sampled_from(DELIMITERS)
# What a value may hold that could upset a scanner: delimiters, names, group references, line ends.
values = st.one_of(st.text(), st.sampled_from([r"C:\new\1", ";x;", "$x$", "@@x@@", r"\g<0>", "x = ;1;", "\r\n"]))
plain = st.text(st.characters(exclude_characters=";\r\n", exclude_categories=["Cs"]), max_size=20)


def configured(text: str, tag: str = ";", /, **params: str) -> str:
    """The text rendered with ``params``."""
    return compile_template(text, params, tag).render(params)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("THERMO = ;THERMO;", "THERMO = 20"),
        ("a=;THERMO; b=;y; c=;THERMO;", "a=20 b=Y c=20"),
        (";THERMO;;y;", "20Y"),
        (";THERMO;y;", "20y;"),
        (";;THERMO;;", ";20;"),
        ("name=;time step;", "name=0.5"),
        (";THERMO", ";THERMO"),
        ("", ""),
    ],
)
def test_named_tag_becomes_the_value(text: str, expected: str) -> None:
    """A name between two delimiters is replaced, leftmost first, each delimiter used once."""
    assert configured(text, THERMO="20", y="Y", **{"time step": "0.5"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("THERMO = ;10;\n", "THERMO = 20\n"),
        ("THERMO=;10;", "THERMO=20"),
        ("THERMO: ;10;", "THERMO: 20"),
        ("THERMO:;10;", "THERMO:20"),
        ("THERMO\t ;1.5e-3; K", "THERMO\t 20 K"),
        ("--THERMO ;10;", "--THERMO 20"),
        ("(THERMO = ;'a/b';)", "(THERMO = 20)"),
        ("; THERMO = ;10;", "; THERMO = 20"),
        ("x\r\nTHERMO = ;10;\r\n", "x\r\nTHERMO = 20\r\n"),
        ("x\rTHERMO = ;10;\r", "x\rTHERMO = 20\r"),
        (";y;\nTHERMO = ;10;", "Y\nTHERMO = 20"),
        (";y; THERMO = ;10;", "Y THERMO = 20"),
        ("time step = ;10;", "time step = 0.5"),
        ("a step = ;10;", "a step = S"),
    ],
)
def test_default_after_its_name_becomes_the_value(text: str, expected: str) -> None:
    """A default is replaced when the text before it on the line ends in a parameter's name; the longest name wins."""
    params = {"THERMO": "20", "y": "Y", "time step": "0.5", "step": "S"}
    template = compile_template(text, params)
    assert template.render(params) == expected
    assert not template.unused


@pytest.mark.parametrize(
    "before",
    [
        "THERMO",
        "THERMO =\n",
        "THERMO =\r",
        "THERMO\n= ",
        "THERMO \n \t",
        "xTHERMO = ",
        "my_THERMO = ",
        "max-THERMO = ",
        "grid.THERMO = ",
        "THERMO == ",
        "THERMO = 1 ",
        "therm = ",
        "é" + "THERMO = ",
        "",
    ],
)
def test_default_without_its_name_stays(before: str) -> None:
    """Only a whole name, on the line of the tag and directly before it, gives a default its value."""
    template = compile_template(f"{before};10;", {"THERMO"})
    assert template.render({}) == f"{before}10"
    assert [unused.text for unused in template.unused] == ["10"]


@pytest.mark.parametrize("between", ["", "_", "-", "."])
def test_name_glued_to_a_tag_is_part_of_a_longer_one(between: str) -> None:
    """``;prefix;_dt = ;10;`` writes another name than ``dt``, so the value of ``dt`` is not for it."""
    template = compile_template(f";prefix;{between}dt = ;10;", {"prefix", "dt"})
    assert template.render({"prefix": "ocean", "dt": "1"}) == f"ocean{between}dt = 10"


def test_unused_tags_are_listed_with_their_lines() -> None:
    """Every tag that fell back is recorded once, in order, with the line it is on, whatever ends the lines."""
    template = compile_template("a=;1; b=;x;\r\n\rc=;-2.5e3;\n;v/w:%;;q;", {"x"})
    assert template.unused == (Unused("1", 1), Unused("-2.5e3", 3), Unused("v/w:%", 4), Unused("q", 4))
    assert template.render({"x": "X"}) == "a=1 b=X\r\n\rc=-2.5e3\nv/w:%q"


@pytest.mark.parametrize(
    "text",
    [
        "for(i=0;i<n;i++) { x[i] = 0; }",
        "for (;;) break;",
        "x=1; y=2; z=3",
        "x=1;y=2;z=3",
        "[section] ; a comment\nkey = value ; another; and more",
        ";a b;",
        ";a\nb;",
        ";a\rb;",
        ";f(x);",
        "int n;\nint m;\n",
        ";\udcff;",
    ],
)
def test_code_and_comments_are_left_alone(text: str) -> None:
    """Text between delimiters that looks like no value stays, delimiters included."""
    template = compile_template(text, {"n", "x", "a"})
    assert template == Template((text,), frozenset(), ())
    assert template.render({}) == text


def test_rejected_tag_may_open_the_next_one() -> None:
    """The delimiter that closes something that is no tag opens the tag after it."""
    assert configured("a; b c;x; d;", x="X") == "a; b cX d;"


def test_names_with_line_breaks_are_in_no_tag() -> None:
    """A tag is on one line even when a parameter's name is not."""
    text = ";a\nb; ;a\rb; ;c;"
    template = compile_template(text, {"a\nb", "a\rb", "c"})
    assert template.render({"c": "C"}) == ";a\nb; ;a\rb; C"


def test_parts_alternate_and_names_are_those_in_use() -> None:
    """Literals and names alternate; parameters without a tag are not among the names."""
    template = compile_template(";x;;y; ;x;", {"x", "y", "z"})
    assert template.parts == ("", "x", "", "y", " ", "x", "")
    assert template.names == {"x", "y"}
    with pytest.raises(KeyError, match="y"):
        template.render({"x": "1"})


@pytest.mark.parametrize("tag", ["", "\n", ";\r", "a\nb"])
def test_impossible_delimiters_are_refused(tag: str) -> None:
    """An empty delimiter, or one with a line break, is an error that names ``tag``."""
    with pytest.raises(ConfigError, match=r"^tag = " + re.escape(repr(tag))):
        compile_template("x", {"x"}, tag)


def test_delimiter_must_be_text() -> None:
    """A delimiter of another type is a ``TypeError``."""
    with pytest.raises(ConfigTypeError, match="tag = 5"):
        compile_template("x", {"x"}, 5)  # type: ignore[arg-type]


def test_binary_files_are_refused() -> None:
    """A NUL byte makes a file binary; the error names the file."""
    with pytest.raises(TemplateError, match=r"input\.nc.*binary"):
        decode(b"CDF\0", "input.nc")


def test_values_that_utf8_cannot_write_are_refused() -> None:
    """Half a surrogate pair from a value is a ``TemplateError``, not a raw Unicode error."""
    with pytest.raises(TemplateError, match="UTF-8"):
        encode("x = \ud800")


@pytest.mark.parametrize(
    "text", [";" * 300_000, ";a" * 150_000, "; " * 150_000, "x;;y" * 75_000, ";" + "a" * 300_000, " ;1" * 100_000]
)
def test_long_lines_take_linear_time(text: str) -> None:
    """A line of 300 kB with nothing but delimiters and near misses is scanned in seconds, not hours."""
    start = time.perf_counter()
    compile_template(text, {"x", "THERMO"})
    assert time.perf_counter() - start < 3


@given(st.binary().filter(lambda data: b"\0" not in data))
def test_bytes_survive(data: bytes) -> None:
    """Whatever bytes a file has, reading and writing it gives them back."""
    assert encode(decode(data, "file")) == data


@given(st.binary(max_size=20), st.binary(max_size=20), delimiters)
def test_bytes_around_a_tag_survive(left: bytes, right: bytes, tag: str) -> None:
    """Bytes that are not UTF-8 are unchanged by a replacement beside them."""
    mark = tag.encode()
    assume(b"\0" not in left + right and not set(tag) & set((left + right).decode("latin-1")))
    text = decode(left + mark + b"x" + mark + right, "file")
    assert encode(configured(text, tag, x="1")) == left + b"1" + right


@given(st.text(), delimiters)
def test_text_without_a_tag_is_unchanged(text: str, tag: str) -> None:
    """Fewer than two delimiters on every line: nothing changes."""
    text = "\n".join(line for line in re.split("[\r\n]", text) if line.count(tag) < 2)
    assert configured(text, tag, x="1", y="2") == text


@given(st.text(st.sampled_from("x1;=: \n\r"), max_size=40), values)
def test_scan_loses_nothing(text: str, value: str) -> None:
    """Rendering never adds or drops anything but tags: without delimiters, literals are the text without tags."""
    template = compile_template(text, {"x"})
    assert len(template.parts) % 2 == 1
    kept = "".join(template.parts[0::2]).replace(";", "").replace("x", "")
    rest = iter(text.replace(";", "").replace("x", ""))
    assert all(character in rest for character in kept)
    assert template.render({"x": value}) == value.join(template.parts[0::2])


@given(values, values, delimiters)
def test_values_are_never_scanned(one: str, two: str, tag: str) -> None:
    """Values come out exactly as they are, also when they hold delimiters, names or back-slashes."""
    assert configured(f"{tag}x{tag},{tag}y{tag}", tag, x=one, y=two) == f"{one},{two}"


@given(st.lists(st.sampled_from([";x;", ";y;", ";zz;", "y = ;7;", "plain", "a b"]), max_size=12))
def test_tags_are_independent(pieces: list[str]) -> None:
    """On one line, each tag gives what it gives alone, whatever the others are."""
    params = {"x": r"\1;y;", "y": "Y"}
    together = configured(" ! ".join(pieces), **params)
    assert together == " ! ".join(configured(piece, **params) for piece in pieces)


@given(plain.filter(lambda name: name not in ("", " ")), values)
def test_any_name_can_be_a_tag(name: str, value: str) -> None:
    """A parameter's name may have spaces and any characters but the delimiter and line breaks."""
    assert compile_template(f"[;{name};]", {name}).render({name: value}) == f"[{value}]"
