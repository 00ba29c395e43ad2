"""``srun --multi-prog``: several programs of one step, listed in a file."""

from __future__ import annotations

from typing import Any

import pytest

from asim.errors import ConfigError, ConfigTypeError, UnsupportedError
from asim.settings import Singularity, SrunSettings

FILE = "/w/sim.mpmd"
SLURM = ("srun", "--output", "/w/sim.out", "--error", "/w/sim.err", "--job-name", "sim")


def listed(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, **more: Any) -> SrunSettings:
    """Two programs in a file, with these run arguments; ``more`` is for both."""
    one = SrunSettings("x", ["a b"], first, **more)
    one.make_mpmd(SrunSettings("y", ["c"], second, **more))
    one.set_multi_prog()
    return one


def test_golden(step) -> None:
    """The whole command and the whole file: one number of tasks, and ranks in the order of the programs."""
    one = SrunSettings("x", ["a b", "it's"], {"n": 4, "N": 2, "cpus-per-task": 2}, {"A": "1", "B": "x,y"})
    two, three = SrunSettings("/opt/y", env_vars={"C": "3", "A": "1"}), SrunSettings("z", ["-v"], {"ntasks": "3"})
    one.make_mpmd(two)
    one.make_mpmd(three)
    one.set_multi_prog()
    done = step(one, launcher="slurm", run_command="/usr/bin/srun")
    tail = ("--export", "ALL,A=1,B,C=3", "-N", "2", "--cpus-per-task=2", "--ntasks", "8", "--multi-prog", FILE)
    assert done.argv == ("/usr/bin/srun", *SLURM[1:], *tail)
    assert done.env == {"B": "x,y"}
    assert done.files == {FILE: "0-3 x 'a b' 'it'\\''s'\n4-4 /opt/y\n5-7 z -v\n"}


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("", "''"),
        ("a/b-c_d.e,f=g:h@i+1", "a/b-c_d.e,f=g:h@i+1"),
        ("%t%o%%", "'%t%o%%'"),
        ("'", "''\\'''"),
        ('"', "'\"'"),
        ("\\", "'\\'"),
        ("#", "'#'"),
        ("\t", "'\t'"),
        ("é", "'é'"),
        ("$HOME `x`", "'$HOME `x`'"),
    ],
)
def test_quoting(word: str, written: str, step) -> None:
    """In the file only single quotes and backslashes quote, and ``%`` must be quoted, too."""
    one = listed()
    one.mpmd[0].exe_args = [word, "end"]
    assert step(one, launcher="slurm").files[FILE].splitlines()[1] == f"1-1 y {written} end"


def test_the_callers_words_are_written(step) -> None:
    """The executable and arguments of the first program are those that the caller resolved, the others' their own."""
    done = step(listed(), launcher="slurm", exe="/abs/x", exe_args=("changed",))
    assert done.files[FILE] == "0-0 /abs/x changed\n1-1 y c\n"


def test_each_in_its_container(step) -> None:
    """Every program has its own container."""
    done = step(listed(container=Singularity("i")), launcher="slurm")
    assert [line.split()[1:3] for line in done.files[FILE].splitlines()] == [["singularity", "exec"]] * 2


def test_local(step) -> None:
    """Placed by the agent of this machine the file is needed as well, and names differ from job to job."""
    done = step(listed(env_vars={"A": "1"}))
    assert done.argv == ("srun", "--ntasks", "2", "--multi-prog", FILE)
    assert done.env == {"A": "1"}
    assert not listed().placeless("local")
    assert SrunSettings("x", run_args={"multi-prog": True}).placeless("local")


def test_a_file_of_ones_own(step) -> None:
    """Without other programs it stays srun's flag, as users of Slurm know it."""
    own = SrunSettings("my.conf", run_args={"n": 4})
    own.set_multi_prog()
    done = step(own, launcher="slurm")
    assert (done.argv, done.files) == ((*SLURM, "-n", "4", "--multi-prog", "my.conf"), {})


