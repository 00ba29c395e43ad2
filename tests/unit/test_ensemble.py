"""Ensembles."""

from __future__ import annotations

from typing import Any

import pytest

from asim.entities import Ensemble, Model
from asim.errors import ConfigError, ConfigTypeError, EntityExistsError, UserStrategyError
from asim.settings import RunSettings, SbatchSettings

from .makers import ensemble, model, settings

# -- the five cases of the seed


def test_case_1_params() -> None:
    """Run settings and params: a member for each parameter set, the last parameter changing fastest, numbered from 0."""
    made = Ensemble("e", {"a": [1, 2], "b": ["x", "y"], "c": 5}, run_settings=settings())
    assert [one.name for one in made] == ["e_0", "e_1", "e_2", "e_3"]
    assert [one.params for one in made] == [
        {"a": 1, "b": "x", "c": 5},
        {"a": 1, "b": "y", "c": 5},
        {"a": 2, "b": "x", "c": 5},
        {"a": 2, "b": "y", "c": 5},
    ]


def test_case_1_values_in_params_as_args() -> None:
    """params may be the name, when params_as_args has the values; each member gets its own argument."""
    made = Ensemble("e", "THERMO", params_as_args={"THERMO": [95, 100, 105]}, run_settings=settings())
    assert [one.exe_args for one in made] == [["--THERMO=95"], ["--THERMO=100"], ["--THERMO=105"]]


def test_case_2_replicas() -> None:
    """Run settings and replicas: so many members without parameters."""
    made = ensemble(replicas=3)
    assert [(one.name, one.params) for one in made] == [("e_0", {}), ("e_1", {}), ("e_2", {})]
    assert [one.name for one in ensemble(replicas=1)] == ["e_0"]


def test_case_3_batch_settings() -> None:
    """Batch settings alone: empty, and one batch job, until models are added."""
    made = Ensemble("e", batch_settings=SbatchSettings(nodes=10))
    assert (len(made), made.models, made.batch) == (0, [], True)
    first = model("model_1", {"THERMO": [95, 100]})
    made.add_model(first)
    made.add_model(model("model_2"))
    assert made.models[0] is first
    assert [one.name for one in made.entities] == ["model_1", "model_2"]


def test_cases_4_and_5() -> None:
    """Run settings and batch settings with params, or with replicas: the members of cases 1 and 2 in one batch job."""
    batch = SbatchSettings()
    for made in (
        Ensemble("e", {"a": [1, 2]}, batch_settings=batch, run_settings=settings()),
        Ensemble("e", batch_settings=batch, run_settings=settings(), replicas=2),
    ):
        assert made.batch
        assert len(made) == 2
    assert not ensemble().batch


# -- what cannot be


def test_params_without_run_settings() -> None:
    """Params need run settings to make members of, also with batch settings."""
    with pytest.raises(ConfigError, match="e: run_settings = None: params need run_settings"):
        Ensemble("e", {"a": [1]}, batch_settings=SbatchSettings())


def test_nothing() -> None:
    """A name alone is no ensemble."""
    with pytest.raises(ConfigError, match="e: run_settings = None: an ensemble needs"):
        Ensemble("e")


@pytest.mark.parametrize("replicas", [None, 0, -1])
def test_too_few_replicas(replicas: int | None) -> None:
    """Without params there must be at least one replica."""
    with pytest.raises(ConfigError, match=f"e: replicas = {replicas}: without params there must be 1 or more"):
        ensemble(replicas=replicas)


@pytest.mark.parametrize("replicas", [True, 2.0, "2"])
def test_replicas_of_another_type(replicas: Any) -> None:
    """The number of replicas is an int."""
    with pytest.raises(ConfigTypeError, match="e: replicas = .*: must be an int"):
        ensemble(replicas=replicas)


def test_settings_of_another_type() -> None:
    """Run settings and batch settings are not to be confused."""
    with pytest.raises(ConfigTypeError, match="e: batch_settings = .*: must be BatchSettings"):
        Ensemble("e", batch_settings=settings())  # type: ignore[arg-type]
    with pytest.raises(ConfigTypeError, match="e: run_settings = .*: must be RunSettings"):
        Ensemble("e", run_settings=SbatchSettings())  # type: ignore[arg-type]


def test_bad_strategy_without_params() -> None:
    """An unknown strategy is an error also where there is nothing to expand."""
    with pytest.raises(ConfigError, match="perm_strategy = 'all'"):
        ensemble(perm_strat="all")


def test_name_with_room_for_numbers() -> None:
    """The members' names must be possible, too: the error comes with the ensemble, not with its start."""
    with pytest.raises(ConfigError, match="name = "):
        ensemble("x" * 200)


