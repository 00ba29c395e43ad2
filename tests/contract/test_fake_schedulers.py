"""The fake workload managers: they answer as the real ones were recorded, and their jobs really run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asim.errors import SubmitError
from asim.launchers._qstat import from_json, from_plain
from asim.launchers.base import JobStatus
from asim.launchers.dialect import Batch, Command, Completed, Dialect, SchedulerError
from asim.launchers.lsf import LSF
from asim.launchers.pbs import PBS
from asim.settings import BsubBatchSettings, QsubBatchSettings
from asim.status import JobState
from asim.testing.schedulers import FakeLSF, FakePBS
from asim.testing.schedulers.server import FakeScheduler
from tests.data import ROOT, load
from tests.servers import until

RECORDED = ROOT / "openpbs" / "23.06.06"
TEN = 10.0

pytestmark = pytest.mark.slow


class Site:
    """A directory in which commands are run, with a fake's own before all others.

    :ivar place: the directory.
    """

    def __init__(self, fake: FakeScheduler, place: Path) -> None:
        self.fake, self.place = fake, place
        place.mkdir()
        (place / "adir").mkdir()
        self.write("good.sh", "sleep 0\n")
        self.write("badres.sh", "#!/bin/bash\n#PBS -l nosuchres=3\nsleep 0\n")
        self.write("array.sh", 'sleep "${NAP:-0}"\nexit ${PBS_ARRAY_INDEX}\n')
        self.env = {**os.environ, "PATH": f"{fake.bin}:{os.environ['PATH']}", "TZ": "Pacific/Chatham"}

    def write(self, name: str, text: str) -> str:
        """A script; its path."""
        path = self.place / name
        path.write_text(text)
        return str(path)

    def sh(self, line: str) -> Completed:
        """One shell line."""
        return self.run(Command(("sh", "-c", line)))

    def run(self, command: Command) -> Completed:
        """One command."""
        done = subprocess.run(
            command.argv,
            check=False,
            cwd=self.place,
            env=self.env,
            input=command.stdin.encode(),
            capture_output=True,
            timeout=30,
        )
        out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return Completed(command.argv, done.returncode, out, err)

    def submit(self, dialect: Dialect, batch: Batch) -> str:
        """Submit, and the id."""
        return dialect.submitted(self.run(dialect.submit(batch)))

    def status(self, dialect: Dialect, *jobs: str) -> dict[str, JobStatus]:
        """What is known about jobs."""
        found: dict[str, JobStatus] = {}
        for command in dialect.status(jobs):
            found |= dialect.read_status(self.run(command))
        return found

    def wait(self, dialect: Dialect, job: str, tasks: int = 0) -> list[JobStatus]:
        """How a job, or every task of an array, ended."""
        names = [dialect.task(job, index) for index in range(tasks)] or [job]

        def ended() -> list[JobStatus]:
            found = self.status(dialect, job)
            proofs = [found[name] for name in names if name in found and found[name].state.terminal]
            return proofs if len(proofs) == len(names) else []

        found: list[JobStatus] = until(ended)
        return found

    def cancel(self, dialect: Dialect, *jobs: str) -> None:
        """End jobs."""
        for command in dialect.cancel(jobs):
            dialect.cancelled(self.run(command))


@pytest.fixture
def pbs(tmp_path: Path) -> Iterator[Site]:
    """A fake OpenPBS."""
    with FakePBS(tmp_path / "pbs", grace=0.3, scale=0.1, poll=1.0) as fake:
        yield Site(fake, tmp_path / "run")


def batch(site: Site, script: str, *, name: str = "job", **changes: object) -> Batch:
    """A submit of a script to PBS."""
    kept: dict[str, object] = {"name": name, "mark": "m-1", "script": site.write("m-1.sh", script)}
    kept["settings"] = QsubBatchSettings(nodes=1)
    return Batch(**(kept | changes))  # type: ignore[arg-type]


# --- OpenPBS: as recorded


def shell_line(name: str) -> str:
    """A recording's command."""
    match = re.search(rb"# command: (.*)", (RECORDED / name).read_bytes())
    assert match
    return match[1].decode()


