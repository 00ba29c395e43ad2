"""From attached files to file actions."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pytest

from asim import generate
from asim.agent.protocol import FileAction
from asim.entities import Model
from asim.errors import ConfigError, MissingFileError, TemplateError
from asim.generate import (
    PARAMS_FILES,
    Layouts,
    Source,
    Unit,
    build,
    discard,
    drop_params,
    place_params,
    swap,
    undo,
    write_params,
)

from .makers import ensemble, file, folder, found, model, unit

T = "tok"
NEW = "/w/exp/.m.asim-new-tok"


def layouts(*sources: Source, tag: str = ";", strict: bool = False) -> Layouts:
    """Layouts with these sources, the driver being in /w."""
    return Layouts(found(*sources), "/w", tag, strict)


def attached(name: str = "m", params: Any = None, args: Collection[str] = (), **files: Any) -> Model:
    """A model with attached files."""
    one = model(name, params, params_as_args=list(args) or None)
    one.attach_generator_files(**{f"to_{kind}": paths for kind, paths in files.items()})
    return one


def built(one: Model, *sources: Source) -> list[FileAction]:
    """The actions that make one model's directory, without the two that make the directory itself."""
    actions = list(build([unit(one)], layouts(*sources), T))
    assert [action for action in actions if action[:2] in (("mkdirs", "/w/exp"), ("mkdir", NEW))] == [
        ("mkdirs", "/w/exp"),
        ("mkdir", NEW),
    ]
    return [action for action in actions if action[1] not in ("/w/exp", NEW)]


# -- copy and symlink


def test_copy_a_file() -> None:
    """A file is copied under its own name; a relative path is as seen from the driver."""
    assert built(attached(copy=["in.txt", "/data/x"]), file("/w/in.txt"), file("/data/x")) == [
        ("copy", f"{NEW}/in.txt", "/w/in.txt"),
        ("copy", f"{NEW}/x", "/data/x"),
    ]


def test_copy_a_link() -> None:
    """Of a link that the user gave, what it leads to is copied, under the link's name."""
    assert built(attached(copy="link"), file("/w/link", real="/data/real")) == [("copy", f"{NEW}/link", "/data/real")]


def test_copy_a_directory() -> None:
    """Of a directory the contents are copied, one action for each thing at its top."""
    source = folder("/w/d", {"a": b"", "sub": None, "sub/b": b"", "sub/deep": None})
    assert built(attached(copy="d/"), source) == [("copy", f"{NEW}/a", "/w/d/a"), ("copy", f"{NEW}/sub", "/w/d/sub")]


def test_copy_an_empty_directory() -> None:
    """An empty directory has no contents."""
    assert built(attached(copy="d"), folder("/w/d")) == []


def test_directories_are_merged() -> None:
    """Directories of one name from several sources become one, as long as no file is in both."""
    one = attached(copy=["d", "e"], configure="f")
    sources = (
        folder("/w/d", {"sub": None, "sub/a": b""}),
        folder("/w/e", {"sub": None, "sub/b": b""}),
        folder("/w/f", {"sub": None, "sub/c": b"", "own": None}),
    )
    template, *rest = built(one, *sources)
    assert template == ("template", "/w/f/sub/c", 0, ("",))
    assert rest == [
        ("copy", f"{NEW}/sub", "/w/d/sub"),
        ("copy", f"{NEW}/sub", "/w/e/sub"),
        ("mkdirs", f"{NEW}/own"),
        ("render", f"{NEW}/sub/c", 0, [], 0o644),
    ]


def test_symlink() -> None:
    """Files and directories are linked under their names, to the absolute path."""
    assert built(attached(symlink=["a", "d/"]), file("/w/a"), folder("/w/d", {"x": b""})) == [
        ("symlink", f"{NEW}/a", "/w/a"),
        ("symlink", f"{NEW}/d", "/w/d"),
    ]


# -- configure


