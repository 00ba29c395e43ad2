"""The agent: starts, watches and stops processes on one host, and writes files there, for a driver at the other end of a stream.

A program of its own: standard library only, Python 3.6 or later, so that it can be copied to any machine.
Frames, both ways: 4 bytes length (big endian), then one JSON array ``[verb, ...]`` in ASCII. Text is UTF-8 with
surrogate escapes, so any byte that may stand in a path or an argument survives.

from the driver   ["hello", version, {run, cap, grace, records, on_eof}]      first; cap null = no limit; "free" jobs do not count
                  ["spawn", {argv: [[..]], env: [[[name, value|null]..]], jobs: [[key, argv#, env#, cwd, out, err, limit, free]..]}]
                  ["stop", [key..], grace]   ["files", id, [action..], last]   ["bye", [key..] | "all"]   what is not kept is stopped
to the driver     ["ready", version, {pid, host, python}]   ["files", id, done, null | [errno, words, path, verb]]   ["fatal", words]
                  ["news", [row..]] with rows  [key, "start", time, pid]  [key, "error", time, words]
                                               [key, "end", time, code|null, why|null, [user_s, system_s, max_rss_kib]|null]

Every news batch is also one line of the records file, so how a job ended is known even when nobody listened. A job is
a session leader; it ends when that process ends, and what is left of its group is then stopped. Stopping = SIGTERM to
the group and to descendants that left it, ``grace`` seconds, SIGKILL, and waiting until all are gone. When the stream
ends without "bye", everything is stopped, or, with on_eof "detach", left to run with its exits recorded.
Exits are learnt from SIGCHLD; the kernel is asked to hand orphans of jobs to the agent (PR_SET_CHILD_SUBREAPER).
"""

import collections
import errno
import gc
import heapq
import os
import select
import signal
import socket
import sys
import time

from files import Files
from processes import Job, adopt_orphans, explain, processes, rescue, send, stamp, start, strays
from stream import ProtocolError, Records, Stream, dumps, duration, pack
from text import attempt, raw

VERSION = 3
SLICE = 0.005  # seconds of work between two looks at the stream and at exits
PATIENCE = 0.01  # seconds that news may wait while there is more to start; an idle agent sends at once
GIVE_UP = 5.0  # seconds after SIGKILL before an unkillable process (or a foreign zombie) is no longer waited for
BACK_OFF = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
STARVED = 60.0  # seconds of such errors, with nothing of ours running, before a job is given up


