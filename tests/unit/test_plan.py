"""The plan of a start on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from asim.entities import Ensemble, Model
from asim.errors import ConfigError, ConfigTypeError, EntityExistsError, MissingFileError, UnsupportedError
from asim.members import members, place, ungenerated, units_of
from asim.plan import Facts, JobSpec
from asim.planner import SLICE, Planner, check_targets, needs
from asim.policies import Retry
from asim.settings import MpiexecSettings, SbatchSettings, Singularity

from .makers import CONTEXT, ensemble, file, folder, model, planned, settings, unit


def names(found: Sequence[tuple[Model, Ensemble | None]]) -> list[str]:
    """The names of the models among members."""
    return [one.name for one, _ in found]


def job(*entities: Any, **kwargs: Any) -> JobSpec:
    """The first job of a plan."""
    return planned(*entities, **kwargs).jobs[0]


# -- members


def test_members() -> None:
    """Every model with the ensemble that it came in, in the order of the entities."""
    alone, group = model(), ensemble()
    assert members([group, alone]) == [(group[0], group), (group[1], group), (alone, None)]


def test_members_of_nothing() -> None:
    """At least one entity must be given, and an ensemble must have members."""
    with pytest.raises(ConfigError, match="at least one Model, Ensemble or Orchestrator"):
        members([])
    with pytest.raises(ConfigError, match="entities = 'e': this ensemble is empty"):
        members([model(), Ensemble("e", batch_settings=SbatchSettings())])


@pytest.mark.parametrize("thing", ["m", None, settings(), [model()]])
def test_members_of_another_type(thing: object) -> None:
    """What is no entity is refused."""
    with pytest.raises(ConfigTypeError, match="entities = .*: must be a Model, an Ensemble or an Orchestrator"):
        members([thing])


def test_names_are_unique() -> None:
    """Two entities of one name are refused: models, ensembles, and members of either, also one model given twice."""
    group, other, one = ensemble(), ensemble("f"), model()
    other.add_model(model("e_1"))
    for entities in (
        [one, one],
        [one, model()],
        [group, group],
        [group, group[0]],
        [group, model("e")],
        [group, model("e_0")],
        [group, other],
        [model("f"), other],
    ):
        with pytest.raises(EntityExistsError, match=r"entities = '(m|e|e_0|e_1|f)': two of the entities"):
            members(entities)
    assert len(members([group, one, model("e_2")])) == 4


# -- where jobs run


def test_neither_generated_nor_placed() -> None:
    """It runs in the driver's directory, with its outputs in the experiment's."""
    spec = job(model())
    assert (spec.cwd, spec.outputs) == ("/w", "/w/exp")
    assert (spec.stdout, spec.stderr) == ("/w/exp/m.out", "/w/exp/m.err")
    member = job(ensemble())
    assert (member.cwd, member.stdout) == ("/w", "/w/exp/e_0.out")


@pytest.mark.parametrize(("path", "home"), [("runs/x", "/w/exp/runs/x"), ("/data/x", "/data/x")])
def test_placed_model(path: str, home: str) -> None:
    """A path that was given is the directory of the run and of its outputs; a relative one is in the experiment's."""
    spec = job(model(path=path))
    assert (spec.cwd, spec.outputs, spec.stdout) == (home, home, f"{home}/m.out")


def test_placed_ensemble() -> None:
    """Of an ensemble with a path every member has a directory in it, except where it has a path of its own."""
    group = ensemble(path="/data")
    group[1].set_path("own")
    assert [spec.cwd for spec in planned(group).jobs] == ["/data/e_0", "/w/exp/own"]


def test_generated_before() -> None:
    """What generate made is where it runs; a path that was set later counts more."""
    one = model()
    one._generated = "/w/exp/m"
    assert job(one).cwd == "/w/exp/m"
    one.set_path("elsewhere")
    assert job(one).cwd == "/w/exp/elsewhere"


def test_generated_by_this_start() -> None:
    """Attached files are generated first, and the job runs there: a model's in its directory, a member's in its own."""
    one, group = model(), ensemble()
    one.attach_generator_files(to_copy="f")
    group.attach_generator_files(to_copy="f")
    plan = planned(one, group, sources=[file("/w/f")])
    assert [(made.name, made.target) for made in plan.units] == [("m", "/w/exp/m"), ("e", "/w/exp/e")]
    assert [spec.cwd for spec in plan.jobs] == ["/w/exp/m", "/w/exp/e/e_0", "/w/exp/e/e_1"]
    assert plan.jobs[1].stdout == "/w/exp/e/e_0/e_0.out"
    assert plan.directories == []


