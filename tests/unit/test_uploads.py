"""Which database gets which ML object, under which keys, by which commands; what is refused before anything is done."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asim.database.address import Address
from asim.database.objects import (
    Content,
    Copy,
    Upload,
    check_objects,
    claim,
    copies,
    differences,
    pairs,
    upload_of,
)
from asim.database.targets import Targets, wanted_objects
from asim.entities import Ensemble, Function, MLModel, Model, Script
from asim.entities.mlobjects import MLObject
from asim.errors import ConfigError, ConfigTypeError, EntityExistsError, MissingFileError
from asim.generate import Layouts
from asim.plan import Context, LaunchPlan
from asim.preview import as_dict, as_text
from asim.runtime.contents import contents_of, digest_of, source_of, stamp_of
from asim.runtime.preload import Claims

from .makers import CONTEXT, ensemble, model
from .makers import planned as started

TEXT = "def negate(x):\n\treturn torch.neg(x)\n"


def timestwo(x: Any) -> Any:
    """The function of the seed documents."""
    return 2 * x


def memory(data: bytes = b"graph") -> Content:
    """Something in memory."""
    return Content(data=data, size=len(data), digest=hashlib.sha256(data).hexdigest())


def upload(thing: MLObject | None = None, owner: str = "m", content: Content | None = None) -> Upload:
    """An upload; of a script if nothing else is said."""
    thing = thing or Script(name="s", source=TEXT)
    return upload_of(thing, owner, content or memory())


def onnx(name: str = "n", **fields: Any) -> MLModel:
    """A model."""
    return MLModel(**{"name": name, "backend": "ONNX", "source": b"graph"} | fields)


def running(*names: str, **uploaded: dict[str, Upload]) -> Context:
    """A context in which these databases run."""
    databases = [Address(identifier=name, hosts=("h:1",)) for name in names]
    return replace(CONTEXT, databases=databases, uploaded=uploaded)


def planned(*entities: Model | Ensemble, context: Context | None = None, starting: Sequence[str] = ()) -> LaunchPlan:
    """What is uploaded for these."""
    context = context or running("orc")
    plan = LaunchPlan(context=context, layouts=Layouts({}, "/w", ";", False))
    found = [
        (one, None) for entity in entities for one in (entity.models if isinstance(entity, Ensemble) else [entity])
    ]
    targets = Targets(plan, starting, contents_of(wanted_objects(found), "/w"))
    for one, _ in found:
        targets.add(one)
    return plan


def names(plan: LaunchPlan) -> dict[str, list[str]]:
    """The objects for each database."""
    return {database: [one.name for one in found] for database, found in plan.uploads.items()}


# -- one object


def test_words_of_a_model() -> None:
    """The command has its options in their fixed order; zeros and empty ones are left out."""
    thing = MLModel(
        name="n", backend="tf", source=b"graph", batch_size=8, min_batch_size=2, min_batch_timeout=5, tag="v1",
        inputs=("x",), outputs=("y", "z"),
    )  # fmt: skip
    assert upload(thing).words(b"{t}.n", "CPU") == (
        "AI.MODELSTORE", b"{t}.n", "TF", "CPU", "TAG", "v1", "BATCHSIZE", 8, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 5,
        "INPUTS", 1, "x", "OUTPUTS", 2, "y", "z", "BLOB",
    )  # fmt: skip
    assert upload(onnx()).words("n", "CPU") == ("AI.MODELSTORE", "n", "ONNX", "CPU", "BLOB")
    assert upload().words("s", "GPU:1") == ("AI.SCRIPTSET", "s", "GPU:1", "SOURCE")


@pytest.mark.parametrize(
    "thing", [onnx(device="GPU", devices_per_node=2), Script(name="n", source=TEXT, device="gpu", devices_per_node=2)]
)
def test_copies_on_several_gpus(thing: MLObject) -> None:
    """Every GPU has a key of its own beside the plain name, on a machine without any, too; in a cluster on each shard."""
    found = [(copy.key, copy.device) for copy in copies(upload(thing))]
    assert found == [(b"n.GPU:0", "GPU:0"), (b"n.GPU:1", "GPU:1"), (b"n", "GPU")]
    tagged = [copy.key for copy in copies(upload(thing), (b"\x00\x00", b"8M"))]
    assert tagged == [
        b"{\x00\x00}.n.GPU:0",
        b"{8M}.n.GPU:0",
        b"{\x00\x00}.n.GPU:1",
        b"{8M}.n.GPU:1",
        b"{\x00\x00}.n",
        b"{8M}.n",
    ]


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (MLModel(name="n", backend="TF", source=b"g", outputs=("y",)), r"n: inputs = \(\): a TF model needs"),
        (MLModel(name="n", backend="TF", source=b"g", inputs=("y",)), r"n: outputs = \(\): a TF model needs"),
        (onnx(inputs=("x",)), r"n: inputs = \('x',\): must be left out for ONNX"),
    ],
)
def test_names_of_tensors(thing: MLModel, text: str) -> None:
    """TF needs the names of inputs and outputs, the other backends must not get any."""
    with pytest.raises(ConfigError, match=text):
        upload(thing)


def test_equal_uploads() -> None:
    """The same text is the same object, whoever wants it, and whether it comes from a callable or a script."""
    script = upload(Script(name="s", source=TEXT), "a")
    assert script == upload(Function(name="s", source=TEXT), "b")
    assert script != upload(Script(name="s", source=TEXT), content=memory(b"other"))
    assert script != upload(Script(name="s", source=TEXT, device="CPU:1"))
    assert upload(onnx()) != upload(onnx(tag="v2"))
    assert "graph" not in repr(script)


def test_claims() -> None:
    """A key belongs to one object: the same one again is nothing new, another one is refused, naming both."""
    taken: dict[str, Upload] = {}
    gpus = upload(onnx(device="GPU", devices_per_node=2), "a")
    assert claim(taken, gpus, "orc") is True
    assert claim(taken, upload(onnx(device="GPU", devices_per_node=2), "b"), "orc") is False
    assert sorted(taken) == ["n", "n.GPU:0", "n.GPU:1"]
    text = (
        r"b: ML object = 'n.GPU:1': its key 'n.GPU:1' on database orc belongs to a different object, the ONNX model 'n' of a "
        r"\(on GPU, from memory\); this is the script 'n.GPU:1' of b \(on CPU, from memory\)"
    )
    with pytest.raises(EntityExistsError, match=text):
        claim(taken, upload(Script(name="n.GPU:1", source=TEXT), "b"), "orc")


def versions() -> list[Upload]:
    """Three different objects for one key."""
    return [upload(content=memory(data)) for data in (b"first", b"second", b"third")]


def test_a_failed_replacement_is_undone() -> None:
    """The object that was to be replaced has its key again, also when there were several; a new key is free again."""
    first, second, third = versions()
    claims = Claims()
    claims.keep(claims.take([first], "orc", False))
    with pytest.raises(EntityExistsError, match="belongs to a different object"):
        claims.take([second], "orc", False)
    marks = [claims.take([one, upload(onnx())], "orc", True) for one in (second, third)]
    assert claims.current == {"s": third, "n": upload(onnx())}
    claims.give_back(marks[0])
    assert claims.current == {"s": third, "n": upload(onnx())}
    claims.give_back(marks[1])
    assert claims.current == {"s": first}


@pytest.mark.parametrize("failed", [0, 1])
@pytest.mark.parametrize("other_first", [True, False])
def test_one_of_two_uploads_fails(failed: int, other_first: bool) -> None:
    """Of two calls with the same object, whichever fails and whichever ends first, the other one's claim holds."""
    claims = Claims()
    marks = [claims.take([upload()], "orc", False) for _ in range(2)]
    ends = [lambda: claims.keep(marks[1 - failed]), lambda: claims.give_back(marks[failed])]
    for end in ends if other_first else reversed(ends):
        end()
        assert claims.current == {"s": upload()}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_replacements_at_the_same_time(order: tuple[int, int]) -> None:
    """The later one counts if both succeed, whichever ends first; what it replaced does not come back."""
    first, *others = versions()
    claims = Claims()
    claims.keep(claims.take([first], "orc", False))
    marks = [claims.take([one], "orc", True) for one in others]
    for number in order:
        claims.keep(marks[number])
        assert claims.current == {"s": others[1]}
    claims.give_back(claims.take([first], "orc", True))
    assert claims.current == {"s": others[1]}