def test_taken_back(step) -> None:
    """Without the flag, or with the value False, programs are joined by a colon; ``set`` is as good as the setter."""
    one = listed()
    one.set_multi_prog(False)
    assert ":" in step(one, launcher="slurm").argv
    one.set("multi-prog", False)
    assert ":" in step(one, launcher="slurm").argv
    one.set("--multi-prog")
    assert ":" not in step(one, launcher="slurm").argv
    assert ":" not in step(one.copy(), launcher="slurm").argv


@pytest.mark.parametrize("args", [{}, {"n": 2}])
def test_beside_others(args, step) -> None:
    """A step beside others must take no more than its tasks need; that number is always written."""
    assert "--exact" in step(listed(args), launcher="slurm", beside=True).argv
    assert "--exact" not in step(listed({**args, "overlap": None}), launcher="slurm", beside=True).argv
    assert "--exact" not in step(listed(args), launcher="slurm").argv


def test_same_options(step) -> None:
    """What the first program has, too, with the same value, can be said again of another."""
    done = step(listed({"n": 1, "cpus-per-task": 2}, {"n": 2, "cpus-per-task": 2}), launcher="slurm")
    assert done.argv[-5:] == ("--cpus-per-task=2", "--ntasks", "3", "--multi-prog", FILE)


@pytest.mark.parametrize(
    ("first", "second", "kind", "words"),
    [
        ({}, {"cpus-per-task": 2}, UnsupportedError, r"mpmd\[0\]\.run_args\['cpus-per-task'\] = '2': .* share"),
        ({"c": 1}, {"c": 2}, UnsupportedError, r"mpmd\[0\]\.run_args\['c'\] = '2'"),
        ({"N": 2}, {}, ConfigError, r"^run_args\['N'\] = '2': .*set_tasks"),
        ({}, {"ntasks-per-node": 4}, ConfigError, r"mpmd\[0\]\.run_args\['ntasks-per-node'\] = '4': .*set_tasks"),
        ({}, {"n": 0}, ConfigError, r"mpmd\[0\]\.run_args\['n'\] = '0'"),
        ({"n": "many"}, {}, ConfigTypeError, r"^run_args\['n'\] = 'many'"),
    ],
)
def test_options_that_one_step_cannot_have(first, second, kind, words, step) -> None:
    """Options are those of the whole step, and the number of tasks is never guessed; the error names the field."""
    with pytest.raises(kind, match=words):
        step(listed(first, second), launcher="slurm")


def test_environments_that_differ(step) -> None:
    """One step has one environment."""
    one = listed(env_vars={"A": "1"})
    one.mpmd[0].update_env({"A": "2"})
    with pytest.raises(UnsupportedError, match=r"mpmd\[0\].env_vars\['A'\] = '2'.*'1'"):
        step(one, launcher="slurm")


def test_words_that_the_file_cannot_hold(step) -> None:
    """A line break would begin another entry, and Slurm cuts off what is more than 127 words, silently."""
    one = listed()
    one.mpmd[0].exe_args = ["a\nb"]
    with pytest.raises(UnsupportedError, match=r"mpmd\[0\]\.exe_args = 'a\\nb': .*line break"):
        step(one, launcher="slurm")
    one.mpmd[0].exe_args = ["a"] * 126
    step(one, launcher="slurm")
    with pytest.raises(UnsupportedError, match="^exe_args = '127 arguments': .* at most 126 arguments"):
        step(one, launcher="slurm", exe_args=("a",) * 127)


@pytest.mark.parametrize("launcher", ["slurm", "local"])
def test_a_lone_colon(launcher: str, step) -> None:
    """On the command line srun would run what follows as another program; in the file, or without srun, it is nothing."""
    one = listed()
    one.mpmd[0].exe_args = [":", "d"]
    assert step(one, launcher=launcher).files[FILE].endswith("y : d\n")
    one.set_multi_prog(False)
    with pytest.raises(UnsupportedError, match=r"mpmd\[0\]\.exe_args = ':': .*another program"):
        step(one, launcher=launcher)
    alone = SrunSettings("x", [":"])
    with pytest.raises(UnsupportedError, match=r"^exe_args = ':'"):
        step(alone, launcher=launcher)
    assert step(alone, launcher="local", alone=True).argv == ("x", ":")
    assert step(SrunSettings("x", ["a:", " :"]), launcher=launcher).argv[-2:] == ("a:", " :")
