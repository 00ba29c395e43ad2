"""Generated scripts, run by a real shell: what the children get, and how the script ends."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asim.settings import RunSettings, SbatchSettings, SgeQsubBatchSettings, SrunSettings
from asim.settings._text import command_words
from asim.settings.script import Member

from .scripts import Job, run

CHILD = "import json,os,sys; print(json.dumps([sys.argv[1:], os.environ.get('K'), os.getcwd()]))"
AWKWARD = [
    "a b",
    "",
    "it's",
    'say "x"',
    "$HOME",
    "`id`",
    "$(id)",
    "a\nb",
    "back\\slash",
    "*",
    "~",
    "üñí 🚀",
    "#",
    "-n",
    "!x",
    "a;b&c|d>e",
]


@pytest.fixture
def job(tmp_path):
    """Where scripts run."""
    return Job(tmp_path)


def ends_with(job, *codes):
    """Members that end with these exit codes."""
    return [job.sh(key, f"exit {code}") for key, code in enumerate(codes)]


def of_step(key, directory, step):
    """A member that runs a step, as the planner makes them."""
    env = tuple(step.env.items())
    return Member(key=key, cwd=str(directory), argv=step.argv, env=env, stdout=step.stdout, stderr=step.stderr)


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("others", [0, 1])
def test_arguments_environment_and_directory_arrive_unchanged(shell, others, tmp_path, step):
    """Blanks, quotes, dollars, line breaks and unicode reach a real child's argv and environment as they were."""
    directory, out = tmp_path / "o'ne $x", tmp_path / "the out"
    directory.mkdir()
    made = step(
        RunSettings(sys.executable, ["-c", CHILD, *AWKWARD], env_vars={"K": "v 'w' $x,\ny"}),
        launcher="slurm",
        in_batch=True,
        stdout=str(out),
        stderr=str(tmp_path / "err"),
    )
    job = Job(tmp_path, shell)
    done = job.run(job.text(of_step(7, directory, made), *ends_with(job, *[0] * others), batch=SbatchSettings()))
    assert done == (0, "", "")
    assert json.loads(out.read_text()) == [AWKWARD, "v 'w' $x,\ny", str(directory)]


def test_bytes_that_are_no_text_arrive(job):
    """An environment of any bytes arrives in a member, whether all share it or one has it alone."""
    odd = "\udcff\udc80 \udcfe'\n"
    env = (("ASIM_ODD", odd), ("OWN", odd))
    code = "import os; print(os.environb[b'ASIM_ODD'], os.environb[b'OWN'])"
    done = job.run(job.text(*(job.member(key, sys.executable, "-c", code, env=env) for key in (1, 2))))
    assert done == (0, "", "")
    expected = odd.encode("utf-8", "surrogateescape")
    assert (job.root / "2.out").read_text() == f"{expected!r} {expected!r}\n"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 3], 3), ([3, 0], 3), ([3, 4, 0], 4), ([], 0), ([0] * 50 + [7] + [0] * 50, 7), ([5], 5)],
)
def test_a_failing_member_makes_the_script_fail(codes, expected, job):
    """The script's exit code is 0 only if every member's was, wherever the failing one stands."""
    assert job.run(job.text(*ends_with(job, *codes))).code == expected


def test_members_that_cannot_start_make_the_script_fail(job, tmp_path):
    """A missing directory, program or output directory is a failure of its member, and the others still run."""
    for bad in (
        job.member(1, "true", cwd=str(tmp_path / "missing")),
        job.member(2, "/no/such/program"),
        job.member(3, "true", stdout="/no/such/directory/out"),
    ):
        good = job.member(bad.key + 10, "touch", f"ran{bad.key}")
        assert job.run(job.text(bad, good)).code != 0
        assert (tmp_path / f"ran{bad.key}").exists()


def test_members_run_at_the_same_time(job):
    """Two members that wait for each other both end."""
    wait = 'touch "$0"; for i in $(seq 200); do [ -e "$1" ] && exit 0; sleep 0.02; done; exit 1'
    pairs = [("l", "r"), ("r", "l")]
    members = [job.member(key, "sh", "-c", wait, *pair) for key, pair in enumerate(pairs)]
    assert job.run(job.text(*members)).code == 0


def test_strict_shells_and_preambles(job, tmp_path):
    """set -eu in the preamble neither loses the exit code nor the members after a failing one; so do -C and -f."""
    batch = SgeQsubBatchSettings()
    batch.add_preamble(["set -eu", "set -Cf", "export FROM_PREAMBLE='a b'"])
    (tmp_path / "out").write_text("")
    reader = job.sh(2, 'printf %s "$FROM_PREAMBLE"', stdout=str(tmp_path / "out"))
    assert job.run(job.text(*ends_with(job, 5), reader, batch=batch)).code == 5
    assert (tmp_path / "out").read_text() == "a b"


def test_output_and_errors_go_to_their_files(job, tmp_path):
    """Both streams are redirected, together when they share a file."""
    talk = "echo out; echo err >&2"
    apart = job.sh(1, talk, stdout=str(tmp_path / "1"), stderr=str(tmp_path / "2"))
    both = job.sh(2, talk, stdout=str(tmp_path / "3"), stderr=str(tmp_path / "3"))
    assert job.run(job.text(apart, both)) == (0, "", "")
    assert [(tmp_path / name).read_text() for name in "123"] == ["out\n", "err\n", "out\nerr\n"]


def test_srun_gets_its_comma_values_from_the_script(job, tmp_path, step):
    """A value that --export cannot carry is in the environment of the srun process that the script starts."""
    fake = tmp_path / "srun"
    fake.write_text('#!/bin/sh\nprintf "%s|%s" "$K" "$*" > "$0.saw"\n')
    fake.chmod(0o755)
    made = step(SrunSettings("x", env_vars={"K": "1,2"}), launcher="slurm", in_batch=True, run_command=str(fake))
    assert job.run(job.text(of_step(1, tmp_path, made), batch=SbatchSettings())).code == 0
    value, _, arguments = Path(f"{fake}.saw").read_text().partition("|")
    assert value == "1,2" and arguments.endswith("--export ALL,K x")


@pytest.mark.parametrize("env", [{"K": "v"}, {"K": "v", "GONE": None}, {"GONE": None}])
def test_a_program_with_an_equals_sign_still_runs(env, tmp_path):
    """env(1) does not take such a path for a variable, whether variables are set or unset."""
    program = tmp_path / "a=b"
    program.write_text('#!/bin/sh\nprintf "%s %s %s" "$K" "$1" "${GONE-none}"\n')
    program.chmod(0o755)
    gone = "none" if "GONE" in env else "here"
    said = run(f"export GONE=here; {shlex.join(command_words([str(program), 'c d'], env))}").stdout
    assert said == f"{env.get('K', '')} c d {gone}"


TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=st.lists(TEXT, max_size=6), value=TEXT)
def test_any_text_survives_the_shell(args, value):
    """Whatever the arguments and the variable hold, a child of a real shell gets exactly them."""
    line = shlex.join(command_words(["printf", r"%s\0", *args, "end"], {"K": value}))
    read = shlex.join(command_words(["sh", "-c", r'printf "%s\0" "$K"'], {"K": value}))
    done = subprocess.run(["sh", "-c", f"{line}; {read}"], capture_output=True, timeout=30, check=True)
    assert done.stdout.decode() == "".join(f"{text}\0" for text in (*args, "end", value))