def test_only_ml_objects() -> None:
    """Anything else is refused."""
    check_objects([onnx(), Script(name="s", source=TEXT), Function(name="f", source=timestwo)])
    with pytest.raises(ConfigTypeError, match="objects = 5: must be of type MLModel, Script, Function"):
        check_objects([onnx(), 5])


# -- what a server says


def said(**other: Any) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
    """AI.INFO and AI.MODELGET META of a model."""
    info = [b"key", b"n", b"type", b"MODEL", b"backend", b"TF", b"device", b"CPU", b"tag", b"v1", b"duration", 5]
    meta = [
        b"backend", b"TF", b"device", b"CPU", b"tag", b"v1", b"batchsize", 8, b"minbatchsize", 0,
        b"inputs", [b"x"], b"outputs", [b"y"], b"minbatchtimeout", 0,
    ]  # fmt: skip
    changed = {name.encode(): value for name, value in other.items()}
    both = pairs(info), pairs(meta)
    for part in both:
        part.update({name: value for name, value in changed.items() if name in part})
    return both


def a_copy() -> Copy:
    """Of a model with all that a server can tell."""
    thing = MLModel(name="n", backend="TF", source=b"g", batch_size=8, tag="v1", inputs=("x",), outputs=("y",))
    return copies(upload(thing))[0]


