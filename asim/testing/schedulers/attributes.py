"""Jobs as OpenPBS' ``qstat -f`` shows them: which attributes, in which order, in which form. As recorded."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping

from .forms import Pairs
from .jobs import Job, Task
from .qsub import seconds, select, slots

_PLACE: Mapping[str, object] = {"project": "_pbs_project_default", "Submit_Host": "pbshost"}
_NOT_IN_TASKS = frozenset({"Checkpoint", "Hold_Types", "Submit_arguments"})
ORDER = (
    "Job_Name", "Job_Owner", "resources_used", "job_state", "queue", "server", "Checkpoint", "ctime", "depend",
    "Error_Path", "exec_host", "exec_vnode", "Hold_Types", "Join_Path", "Keep_Files", "Mail_Points", "mtime",
    "Output_Path", "Priority", "qtime", "Rerunable", "Resource_List", "stime", "obittime", "session_id", "jobdir",
    "substate", "Variable_List", "comment", "etime", "run_count", "Stageout_status", "Exit_status", "Submit_arguments",
    "array", "array_state_count", "array_indices_submitted", "array_indices_remaining", "array_id", "array_index",
    "history_timestamp", "project", "Submit_Host", "max_run_subjobs",
)  # fmt: skip
_FORCED = 256 + signal.SIGKILL
_DELETED = 256 + signal.SIGTERM
_WALLTIME = -29


class View:
    """How one server shows its jobs.

    :param host: the server's name, and its only execution host's.
    :param history: whether it keeps what has ended.
    :param poll: seconds after which a running job's host is asked about it.
    :param zone: the asking command's TZ, in which times are written; "" for this machine's.
    """

    def __init__(self, host: str, *, history: bool = True, zone: str = "", poll: float = 0.0) -> None:
        self.host, self.history, self.zone, self.poll = host, history, zone, poll

    # --- names and states

    def job_id(self, job: Job) -> str:
        """``12.host``, ``12[].host``."""
        return f"{job.number}{'[]' if job.array else ''}.{self.host}"

    def task_id(self, task: Task) -> str:
        """``12[3].host``; of a job that is no array the job's."""
        return f"{task.job.number}[{task.index}].{self.host}" if task.job.array else self.job_id(task.job)

    def state(self, task: Task) -> str:
        """One letter."""
        if task.state == "ended":
            return "X" if task.job.array and not is_over(task.job) else "F"
        return {"running": "R", "exiting": "E"}.get(task.state) or ("H" if is_held(task.job) else "Q")

    def job_state(self, job: Job) -> str:
        """One letter for the whole of an array."""
        if not job.array:
            return self.state(job.tasks[0])
        if is_over(job):
            return "F"
        return "B" if any(task.started for task in job.tasks) else "H" if is_held(job) else "Q"

    # --- attributes

    def array(self, job: Job) -> Pairs:
        """A whole array."""
        return _ordered(self._shared(job, self.job_state(job)) | self._array_only(job) | _tail(job))

    def task(self, task: Task) -> Pairs:
        """A job, or a task of an array: one without values of its own shows the array's."""
        job = task.job
        own = bool(task.started) and (self.history or task.state != "ended")
        if job.array and not own:
            pairs = self._shared(job, self.state(task))
            finished = {"comment": "Subjob finished"} if task.state == "ended" else {}
            return _ordered({**pairs, **finished, "Submit_arguments": job.facts["arguments"]})
        pairs = self._used(task) | self._shared(job, self.state(task), task) | _tail(job)
        if job.array:
            pairs |= {"array_id": self.job_id(job), "array_index": task.index, **_forgotten(task)}
        return _ordered({name: value for name, value in pairs.items() if not job.array or name not in _NOT_IN_TASKS})

    def _local(self, when: float) -> str:
        """Its time as ``ctime`` writes it: the command does that, in its own zone."""
        return time.asctime(time.gmtime(when) if self.zone.startswith("UTC") else time.localtime(when))

    def is_young(self, task: Task | None) -> bool:
        """Whether it began so recently that its host has not yet been asked about it."""
        return task is not None and task.state == "running" and time.time() < task.started + self.poll

    def _used(self, task: Task) -> Pairs:
        if not task.started or self.is_young(task):
            return {}
        lasted = time.strftime("%H:%M:%S", time.gmtime(max(0, (task.ended or time.time()) - task.started)))
        used = {"cpupercent": 0, "cput": "00:00:00", "mem": "0kb", "ncpus": task.job.slots, "vmem": "0kb"}
        return {"resources_used": used | {"walltime": lasted}}

    def _shared(self, job: Job, state: str, task: Task | None = None) -> Pairs:
        out, err = output_paths(job, task.index if task else None)
        began = task.started if task else min((one.started for one in job.tasks if one.started), default=0.0)
        ended = task.ended if task else max((one.ended for one in job.tasks), default=0.0) if is_over(job) else 0.0
        ran = task is not None and task.started
        pairs: Pairs = {
            "Job_Name": job.name,
            "Job_Owner": f"{job.facts['user']}@{self.host}",
            "job_state": state,
            "queue": job.facts["queue"],
            "server": self.host,
            "Checkpoint": "u",
            "ctime": self._local(job.created),
            "depend": job.facts.get("depend"),
            "Error_Path": f"{self.host}:{err}",
            "exec_host": f"{self.host}/0" if ran else None,
            "exec_vnode": f"({self.host}:ncpus={job.slots})" if ran else None,
            "Hold_Types": hold_types(job),
            "Join_Path": job.facts.get("j", "n"),
            "Keep_Files": job.facts.get("k", "n"),
            "Mail_Points": "a",
            "mtime": self._local(ended or began or job.created),
            "Output_Path": f"{self.host}:{out}",
            "Priority": 0,
            "qtime": self._local(job.created),
            "Rerunable": "True",
            "Resource_List": resource_list(job),
            "stime": self._local(began) if began else None,
            "obittime": self._local(ended) if ended and began else None,
            "session_id": task.pid if task is not None and ran and not self.is_young(task) else None,
            "jobdir": job.facts["home"] if ran and not self.is_young(task) else None,
            "substate": 41 if self.is_young(task) else substate(job, task, state),
            "Variable_List": json.loads(job.facts["variables"]),
            "comment": self._comment(job, task, began),
            "etime": self._local(job.created) if began or hold_types(job) == "n" else None,
            "run_count": 1 if ran else None,
            **_exit(job, task),
        }
        return {name: value for name, value in pairs.items() if value is not None}

    def _comment(self, job: Job, task: Task | None, began: float) -> str | None:
        when = time.strftime("%a %b %d at %H:%M", time.localtime(began))
        if not began:
            if task is not None and task.why in ("deleted", "forced"):
                return "Not Running: Queue not started. and terminated"
            return "Not Running: Queue not started." if job.facts["queue"] == "holdq" else None
        if task is None:
            return f"Job Array Began at {when}{_how_array_ended(job)}"
        on = f"Job run at {when} on ({self.host}:ncpus={job.slots})"
        if task.state != "ended":
            return on
        by = f"{job.facts['user']}@{self.host}"
        ends = {
            "deleted": f"terminated by {by}",
            "forced": f"terminated by {by}",
            "limit": "exceeded resource walltime",
        }
        return f"{on} and {ends.get(task.why) or ('failed' if task.code else 'finished')}"

    def _array_only(self, job: Job) -> Pairs:
        states = [task.state for task in job.tasks]
        waiting = [str(task.index) for task in job.tasks if task.state == "waiting"]
        counts = f"Queued:{len(waiting)} Running:{states.count('running')} Exiting:{states.count('exiting')}"
        return {
            "array": "True",
            "array_state_count": f"{counts} Expired:{states.count('ended')}",
            "array_indices_submitted": job.facts["J"].partition("%")[0],
            "array_indices_remaining": ",".join(waiting) or "-",
            **({"max_run_subjobs": job.throttle} if job.throttle else {}),
        }