# -- strategies


def test_replicas_of_parameter_sets() -> None:
    """With params every set is repeated, one after the other."""
    made = ensemble(replicas=2, params={"a": [1, 2]})
    assert [one.params["a"] for one in made] == [1, 1, 2, 2]


def test_step() -> None:
    """Step takes the first values, then the second ones."""
    made = Ensemble("e", {"a": [1, 2], "b": [3, 4]}, run_settings=settings(), perm_strat="step")
    assert [tuple(one.params.values()) for one in made] == [(1, 3), (2, 4)]


def test_random_with_seed() -> None:
    """Random draws as many as replicas says, and the same ones with the same seed."""

    def draw(seed: int) -> list[object]:
        made = ensemble(replicas=5, params={"a": range(1000)}, perm_strat="random", seed=seed)
        return [one.params["a"] for one in made]

    assert len(set(draw(1))) == 5
    assert draw(1) == draw(1) != draw(2)
    assert len(ensemble(replicas=None, params={"a": range(10)}, perm_strat="random", n_models=4)) == 4


def test_user_strategy() -> None:
    """A callable is told names, values and n_models, and its sets become the members."""

    def pick(names: list[str], values: list[list[object]], n_models: int) -> list[dict[str, object]]:
        assert (names, values, n_models) == (["a", "b"], [[1, 2], [3]], 1)
        return [{"a": 2, "b": 3}]

    made = Ensemble("e", {"a": [1, 2], "b": 3}, run_settings=settings(), perm_strat=pick, n_models=1)
    assert [one.params for one in made] == [{"a": 2, "b": 3}]


def test_user_strategy_that_returns_something_else() -> None:
    """A strategy that returns no list of dicts is told so."""
    with pytest.raises(UserStrategyError, match="returned 3"):
        Ensemble("e", {"a": 1}, run_settings=settings(), perm_strat=lambda *_: 3)  # type: ignore[arg-type, return-value]


def test_user_strategy_that_forgets_an_argument() -> None:
    """A set without a parameter that is an argument is an error that names it, not a KeyError at the start."""
    with pytest.raises(ConfigError, match="x"):
        made = Ensemble("e", {"x": 1}, params_as_args=["x"], run_settings=settings(), perm_strat=lambda *_: [{}])
        made[0].params_to_args()


# -- members


def test_members_have_everything() -> None:
    """A member made in bulk has every attribute of a model that was made alone."""
    alone, member = model(), ensemble()[1]
    slots = [slot for kind in Model.__mro__ for slot in getattr(kind, "__slots__", ()) if slot != "__weakref__"]
    assert len(slots) > 10
    assert [slot for slot in slots if hasattr(alone, slot) and not hasattr(member, slot)] == []
    assert member.query_key_prefixing()
    assert (member.type, member.path, member.timeout, member.retries) == ("Model", None, None, None)


def test_members_share_settings_until_asked() -> None:
    """Members share one settings object; who asks for a member's own gets a copy that changes nobody else's."""
    made = ensemble(replicas=3)
    first, second, third = made
    assert first.settings_view is second.settings_view is third.settings_view
    first.run_settings.add_exe_args("-x")
    assert first.run_settings is first.settings_view is not second.settings_view
    assert [one.exe_args for one in made] == [["-x"], [], []]
    second.run_settings = other = settings("/bin/other")
    assert second.run_settings is second.settings_view is other


def test_users_settings_are_not_shared() -> None:
    """What the user changes in the settings afterwards does not change members, and members do not change it."""
    mine = settings()
    made = ensemble(run_settings=mine)
    mine.add_exe_args("late")
    made[0].run_settings.update_env({"A": 1})
    assert [one.exe_args for one in made] == [[], []]
    assert mine.env_vars == {}


def test_members_are_independent() -> None:
    """Paths, dependencies, files, parameters and data sources of one member are not those of another."""
    made = ensemble(params={"a": 1}, replicas=2)
    first, second = made
    first.set_path("own")
    first.after(model("x"))
    first.attach_generator_files(to_copy="f")
    first.params["a"] = 2
    first.register_incoming_entity(model("y"))
    first.disable_key_prefixing()
    first.timeout = 3
    assert (second.path, second.dependencies, second.incoming_entities, second.timeout) == (None, (), (), None)
    assert second.params == {"a": 1}
    assert not second.files
    assert second.query_key_prefixing()


def test_lookup() -> None:
    """A member is found by its name or its number, also from the end."""
    made = ensemble(replicas=3)
    assert made["e_1"] is made[1] is made.models[1]
    assert made[-1].name == "e_2"
    with pytest.raises(KeyError, match="e has no member 'e_3'"):
        made["e_3"]
    with pytest.raises(IndexError):
        made[3]


