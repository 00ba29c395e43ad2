"""LSF's words, from its documentation and from outputs that others have published. No real LSF was met."""

from __future__ import annotations

import calendar
import json
import time

import pytest

from asim.errors import SubmitError
from asim.launchers.dialect import Batch, Completed, Dialect, SchedulerError
from asim.launchers.lsf import LSF
from asim.settings import BsubBatchSettings

BJOBS = ("bjobs", "-a", "-o", "jobid jobindex stat exit_code exit_reason pend_reason job_description", "-json")


def answer(*records: dict[str, str], before: str = "", code: int = 0) -> Completed:
    """What ``bjobs -json`` prints about jobs."""
    text = json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}, indent=2, separators=(",", ":"))
    return Completed(BJOBS, code, before + text + "\n")


def job(stat: str, **fields: str) -> dict[str, str]:
    """One job as ``bjobs`` shows it: every value is text, and what there is not is empty."""
    empty = {"JOBID": "7", "JOBINDEX": "0", "STAT": stat, "EXIT_CODE": "", "EXIT_REASON": "", "PEND_REASON": ""}
    return empty | {"JOB_DESCRIPTION": "", **fields}


def batch(settings: BsubBatchSettings | None = None, *, size: int = 0, throttle: int | None = None) -> Batch:
    """A submit."""
    settings = settings or BsubBatchSettings()
    return Batch(name="jobs", mark="m-1", script="/r/m 1.sh", settings=settings, size=size, throttle=throttle)


def test_is_a_dialect() -> None:
    """The class has the shape that the driver needs."""
    dialect: Dialect = LSF()
    assert (dialect.name, dialect.least, dialect.most) == ("lsf", 1, 1000)
    assert dialect.index == "$((${LSB_JOBINDEX:-1} - 1))"


# --- submit


@pytest.mark.parametrize(
    ("size", "throttle", "options"),
    [
        (0, None, ("-Jd", "m-1")),
        (4, None, ("-Jd", "m-1", "-J", "jobs[1-4]")),
        (4, 2, ("-Jd", "m-1", "-J", "jobs[1-4]%2")),
    ],
)
def test_submit(size: int, throttle: int | None, options: tuple[str, ...]) -> None:
    """The script is the standard input, whatever its path is; an array is one submit; the mark is its description."""
    argv = LSF().submit(batch(size=size, throttle=throttle)).argv
    assert argv[:2] == ("sh", "-c")
    assert argv[2] == 'script=$1; shift; exec "$@" < "$script"'
    assert argv[3:] == ("sh", "/r/m 1.sh", "bsub", *options)


def test_submit_keeps_the_users_description() -> None:
    """A description of the user's own is not lost, and a command of the user's own is used."""
    settings = BsubBatchSettings(batch_args={"Jd": "my runs"})
    settings.set_batch_command("/site/bsub")
    assert LSF().submit(batch(settings)).argv[-3:] == ("/site/bsub", "-Jd", "my runs m-1")


@pytest.mark.parametrize(
    "out",
    [
        "Job <473713> is submitted to queue <pub.1h>.\n",
        "Job <473713> is submitted to default queue <normal>.\n",
        "Cannot connect to LSF. Please wait ...\nJob <473713> is submitted to queue <q>.\n",
        "Generic job.\nJob <473713> is submitted.\n",
    ],
)
def test_submitted(out: str) -> None:
    """The id is found among whatever a site prints before it."""
    assert LSF().submitted(Completed(("sh",), 0, out)) == "473713"


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("nosuch: No such queue. Job not submitted.", False),
        ("User cannot use the queue. Job not submitted.", False),
        ("normal: User's limit of pending jobs reached. Job not submitted.", True),
        ("LSF is down. Please wait ...", True),
        ("Failed in an LSF library call: A connect sys call failed: Connection refused", True),
        ("Failed in an LSF library call: bad esub. Job not submitted.", False),
        ("User <joe>: Pending job threshold reached. Retrying in 60 seconds...", True),
    ],
)
def test_refused(text: str, again: bool) -> None:
    """A refusal says whether the same submit may be taken later."""
    with pytest.raises(SubmitError, match="LSF refused") as caught:
        LSF().submitted(Completed(("sh",), 255, "", text))
    assert caught.value.transient == again


