"""Output files are where they are said to be, whatever their paths; and no option makes an array behind our back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asim.errors import UnsupportedError
from asim.settings import (
    BatchContext,
    BsubBatchSettings,
    JsrunSettings,
    QsubBatchSettings,
    SbatchSettings,
    SgeQsubBatchSettings,
    SrunSettings,
)
from asim.settings.script import Places

PLACES = Places(ends="/w/ends", stops="/w/stops", mark="t.1")
CONTEXT = BatchContext(name="job", stdout="/w/job.out", stderr="/w/job.err", places=PLACES)
PBS, LSF, SGE = lambda **args: QsubBatchSettings(1, **args), BsubBatchSettings, SgeQsubBatchSettings


@pytest.mark.parametrize(
    ("path", "written"),
    [("/w/a b$USER", "/w/a b$USER"), ("/w/pc_%t/%j.out", "/\\w/pc_%t/%j.out"), ("/w/100%", "/\\w/100%")],
)
def test_srun_replaces_nothing(step, path, written):
    """srun would open another file, or none and end with 0; a backslash has it leave everything as it is."""
    argv = step(SrunSettings("x"), launcher="slurm", stdout=path, stderr=f"{path}.err").argv
    assert argv[1:5] == ("--output", written, "--error", f"{written}.err")


@pytest.mark.parametrize("field", ["stdout", "stderr"])
@pytest.mark.parametrize(("kind", "path"), [(SrunSettings, "/w/a\\b"), (JsrunSettings, "/w/pc_%t/a")])
def test_what_a_run_command_cannot_write_to(step, kind, path, field):
    """A path that cannot be given is an error that names it, not a file somewhere else."""
    with pytest.raises(UnsupportedError, match=f"^{field} = .*use another exp_path or name"):
        step(kind("x"), launcher="slurm", **{field: path})


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/w/pc_%t/%%j", "--output=/w/pc_%%t/%%%%j"),
        ("/w/a b%t", '--output="/w/a b%%t"'),
        ("/w/a#b", "--output='/w/a#b'"),
        ("/w/a'#b", "--output='/w/a'\"'\"'#b'"),
        ("/w/a\\%b", "--output='/w/a\\\\\\\\%b'"),
    ],
)
def test_sbatch_replaces_nothing(path, written):
    """Slurm replaces nothing in its lines, and takes nothing for a comment."""
    assert SbatchSettings().directives(replace(CONTEXT, stdout=path))[0] == f"#SBATCH {written}"


def test_sbatch_values_are_kept():
    """A backslash and ``#`` in any option arrive; what was quoted by hand is left alone."""
    settings = SbatchSettings(batch_args={"comment": "a\\b", "x": "a#b", "y": "'a#\\b'"})
    assert settings.format_batch_args() == ["--comment='a\\\\b'", "-x 'a#b'", "-y 'a#\\b'"]


@pytest.mark.parametrize("field", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("make", "path", "word"),
    [
        (PBS, "/w/^array_index^/a", "^array_index^"),
        (LSF, "/w/x%J/a", "%J"),
        (LSF, "/w/x%Ib", "%I"),
        *(
            (SGE, f"/w/${name}x/a", f"${name}")
            for name in ("HOME", "USER", "JOB_ID", "JOB_NAME", "HOSTNAME", "TASK_ID")
        ),
        (SGE, "/w/a$$b", "$$"),
        (SGE, "/w/a#b", "#"),
        (SGE, "/w/a,b", ","),
        (SGE, "/w/a:b", ":"),
    ],
)
def test_paths_that_would_be_others(make, path, word, field):
    """Where nothing can be written so that it stays, the path is refused, with what would be replaced."""
    with pytest.raises(UnsupportedError) as caught:
        make().directives(replace(CONTEXT, **{field: path}))
    assert str(caught.value).startswith(f"{field} = {path!r}: ")
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize(("make", "path"), [(PBS, "/w/%J$USER#,:"), (LSF, "/w/%j%%$USER"), (SGE, "/w/%J$x$USE$")])
def test_paths_that_stay(make, path):
    """What one system replaces is nothing to another."""
    assert any(path in line for line in make().directives(replace(CONTEXT, stdout=path)))


@pytest.mark.parametrize(
    ("make", "option"),
    [(SbatchSettings, "array"), (SbatchSettings, "a"), (PBS, "J"), (PBS, "t"), (SGE, "t")],
)
def test_an_array_of_the_users_own(make, option):
    """It would start every member once in each task, which nobody would notice: refused, with what to use."""
    with pytest.raises(UnsupportedError, match=rf'^batch_args\[{option!r}\] = .1-3.: .*pack="array"'):
        make(batch_args={f"-{option}": "1-3"}).directives(CONTEXT)
    assert make(batch_args={option: False}).directives(CONTEXT) == make().directives(CONTEXT)


def test_an_array_by_the_name():
    """LSF makes an array of a job whose name has brackets, also where they are only part of a name."""
    with pytest.raises(UnsupportedError, match=r"^batch_args\['J'\] = 'x\[1-3\]': "):
        BsubBatchSettings(batch_args={"J": "x[1-3]"}).directives(CONTEXT)
    with pytest.raises(UnsupportedError, match=r"^name = 'm\[2\]': "):
        BsubBatchSettings().directives(replace(CONTEXT, name="m[2]"))
    assert "#BSUB -J y" in BsubBatchSettings(batch_args={"J": "y"}).directives(CONTEXT)


def test_a_part_of_a_heterogeneous_job_is_no_array():
    """The options of further parts are looked at, too."""
    settings = SbatchSettings()
    settings.add_het_component(SbatchSettings(batch_args={"array": "1-3"}))
    with pytest.raises(UnsupportedError, match="array"):
        settings.directives(CONTEXT)
