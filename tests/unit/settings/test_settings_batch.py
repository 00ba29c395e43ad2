"""Batch settings: directives, whole scripts and submit commands of every batch system."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asim.errors import ConfigError, UnsupportedError
from asim.settings import (
    BatchContext,
    BsubBatchSettings,
    QsubBatchSettings,
    SbatchSettings,
    SgeQsubBatchSettings,
)
from asim.settings.script import STOP, TELL, Member, Places

PLACES = Places(ends="/w/.asim/t.ends", stops="/w/.asim/t's stops", mark="t.7")
CONTEXT = BatchContext(name="job", stdout="/w/job.out", stderr="/w/job.err", places=PLACES)


def test_sbatch_script():
    """The whole text of a Slurm script with two members."""
    settings = SbatchSettings(2, "30:00:00", "acc", {"exclusive": None, "gpus": 0, "q": "low", "--gres": "gpu:2"})
    settings.set_partition("fast")
    settings.set_cpus_per_task(4)
    settings.set_hostlist(["h1", "h2"])
    settings.add_preamble(["module load x", "export A=$HOME"])
    env = (("K", "1,2"), ("SSDB", "127.0.0.1:6780"), ("PATH", "/odd"))
    first = Member(key=7, cwd="/w/0", argv=("srun", "x", "a b"), env=env)
    second = Member(
        key=12,
        cwd="/w/o ne",
        argv=("mpirun", "y"),
        env=(("SSDB", "127.0.0.1:6780"), ("SSKEYOUT", "b"), ("GONE", None)),
        stdout="/w/1.out",
        stderr="/w/1.err",
        limit=1.5,
    )
    text = settings.script(CONTEXT, [first, second])
    assert text == (
        "#!/bin/bash\n"
        "#SBATCH --output=/w/job.out\n"
        "#SBATCH --error=/w/job.err\n"
        "#SBATCH --job-name=job\n"
        "#SBATCH --exclusive\n"
        "#SBATCH --gpus=0\n"
        "#SBATCH -q low\n"
        "#SBATCH --gres=gpu:2\n"
        "#SBATCH --nodes=2\n"
        "#SBATCH --time=30:00:00\n"
        "#SBATCH --account=acc\n"
        "#SBATCH --partition=fast\n"
        "#SBATCH --cpus-per-task=4\n"
        "#SBATCH --nodelist=h1,h2\n"
        "\n"
        "module load x\n"
        "export A=$HOME\n"
        "export SSDB=127.0.0.1:6780\n"
        "set +efuC\n"
        "asim_ends=/w/.asim/t.ends\n"
        "asim_stops='/w/.asim/t'\"'\"'s stops'\n"
        'asim_mark=t.7 asim_grace=5 asim_forward=\'kill -s "$asim_signal" "$asim_child" 2>/dev/null\'\n'
        + TELL
        + '[ ! -e "$asim_stops/$asim_mark" ] || { echo "called off" >&2; exit 143; }\n'
        "asim_limit=0 asim_got= asim_note='asim_got=$asim_got$asim_signal'\n"
        'asim_on "$asim_note"\n'
        "(\n"
        "asim_pids=\n"
        "asim_member 7 /w/0 '' '' 0 env K=1,2 PATH=/odd srun x 'a b' & asim_pids=\"$asim_pids $!\"\n"
        "asim_member 12 '/w/o ne' /w/1.out /w/1.err 1.5 env -u GONE SSKEYOUT=b mpirun y"
        ' & asim_pids="$asim_pids $!"\n' + STOP + 'asim_keys=" 7  12 "\n'
        "asim_watch & asim_watcher=$!\n"
        "asim_on 'for asim_child in $asim_pids; do '\"$asim_forward\"'; done'\n"
        "asim_status=0\n"
        'for asim_pid in $asim_pids; do asim_wait "$asim_pid" || asim_status=$asim_code; done\n'
        'kill "$asim_watcher"\n'
        'exit "$asim_status"\n'
        ") &\n"
        'asim_guard "$!"\n'
    )


def test_pbs_script_of_one_member():
    """The whole text of a PBS script with one member: it is run by itself, and PBS signals it without us."""
    settings = QsubBatchSettings(1)
    text = settings.script(CONTEXT, [Member(key=3, cwd="/w", argv=("x",), stdout="/w/3.out", stderr="/w/3.err")])
    assert text == (
        "#!/bin/bash\n"
        "#PBS -o /w/job.out\n"
        "#PBS -e /w/job.err\n"
        "#PBS -N job\n"
        "#PBS -l nodes=1\n"
        "\n"
        "set +efuC\n"
        "asim_ends=/w/.asim/t.ends\n"
        "asim_stops='/w/.asim/t'\"'\"'s stops'\n"
        "asim_mark=t.7 asim_grace=5 asim_forward=:\n"
        + TELL
        + '[ ! -e "$asim_stops/$asim_mark" ] || { echo "called off" >&2; exit 143; }\n'
        "asim_limit=0 asim_got= asim_note='asim_got=$asim_got$asim_signal'\n"
        'asim_on "$asim_note"\n'
        "(\n"
        "asim_member 3 /w /w/3.out /w/3.err 0 x\n"
        ") &\n"
        'asim_guard "$!"\n'
    )


def test_array_script():
    """The whole end of an array's script: the words of each task, counted or listed, and nothing that waits for others."""
    places = replace(PLACES, index="${SLURM_ARRAY_TASK_ID}", grace=0.5)
    members = [Member(key=key, cwd="/w", argv=("x", f"{key}", "ab"[key - 3]), stdout="o", stderr="e") for key in (3, 4)]
    text = SbatchSettings().script(replace(CONTEXT, places=places), members)
    assert "asim_mark=t.7 asim_grace=0.5 asim_forward=" in text
    assert text.partition(TELL)[2] == (
        '[ ! -e "$asim_stops/$asim_mark" ] || { echo "called off" >&2; exit 143; }\n'
        "asim_limit=0 asim_got= asim_note='asim_got=$asim_got$asim_signal'\n"
        'asim_on "$asim_note"\n'
        "(\n"
        "asim_task=${SLURM_ARRAY_TASK_ID}\n"
        '[ "$asim_task" -ge 0 ] && [ "$asim_task" -lt 2 ] || '
        '{ echo "no member has the number $asim_task" >&2; exit 2; }\n'
        'case "$asim_task" in\n'
        "  0) set -- a ;;\n"
        "  1) set -- b ;;\n"
        "esac\n"
        'asim_member "$((asim_task + 3))" /w o e 0 x "$((asim_task + 3))" "${1}"\n'
        ") &\n"
        'asim_guard "$!"\n'
    )