@pytest.mark.parametrize(
    "done",
    [
        Completed(("sh",), None, "", "did not end in time"),
        Completed(("sh",), -9),
        Completed(("sh",), 0, "nothing"),
        Completed(("sh",), 255, "", "Failed in sending/receiving a message: Connection reset by peer"),
        Completed(("sh",), 255, "", "Failed in an LSF library call: Connection reset by peer"),
        Completed(("sh",), 255, "", "Failed in LSF library call: Connection reset by peer. Trying again."),
        Completed(("sh",), 255, "", "Communication time out"),
        Completed(("sh",), 255, "", "Batch protocol error"),
    ],
)
def test_nobody_knows(done: Completed) -> None:
    """A submit that was cut off may have been taken: only a search can say."""
    with pytest.raises(SchedulerError, match="nobody knows"):
        LSF().submitted(done)


# --- status


@pytest.mark.parametrize(
    ("record", "state", "code", "reason"),
    [
        (job("PEND", PEND_REASON="New job is waiting for scheduling;"), "PENDING", None, "PEND: New job is waiting for scheduling"),
        (job("PEND"), "PENDING", None, ""),
        (job("PSUSP"), "PENDING", None, "PSUSP: suspended while it waited"),
        (job("WAIT"), "PENDING", None, "WAIT: waits its turn in a chunk"),
        (job("RUN"), "RUNNING", None, ""),
        (job("USUSP"), "RUNNING", None, "USUSP: suspended by somebody"),
        (job("SSUSP"), "RUNNING", None, "SSUSP: suspended by LSF"),
        (job("UNKWN"), "RUNNING", None, "UNKWN: its host does not answer"),
        (job("ZOMBI"), "RUNNING", None, "ZOMBI: it was killed while its host did not answer"),
        (job("DONE"), "COMPLETED", 0, ""),
        (job("EXIT", EXIT_CODE="3"), "FAILED", 3, "EXIT: exit code 3"),
        (job("EXIT", EXIT_CODE="139"), "FAILED", 139, "EXIT: exit code 139"),
        (job("EXIT"), "FAILED", None, "EXIT"),
        (
            job("EXIT", EXIT_CODE="140", EXIT_REASON="TERM_RUNLIMIT: job killed after reaching LSF run time limit"),
            "TIMEOUT", -12, "EXIT: TERM_RUNLIMIT: job killed after reaching LSF run time limit",
        ),
        (
            job("EXIT", EXIT_CODE="130", EXIT_REASON="TERM_OWNER: job killed by owner"),
            "CANCELLED", -2, "EXIT: TERM_OWNER: job killed by owner",
        ),
        (
            job("EXIT", EXIT_REASON="TERM_FORCE_ADMIN: job killed by root or LSF administrator without time for cleanup."),
            "CANCELLED", None, "EXIT: TERM_FORCE_ADMIN: job killed by root or LSF administrator without time for cleanup",
        ),
        (
            job("EXIT", EXIT_CODE="137", EXIT_REASON="TERM_MEMLIMIT: job killed after reaching LSF memory usage limit"),
            "FAILED", -9, "EXIT: TERM_MEMLIMIT: job killed after reaching LSF memory usage limit",
        ),
        (job("EXIT", EXIT_CODE="-", EXIT_REASON="-"), "FAILED", None, "EXIT"),
    ],
)  # fmt: skip
def test_states(record: dict[str, str], state: str, code: int | None, reason: str) -> None:
    """What each of LSF's states proves, with its own words first."""
    (proof,) = LSF().read_status(answer(record)).values()
    assert (str(proof.state), proof.code, proof.reason) == (state, code, reason)
    assert proof.time == 0.0  # bjobs writes neither seconds nor the year