def test_configure_a_file() -> None:
    """A tagged file becomes a template, sent once, and a rendering with the values of the model and the file's mode."""
    one = attached(params={"THERMO": 20, "x": [1, 2]}, configure="in.t")
    source = file("/w/in.t", b"a = ;THERMO;\nb = ;x;;x;\n", mode=0o755)
    assert built(one, source) == [
        ("template", "/w/in.t", 0, ("a = ", "THERMO", "\nb = ", "x", "", "x", "\n")),
        ("render", f"{NEW}/in.t", 0, ["20", "1 2", "1 2"], 0o755),
    ]


def test_configure_a_directory() -> None:
    """Of a directory every file is configured at its place, its directories made first."""
    source = folder("/w/d", {"sub": None, "sub/in": b";a;", "top": b"-"})
    assert built(attached(params={"a": 1}, configure="d"), source) == [
        ("template", "/w/d/sub/in", 0, ("", "a", "")),
        ("template", "/w/d/top", 1, ("-",)),
        ("mkdirs", f"{NEW}/sub"),
        ("render", f"{NEW}/sub/in", 0, ["1"], 0o644),
        ("render", f"{NEW}/top", 1, [], 0o644),
    ]


def test_another_delimiter() -> None:
    """The delimiter is the caller's."""
    made = layouts(file("/w/f", b"@a@ ;a;"), tag="@")
    actions = list(build([unit(attached(params={"a": 1}, configure="f"))], made, T))
    assert actions[0] == ("template", "/w/f", 0, ("", "a", " ;a;"))


def test_bytes_survive() -> None:
    """Bytes that are not UTF-8 are in the template as surrogates, which stand for them."""
    actions = built(attached(params={"a": 1}, configure="f"), file("/w/f", b"\xff;a;\xfe"))
    assert actions[0] == ("template", "/w/f", 0, ("\udcff", "a", "\udcfe"))


def test_binary() -> None:
    """A binary file cannot be configured; the error names it."""
    with pytest.raises(TemplateError, match="/w/f: is binary"):
        built(attached(configure="f"), file("/w/f", b"a\0b"))


def test_links_cannot_be_configured() -> None:
    """Neither a link to a directory nor a link inside one."""
    with pytest.raises(ConfigError, match="m: to_configure = '/w/d': must not be a link to a directory"):
        built(attached(configure="d"), folder("/w/d", {"a": b""}, real="/elsewhere"))
    inside = Source(path="/w/d", kind="dir", entries={"l": Source(path="/w/d/l", kind="link")})
    with pytest.raises(ConfigError, match="m: to_configure = '/w/d/l': must be a regular file"):
        built(attached(configure="d"), inside)


# -- what cannot be


@pytest.mark.parametrize("kind", ["copy", "symlink", "configure"])
def test_missing_file(kind: str) -> None:
    """A path at which nothing is: the error has the model, the argument and the path as it was given."""
    with pytest.raises(MissingFileError, match=f"m: to_{kind} = 'no/such': does not exist, or cannot be read"):
        built(attached(**{kind: "no/such"}))


@pytest.mark.parametrize("kind", ["copy", "symlink", "configure"])
def test_neither_file_nor_directory(kind: str) -> None:
    """A device or a pipe is refused."""
    with pytest.raises(ConfigError, match=f"m: to_{kind} = 'pipe': must be a file or a directory"):
        built(attached(**{kind: "pipe"}), Source(path="/w/pipe", kind="other"))


