"""PBS' words: every recording of a real OpenPBS, and what is asked of it."""

from __future__ import annotations

import json
import re

import pytest

from asim.errors import SubmitError
from asim.launchers._qstat import from_json, from_plain
from asim.launchers.dialect import Batch, Command, Completed, Dialect, SchedulerError
from asim.launchers.pbs import PBS
from asim.settings import QsubBatchSettings
from asim.status import JobState
from tests.data import ROOT, load

RECORDINGS = ROOT / "openpbs"
EXPECTED: dict[str, dict[str, object]] = json.loads((RECORDINGS / "expected.json").read_text())
"""What each recording proves, by what it is an answer to. ``!``: refused, ``?``: no answer; again or never."""


def expected(kind: str) -> pytest.MarkDecorator:
    """Every recording of one kind with what it proves."""
    return pytest.mark.parametrize(("name", "proof"), EXPECTED[kind].items(), ids=EXPECTED[kind])


def recorded(name: str) -> Completed:
    """One recording."""
    return load(RECORDINGS / name)


def seen(done: Completed, pbs: PBS | None = None) -> object:
    """What ``read_status`` makes of an answer, as ``expected.json`` writes it."""
    try:
        proofs = (pbs or PBS()).read_status(done)
    except SchedulerError as error:
        return "?again" if error.transient else "?never"
    return {
        job: f"{proof.state} {'-' if proof.code is None else proof.code} {int(proof.time)} {proof.reason}".rstrip()
        for job, proof in proofs.items()
    }


def batch(**changes: object) -> Batch:
    """A submit of one script."""
    settings = QsubBatchSettings(nodes=1)
    kept: dict[str, object] = {"name": "jobs", "mark": "m-1", "script": "/run/m-1.sh", "settings": settings} | changes
    return Batch(**kept)  # type: ignore[arg-type]


# --- recordings


def test_no_recording_is_left_out() -> None:
    """A recording that no test looks at would prove nothing."""
    there = {path.relative_to(RECORDINGS).as_posix() for path in RECORDINGS.rglob("*.txt")}
    named = [name for table in EXPECTED.values() for name in table]
    assert sorted(named) == sorted(there)
    assert len(there) > 400


@expected("status")
def test_recorded_status(name: str, proof: object) -> None:
    """Each answer of ``qstat`` and ``pbsnodes`` proves exactly this, and no more."""
    assert seen(recorded(name)) == proof


@expected("submit")
def test_recorded_submit(name: str, proof: object) -> None:
    """Each answer of ``qsub`` is an id, a refusal, or leaves it open."""
    try:
        answer = PBS().submitted(recorded(name))
    except SubmitError as error:
        answer = "!again" if error.transient else "!never"
    except SchedulerError:
        answer = "?again"
    assert answer == proof


@expected("cancel")
def test_recorded_cancel(name: str, proof: object) -> None:
    """Commands that act on jobs: what had ended before is no error, what was not done is one."""
    answer = None
    try:
        PBS().cancelled(recorded(name))
    except SchedulerError as error:
        answer = "?again" if error.transient else "?never"
    assert answer == proof


@expected("noise")
def test_recorded_noise(name: str, proof: object) -> None:
    """Output of jobs and of other commands is never taken for evidence."""
    done = recorded(name)
    assert proof is None
    assert from_plain(done.stdout) == {}
    with pytest.raises(ValueError, match="not an answer|breaks off"):
        from_json(done.stdout)


def both_forms() -> list[str]:
    """Recordings that are there in JSON and in the plain form."""
    names = {path.name for path in (RECORDINGS / "23.06.06").glob("*-f-json.txt")}
    return sorted(name for name in names if (RECORDINGS / "23.06.06" / name.replace("-json", "")).exists())


@pytest.mark.parametrize("name", both_forms())
def test_both_forms_agree(name: str) -> None:
    """The fallback says what the first choice says, but for blanks where a line was folded."""
    answers = [recorded(f"23.06.06/{name}"), recorded(f"23.06.06/{name.replace('-json', '')}")]
    first, second = (re.sub(r"\s", "", str(seen(answer))) for answer in answers)
    if "odd-long" not in name:  # those are two jobs
        assert first == second


