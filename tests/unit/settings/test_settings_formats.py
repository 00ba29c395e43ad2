"""The exact text of every run command: flags, environment, whole commands."""

from __future__ import annotations

import pytest

from asim.errors import ConfigError, UnsupportedError
from asim.settings import (
    AprunSettings,
    JsrunSettings,
    MpiexecSettings,
    MpirunSettings,
    OrterunSettings,
    PalsMpiexecSettings,
    RunSettings,
    SrunSettings,
)

MPI = (MpirunSettings, MpiexecSettings, OrterunSettings)
CALLS = {
    "set_nodes": 2,
    "set_tasks": 8,
    "set_tasks_per_node": 4,
    "set_cpus_per_task": 3,
    "set_hostlist": ["h1", "h2"],
    "set_hostlist_from_file": "/hosts",
    "set_excluded_hosts": ["h3", "h4"],
    "set_cpu_bindings": [0, 1],
    "set_cpu_binding_type": "core",
    "set_memory_per_node": 100,
    "set_verbose_launch": True,
    "set_quiet_launch": True,
    "set_walltime": "7",
    "set_task_map": "node",
    "set_node_feature": ["P100", "V100"],
    "set_binding": "packed:2",
    "set_num_rs": 5,
    "set_cpus_per_rs": 6,
    "set_gpus_per_rs": 0,
    "set_rs_per_host": 1,
    "set_tasks_per_rs": 9,
    "set_memory_per_rs": 11,
}
SRUN = {
    "set_nodes": ["--nodes=2"],
    "set_tasks": ["--ntasks=8"],
    "set_tasks_per_node": ["--ntasks-per-node=4"],
    "set_cpus_per_task": ["--cpus-per-task=3"],
    "set_hostlist": ["--nodelist=h1,h2"],
    "set_hostlist_from_file": ["--nodefile=/hosts"],
    "set_excluded_hosts": ["--exclude=h3,h4"],
    "set_cpu_bindings": ["--cpu_bind=map_cpu:0,1"],
    "set_memory_per_node": ["--mem=100M"],
    "set_verbose_launch": ["--verbose"],
    "set_quiet_launch": ["--quiet"],
    "set_walltime": ["--time=7"],
    "set_node_feature": ["-C", "P100,V100"],
}
APRUN = {
    "set_tasks": ["--pes=8"],
    "set_tasks_per_node": ["--pes-per-node=4"],
    "set_cpus_per_task": ["--cpus-per-pe=3"],
    "set_hostlist": ["--node-list=h1,h2"],
    "set_hostlist_from_file": ["--node-list-file=/hosts"],
    "set_excluded_hosts": ["--exclude-node-list=h3,h4"],
    "set_cpu_bindings": ["--cpu-binding=0,1"],
    "set_verbose_launch": ["--debug=7"],
    "set_quiet_launch": ["--quiet"],
    "set_walltime": ["--cpu-time-limit=7"],
}
MPIRUN = {
    "set_tasks": ["--n", "8"],
    "set_tasks_per_node": ["--npernode", "4"],
    "set_cpus_per_task": ["--cpus-per-proc", "3"],
    "set_hostlist": ["--host", "h1,h2"],
    "set_hostlist_from_file": ["--hostfile", "/hosts"],
    "set_cpu_binding_type": ["--bind-to", "core"],
    "set_verbose_launch": ["--verbose"],
    "set_quiet_launch": ["--quiet"],
    "set_walltime": ["--timeout", "7"],
    "set_task_map": ["--map-by", "node"],
}
PALS = {
    "set_tasks": ["--np", "8"],
    "set_tasks_per_node": ["--ppn", "4"],
    "set_hostlist": ["--hosts", "h1,h2"],
    "set_hostlist_from_file": ["--hostfile", "/hosts"],
    "set_cpu_binding_type": ["--cpu-bind", "core"],
    "set_verbose_launch": ["--verbose"],
}
JSRUN = {
    "set_tasks": ["--np=8"],
    "set_tasks_per_node": ["--tasks_per_rs=4"],
    "set_cpus_per_task": ["--cpu_per_rs=3"],
    "set_binding": ["--bind=packed:2"],
    "set_num_rs": ["--nrs=5"],
    "set_cpus_per_rs": ["--cpu_per_rs=6"],
    "set_gpus_per_rs": ["--gpu_per_rs=0"],
    "set_rs_per_host": ["--rs_per_host=1"],
    "set_tasks_per_rs": ["--tasks_per_rs=9"],
    "set_memory_per_rs": ["--memory_per_rs=11"],
}
TABLES = [(SrunSettings, SRUN), (AprunSettings, APRUN), (PalsMpiexecSettings, PALS), (JsrunSettings, JSRUN)]
TABLES += [(kind, MPIRUN) for kind in MPI]
CONVERTED = {(AprunSettings, "set_memory_per_node"), (JsrunSettings, "set_memory_per_node")}