def test_nothing_differs() -> None:
    """What a server says of a model that is as it should be, and of a script."""
    assert differences(a_copy(), *said()) == []
    script = pairs([b"type", b"SCRIPT", b"device", b"CPU"])
    assert differences(copies(upload())[0], script, {}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", b"GPU"),
        ("backend", b"ONNX"),
        ("tag", b""),
        ("batchsize", 4),
        ("minbatchtimeout", 1),
        ("inputs", [b"z"]),
        ("outputs", []),
    ],
)
def test_differences(name: str, value: object) -> None:
    """Each option that is otherwise is told."""
    (words,) = differences(a_copy(), *said(**{name: value}))
    assert words.startswith(f"{name} is ")


def test_another_kind_differs() -> None:
    """A script where a model should be."""
    info = pairs([b"type", b"SCRIPT", b"device", b"CPU"])
    assert "type is 'SCRIPT', not 'MODEL'" in differences(a_copy(), info, {})


# -- which database


def test_all_databases_that_a_model_uses() -> None:
    """Without a name: those that run and those that are started with it, each once, for all members of an ensemble."""
    group, one = ensemble(replicas=50), model()
    group.add_script("s", TEXT)
    one.add_script("s", TEXT)
    one.add_script("t", TEXT)
    plan = planned(group, one, context=running("a"), starting=["b"])
    assert names(plan) == {"a": ["s", "t"], "b": ["s", "t"]}


def test_chosen_databases() -> None:
    """With names: these. One key may then stand for different objects in different databases."""
    one = model()
    one.add_script("s", TEXT, db_identifier="a")
    one.add_script("s", TEXT + "#", db_identifier="b")
    one.add_script("t", TEXT, db_identifier=["b", "a"])
    assert names(planned(one, context=running("a", "b"))) == {"a": ["s", "t"], "b": ["s", "t"]}
    for again in (None, "a", ["c", "a"]):
        with pytest.raises(EntityExistsError, match="its key 's' is taken by a different object"):
            one.add_script("s", TEXT + "##", db_identifier=again)
    assert [thing.name for thing in one.ml_objects] == ["s", "s", "t"]