@pytest.mark.parametrize(
    ("files", "pair"),
    [
        ({"copy": ["a/x", "b/x"]}, ("/w/b/x", "/w/a/x")),
        ({"copy": ["a/x"], "symlink": ["b/x"]}, ("/w/b/x", "/w/a/x")),
        ({"copy": ["b/x"], "configure": ["a/x"]}, ("/w/a/x", "/w/b/x")),
        ({"symlink": ["a/x"], "configure": ["b/x"]}, ("/w/b/x", "/w/a/x")),
        ({"copy": ["a", "b"]}, ("/w/b/x", "/w/a/x")),
        ({"configure": ["a", "b/x"]}, ("/w/b/x", "/w/a/x")),
        ({"copy": ["d"], "symlink": ["e/sub"]}, ("/w/e/sub", "/w/d/sub")),
        ({"symlink": ["e/sub", "d/sub"]}, ("/w/d/sub", "/w/e/sub")),
    ],
)
def test_conflicts(files: dict[str, list[str]], pair: tuple[str, str]) -> None:
    """Two sources for one place are an error that names both, whatever is done with them."""
    sources = (
        *(folder(f"/w/{name}", {"x": b""}) for name in "ab"),
        *(file(f"/w/{name}/x", b"") for name in "ab"),
        folder("/w/d", {"sub": None}),
        folder("/w/d/sub"),
        folder("/w/e/sub"),
    )
    with pytest.raises(ConfigError) as caught:
        built(attached(**files), *sources)
    assert str(caught.value).startswith(f"m: attached file = '{pair[0]}': {pair[1]} would be written to the same place")


def test_nothing_is_written_through_a_link() -> None:
    """A linked directory is the user's own: files that would be put below it by another source are refused."""
    one = attached(symlink="e/sub", configure="d")
    with pytest.raises(ConfigError, match="would be written to the same place"):
        built(one, folder("/w/e/sub"), folder("/w/d", {"sub": None, "sub/f": b""}))


@pytest.mark.parametrize(
    "files",
    [
        {"copy": ["f", "f"]},
        {"copy": ["f", "./f"]},
        {"symlink": ["f", "f"]},
        {"configure": ["f", "f"]},
        {"copy": "f", "symlink": "f"},
        {"copy": "f", "configure": "f"},
        {"symlink": "f", "configure": "f"},
        {"copy": ["d", "d"]},
        {"configure": ["d", "d"]},
    ],
)
def test_same_source_twice(files: dict[str, Any]) -> None:
    """One file attached twice is refused, or written once; never written twice, which would fail on the host."""
    try:
        actions = built(attached(**files), file("/w/f", b""), folder("/w/d", {"g": b""}))
    except ConfigError:
        return
    written = [action[1] for action in actions if action[0] in ("copy", "symlink", "render")]
    assert written in ([f"{NEW}/f"], [f"{NEW}/g"])


# -- sharing and warnings


def test_templates_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand members with the same files and parameter names cost one compilation and one template."""
    compiled: list[tuple[str, Collection[str], str]] = []

    def compile_once(text: str, names: Collection[str], tag: str) -> Any:
        compiled.append((text, names, tag))
        return real(text, names, tag)

    real = generate.compile_template
    monkeypatch.setattr(generate, "compile_template", compile_once)
    group = ensemble(replicas=1, params={"a": range(1000)})
    group.attach_generator_files(to_configure="f")
    made = layouts(file("/w/f", b"a = ;a;"))
    actions = list(build([unit(*group, name="e", target="/w/exp/e", ensemble=group)], made, T))
    assert compiled == [("a = ;a;", frozenset({"a"}), ";")]
    assert [action[0] for action in actions].count("template") == 1
    renders = [action for action in actions if action[0] == "render"]
    assert [action[3] for action in renders] == [[str(number)] for number in range(1000)]
    assert len({action[1] for action in renders}) == 1000


def test_layouts_by_parameter_names() -> None:
    """The same file is compiled anew for other parameter names, and each model is rendered with its own template."""
    first, second = attached("x", {"a": 1}, configure="f"), attached("y", {"b": 2}, configure="f")
    made = layouts(file("/w/f", b";a; ;b;"))
    assert made.of(first) is not made.of(second)
    actions = list(
        build([unit(first, name="x", target="/w/exp/x"), unit(second, name="y", target="/w/exp/y")], made, T)
    )
    assert [action[3] for action in actions if action[0] == "template"] == [("", "a", " b"), ("a ", "b", "")]
    assert [action[2:4] for action in actions if action[0] == "render"] == [(0, ["1"]), (1, ["2"])]


def test_unused_tags_warn_once_per_file() -> None:
    """Tags that name no parameter are one warning per file, with their texts and lines, however many members."""
    group = ensemble(replicas=3, params={"a": 1})
    group.attach_generator_files(to_configure=["f"])
    made = layouts(file("/w/f", b";a;\nx = ;10;\ny = ;z;\n"))
    assert len({id(made.of(one)) for one in group}) == 1
    assert made.warnings == ["e_0: /w/f: tags that name no parameter keep their text: '10' (line 2), 'z' (line 3)"]


def test_unused_parameters_warn_once() -> None:
    """Parameters that are in no file and no argument are one warning, in the order of their names."""
    group = ensemble(replicas=3, params={"c": 1, "a": 1, "b": 1, "d": 1}, params_as_args=["d"])
    group.attach_generator_files(to_configure=["f"])
    made = layouts(file("/w/f", b";b;"))
    for one in group:
        made.of(one)
    assert made.warnings == ["e_0: no file and no argument uses the parameter(s) a, c"]


@pytest.mark.parametrize("order", [0, 1])
def test_unused_parameters_of_models_with_other_arguments(order: int) -> None:
    """Whether a parameter is used is asked for every set of arguments, in whatever order the models come."""
    pair = [attached("uses", {"a": 1}, args=["a"]), attached("forgets", {"a": 1})]
    made = layouts()
    for one in pair[::-1] if order else pair:
        made.of(one)
    assert made.warnings == ["forgets: no file and no argument uses the parameter(s) a"]


def test_nothing_to_warn_about() -> None:
    """Defaults in the text's place of a parameter, and used parameters, are fine, also when strict."""
    made = layouts(file("/w/f", b"a = ;10;"), strict=True)
    made.of(attached(params={"a": 1}, configure="f"))
    made.of(attached())
    assert made.warnings == []