# --- the decoder


def test_numbers_stay_text() -> None:
    """A job named 1e5, a project 4.50 and a variable 1.10 are not made into other numbers."""
    (job,) = from_json(recorded("23.06.06/odd-name-1e5-f-json.txt").stdout).values()
    assert job["Job_Name"] == "1e5"
    (job,) = from_json(recorded("23.06.06/odd-numeric-account-project-f-json.txt").stdout).values()
    assert (job["Account_Name"], job["project"]) == ("123", "4.50")


@pytest.mark.parametrize("name", ["odd-variables", "odd-variable-utf8"])
def test_broken_json_is_read(name: str) -> None:
    """What no JSON reader takes is read all the same, whole, and the broken value is the only loss."""
    done = recorded(f"23.06.06/{name}-f-json.txt")
    (job,) = from_json(done.stdout).values()
    assert job["Submit_Host"] == "pbshost"
    assert job["Variable_List.PBS_O_HOST"] == "pbshost"
    assert job["Submit_arguments"].endswith("good.sh")


def test_one_broken_job_hides_no_other() -> None:
    """In an answer about two jobs the sound one is read although the other's line is not JSON."""
    broken = recorded("23.06.06/odd-variables-f-json.txt").stdout.rstrip().removesuffix("}").rstrip()
    sound = recorded("23.06.06/qstat-running-f-json.txt").stdout
    second = sound[sound.index('        "28.pbshost"') :]
    jobs = from_json(broken.removesuffix("}").rstrip() + ",\n" + second)
    assert [job["job_state"] for job in jobs.values()] == ["H", "R"]


@pytest.mark.parametrize("form", ["23.06.06", "main-2026-04"])
def test_an_answer_that_breaks_off_is_none(form: str) -> None:
    """Half an answer (the command was killed, a disk was full) proves nothing, wherever it ends."""
    text = recorded(f"{form}/qstat-several-ok-json.txt").stdout.rstrip()
    for end in range(0, len(text) - 1, 97):
        with pytest.raises(ValueError, match="breaks off|not an answer"):
            from_json(text[:end])


# --- what it learns


def ended(command: Command, like: Completed) -> Completed:
    """A recorded answer, as if it were to this command."""
    return Completed(command.argv, like.code, like.stdout, like.stderr)


def test_history_off_is_learned() -> None:
    """Where no history is kept, ``-x`` hides what runs: it is left out from then on, and the job is seen."""
    pbs = PBS()
    (command,) = pbs.status(["120.pbshost"])
    assert "-x" in command.argv
    assert seen(ended(command, recorded("23.06.06/nohistory-running-x-f-json.txt")), pbs) == "?again"
    (command,) = pbs.status(["120.pbshost"])
    assert "-x" not in command.argv
    assert seen(ended(command, recorded("23.06.06/nohistory-running-f-json.txt")), pbs) == {
        "120.pbshost": "RUNNING - 1795314770"
    }


@pytest.mark.parametrize(
    "answer",
    [Completed((), 2, "", "qstat: invalid option -- 'F'\nusage:"), Completed((), 0, "{\n  garbage\n", "")],
    ids=["unknown", "unreadable"],
)
def test_plain_form_is_the_fallback(answer: Completed) -> None:
    """A ``qstat`` without JSON, or with JSON that cannot be read, is asked in the plain form."""
    pbs = PBS()
    (command,) = pbs.status(["34.pbshost"])
    assert seen(ended(command, answer), pbs) == "?again"
    (command,) = pbs.status(["34.pbshost"])
    assert command.argv == ("env", "TZ=UTC", "qstat", "-f", "-x", "-w", "34.pbshost")
    assert seen(ended(command, recorded("23.06.06/qstat-exit-fin3-x-f.txt")), pbs) == {
        "34.pbshost": "FAILED 3 1795314422 Exit_status 3"
    }