LATER = {"qsub-block-0.txt", "qsub-block-3.txt", "qsub-block-then-qdel.txt"}
"""``-W block`` is not faked."""
SUBMITS = sorted(
    path.name
    for pattern in ("qsub-*.txt", "odd-*-submit.txt")
    for path in RECORDED.glob(pattern)
    if path.name not in LATER
)


@pytest.mark.parametrize("name", SUBMITS)
def test_qsub_is_as_recorded(pbs: Site, name: str) -> None:
    """What the real ``qsub`` takes and refuses, the fake takes and refuses, with its exit code and words."""
    real, fake = load(RECORDED / name), pbs.sh(shell_line(name).replace("crlf.sh", "good.sh"))
    assert fake.code == real.code
    assert re.sub(r"^\d+", "N", fake.stdout) == re.sub(r"^\d+", "N", real.stdout)
    first = [(text.splitlines() or [""])[0].partition(" [")[0] for text in (real.stderr, fake.stderr)]
    assert first[1] == first[0]
    if "usage:" not in real.stderr:
        assert fake.stderr == real.stderr


@pytest.mark.parametrize(
    "name",
    [
        "qstat-unknown-id", "qstat-unknown-full-id", "qstat-malformed-id", "qstat-malformed-id-2", "qstat-wrong-server-id",
        "qstat-several-all-unknown-json", "qstat-unknown-id-x-f-json", "qdel-unknown", "qdel-malformed", "qdel-noargs",
        "qstat-nojobs", "qstat-nojobs-f-json", "nodes-unknown", "version-qsub", "version-qstat", "version-qdel",
        "version-pbsnodes", "array-qdel-several-subjobs", "qstat-nojobs-x",
    ],
)  # fmt: skip
def test_other_commands_are_as_recorded(pbs: Site, name: str) -> None:
    """Ids that are unknown or wrong, and questions about nothing: the same exit codes and words."""
    real, fake = load(RECORDED / f"{name}.txt"), pbs.sh(shell_line(f"{name}.txt"))
    clock = re.compile(r'"timestamp":\d+')
    assert (fake.code, fake.stderr) == (real.code, real.stderr)
    assert clock.sub("", fake.stdout).rstrip() == clock.sub("", real.stdout).rstrip()


@pytest.mark.parametrize(
    "name", ["qsub", "qdel", "qstat", "qstat-f-json", "qstat-id", "pbsnodes"], ids=lambda name: f"down-{name}"
)
def test_server_down_is_as_recorded(pbs: Site, name: str) -> None:
    """A server that does not answer: the same exit codes and words."""
    pbs.fake.down()
    test_other_commands_are_as_recorded(pbs, f"server-down-{name}")