def test_strict() -> None:
    """Strict: what is else a warning is an error."""
    with pytest.raises(TemplateError, match=r"m: /w/f: tags that name no parameter keep their text: '10' \(line 1\)"):
        layouts(file("/w/f", b";10;"), strict=True).of(attached(configure="f"))
    with pytest.raises(TemplateError, match=r"m: no file and no argument uses the parameter\(s\) a"):
        layouts(strict=True).of(attached(params={"a": 1}))


# -- the life of a unit


def test_temporary_names() -> None:
    """A temporary name is hidden, beside the target, and has the run's token."""
    assert unit(model()).beside("new", T) == NEW
    assert unit(model(), target="/x/e/m").beside("old", T) == "/x/e/.m.asim-old-tok"


def test_build_of_an_ensemble() -> None:
    """An ensemble is made whole: its directory, and in it one for each member."""
    group = ensemble()
    made = list(build([unit(*group, name="e", target="/w/exp/e", ensemble=group)], layouts(), T))
    root = "/w/exp/.e.asim-new-tok"
    assert made == [("mkdirs", "/w/exp"), ("mkdir", root), ("mkdir", f"{root}/e_0"), ("mkdir", f"{root}/e_1")]


def test_build_writes_only_under_temporary_names() -> None:
    """Nothing is made where somebody could take it for done."""
    one = attached(params={"a": 1}, copy="c", symlink="s", configure="d")
    actions = built(one, file("/w/c"), file("/w/s"), folder("/w/d", {"x": None, "x/f": b";a;"}))
    assert {action[0] for action in actions} == {"template", "copy", "symlink", "mkdirs", "render"}
    assert all(action[1].startswith(f"{NEW}/") for action in actions if action[0] != "template")


def test_templates_come_first() -> None:
    """A template is sent before the first rendering of it, also when a later unit brings it."""
    models = [attached(name, {"a": 1}, configure=path) for name, path in (("x", "f"), ("y", "g"))]
    units = [unit(one, name=one.name, target=f"/w/exp/{one.name}") for one in models]
    verbs = [action[0] for action in build(units, layouts(file("/w/f", b"1"), file("/w/g", b"2")), T)]
    assert verbs[:2] == ["template", "template"]
    assert verbs.count("render") == 2