@pytest.mark.parametrize(
    ("limit", "written"), [(None, "0"), (0.5, "0.5"), (90.0, "90"), (2_592_001.0, "2592001"), (1e-5, "0.00001")]
)
def test_time_limits_are_plain_numbers(limit, written):
    """A time limit is a number that every sleep(1) knows, with nothing lost of a month, and never by accident none."""
    member = Member(key=1, cwd="/w", argv=("x",), limit=limit)
    assert f"asim_member 1 /w '' '' {written} x\n" in SbatchSettings().script(CONTEXT, [member])


def test_pbs_directives():
    """Files and name, chunks, other resources, other options; never -V by itself."""
    settings = QsubBatchSettings(2, 4, "30:00:00", "q1", "acc", {"mem": "2gb"}, {"r": "n", "h": True})
    assert settings.directives(CONTEXT) == [
        "#PBS -o /w/job.out",
        "#PBS -e /w/job.err",
        "#PBS -N job",
        "#PBS -l nodes=2:ncpus=4",
        "#PBS -l mem=2gb",
        "#PBS -l walltime=30:00:00",
        "#PBS -r n",
        "#PBS -h",
        "#PBS -q q1",
        "#PBS -A acc",
    ]


def test_lsf_directives():
    """Time and project, name and files, options with one dash."""
    settings = BsubBatchSettings(3, "02:30:15", "prj", {"cn_mem": 0, "nnodes": 9, "x": None}, smts=4)
    settings.set_queue("debug")
    settings.set_hostlist(["h1", "h2"])
    settings.set_tasks(8)
    assert settings.directives(CONTEXT) == [
        "#BSUB -W 02:30",
        "#BSUB -P prj",
        "#BSUB -J job",
        "#BSUB -o /w/job.out",
        "#BSUB -e /w/job.err",
        "#BSUB -cn_mem 0",
        "#BSUB -nnodes 3",
        "#BSUB -x",
        "#BSUB -q debug",
        '#BSUB -m "h1 h2"',
        "#BSUB -n 8",
        "#BSUB -alloc_flags smt4",
    ]