def states(jobs: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Where jobs stand."""
    return [(job["job_state"], job["substate"]) for job in jobs.values()]


def shapes(jobs: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Which attributes jobs have, in order, but for those that come and go with the moment."""
    passing = ("Variable_List.", "session_id", "Resource_List.walltime")
    return [[name for name in job if not name.startswith(passing)] for job in jobs.values()]


@pytest.mark.parametrize(
    ("name", "submit", "ask"),
    [
        ("qstat-finished-x-f-json", "qsub -l walltime=00:10:00 good.sh", "qstat -x -f -F json 1"),
        ("qstat-running-f-json", "qsub -- /bin/sleep 60", "qstat -f -F json 1"),
        ("qstat-running-f-w", "qsub -- /bin/sleep 60", "qstat -f -w 1"),
        ("qstat-held-f-json", "qsub -h -- /bin/sleep 60", "qstat -f -F json 1"),
        ("qstat-queued-f-json", "qsub -q holdq -- /bin/sleep 60", "qstat -f -F json 1"),
        ("array-running-qstat-t-f-json", "NAP=60 qsub -v NAP -J 0-3 array.sh", "qstat -t -f -F json '1[]'"),
        ("array-finished-qstat-x-t-f-json", "qsub -J 0-3 array.sh", "qstat -x -t -f -F json '1[]'"),
        ("array-partly-done-qstat-t-f-json", "NAP=1 qsub -v NAP -J 0-6:2%1 array.sh", "qstat -t -f -F json '1[]'"),
    ],
)
def test_qstat_has_the_recorded_form(pbs: Site, name: str, submit: str, ask: str) -> None:
    """The same attributes in the same order, so that the parser's tests and the fake cannot drift apart."""
    read = from_json if "json" in ask else from_plain
    recorded = read(load(RECORDED / f"{name}.txt").stdout)
    moment = states(recorded)
    assert pbs.sh(submit).code == 0

    def same_states() -> Completed | None:
        done = pbs.sh(ask)
        return done if states(read(done.stdout)) == moment else None

    mine = read(until(same_states).stdout)
    drop = {"executable", "argument_list"}
    assert shapes(mine) == [[key for key in keys if key not in drop] for keys in shapes(recorded)]


def test_the_layout_is_the_recorded_one(pbs: Site) -> None:
    """The text itself, with the values taken out, line by line: what a reader by lines depends on."""
    pbs.sh("qsub -l walltime=00:10:00 good.sh")
    until(lambda: json.loads(pbs.sh("qstat -x -f -F json 1").stdout)["Jobs"]["1.pbshost"]["job_state"] == "F")
    texts = [load(RECORDED / "qstat-finished-x-f-json.txt").stdout, pbs.sh("qstat -x -f -F json 1").stdout]
    bare = [re.sub(r'(":)(?:".*"|[-\d.]+)(,?)$', r"\1\2", text, flags=re.MULTILINE) for text in texts]
    bare = [re.sub(r'.*"(session_id|executable|argument_list)":,\n', "", text) for text in bare]
    assert re.sub(r"\d+\.pbshost", "N", bare[1]) == re.sub(r"\d+\.pbshost", "N", bare[0])


ENVIRONMENTS = ["select1", "select1-ompthreads", "select2-pack", "nodes-ppn", "v-list", "V"]


@pytest.mark.parametrize("name", [f"env-{form}" for form in ENVIRONMENTS])
def test_the_job_sees_what_was_recorded(pbs: Site, name: str) -> None:
    """The variables that a job has, its directory, its umask and its node file are those of the recording."""
    recorded = load(RECORDED / f"{name}.txt").stdout
    match = re.search(r"qsub (.*) env2?\.sh", (RECORDED / f"{name}.txt").read_text())
    assert match
    pbs.write("env.sh", 'pwd\nenv | sort\necho == PBS_NODEFILE\ncat "$PBS_NODEFILE"\necho == ids\numask\n')
    assert pbs.sh(f"OTHER=passed FROMENV=zzz qsub -N envjob -o out {match[1]} env.sh").code == 0
    path = pbs.place / "out"
    until(path.exists)
    mine = path.read_text()
    names = [
        {line.partition("=")[0] for line in text.splitlines() if re.match(r"[A-Z]\w*=", line)}
        - {"MANPATH", "SHLVL", "PWD"}
        for text in (recorded, mine)
    ]
    assert names[1] - {"OLDPWD"} == names[0] - {"OLDPWD"}
    files = [text.partition("== PBS_NODEFILE\n")[2].partition("== ids")[0].split() for text in (recorded, mine)]
    assert len(files[1]) == len(files[0])
    for key in ("NCPUS", "OMP_NUM_THREADS"):
        assert re.findall(rf"^{key}=(.*)", mine, re.MULTILINE) == re.findall(rf"^{key}=(.*)", recorded, re.MULTILINE)
    assert mine.splitlines()[0] == str(pbs.fake.directory / "home")
    assert mine.splitlines()[-1] == "0077"


def test_a_subjob_sees_what_was_recorded(pbs: Site) -> None:
    """Its index, its array and its own id, brackets and all."""
    pbs.write("env.sh", "env\n")
    assert pbs.sh("qsub -N envjob -J 3-4 env.sh").stdout == "1[].pbshost\n"
    path = pbs.place / "envjob.o1.3"
    until(path.exists)
    recorded = load(RECORDED / "env-array-subjob.txt").stdout
    for text, number in ((recorded, 78), (path.read_text(), 1)):
        assert f"PBS_ARRAY_ID={number}[].pbshost\n" in text
        assert "PBS_ARRAY_INDEX=3\n" in text
        assert f"PBS_JOBID={number}[3].pbshost\n" in text


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("output-default", {"deflt.o1": "out", "deflt.e1": "err"}),
        ("output-o-e", {"o1.txt": "out", "e1.txt": "err"}),
        ("output-o-directory", {"d/1.pbshost.OU": "out", "d/1.pbshost.ER": "err"}),
        ("output-j-oe", {"joined.txt": "both"}),
        ("output-k-doe", {"o2.txt": "out", "e2.txt": "err"}),
    ],
)
def test_output_files_are_as_recorded(pbs: Site, name: str, files: Mapping[str, str]) -> None:
    """Their names, what is in them, their mode; nothing can be read before the job ends, but with ``-k d``."""
    (pbs.place / "d").mkdir()
    pbs.write("talk.sh", "echo out first\necho err first >&2\nsleep 0.4\necho out last\necho err last >&2\n")
    recorded = load(RECORDED / f"{name}.txt").stdout
    pbs.sh(shell_line(f"{name}.txt"))
    job = until(lambda: pbs.fake.jobs[1].tasks[0].state == "running" and pbs.fake.jobs[1])
    early = any((pbs.place / file).exists() for file in files)
    assert early == (name == "output-k-doe")
    until(lambda: job.tasks[0].state == "ended")
    for file, content in files.items():
        shown = re.sub(r"\b1\.pbshost", "84.pbshost", re.sub(r"(deflt\.[oe])1", r"\g<1>80", file))
        said = recorded.partition(f"== {shown}\n")[2].partition("== ")[0]
        assert (pbs.place / file).read_text() == said, content
        assert (pbs.place / file).stat().st_mode & 0o777 == 0o600


