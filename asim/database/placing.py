"""The jobs in which the shards of a database run: processes of this host, or one parallel command for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..entities import Orchestrator
from ..entities.orchestrator import DBNode
from ..errors import UnsupportedError, allowed
from ..plan import BatchRequest, Context, JobSpec
from ..settings import RunSettings, StepContext
from .config import config_path

RANK = "rank"
"""Stands for the shard's number in a command that starts all shards: each takes the number of its rank."""
_STEPS = ("overlap", "exact", "exclusive")


def shard_jobs(context: Context, database: Orchestrator, directory: str) -> Iterator[JobSpec]:
    """The jobs of one database: one for each shard, or one for all (``single_cmd``).

    :raises UnsupportedError: a cluster as a batch job of several commands.
    """
    settings = database.run_settings
    if context.capabilities.launcher == "local" or not settings.FAMILY:
        for shard in database.models:
            yield _job(context, database, shard, directory, str(shard.shard), None)
    elif database.single_cmd or database.num_shards == 1:
        yield _job(context, database, database.models[0], directory, RANK, _placed(database, database.num_shards))
    elif database.batch:
        what = "the shards of a batch job are started by one command; leave single_cmd=True"
        raise UnsupportedError(allowed(f"{database.name}: single_cmd", False, what))
    else:
        for shard in database.models:
            yield _job(context, database, shard, directory, str(shard.shard), _placed(database, 1, shard.shard))


def _placed(database: Orchestrator, shards: int, number: int | None = None) -> RunSettings:
    """Run settings that put so many shards on as many nodes, beside whatever else runs there."""
    settings = database.run_settings.copy()
    hosts: Sequence[str] = database.requested_hosts
    if number is not None and hosts:
        settings.set_hostlist([hosts[number % len(hosts)]])
    settings.set_tasks(shards)
    if settings.FAMILY == "srun":
        settings.set_nodes(shards)
        settings.set_tasks_per_node(1)
        if not settings.run_args.keys() & {*_STEPS}:
            settings.set("overlap")
    elif shards > 1:
        settings.set_tasks_per_node(1)
    return settings


def _job(
    context: Context,
    database: Orchestrator,
    shard: DBNode,
    directory: str,
    number: str,
    settings: RunSettings | None,
) -> JobSpec:
    command: tuple[str, ...] = (
        context.python,
        "-P",
        "-m",
        "asim.database.node",
        config_path(directory, database.name),
        number,
    )
    batch = _request(context, database) if database.batch_settings is not None else None
    env: dict[str, str] = {}
    if settings is not None:
        step = settings.step(
            StepContext(
                name=shard.name,
                cwd=directory,
                stdout=f"{directory}/{shard.name}.out",
                stderr=f"{directory}/{shard.name}.err",
                exe=command[0],
                exe_args=command[1:],
                launcher=context.capabilities.launcher,
                in_batch=batch is not None,
            )
        )
        command, env = step.argv, dict(step.env)
        if context.capabilities.launcher == "slurm" and settings.FAMILY != "srun":
            env.setdefault("SLURM_OVERLAP", "1")  # of the srun in mpirun: its step would keep others off these nodes
    return JobSpec(
        name=shard.name,
        model=shard,
        ensemble=None,
        argv=command,
        env=tuple(env.items()),
        cwd=directory,
        outputs=directory,
        timeout=None,
        retries=None,
        batch=batch,
        own_files=settings is not None and settings.OWN_FILES,
        together=database.models[1:] if number == RANK else (),
    )


def _request(context: Context, database: Orchestrator) -> BatchRequest:
    assert database.batch_settings is not None
    home = os.path.join(context.path, database.name)
    return BatchRequest(name=database.name, settings=database.batch_settings.copy(), pack="job", home=home)
