"""Models."""

from __future__ import annotations

import numpy as np
import pytest

from asim.entities import Model
from asim.errors import ConfigError, ConfigTypeError, EntityExistsError
from asim.settings import SbatchSettings

from .makers import ensemble, model, settings


def test_defaults() -> None:
    """A model with a name and settings has no parameters, no files, no batch settings, and prefixes its keys."""
    one = Model("m", None, settings())
    assert (one.params, one.params_as_args, one.batch_settings, one.exe_args) == ({}, (), None, [])
    assert not one.files
    assert one.query_key_prefixing()
    assert (one.ml_objects, one.colocated, one.incoming_entities) == ((), False, ())


@pytest.mark.parametrize("bad", [None, "/bin/prog", {"exe": "x"}])
def test_without_run_settings(bad: object) -> None:
    """A model needs run settings, in the constructor and when they are replaced."""
    with pytest.raises(ConfigTypeError, match="m: run_settings = .*: must be run settings"):
        Model("m", None, bad)  # type: ignore[arg-type]
    one = model()
    with pytest.raises(ConfigTypeError, match="m: run_settings = .*: must be run settings"):
        one.run_settings = bad  # type: ignore[assignment]


def test_batch_settings() -> None:
    """Batch settings are kept; anything else is refused."""
    batch = SbatchSettings()
    assert model(batch_settings=batch).batch_settings is batch
    with pytest.raises(ConfigTypeError, match="m: batch_settings = .*: must be batch settings"):
        model(batch_settings=settings())


def test_settings_are_the_users() -> None:
    """A model's settings are the object that was given, and what is changed there counts; they can be replaced."""
    mine = settings()
    one = model(run_settings=mine)
    assert one.run_settings is one.settings_view is mine
    mine.add_exe_args("-v")
    assert one.exe_args == ["-v"]
    other = settings("/bin/other")
    one.run_settings = other
    assert one.settings_view is other


# -- parameters


def test_params_keep_what_was_given() -> None:
    """Values stay as the user gave them; the dict is the model's own."""
    given = {"a": [95, 100], "b": np.float64(0.5)}
    one = model(params=given)
    assert one.params == given
    given["c"] = 1
    assert "c" not in one.params


def test_arguments_of_parameters() -> None:
    """Parameters named as arguments come after those of the settings; short names are two items, long ones one."""
    one = model(
        params={"g": 1, "steps": [1, 2], "--x": "a b", "unused": 0},
        params_as_args=["g", "steps", "--x"],
        run_settings=settings(exe_args="in.txt"),
    )
    assert one.params_to_args() == ["-g", "1", "--steps=1 2", "--x=a b"]
    assert one.exe_args == ["in.txt", "-g", "1", "--steps=1 2", "--x=a b"]


def test_arguments_can_be_asked_often() -> None:
    """Asking for the arguments changes nothing."""
    one = model(params={"x": 1}, params_as_args="x")
    assert one.exe_args == one.exe_args == ["-x", "1"]
    assert one.settings_view.exe_args == []


def test_values_in_params_as_args() -> None:
    """The names may be in params and the values in params_as_args, as in the seed."""
    one = model(params="THERMO", params_as_args={"THERMO": [95, 100]})
    assert one.params == {"THERMO": [95, 100]}
    assert one.exe_args == ["--THERMO=95 100"]


def test_bad_params() -> None:
    """An argument that is no parameter, and a value that is no value, are refused by their names."""
    with pytest.raises(ConfigError, match="m: params_as_args"):
        model(params={"a": 1}, params_as_args=["b"])
    with pytest.raises(ConfigTypeError, match="m: params"):
        model(params=3)


def test_value_of_another_type() -> None:
    """A value that can never be written is refused when the model is made, with its name."""
    with pytest.raises(ConfigTypeError, match=r"m: params\['a'\]"):
        model(params={"a": object()})


# -- files


def test_attach() -> None:
    """Attaching replaces what was attached before."""
    one = model()
    one.attach_generator_files(to_copy=["a"], to_symlink="b", to_configure="c")
    assert one.files.copy == ("a",)
    one.attach_generator_files(to_configure="d")
    assert (one.files.copy, one.files.configure) == ((), ("d",))


def test_attach_names_the_model() -> None:
    """An error of an attachment names the model, and what was attached before stays."""
    one = model()
    one.attach_generator_files(to_copy="a")
    with pytest.raises(ConfigTypeError, match="m: to_symlink = 3"):
        one.attach_generator_files(to_symlink=3)  # type: ignore[arg-type]
    assert one.files.copy == ("a",)


def test_table_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    """The table can be had and printed."""
    one = model()
    assert one.attached_files_table == "No file attached to this entity."
    one.attach_generator_files(to_copy="a")
    one.print_attached_files()
    assert capsys.readouterr().out == one.attached_files_table + "\n"
    assert "Copy" in one.attached_files_table


# -- data


def test_key_prefixing() -> None:
    """Prefixing can be switched off and on."""
    one = model()
    one.disable_key_prefixing()
    assert not one.query_key_prefixing()
    one.enable_key_prefixing()
    assert one.query_key_prefixing()
    assert not model(enable_key_prefixing=False).query_key_prefixing()


def test_incoming_entities() -> None:
    """Entities are registered in order, each name once."""
    one, a, group = model(), model("a"), ensemble()
    one.register_incoming_entity(a)
    one.register_incoming_entity(group)
    assert one.incoming_entities == (a, group)
    with pytest.raises(EntityExistsError, match="m: incoming_entity = 'a': an entity of this name"):
        one.register_incoming_entity(model("a"))
    with pytest.raises(ConfigTypeError, match="m: incoming_entity = 'a': must be a Model or an Ensemble"):
        one.register_incoming_entity("a")  # type: ignore[arg-type]
    assert one.incoming_entities == (a, group)