@pytest.mark.parametrize(
    ("flags", "smts", "written"),
    [
        (None, 0, []),
        (None, 2, ["-alloc_flags smt2"]),
        ("nvme", 0, ["-alloc_flags nvme"]),
        ("nvme", 4, ['-alloc_flags "nvme smt4"']),
        ('"nvme smt1"', 4, ['-alloc_flags "nvme smt1"']),
    ],
)
def test_lsf_alloc_flags(flags, smts, written):
    """Hardware threads join the user's flags unless he said smt himself; several are quoted."""
    settings = BsubBatchSettings(batch_args={"alloc_flags": flags} if flags else None)
    settings.set_smts(smts)
    assert settings.format_batch_args() == written
    assert settings.format_batch_args() == written


def test_lsf_expert_mode(caplog):
    """LSF's own language replaces nodes and launch-node options, and the log says which."""
    settings = BsubBatchSettings(2, batch_args={"ln_mem": 5, "q": "a"})
    settings.set_expert_mode_req("1*{select[LN]} + 2*{select[CN]}", 82)
    assert settings.format_batch_args() == ["-q a", "-csm y", '-R "1*{select[LN]} + 2*{select[CN]}"', "-n 82"]
    assert "ln_mem, nnodes left out" in caplog.text
    caplog.clear()
    plain = BsubBatchSettings()
    plain.set_expert_mode_req("select[LN]", 1)
    assert plain.format_batch_args() == ["-csm y", "-R select[LN]", "-n 1"]
    assert caplog.text == ""


def test_lsf_account_is_the_project():
    """set_account and account= mean the project."""
    assert BsubBatchSettings(account="a").directives(CONTEXT)[0] == "#BSUB -P a"


def test_sge_directives():
    """Files and name, parallel environment, context, resources, threads, options; never -V by itself."""
    settings = SgeQsubBatchSettings("30:00:00", 8, "mpi", "acc", resources={"mem_free": "1G"}, batch_args={"R": "y"})
    settings.set_project("prj")
    settings.set_ngpus(0)
    settings.set_hyperthreading(False)
    settings.set_memory_per_pe("2G")
    settings.set_threads_per_pe(4)
    settings.update_context_variables("ac", "a", 0)
    settings.update_context_variables("sc", "b", "x y")
    settings.update_context_variables("dc", "c")
    assert settings.directives(CONTEXT) == [
        "#$ -o /w/job.out",
        "#$ -e /w/job.err",
        "#$ -N job",
        "#$ -pe mpi 8",
        "#$ -ac a=0",
        '#$ -sc "b=x y"',
        "#$ -dc c",
        "#$ -l h_rt=30:00:00",
        "#$ -l mem_free=1G",
        "#$ -l gpu=0",
        "#$ -l threads=0",
        "#$ -l mem=2G",
        "#$ -v OMP_NUM_THREADS=4",
        "#$ -R y",
        "#$ -A acc",
        "#$ -P prj",
    ]


def test_sge_shebang():
    """The first line is the user's; anything else than a shebang is refused."""
    settings = SgeQsubBatchSettings(shebang="#!/bin/zsh")
    assert settings.script(CONTEXT, []).startswith("#!/bin/zsh\n#$ -o")
    assert SgeQsubBatchSettings().shebang == "#!/bin/bash -l"
    for wrong in ("/bin/sh", "#!/bin/sh\nrm"):
        with pytest.raises(ConfigError, match="shebang"):
            settings.set_shebang(wrong)


@pytest.mark.parametrize("call", [("set_nodes", 2), ("set_hostlist", ["h1"]), ("set_queue", "q")])
def test_sge_has_no_nodes_hosts_or_queue(call):
    """What Grid Engine cannot do is refused in words, with the value."""
    with pytest.raises(UnsupportedError, match="Grid Engine"):
        getattr(SgeQsubBatchSettings(), call[0])(call[1])


def test_sge_tolerates_the_factory_default_of_one_node():
    """No nodes, or the one that a factory may pass to every system, are fine; two are not."""
    settings = SgeQsubBatchSettings(nodes=1)
    settings.set_nodes(0)
    assert settings.format_batch_args() == []
    with pytest.raises(UnsupportedError, match="nodes = 2"):
        SgeQsubBatchSettings(nodes=2)


def test_sge_slots_by_setters():
    """The setters for slots and parallel environment give the same as the constructor."""
    settings = SgeQsubBatchSettings()
    settings.set_ncpus(3)
    settings.set_pe_type("smp")
    assert settings.format_batch_args() == ["-pe smp 3"]


