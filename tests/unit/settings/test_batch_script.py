"""Batch scripts in real shells: what members tell of themselves, and how they are stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from asim.settings import BatchSettings
from tests.servers import until

from .scripts import SHELLS, WITHIN, Job, Tells, every_shell

LONG = "exec sleep 60"


@pytest.fixture(params=SHELLS)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    """Where scripts run, by each shell."""
    return Job(tmp_path, request.param)


def up(job: Job, *keys: int, run: int = 0) -> list[int]:
    """Wait until these members have told that they started; their process ids."""
    names = [f"{key}.{run}.start" for key in keys]
    told = until(lambda: (told := job.told()).keys() >= set(names) and told, what=f"{names}")
    return [int(told[name][2]) for name in names]


def gone(pid: int) -> bool:
    """Whether this process is no more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# -- what members tell


@pytest.mark.parametrize("others", [(), (8,)])
def test_members_tell_start_and_end(others: tuple[int, ...], job: Job) -> None:
    """One file says when, where and as what a member started, one how and when it ended; alone or among others."""
    before = time.time()
    done = job.run(job.text(job.sh(7, "echo $$"), *(job.sh(key, "exit 3") for key in others)))
    told = job.told()
    assert sorted(told) == sorted(f"{key}.0.{kind}" for key in (7, *others) for kind in ("start", "end"))
    started, host, pid = told["7.0.start"]
    code, ended = told["7.0.end"]
    assert (code, host, pid) == ("0", socket.gethostname(), (job.root / "7.out").read_text().strip())
    assert before <= float(started) <= float(ended) <= time.time()
    assert done.code == (3 if others else 0)
    assert job.codes() == {"7.0.end": "0", **{f"{key}.0.end": "3" for key in others}}


def test_files_appear_whole(job: Job) -> None:
    """Whoever looks at any moment finds no file that is not complete, and nothing unfinished is left."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in os.scandir(job.ends):
                if entry.name[0] != "." and entry.name not in seen:
                    words = Path(entry.path).read_text()
                    assert words.endswith("\n") and len(words.split()) == (3 if "start" in entry.name else 2)
                    seen.add(entry.name)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        job.run(job.text(*(job.sh(key, ":") for key in range(30))))
    finally:
        over.set()
        looking.join()
    assert len(job.told()) == 60
    assert [path.name for path in job.ends.iterdir() if path.name[0] == "."] == []
    assert seen


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 1", 1), ("exit 128", 128), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)],
)
@pytest.mark.parametrize("others", [0, 1])
def test_exit_codes_and_deaths_by_signals(script: str, code: int, others: int, job: Job) -> None:
    """The code of a member is told as shells have it, and is the script's when nobody else fails."""
    done = job.run(job.text(job.sh(1, script), *[job.sh(2, ":")] * others))
    assert (done.code, job.codes()["1.0.end"]) == (code, str(code))


def test_programs_that_are_missing(job: Job) -> None:
    """A program that is not there is told as shells do, and why is in the member's own errors."""
    assert job.run(job.text(job.member(1, "/no/such/program"))).code == 127
    assert job.codes() == {"1.0.end": "127"}
    assert "/no/such/program" in (job.root / "1.err").read_text()


def test_programs_are_never_the_shells_own(job: Job) -> None:
    """A program that is called as something that the shell has itself is the program."""
    for name in ("echo", "asim_tell", "test", "exit"):
        program = job.root / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nprintf 'the program %s' {name}\n")
        program.chmod(0o755)
    batch = BatchSettings("submit")
    batch.add_preamble(f"PATH={job.root}/bin:$PATH; test() {{ false; }}")
    members = [job.member(key, name, "x\\ny") for key, name in enumerate(("echo", "asim_tell", "test", "exit"))]
    assert job.run(job.text(*members, batch=batch)).code == 0
    assert [(job.root / f"{key}.out").read_text() for key in range(4)] == [
        f"the program {name}" for name in ("echo", "asim_tell", "test", "exit")
    ]