def _ordered(pairs: Pairs) -> Pairs:
    return {name: pairs[name] for name in ORDER if name in pairs}


def _forgotten(task: Task) -> Pairs:
    return {"history_timestamp": int(task.ended)} if task.state == "ended" else {}


def _tail(job: Job) -> Pairs:
    ended = {"history_timestamp": int(max(task.ended for task in job.tasks))} if is_over(job) else {}
    return {"Submit_arguments": job.facts["arguments"], **ended, **_PLACE}


def _exit(job: Job, task: Task | None) -> Pairs:
    if task is None:
        if not any(one.started and one.state == "ended" for one in job.tasks):
            return {}
        return {"Stageout_status": 1, "Exit_status": int(any(one.code or one.why for one in job.tasks))}
    status = exit_status(task)
    if status is None:
        return {}
    stageout: Pairs = {"Stageout_status": int(task.delivered)} if task.state == "ended" else {}
    return stageout | {"Exit_status": status}


def exit_status(task: Task) -> int | None:
    """PBS' number for how a task ended; None: it never ran, or has not ended."""
    if task.code is None:
        return None
    own = {"limit": _WALLTIME, "deleted": _DELETED, "forced": _FORCED}.get(task.why)
    return own if own is not None else 256 - task.code if task.code < 0 else task.code


