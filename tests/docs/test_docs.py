"""The documentation is true: its examples run, its links lead somewhere, and nothing public is missing.

Conventions of the pages:

- ``python`` blocks are run. The blocks of one page are one session, as the cells of a notebook: they run in order, in
  one directory, with one namespace and one event loop; ``await`` may stand at the top level.
- ``py`` blocks are fragments, or need what a test machine has not: they are compiled only.
- A ``title`` that is a file name: the block is first written to that file in the directory of the page.
- A ``text`` block with ``title="Output"`` is what the ``python`` block before it prints; ``...`` stands for anything.
"""

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import asim
from asim import errors, settings
from asim.database.server_program import find_server
from asim.settings.select import RUN_COMMANDS
from tests.conftest import missing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(page for page in (ROOT / "README.md",) if page.exists())]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<lang>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
CHECK = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """One fenced block."""

    lang: str
    title: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    source = page.read_text()
    for match in FENCE.finditer(source):
        title = re.search(r'title="([^"]*)"', match["options"])
        text = "".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True))
        yield Block(match["lang"], title[1] if title else "", text, source.count("\n", 0, match.start()) + 1)


def name(page: Path) -> str:
    """A page's name in the report."""
    return str(page.relative_to(ROOT))


def compiled(block: Block, page: Path) -> object:
    """A block's code, placed so that errors tell the line of the page."""
    source = "\n" * block.line + block.text
    return compile(source, name(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def run(code: object, namespace: dict[str, object], runner: asyncio.Runner) -> str:
    """Run one block; what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if code.co_flags & inspect.CO_COROUTINE:

            async def cell() -> None:
                await eval(code, namespace)

            runner.run(cell())
        else:
            exec(code, namespace)
    return printed.getvalue()


def run_page(page: Path, namespace: dict[str, object], runner: asyncio.Runner) -> None:
    """Run the blocks of one page, and compare what they print."""
    printed = ""
    for block in blocks(page):
        if "." in block.title and "/" not in block.title:
            Path(block.title).write_text(block.text)
        if block.lang == "python":
            printed = run(compiled(block, page), namespace, runner)
        elif block.title == "Output":
            good = CHECK.check_output(block.text, printed, FLAGS)
            difference = CHECK.output_difference(doctest.Example("", block.text), printed, FLAGS)
            assert good, f"{name(page)}:{block.line}\n{difference}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.lang == "python" for block in blocks(page))], ids=name
)
def test_examples_run(page, home):
    """Every python block of a page runs, and prints what the page says."""
    if re.search(r"create_database|colocate_db", page.read_text()) and not find_server(dict(os.environ)):
        missing("there is no redis-server")
    for package in ("onnx", "onnxruntime", "torch"):
        if page.name in ("ml-models.md", "inference.md") and find_spec(package) is None:
            missing(f"{package} is not installed")
    namespace: dict[str, object] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        try:
            run_page(page, namespace, runner)
        finally:
            for left in [item for item in namespace.values() if isinstance(item, asim.Experiment)]:
                runner.run(left.aclose())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fragments_compile(page):
    """Fragments are at least Python."""
    for block in blocks(page):
        if block.lang == "py":
            compiled(block, page)


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower())


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    """A link to another page, and to a heading on it, leads there; no page is loaded from this machine's disk."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name(page)}: {target}"
        assert other.is_relative_to(ROOT), f"{name(page)}: {target} leads out of the repository"
        if anchor and other.suffix == ".md":
            headings = map(slug, re.findall(r"^#+ (.*)$", prose(other), re.MULTILINE))
            names = re.findall(r"^::: ([\w.]+)$", other.read_text(), re.MULTILINE)
            assert anchor in {*headings, *names}, f"{name(page)}: {target}"


def test_every_page_is_in_the_navigation():
    """No page is written and then forgotten."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    paths = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [path for path in paths if path not in navigation] == []


def reference() -> str:
    """All pages of the reference."""
    return "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))


@pytest.mark.parametrize("public", sorted(asim.__all__))
def test_every_public_name_is_in_the_reference(public):
    """Each name that `asim` exports is described."""
    assert re.search(rf"\b{public}\b", reference())


def test_every_error_has_a_heading():
    """Each public error class has its own heading on the page of errors."""
    headings = re.findall(r"^## `(\w+)`$", (DOCS / "reference/errors.md").read_text(), re.MULTILINE)
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.AsimError)]
    assert sorted(headings) == sorted(item.__name__ for item in classes)


def test_every_environment_variable_is_documented():
    """Whatever `ASIM_…` the code knows has a line on the page of environment variables."""
    sources = [path.read_text() for path in (ROOT / "asim").rglob("*.py")]
    known = {found for text in sources for found in re.findall(r"\bASIM_[A-Z]\w*", text)}
    page = (DOCS / "reference/environment.md").read_text()
    assert known and [variable for variable in sorted(known) if f"`{variable}`" not in page] == []


def test_every_setter_is_in_the_table():
    """The settings page has each setter with the flag that each class gives it."""
    page = (DOCS / "reference/settings.md").read_text()
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip()[1:-1].split("|")]
        if cells[0].startswith("set_") and len(cells) == 6:
            rows[cells[0]] = cells[1:]
    kinds = [settings.SrunSettings, settings.AprunSettings, settings.MpirunSettings, settings.PalsMpiexecSettings]
    for column, kind in enumerate([*kinds, settings.JsrunSettings]):
        told = {setter: cells[column] for setter, cells in rows.items() if cells[column]}
        real = dict(kind.FLAGS.items())
        if kind.SHARED_MEMORY[0]:
            real["set_memory_per_node"] = kind.SHARED_MEMORY[0]
        assert told == real, kind.__name__
    assert all(f"`{word}`" in page for word in RUN_COMMANDS)