def test_tasks() -> None:
    """Tasks have the ids that the driver makes, in either way to write them."""
    dialect = LSF()
    assert dialect.task("7", 0) == "7[1]"
    records = [job("RUN", JOBINDEX="1"), job("DONE", JOBINDEX="2"), job("PEND", JOBID="7[3]", JOBINDEX="3")]
    assert list(dialect.read_status(answer(*records))) == ["7[1]", "7[2]", "7[3]"]


def test_an_unknown_state_is_no_evidence() -> None:
    """A word that nobody has heard of proves nothing."""
    assert LSF().read_status(answer(job("NEWFANGLED"))) == {}


def test_unknown_jobs_are_absent() -> None:
    """A job that LSF has forgotten is no error for the others, however that is said."""
    known = job("RUN", JOBID="8")
    missing = {"JOBID": "7", "ERROR": "Job <7> is not found"}
    assert list(LSF().read_status(answer(known, missing))) == ["8"]
    assert LSF().read_status(Completed(BJOBS, 255, "", "Job <7> is not found\n")) == {}
    assert LSF().read_status(Completed(BJOBS, 0, "", "No unfinished job found\n")) == {}


def test_words_before_the_answer() -> None:
    """What LSF says while it waits for its server does not spoil the answer that follows."""
    assert list(LSF().read_status(answer(job("RUN"), before="LSF is processing your request. Please wait...\n"))) == [
        "7"
    ]


@pytest.mark.parametrize(
    "done",
    [
        Completed(BJOBS, 255, "", "LSF is down. Please wait ..."),
        Completed(BJOBS, 0, '{"COMMAND":"bjobs","JOBS":1,"RECORDS":[{"JOBID":"7","STAT"'),
        Completed(BJOBS, 0, "{}"),
        Completed(BJOBS, None, '{"RECORDS":[]}'),
        Completed(BJOBS, -15, '{"RECORDS":[]}'),
        Completed(BJOBS, 0, "JOBID USER STAT\n7 joe RUN\n"),
    ],
)
def test_no_answer(done: Completed) -> None:
    """Half an answer, another one, or none: an error, and nothing proved."""
    with pytest.raises(SchedulerError):
        LSF().read_status(done)


def test_status_is_one_question() -> None:
    """All jobs in one command; very many in a few."""
    assert [command.argv for command in LSF().status(["7", "8"])] == [(*BJOBS, "7", "8")]
    assert len(LSF().status([str(number) for number in range(2001)])) == 3
    assert LSF().status([]) == []


# --- accounting

BHIST = """
Job <9>, Job Name <jobs>, User <joe>, Project <default>, Command <script>
Tue Dec 23 14:46:40{year}: Submitted from host <login1>, to Queue <normal>, CWD <$HOME>;
Tue Dec 23 14:46:43{year}: Dispatched 12 Task(s) on Host(s) <12*node19>;
Tue Dec 23 14:46:43{year}: Starting (Pid 258999);
{end}
"""


