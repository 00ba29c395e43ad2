"""Generated scripts, run by a real shell: what the children get, and how the script ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asim.settings import BatchContext, RunSettings, SbatchSettings, SgeQsubBatchSettings, SrunSettings, Step
from asim.settings._text import command_line

CONTEXT = BatchContext(name="job", stdout="/dev/null", stderr="/dev/null")
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


def run(text, shell="bash"):
    """The script's exit code and output."""
    return subprocess.run([shell, "-s"], input=text, capture_output=True, encoding="utf-8", timeout=60, check=False)


def member(code, directory="/"):
    """A member that ends with an exit code."""
    return (directory, Step(argv=("sh", "-c", f"exit {code}"), env={}))


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_arguments_environment_and_directory_arrive_unchanged(shell, tmp_path, step):
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
    done = run(SbatchSettings().script(CONTEXT, [(str(directory), made)]), shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(out.read_text()) == [AWKWARD, "v 'w' $x,\ny", str(directory)]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 3], 3), ([3, 0], 3), ([3, 4, 0], 4), ([], 0), ([0] * 50 + [7] + [0] * 50, 7)],
)
def test_a_failing_member_makes_the_script_fail(codes, expected):
    """The script's exit code is 0 only if every member's was, wherever the failing one stands."""
    assert run(SbatchSettings().script(CONTEXT, [member(code) for code in codes])).returncode == expected


def test_members_that_cannot_start_make_the_script_fail(tmp_path):
    """A missing directory, program or output directory is a failure of its member, and the others still run."""
    good = (str(tmp_path), Step(argv=("touch", "ran"), env={}))
    for bad in (
        (str(tmp_path / "missing"), Step(argv=("true",), env={})),
        (str(tmp_path), Step(argv=("/no/such/program",), env={})),
        (str(tmp_path), Step(argv=("true",), env={}, stdout="/no/such/directory/out")),
    ):
        (tmp_path / "ran").unlink(missing_ok=True)
        assert run(SbatchSettings().script(CONTEXT, [bad, good])).returncode != 0
        assert (tmp_path / "ran").exists()


def test_members_run_at_the_same_time(tmp_path):
    """Two members that wait for each other both end."""
    (left := tmp_path / "l", right := tmp_path / "r")
    wait = 'touch "$0"; for i in $(seq 200); do [ -e "$1" ] && exit 0; sleep 0.02; done; exit 1'
    steps = [
        (str(tmp_path), Step(argv=("sh", "-c", wait, str(a), str(b)), env={}))
        for a, b in ((left, right), (right, left))
    ]
    assert run(SbatchSettings().script(CONTEXT, steps)).returncode == 0


def test_strict_shells_and_preambles(tmp_path):
    """set -eu in the preamble neither loses the exit code nor the members after a failing one."""
    batch = SgeQsubBatchSettings()
    batch.add_preamble(["set -eu", "export FROM_PREAMBLE='a b'"])
    reader = Step(argv=("sh", "-c", 'printf %s "$FROM_PREAMBLE"'), env={}, stdout=str(tmp_path / "out"))
    assert run(batch.script(CONTEXT, [member(5), (str(tmp_path), reader)])).returncode == 5
    assert (tmp_path / "out").read_text() == "a b"


def test_output_and_errors_go_to_their_files(tmp_path):
    """Both streams are redirected, together when they share a file."""
    talk = ("sh", "-c", "echo out; echo err >&2")
    apart = Step(argv=talk, env={}, stdout=str(tmp_path / "1"), stderr=str(tmp_path / "2"))
    both = Step(argv=talk, env={}, stdout=str(tmp_path / "3"), stderr=str(tmp_path / "3"))
    assert run(SbatchSettings().script(CONTEXT, [(str(tmp_path), apart), (str(tmp_path), both)])).stdout == ""
    assert [(tmp_path / name).read_text() for name in "123"] == ["out\n", "err\n", "out\nerr\n"]


def test_srun_gets_its_comma_values_from_the_script(tmp_path, step):
    """A value that --export cannot carry is in the environment of the srun process that the script starts."""
    fake = tmp_path / "srun"
    fake.write_text('#!/bin/sh\nprintf "%s|%s" "$K" "$*" > "$0.saw"\n')
    fake.chmod(0o755)
    made = step(SrunSettings("x", env_vars={"K": "1,2"}), launcher="slurm", in_batch=True, run_command=str(fake))
    assert run(SbatchSettings().script(CONTEXT, [(str(tmp_path), made)])).returncode == 0
    value, _, arguments = Path(f"{fake}.saw").read_text().partition("|")
    assert value == "1,2" and arguments.endswith("--export ALL,K x")


def test_a_program_with_an_equals_sign_still_runs(tmp_path):
    """env(1) does not take such a path for a variable."""
    program = tmp_path / "a=b"
    program.write_text('#!/bin/sh\nprintf "%s %s" "$K" "$1"\n')
    program.chmod(0o755)
    assert run(command_line([str(program), "c d"], {"K": "v"})).stdout == "v c d"


TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=st.lists(TEXT, max_size=6), value=TEXT)
def test_any_text_survives_the_shell(args, value):
    """Whatever the arguments and the variable hold, a child of a real shell gets exactly them."""
    line = command_line(["printf", r"%s\0", *args, "end"], {"K": value})
    read = command_line(["sh", "-c", r'printf "%s\0" "$K"'], {"K": value})
    done = subprocess.run(["sh", "-c", f"{line}; {read}"], capture_output=True, timeout=30, check=True)
    assert done.stdout.decode() == "".join(f"{text}\0" for text in (*args, "end", value))
