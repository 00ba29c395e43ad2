"""Databases in a plan: what their shards are told, and how a model gets one beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..entities import Model, Orchestrator
from ..entities.colocation import ColocatedDB
from ..errors import ConfigError, EntityExistsError, MissingFileError, UnsupportedError, allowed
from ..generate import Source
from ..plan import Context, DatabasePlan, LaunchPlan, Member
from .address import Address, suffix
from .config import NodeConfig, new_id
from .environment import application_environment
from .placing import shard_jobs

SLICE = 256
"""Jobs dealt with between two chances for other tasks to run."""
LONGEST_SOCKET = 107
"""Bytes that the kernel's sockaddr_un has room for."""


def plan_databases(context: Context, databases: Sequence[Orchestrator]) -> list[DatabasePlan]:
    """What starting these databases means.

    :raises EntityExistsError: one of that name runs already.
    :raises ConfigError: it was made for another launcher.
    """
    running = {address.identifier for address in context.databases}
    for database in databases:
        busy = any(shard.name in context.busy for shard in database.models)
        if database.name in running or busy:
            what = "a database of this name is running in this experiment, if not all of it; stop it first"
            raise EntityExistsError(allowed("db_identifier", database.name, what))
        if context.capabilities.launcher != database.launcher:
            what = f"this experiment's launcher is {context.capabilities.launcher}; use its create_database"
            raise ConfigError(allowed(f"{database.name}: launcher", database.launcher, what))
    _check_ports(databases)
    return [_plan(context, database) for database in databases]


def _check_ports(databases: Sequence[Orchestrator]) -> None:
    """Refuse databases of one start that would want the same port of this host."""
    taken: dict[tuple[str, int], str] = {}
    for database in databases:
        for port in range(database.port, database.port + database.num_shards) if database.port else ():
            for interface in database.interfaces:
                other = taken.setdefault((interface, port), database.name)
                if other != database.name:
                    what = f"{other}, started with it, has this port; port=0 takes a free one"
                    raise ConfigError(allowed(f"{database.name}: port", port, what))


def _plan(context: Context, database: Orchestrator) -> DatabasePlan:
    directory = os.path.normpath(os.path.join(context.path, database._path or database.name))
    ids = [new_id(f"{context.token} {database.name}", shard) for shard in range(database.num_shards)]
    engine: dict[str, Any] = dict(database.engine)
    config = NodeConfig(
        name=database.name,
        run="",
        directory=directory,
        ports=[database.port and database.port + shard for shard in range(database.num_shards)],
        interfaces=database.interfaces,
        secret="",
        module=next((path for field, path in database_files(context, database) if field == "module"), ""),
        node_ids=ids if database.is_cluster else [],
        options=dict(database.options),
        socket=_socket(context, f"{database.name}: unix_socket", database.unix_socket),
        deadline=database.start_timeout,
        load_from=[path for field, path in database_files(context, database) if field == "load_from"],
        **engine,
    )
    return DatabasePlan(database=database, config=config, jobs=tuple(shard_jobs(context, database, directory)))


def database_files(context: Context, database: Orchestrator) -> list[tuple[str, str]]:
    """The files that a database is started with: what each is, and its path."""
    named = [("load_from", path) for path in database.load_from]
    named += [("module", database.module)] if database.module else []
    return [(field, os.path.join(context.cwd, path)) for field, path in named]


def check_files(context: Context, databases: Sequence[Orchestrator], found: Mapping[str, Source]) -> None:
    """See that these files exist.

    :raises MissingFileError: one does not.
    """
    for database in databases:
        for field, path in database_files(context, database):
            if path not in found or found[path].kind != "file":
                raise MissingFileError(allowed(f"{database.name}: {field}", path, "no such file"))


def _socket(context: Context, field: str, path: str | None) -> str:
    """A socket's path, from the current directory; the kernel has room for 107 bytes."""
    whole = os.path.join(context.cwd, path) if path else ""
    if len(os.fsencode(whole)) > LONGEST_SOCKET:
        raise ConfigError(
            allowed(field, whole, f"must be at most {LONGEST_SOCKET} bytes long; a shorter place is /tmp")
        )
    return whole


def check_colocated(found: Sequence[Member], others: Iterable[Address]) -> None:
    """Refuse colocated databases whose variables are those of another database.

    :raises ConfigError: naming both.
    :raises UnsupportedError: the program is to run in a container.
    """
    taken = {suffix(address.identifier): address.identifier for address in others}
    for model, _ in found:
        beside = model._colocated
        if beside is None:
            continue
        if model.settings_view.container is not None:
            what = "a program in a container cannot have a database beside it; let it use a standard one"
            raise UnsupportedError(allowed(f"{model.name}: container", model.settings_view.container.image, what))
        other = taken.get(suffix(beside.db_identifier))
        if other is not None:
            what = f"the database {other} has the same variables (SSDB{suffix(other)}); give one of them another name"
            raise ConfigError(allowed(f"{model.name}: db_identifier", beside.db_identifier, what))


def beside_database(context: Context, model: Model, command: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The program and arguments that start a database on every host first, and then become ``command``."""
    return context.python, ("-P", "-m", "asim.database.colocated", _colocated_path(context, model), "--", *command)


def _colocated_path(context: Context, model: Model) -> str:
    return f"{context.path}/.asim/{model.name}.colocated.json"


def colocated_file(
    context: Context, model: Model, outputs: str, env: Mapping[str, str], objects: Sequence[Mapping[str, Any]] = ()
) -> dict[str, str]:
    """The file that says how: path -> text.

    :param env: variables for the model's program only, as they would change the Python that starts the database.
    :param objects: what is uploaded to it first; see :func:`asim.database.targets.beside_config`.
    """
    assert model._colocated is not None
    text = _colocated_config(context, model._colocated, f"{outputs}/{model.name}-db.log", env, objects)
    return {_colocated_path(context, model): text}


def _colocated_config(
    context: Context, beside: ColocatedDB, log: str, env: Mapping[str, str], objects: Sequence[Mapping[str, Any]]
) -> str:
    uds = beside.kind == "uds"
    return json.dumps(
        {
            "identifier": beside.db_identifier,
            "env": dict(env),
            "name": "db",
            "ports": [] if uds else [beside.port],
            "interfaces": list(dict.fromkeys(["lo", *beside.interfaces])),
            "socket": _socket(context, "unix_socket", beside.unix_socket),
            "socket_permissions": beside.socket_permissions,
            "options": dict(beside.options),
            "cpus": list(beside.pinning or ()),
            "any_cpus": beside.any_cpus,
            "log": log if beside.debug else "",
            "objects": objects,
            **beside.engine,
        }
    )


def tell_applications(plan: LaunchPlan, addresses: Sequence[Address]) -> Iterator[None]:
    """Put into every job's environment what it needs to know of databases and of its keys; yields between slices."""
    outside = {name: value for name, value in plan.context.environ.items() if name.startswith(("SSDB", "SR_SOCKET"))}
    for index, job in enumerate(plan.jobs):
        env = application_environment(job.model, addresses, job.env, outside)
        if env is not job.env:
            plan.jobs[index] = job.with_env(env)
            if job.command is not None:
                known = {name for name, _ in job.env}
                argv = job.command.told(job.argv, [name for name, _ in env if name not in known])
                plan.jobs[index] = replace(plan.jobs[index], argv=argv)
        if index % SLICE == SLICE - 1:
            yield