def test_experiments_directory_itself() -> None:
    """A model may run in the experiment's own directory, which is named in its shortest form."""
    assert job(model(path=".")).cwd == "/w/exp"


# -- directories to make


def test_directories() -> None:
    """Directories of runs and outputs are made, each once, but not the driver's own and not what generate makes."""
    placed, made = model("placed", path="p"), model("made")
    made.attach_generator_files(to_copy="f")
    plan = planned(model("a"), model("b"), placed, made, sources=[file("/w/f")])
    assert plan.directories == ["/w/exp", "/w/exp/p"]


def test_experiment_in_the_drivers_directory() -> None:
    """An experiment whose directory is the driver's own needs nothing made."""
    assert planned(model(), context=replace(CONTEXT, path="/w")).directories == []


def test_units_of_generate() -> None:
    """generate makes a directory for each model and one for each whole ensemble, also when they were made before."""
    one, group = model(), ensemble(path="runs")
    one._generated = group[0]._generated = group._generated = "/old"
    made = units_of(CONTEXT, members([group, one]), again=True)
    assert [(each.name, each.target, each.ensemble) for each in made] == [
        ("m", "/w/exp/m", None),
        ("e", "/w/exp/runs", group),
    ]
    assert made[1].models == ((group[0], "e_0"), (group[1], "e_1"))


def test_member_with_a_path_is_a_unit_of_its_own() -> None:
    """A member with a path of its own is not in the ensemble's directory."""
    group = ensemble()
    group[0].set_path("/data/x")
    made = units_of(CONTEXT, members([group]), again=True)
    assert [(each.name, each.target) for each in made] == [("e_0", "/data/x"), ("e", "/w/exp/e")]
    assert made[1].models == ((group[1], "e_1"),)


@pytest.mark.parametrize(("path", "target"), [(None, "/w/exp/e/late"), ("/runs", "/runs/late")])
def test_member_added_after_generate(path: str | None, target: str) -> None:
    """A member that came after its ensemble was generated gets a directory beside the others."""
    group, late = ensemble(path=path), model("late")
    group._generated = "/x"
    for one in group:
        one._generated = f"/x/{one.name}"
    late.attach_generator_files(to_copy="f")
    group.add_model(late)
    found = members([group])
    assert names(ungenerated(found)) == ["late"]
    assert [each.target for each in units_of(CONTEXT, ungenerated(found))] == [target]


def test_ungenerated() -> None:
    """start generates what has files and was not generated; with one member of an ensemble, all that share its home."""
    plain, done, pending, group, other = model("a"), model("b"), model("c"), ensemble(), ensemble("f")
    for one in (done, pending, group[1]):
        one.attach_generator_files(to_copy="f")
    done._generated = "/w/exp/b"
    assert names(ungenerated(members([plain, done, pending, group, other]))) == ["c", "e_0", "e_1"]


def test_member_with_its_own_path_and_no_files_is_not_generated() -> None:
    """A member without files that was given a directory just runs there, whatever its ensemble needs."""
    group = ensemble()
    group[0].attach_generator_files(to_copy="f")
    group[1].set_path("/data/there")
    plan = planned(group, sources=[file("/w/f")], taken=["/data/there"])
    assert [spec.cwd for spec in plan.jobs] == ["/w/exp/e/e_0", "/data/there"]


def test_member_with_its_own_path_and_files_does_not_make_its_ensemble() -> None:
    """Files of a member that lives elsewhere are no reason to give the others a directory."""
    group = ensemble()
    group[0].set_path("/data/there")
    group[0].attach_generator_files(to_copy="f")
    plan = planned(group, sources=[file("/w/f")])
    assert [spec.cwd for spec in plan.jobs] == ["/data/there", "/w"]


def test_place() -> None:
    """Only a path that somebody gave is a place."""
    group = ensemble(path="runs")
    assert place(CONTEXT, model(), None) is None
    assert place(CONTEXT, group[0], group) == "/w/exp/runs/e_0"
    assert place(CONTEXT, group[0], None) is None


# -- overwriting


def test_taken_directory() -> None:
    """A directory that exists is an error that says how to replace it, or is marked as replaced."""
    units = [unit(model()), unit(model("n"), name="n", target="/w/exp/n")]
    with pytest.raises(EntityExistsError, match=r"n: directory = '/w/exp/n': exists; generate\(..., overwrite=True\)"):
        check_targets(CONTEXT, units, frozenset({"/w/exp/n"}), overwrite=False)
    marked = check_targets(CONTEXT, units, frozenset({"/w/exp/n"}), overwrite=True)
    assert [each.replaces for each in marked] == [False, True]
    assert not units[1].replaces