@pytest.mark.parametrize("given", [{"ncpus": 4}, {"pe_type": "mpi"}, {"ncpus": 0}])
def test_sge_needs_slots_and_environment_together(given):
    """Slots without parallel environment, or the other way round, are an error when written."""
    with pytest.raises(ConfigError, match="both ncpus and pe_type"):
        SgeQsubBatchSettings(**given).directives(CONTEXT)


def test_sge_context_actions_are_checked():
    """Only ac, sc and dc; nothing is deleted with a value."""
    settings = SgeQsubBatchSettings()
    with pytest.raises(ConfigError, match="action = 'xx'"):
        settings.update_context_variables("xx", "a", 1)
    with pytest.raises(ConfigError, match="value = 0"):
        settings.update_context_variables("dc", "a", 0)


# --- PBS chunks


@pytest.mark.parametrize(
    ("resources", "ncpus", "hosts", "chunks"),
    [
        ({"nodes": 2}, None, None, "-l nodes=2"),
        ({"select": 2}, 4, None, "-l select=2:ncpus=4"),
        ({"select": "1:ncpus=2+1:ngpus=1"}, 8, None, "-l select=1:ncpus=2+1:ngpus=1"),
        ({"select": 2}, 4, ["a", "b"], "-l select=1:ncpus=4:host=a+1:ncpus=4:host=b"),
        ({"nodes": 1}, None, "a", "-l nodes=a"),
        ({"nodes": 2}, 4, ["a", "b"], "-l nodes=a:ncpus=4+b:ncpus=4"),
    ],
)
def test_pbs_chunks(resources, ncpus, hosts, chunks):
    """Every host is a chunk of its own with its cpus; a chunk list of the user's stands as it is."""
    settings = QsubBatchSettings(ncpus=ncpus, resources=resources)
    if hosts:
        settings.set_hostlist(hosts)
    assert settings.format_batch_args() == [chunks]


def test_pbs_chunks_that_contradict_are_refused():
    """select and nodes, neither, nodes twice, or hosts that are not as many as nodes."""
    for resources in ({"select": 1, "nodes": 1}, {}):
        with pytest.raises(ConfigError, match="either select or nodes"):
            QsubBatchSettings(resources=resources).directives(CONTEXT)
    with pytest.raises(ConfigError, match="nodes = 2"):
        QsubBatchSettings(nodes=2, resources={"nodes": 1})
    settings = QsubBatchSettings(nodes=2)
    settings.set_hostlist("a")
    with pytest.raises(ConfigError, match="as many hosts"):
        settings.directives(CONTEXT)


def test_sbatch_signal():
    """The script alone is signalled, and passes on what it passes on."""
    settings = SbatchSettings()
    settings.set_signal("SIGUSR1", 90)
    assert settings.format_batch_args() == ["--signal=B:USR1@90"]
    with pytest.raises(ConfigError, match="name = 'INT': must be one of TERM, USR1, USR2"):
        settings.set_signal("INT", 90)
    with pytest.raises(ConfigError, match="seconds_before = 0: must be at least 1"):
        settings.set_signal("TERM", 0)


def test_sbatch_requeue():
    """The last word counts: the two options would contradict each other."""
    settings = SbatchSettings()
    settings.set_requeue()
    assert settings.format_batch_args() == ["--requeue"]
    settings.set_requeue(False)
    assert settings.format_batch_args() == ["--no-requeue"]


def test_sbatch_heterogeneous():
    """Parts follow the job's own options, each after its line, and are independent of what they were made from."""
    settings, part = SbatchSettings(1), SbatchSettings(4, batch_args={"gres": "gpu:1", "comment": "a b"})
    settings.add_het_component(part)
    part.set_nodes(5)
    twin = settings.copy()
    twin.add_het_component(SbatchSettings(2))
    assert settings.directives(CONTEXT)[3:] == [
        "#SBATCH --nodes=1",
        "#SBATCH hetjob",
        "#SBATCH --gres=gpu:1",
        '#SBATCH --comment="a b"',
        "#SBATCH --nodes=4",
    ]
    assert len(twin.directives(CONTEXT)) == 10


def test_sbatch_parts_are_flat():
    """A part with parts, or with lines for the script, could not be written."""
    nested, spoken = SbatchSettings(), SbatchSettings()
    nested.add_het_component(SbatchSettings())
    spoken.add_preamble("module load x")
    for part in (nested, spoken):
        with pytest.raises(UnsupportedError, match="a part of a heterogeneous job has options only"):
            SbatchSettings().add_het_component(part)