@pytest.mark.parametrize("others", [0, 1])
def test_directories_that_are_missing(others: int, job: Job) -> None:
    """A member whose directory cannot be entered says so in words, in its file and in the script's errors."""
    there = str(job.root / "not there")
    done = job.run(job.text(job.sh(1, ":", cwd=there), *[job.sh(2, ":")] * others))
    assert done.code == 126
    assert job.told()["1.0.end"][0] == "126"
    assert " ".join(job.told()["1.0.end"][2:]) == f"cannot enter its directory {there}"
    assert f"1: cannot enter its directory {there}" in done.stderr


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_outputs_that_cannot_be_written(which: str, others: int, job: Job) -> None:
    """A member whose output cannot be opened does not run, and says which file it was."""
    member = job.sh(1, "touch ran", **{which: "/no/such/directory/out"})
    done = job.run(job.text(member, *[job.sh(2, ":")] * others))
    assert (done.code, (job.root / "ran").exists()) == (126, False)
    assert " ".join(job.told()["1.0.end"][2:]) == "cannot write /no/such/directory/out"


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("code", [0, 4])
def test_nowhere_to_tell(code: int, others: int, job: Job) -> None:
    """Where the directory of ends is missing, members run nevertheless, and the script's exit code is right."""
    job.ends.rmdir()
    done = job.run(job.text(job.sh(1, f"echo ran; exit {code}"), *[job.sh(2, ":")] * others))
    assert (done.code, (job.root / "1.out").read_text()) == (code, "ran\n")


def test_nowhere_to_tell_of_a_time_limit(job: Job) -> None:
    """A time limit holds also where nothing can be told of it."""
    job.ends.rmdir()
    assert job.run(job.text(job.sh(1, LONG, limit=0.1))).code == 143


def test_called_off(job: Job) -> None:
    """A script whose mark is among the stops does nothing at all."""
    (job.stops / "t.1").touch()
    done = job.run(job.text(job.sh(1, "touch ran"), job.sh(2, ":")))
    assert (done.code, done.stderr, job.told()) == (143, "called off\n", {})
    assert not (job.root / "ran").exists()


# -- output of earlier runs


def test_earlier_output_is_kept(job: Job) -> None:
    """What an earlier job or attempt wrote gets a number; empty files and things that are no files do not."""
    for key in (1, 2, 3):
        assert job.run(job.text(job.sh(key, f"echo {key}", stdout=str(job.root / "out")))).code == 0
    assert [(job.root / name).read_text() for name in ("out", "out.1", "out.2")] == ["3\n", "1\n", "2\n"]
    assert not list(job.root.glob("*.err.1"))
    null = job.sh(4, "echo x", stdout="/dev/null", stderr="/dev/null")
    assert job.run(job.text(null)).code == 0
    assert Path("/dev/null").is_char_device()


# -- the same script again


def test_requeued(job: Job) -> None:
    """Run again, members that had ended by themselves are left alone, killed ones run with the next number."""
    count = 'echo again >> "$0.runs"'
    text = job.text(
        job.member(1, "sh", "-c", count, f"{job.root}/one"),
        job.member(2, "sh", "-c", f"{count}; exit 5", f"{job.root}/two"),
        job.member(3, "sh", "-c", f"{count}; [ -e again ] || kill -KILL $$", f"{job.root}/three"),
    )
    assert job.run(text).code == 137
    first = job.told()
    (job.root / "again").touch()
    assert job.run(text).code == 5
    assert [len((job.root / f"{name}.runs").read_text().split()) for name in ("one", "two", "three")] == [1, 1, 2]
    assert job.codes() == {"1.0.end": "0", "2.0.end": "5", "3.0.end": "137", "3.1.end": "0"}
    assert {name: words for name, words in job.told().items() if name in first} == first
    assert job.run(text).code == 5
    assert len(job.told()) == 8