@pytest.mark.parametrize("path", ["/w/exp", "/w", "/"])
@pytest.mark.parametrize("taken", [True, False])
def test_directories_that_are_never_replaced(path: str, taken: bool) -> None:
    """The experiment's directory, the driver's, and any above them are never replaced."""
    context = replace(CONTEXT, path="/w/exp", cwd="/w/there")
    units = units_of(context, [(model(path=path), None)])
    with pytest.raises(ConfigError, match="m: path = '.*': holds the experiment's directory or the current one"):
        check_targets(context, units, frozenset({path} if taken else ()), overwrite=True)


def test_own_directory_by_another_name() -> None:
    """The experiment's directory is not replaced when it is called "."."""
    units = units_of(CONTEXT, [(model(path="."), None)])
    with pytest.raises(ConfigError, match="holds the experiment's directory"):
        check_targets(CONTEXT, units, frozenset({each.target for each in units}), overwrite=True)


def test_neighbours_may_be_replaced() -> None:
    """A directory whose name only begins like a protected one is not protected."""
    units = [unit(model(), target="/w/ex"), unit(model("n"), name="n", target="/w/exp-2")]
    assert len(check_targets(CONTEXT, units, frozenset({"/w/ex"}), overwrite=True)) == 2


@pytest.mark.parametrize(
    ("first", "second"), [("same", "same"), ("a", "a/b"), ("a/b", "a"), ("/data", "/data/x"), ("e", "e/e_0")]
)
def test_units_in_each_others_way(first: str, second: str) -> None:
    """Two directories to make, of which one is the other or lies in it, are an error before anything is written."""
    one, other = model("one", path=first), model("other", path=second)
    for each in (one, other):
        each.attach_generator_files(to_copy="f")
    with pytest.raises(ConfigError, match=r"one|other"):
        planned(one, other, sources=[file("/w/f")])


def test_start_never_overwrites() -> None:
    """start refuses to generate where something is."""
    one = model()
    one.attach_generator_files(to_copy="f")
    with pytest.raises(EntityExistsError, match="m: directory = '/w/exp/m'"):
        planned(one, sources=[file("/w/f")], taken=["/w/exp/m"])


# -- what must be looked up


def test_needs_of_programs() -> None:
    """Executables, run commands, container programs and the other parts of MPMD jobs are looked up, each once."""
    mpi = MpiexecSettings("first")
    mpi.make_mpmd(MpiexecSettings("second"))
    boxed = settings("inside", container=Singularity("image.sif"))
    found = members([model("a", run_settings=mpi), model("b", run_settings=boxed), ensemble(replicas=3)])
    assert needs(CONTEXT, found, ()).programs == {"mpiexec", "first", "second", "singularity", "/bin/prog"}


def test_needs_of_files() -> None:
    """Attached paths are absolute and in their shortest form; contents are wanted of what is configured."""
    one, other = model("a"), model("b")
    one.attach_generator_files(to_copy=["in", "./both"], to_symlink="/abs/x/..", to_configure=["sub/../both", "t"])
    other.attach_generator_files(to_copy=["t"])
    units = [unit(one, target="/t/a"), unit(other, target="/t/b"), unit(model("c"), target="/t/c")]
    wanted = needs(CONTEXT, (), units)
    assert wanted.sources == {"/w/in": False, "/w/both": True, "/abs": False, "/w/t": True}
    assert wanted.targets == {"/t/a", "/t/b", "/t/c"}
    assert wanted.programs == frozenset()


# -- commands


def test_plain_command() -> None:
    """The executable as it was found, then the arguments; the environment as it was set."""
    one = model(params={"x": 1}, params_as_args="x", run_settings=settings("prog", ["a b", "-v"], env_vars={"A": 1}))
    spec = job(one)
    assert spec.argv == ("/usr/bin/prog", "a b", "-v", "-x", "1")
    assert spec.env == (("A", "1"),)
    assert (spec.name, spec.model, spec.ensemble) == ("m", one, None)


def test_replicas_share_one_command() -> None:
    """The command of replicas is made once: it is the same object, so that it is sent once."""
    made = planned(ensemble(replicas=SLICE + 2)).jobs
    assert len({id(spec.argv) for spec in made}) == len({id(spec.env) for spec in made}) == 1


