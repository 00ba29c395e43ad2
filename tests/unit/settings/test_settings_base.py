"""RunSettings: what is accepted, refused, kept and written, whatever the run command."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from asim.errors import ConfigError, ConfigTypeError
from asim.settings import (
    AprunSettings,
    JsrunSettings,
    MpirunSettings,
    PalsMpiexecSettings,
    RunSettings,
    Singularity,
    SrunSettings,
)

ALL_SETTERS = {
    "set_nodes": 1,
    "set_tasks": 1,
    "set_tasks_per_node": 1,
    "set_cpus_per_task": 1,
    "set_task_map": "core",
    "set_hostlist": "h1",
    "set_hostlist_from_file": "/f",
    "set_excluded_hosts": ["h1"],
    "set_cpu_bindings": [0],
    "set_cpu_binding_type": "core",
    "set_binding": "none",
    "set_memory_per_node": 10,
    "set_verbose_launch": True,
    "set_quiet_launch": True,
    "set_broadcast": "/tmp",
    "set_node_feature": "gpu",
    "set_walltime": "10",
    "set_mpmd_preamble": ["x"],
}


def test_str_arguments_are_split_and_list_arguments_are_not():
    """A str is a little command line, a list item is one argument whatever it holds."""
    assert RunSettings("x", "a  b c").exe_args == ["a", "b", "c"]
    assert RunSettings("x", ["a b", "", "$c"]).exe_args == ["a b", "", "$c"]


def test_arguments_can_be_added_and_assigned():
    """add_exe_args and assignment follow the same rule as the constructor."""
    settings = RunSettings("x", "a")
    settings.add_exe_args("b c")
    settings.add_exe_args(["d e"])
    assert settings.exe_args == ["a", "b", "c", "d e"]
    settings.exe_args = "y z"
    assert settings.exe_args == ["y", "z"]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: RunSettings("x", ["a", 5]), ["exe_args[1]", "5"]),
        (lambda: RunSettings("x", 5), ["exe_args", "5"]),
        (lambda: RunSettings(5), ["exe", "5"]),
        (lambda: RunSettings("x", run_args={"n": object()}), ["run_args['n']"]),
        (lambda: RunSettings("x", env_vars={"A": [1]}), ["env_vars['A']", "[1]"]),
        (lambda: RunSettings("x").update_env({"A": {}}), ["env_vars['A']"]),
        (lambda: RunSettings("x").set(5), ["run_args name", "5"]),
        (lambda: RunSettings("x").set("n", object()), ["run_args['n']"]),
        (lambda: RunSettings("x", container="image"), ["container", "image"]),
        (lambda: RunSettings("x", exe_arg="a"), ["exe_arg", "RunSettings"]),
        (lambda: SrunSettings("x").set_nodes("many"), ["nodes", "many"]),
        (lambda: SrunSettings("x").set_nodes(True), ["nodes", "True"]),
        (lambda: SrunSettings("x").set_hostlist([1]), ["host_list[0]", "1"]),
        (lambda: SrunSettings("x").make_mpmd("x"), ["settings", "'x'"]),
    ],
)
def test_wrong_types_are_refused_in_words(make, names):
    """A value of the wrong type is a TypeError and a ValueError that names the field and the value."""
    with pytest.raises(ConfigTypeError) as caught:
        make()
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: RunSettings("a\0b"), ["exe", "NUL"]),
        (lambda: RunSettings(" "), ["exe", "empty"]),
        (lambda: RunSettings("x", ["ok", "a\0"]), ["exe_args[1]", "NUL"]),
        (lambda: RunSettings("x", env_vars={"": "1"}), ["env_vars", "empty"]),
        (lambda: RunSettings("x", env_vars={"A=B": "1"}), ["env_vars", "A=B"]),
        (lambda: RunSettings("x", env_vars={"A": "\0"}), ["env_vars['A']", "NUL"]),
        (lambda: RunSettings("x", run_args={"--": 1}, run_command="foo").set(" "), ["run_args name", "empty"]),
        (lambda: SrunSettings("x", run_args={"--": 1}), ["run_args name", "--"]),
        (lambda: SrunSettings("x").set_nodes(-1), ["nodes", "-1"]),
        (lambda: SrunSettings("x").set_hostlist([]), ["host_list", "[]"]),
        (lambda: RunSettings("x", timeout=0), ["timeout", "0"]),
    ],
)
def test_values_that_cannot_work_are_refused_in_words(make, names):
    """Text that no process can be given is refused at once, with the field and the value named."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert all(name in str(caught.value) for name in names)


