"""From entities and what was found of their files to file actions: pure, and the same for a near and a far host.

A *unit* is what appears at once: the directory of a model, or that of an ensemble with all its members' directories in
it. It is built beside its place under a temporary name and renamed; whoever looks sees all of it or nothing.
The actions are executed by the agent of the host where the jobs will run (:mod:`asim.agent.files`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from .agent.protocol import FileAction
from .entities import Ensemble, EntityFiles, Model
from .errors import ConfigError, MissingFileError, TemplateError, allowed
from .templates import Template, compile_template, decode
from .values import plain, render

Kind = Literal["file", "dir", "link", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is at a path that somebody attached.

    :ivar path: absolute.
    :ivar kind: a link is told apart only below a directory; a path that the user gave is followed.
    :ivar mode: permission bits.
    :ivar data: the contents, if they were asked for.
    :ivar real: where a path that is itself a symbolic link leads, else "".
    :ivar entries: for a directory, everything below it: relative path -> Source.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    data: bytes | None = None
    real: str = ""
    entries: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One directory to make, with the models that live in it (``""``: the directory itself)."""

    name: str
    target: str
    models: tuple[tuple[Model, str], ...]
    ensemble: Ensemble | None = None
    replaces: bool = False

    def beside(self, word: str, token: str) -> str:
        """A temporary name in the same directory, so that a rename does it."""
        parent, name = os.path.split(self.target)
        return f"{parent}/.{name}.asim-{word}-{token}"


@dataclass(slots=True)
class Layout:
    """What one set of attached files puts into a directory: the same for every member with the same parameter names."""

    fixed: list[tuple[str, str, str]] = field(default_factory=list)  # verb, relative path, source
    rendered: list[tuple[str, int, tuple[str, ...], int]] = field(default_factory=list)  # path, template, names, mode
    used: set[str] = field(default_factory=set)
    owners: dict[str, Source] = field(default_factory=dict)

    def claim(self, owner: str, path: str, source: Source) -> bool:
        """Reserve a path. False when it is a directory that is there already; two files at one path are refused."""
        other = self.owners.get(path)
        if other is None:
            self.owners[path] = source
            return True
        if other.kind == source.kind == "dir":
            return False
        what = f"{other.path} would be written to the same place ({path})"
        raise ConfigError(allowed(f"{owner}: attached file", source.path, what))


class Layouts:
    """The layouts of one ``generate``, each made once, with their templates and warnings."""

    def __init__(self, sources: Mapping[str, Source], base: str, tag: str, strict_tags: bool) -> None:
        self._sources, self._base, self._tag, self._strict = sources, base, tag, strict_tags
        self._made: dict[tuple[EntityFiles, frozenset[str]], Layout] = {}
        self._judged: set[tuple[int, tuple[str, ...]]] = set()
        self.templates: list[Template] = []
        self.origins: list[str] = []
        self.warnings: list[str] = []

    def of(self, model: Model) -> Layout:
        """The layout of ``model``'s directory.

        :raises MissingFileError: an attached file does not exist.
        :raises ConfigError: two attached files would be written to the same place.
        :raises TemplateError: a file to configure is binary, or (strict) has tags that name no parameter.
        """
        key = (model.files, frozenset(model.params))
        layout = self._made.get(key)
        if layout is None:
            layout = self._made[key] = self._make(model.name, *key)
        judged = (id(layout), model.params_as_args)
        if judged not in self._judged:
            self._judged.add(judged)
            unused = sorted(key[1] - layout.used - set(model.params_as_args))
            if unused:
                self._unused(f"{model.name}: no file and no argument uses the parameter(s) {', '.join(unused)}")
        return layout

    def _unused(self, text: str) -> None:
        if self._strict:
            raise TemplateError(text)
        self.warnings.append(text)

    def _make(self, owner: str, files: EntityFiles, names: frozenset[str]) -> Layout:
        layout = Layout()
        for path in files.copy:
            self._copy(layout, owner, self._source(owner, "to_copy", path))
        for path in files.symlink:
            source = self._source(owner, "to_symlink", path)
            layout.claim(owner, os.path.basename(source.path), replace(source, kind="link"))  # never merged into
            layout.fixed.append(("symlink", os.path.basename(source.path), source.path))
        for path in files.configure:
            self._configure(layout, owner, self._source(owner, "to_configure", path), names)
        return layout

    def _source(self, owner: str, field: str, path: str) -> Source:
        source = self._sources.get(os.path.normpath(os.path.join(self._base, path)))
        if source is None:
            raise MissingFileError(allowed(f"{owner}: {field}", path, "does not exist, or cannot be read"))
        if source.kind == "other":
            raise ConfigError(allowed(f"{owner}: {field}", path, "must be a file or a directory"))
        return source

    def _copy(self, layout: Layout, owner: str, source: Source) -> None:
        if source.kind != "dir":
            layout.claim(owner, os.path.basename(source.path), source)
            layout.fixed.append(("copy", os.path.basename(source.path), source.real or source.path))
            return
        for path, entry in source.entries.items():
            layout.claim(owner, path, entry)
            if "/" not in path:  # the agent copies what is below, and merges directories
                layout.fixed.append(("copy", path, entry.path))

    def _configure(self, layout: Layout, owner: str, source: Source, names: frozenset[str]) -> None:
        if source.kind == "dir" and source.real:
            raise ConfigError(allowed(f"{owner}: to_configure", source.path, "must not be a link to a directory"))
        entries = source.entries if source.kind == "dir" else {os.path.basename(source.path): source}
        for path, entry in entries.items():
            fresh = layout.claim(owner, path, entry)
            if entry.kind == "dir":
                if fresh:
                    layout.fixed.append(("mkdirs", path, ""))
            elif entry.kind == "file" and entry.data is not None:
                self._template(layout, owner, path, entry, entry.data, names)
            else:
                raise ConfigError(allowed(f"{owner}: to_configure", entry.path, "must be a regular file"))

    def _template(
        self, layout: Layout, owner: str, path: str, entry: Source, data: bytes, names: frozenset[str]
    ) -> None:
        template = compile_template(decode(data, entry.path), names, self._tag)
        if template.unused:
            where = ", ".join(f"{unused.text!r} (line {unused.line})" for unused in template.unused)
            self._unused(f"{owner}: {entry.path}: tags that name no parameter keep their text: {where}")
        layout.used |= template.names
        layout.rendered.append((path, len(self.templates), template.parts[1::2], entry.mode))
        self.templates.append(template)
        self.origins.append(entry.path)