@pytest.mark.parametrize(("value", "error"), [(5, ConfigTypeError), ([5], ConfigTypeError), ([], ConfigError)])
def test_bad_names_of_databases(value: Any, error: type[Exception]) -> None:
    """A name, a list of names, or nothing."""
    with pytest.raises(error, match="s: db_identifier = "):
        model().add_script("s", TEXT, db_identifier=value)


def test_unknown_database() -> None:
    """The error has those that are known, the colocated one among them."""
    one = model()
    one.add_script("s", TEXT, db_identifier="c")
    with pytest.raises(
        ConfigError, match="m: s: db_identifier = 'c': must be one of the databases that it uses: 'a', 'b'$"
    ):
        planned(one, context=running("b", "a"))
    one.colocate_db_tcp(db_identifier="own")
    with pytest.raises(ConfigError, match="that it uses: 'own'$"):
        planned(one, context=running())


def test_no_database() -> None:
    """An object that nothing could hold is an error, not silence."""
    one = model()
    one.add_script("s", TEXT)
    with pytest.raises(ConfigError, match="m: ML object = 's': no database is running or started with it"):
        planned(one, context=running())


def test_conflicts_between_models_and_starts() -> None:
    """Different objects under one key: of two models, or of a model and an earlier start; another database is no matter."""
    first, second = model("first"), model("second")
    first.add_object(onnx("x"))
    second.add_script("x", TEXT)
    with pytest.raises(EntityExistsError, match="second: ML object = 'x'.*ONNX model 'x' of first"):
        planned(first, second)
    earlier = {"x": upload(onnx("x"), "first", memory())}
    with pytest.raises(EntityExistsError, match="second: ML object = 'x'.*ONNX model 'x' of first"):
        planned(second, context=running("orc", orc=earlier))
    assert names(planned(second, context=running("orc", other=earlier))) == {"orc": ["x"]}
    assert names(planned(first, context=running("orc", orc=earlier))) == {"orc": ["x"]}


def test_colocated() -> None:
    """Objects go to the model's own database; what is in memory becomes a file that is named by its contents."""
    one = model()
    one.colocate_db_tcp(db_identifier="own")
    one.add_object(onnx())
    one.add_script("s", TEXT, db_identifier=["own", "orc"])
    one.add_script("t", TEXT, db_identifier="orc")
    plan = planned(one)
    assert names(plan) == {"orc": ["s", "t"]}
    assert [upload.name for upload in plan.beside["m"]] == ["n", "s"]
    digests = [hashlib.sha256(data).hexdigest() for data in (b"graph", TEXT.encode())]
    assert list(plan.spills) == [f"/w/exp/.asim/{digest}.blob" for digest in digests]


def test_colocated_configuration() -> None:
    """The file for a model's ranks has the commands, and where the bytes are."""
    one = model()
    one.colocate_db_tcp()
    one.add_object(onnx(device="GPU", devices_per_node=1))
    plan = started(one)
    (text,) = plan.files.values()
    (found,) = json.loads(text)["objects"]
    digest = hashlib.sha256(b"graph").hexdigest()
    assert (found["path"], found["digest"]) == (f"/w/exp/.asim/{digest}.blob", digest)
    assert found["commands"] == [
        ["AI.MODELSTORE", "n.GPU:0", "ONNX", "GPU:0", "BLOB"],
        ["AI.MODELSTORE", "n", "ONNX", "GPU", "BLOB"],
    ]
    assert found["prepare"] == [["ONNX", "GPU"], ["ONNX", "GPU:0"]]
    shown = as_text(plan, "info", "plain_text")
    assert "    model     n (ONNX, 5 bytes from memory), as n.GPU:0 on GPU:0, n on GPU\n" in shown


def test_preview() -> None:
    """A preview has every upload, with its keys."""
    one = model()
    one.add_object(onnx())
    one.add_function("f", timestwo)
    plan = planned(one)
    shown = as_text(plan, "info", "plain_text")
    size = len(source_of("f", timestwo))
    assert (
        "Uploads to database orc\n"
        "  model     n (ONNX, 5 bytes from memory), as n on CPU\n"
        f"  function  f (TORCH, {size} bytes from memory), as f on CPU\n"
    ) in shown
    (group,) = as_dict(plan)["uploads"]
    assert (group["database"], group["objects"][0]["keys"]) == ("orc", {"n": "CPU"})
    json.dumps(as_dict(plan))