# --- OpenPBS: what jobs do


@pytest.mark.parametrize(
    ("script", "state", "code"),
    [
        ("exit 0", JobState.COMPLETED, 0),
        ("exit 3", JobState.FAILED, 3),
        ("kill -SEGV $$", JobState.FAILED, -11),
        ("kill -9 $$", JobState.FAILED, -9),
        ("#!/no/such/shell\n", JobState.FAILED, 127),
    ],
)
def test_pbs_exit_codes(pbs: Site, script: str, state: JobState, code: int) -> None:
    """Exit codes and signals arrive, through the real form and the real parser."""
    dialect = PBS()
    before = time.time()
    job = pbs.submit(dialect, batch(pbs, script + "\n"))
    (proof,) = pbs.wait(dialect, job)
    assert (proof.state, proof.code) == (state, code)
    assert before - 1 <= proof.time <= time.time() + 1  # whatever the zone


def test_pbs_array(pbs: Site) -> None:
    """One submit and one question for all tasks; each has its own exit code."""
    dialect = PBS()
    job = pbs.submit(dialect, batch(pbs, f"exit {dialect.index}\n", size=5, throttle=2))
    proofs = pbs.wait(dialect, job, 5)
    assert [proof.code for proof in proofs] == [0, 1, 2, 3, 4]
    assert pbs.fake.count("qsub") == 1
    assert pbs.sh("qstat '1'").code == 153  # an array needs its brackets


def test_pbs_walltime(pbs: Site) -> None:
    """A job that runs into its limit is told as that, whatever its script did."""
    settings = QsubBatchSettings(nodes=1)
    dialect = PBS()
    script = "#PBS -l walltime=00:00:02\ntrap 'exit 9' TERM\nsleep 60 & wait\n"
    (proof,) = pbs.wait(dialect, pbs.submit(dialect, batch(pbs, script, settings=settings)))
    assert proof.state is JobState.TIMEOUT
    assert proof.reason.startswith("Exit_status -29")


@pytest.mark.parametrize("script", ["sleep 60\n", "trap 'exit 9' TERM; sleep 60 & wait\n", "trap '' TERM; sleep 60\n"])
def test_pbs_delete(pbs: Site, script: str) -> None:
    """``qdel`` ends a job that obeys, one that has the last word, and one that does not listen."""
    dialect = PBS()
    job = pbs.submit(dialect, batch(pbs, script))
    until(lambda: pbs.status(dialect, job)[job].state is JobState.RUNNING)
    pbs.cancel(dialect, job)
    (proof,) = pbs.wait(dialect, job)
    assert (proof.state, proof.code) == (JobState.CANCELLED, -15)
    pbs.cancel(dialect, job)  # it has ended: no error