def test_old_plain_form() -> None:
    """A ``qstat`` that knows neither JSON nor ``-w`` is asked for folded lines, which are read as well."""
    pbs = PBS()
    for _ in range(2):
        (command,) = pbs.status(["102.pbshost"])
        assert seen(Completed(command.argv, 2, "", "qstat: invalid option"), pbs) == "?again"
    (command,) = pbs.status(["102.pbshost"])
    assert command.argv == ("env", "TZ=UTC", "qstat", "-f", "-x", "102.pbshost")
    done = ended(command, recorded("23.06.06/odd-long-variable-f.txt"))
    assert seen(done, pbs) == {"102.pbshost": "PENDING - 1795314704 H: held"}


def test_a_server_that_is_down_teaches_nothing() -> None:
    """Its empty answer in good JSON is an error, and no reason to ask otherwise."""
    pbs = PBS()
    for name in ("server-down-qstat-f-json", "server-down-pbsnodes"):
        assert seen(recorded(f"23.06.06/{name}.txt"), pbs) == "?again"
    assert pbs.json
    assert pbs.history


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (162, "qsub: System error"),
        (163, "qsub: Error (15011) submitting job"),
        (183, "qsub: Error (15031) submitting job"),
        (1, "qsub: submit error (End of File)"),
        (1, "qsub: submit error (Batch protocol error)"),
        (1, "Connection reset by peer"),
        (110, "qsub: Connection timed out"),
    ],
)
def test_nobody_knows_whether_it_was_taken(code: int, text: str) -> None:
    """An answer that breaks off may have been that of a job: a second submit could start it twice."""
    with pytest.raises(SchedulerError, match="nobody knows"):
        PBS().submitted(Completed(("qsub", "x.sh"), code, "", text))


@pytest.mark.parametrize("code", [162, 185, 186])
def test_no_connection_is_a_refusal(code: int) -> None:
    """What could not even be asked may be asked again, whatever the words for it."""
    text = "Connection timed out\nqsub: cannot connect to server pbs (errno=15010)"
    with pytest.raises(SubmitError) as caught:
        PBS().submitted(Completed(("qsub", "x.sh"), code, "", text))
    assert caught.value.transient


@pytest.mark.parametrize("code", [None, -9, -15])
def test_a_command_that_was_stopped_is_no_answer(code: int | None) -> None:
    """A ``qstat`` that was killed proves nothing; a ``qsub`` that was killed may have submitted."""
    done = recorded("23.06.06/qstat-running-f-json.txt")._replace(code=code)
    assert seen(done) == "?again"
    with pytest.raises(SchedulerError, match="nobody knows"):
        PBS().submitted(Completed(("qsub", "x.sh"), code))
    with pytest.raises(SchedulerError):
        PBS().cancelled(Completed(("qdel", "1"), code))


# --- what is asked


def test_is_a_dialect() -> None:
    """The class has the shape that the driver needs."""
    dialect: Dialect = PBS()
    assert (dialect.name, dialect.least, dialect.most) == ("pbs", 2, 10000)
    assert dialect.account(["1.s"]) == []
    assert dialect.read_account(Completed((), 0)) == {}


@pytest.mark.parametrize(
    ("torque", "size", "throttle", "argv"),
    [
        (False, 0, None, ("qsub", "/run/m-1.sh")),
        (False, 4, None, ("qsub", "-J", "0-3", "/run/m-1.sh")),
        (False, 1000, 50, ("qsub", "-J", "0-999%50", "/run/m-1.sh")),
        (True, 4, None, ("qsub", "-t", "0-3", "/run/m-1.sh")),
        (True, 4, 2, ("qsub", "-t", "0-3%2", "/run/m-1.sh")),
    ],
)
def test_submit(torque: bool, size: int, throttle: int | None, argv: tuple[str, ...]) -> None:
    """One command for a job or a whole array; nothing is exported by it."""
    assert PBS(torque=torque).submit(batch(size=size, throttle=throttle)).argv == argv