def test_other_arguments_are_other_commands() -> None:
    """Members with other arguments, or with settings of their own, have commands of their own."""
    group = ensemble(params={"x": [1, 2]}, params_as_args="x", replicas=2)
    group[3].run_settings.update_env({"A": 1})
    made = planned(group).jobs
    assert [spec.argv[1:] for spec in made] == [("-x", "1"), ("-x", "1"), ("-x", "2"), ("-x", "2")]
    assert made[0].argv is made[1].argv
    assert [spec.env for spec in made] == [(), (), (), (("A", "1"),)]


def test_mpiexec() -> None:
    """Under the local launcher the run command is a program of this machine, and the agent sets the directory."""
    run = MpiexecSettings("prog", ["x"], run_args={"n": 2}, env_vars={"A": "1"})
    spec = job(model(run_settings=run, path="p"))
    assert spec.argv == ("/usr/bin/mpiexec", "--n", "2", "/usr/bin/prog", "x")
    assert (spec.env, spec.cwd) == ((("A", "1"),), "/w/exp/p")


def test_container() -> None:
    """A container's program is looked up, its executable is not; every job has its own directory mounted."""
    run = settings("/inside/prog", "x", container=Singularity("image.sif"))
    group = Ensemble("e", run_settings=run, replicas=2, path="runs")
    argvs = [spec.argv for spec in planned(group, absent=["/inside/prog"]).jobs]
    head = ("/usr/bin/singularity", "exec", "--pwd")
    assert [argv[:3] for argv in argvs] == [head, head]
    assert [argv[3] for argv in argvs] == ["/w/exp/runs/e_0", "/w/exp/runs/e_1"]
    assert argvs[0][-3:] == ("image.sif", "/inside/prog", "x")


def test_container_with_a_directory_is_shared() -> None:
    """With a working directory of its own the container's command is the same for all."""
    run = settings("/inside/prog", container=Singularity("image.sif", working_directory="/data"))
    first, second = planned(Ensemble("e", run_settings=run, replicas=2)).jobs
    assert first.argv is second.argv


@pytest.mark.parametrize(
    ("run", "field", "word"),
    [
        (settings("no-such"), "exe", "no-such"),
        (settings("./no-such"), "exe", "./no-such"),
        (MpiexecSettings("prog"), "run_command", "mpiexec"),
        (MpiexecSettings("no-such"), "exe", "no-such"),
        (settings("x", container=Singularity("i.sif")), "exe", "singularity"),
    ],
)
def test_missing_programs(run: Any, field: str, word: str) -> None:
    """A program that is not here is an error that names the model, the field and the word."""
    with pytest.raises(MissingFileError) as caught:
        planned(model(run_settings=run), absent=[word])
    assert str(caught.value) == f"m: {field} = {word!r}: no such executable file here or in PATH"


def test_missing_program_of_another_part() -> None:
    """The executables of all parts of an MPMD job must be here, not only the first one's."""
    run = MpiexecSettings("first")
    run.make_mpmd(MpiexecSettings("no-such"))
    with pytest.raises(MissingFileError, match="m: .*'no-such'"):
        planned(model(run_settings=run), absent=["no-such"])


@pytest.mark.parametrize("value", ["\ud800", "a\0b"])
def test_arguments_that_no_program_can_be_given(value: str) -> None:
    """An argument that has no bytes, or a NUL, is refused here: the agent could not start the job."""
    one = model(params={"x": value}, params_as_args="x")
    with pytest.raises(ConfigError, match="x"):
        planned(one)


@pytest.mark.parametrize("where", ["exe_args", "env_vars", "exe"])
def test_settings_that_no_program_can_be_given(where: str) -> None:
    """Text without bytes is refused in settings too, at the latest in the plan."""
    text: dict[str, Any] = {"exe_args": ["\ud800"], "env_vars": {"A": "\ud800"}, "exe": "/bin/\ud800"}
    with pytest.raises(ConfigError, match=where):
        run = settings(**{"exe": "/bin/prog", where: text[where]})
        planned(model(run_settings=run))


# -- policies