def build(units: Iterable[Unit], layouts: Layouts, token: str) -> Iterator[FileAction]:
    """The actions that make every unit under its temporary name."""
    prepared = [(unit, [layouts.of(model) for model, _ in unit.models]) for unit in units]
    for number, template in enumerate(layouts.templates):
        yield ("template", layouts.origins[number], number, template.parts)
    for unit, its_layouts in prepared:
        root = unit.beside("new", token)
        yield ("mkdirs", os.path.dirname(unit.target))
        yield ("mkdir", root)
        for (model, place), layout in zip(unit.models, its_layouts, strict=True):
            directory = f"{root}/{place}" if place else root
            if place:
                yield ("mkdir", directory)
            yield from _fill(directory, model, layout)


def _fill(directory: str, model: Model, layout: Layout) -> Iterator[FileAction]:
    for verb, path, source in layout.fixed:
        yield (verb, f"{directory}/{path}", source) if source else (verb, f"{directory}/{path}")
    if layout.rendered:
        texts = {name: render(value) for name, value in model.params.items()}
        for path, number, names, mode in layout.rendered:
            yield ("render", f"{directory}/{path}", number, [texts[name] for name in names], mode)


def swap(units: Iterable[Unit], token: str) -> list[FileAction]:
    """The actions, one per unit, that put it in its place."""
    return [
        ("swap", unit.target, unit.beside("new", token), unit.beside("old", token) if unit.replaces else "")
        for unit in units
    ]


def discard(units: Iterable[Unit], token: str) -> list[FileAction]:
    """The actions that remove what :func:`swap` moved away."""
    return [("remove", unit.beside("old", token)) for unit in units if unit.replaces]


def undo(units: Iterable[Unit], token: str) -> list[FileAction]:
    """The actions that remove units which were not put in their places."""
    return [("remove", unit.beside("new", token)) for unit in units]


PARAMS_FILES = ("asim_params.json", "asim_params.txt")
SLICE = 256
"""Entities written between two chances for other work."""


def write_params(path: str, params: Mapping[str, Mapping[str, object]], token: str) -> Iterator[FileAction]:
    """The parameters of every entity, as JSON and as text to read, under temporary names in the experiment's directory."""
    for name, lines in zip(PARAMS_FILES, (_json_lines(params), _text_lines(params)), strict=True):
        temporary = f"{path}/.{name}.{token}"
        yield ("write", temporary, "")
        while text := "".join(islice(lines, SLICE)):
            yield ("append", temporary, text)


def place_params(path: str, token: str) -> Iterator[FileAction]:
    """Put the files of :func:`write_params` in their places."""
    for name in PARAMS_FILES:
        yield ("rename", f"{path}/{name}", f"{path}/.{name}.{token}")


def drop_params(path: str, token: str) -> list[FileAction]:
    """Remove what :func:`write_params` wrote."""
    return [("remove", f"{path}/.{name}.{token}") for name in PARAMS_FILES]


def _json_lines(params: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    encode = json.JSONEncoder().encode
    start = "{\n"
    for name, values in params.items():
        yield f"{start}{encode(name)}: {encode({key: plain(value) for key, value in values.items()})}"
        start = ",\n"
    yield "\n}\n" if params else "{}\n"


def _text_lines(params: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    width = max(map(len, params), default=0)
    for name, values in params.items():
        yield (
            f"{name:{width}}  {', '.join(f'{key} = {render(value)}' for key, value in values.items())}".rstrip() + "\n"
        )


def replaced(path: str, text: str, mode: int = 0o666) -> list[FileAction]:
    """A file that appears whole, and takes the place of an earlier one."""
    folder, name = os.path.split(path)
    fresh = f"{folder}/.{name.lstrip('.')}.asim-new"
    return [("mkdirs", folder), ("remove", fresh), ("write", fresh, text, mode), ("rename", path, fresh)]
