"""The part of an array's script in which a task finds its member, run by real shells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asim.settings._arrays import array, joined

from .scripts import SHELLS, Job, calls, every_shell, run

ODD = [
    "a b",
    "it's",
    'say "x"',
    "$HOME",
    "$((1+1))",
    "`id`",
    "a\nb",
    "\n",
    "back\\slash",
    "*",
    "~",
    "ü",
    "\udcff",
    "-n",
    "",
]
Word = Callable[[int], str]


def text(rows: list[list[str]]) -> str:
    """As it is in a script."""
    return "\n".join(["", "(", *array(rows, "${TASK}"), ") &"])


def found(rows: list[list[str]], shell: str) -> list[list[str]]:
    """The words that the tasks find."""
    return calls(text(rows), len(rows), "TASK", shell)


@every_shell
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 12), (7, 5), (98, 1000)])
def test_counted_words_are_written_once(odd: str, first: int, count: int, shell: str) -> None:
    """Whatever characters are around the number, each task has its own, in every place, from one line for all."""
    rows = [
        [f"{n + 3}", f"{odd}{n}", f"/e{odd}/e_{n}{odd}/e_{n}.out", f"{n}{odd}", odd]
        for n in range(first, first + count)
    ]
    assert "case" not in text(rows)
    assert len(text(rows)) < 400 + 20 * len(odd)
    assert found(rows, shell) == rows


REGULAR: list[tuple[str, Word]] = [
    ("the same number thrice", lambda n: f"e_{n}/e_{n}/e_{n}.out"),
    ("a name that ends with digits", lambda n: f"/w/run10/run10_{n}"),
    ("a part of the path is the first number", lambda n: f"/w/5/e_5/e_{n + 5}"),
    ("a digit before it", lambda n: f"e1{n}" if n < 10 else f"e{10 + n}"),
    ("digits of another script", lambda n: f"e٣_{n}"),
    ("as long as shells can count", lambda n: f"{999_999_000 + n}"),
]


@every_shell
@pytest.mark.parametrize("word", [pytest.param(word, id=name) for name, word in REGULAR])
def test_numbers_beside_others(word: Word, shell: str) -> None:
    """Other digits in a word are not taken for the number, nor hide it."""
    rows = [[f"{n + 1}", word(n)] for n in range(120)]
    assert "case" not in text(rows)
    assert found(rows, shell) == rows


IRREGULAR: list[tuple[str, Word]] = [
    ("leading zeros", lambda n: f"e_{n:03}"),
    ("e_1 after e_9", lambda n: f"e_1{n}"),
    ("one is missing", lambda n: f"e_{n + (n > 50)}"),
    ("steps of two", lambda n: f"e_{2 * n}"),
    ("downwards", lambda n: f"e_{500 - n}"),
    ("below zero", lambda n: f"{n - 60}"),
    ("two counters", lambda n: f"e_{n}/f_{n + 1}"),
    ("the last is another", lambda n: "e_119 " if n == 119 else f"e_{n}"),
    ("the first two are the same", lambda n: f"e_{max(n - 1, 0)}"),
    ("a number appears", lambda n: f"e_{n}" if n else "e_"),
    ("digits of another script", lambda n: "٠١٢٣٤٥٦٧٨٩"[n % 10]),
    ("too long for shells", lambda n: f"{10**18 + n + 1}"),
    ("more than Python reads", lambda n: "9" * 5000 + f"{n}"),
    ("odd texts", lambda n: ODD[n % len(ODD)]),
    ("fractions", lambda n: f"--t={n / 7}"),
]


@every_shell
@pytest.mark.parametrize("word", [pytest.param(word, id=name) for name, word in IRREGULAR])
def test_other_words_are_listed(word: Word, shell: str) -> None:
    """What is not counted by one from task to task is found all the same, and the rest of the line is written once."""
    rows = [[f"{n + 1}", "constant", word(n), f"e_{n}"] for n in range(120)]
    assert "case" in text(rows)
    assert text(rows).count("constant") == 1
    assert found(rows, shell) == rows


@every_shell
def test_many_listed_words(shell: str) -> None:
    """More listed words than there are digits for positional parameters keep their order."""
    rows = [[f"{(n * 7 + k * k) % 11} {k}" for k in range(15)] for n in range(20)]
    assert found(rows, shell) == rows


@every_shell
def test_rows_of_different_lengths(shell: str) -> None:
    """Members with fewer or more arguments than others have exactly theirs."""
    rows = [[f"{n}", *ODD[: n % 5]] for n in range(50)]
    assert found(rows, shell) == rows


@pytest.mark.parametrize("task", ["3", "-1", "", "x"])
@every_shell
def test_tasks_without_a_member_fail(task: str, shell: str) -> None:
    """A script that is run with another number than it has members for, or none, runs nobody and says so."""
    lines = array([[f"{n}", f"e_{n}"] for n in range(3)], f"'{task}'")
    done = run("\n".join(["asim_member() { echo ran; }", *lines]), shell)
    assert (done.code, done.stdout) == (2, "")
    assert f"no member has the number {task}\n" in done.stderr


@pytest.mark.parametrize("index", ["${TASK}", "${TASK:?}", "$((TASK + 1 - 1))"])
def test_what_schedulers_call_the_number(index: str) -> None:
    """Every kind of expression for the number will do, and is worked out once."""
    lines = array([[f"{n}", f"e_{n}", f"f_{n + 2}"] for n in range(3)], index)
    assert "\n".join(lines).count("TASK") == 1
    assert run("\n".join(["TASK=2", 'asim_member() { echo "$@"; }', *lines])).stdout == "2 e_2 f_4\n"


pieces = st.one_of(
    st.sampled_from([*ODD, "0", "9", "e_", "/"]), st.text(st.characters(exclude_characters="\0"), max_size=3)
)
templates = st.lists(st.one_of(pieces, st.just(None), st.integers(0, 12)), max_size=5)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    words=st.lists(templates, min_size=1, max_size=4),
    count=st.integers(1, 25),
    first=st.integers(0, 101),
    shell=st.sampled_from(SHELLS),
)
def test_any_words(words: list[list[str | int | None]], count: int, first: int, shell: str) -> None:
    """Texts, numbers and counters in any order beside each other: every task finds its words."""

    def word(template: list[str | int | None], n: int) -> str:
        return "".join(f"{n + first}" if one is None else f"{one}" for one in template)

    rows = [[word(template, n) for template in words] for n in range(count)]
    assert found(rows, shell) == rows


@pytest.mark.parametrize("words", [[], [""], ["a", ""], ["a", "b=c", "/x.y"], *([odd, "x"] for odd in ODD)])
def test_joined_is_what_a_shell_reads_back(words: list[str]) -> None:
    """Words arrive as they were, whether any of them had to be quoted or not."""
    assert calls(f"\n(\nasim_member {joined(words)}\n) &", 1, "TASK") == [words]


@every_shell
@pytest.mark.parametrize("name", ["e", "e 1", "e'$x", "e\n1_", "e\udcff"])
def test_members_run_where_they_should(name: str, shell: str, tmp_path: Path) -> None:
    """Directories, outputs and variables that are counted are those of the task's own member, in the whole script."""
    job = Job(tmp_path, shell)
    members = []
    for n in range(9, 12):
        place = tmp_path / f"{name}_{n}"
        place.mkdir()
        files = {"stdout": f"{place}/{name}_{n}.out", "stderr": f"{place}/{name}_{n}.err"}
        env = (("SSDB", "x:1"), ("SSKEYOUT", f"{name}_{n}"))
        script = 'printf "%s|%s|%s" "$PWD" "$SSKEYOUT" "$1"'
        members.append(job.member(n + 1, "sh", "-c", script, "sh", f"-{n}", cwd=str(place), env=env, **files))
    made = job.text(*members, index="${TASK}")
    assert "case" not in made.partition("called off")[2]
    for task, member in enumerate(members):
        assert job.run(made, TASK=f"{task}") == (0, "", "")
        said = Path(member.stdout).read_bytes().decode("utf-8", "surrogateescape")
        assert said == f"{member.cwd}|{name}_{task + 9}|-{task + 9}"
    assert set(job.codes()) == {"10.0.end", "11.0.end", "12.0.end"}