def test_pbs_delete_tasks(pbs: Site) -> None:
    """Several tasks of one array are deleted, although one command cannot."""
    dialect = PBS()
    job = pbs.submit(dialect, batch(pbs, "sleep 60\n", size=4))
    until(lambda: len(pbs.status(dialect, job)) == 4)
    pbs.cancel(dialect, dialect.task(job, 1), dialect.task(job, 3))

    def left() -> bool:
        found = pbs.status(dialect, job)
        return [found[dialect.task(job, index)].state for index in range(4)] == [
            *(JobState.RUNNING, JobState.CANCELLED, JobState.RUNNING, JobState.CANCELLED)
        ]

    until(left)
    pbs.cancel(dialect, job)
    assert {proof.state for proof in pbs.wait(dialect, job, 4)} == {JobState.CANCELLED}


def test_pbs_held_and_deleted(pbs: Site) -> None:
    """A job that never ran ends without an exit status."""
    dialect = PBS()
    job = pbs.submit(dialect, batch(pbs, "#PBS -h\nexit 0\n"))
    assert pbs.status(dialect, job)[job].state is JobState.PENDING
    pbs.cancel(dialect, job)
    (proof,) = pbs.wait(dialect, job)
    assert (proof.state, proof.code) == (JobState.CANCELLED, None)


def test_pbs_dependency(pbs: Site) -> None:
    """A job whose condition cannot be met any more looks like a success, and is none."""
    dialect = PBS()
    first = pbs.submit(dialect, batch(pbs, "sleep 0.3; exit 1\n"))
    script = f"#PBS -W depend=afterok:{first}\nexit 0\n"
    second = pbs.submit(dialect, batch(pbs, script))
    waiting = pbs.status(dialect, second)[second]
    assert waiting.reason == f"H: waits for other jobs (afterok:{first}@pbshost)"
    (proof,) = pbs.wait(dialect, second)
    assert proof.state is JobState.CANCELLED
    assert "depends on" in proof.reason


def test_pbs_undelivered_output(pbs: Site) -> None:
    """Output that cannot be put in place is told, though the job completed."""
    dialect = PBS()
    job = pbs.submit(dialect, batch(pbs, "#PBS -o /no/such/place/x.txt\necho here\n"))
    (proof,) = pbs.wait(dialect, job)
    assert proof.state is JobState.COMPLETED
    assert proof.reason == "Stageout_status 0: its output could not be delivered to pbshost:/no/such/place/x.txt"
    assert (pbs.fake.undelivered / "1.pbshost.OU").read_text() == "here\n"


def test_pbs_without_history(tmp_path: Path) -> None:
    """Where no history is kept what runs is seen, and what has ended is unknown: no evidence at all."""
    with FakePBS(tmp_path / "pbs", history=False) as fake:
        site, dialect = Site(fake, tmp_path / "run"), PBS()
        job = site.submit(dialect, batch(site, "sleep 0.5\n"))
        with pytest.raises(SchedulerError, match="no history"):
            site.status(dialect, job)
        until(lambda: site.status(dialect, job)[job].state is JobState.RUNNING)
        until(lambda: site.status(dialect, job) == {})


def test_pbs_that_prints_the_first_only(tmp_path: Path) -> None:
    """A version that prints one of several jobs is asked so that it prints all."""
    with FakePBS(tmp_path / "pbs", first_only=True) as fake:
        site, dialect = Site(fake, tmp_path / "run"), PBS()
        jobs = [site.submit(dialect, batch(site, "sleep 60\n")) for _ in range(3)]
        assert list(from_json(site.sh(f"qstat -f -F json {' '.join(jobs)}").stdout)) == jobs[:1]
        assert list(site.status(dialect, *jobs)) == jobs


def test_pbs_odd_arguments(pbs: Site) -> None:
    """A backslash among the arguments makes the whole answer invalid JSON, and it is read all the same."""
    dialect = PBS()
    assert pbs.sh(r"qsub -v 'K=back\slash,B=ü' -- /bin/sleep 60").code == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(pbs.sh("qstat -f -F json 1").stdout)
    assert pbs.status(dialect, "1.pbshost")["1.pbshost"].state is not JobState.COMPLETED