def test_paths_and_durations_are_understood():
    """exe may be a path object and timeout a timedelta; retries stays what it was."""
    policy = object()
    settings = RunSettings(Path("/bin/x"), timeout=timedelta(minutes=2), retries=policy)
    assert (settings.exe, settings.timeout, settings.retries) == ("/bin/x", 120.0, policy)


def test_run_command_word_is_lowered_and_path_stays():
    """A word is a name of a program, a path is a path."""
    assert RunSettings("x", run_command="MPIRUN").run_command == "mpirun"
    assert RunSettings("x", run_command="/Opt/X/srun").run_command == "/Opt/X/srun"


def test_zero_is_a_value_and_only_none_empty_true_are_bare():
    """0 keeps its value in every style; None, "" and True are a flag alone; False leaves the flag out."""
    args = {"a": 0, "b": None, "c": "", "d": True, "e": False, "f": 0.0}
    assert RunSettings("x", run_args=args).format_run_args() == ["a", "0", "b", "c", "d", "f", "0.0"]
    long = {f"{key}{key}": value for key, value in args.items()}
    assert SrunSettings("x", run_args=long).format_run_args() == ["--aa=0", "--bb", "--cc", "--dd", "--ff=0.0"]
    assert MpirunSettings("x", run_args=args).format_run_args() == ["--a", "0", "--b", "--c", "--d", "--f", "0.0"]


def test_base_keys_are_literal_and_known_classes_add_dashes():
    """The base class writes keys as given; the others accept keys with and without dashes."""
    assert RunSettings("x", run_args={"-np": 2}).format_run_args() == ["-np", "2"]
    base = RunSettings("x")
    base.set("--verbose")
    assert base.format_run_args() == ["--verbose"]
    srun = SrunSettings("x", run_args={"--nodes": 2, "-n": 4})
    srun.set("--exclusive")
    assert srun.run_args == {"nodes": 2, "n": 4, "exclusive": None}
    assert srun.format_run_args() == ["--nodes=2", "-n", "4", "--exclusive"]


def test_set_obeys_its_condition(caplog):
    """A false condition changes nothing; replacing a value is said in the log."""
    settings = SrunSettings("x")
    settings.set("qos", "low", condition=False)
    assert settings.run_args == {}
    settings.set("qos", "low")
    settings.set("qos", "high")
    assert settings.run_args == {"qos": "high"}
    assert "qos='high' replaces 'low'" in caplog.text


@pytest.mark.parametrize(
    ("kind", "reserved"),
    [
        (SrunSettings, ["chdir", "D"]),
        (AprunSettings, ["wdir"]),
        (MpirunSettings, ["wd", "wdir"]),
        (PalsMpiexecSettings, ["wd", "wdir"]),
        (JsrunSettings, ["chdir", "h", "stdio_stdout", "o", "stdio_stderr", "k"]),
    ],
)
def test_reserved_arguments_are_ignored_with_a_warning(kind, reserved, caplog):
    """What asim itself writes cannot be set, by set(), the constructor or behind their back."""
    settings = kind("x", run_args=dict.fromkeys(reserved, "/there"))
    for name in reserved:
        settings.set(f"--{name}", "/there")
        assert f"{kind.__name__}: argument {name} is set by asim" in caplog.text
    assert len(caplog.records) == 2 * len(reserved)
    assert settings.run_args == {}
    settings.run_args[reserved[0]] = "/there"
    assert settings.format_run_args() == []


@pytest.mark.parametrize("setter", ALL_SETTERS)
def test_base_has_no_flag_for_any_setter_and_says_so(setter, caplog):
    """Setters without a flag warn with class and setter, and change nothing."""
    settings = RunSettings("x")
    getattr(settings, setter)(ALL_SETTERS[setter])
    assert settings.run_args == {}
    assert [record.getMessage() for record in caplog.records] == [f"RunSettings has no flag for {setter}: ignored"]
    assert caplog.records[0].name == "asim" and caplog.records[0].levelname == "WARNING"


