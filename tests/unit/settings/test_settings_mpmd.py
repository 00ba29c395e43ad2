"""Several programs in one command: MPMD lists, ERF files and containers."""

from __future__ import annotations

import shlex

import pytest

from asim.errors import ConfigError, ConfigTypeError, UnsupportedError
from asim.settings import (
    Apptainer,
    AprunSettings,
    Container,
    JsrunSettings,
    MpiexecSettings,
    MpirunSettings,
    PalsMpiexecSettings,
    RunSettings,
    Singularity,
    SrunSettings,
)

SLURM = ("srun", "--output", "/w/sim.out", "--error", "/w/sim.err", "--job-name", "sim")


def pair(kind, env=None, other_env=None):
    """Two programs of one kind, with awkward arguments."""
    one = kind("x", ["a b"], {"n": 1}, env)
    one.make_mpmd(kind("y", ["c $d"], {"n": 2}, other_env))
    return one


def test_srun_mpmd(step):
    """Each further program has its own flags, name and environment; arguments stay whole."""
    done = step(pair(SrunSettings, {"A": "1"}, {"B": "2"}), launcher="slurm")
    first = (*SLURM, "--export", "ALL,A=1", "-n", "1", "x", "a b")
    assert done.argv == (*first, ":", "-n", "2", "--job-name", "sim", "--export", "ALL,B=2", "y", "c $d")


def test_srun_mpmd_joins_comma_values(step):
    """Comma values of all programs go into srun's environment, and only the names are listed."""
    done = step(pair(SrunSettings, {"A": "1,2"}, {"B": "3,4"}), launcher="slurm")
    assert done.env == {"A": "1,2", "B": "3,4"}
    assert "ALL,A" in done.argv and "ALL,B" in done.argv


def test_aprun_mpmd(step):
    """aprun has one environment for all programs, written once."""
    done = step(pair(AprunSettings, {"A": "1"}, {"B": "2"}), launcher="pbs")
    env = ("-e", "A=1", "-e", "B=2")
    assert done.argv == ("aprun", "--wdir", "/w/sim", *env, "-n", "1", "x", "a b", ":", "-n", "2", "y", "c $d")


def test_mpi_mpmd(step):
    """The MPI commands take an environment and a directory for each program: neither is passed on to the next."""
    done = step(pair(MpirunSettings, {"A": "1"}, {"A": "2"}), launcher="slurm")
    first = ("mpirun", "--wdir", "/w/sim", "-x", "A=1", "--n", "1", "x", "a b")
    assert done.argv == (*first, ":", "--n", "2", "--wdir", "/w/sim", "-x", "A=2", "y", "c $d")


@pytest.mark.parametrize(
    ("kind", "flags"),
    [(SrunSettings, "-n"), (AprunSettings, "-n"), (MpirunSettings, "--n"), (PalsMpiexecSettings, "--n")],
)
def test_local_mpmd(kind, flags, step):
    """For the agent: programs joined by a colon, one environment, no placement."""
    settings = pair(kind, {"A": "1", "S": "same"}, {"B": "2", "S": "same"})
    done = step(settings)
    assert done.argv == (settings.run_command, flags, "1", "x", "a b", ":", flags, "2", "y", "c $d")
    assert done.env == {"A": "1", "S": "same", "B": "2"}


@pytest.mark.parametrize(
    ("kind", "launcher"),
    [(SrunSettings, "local"), (MpirunSettings, "local"), (AprunSettings, "pbs"), (JsrunSettings, "lsf")],
)
def test_one_environment_cannot_hold_two_values(kind, launcher, step):
    """Where the programs share one environment, two values of a variable are an error that names it."""
    with pytest.raises(UnsupportedError, match=r"mpmd\[0\].env_vars\['A'\] = '2'.*'1'"):
        step(pair(kind, {"A": "1"}, {"A": "2"}), launcher=launcher)


def test_mpmd_parts_must_fit():
    """Only settings of the same run command, not nested, not oneself."""
    one = MpirunSettings("x")
    one.make_mpmd(MpiexecSettings("y"))
    for other in (SrunSettings("y"), PalsMpiexecSettings("y"), RunSettings("y"), one, pair(MpirunSettings)):
        with pytest.raises(UnsupportedError, match="MpirunSettings"):
            one.make_mpmd(other)
    assert len(one.mpmd) == 1