def test_list_of_models_is_a_copy() -> None:
    """Changing the list of models does not change the ensemble."""
    made = ensemble()
    made.models.clear()
    assert len(made) == 2


def test_add_model() -> None:
    """A model can be added to any ensemble, once for each name; nothing else can."""
    made = ensemble()
    made.add_model(model("extra"))
    assert [one.name for one in made] == ["e_0", "e_1", "extra"]
    with pytest.raises(EntityExistsError, match="e: model = 'e_0': there is a member of this name already"):
        made.add_model(model("e_0"))
    with pytest.raises(ConfigTypeError, match="e: model = .*: must be a Model"):
        made.add_model(made)  # type: ignore[arg-type]
    assert len(made) == 3


# -- for every member


def test_files_of_every_member(capsys: pytest.CaptureFixture[str]) -> None:
    """Files are attached to every member, as one shared object."""
    made = ensemble()
    made.attach_generator_files(to_copy="a", to_configure=["b"])
    assert made[0].files is made[1].files
    assert made[0].files.configure == ("b",)
    made.print_attached_files()
    assert capsys.readouterr().out == made.attached_files_table + "\n"


def test_tables_of_files() -> None:
    """Members with the same files share a table, which is headed by the first one's name."""
    made = ensemble(replicas=3)
    made.attach_generator_files(to_copy="a")
    made[1].attach_generator_files(to_copy="b")
    heads = [part.splitlines()[0] for part in made.attached_files_table.split("\n\n")]
    assert heads == ["e_0 …", "e_1"]
    assert Ensemble("x", batch_settings=SbatchSettings()).attached_files_table.startswith("The ensemble is empty")


def test_bad_files_change_nothing() -> None:
    """An attachment that is refused leaves every member as it was, and names the ensemble."""
    made = ensemble()
    with pytest.raises(ConfigTypeError, match="e: to_copy = 3"):
        made.attach_generator_files(to_copy=3)  # type: ignore[arg-type]
    assert not any(one.files for one in made)


def test_key_prefixing_of_every_member() -> None:
    """Prefixing is switched for all, and is on only when it is on for all."""
    made = ensemble()
    made.disable_key_prefixing()
    assert not any(one.query_key_prefixing() for one in made)
    made.enable_key_prefixing()
    assert made.query_key_prefixing()
    made[1].disable_key_prefixing()
    assert not made.query_key_prefixing()


def test_incoming_entities_of_every_member() -> None:
    """An entity is registered with every member."""
    made, source = ensemble(), model("source")
    made.register_incoming_entity(source)
    assert all(one.incoming_entities == (source,) for one in made)


def test_ml_objects_of_every_member() -> None:
    """An ML object goes to the members that are there and to those that are added later."""
    made = ensemble()
    made.add_script("s", script="def f(x): return x")
    late = model("late")
    made.add_model(late)
    assert made.ml_objects == made[0].ml_objects == late.ml_objects
    assert [thing.name for thing in made.db_scripts] == ["s"]


def test_policies_of_the_ensemble() -> None:
    """fail_fast, timeout and retries are the ensemble's own."""
    made = ensemble(fail_fast=True, timeout=3, retries=1)
    assert made.fail_fast
    assert made.timeout == 3.0
    assert made.retries is not None
    assert not ensemble().fail_fast
    assert isinstance(made.run_settings, RunSettings)


# -- how members are submitted and started


def test_pack_and_placement() -> None:
    """All members are in one batch job and started by their run commands, unless something else is said."""
    assert (ensemble().pack, ensemble().placement) == ("job", "step")
    for pack in ("job", "array", "separate"):
        assert ensemble(pack=pack, batch_settings=SbatchSettings()).pack == pack
    assert ensemble(placement="agent").placement == "agent"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pack": "arrays"}, "e: pack = 'arrays': must be one of job, array, separate"),
        ({"pack": None}, "e: pack = None: must be one of job, array, separate"),
        ({"placement": "node"}, "e: placement = 'node': must be one of step, agent"),
    ],
)
def test_pack_and_placement_are_checked(wrong: dict[str, Any], words: str) -> None:
    """Another word is an error that names the field and what is allowed."""
    with pytest.raises(ConfigError, match=words):
        ensemble(**wrong)


@pytest.mark.parametrize("wrong", [{"pack": ["job"]}, {"placement": {}}])
def test_pack_and_placement_of_another_type(wrong: dict[str, Any]) -> None:
    """Also what is no text at all."""
    with pytest.raises(ConfigError, match="must be one of"):
        ensemble(**wrong)