@pytest.mark.parametrize(("kind", "setter", "flags"), [(k, s, f) for k, t in TABLES for s, f in t.items()])
def test_setter_writes_its_flag(kind, setter, flags):
    """Every setter of every class gives exactly its flag."""
    settings = kind("x")
    getattr(settings, setter)(CALLS[setter])
    assert settings.format_run_args() == flags


@pytest.mark.parametrize(
    ("kind", "setter"),
    [(k, s) for k, t in TABLES for s in CALLS if s not in t and hasattr(k, s) and (k, s) not in CONVERTED],
)
def test_setter_without_flag_only_warns(kind, setter, caplog):
    """Every setter that a class has no flag for warns with both names and writes nothing."""
    settings = kind("x")
    getattr(settings, setter)(CALLS[setter])
    assert settings.format_run_args() == []
    assert f"{kind.__name__} has no flag for {setter}" in caplog.text


def test_broadcast(caplog):
    """srun can be told where to; the MPI commands ignore that with a warning; aprun and jsrun cannot at all."""
    settings = SrunSettings("x")
    settings.set_broadcast()
    assert settings.format_run_args() == ["--bcast"]
    settings.set_broadcast("/tmp/x")
    assert settings.format_run_args() == ["--bcast=/tmp/x"]
    for kind, flag in ((MpirunSettings, "--preload-binary"), (PalsMpiexecSettings, "--transfer")):
        settings = kind("x")
        settings.set_broadcast("/tmp/x")
        assert settings.format_run_args() == [flag]
        assert f"{kind.__name__}: the destination /tmp/x of set_broadcast is ignored" in caplog.text
        caplog.clear()
        settings.set_broadcast()
        assert settings.format_run_args() == [flag] and caplog.text == ""


def test_jsrun_takes_words_for_all():
    """ALL_HOSTS, ALL_CPUS and ALL_GPUS are jsrun's own words; any other word is an error."""
    settings = JsrunSettings("x")
    settings.set_num_rs("ALL_HOSTS")
    settings.set_cpus_per_rs("ALL_CPUS")
    settings.set_gpus_per_rs("ALL_GPUS")
    assert settings.format_run_args() == ["--nrs=ALL_HOSTS", "--cpu_per_rs=ALL_CPUS", "--gpu_per_rs=ALL_GPUS"]
    with pytest.raises(ConfigError, match="num_rs = 'MANY'"):
        settings.set_num_rs("MANY")


def test_het_group_is_checked_against_the_size_it_is_told():
    """set_het_group knows nothing of the environment: the size comes by argument."""
    settings = SrunSettings("x")
    settings.set_het_group([0, 2])
    assert settings.format_run_args() == ["--het-group=0,2"]
    settings.set_het_group([1], het_size=2)
    assert settings.format_run_args() == ["--het-group=1"]
    with pytest.raises(ConfigError, match=r"het_group = \[2\]"):
        settings.set_het_group([2], het_size=2)


def test_pals_affinity_script_follows_the_flags(step):
    """The GPU affinity script and its arguments stand between the flags and the executable."""
    settings = PalsMpiexecSettings("x", ["a"])
    settings.set_tasks(2)
    settings.set_gpu_affinity_script("/aff.sh", 1, "a b")
    assert settings.format_run_args() == ["--np", "2", "/aff.sh", "1", "a b"]
    assert step(settings).argv == ("mpiexec", "--np", "2", "/aff.sh", "1", "a b", "x", "a")


# --- whole commands


@pytest.mark.parametrize(
    ("settings", "argv"),
    [
        (RunSettings("x", ["a b"]), ("x", "a b")),
        (RunSettings("x", "a", "foo", {"-q": None, "-n": 0}), ("foo", "-q", "-n", "0", "x", "a")),
        (RunSettings("x", run_args={"-n": 1}), ("x",)),
        (SrunSettings("x", ["a b"], {"nodes": 1}, alloc="7"), ("srun", "--nodes=1", "x", "a b")),
        (AprunSettings("x", ["a b"], {"pes": 1}), ("aprun", "--pes=1", "x", "a b")),
        (MpirunSettings("x", ["a b"], {"n": 1}), ("mpirun", "--n", "1", "x", "a b")),
        (MpiexecSettings("x"), ("mpiexec", "x")),
        (OrterunSettings("x"), ("orterun", "x")),
        (JsrunSettings("x", ["a b"], {"np": 1}), ("jsrun", "--np=1", "x", "a b")),
        (MpirunSettings("x", run_command="/opt/ompi/bin/mpirun"), ("/opt/ompi/bin/mpirun", "x")),
    ],
)
def test_local_commands_have_no_placement(settings, argv, step):
    """For the agent: run command, flags, program; all variables in the environment, None as empty."""
    settings.update_env({"A": "1,2", "N": None})
    done = step(settings)
    assert done.argv == argv
    assert done.env == {"A": "1,2", "N": ""}
    assert (done.stdout, done.stderr, done.files) == ("", "", {})