def units() -> tuple[Unit, Unit]:
    """A unit for a new directory, and one that replaces another."""
    return unit(model()), unit(model("n"), name="n", target="/w/exp/n", replaces=True)


def test_swap() -> None:
    """One action per unit puts it in its place, and moves away what it replaces."""
    assert swap(units(), T) == [
        ("swap", "/w/exp/m", NEW, ""),
        ("swap", "/w/exp/n", "/w/exp/.n.asim-new-tok", "/w/exp/.n.asim-old-tok"),
    ]


def test_discard() -> None:
    """Only what was moved away is removed."""
    assert discard(units(), T) == [("remove", "/w/exp/.n.asim-old-tok")]


def test_undo() -> None:
    """What is half made is removed; nothing else is touched."""
    assert undo(units(), T) == [("remove", NEW), ("remove", "/w/exp/.n.asim-new-tok")]


# -- parameter files


def written(params: dict[str, dict[str, object]]) -> dict[str, str]:
    """The texts of the parameter files, each written under a temporary name beside its place."""
    texts: dict[str, str] = {}
    for verb, path, text in write_params("/w/exp", params, T):
        name = path.removeprefix("/w/exp/.").removesuffix(".tok")
        assert path == f"/w/exp/.{name}.tok"
        assert (verb == "write") == (name not in texts)
        texts[name] = texts.get(name, "") + text
    assert tuple(texts) == PARAMS_FILES == ("asim_params.json", "asim_params.txt")
    return texts


def test_json_of_parameters() -> None:
    """The JSON file has every entity with its values as numbers and lists, one entity on a line."""
    params: dict[str, dict[str, object]] = {
        "m": {"a": np.int64(3), "b": [1, 2.5], "c": "é\n", "d": True},
        "x": {},
        'q"': {"z": 1j},
    }
    text = written(params)["asim_params.json"]
    assert json.loads(text) == {"m": {"a": 3, "b": [1, 2.5], "c": "é\n", "d": True}, "x": {}, 'q"': {"z": "1j"}}
    assert len(text.splitlines()) == 5


def test_no_parameters() -> None:
    """Without entities the files are there, and can be read."""
    texts = written({})
    assert json.loads(texts["asim_params.json"]) == {}
    assert texts["asim_params.txt"] == ""


def test_text_of_parameters() -> None:
    """The text to read has a line for each entity, the parameters below each other where names are equally long."""
    text = written({"m": {"a": 1, "b": [1, 2]}, "long": {}, "n": {"b": "y"}})["asim_params.txt"]
    assert text == "m     a = 1, b = 1 2\nlong\nn     b = y\n"


def test_parameters_of_many() -> None:
    """The parameters of many entities are written a slice at a time, and are whole."""
    many: dict[str, dict[str, object]] = {f"m{number}": {"a": number} for number in range(2 * generate.SLICE + 1)}
    actions = list(write_params("/w/exp", many, T))
    assert [action[0] for action in actions].count("append") >= 6
    assert json.loads(written(many)["asim_params.json"]) == many
    assert len(written(many)["asim_params.txt"].splitlines()) == len(many)


def test_places_of_parameters() -> None:
    """Written files are put in their places by a rename each, or removed."""
    temporary = [("/w/exp/.asim_params.json.tok"), ("/w/exp/.asim_params.txt.tok")]
    assert {action[1] for action in write_params("/w/exp", {}, T)} == set(temporary)
    assert list(place_params("/w/exp", T)) == [
        ("rename", "/w/exp/asim_params.json", temporary[0]),
        ("rename", "/w/exp/asim_params.txt", temporary[1]),
    ]
    assert drop_params("/w/exp", T) == [("remove", path) for path in temporary]


def test_actions_are_plain() -> None:
    """Every action can go into a frame: JSON knows all of its parts."""
    one = attached(params={"a": np.float64(1.5)}, copy="c", configure="f")
    actions: Iterable[FileAction] = built(one, file("/w/c"), file("/w/f", b";a;\xff"))
    assert json.loads(json.dumps(list(actions)))[-1] == ["render", f"{NEW}/f", 0, ["1.5"], 0o644]