WHEN = "Tue Dec 23 16:34:13{year}: "
EXITED = WHEN + "Exited with exit code {code}. The CPU time used is 0.1 seconds;\n\n"
COMPLETED = WHEN + "Completed <exit>; TERM_{why};"


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [
        (f"{WHEN}Done successfully. The CPU time used is 0.1 seconds;", "COMPLETED", 0),
        (EXITED.replace("{code}", "3"), "FAILED", 3),
        (
            f"{WHEN}Exited by signal 2. The CPU time used is 0.1 seconds;\n{COMPLETED}".replace("{why}", "OWNER: job killed by owner"),
            "CANCELLED", -2,
        ),
        (
            (EXITED + COMPLETED).replace("{code}", "1").replace("{why}", "MEMLIMIT: job killed after reaching LSF memory usage limit"),
            "FAILED", 1,
        ),
        (
            (EXITED + COMPLETED).replace("{code}", "140").replace("{why}", "RUNLIMIT: job killed after reaching LSF run time limit"),
            "TIMEOUT", -12,
        ),
    ],
)  # fmt: skip
def test_history(end: str, state: str, code: int) -> None:
    """How a job ended, after ``bjobs`` has forgotten it; with the second, and with the year where it is written."""
    text = BHIST.format(end=end, year="").replace("{year}", " 2025")
    (command,) = LSF().account(["9"])
    assert command.argv == ("env", "TZ=UTC", "bhist", "-n", "0", "-a", "-UF", "9")
    (proof,) = LSF().read_account(Completed(command.argv, 0, text)).values()
    assert (str(proof.state), proof.code) == (state, code)
    assert proof.time == calendar.timegm((2025, 12, 23, 16, 34, 13))
    yearless = LSF().read_account(Completed(command.argv, 0, text.replace(" 2025", "")))["9"]
    assert 0 < yearless.time < time.time() + 86400
    assert time.gmtime(yearless.time)[1:6] == (12, 23, 16, 34, 13)


def test_history_of_an_array_and_of_what_runs() -> None:
    """Each task has its own end; one that runs, or runs again, has none."""
    done = "Tue Dec 23 16:34:13: Done successfully. The CPU time used is 0.1 seconds;"
    again = f"{EXITED.format(year='', code=1)}Tue Dec 23 16:34:14: Pending: Job has been requeued;"
    parts = [("9[1]", done), ("9[2]", ""), ("9[3]", again)]
    text = "-----\n".join(BHIST.format(end=end, year="").replace("<9>", f"<{name}>", 1) for name, end in parts)
    assert list(LSF().read_account(Completed((), 0, text))) == ["9[1]"]
    assert LSF().read_account(Completed((), 255, "", "No matching job found\n")) == {}
    with pytest.raises(SchedulerError):
        LSF().read_account(Completed(("bhist",), 255, "", "lsb.events: Permission denied"))


# --- cancel and find


@pytest.mark.parametrize(
    ("code", "out", "err", "good"),
    [
        (0, "Job <267> is being terminated\nJob <268> is being terminated\n", "", True),
        (255, "Job <267> is being terminated\n", "Job <11>: Job has already finished\n", True),
        (255, "", "Job <11>: No matching job found\n", True),
        (255, "Job <267> is being terminated\n", "Job <11>: User permission denied\n", False),
        (255, "", "LSF is down. Please wait ...\n", False),
        (255, "", "", False),
        (None, "", "did not end in time", False),
    ],
)
def test_cancelled(code: int | None, out: str, err: str, good: bool) -> None:
    """What had ended before is no error; what was not ended is one, also among others."""
    done = Completed(("bkill",), code, out, err)
    if good:
        LSF().cancelled(done)
        return
    with pytest.raises(SchedulerError):
        LSF().cancelled(done)


def test_cancel() -> None:
    """Jobs and tasks together in one command."""
    assert [command.argv for command in LSF().cancel(["7", "8[2]", "8[3]"])] == [("bkill", "7", "8[2]", "8[3]")]
    assert LSF().cancel([]) == []


def test_find() -> None:
    """A job is found by its mark, a word of its own; an array once, by its whole id."""
    (command,) = LSF().find(["m-1"])
    assert command.argv == BJOBS
    assert LSF().find([]) == []
    records = [
        job("RUN", JOB_DESCRIPTION="my runs m-1"),
        job("RUN", JOBID="8", JOBINDEX="1", JOB_DESCRIPTION="m-2"),
        job("RUN", JOBID="8", JOBINDEX="2", JOB_DESCRIPTION="m-2"),
        job("RUN", JOBID="9", JOB_DESCRIPTION="m-10"),
    ]
    assert LSF().find_read(answer(*records), ["m-1", "m-2", "m-3"]) == {"m-1": "7", "m-2": "8"}
    with pytest.raises(SchedulerError):
        LSF().find_read(Completed(BJOBS, 255, "", "LSF is down. Please wait ..."), ["m-1"])
