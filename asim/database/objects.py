"""ML objects as a database gets them: keys, command words, and the checks of one object. Pure; nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..entities.mlobjects import Function, MLModel, MLObject, Script
from ..errors import ConfigError, ConfigTypeError, EntityExistsError, allowed

STATE, DIGEST = b"state", b"digest"
"""Fields of ``AI.INFO`` that only asim's engine has."""
Word = str | int | bytes
_KINDS: dict[type, str] = {MLModel: "model", Script: "script", Function: "function"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an ML object holds, once it was looked at.

    :ivar data: its bytes, if it is in memory.
    :ivar path: its file, absolute; "": it is in memory.
    :ivar size: bytes.
    :ivar digest: SHA-256 in hexadecimal digits; "": nobody has computed it yet.
    :ivar problem: why it cannot be had.
    """

    data: bytes | None = field(default=None, repr=False)
    path: str = ""
    size: int = field(default=0, compare=False)
    digest: str = field(default="", compare=False)
    problem: ConfigError | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One object for one database: equal to another if it is the same object, whoever wants it.

    :ivar owner: the name of the entity that wants it.
    :ivar keys: (key, device) pairs; every key gets a copy of its own.
    :ivar backend: TORCH, ONNX, TF or TFLITE.
    :ivar options: of AI.MODELSTORE, between the device and the bytes.
    """

    name: str
    kind: str = field(compare=False)
    owner: str = field(compare=False)
    keys: tuple[tuple[str, str], ...]
    backend: str
    script: bool
    options: tuple[Word, ...] = ()
    content: Content

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return self.content.path or "memory"

    def __str__(self) -> str:
        what = self.kind if self.script else f"{self.backend} model"
        return f"{what} {self.name!r} of {self.owner} (on {self.keys[-1][1]}, from {self.source})"

    def words(self, key: Word, device: str) -> tuple[Word, ...]:
        """The command that stores it, without the bytes themselves, which are its last argument.

        (Several are allowed; but then the server, while nobody else is served, must put them together.)
        """
        if self.script:
            return ("AI.SCRIPTSET", key, device, "SOURCE")
        return ("AI.MODELSTORE", key, self.backend, device, *self.options, "BLOB")


def upload_of(thing: MLObject, owner: str, content: Content) -> Upload:
    """An object as an upload.

    :param owner: the name of the entity that wants it.
    :raises ConfigError: it could never be stored.
    """
    if content.problem is not None:
        raise content.problem
    backend, options = "TORCH", tuple[Word, ...]()
    if isinstance(thing, MLModel):
        _check_names(thing)
        backend, options = thing.backend, tuple(_options(thing))
    return Upload(
        name=thing.name,
        kind=_KINDS[type(thing)],
        owner=owner,
        keys=thing.keys,
        backend=backend,
        script=not isinstance(thing, MLModel),
        options=options,
        content=content,
    )


def check_objects(things: Iterable[object]) -> None:
    """Refuse what is no ML object.

    :raises ConfigTypeError: saying what it is.
    """
    for thing in things:
        if not isinstance(thing, (MLModel, Script, Function)):
            raise ConfigTypeError(allowed("objects", thing, "must be of type MLModel, Script, Function"))


def _check_names(model: MLModel) -> None:
    for name, value in (("inputs", model.inputs), ("outputs", model.outputs)):
        if model.backend == "TF" and not value:
            raise ConfigError(allowed(f"{model.name}: {name}", value, "a TF model needs the names of these tensors"))
        if model.backend != "TF" and value:
            what = f"must be left out for {model.backend}: only TF models are told the names of their tensors"
            raise ConfigError(allowed(f"{model.name}: {name}", value, what))


def _options(model: MLModel) -> Iterator[Word]:
    """In the fixed order of the command; what is 0 or empty is left out."""
    single: dict[str, Word] = {
        "TAG": model.tag,
        "BATCHSIZE": model.batch_size,
        "MINBATCHSIZE": model.min_batch_size,
        "MINBATCHTIMEOUT": model.min_batch_timeout,
    }
    for word, value in single.items():
        if value:
            yield word
            yield value
    for word, names in (("INPUTS", model.inputs), ("OUTPUTS", model.outputs)):
        if names:
            yield word
            yield len(names)
            yield from names


def claim(taken: dict[str, Upload], upload: Upload, database: str) -> bool:
    """Take the keys of an upload on one database; False if this very object has them already.

    :param taken: key -> what has it; changed.
    :raises EntityExistsError: a different object has one of them.
    """
    others = [taken.get(key) for key, _ in upload.keys]
    if all(other == upload for other in others):
        return False
    for (key, _), other in zip(upload.keys, others, strict=True):
        if other is not None and other != upload:
            what = f"its key {key!r} on database {database} belongs to a different object, the {other}"
            raise EntityExistsError(allowed(f"{upload.owner}: ML object", upload.name, f"{what}; this is the {upload}"))
    taken.update((key, upload) for key, _ in upload.keys)
    return True


# -- what a server says of it


class Copy(NamedTuple):
    """One key of one upload on one server: ``key`` as it is there, ``name`` without a shard's tag."""

    upload: Upload
    name: str
    device: str
    key: bytes


def copies(upload: Upload, tags: tuple[bytes, ...] = ()) -> list[Copy]:
    """What a server gets of an upload; in a cluster, once under each of its tags."""
    starts = [b"{%b}." % tag for tag in tags] or [b""]
    return [
        Copy(upload, name, device, start + name.encode("utf-8", "surrogateescape"))
        for name, device in upload.keys
        for start in starts
    ]


def pairs(reply: Any) -> dict[bytes, Any]:
    """A flat array of names and values."""
    items = list(reply) if isinstance(reply, (list, tuple)) else []
    return {bytes(name).lower(): value for name, value in zip(items[::2], items[1::2], strict=False)}


def differences(copy: Copy, info: Mapping[bytes, Any], meta: Mapping[bytes, Any]) -> list[str]:
    """What is otherwise on a server than it should be, the contents apart.

    :param info: what AI.INFO says.
    :param meta: what AI.MODELGET META says; nothing for a script.
    """
    wanted: dict[str, Any] = {"type": "SCRIPT" if copy.upload.script else "MODEL", "device": copy.device}
    found: dict[str, Any] = {"type": _text(info.get(b"type")), "device": _text(info.get(b"device"))}
    if not copy.upload.script:
        wanted |= {"backend": copy.upload.backend, **_wanted_meta(copy.upload.options)}
        found["backend"] = _text(info.get(b"backend"))
        found |= {name: _plain(meta.get(name.encode())) for name in wanted if name not in found}
    return [f"{name} is {found[name]!r}, not {value!r}" for name, value in wanted.items() if found[name] != value]


def _wanted_meta(options: tuple[Word, ...]) -> dict[str, Any]:
    meta: dict[str, Any] = {"tag": "", "batchsize": 0, "minbatchsize": 0, "minbatchtimeout": 0}
    words = list(options)
    while words:
        name = str(words.pop(0)).lower()
        value: Any = words.pop(0)
        if name in ("inputs", "outputs"):
            value, words = words[:value], words[value:]
        meta[name] = value
    return meta


def _plain(value: Any) -> Any:
    return [_text(one) for one in value] if isinstance(value, (list, tuple)) else _text(value)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