@pytest.mark.parametrize(
    ("of_model", "of_ensemble", "of_settings", "expected"),
    [(None, None, None, None), (None, None, 3, 3), (None, 2, 3, 2), (1, 2, 3, 1), (1, None, None, 1)],
)
def test_precedence(
    of_model: int | None, of_ensemble: int | None, of_settings: int | None, expected: int | None
) -> None:
    """For timeout and retries the model counts before its ensemble, and that before the settings."""
    run = settings(timeout=of_settings, retries=of_settings)
    group = Ensemble("e", run_settings=run, replicas=1, timeout=of_ensemble, retries=of_ensemble)
    group[0].timeout = group[0].retries = of_model  # type: ignore[assignment]
    spec = job(group)
    assert spec.timeout == expected
    assert spec.retries == (None if expected is None else Retry(times=expected))


def test_no_retries_is_a_choice() -> None:
    """retries=0 of a model is not overridden."""
    spec = job(model(retries=0, run_settings=settings(retries=Retry(times=5))))
    assert spec.retries == Retry(times=0)


def test_bad_retries_of_settings() -> None:
    """What settings were given for retries is checked here, and the error names the model."""
    with pytest.raises(ConfigTypeError, match="m: retries = 'x'"):
        planned(model(run_settings=settings(retries="x")))


def test_waits() -> None:
    """A job waits for what its model and its ensemble wait for."""
    first, second, group = model("first"), model("second"), ensemble()
    group.after(first)
    group[0].after(second, when="ended")
    jobs = planned(first, second, group).jobs
    assert [spec.waits for spec in jobs[1:]] == [
        (),
        ((second, "ended"), (first, "completed")),
        ((first, "completed"),),
    ]


# -- refusals


def test_busy() -> None:
    """A name of which a job still runs cannot be started again."""
    with pytest.raises(EntityExistsError, match="entities = 'e_1': a job of this name is still running"):
        planned(ensemble(), context=replace(CONTEXT, busy=frozenset({"e_1"})))


def test_dependencies_are_checked() -> None:
    """Unknown targets are refused by the plan; what the context knows is known."""
    one, other = model(), model("other")
    one.after(other)
    with pytest.raises(ConfigError, match="m: after = 'other'"):
        planned(one)
    assert job(one, context=replace(CONTEXT, known=frozenset({other}))).waits == ((other, "completed"),)


def test_batch_on_local() -> None:
    """The local launcher has no batch jobs; the error says so and names the entity."""
    for entity in (model(batch_settings=SbatchSettings()), ensemble("m", batch_settings=SbatchSettings())):
        with pytest.raises(UnsupportedError, match="batch_settings = 'm': the local launcher has no batch jobs"):
            planned(entity)


def test_ml_objects() -> None:
    """ML objects need a database; with one beside the model they are in the plan."""
    with_script = model("s")
    with_script.add_script("f", script="def f(x): return x")
    with pytest.raises(ConfigError, match="s: ML object = 'f': no database is running"):
        planned(with_script)
    with_script.colocate_db_tcp()
    assert [upload.name for upload in planned(with_script).beside["s"]] == ["f"]


def test_generation_errors_come_with_the_plan() -> None:
    """A missing or conflicting attached file is an error of the plan, not of the writing."""
    one = model()
    one.attach_generator_files(to_copy=["a/x", "b/x"])
    with pytest.raises(MissingFileError, match="m: to_copy = 'a/x'"):
        planned(one)
    with pytest.raises(ConfigError, match="would be written to the same place"):
        planned(one, sources=[file("/w/a/x"), file("/w/b/x")])


# -- the plan as a whole


def test_warnings() -> None:
    """The plan has the warnings of generation."""
    one = model(params={"a": 1})
    one.attach_generator_files(to_configure="d")
    plan = planned(one, sources=[folder("/w/d")])
    assert list(plan.warnings) == ["m: no file and no argument uses the parameter(s) a"]


def test_a_chance_for_others() -> None:
    """Planning pauses after every slice of members, and the jobs are in order whatever the number of pauses."""
    group = ensemble(replicas=2 * SLICE + 1)
    planner = Planner(CONTEXT, Facts(programs={"/bin/prog": "/bin/prog"}))
    sizes = [len(planner.plan.jobs) for _ in planner.start(members([group]), ())]
    assert sizes == [SLICE, 2 * SLICE]
    assert [spec.name for spec in planner.plan.jobs] == [one.name for one in group]


def test_planning_changes_nothing() -> None:
    """Planning the same entities twice gives the same jobs, and leaves the entities as they were."""
    group = ensemble(params={"x": [1, 2]}, params_as_args="x")
    group.attach_generator_files(to_copy="f")
    first, second = (planned(group, sources=[file("/w/f")]) for _ in range(2))
    assert first.jobs == second.jobs
    assert group._generated is None
    assert group[0].settings_view is group[1].settings_view