# --- what tests ask for


def test_faults(pbs: Site) -> None:
    """Down, refused, lost: each ends as the dialect says, and a lost submit is found again, once."""
    dialect = PBS()
    pbs.fake.down()
    with pytest.raises(SubmitError) as refused:
        pbs.submit(dialect, batch(pbs, "exit 0\n"))
    assert refused.value.transient
    with pytest.raises(SchedulerError):
        pbs.status(dialect, "1.pbshost")
    pbs.fake.up()
    pbs.fake.refuse(38, "qsub: would exceed queue generic's per-user limit of jobs in 'Q' state\n")
    with pytest.raises(SubmitError) as refused:
        pbs.submit(dialect, batch(pbs, "exit 0\n"))
    assert refused.value.transient
    pbs.fake.lose()
    with pytest.raises(SchedulerError, match="nobody knows"):
        pbs.submit(dialect, batch(pbs, "sleep 60\n"))
    (command,) = dialect.find(["m-1"])
    assert dialect.find_read(pbs.run(command), ["m-1", "m-2"]) == {"m-1": "1.pbshost"}
    assert [call.code for call in pbs.fake.calls] == [162, 255, 38, -9, 0]
    assert len(pbs.fake.jobs) == 1


def test_down_while_jobs_end(pbs: Site) -> None:
    """Jobs run on and end while nobody can ask."""
    dialect = PBS()
    job = pbs.submit(dialect, batch(pbs, "sleep 0.2; exit 4\n"))
    pbs.fake.down()
    until(lambda: pbs.fake.jobs[1].tasks[0].state == "ended")
    pbs.fake.up()
    (proof,) = pbs.wait(dialect, job)
    assert proof.code == 4


def test_what_is_left_running_is_ended(pbs: Site) -> None:
    """A job's processes do not outlive it, but for those in a session of their own."""
    dialect = PBS()
    script = "sleep 61 & echo $!\nsetsid sleep 1 &\nexit 0\n"
    pbs.wait(dialect, pbs.submit(dialect, batch(pbs, script)))
    pid = int(until((pbs.place / "m-1.sh.o1").read_text))
    until(lambda: not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


def test_a_hundred_jobs(pbs: Site) -> None:
    """A hundred submits at once, one question for all: in a few seconds."""
    dialect = PBS()
    one = batch(pbs, "exit 0\n")
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: pbs.submit(dialect, one), range(100)))
    assert len(set(jobs)) == 100
    until(lambda: sum(proof.state is JobState.COMPLETED for proof in pbs.status(dialect, *jobs).values()) == 100)
    assert time.monotonic() - began < TEN


# --- LSF: as documented


@pytest.fixture
def lsf(tmp_path: Path) -> Iterator[Site]:
    """A fake LSF; its minutes last 0.6 seconds."""
    with FakeLSF(tmp_path / "lsf", grace=0.3, scale=0.01) as fake:
        yield Site(fake, tmp_path / "run")


def bsub(site: Site, script: str, **changes: object) -> Batch:
    """A submit of a script to LSF."""
    kept: dict[str, object] = {"name": "job", "mark": "m-1", "script": site.write("m-1.sh", script)}
    return Batch(**(kept | {"settings": BsubBatchSettings()} | changes))  # type: ignore[arg-type]


def test_lsf_reads_the_scripts_own_lines(lsf: Site) -> None:
    """The ``#BSUB`` lines of a script count when it is the standard input, and not when it is an argument."""
    dialect = LSF()
    job = lsf.submit(dialect, bsub(lsf, "#BSUB -o out.%J\necho here\n"))
    lsf.wait(dialect, job)
    assert (lsf.place / "out.1").read_text().endswith("here\n")
    done = lsf.sh("bsub sh m-1.sh")
    lsf.wait(dialect, dialect.submitted(done))
    assert not (lsf.place / "out.2").exists()
    assert lsf.sh("bsub -o x -Y 3 < m-1.sh").code == 255