def test_users_submit_command() -> None:
    """A command of the user's own is used."""
    settings = QsubBatchSettings(nodes=1)
    settings.set_batch_command("/site/bin/qsub")
    assert PBS().submit(batch(settings=settings, size=2)).argv[0] == "/site/bin/qsub"


def test_tasks() -> None:
    """A task's id has its number between the array's brackets; its index in the shell is from 0."""
    assert PBS().task("47[].pbshost", 3) == "47[3].pbshost"
    assert PBS().index == "${PBS_ARRAY_INDEX:?}"
    assert PBS(torque=True).index == "${PBS_ARRAYID:?}"


def test_status_is_one_question() -> None:
    """All jobs in one command, with ``-E`` so that every version prints all; very many in a few."""
    (command,) = PBS().status(["1.s", "2[].s", "3.s"])
    assert command.argv == (
        *("env", "TZ=UTC", "qstat", "-E", "-x", "-f", "-F", "json", "-t"), "1.s", "2[].s", "3.s",
    )  # fmt: skip
    assert "-t" not in PBS().status(["1.s"])[0].argv
    assert len(PBS().status([f"{number}.s" for number in range(2500)])) == 3
    assert PBS().status([]) == []


def test_only_the_first_is_not_all() -> None:
    """One version prints one of several jobs, with exit code 0: the others are absent, which proves nothing."""
    assert list(PBS().read_status(recorded("main-2026-04/qstat-several-ok-json.txt"))) == ["42.pbshost"]
    assert list(PBS().read_status(recorded("main-2026-04/qstat-several-E-json.txt"))) == ["42.pbshost", "43.pbshost"]


def test_ids_are_as_qsub_printed_them() -> None:
    """A server that calls itself otherwise in ``qstat`` is no other server, also for tasks."""
    like = recorded("23.06.06/array-running-qstat-t-f-json.txt")
    done = like._replace(argv=("qstat", "-F", "json", "47[].login.example.org"))
    assert list(PBS().read_status(done)) == [f"47[{index}].login.example.org" for index in range(4)]


def test_borrowed_values_are_no_evidence() -> None:
    """A task of an array that shows the array's exit status is not reported: neither a 0 nor a 1 is its own."""
    for name in (
        "23.06.06/array-after-qdel-whole-x-t-f-json.txt",
        "main-2026-04/array-after-qdel-whole-x-t-f-json.txt",
    ):
        proofs = PBS().read_status(recorded(name))
        assert [job.partition(".")[0][2:] for job in proofs] == ["[]", "[2]"]


def test_cancel_keeps_tasks_of_an_array_apart() -> None:
    """Two tasks of one array in one ``qdel`` are made into one wrong id, and neither is deleted."""
    commands = PBS().cancel(["1.s", "49[2].s", "2.s", "49[7].s", "50[1].s", "49[2].s"])
    assert [command.argv for command in commands] == [
        ("qdel", "1.s", "49[2].s", "2.s", "50[1].s"),
        ("qdel", "49[7].s"),
    ]
    assert PBS().cancel([]) == []
    assert len(PBS().cancel([f"{number}.s" for number in range(1001)])) == 2


def test_find() -> None:
    """A job is found by the mark in its script's path, whole, and an array once."""
    (command,) = PBS().find(["m-1"])
    assert command.argv == ("env", "TZ=UTC", "qstat", "-x", "-f", "-F", "json")
    assert PBS().find([]) == []
    like = recorded("23.06.06/array-partly-done-qstat-t-f-json.txt")
    done = ended(command, like)._replace(stdout=like.stdout.replace("array.sh", "/run/m-1.x-7.sh"))
    assert PBS().find_read(done, ["m-1.x", "m-1.x-7", "m-1.x-70", "1.x-7"]) == {
        "m-1.x": "48[].pbshost",
        "m-1.x-7": "48[].pbshost",
    }
    with pytest.raises(SchedulerError):
        PBS().find_read(recorded("23.06.06/server-down-qstat-f-json.txt"), ["m-1"])