class Agent:
    def __init__(self, sock):
        self.queue = collections.deque()  # accepted, waiting for a slot
        self.jobs = {}  # key -> Job, from accepted until its end is told
        self.running = {}  # pid of a leader -> Job
        self.stopping = {}  # key -> Job whose group (or what its leader left there) is being stopped
        self.batches = {}  # number -> Files
        self.limits, self.news = [], []
        self.run, self.cap, self.grace, self.detach_on_eof, self.leaving = "", None, 5.0, False, False
        self.records = self.starved_since = None
        self.retry_at, self.adopts, self.terminated, self.free = 0.0, True, False, 0
        self.environ, self.flushed = dict(os.environb), 0.0
        self.poller = select.poll()
        self.wake, wake = os.pipe()
        for fd in (self.wake, wake):
            os.set_blocking(fd, False)
        self.poller.register(self.wake, select.POLLIN)
        self.stream = Stream(sock, self.poller)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def terminate(self, *_):
        self.terminated = True  # acted on by the loop; a handler may run at any moment

    # -- the loop

    def loop(self):
        here = {"pid": os.getpid(), "host": socket.gethostname(), "stamp": stamp(os.getpid())}
        here["python"] = sys.version.split()[0]
        self.stream.tell("ready", VERSION, here)
        self.flush()
        self.adopts = adopt_orphans()
        while not (self.leaving and not self.jobs and not self.stopping and self.batch() is None):
            for fd, _ in self.wait():
                if fd == self.wake:
                    os.read(self.wake, 4096)
                elif self.stream:
                    self.receive()
            if self.terminated:
                self.terminated = False
                self.leave([])
            self.reap()
            self.deadlines()
            self.work(time.monotonic() + SLICE)
            if not self.busy():
                os.chdir("/")  # be in nobody's way
                self.flush()
            elif time.monotonic() > self.flushed + PATIENCE:
                self.flush()
        self.sweep()
        self.flush(last=True)

    def wait(self):
        """Wait for a message, an exit, or what is due. Only here SIGCHLD is let in, so that many exits are one signal."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        try:
            return self.poller.poll(self.timeout())
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])

    def busy(self):
        return self.batch() is not None or self.startable(time.monotonic())

    def timeout(self):
        """Milliseconds until something is due; None when only a message or an exit can be next."""
        now = time.monotonic()
        if self.busy():
            return 0
        due = [job.kill_at for job in self.stopping.values()]
        if self.limits:
            due.append(self.limits[0][0])
        if self.queue and self.retry_at > now:
            due.append(self.retry_at)
        if self.stopping and not self.adopts:
            due.append(now + 0.01)  # nobody tells when a grandchild goes
        if self.records and self.records.unwritten:
            due.append(now + 1.0)
        return max(0, int(min(min(due) - now, 3600.0) * 1000) + 1) if due else None

    def startable(self, now):
        room = self.cap is None or len(self.running) - self.free < self.cap
        return self.queue and (room or self.queue[0].free) and now >= self.retry_at

    def work(self, until):
        while True:
            batch = self.batch() if self.batches else None
            if batch is not None:
                self.file_step(batch)
            elif self.startable(time.monotonic()):
                self.start_next()
            else:
                return
            if time.monotonic() > until:
                return

    def flush(self, last=False):
        """News to the records file (on a full disk kept, and tried again) and to the driver."""
        self.flushed = time.monotonic()
        if self.news:
            line, self.news = dumps(self.news), []
            self.records.add(line)
            if self.stream:
                self.stream.outbox += pack(b'["news",' + line + b"]")
        if self.records:
            self.records.write()
        if self.stream:
            self.stream.flush(last)

    # -- messages

    def receive(self):
        try:
            for verb, *rest in self.stream.frames():
                if verb not in ("hello", "spawn", "stop", "files", "bye") or (verb == "hello") != (
                    self.records is None
                ):
                    raise ProtocolError("unexpected message %r" % (verb,))
                getattr(self, "on_" + verb)(*rest)
        except EOFError:
            self.hang_up()
        except (
            ProtocolError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as exc:
            self.stream.tell("fatal", "%s: %s" % (type(exc).__name__, exc))
            self.flush(last=True)
            self.hang_up()

    def on_hello(self, version, options):
        if version != VERSION:
            raise ProtocolError("protocol version %r; this agent speaks %d" % (version, VERSION))
        self.run, self.cap, self.grace = str(options["run"]), options["cap"], duration(options["grace"])
        self.detach_on_eof, self.records = options["on_eof"] == "detach", Records(raw(options["records"]))

    def on_spawn(self, batch):
        argvs = [attempt(lambda argv=argv: [raw(item) for item in argv]) for argv in batch["argv"]]
        envs = [attempt(lambda changes=changes: self.environment(changes)) for changes in batch["env"]]
        for key, argv, env, cwd, out, err, limit, free in batch["jobs"]:
            if type(key) is not int or key in self.jobs or not argvs[argv]:
                raise ProtocolError("job %r: not a number, here already, or without argv" % (key,))
            limit = None if limit is None else duration(limit)
            bad = next((table for table in (argvs[argv], envs[env]) if isinstance(table, ValueError)), None)
            if bad:
                self.news.append([key, "error", time.time(), "cannot be written as bytes: %s" % bad])
                continue
            if self.leaving:  # too late
                self.news.append([key, "end", time.time(), None, "stop", None])
                continue
            job = self.jobs[key] = Job(key, argvs[argv], envs[env], raw(cwd), raw(out), raw(err), limit, bool(free))
            (self.queue.appendleft if free else self.queue.append)(job)

    def environment(self, changes):
        env = dict(self.environ)
        for name, value in changes:
            if value is None:
                env.pop(raw(name), None)
            else:
                env[raw(name)] = raw(value)
        return env

    def on_stop(self, keys, grace):
        self.stop([self.jobs[key] for key in keys if key in self.jobs], "stop", duration(grace))

    def on_files(self, number, actions, last):
        batch = self.batches.setdefault(number, Files())
        batch.add(actions, last)
        if batch.idle():  # it failed before this part came, or there was nothing in it
            self.files_done(number, batch, None)

    def on_bye(self, keep):
        self.leave(self.jobs if keep == "all" else keep)

    def leave(self, keep):
        """Stop all but ``keep``; the loop ends when nothing is left, whether or not anyone still listens."""
        self.leaving, keep = True, set(keep)
        self.stop([job for key, job in list(self.jobs.items()) if key not in keep], "stop", self.grace)

    def hang_up(self):
        self.stream.close()
        self.stream = None
        self.batches = {number: batch for number, batch in self.batches.items() if batch.complete}  # these are finished
        if not self.leaving:
            self.leave(self.jobs if self.detach_on_eof else [])

    def batch(self):
        return next((number for number, batch in self.batches.items() if not batch.idle()), None)

    def file_step(self, number):
        batch, error = self.batches[number], None
        try:
            batch.step()
        except OSError as exc:
            error = [exc.errno, exc.strerror or str(exc), batch.path, batch.verb]
        except Exception as exc:  # a broken action, or a tree that is too deep: the batch's error, not all jobs' end
            error = [errno.EINVAL, "%s: %s" % (type(exc).__name__, exc), str(batch.path), batch.verb]
        if error or batch.idle():
            self.files_done(number, batch, error)

    def files_done(self, number, batch, error):
        """Tell how a batch ended: at its first error, or when its last part is done. Parts that come after an error are dropped."""
        if error:
            batch.failed, batch.current = True, None
            batch.actions.clear()
        if batch.complete:
            del self.batches[number]
        if self.stream and (error or (batch.complete and not batch.failed)):
            self.stream.tell("files", number, batch.done, error)

    # -- processes

    def start_next(self):
        job = self.queue.popleft()
        if job.key not in self.jobs:  # stopped while it waited
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
        self.finish(job, [job.key, "error", time.time(), explain(exc, job)])

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
            if job:
                self.retry_at, self.free = 0.0, self.free - job.free
                self.ended(job, os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status), usage)
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
        self.jobs.pop(job.key, None)
        self.stopping.pop(job.key, None)
        if len(self.limits) > 2 * len(self.jobs) + 1000:  # most are of jobs that ended long before their limit
            self.limits = sorted(limit for limit in self.limits if limit[1] in self.jobs)
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
            self.queue = collections.deque(job for job in self.queue if job.key in self.jobs)
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
            late.append(self.jobs.get(heapq.heappop(self.limits)[1]))
        if late:
            self.stop([job for job in late if job], "timeout", self.grace)
        due = [job for job in self.stopping.values() if job.kill_at <= now]
        found = strays([job for job in due if not job.killed], self.run)
        for job in due:
            if job.killed:  # unkillable, or zombies that a stranger does not reap
                self.free -= job.free if self.running.pop(job.pid, None) else 0
                untold = job.key in self.jobs  # else only what it had left behind was being stopped
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
            self.poller.poll(5)


def main(arguments):
    """``FD``: serve the driver at the other end of that socket. ``rescue RUN GRACE PID...``: see :func:`rescue`."""
    if arguments[0] == "rescue":
        rescue(raw(arguments[1]), float(arguments[2]), {int(pid) for pid in arguments[3:]})
    else:
        gc.disable()  # there are no cycles to speak of, and many long-lived objects to look through in vain
        os.set_inheritable(int(arguments[0]), False)  # a job that held it would hide the agent's death from the driver
        Agent(socket.socket(fileno=int(arguments[0]))).loop()