@pytest.mark.parametrize(
    ("script", "state", "code"),
    [
        ("exit 0", JobState.COMPLETED, 0),
        ("exit 3", JobState.FAILED, 3),
        ("kill -SEGV $$", JobState.FAILED, 139),
        ("#BSUB -W 0:01\nsleep 60", JobState.TIMEOUT, -15),
    ],
)
def test_lsf_ends(lsf: Site, script: str, state: JobState, code: int) -> None:
    """Exit codes, a signal and the run limit arrive, from ``bjobs`` and from the event logs alike."""
    dialect = LSF()
    job = lsf.submit(dialect, bsub(lsf, f"{script}\n"))
    (proof,) = lsf.wait(dialect, job)
    assert (proof.state, proof.code) == (state, code)
    (command,) = dialect.account([job])
    old = dialect.read_account(lsf.run(command))[job]
    assert (old.state, old.code) == (state, code)
    assert abs(old.time - time.time()) < TEN  # whatever the zone


def test_lsf_array(lsf: Site) -> None:
    """One submit and one question for all tasks; each has its own exit code."""
    dialect = LSF()
    job = lsf.submit(dialect, bsub(lsf, f"exit {dialect.index}\n", size=5, throttle=2))
    assert [proof.code for proof in lsf.wait(dialect, job, 5)] == [0, 1, 2, 3, 4]
    assert lsf.fake.count("bsub") == 1


@pytest.mark.parametrize("script", ["sleep 60\n", "trap '' INT; sleep 60 & wait\n", "trap '' INT TERM; sleep 60\n"])
def test_lsf_kill(lsf: Site, script: str) -> None:
    """``bkill`` ends a job that obeys, and one that does not listen; what has ended is no error."""
    dialect = LSF()
    job = lsf.submit(dialect, bsub(lsf, script))
    until(lambda: lsf.status(dialect, job)[job].state is JobState.RUNNING)
    lsf.cancel(dialect, job)
    (proof,) = lsf.wait(dialect, job)
    assert (proof.state, proof.reason) == (JobState.CANCELLED, "EXIT: TERM_OWNER: job killed by owner")
    lsf.cancel(dialect, job)


def test_lsf_held_and_killed(lsf: Site) -> None:
    """A job that never ran ends without an exit code."""
    dialect = LSF()
    job = lsf.submit(dialect, bsub(lsf, "#BSUB -H\nexit 0\n"))
    assert lsf.status(dialect, job)[job].reason.startswith("PSUSP")
    lsf.cancel(dialect, job)
    (proof,) = lsf.wait(dialect, job)
    assert (proof.state, proof.code) == (JobState.CANCELLED, None)


def test_lsf_forgets(tmp_path: Path) -> None:
    """After ``CLEAN_PERIOD`` a job is unknown to ``bjobs``, which proves nothing; the event logs know it."""
    with FakeLSF(tmp_path / "lsf", clean=0.0) as fake:
        site, dialect = Site(fake, tmp_path / "run"), LSF()
        job = site.submit(dialect, bsub(site, "exit 5\n"))
        until(lambda: fake.jobs[1].tasks[0].state == "ended")
        assert site.status(dialect, job) == {}
        (command,) = dialect.account([job])
        assert dialect.read_account(site.run(command))[job].code == 5


def test_lsf_faults(lsf: Site) -> None:
    """Down, refused, lost: each ends as the dialect says, and a lost submit is found again, once."""
    dialect = LSF()
    lsf.fake.down()
    with pytest.raises(SubmitError) as refused:
        lsf.submit(dialect, bsub(lsf, "exit 0\n"))
    assert refused.value.transient
    with pytest.raises(SchedulerError):
        lsf.status(dialect, "1")
    lsf.fake.up()
    lsf.fake.refuse(255, "User permission denied. Job not submitted.\n")
    with pytest.raises(SubmitError) as refused:
        lsf.submit(dialect, bsub(lsf, "exit 0\n"))
    assert not refused.value.transient
    lsf.fake.lose()
    with pytest.raises(SchedulerError, match="nobody knows"):
        lsf.submit(dialect, bsub(lsf, "sleep 60\n"))
    (command,) = dialect.find(["m-1"])
    assert dialect.find_read(lsf.run(command), ["m-1", "m-2"]) == {"m-1": "1"}
    assert len(lsf.fake.jobs) == 1