def test_het_groups_and_mpmd_exclude_each_other():
    """srun's het groups are a job's components already."""
    grouped, parts = SrunSettings("x"), pair(SrunSettings)
    grouped.set_het_group([0])
    with pytest.raises(UnsupportedError, match="het_group"):
        grouped.make_mpmd(SrunSettings("y"))
    with pytest.raises(UnsupportedError, match="het_group"):
        SrunSettings("y").make_mpmd(grouped)
    with pytest.raises(ConfigError, match="het_group"):
        parts.set_het_group([0])


# --- ERF


def test_erf_lists_every_program_the_parent_first(step):
    """The whole file and command of an MPMD job; resource flags are left to the file."""
    one = JsrunSettings("x", ["a b", "it's"], {"np": 4, "smpiargs": "-gpu"}, {"A": "1"})
    one.set_erf_sets({"rank": "0-3", "host": "1", "cpu": "{0:4}", "gpu": "*", "memory": "100", "rank_count": "9"})
    two, three = JsrunSettings("y", env_vars={"B": "2"}), JsrunSettings("z")
    two.set_erf_sets({"rank_count": "2"})
    one.make_mpmd(two)
    one.make_mpmd(three)
    done = step(one, launcher="lsf")
    files = ("--stdio_stdout", "/w/sim.out", "--stdio_stderr", "/w/sim.err")
    tail = ("-E", "A=1", "-E", "B=2", "--smpiargs=-gpu", "--erf_input", "/w/sim.mpmd")
    assert done.argv == ("jsrun", "--chdir", "/w/sim", *files, *tail)
    lines = done.files["/w/sim.mpmd"].split("\n")
    assert lines == [
        "launch_distribution : packed",
        "",
        "app 0 : x 'a b' " + shlex.quote("it's"),
        "app 1 : y",
        "app 2 : z",
        "",
        "rank: 0-3: { host: 1; cpu: {0:4}; gpu: *; memory: 100}: app 0",
        "2: { host: *; cpu: *}: app 1",
        "1 : { host: *; cpu: *}: app 2",
        "",
    ]


def test_erf_of_a_local_job(step):
    """The agent places it, but the file is needed all the same."""
    done = step(pair(JsrunSettings, {"A": "1"}), run_command="/opt/jsrun")
    assert done.argv == ("/opt/jsrun", "--erf_input", "/w/sim.mpmd")
    assert list(done.files) == ["/w/sim.mpmd"]
    assert done.env == {"A": "1"}


@pytest.mark.parametrize(
    ("first", "second", "preamble", "head"),
    [
        ({}, {}, [], ["launch_distribution : packed"]),
        ({}, {"launch_distribution": "cyclic"}, [], ["launch_distribution : cyclic"]),
        ({"d": "plane:2"}, {"d": "cyclic"}, [], ["launch_distribution : plane:2"]),
        (
            {"d": "cyclic"},
            {},
            ["cpu_index_using: logical", "launch_distribution: packed"],
            ["launch_distribution: packed", "cpu_index_using: logical"],
        ),
    ],
)
def test_erf_head(first, second, preamble, head, step):
    """How to spread comes from the preamble, else from the first program that says, else packed; it stands first."""
    one = JsrunSettings("x", run_args=first)
    one.set_mpmd_preamble(preamble)
    one.make_mpmd(JsrunSettings("y", run_args=second))
    text = step(one, launcher="lsf").files["/w/sim.mpmd"]
    assert text.split("\n\n")[0].split("\n") == head


def test_erf_of_one_program(step):
    """make_mpmd() without another program describes this one by an ERF."""
    one = JsrunSettings("x", "a")
    one.make_mpmd()
    assert "app 0 : x a\n" in step(one, launcher="lsf").files["/w/sim.mpmd"]


def test_own_erf_file_replaces_the_resource_flags(step):
    """With a user's erf_input the program stays on the command line, without resource flags."""
    settings = JsrunSettings("x", run_args={"np": 2, "erf_input": "/my.erf"})
    settings.set_memory_per_node(5)
    assert step(settings).argv == ("jsrun", "--erf_input=/my.erf", "x")


def test_erf_entries_are_single_lines(step):
    """A line break cannot be written to an ERF: refused, not broken."""
    one = JsrunSettings("x", ["a\nb"])
    one.make_mpmd()
    with pytest.raises(ConfigError, match="line break"):
        step(one)
    for wrong in ({"host": "1\n2"}, {"hosts": "1"}):
        with pytest.raises(ConfigError, match="host"):
            one.set_erf_sets(wrong)
    with pytest.raises(ConfigError, match="preamble_lines"):
        one.set_mpmd_preamble(["a\nb"])


