"""ML objects into running databases: everything at once, each where it is not yet, and looked at again afterwards."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import anyio
from anyio import to_thread

from ..client.cluster import SlotMap
from ..database.objects import STATE, Content, Copy, Upload, claim, copies, differences
from ..database.sending import Sender, digest_in, sender
from ..database.server import RunningDatabase
from ..errors import DatabaseError
from .contents import digest_of, stamp_of
from .deployment import Deployments
from .progress import Progress

LANES = 4
"""Connections to one server, each with an upload of its own."""
LARGE = 64 << 20
LARGE_AT_ONCE = 4
"""How many objects of more than :data:`LARGE` bytes are on their way at the same time."""
HASHING = 2
"""How many threads compute digests."""


class Site(NamedTuple):
    """One server: ``name`` for errors; ``tags`` of its shards, none if it is no cluster."""

    name: str
    address: str
    tags: tuple[bytes, ...]


class Claims:
    """Which object each key of one database is for: the one that was wanted last, uploads that failed left out."""

    def __init__(self) -> None:
        self._wanted: dict[str, list[tuple[object, Upload]]] = {}  # oldest first; with the mark of the call

    @property
    def current(self) -> dict[str, Upload]:
        """Key -> object, of stored ones and of those on their way."""
        return {key: wanted[-1][1] for key, wanted in self._wanted.items()}

    def take(self, uploads: Sequence[Upload], database: str, replace: bool) -> object:
        """Take the keys of uploads; a mark for :meth:`keep` or :meth:`give_back`.

        :param replace: whatever has them now.
        :raises EntityExistsError: a different object has one; then nothing is taken.
        """
        mark = object()
        keys = dict.fromkeys(key for upload in uploads for key, _ in upload.keys)
        taken = {key: upload for key, upload in self.current.items() if not (replace and key in keys)}
        for upload in uploads:
            claim(taken, upload, database)
        for key in keys:
            self._wanted.setdefault(key, []).append((mark, taken[key]))
        return mark

    def keep(self, mark: object) -> None:
        """They are stored, in the place of what was wanted before."""
        for wanted in self._wanted.values():
            del wanted[: next((place for place, (one, _) in enumerate(wanted) if one is mark), 0)]

    def give_back(self, mark: object) -> None:
        """They were not stored: the keys are for what they were for before, or for what is wanted since."""
        left = {key: [one for one in wanted if one[0] is not mark] for key, wanted in self._wanted.items()}
        self._wanted = {key: wanted for key, wanted in left.items() if wanted}


class Preloader:
    """Uploads, and what was uploaded."""

    def __init__(self, databases: Deployments) -> None:
        self._databases = databases
        self._claims: WeakKeyDictionary[RunningDatabase, Claims] = WeakKeyDictionary()
        self._sent: WeakKeyDictionary[RunningDatabase, dict[tuple[str, bytes], str]] = WeakKeyDictionary()
        self._locks: WeakKeyDictionary[RunningDatabase, dict[tuple[str, bytes], anyio.Lock]] = WeakKeyDictionary()
        self._digests: dict[tuple[object, ...], str] = {}  # of files, as long as they look the same

    @property
    def uploaded(self) -> dict[str, dict[str, Upload]]:
        """What each running database has of this experiment: its name -> key -> object."""
        return {one.identifier: self.claims(one).current for one in self._databases.usable.values()}

    async def upload(self, wanted: Mapping[str, Sequence[Upload]], *, replace: bool = False) -> None:
        """Have these objects in these databases; returns when all are there.

        :param wanted: the database's name -> objects.
        :param replace: they may take the place of other objects of this experiment.
        :raises EntityExistsError: one may not.
        :raises DatabaseError: the first that failed, with the object, the key and the server; the others are given up.

        Cancellation: what is under way is given up; what is stored whole stays, and is not sent again.
        """
        running = {one.identifier: one for one in self._databases.usable.values()}
        for name in wanted:
            if name not in running:
                raise DatabaseError(f"database {name} is not running any more, so nothing can be uploaded to it")
        runs = [Run(self, running[name], uploads) for name, uploads in wanted.items() if uploads]
        errors: list[Exception] = []

        async def one(run: Run) -> None:
            try:
                await run.work(replace)
            except Exception as exc:  # noqa: BLE001  (raised below: a group would wrap it)
                errors.append(exc)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(one, run)
        if errors:
            raise errors[0]

    def claims(self, database: RunningDatabase) -> Claims:
        """Whose its keys are."""
        return self._claims.setdefault(database, Claims())

    def sent(self, database: RunningDatabase) -> dict[tuple[str, bytes], str]:
        """What was stored: address and key -> digest."""
        return self._sent.setdefault(database, {})

    def lock(self, database: RunningDatabase, place: tuple[str, bytes]) -> anyio.Lock:
        """So that two calls at the same time do not store the same thing twice."""
        return self._locks.setdefault(database, {}).setdefault(place, anyio.Lock())

    def progress(self, database: RunningDatabase, uploads: Sequence[Upload], servers: int) -> Progress:
        """To tell how far it is."""
        return Progress(database.identifier, uploads, servers, lambda words: self._databases.note(database, words))

    async def digest(self, content: Content, threads: anyio.CapacityLimiter) -> str:
        """SHA-256 of what an object holds; of a file that looks as before, what it was then."""
        if content.digest or content.data is not None:
            return content.digest or await to_thread.run_sync(
                digest_of, content, limiter=threads, abandon_on_cancel=True
            )
        stamp = await to_thread.run_sync(stamp_of, content)
        if stamp not in self._digests:
            self._digests[stamp] = await to_thread.run_sync(digest_of, content, limiter=threads, abandon_on_cancel=True)
        return self._digests[stamp]


class Run:
    """The uploads of one call to one database."""

    def __init__(self, preloader: Preloader, database: RunningDatabase, uploads: Sequence[Upload]) -> None:
        self._preloader, self._database, self._uploads = preloader, database, uploads
        self._sent = preloader.sent(database)
        self._digests: dict[int, str] = {}
        self._locks = {id(upload.content): anyio.Lock() for upload in uploads}

    async def work(self, replace: bool) -> None:
        """Store everything on every server."""
        claims = self._preloader.claims(self._database)
        mark = claims.take(self._uploads, self._database.identifier, replace)
        try:
            sites = await self._sites()
            self._progress = self._preloader.progress(self._database, self._uploads, len(sites))
            self._progress.begin()
            self._large, self._hashing = anyio.CapacityLimiter(LARGE_AT_ONCE), anyio.CapacityLimiter(HASHING)
            await self._everywhere(sites)
        except BaseException:
            claims.give_back(mark)
            raise
        claims.keep(mark)
        self._progress.end()

    async def _sites(self) -> list[Site]:
        shards = self._database.shards
        names = {shard.address: shard.name for shard in shards}
        if len(shards) == 1:
            return [Site(shards[0].name, shards[0].address, ())]
        there = await self._database.reached(shards[0].address)
        async with sender(there, self._database.secret, self._where(shards[0].name)) as first:
            slots = SlotMap(await first.ask("CLUSTER", "SLOTS"), shards[0].address)
        tags: dict[str, list[bytes]] = {}
        for shard in slots.shards:
            tags.setdefault(shard.address, []).append(shard.tag)
        return [Site(names.get(address, address), address, tuple(found)) for address, found in tags.items()]

    def _where(self, shard: str) -> str:
        return f"database {self._database.identifier} ({shard})"

    async def _everywhere(self, sites: Sequence[Site]) -> None:
        errors: list[Exception] = []

        async def guarded(work: Any, *arguments: object) -> None:
            try:
                await work(*arguments)
            except Exception as exc:  # noqa: BLE001  (raised below: a group would wrap it)
                errors.append(exc)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for upload in self._uploads:  # while the bytes are on their way
                group.start_soon(guarded, self._digest, upload)
            for site in sites:
                found = [copy for upload in self._uploads for copy in copies(upload, site.tags)]
                todo = deque(sorted(found, key=lambda copy: -copy.upload.content.size))
                hints = dict.fromkeys((copy.upload.backend, copy.device) for copy in todo)
                for number in range(min(LANES, len(todo))):
                    group.start_soon(guarded, self._lane, site, todo, () if number else hints)
        if errors:
            raise errors[0]

    async def _lane(self, site: Site, todo: deque[Copy], hints: Iterable[tuple[str, str]]) -> None:
        there = await self._database.reached(site.address)
        async with sender(there, self._database.secret, self._where(site.name)) as connection:
            if hints:  # so that workers start and import what they need while the bytes are on their way
                await connection.ask_all([("ASIM.PREPARE", *hint) for hint in hints])  # a user's redisai.so has it not
            while todo:
                copy = todo.popleft()
                try:
                    async with self._preloader.lock(self._database, (site.address, copy.key)):
                        await self._one(connection, site, copy)
                except (DatabaseError, OSError) as exc:
                    raise self._failure(site, copy, exc) from exc

    def _failure(self, site: Site, copy: Copy, exc: DatabaseError | OSError) -> DatabaseError:
        words = f"{copy.upload}: could not be stored as {copy.name!r} in {self._where(site.name)}: {exc}"
        if isinstance(exc, DatabaseError):
            return type(exc)(words, exc.command, exc.reply)
        return DatabaseError(words, copy.upload.source)

    async def _one(self, connection: Sender, site: Site, copy: Copy) -> None:
        if not await self._wrong(connection, site, copy):
            self._progress.present()
            return
        large = self._large if copy.upload.content.size > LARGE else nullcontext()
        async with large:
            await connection.store(copy, self._progress.moved)
        self._sent[site.address, copy.key] = await self._digest(copy.upload)
        wrong = await self._wrong(connection, site, copy)
        if wrong:
            hint = f"; was {copy.upload.content.path} changed meanwhile?" if copy.upload.content.path else ""
            raise DatabaseError(f"what is there afterwards differs: {wrong}{hint}", "AI.INFO")
        self._progress.stored()

    async def _wrong(self, connection: Sender, site: Site, copy: Copy) -> str:
        """In what the key on the server differs from the object; "": in nothing."""
        found = await connection.look(copy)
        if found is None:
            return "there is nothing"
        info, meta = found
        wrong = differences(copy, info, meta)
        state = bytes(info.get(STATE) or b"ready").decode()
        if wrong or state != "ready":
            return "; ".join([*wrong, *([f"its state is {state}"] if state != "ready" else [])])
        there, wanted = digest_in(info), await self._digest(copy.upload)
        if not there and copy.upload.script:
            there = hashlib.sha256(await connection.source(copy)).hexdigest()
        if not there:  # no worker has looked at it: RedisAI, or an engine without workers
            there = self._sent.get((site.address, copy.key), "nobody's")
        return "" if there == wanted else f"its SHA-256 is {there}, not {wanted}"

    async def _digest(self, upload: Upload) -> str:
        content = upload.content
        async with self._locks[id(content)]:
            if id(content) not in self._digests:
                try:
                    self._digests[id(content)] = await self._preloader.digest(content, self._hashing)
                except OSError as exc:
                    raise DatabaseError(f"{upload}: {content.path} cannot be read: {exc.strerror}") from exc
        return self._digests[id(content)]