def test_requeued_alone(job: Job) -> None:
    """A script of one member that had ended gives its exit code again, without running it."""
    text = job.text(job.sh(1, "echo ran >> runs; exit 6"))
    assert [job.run(text).code, job.run(text).code] == [6, 6]
    assert (job.root / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("code", [193, 200, 255])
@pytest.mark.parametrize("others", [0, 1])
def test_requeued_after_an_exit_code_that_is_no_signal(code: int, others: int, job: Job) -> None:
    """A member that ended with a code above all signals ended by itself (``exit(-1)``): it is not run again."""
    text = job.text(job.sh(1, f"echo ran >> runs; exit {code}"), *[job.sh(2, "exit 0")] * others)
    assert [job.run(text).code, job.run(text).code] == [code, code]
    assert (job.root / "runs").read_text() == "ran\n"
    assert job.codes()["1.0.end"] == str(code)


def test_requeued_in_the_middle(job: Job) -> None:
    """A member that never told its end, as its node was lost, runs again; so does one that was killed, many times."""
    text = job.text(job.sh(1, "[ -e enough ] || kill -TERM $$"))
    (job.ends / "1.0.start").write_text("0 lost 1\n")
    assert [job.run(text).code, job.run(text).code] == [143, 143]
    (job.root / "enough").touch()
    assert job.run(text).code == 0
    assert job.codes() == {"1.1.end": "143", "1.2.end": "143", "1.3.end": "0"}


def test_requeued_after_a_time_limit(job: Job) -> None:
    """A member that had its time is not given it again."""
    text = job.text(job.sh(1, f"echo ran >> runs; {LONG}", limit=0.2))
    assert [job.run(text).code, job.run(text).code] == [143, 143]
    assert (job.root / "runs").read_text() == "ran\n"


# -- time limits


@pytest.mark.parametrize("others", [0, 1])
def test_time_limit(others: int, job: Job) -> None:
    """A member is stopped at its own limit, and says so; the others know nothing of it."""
    began = time.monotonic()
    done = job.run(job.text(job.sh(1, LONG, limit=0.3), *[job.sh(2, "sleep 0.6; echo done")] * others))
    assert 0.3 <= time.monotonic() - began < 20
    assert (done.code, job.told()["1.0.end"][0], job.told()["1.0.end"][2:]) == (143, "143", ["time", "limit"])
    assert job.codes().get("2.0.end", "0") == "0"


def test_time_limit_of_the_stubborn(job: Job) -> None:
    """One that ignores SIGTERM is killed after the grace."""
    done = job.run(job.text(job.sh(1, "trap '' TERM; while :; do sleep 0.1; done", limit=0.2)))
    assert (done.code, job.told()["1.0.end"][2:]) == (137, ["time", "limit"])


def test_time_limit_that_is_not_reached(job: Job) -> None:
    """Members that end in time, however early, leave no clocks behind that run on, and have no words."""
    limit = 40_000 + os.getpid() % 10_000
    members = [job.sh(key, f"sleep {key / 100}; exit 2", limit=limit) for key in range(1, 20)]
    assert job.run(job.text(job.sh(0, "exit 2", limit=limit), *members)).code == 2
    assert {" ".join(words[2:]) for name, words in job.told().items() if name.endswith(".end")} == {""}
    until(lambda: b"sleep\0%d\0" % limit not in running(), within=5)


def running() -> list[bytes]:
    """The commands of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes())
    return found


# -- stopped one by one


@pytest.mark.slow
def test_one_member_is_stopped(job: Job) -> None:
    """A stop file ends its member alone; the others go on to their own end."""
    rest = "while [ ! -e go ]; do sleep 0.05; done; exit 3"
    with job.started(job.text(job.sh(1, rest), job.sh(22, LONG), job.sh(2, rest))) as process:
        first, stopped, last = up(job, 1, 22, 2)
        (job.stops / "22").touch()
        until(lambda: "22.0.end" in job.told())
        assert (gone(first), gone(stopped), gone(last)) == (False, True, False)
        (job.root / "go").touch()
        assert process.wait(30) in (3, 143)
    assert job.codes() == {"1.0.end": "3", "22.0.end": "143", "2.0.end": "3"}


@pytest.mark.slow
def test_a_stubborn_member_is_stopped(job: Job) -> None:
    """A stopped member that ignores SIGTERM is killed after the grace."""
    stubborn = job.sh(1, "trap 'touch asked' TERM; while :; do sleep 0.1; done")
    with job.started(job.text(stubborn, job.sh(2, ":"))) as process:
        up(job, 1)
        (job.stops / "1").touch()
        assert process.wait(30) == 137
    assert (job.root / "asked").exists()
    assert job.codes() == {"1.0.end": "137", "2.0.end": "0"}


@pytest.mark.slow
def test_several_members_are_stopped(job: Job) -> None:
    """Stops that come at once, of neighbours and of the last, are all seen; one that names nobody is nobody's."""
    text = job.text(*(job.sh(key, LONG) for key in (1, 2, 3, 12)))
    with subprocess.Popen(["sleep", "60"]) as others, job.started(text) as process:
        up(job, 1, 2, 3, 12)
        (job.ends / "4.0.start").write_text(f"0 here {others.pid}\n")  # of another job of the same run
        for name in ("4", "1", "2", "3", "12", "t.99"):
            (job.stops / name).touch()
        assert process.wait(30) == 143
        assert not gone(others.pid)
        others.kill()
    assert set(job.codes().values()) == {"143"}
    assert len(job.codes()) == 4


@pytest.mark.parametrize("others", [0, 1])
def test_stopped_before_it_started(others: int, job: Job) -> None:
    """A member whose stop is there before it does not run, and says why; the others do."""
    (job.stops / "1").touch()
    done = job.run(job.text(job.sh(1, "touch ran"), *[job.sh(2, ":")] * others))
    assert (done.code, (job.root / "ran").exists()) == (143, False)
    assert job.told()["1.0.end"][0] == "143"
    assert " ".join(job.told()["1.0.end"][2:]) == "stopped before it started"
    assert "1.0.start" not in job.told()


@pytest.mark.slow
def test_a_stopped_member_of_a_requeued_script(job: Job) -> None:
    """What was stopped stays stopped when the script runs again."""
    text = job.text(job.sh(1, f"echo ran >> runs; {LONG}"), job.sh(2, ":"))
    with job.started(text) as process:
        up(job, 1)
        (job.stops / "1").touch()
        assert process.wait(30) == 143
    assert job.run(text).code == 143
    assert (job.root / "runs").read_text() == "ran\n"


# -- signals


COUNTS = (
    "trap 'echo usr1 >> got' USR1; trap 'echo term >> got; exit 9' TERM; touch ready{0}; while :; do sleep 0.05; done"
)


def ready(job: Job, *keys: int) -> None:
    """Wait until members can be signalled."""
    up(job, *keys)
    until(lambda: all((job.root / f"ready{key}").exists() for key in keys))


@pytest.mark.parametrize("keys", [(1,), (1, 2)])
def test_signals_are_passed_on(keys: tuple[int, ...], job: Job) -> None:
    """Where a scheduler signals the script alone, every member gets it, and the script waits for their ends."""
    text = job.text(*(job.sh(key, COUNTS.format(key)) for key in keys), batch=Tells("submit"))
    with job.started(text) as process:
        ready(job, *keys)
        process.send_signal(signal.SIGUSR1)
        until(lambda: (job.root / "got").exists() and (job.root / "got").read_text() == "usr1\n" * len(keys))
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 9
    assert (job.root / "got").read_text() == "usr1\n" * len(keys) + "term\n" * len(keys)
    assert set(job.codes().values()) == {"9"}


@pytest.mark.parametrize("keys", [(1,), (1, 2)])
def test_signals_are_not_passed_on(keys: tuple[int, ...], job: Job) -> None:
    """Where a scheduler signals every process itself, members get no second signal, and the script outlives its own."""
    with job.started(job.text(*(job.sh(key, COUNTS.format(key)) for key in keys))) as process:
        ready(job, *keys)
        pids = up(job, *keys)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            process.send_signal(number)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        assert process.wait(30) == 9
    assert (job.root / "got").read_text() == "term\n" * len(keys)
    assert job.codes() == {f"{key}.0.end": "9" for key in keys}


def test_many_signals_change_no_exit_code(job: Job) -> None:
    """However often the script is woken, it tells its member's own exit code."""
    with job.started(job.text(job.sh(1, "while [ ! -e go ]; do sleep 0.02; done; exit 5"))) as process:
        up(job, 1)
        for _ in range(60):
            process.send_signal(signal.SIGUSR2)
            time.sleep(0.001)  # as fast as a scheduler may be
        (job.root / "go").touch()
        assert process.wait(30) == 5
    assert job.codes() == {"1.0.end": "5"}


# -- what is left


@pytest.mark.parametrize("others", [0, 1])
def test_what_a_signal_missed_ends_with_the_script(others: int, job: Job) -> None:
    """A member's child that no signal reached, as it was born after the scheduler had looked, does not outlive the script."""
    missed = "sleep 600 & echo $! > child; mv child there; wait"
    with job.started(job.text(job.sh(1, missed), *[job.sh(2, ":")] * others, batch=Tells("submit"))) as process:
        until((job.root / "there").exists)
        up(job, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 143
    assert gone(int((job.root / "there").read_text()))
    assert job.codes()["1.0.end"] == "143"


@pytest.mark.parametrize("others", [0, 1])
def test_a_member_does_not_outlive_its_shell(others: int, job: Job) -> None:
    """A member whose shell is killed as soon as it has started it, before anything can be told of it, is killed too."""
    killer = "echo $$ > there; kill -KILL $PPID; exec sleep 600"
    done = job.run(job.text(job.sh(1, killer), *[job.sh(2, ":")] * others))
    assert done.code == 137
    assert gone(int((job.root / "there").read_text()))


@pytest.mark.parametrize("code", [3, 255])
def test_what_a_member_leaves_is_its_own(code: int, job: Job) -> None:
    """A program that a member leaves behind when it ends by itself is left alone."""
    done = job.run(job.text(job.sh(1, f"sleep 600 > /dev/null 2>&1 & echo $! > there; exit {code}")))
    left = int((job.root / "there").read_text())
    assert (done.code, gone(left)) == (code, False)
    os.kill(left, signal.SIGKILL)


# -- arrays and variables


@pytest.mark.parametrize("number", [0, 1, 2])
def test_array_scripts_run_one_member(number: int, job: Job) -> None:
    """A task runs the member of its number, and nothing else."""
    members = [job.sh(key, f"exit {key}") for key in (4, 5, 6)]
    done = job.run(job.text(*members, index="${TASK:-0}"), TASK=f"{number}" if number else "")
    assert (done.code, job.codes()) == (4 + number, {f"{4 + number}.0.end": str(4 + number)})


def test_shared_variables_are_written_once(job: Job) -> None:
    """What all members are told of databases is in the script once; what differs, and other variables, at each."""
    show = 'printf "%s|%s|%s|%s" "$SSDB" "$SSKEYOUT" "$A" "${ASIM_GONE-gone}"'
    env = [(("SSDB", "1.2.3.4:1"), ("SSKEYOUT", f"m{key}"), ("A", "x"), ("ASIM_GONE", None)) for key in range(50)]
    text = job.text(*(job.sh(key, show, env=env[key]) for key in range(50)))
    assert (text.count("1.2.3.4:1"), text.count("SSKEYOUT=m"), text.count(" A=x "), text.count("unset ")) == (
        1,
        50,
        50,
        1,
    )
    assert job.run(text, ASIM_GONE="here").code == 0
    outputs = [(job.root / f"{key}.out").read_text() for key in range(50)]
    assert outputs == [f"1.2.3.4:1|m{key}|x|gone" for key in range(50)]


@every_shell
@pytest.mark.parametrize("others", [0, 1])
def test_names_that_are_no_identifiers(shell: str, others: int, tmp_path: Path) -> None:
    """A variable named after a database, whose name may have a hyphen, arrives though no shell could set it."""
    job = Job(tmp_path, shell)
    env = (("SSDB_a-b", "1.2.3.4:1"), ("SSDB", "x"), ("0", "y"))
    members = [job.member(key, "env", env=env) for key in range(1 + others)]
    assert job.run(job.text(*members)) == (0, "", "")
    assert {"SSDB_a-b=1.2.3.4:1", "SSDB=x", "0=y"} <= set((tmp_path / "0.out").read_text().splitlines())


def test_variables_are_unset_for_one_member_alone(job: Job) -> None:
    """None takes a variable away from a member, also when its program's path has an equals sign in it."""
    program = job.root / "a=b"
    program.write_text('#!/bin/sh\nprintf "%s|%s" "${GONE-gone}" "${ASIM_GONE-gone}"\n')
    program.chmod(0o755)
    env = (("GONE", None), ("ASIM_GONE", None))
    text = job.text(job.member(1, str(program), env=env), job.member(2, str(program)))
    assert job.run(text, GONE="here", ASIM_GONE="here").code == 0
    assert [(job.root / f"{key}.out").read_text() for key in (1, 2)] == ["gone|gone", "here|here"]


def test_variables_that_asim_does_not_own_cannot_harm_the_script(job: Job) -> None:
    """A member without PATH, or with another, is told of as any other."""
    env = (("PATH", "/nowhere"), ("IFS", "1"))
    members = [job.member(key, "/bin/sh", "-c", "echo $PATH", env=env) for key in (1, 2)]
    assert job.run(job.text(*members)).code == 0
    assert (job.codes(), (job.root / "2.out").read_text()) == ({"1.0.end": "0", "2.0.end": "0"}, "/nowhere\n")