# -- contents


def content(thing: MLObject, cwd: Path, digest: bool = False) -> Content:
    """What one object holds."""
    return contents_of([(thing, digest)], str(cwd))[id(thing)]


def test_contents_in_memory(tmp_path: Path) -> None:
    """Bytes, text and the source of a callable; their digest only if somebody wants it."""
    made = content(onnx(), tmp_path, digest=True)
    assert (made.data, made.size, made.digest) == (b"graph", 5, hashlib.sha256(b"graph").hexdigest())
    assert content(Script(name="s", source="ü"), tmp_path) == Content(data="ü".encode(), size=2)
    function = content(Function(name="f", source=timestwo), tmp_path)
    assert function.data is not None and function.data.startswith(b"def timestwo(x: Any)")
    assert digest_of(function) == hashlib.sha256(function.data).hexdigest()


def test_contents_of_files(tmp_path: Path) -> None:
    """A path counts from the current directory; the file is only looked at, until its digest is wanted."""
    (tmp_path / "m.onnx").write_bytes(b"graph")
    made = content(onnx(source=Path("m.onnx")), tmp_path, digest=True)
    assert (made.path, made.size, made.digest, made.data) == (str(tmp_path / "m.onnx"), 5, "", None)
    assert digest_of(made) == hashlib.sha256(b"graph").hexdigest()
    before = stamp_of(made)
    (tmp_path / "m.onnx").write_bytes(b"other graph")
    assert stamp_of(made) != before


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("none", MissingFileError, "no such file"),
        ("file/none", MissingFileError, "no such file"),
        (".", ConfigError, "must be a file"),
        ("empty", ConfigError, "is empty"),
        ("x" * 300, ConfigError, "cannot be read: File name too long"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, name: str, error: type[Exception], text: str) -> None:
    """A file that is not there, is none, or has nothing in it is told with the field and the path."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").touch()
    for thing, field in (
        (onnx(source=Path(name)), "n: model_path"),
        (Script(name="n", source=Path(name)), "n: script_path"),
    ):
        with pytest.raises(error, match=f"^{field} = '{tmp_path}.*': {text}"):
            upload(thing, content=content(thing, tmp_path))


def decorated(function: Any) -> Any:
    """Changes nothing."""
    return function


@decorated
def with_decorator(x: Any) -> Any:
    """A function that is not only its text."""
    return x


def with_closure() -> Callable[..., Any]:
    """A function that needs another one's variable."""
    factor = 3

    def inner(x: Any) -> Any:
        return factor * x

    return inner


def indented() -> Callable[..., Any]:
    """A function that is defined inside another one, and needs nothing of it."""

    def inner(x: Any) -> Any:
        return x

    return inner


class Callme:
    """A callable that is no function."""

    def __call__(self, x: Any) -> Any:
        return x

    def method(self, x: Any) -> Any:
        return x


def test_source_of_an_inner_function() -> None:
    """It loses what it is indented by."""
    assert source_of("f", indented()) == "def inner(x: Any) -> Any:\n    return x\n"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: x, "a lambda has no name"),
        (max, "must be a function made by def, not builtin_function_or_method"),
        (functools.partial(timestwo, 1), "not partial"),
        (Callme(), "not Callme"),
        (Callme().method, "not method"),
        (Callme, "not type"),
        (with_decorator, r"must have no decorators \(@decorated\)"),
        (with_closure(), r"uses variables of the function around it \(factor\)"),
        (eval("exec('def f(x): return x', d := {}) or d['f']"), "its source cannot be found in a file"),
    ],
)
def test_functions_without_a_text_of_their_own(function: Callable[..., Any], text: str) -> None:
    """What cannot be uploaded as text is refused, with the reason."""
    with pytest.raises(ConfigTypeError, match=rf"^f: function = .*: .*{text}"):
        source_of("f: function", function)