def test_context_decides_exe_arguments_and_run_command(step):
    """What the caller resolved is used, not what the settings were given."""
    settings = SrunSettings("x", "old")
    done = step(settings, exe="/bin/x", exe_args=("new arg",), run_command="/usr/bin/srun")
    assert done.argv == ("/usr/bin/srun", "/bin/x", "new arg")


SLURM = ("srun", "--output", "/w/sim.out", "--error", "/w/sim.err", "--job-name", "sim")


def test_srun_on_slurm(step):
    """Files, name, allocation, environment, then the user's flags."""
    settings = SrunSettings("x", ["a b"], {"nodes": 1}, {"A": "1"})
    rest = ("--export", "ALL,A=1", "--nodes=1", "x", "a b")
    assert step(settings, launcher="slurm").argv == (*SLURM, *rest)
    assert step(settings, launcher="slurm", allocation="42").argv == (*SLURM, "--jobid", "42", *rest)


def test_srun_own_allocation_wins_and_a_batch_job_has_none(step):
    """alloc= stands above the allocation one is in; inside a batch job neither is written."""
    settings = SrunSettings("x", alloc=7)
    assert step(settings, launcher="slurm", allocation="42").argv == (*SLURM, "--jobid", "7", "x")
    assert step(settings, launcher="slurm", allocation="42", in_batch=True).argv == (*SLURM, "x")


@pytest.mark.parametrize(
    ("settings", "launcher", "argv"),
    [
        (
            AprunSettings("x", "a", {"pes": 2}, {"A": 1}),
            "pbs",
            ("aprun", "--wdir", "/w/sim", "-e", "A=1", "--pes=2", "x", "a"),
        ),
        (
            MpirunSettings("x", "a", {"n": 2}, {"A": 1}),
            "slurm",
            ("mpirun", "--wdir", "/w/sim", "-x", "A=1", "--n", "2", "x", "a"),
        ),
        (OrterunSettings("x"), "sge", ("orterun", "--wdir", "/w/sim", "x")),
        (
            PalsMpiexecSettings("x", env_vars={"A": 1}),
            "pals",
            ("mpiexec", "--wdir", "/w/sim", "--env", "A=1", "x"),
        ),
    ],
)
def test_aprun_and_mpi_under_a_workload_manager(settings, launcher, argv, step):
    """Directory, environment, flags, program; a batch script redirects the output, elsewhere the agent does it."""
    assert step(settings, launcher=launcher).argv == argv
    assert step(settings, launcher=launcher).stdout == ""
    batch = step(settings, launcher=launcher, in_batch=True)
    assert (batch.argv, batch.stdout, batch.stderr) == (argv, "/w/sim.out", "/w/sim.err")


def test_jsrun_on_lsf(step):
    """Directory, files, environment, flags, program."""
    done = step(JsrunSettings("x", ["a b"], {"np": 2}, {"A": 1}), launcher="lsf", in_batch=True)
    files = ("--stdio_stdout", "/w/sim.out", "--stdio_stderr", "/w/sim.err")
    assert done.argv == ("jsrun", "--chdir", "/w/sim", *files, "-E", "A=1", "--np=2", "x", "a b")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("out", "suffix", "expected"),
    [
        ("/w/sim.out", "_%t", "/w/sim_%t.out"),
        ("/w.d/sim", "_%t", "/w.d/sim_%t"),
        ("/w/a.b.out", None, "/w/a.b.out"),
    ],
)
def test_jsrun_individual_output(out, suffix, expected, step):
    """The suffix goes before the extension of the file's name, and only of that."""
    settings = JsrunSettings("x")
    settings.set_individual_output(suffix)
    argv = step(settings, launcher="lsf", stdout=out).argv
    assert argv[argv.index("--stdio_stdout") + 1] == expected
    assert "--stdio_mode=individual" in argv


def test_plain_settings_under_a_workload_manager_are_placed_by_the_agent(step):
    """Without a run command that asim knows, the command is the same everywhere; in a batch script it is redirected."""
    settings = RunSettings("x", "a", "palsrun", {"-n": 2}, {"A": "1"})
    assert step(settings, launcher="slurm") == step(settings)
    batch = step(settings, launcher="slurm", in_batch=True)
    assert (batch.argv, batch.env, batch.stdout) == (("palsrun", "-n", "2", "x", "a"), {"A": "1"}, "/w/sim.out")


def test_steps_are_refused_only_when_memory_cannot_be_said(step):
    """A step that would ask for another amount of memory than the user's is an error."""
    settings = AprunSettings("x")
    settings.set_memory_per_node(100)
    with pytest.raises(UnsupportedError, match="memory_per_node = 100"):
        step(settings)
