"""Which database gets which ML object, and that no two objects want one key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..entities import Model
from ..entities.mlhost import Wanted
from ..entities.mlobjects import MLObject
from ..errors import ConfigError, allowed
from ..plan import Context, LaunchPlan, Member
from .objects import Content, Upload, claim, upload_of


def wanted_objects(found: Iterable[Member]) -> list[tuple[MLObject, bool]]:
    """Every object of these members once, and whether its digest is wanted: a file of that name will hold it."""
    seen: dict[int, tuple[MLObject, bool]] = {}
    for model, _ in found:
        for thing, _ in model._ml:
            known = seen.get(id(thing))
            seen[id(thing)] = thing, bool(known and known[1]) or model._colocated is not None
    return list(seen.values())


class Targets:
    """Fills in what a plan uploads.

    :param starting: the names of the databases that are started.
    :param contents: what the objects hold, by their ``id``.
    """

    def __init__(self, plan: LaunchPlan, starting: Sequence[str], contents: Mapping[int, Content]) -> None:
        self._plan, self._contents = plan, contents
        context = plan.context
        self._standard = [*(address.identifier for address in context.databases), *starting]
        self._taken = {name: dict(context.uploaded.get(name, {})) for name in self._standard if name not in starting}
        self._made: dict[tuple[int, str], Upload] = {}  # members of one ensemble share their objects

    def add(self, model: Model) -> None:
        """What one model wants.

        :raises ConfigError: it uses no database, or none of a name that it gives; or an object could never be stored.
        :raises EntityExistsError: two different objects want one key of one database.
        """
        for wanted in model._ml:
            for name in self._chosen(model, wanted):
                if name is None:
                    self._beside(model, wanted.thing)
                elif (id(wanted.thing), name) not in self._made:
                    upload = self._made[id(wanted.thing), name] = self._upload(model, wanted.thing)
                    listed = self._plan.uploads.setdefault(name, [])
                    if claim(self._taken.setdefault(name, {}), upload, name) or upload not in listed:
                        listed.append(upload)

    def _upload(self, model: Model, thing: MLObject) -> Upload:
        return upload_of(thing, model.name, self._contents[id(thing)])

    def _chosen(self, model: Model, wanted: Wanted) -> Iterator[str | None]:
        """Names of standard databases; None: the model's colocated one."""
        beside = model._colocated
        own = beside.db_identifier if beside is not None else None
        if not wanted.databases:
            yield from [None] if beside is not None else self._standard
            if beside is None and not self._standard:
                what = "no database is running or started with it that could hold it; start one, or colocate one"
                raise ConfigError(allowed(f"{model.name}: ML object", wanted.thing.name, what))
        for name in wanted.databases:
            if name != own and name not in self._standard:
                known = [*self._standard, *([own] if own is not None else [])]
                shown = ", ".join(map(repr, sorted(known))) or "none"
                what = f"must be one of the databases that it uses: {shown}"
                raise ConfigError(allowed(f"{model.name}: {wanted.thing.name}: db_identifier", name, what))
            yield None if name == own else name

    def _beside(self, model: Model, thing: MLObject) -> None:
        upload = self._upload(model, thing)
        listed = self._plan.beside.setdefault(model.name, [])
        if upload not in listed:
            listed.append(upload)
        if upload.content.data is not None:
            self._plan.spills[spill_path(self._plan.context, upload)] = upload


def spill_path(context: Context, upload: Upload) -> str:
    """The file that holds what is in memory, named by its contents."""
    return f"{context.path}/.asim/{upload.content.digest}.blob"


def beside_config(context: Context, uploads: Iterable[Upload]) -> list[dict[str, Any]]:
    """What the node of a colocated database is told to upload: plain data for its configuration."""
    return [
        {
            "name": str(upload),
            "commands": [upload.words(key, device) for key, device in upload.keys],
            "path": upload.content.path or spill_path(context, upload),
            "digest": upload.content.digest,
            "prepare": sorted({(upload.backend, device) for _, device in upload.keys}),
        }
        for upload in uploads
    ]