# --- containers


@pytest.mark.parametrize(
    ("container", "prefix"),
    [
        (Singularity("i.sif"), ("exec", "--pwd", "/w/sim", "--bind", "/w/sim", "i.sif")),
        (
            Singularity("i", "--nv --env 'A=b c'"),
            ("exec", "--pwd", "/w/sim", "--nv", "--env", "A=b c", "--bind", "/w/sim", "i"),
        ),
        (Singularity("i", ["--x y"]), ("exec", "--pwd", "/w/sim", "--x y", "--bind", "/w/sim", "i")),
        (Singularity("i", mount="/a:/b,/c"), ("exec", "--pwd", "/w/sim", "--bind", "/w/sim,/a:/b,/c", "i")),
        (Singularity("i", mount=["/w"]), ("exec", "--pwd", "/w/sim", "--bind", "/w", "i")),
        (
            Singularity("i", mount={"/a": "/w/sim", "/c": ""}),
            ("exec", "--pwd", "/w/sim", "--bind", "/a:/w/sim,/c", "i"),
        ),
        (Singularity("i", mount="/w/simulations"), ("exec", "--pwd", "/w/sim", "--bind", "/w/sim,/w/simulations", "i")),
        (Singularity("i", working_directory="/in"), ("exec", "--pwd", "/in", "--bind", "/in", "i")),
    ],
)
def test_container_prefix(container, prefix, step):
    """Directory, arguments one item each, mounts with the directory among them, image."""
    assert step(RunSettings("x", ["a b"], container=container)).argv == ("singularity", *prefix, "x", "a b")


def test_apptainer_is_singularity_by_another_name(step):
    """The newer word, the same arguments."""
    assert step(RunSettings("x", container=Apptainer("i"))).argv[:4] == ("apptainer", "exec", "--pwd", "/w/sim")


@pytest.mark.parametrize(
    ("kind", "launcher"),
    [
        (SrunSettings, "slurm"),
        (AprunSettings, "pbs"),
        (MpirunSettings, "pbs"),
        (PalsMpiexecSettings, "pals"),
        (JsrunSettings, "lsf"),
    ],
)
def test_every_run_command_honours_the_container(kind, launcher, step):
    """The container stands right before the executable, also where SmartSim forgets it."""
    done = step(kind("x", ["a"], container=Singularity("i")), launcher=launcher)
    assert done.argv[-9:] == ("singularity", "exec", "--pwd", "/w/sim", "--bind", "/w/sim", "i", "x", "a")
    assert done.argv.count("singularity") == 1


def test_mpmd_programs_have_a_container_each(step):
    """Every program of an MPMD job runs in its own container, on the command line and in an ERF."""
    one = MpirunSettings("x", container=Singularity("i"))
    one.make_mpmd(MpirunSettings("y", container=Singularity("j")))
    text = " ".join(step(one).argv)
    assert " i x : singularity exec --pwd /w/sim --bind /w/sim j y" in text
    erf = JsrunSettings("x", container=Singularity("i"))
    erf.make_mpmd()
    assert "app 0 : singularity exec --pwd /w/sim --bind /w/sim i x" in step(erf).files["/w/sim.mpmd"]


def test_missing_mount_of_an_explicit_directory_is_said(caplog):
    """A working directory that the user's mounts leave out is added, and logged once, when the container is made."""
    Singularity("i", mount="/a", working_directory="/b")
    assert "working directory /b is not mounted" in caplog.text
    caplog.clear()
    Singularity("i", mount="/b", working_directory="/b/c")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda: Singularity(5),
        lambda: Singularity("i", 5),
        lambda: Singularity("i", ["a", 5]),
        lambda: Singularity("i", mount=5),
        lambda: Singularity("i", mount={"/a": 5}),
        lambda: Singularity("i", working_directory=5),
    ],
)
def test_container_types_are_checked(make):
    """A wrong type is refused when the container is made, and the value is named."""
    with pytest.raises(ConfigTypeError, match="5"):
        make()


def test_a_plain_container_cannot_run(step):
    """The base class has no program to run images with, and says which have."""
    with pytest.raises(UnsupportedError, match="Singularity or Apptainer"):
        step(RunSettings("x", container=Container("i")))