def substate(job: Job, task: Task | None, state: str) -> int:
    """PBS' finer number of the state."""
    if state in ("Q", "B", "R", "E"):
        return {"Q": 10, "B": 70, "R": 42, "E": 51}[state]
    if state == "H":
        return 22 if job.after else 20
    tasks = [task] if task else job.tasks
    if any(one.why in ("deleted", "forced") for one in tasks):
        return 91
    return 93 if any(exit_status(one) for one in tasks) else 92


def is_over(job: Job) -> bool:
    """Whether all of it has ended."""
    return all(task.state == "ended" for task in job.tasks)


def is_held(job: Job) -> bool:
    """Whether it waits for somebody or for other jobs."""
    return (job.held and job.facts["queue"] != "holdq") or bool(job.after)


def hold_types(job: Job) -> str:
    """``u``: by its user, ``s``: by the server, ``n``: not."""
    if job.after and any(task.state == "waiting" or task.why == "dependency" for task in job.tasks):
        return "s"
    return "u" if is_held(job) and job.held else "n"


def resource_list(job: Job) -> Pairs:
    """What was asked for, and what that comes to."""
    asked: Mapping[str, str] = json.loads(job.facts["resources"])
    chunks = select(asked)
    rest = {
        name: value for name, value in asked.items() if name not in ("select", "nodes", "place", "walltime", "ncpus")
    }
    nodect = sum(int(chunk.partition(":")[0]) for chunk in chunks.split("+"))
    place = asked.get("place") or ("scatter" if "nodes" in asked else "pack")
    base: Pairs = {"ncpus": slots(asked), "nodect": nodect, "place": place, "select": chunks}
    if "walltime" in asked:
        rest["walltime"] = time.strftime("%H:%M:%S", time.gmtime(seconds(asked["walltime"])))
    return base | rest


def output_paths(job: Job, index: int | None) -> tuple[str, str]:
    """Where stdout and stderr go; in an array's own attributes the index is a placeholder."""
    suffix = "" if not job.array else ".^array_index^" if index is None else f".{index}"
    base = {"o": f"{job.name}.o{job.number}{suffix}", "e": f"{job.name}.e{job.number}{suffix}"}
    work = job.facts["work"]
    found = []
    for key in "oe":
        path = (job.facts.get(key) or base[key]).rpartition(":")[2]
        path = path.replace("^array_index^", "^array_index^" if index is None else str(index))
        found.append(path if path.startswith("/") else f"{work}/{path}")
    return found[0], found[1]


def _how_array_ended(job: Job) -> str:
    if not is_over(job):
        return ""
    if any(task.why == "deleted" for task in job.tasks):
        return " and terminated"
    return " and failed" if any(task.code for task in job.tasks) else " and finished"
