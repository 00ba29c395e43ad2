"""The jobs of one agent: waiting, running, being stopped, ended. Part of the agent program: standard library only."""

import collections
import errno
import heapq
import os
import signal
import time

from processes import explain, processes, send, stamp, start, strays
from text import raw

GIVE_UP = 5.0  # seconds after SIGKILL before an unkillable process (or a foreign zombie) is no longer waited for
BACK_OFF = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
STARVED = 60.0  # seconds of such errors, with nothing of ours running, before a job is given up
STARTING = 0.2  # seconds for which a run command counts as one that is starting, unless it ends before
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
AT_ONCE = min(4 * CPUS, 32)  # run commands that are starting at the same time; more of them get in each other's way


class Jobs:
    """``stranger`` is called with the pid and the exit code of each child that is no job; ``news`` are rows to be told."""

    def __init__(self, stranger):
        self.queue = collections.deque()  # accepted, waiting for a slot
        self.known = {}  # key -> Job, from accepted until its end is told
        self.running = {}  # pid of a leader -> Job
        self.stopping = {}  # key -> Job whose group (or what its leader left there) is being stopped
        self.limits, self.news, self.stranger = [], [], stranger
        self.run, self.cap, self.grace = "", None, 5.0
        self.starved_since, self.retry_at, self.adopts, self.free = None, 0.0, True, 0
        self.starting = []  # run commands that are: (until when they count as that, Job), in order

    def add(self, job):
        self.known[job.key] = job
        (self.queue.appendleft if job.free else self.queue.append)(job)

    def startable(self, now):
        if not self.queue or now < self.retry_at:
            return False
        room = self.cap is None or len(self.running) - self.free < self.cap
        return self.queue[0].free or (room and not self.crowded(now))

    def crowded(self, now):
        """Whether the next one is a run command and must wait for others that are starting, but not for their ends."""
        if not self.queue[0].paced:
            return False
        self.starting = [row for row in self.starting if row[0] > now and self.running.get(row[1].pid) is row[1]]
        return len(self.starting) >= AT_ONCE

    def due(self, now):
        """Times at which something is to be done."""
        times = [job.kill_at for job in self.stopping.values()]
        if self.limits:
            times.append(self.limits[0][0])
        if self.queue and self.retry_at > now:
            times.append(self.retry_at)
        if self.queue and self.crowded(now):
            times.append(self.starting[0][0])
        if self.stopping and not self.adopts:
            times.append(now + 0.01)  # nobody tells when a grandchild goes
        return times

    def start_next(self):
        job = self.queue.popleft()
        if job.key not in self.known:  # stopped while it waited
            return
        env = dict(job.env)
        env[b"ASIM_JOB_ID"] = raw("%s.%d" % (self.run, job.key))
        try:
            job.pid = start(job, env)
        except OSError as exc:
            self.not_started(job, exc)
        except ValueError as exc:
            self.finish(job, [job.key, "error", time.time(), str(exc)])
        else:
            self.starved_since = None
            self.running[job.pid], self.free = job, self.free + job.free
            self.news.append([job.key, "start", time.time(), job.pid])
            if job.paced:
                self.starting.append((time.monotonic() + STARTING, job))
            if job.limit is not None:
                heapq.heappush(self.limits, (time.monotonic() + job.limit, job.key))

    def not_started(self, job, exc):
        now = time.monotonic()
        if exc.errno in BACK_OFF:
            self.starved_since = now if self.running or self.starved_since is None else self.starved_since
            if now - self.starved_since < STARVED:
                self.queue.appendleft(job)
                self.retry_at = now + 0.05
                return
        self.finish(job, [job.key, "error", time.time(), explain(exc, job.argv[0])])

    def reap(self):
        """Collect every child that ended: leaders of jobs, and orphans that the kernel handed over."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            job = self.running.pop(pid, None)
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
            if job:
                self.retry_at, self.free = 0.0, self.free - job.free
                self.ended(job, code, usage)
            else:
                self.stranger(pid, code)
        for job in [job for job in self.stopping.values() if job.pid not in self.running and self.gone(job)]:
            self.finish(job, job.end)

    def ended(self, job, code, usage):
        used = [round(usage.ru_utime, 6), round(usage.ru_stime, 6), usage.ru_maxrss]
        row = [job.key, "end", time.time(), code, job.why, used]
        if job.why:
            job.end = row  # told when its whole group is gone
        else:
            self.finish(job, row)
            if send(job.pid, signal.SIGTERM, group=True):  # it left something running behind
                send(job.pid, signal.SIGCONT, group=True)
                job.kill_at = time.monotonic() + self.grace
                self.stopping[job.key] = job

    def finish(self, job, row):
        self.known.pop(job.key, None)
        self.stopping.pop(job.key, None)
        if len(self.limits) > 2 * len(self.known) + 1000:  # most are of jobs that ended long before their limit
            self.limits = sorted(limit for limit in self.limits if limit[1] in self.known)
        if row:
            job.end = None
            self.news.append(row)

    def stop(self, jobs, why, grace):
        """SIGTERM to the group of each job and to those of its descendants that left the group; the rest is the loop's."""
        live = [job for job in jobs if job.pid and not job.why and job.pid in self.running]
        for job in jobs:
            if not job.pid and not job.why:
                job.why = why
                self.finish(job, [job.key, "end", time.time(), None, why, None])
        if len(live) < len(jobs):
            self.queue = collections.deque(job for job in self.queue if job.key in self.known)
        found = strays(live, self.run)
        self.reap()  # what has ended by itself, also during that look around, was not stopped by us
        for job in [job for job in live if job.pid in self.running]:
            job.why, job.kill_at, job.extras = why, time.monotonic() + grace, found.get(job.pid, {})
            self.stopping[job.key] = job
            self.signal(job, signal.SIGTERM if grace > 0 else signal.SIGKILL)

    def signal(self, job, number):
        for pid in [pid for pid, when in job.extras.items() if stamp(pid) == when]:
            send(pid, number)
            send(pid, signal.SIGCONT)
        send(job.pid, number, group=True)
        send(job.pid, signal.SIGCONT, group=True)

    def gone(self, job):
        job.extras = {pid: when for pid, when in job.extras.items() if stamp(pid) == when}
        return not job.extras and not send(job.pid, 0, group=True)

    def deadlines(self):
        now = time.monotonic()
        late = []
        while self.limits and self.limits[0][0] <= now:
            late.append(self.known.get(heapq.heappop(self.limits)[1]))
        if late:
            self.stop([job for job in late if job], "timeout", self.grace)
        due = [job for job in self.stopping.values() if job.kill_at <= now]
        found = strays([job for job in due if not job.killed], self.run)
        for job in due:
            if job.killed:  # unkillable, or zombies that a stranger does not reap
                self.free -= job.free if self.running.pop(job.pid, None) else 0
                untold = job.key in self.known  # else only what it had left behind was being stopped
                self.finish(job, (job.end or [job.key, "end", time.time(), None, job.why, None]) if untold else None)
            else:
                job.killed, job.kill_at = True, now + GIVE_UP
                job.extras.update(found.get(job.pid, {}))
                self.signal(job, signal.SIGKILL)

    def sweep(self):
        """Before leaving: whatever descends from here and was not asked to live on is stopped and reaped."""
        kill_at, told = time.monotonic() + self.grace, set()
        while self.adopts and time.monotonic() < kill_at + GIVE_UP:
            late = time.monotonic() >= kill_at
            mine = [pid for pid, row in processes().items() if row[0] == os.getpid()]
            for pid in mine if late else set(mine) - told:
                send(pid, signal.SIGKILL if late else signal.SIGTERM)
            told.update(mine)
            self.reap()
            if not mine:
                return
            time.sleep(0.005)
