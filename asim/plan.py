"""What will be done, decided before anything is done: the values that planning makes.

:class:`Needs` is what must be looked up, :class:`Facts` what was found, and :class:`LaunchPlan` what ``start`` executes and
``preview`` prints. :mod:`asim.planner` makes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .agent.protocol import Environment
from .database.address import Address
from .database.config import NodeConfig
from .database.objects import Content, Upload
from .entities import DBNode, Ensemble, Entity, Model, Orchestrator
from .entities.ensemble import Placement
from .entities.mlobjects import MLObject
from .generate import Layouts, Source, Unit
from .launchers.base import Capabilities, JobKey
from .launchers.batches import Folders, Submit, submits
from .policies import Retry, When
from .settings.batch import BatchSettings
from .settings.mpi import Flavor, MpiSettings
from .settings.script import Pack

Member = tuple[Model, Ensemble | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What planning must know of the experiment.

    :ivar work: the directory that jobs without one of their own run in; "": ``cwd``.
    :ivar python: the interpreter that runs asim's own programs where jobs run.
    :ivar environ: the environment that jobs start from.
    :ivar grace: seconds between SIGTERM and SIGKILL.
    :ivar databases: those that run now.
    :ivar uploaded: of each of these, what this experiment has stored in it: key -> object.
    """

    name: str
    path: str
    cwd: str
    capabilities: Capabilities
    token: str
    work: str = ""
    python: str = "python3"
    environ: Mapping[str, str] = field(default_factory=dict)
    grace: float = 5.0
    max_concurrent: int | None = None
    databases: Sequence[Address] = ()
    uploaded: Mapping[str, Mapping[str, Upload]] = field(default_factory=dict)
    busy: Collection[str] = frozenset()
    known: Collection[Entity] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be looked up: programs, which of these are an MPI's start command, attached paths (path -> read the contents), directories that may exist, those never to be
    replaced, and ML objects (each with whether its digest is wanted).
    """

    programs: frozenset[str]
    mpi: frozenset[str] = frozenset()
    sources: Mapping[str, bool]
    targets: frozenset[str]
    protected: tuple[str, ...] = ()
    objects: Sequence[tuple[MLObject, bool]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found. A program or source that is absent does not exist; ``real`` is where targets lead, links followed;
    ``flavors`` tells whose the start commands are; ``contents`` are those of ML objects, by their ``id``.
    """

    programs: Mapping[str, str] = field(default_factory=dict)
    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    real: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[int, Content] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchRequest:
    """What a scheduler is asked for on behalf of one entity's jobs.

    :ivar name: the entity's name.
    :ivar pack: "job": all of them in one batch job; "array": a task for each; "separate": a batch job for each.
    :ivar home: where the script's own output goes: this path with ``.out`` and ``.err``.
    """

    name: str
    settings: BatchSettings
    pack: Pack
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job, fully resolved: what a launcher gets.

    :ivar name: the model's name.
    :ivar argv: the command, one item per argument.
    :ivar env: changes to the environment that the host's agent gives to processes.
    :ivar cwd: absolute working directory.
    :ivar outputs: absolute directory of ``<name>.out`` and ``<name>.err``.
    :ivar timeout: seconds that it may run.
    :ivar batch: what batch job it is in; None: it is a process.
    :ivar own_files: its command opens its output files itself.
    :ivar placement: "agent": as a process of the agent of a node, in an allocation.
    :ivar cpus: how many CPUs it needs there.
    :ivar command: settings of a run command that must be told which variables its programs get, beside their own.
    :ivar together: other models that the same command runs (the other shards of a database).
    """

    name: str
    model: Model
    ensemble: Ensemble | None
    argv: tuple[str, ...]
    env: Environment
    cwd: str
    outputs: str
    timeout: float | None
    retries: Retry | None
    batch: BatchRequest | None = None
    own_files: bool = False
    placement: Placement = "step"
    cpus: int = 1
    together: tuple[Model, ...] = ()
    command: MpiSettings | None = None

    def with_env(self, env: Environment) -> JobSpec:
        """The same with another environment."""
        return replace(self, env=env)

    @property
    def stdout(self) -> str:
        return f"{self.outputs}/{self.name}.out"

    @property
    def stderr(self) -> str:
        return f"{self.outputs}/{self.name}.err"

    @property
    def service(self) -> bool:
        """Whether others need it while they run: then it counts for no limit, and nothing waits for its end."""
        return isinstance(self.model, DBNode)

    @property
    def waits(self) -> tuple[tuple[Entity, When], ...]:
        """What must have happened before it starts."""
        return self.model._after + (self.ensemble._after if self.ensemble else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePlan:
    """One database: what its shards are told (all but the secret), and the jobs that they run in."""

    database: Orchestrator
    config: NodeConfig
    jobs: tuple[JobSpec, ...]


@dataclass(slots=True, kw_only=True)
class LaunchPlan:
    """Everything that one ``start`` (or ``generate``) is going to do.

    :ivar uploads: what each standard database gets before the jobs start: its name -> objects.
    :ivar beside: what the colocated database of each model gets: the model's name -> objects.
    :ivar spills: files that are made for objects in memory, as colocated databases read files: path -> object.
    """

    context: Context
    units: list[Unit] = field(default_factory=list)
    layouts: Layouts
    jobs: list[JobSpec] = field(default_factory=list)
    databases: list[DatabasePlan] = field(default_factory=list)
    uploads: dict[str, list[Upload]] = field(default_factory=dict)
    beside: dict[str, list[Upload]] = field(default_factory=dict)
    spills: dict[str, Upload] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know, once per file or template."""
        return [*self.layouts.warnings, *self.notes]

    @property
    def batches(self) -> list[Submit]:
        """The batch jobs, as they are submitted if these jobs are the first of their run."""
        context, dialect = self.context, self.context.capabilities.dialect
        if dialect is None:
            return []
        jobs = ((JobKey(number), job) for number, job in enumerate(self.jobs, 1))
        folders = Folders.of(context.path, context.token)
        limit = context.max_concurrent
        return list(submits(dialect, jobs, folders, context.token, grace=context.grace, throttle=limit))

    @property
    def directories(self) -> list[str]:
        """Directories that must exist before the jobs start and that no unit makes."""
        made = tuple(f"{unit.target}/" for unit in self.units)
        homes = [job for job in self.jobs if job.cwd != job.model._generated]
        wanted = {path: None for job in homes for path in (job.cwd, job.outputs)}
        return [path for path in wanted if path != self.context.cwd and not f"{path}/".startswith(made)]
