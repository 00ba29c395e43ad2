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
from .entities.mlobjects import MLObject
from .generate import Layouts, Source, Unit
from .launchers.base import Capabilities
from .policies import Retry, When

Member = tuple[Model, Ensemble | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What planning must know of the experiment.

    :ivar python: the interpreter that runs asim's own programs where jobs run.
    :ivar environ: the environment that jobs start from.
    :ivar databases: those that run now.
    :ivar uploaded: of each of these, what this experiment has stored in it: key -> object.
    """

    name: str
    path: str
    cwd: str
    capabilities: Capabilities
    token: str
    python: str = "python3"
    environ: Mapping[str, str] = field(default_factory=dict)
    databases: Sequence[Address] = ()
    uploaded: Mapping[str, Mapping[str, Upload]] = field(default_factory=dict)
    busy: Collection[str] = frozenset()
    known: Collection[Entity] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be looked up: programs, attached paths (path -> read the contents), directories that may exist, those never to be
    replaced, and ML objects (each with whether its digest is wanted).
    """

    programs: frozenset[str]
    sources: Mapping[str, bool]
    targets: frozenset[str]
    protected: tuple[str, ...] = ()
    objects: Sequence[tuple[MLObject, bool]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found. A program or source that is absent does not exist; ``real`` is where targets lead, links followed;
    ``contents`` are those of ML objects, by their ``id``.
    """

    programs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    real: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[int, Content] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job, fully resolved: what a launcher gets.

    :ivar name: the model's name.
    :ivar argv: the command, one item per argument.
    :ivar env: changes to the environment that the host's agent gives to processes.
    :ivar cwd: absolute working directory.
    :ivar outputs: absolute directory of ``<name>.out`` and ``<name>.err``.
    :ivar timeout: seconds that it may run.
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
class BatchPlan:
    """One batch job: the script and the command that submits it."""

    name: str
    script_path: str
    script: str
    submit: tuple[str, ...]
    members: tuple[str, ...]


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
    batches: list[BatchPlan] = field(default_factory=list)
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
    def directories(self) -> list[str]:
        """Directories that must exist before the jobs start and that no unit makes."""
        made = tuple(f"{unit.target}/" for unit in self.units)
        homes = [job for job in self.jobs if job.cwd != job.model._generated]
        wanted = {path: None for job in homes for path in (job.cwd, job.outputs)}
        return [path for path in wanted if path != self.context.cwd and not f"{path}/".startswith(made)]