def test_a_full_queue_is_worth_another_try() -> None:
    """A limit on how many jobs wait passes; a job that is larger than the queue allows never fits."""
    full = "qsub: would exceed queue generic's per-user limit of jobs in 'Q' state"
    with pytest.raises(SubmitError, match="per-user limit") as caught:
        PBS().submitted(Completed(("qsub", "x.sh"), 38, "", full))
    assert caught.value.transient
    with pytest.raises(SubmitError, match="violates queue") as caught:
        PBS().submitted(recorded("23.06.06/qsub-over-queue-limit.txt"))
    assert not caught.value.transient


# --- Torque

TORQUE = """Job Id: 7.head
    Job_Name = a
    job_state = {state}
    qtime = Sun Nov 22 02:27:02 2026
{more}
    submit_args = -t 0-1 /run/m-1.sh

"""


@pytest.mark.parametrize(
    ("state", "more", "proof"),
    [
        ("Q", "", (JobState.PENDING, None)),
        ("R", "    exec_host = n1/0\n    start_time = Sun Nov 22 02:27:05 2026", (JobState.RUNNING, None)),
        ("C", "    exec_host = n1/0\n    exit_status = 0", (JobState.COMPLETED, 0)),
        ("C", "    exec_host = n1/0\n    exit_status = 3", (JobState.FAILED, 3)),
        ("C", "    exec_host = n1/0\n    exit_status = 265", (JobState.FAILED, -9)),
        ("C", "    exec_host = n1/0\n    exit_status = 271", (JobState.CANCELLED, -15)),
        ("C", "    exec_host = n1/0\n    exit_status = -11", (JobState.TIMEOUT, None)),
        ("C", "    exec_host = n1/0\n    exit_status = -10", (JobState.FAILED, None)),
        ("C", "", (JobState.CANCELLED, None)),
        ("C", "    exec_host = n1/0", None),  # ended, and wrappers do not say how
    ],
)
def test_torque(state: str, more: str, proof: object) -> None:
    """Torque's form: state C, lower-case names, its own numbers, no history and no JSON to ask for."""
    torque = PBS(torque=True)
    (command,) = torque.status(["7.head"])
    assert command.argv == ("env", "TZ=UTC", "qstat", "-f", "7.head")
    done = Completed(command.argv, 0, TORQUE.format(state=state, more=more))
    proofs = torque.read_status(done)
    assert ((proofs["7.head"].state, proofs["7.head"].code) if proofs else None) == proof
    assert torque.find_read(done, ["m-1"]) == {"m-1": "7.head"}


def test_torque_wrappers() -> None:
    """Wrappers around another scheduler indent by a tab, print bare numbers, and tell no exit status: no evidence."""
    torque = PBS(torque=True)
    text = (
        "Job Id:\t1\n\tJob_Name = m-1.sh\n\tjob_state = {}\n\tqtime = Sun Nov 22 13:16:50 2026\n\texec_host = n1/1\n\n"
    )
    (command,) = torque.status(["1"])
    assert torque.read_status(Completed(command.argv, 0, text.format("R")))["1"].state is JobState.RUNNING
    assert torque.read_status(Completed(command.argv, 0, text.format("C"))) == {}
    assert torque.find_read(Completed(command.argv, 0, text), ["m-1"]) == {"m-1": "1"}
    assert torque.task("1", 2) == "1[2]"
    torque.cancelled(Completed(("qdel", "1"), 1))
    with pytest.raises(SchedulerError):
        PBS().cancelled(Completed(("qdel", "1"), 1))


def test_torque_arrays() -> None:
    """Its tasks have ids like OpenPBS', and values of their own."""
    torque = PBS(torque=True)
    (command,) = torque.status(["7[].head"])
    assert command.argv == ("env", "TZ=UTC", "qstat", "-f", "-t", "7[].head")
    text = TORQUE.format(state="C", more="    exit_status = 4").replace("7.head", "7[1].head")
    proof = torque.read_status(Completed(command.argv, 0, text))["7[1].head"]
    assert (proof.state, proof.code) == (JobState.FAILED, 4)
