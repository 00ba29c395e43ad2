"""A plan as text or JSON: exactly what would be done, from the very object that ``start`` executes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

from .database.address import suffix
from .database.objects import Upload
from .errors import ConfigError, allowed
from .generate import Layout
from .plan import DatabasePlan, JobSpec, LaunchPlan
from .values import render

Verbosity = Literal["info", "debug", "developer"]
Format = Literal["plain_text", "json"]
VERBOSITIES: tuple[Verbosity, ...] = ("info", "debug", "developer")
FORMATS: tuple[Format, ...] = ("plain_text", "json")


def check_options(verbosity_level: str, output_format: str) -> None:
    """Refuse unknown options.

    :raises ConfigError: naming what is allowed.
    """
    if verbosity_level not in VERBOSITIES:
        raise ConfigError(allowed("verbosity_level", verbosity_level, f"must be one of {', '.join(VERBOSITIES)}"))
    if output_format not in FORMATS:
        raise ConfigError(allowed("output_format", output_format, f"must be one of {', '.join(FORMATS)}"))


def as_dict(plan: LaunchPlan) -> dict[str, Any]:
    """The whole plan as plain data."""
    context = plan.context
    files = _files(plan)
    return {
        "experiment": {"name": context.name, "path": context.path, "launcher": context.capabilities.launcher},
        "directories": plan.directories,
        "generates": [{"name": unit.name, "path": unit.target, "replaces": unit.replaces} for unit in plan.units],
        "databases": [_database(database) for database in plan.databases],
        "uploads": [{"database": name, "objects": list(map(_upload, found))} for name, found in plan.uploads.items()],
        "jobs": [_job(plan, job, files.get(job.name, [])) for job in plan.jobs],
        "batches": [
            {
                "name": submit.batch.name,
                "submit": submit.command.argv,
                "script_path": submit.batch.script,
                "script": submit.text,
                "members": submit.names,
            }
            for submit in plan.batches
        ],
        "warnings": list(plan.warnings),
    }


def _database(plan: DatabasePlan) -> dict[str, Any]:
    config, database = plan.config, plan.database
    return {
        "name": database.name,
        "path": config.directory,
        "interfaces": list(config.interfaces),
        "ports": list(config.ports),
        "unix_socket": config.socket or None,
        "options": dict(config.options),
        "load_from": list(config.load_from),
        "shards": [
            {"name": job.name, "argv": job.argv, "stdout": job.stdout, "stderr": job.stderr} for job in plan.jobs
        ],
    }


def _upload(upload: Upload) -> dict[str, Any]:
    return {
        "name": upload.name,
        "kind": upload.kind,
        "backend": upload.backend,
        "keys": dict(upload.keys),
        "source": upload.source,
        "bytes": upload.content.size,
        "for": upload.owner,
    }


def _colocated(job: JobSpec, uploads: Sequence[Upload]) -> dict[str, Any] | None:
    beside = job.model.colocated_db
    if beside is None:
        return None
    where = {"unix_socket": beside.unix_socket} if beside.kind == "uds" else {"port": beside.port}
    return {
        "db_identifier": beside.db_identifier,
        **where,
        "options": dict(beside.options),
        "objects": list(map(_upload, uploads)),
    }


def _files(plan: LaunchPlan) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for unit in plan.units:
        for model, _ in unit.models:
            found[model.name] = list(_layout(plan, plan.layouts.of(model)))
    return found


def _layout(plan: LaunchPlan, layout: Layout) -> Iterator[dict[str, str]]:
    for verb, path, source in layout.fixed:
        yield {"action": verb, "path": path, "source": source}
    for path, number, _, _ in layout.rendered:
        yield {"action": "configure", "path": path, "source": plan.layouts.origins[number]}


def _job(plan: LaunchPlan, job: JobSpec, files: list[dict[str, str]]) -> dict[str, Any]:
    programs = [path] if (path := f"{job.outputs}/{job.name}.mpmd") in plan.files else []
    return {
        "name": job.name,
        "ensemble": job.ensemble.name if job.ensemble else None,
        "argv": job.argv,
        "cwd": job.cwd,
        "env": dict(job.env),
        "stdout": job.stdout,
        "stderr": job.stderr,
        "params": {name: render(value) for name, value in job.model.params.items()},
        "mpmd": {"path": programs[0], "text": plan.files[programs[0]]} if programs else None,
        "colocated": _colocated(job, plan.beside.get(job.name, [])),
        "timeout_s": job.timeout,
        "retries": job.retries.times if job.retries else 0,
        "after": [{"name": entity.name, "when": when} for entity, when in job.waits],
        "files": files,
    }


def as_text(plan: LaunchPlan, verbosity_level: Verbosity, output_format: Format) -> str:
    """The plan in words.

    :param verbosity_level: "info": of an ensemble the first and the last member; "debug": every member;
        "developer": environments, too. JSON is always complete.
    """
    data = as_dict(plan)
    if output_format == "json":
        return json.dumps(data, indent=2) + "\n"
    return "\n".join(_lines(data, verbosity_level)) + "\n"


def _lines(data: dict[str, Any], verbosity: Verbosity) -> Iterator[str]:
    experiment = data["experiment"]
    yield f"Experiment {experiment['name']}"
    yield f"  path      {experiment['path']}"
    yield f"  launcher  {experiment['launcher']}"
    for unit in data["generates"]:
        yield f"Generates {unit['path']}{' (replacing what is there)' if unit['replaces'] else ''}"
    for path in data["directories"]:
        yield f"Makes {path} if it is missing"
    for database in data["databases"]:
        yield from _database_lines(database)
    for group in data["uploads"]:
        yield f"Uploads to database {group['database']}"
        yield from (f"  {_upload_line(upload)}" for upload in group["objects"])
    for batch in data["batches"]:
        yield f"Batch job {batch['name']}: {shlex.join(batch['submit'])}"
        yield from (f"  | {line}" for line in batch["script"].splitlines())
    yield from _jobs(data["jobs"], verbosity)
    yield from (f"Warning: {warning}" for warning in data["warnings"])


def _database_lines(database: dict[str, Any]) -> Iterator[str]:
    yield f"Database {database['name']}"
    yield f"  in        {database['path']}"
    yield f"  listens   on {', '.join(database['interfaces'])}"
    if database["unix_socket"]:
        yield f"  listens   at {database['unix_socket']}"
    for name, value in database["options"].items():
        yield f"  option    {name} {value}"
    for path in database["load_from"]:
        yield f"  loads     {path}"
    for shard, port in zip(database["shards"], database["ports"], strict=True):
        yield f"  shard     {shard['name']}, port {port or 'any free one'}: {shlex.join(shard['argv'])}"


def _upload_line(upload: dict[str, Any]) -> str:
    keys = ", ".join(f"{key} on {device}" for key, device in upload["keys"].items())
    size = f"{upload['bytes']} bytes from {upload['source']}"
    return f"{upload['kind']:9} {upload['name']} ({upload['backend']}, {size}), as {keys}"


def _jobs(jobs: list[dict[str, Any]], verbosity: Verbosity) -> Iterator[str]:
    """Every job; with "info", of the members of one ensemble only the first and the last."""
    for ensemble, group in groupby(jobs, key=lambda job: job["ensemble"]):
        shown = list(group)
        left_out = len(shown) - 2 if ensemble is not None and verbosity == "info" else 0
        for index, job in enumerate(shown):
            if left_out <= 0 or index in (0, len(shown) - 1):
                yield from _job_lines(job, verbosity)
            elif index == 1:
                yield f"… {left_out} more members of {ensemble}"


def _job_lines(job: dict[str, Any], verbosity: Verbosity) -> Iterator[str]:
    yield f"{'Member' if job['ensemble'] else 'Model'} {job['name']}"
    yield f"  runs      {shlex.join(job['argv'])}"
    yield f"  in        {job['cwd']}"
    yield f"  output    {job['stdout']}, {job['stderr']}"
    if job["params"]:
        yield f"  params    {', '.join(f'{name} = {value}' for name, value in job['params'].items())}"
    if job["mpmd"]:
        yield f"  programs  in {job['mpmd']['path']}"
        yield from (f"  | {line}" for line in job["mpmd"]["text"].splitlines())
    for file in job["files"]:
        yield f"  {file['action']:9} {file['path']}{' from ' + file['source'] if file['source'] else ''}"
    for dependency in job["after"]:
        yield f"  after     {dependency['name']} is {dependency['when']}"
    if job["colocated"]:
        beside = job["colocated"]
        place = beside.get("unix_socket") or f"port {beside['port'] or 'any free one'}"
        yield f"  database  beside it, at {place}; it is told SSDB{suffix(beside['db_identifier'])}"
        yield from (f"    {_upload_line(upload)}" for upload in beside["objects"])
    if job["timeout_s"] is not None:
        yield f"  timeout   {job['timeout_s']:g} s"
    if job["retries"]:
        yield f"  retries   {job['retries']}"
    if job["env"] and verbosity == "developer":
        yield from (f"  env       {name}={value}" for name, value in job["env"].items())
    elif job["env"]:
        yield f"  env       sets {', '.join(job['env'])}"