def test_base_cannot_mpmd(caplog):
    """make_mpmd without a run command that can do it warns."""
    settings = RunSettings("x")
    settings.make_mpmd(RunSettings("y"))
    assert settings.mpmd == []
    assert "RunSettings has no flag for make_mpmd" in caplog.text


def test_switches_can_be_switched_off():
    """Verbose and quiet launches can be taken back; taking back what was not set is fine."""
    settings = AprunSettings("x")
    settings.set_verbose_launch(True)
    settings.set_quiet_launch(True)
    assert settings.format_run_args() == ["--debug=7", "--quiet"]
    settings.set_verbose_launch(False)
    settings.set_quiet_launch(False)
    settings.set_quiet_launch(False)
    assert settings.run_args == {}


def test_env_values_become_text():
    """str, int, float and bool become text, None stays "no value"."""
    settings = RunSettings("x", env_vars={"A": 0})
    settings.update_env({"B": 1.5, "C": True, "D": None, "E": "e=,"})
    assert settings.env_vars == {"A": "0", "B": "1.5", "C": "True", "D": None, "E": "e=,"}
    assert settings.format_env_vars() == ["A=0", "B=1.5", "C=True", "D=", "E=e=,"]


def test_arguments_of_other_classes_are_tolerated():
    """alloc= and fail_if_missing_exec= may be passed to any class, so that launchers can be swapped."""
    assert RunSettings("x", alloc=5, fail_if_missing_exec=False).exe == "x"


def test_inputs_are_copied():
    """What the caller does later to his own lists and dicts changes nothing."""
    args, run_args, env = ["a"], {"n": 1}, {"A": "1"}
    settings = RunSettings("x", args, run_args=run_args, env_vars=env)
    args.append("b")
    run_args["m"] = 2
    env["B"] = "2"
    assert (settings.exe_args, settings.run_args, settings.env_vars) == (["a"], {"n": 1}, {"A": "1"})


def test_copy_is_independent():
    """Changing a copy, in all that can be changed, leaves the original as it was."""
    original = JsrunSettings("x", ["a"], {"np": 1}, {"A": "1"}, container=Singularity("i"), timeout=5)
    original.set_erf_sets({"host": "1"})
    original.make_mpmd(JsrunSettings("y"))
    twin = original.copy()
    assert type(twin) is JsrunSettings and twin.container is original.container and twin.timeout == 5.0
    twin.add_exe_args("b")
    twin.set_tasks(9)
    twin.update_env({"A": "2"})
    twin.erf_sets["host"] = "2"
    twin.mpmd[0].set_tasks(3)
    twin.make_mpmd(JsrunSettings("z"))
    assert (original.exe_args, original.run_args, original.env_vars) == (["a"], {"np": 1}, {"A": "1"})
    assert original.erf_sets == {"host": "1"}
    assert [part.run_args for part in original.mpmd] == [{}]


@pytest.mark.parametrize("kind", [RunSettings, SrunSettings, AprunSettings, MpirunSettings, JsrunSettings])
def test_placeless_steps_really_are(kind, step):
    """Where placeless says True, two jobs with nothing in common get the same step."""
    settings = kind("x", ["a"], env_vars={"A": "1"}, container=Singularity("i", working_directory="/in"))
    elsewhere = {"name": "other", "cwd": "/o", "stdout": "/o/1", "stderr": "/o/2"}
    assert settings.placeless("local")
    assert step(settings) == step(settings, **elsewhere)
    assert not settings.placeless("slurm")


def test_placeful_steps_are_called_so(step):
    """A container without working directory and an ERF depend on the job's directories."""
    boxed, erf = MpirunSettings("x", container=Singularity("i")), JsrunSettings("x")
    erf.make_mpmd(JsrunSettings("y"))
    for settings in (boxed, erf):
        assert not settings.placeless("local")
        assert step(settings) != step(settings, cwd="/elsewhere", stdout="/elsewhere/1")
