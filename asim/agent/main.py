"""The agent: starts, watches and stops processes on one host, and writes files there, for a driver at the other end of a stream.

A program of its own: standard library only, Python 3.6 or later, so that it can be copied to any machine.
Frames, both ways: 4 bytes length (big endian), then one JSON array ``[verb, ...]`` in ASCII. Text is UTF-8 with
surrogate escapes, so any byte that may stand in a path or an argument survives.

from the driver   ["hello", version, {run, cap, grace, records, on_eof, patience?, keepalive?}]  first; cap null = no limit; "free" jobs do not count;
                  of those that are "paced" only some are starting at the same time
                  ["spawn", {argv: [[..]], env: [[[name, value|null]..]], jobs: [[key, argv#, env#, cwd, out, err, limit, free, paced]..]}]
                  ["stop", [key..], grace]   ["files", id, [action..], last]   ["bye", [key..] | "all"]   what is not kept is stopped
                  ["run", id, {argv, env: [[name, value|null]..], cwd, stdin, timeout, limit, lasting?}]   ["unrun", id]
                  ["watch", directory, seconds]   0: no longer
to the driver     ["ready", version, {pid, host, python, stamp}]   ["files", id, done, null | [errno, words, path, verb]]
                  ["said", id, 1|2, text]   ["ran", id, code|null, the rest of stdout, of stderr]   ["fatal", words]
                  ["seen", directory, [[name, beginning of its content]..]]
                  ["news", [row..]] with rows  [key, "start", time, pid]  [key, "error", time, words]
                                               [key, "end", time, code|null, why|null, [user_s, system_s, max_rss_kib]|null]

Every news batch is also one line of the records file, so how a job ended is known even when nobody listened. A job is
a session leader; it ends when that process ends, and what is left of its group is then stopped. Stopping = SIGTERM to
the group and to descendants that left it, ``grace`` seconds, SIGKILL, and waiting until all are gone. When the stream
ends without "bye", everything is stopped, or, with on_eof "detach", left to run with its exits recorded. Commands that
were asked for by "run" are no jobs: they count for no cap, their output goes to the driver, and they end with the stream.
The stream of a daemon outlives its connections, for ``patience`` seconds, and silence as long: see :mod:`link`.
Exits are learnt from SIGCHLD; the kernel is asked to hand orphans of jobs to the agent (PR_SET_CHILD_SUBREAPER).
"""

import gc
import os
import select
import signal
import socket
import sys
import time

from commands import Commands, Watches
from files import Batches
from jobs import Jobs
from processes import Job, adopt_orphans, rescue, stamp
from stream import ProtocolError, Records, Stream, dumps, duration
from text import attempt, raw

VERSION = 6
SLICE = 0.005  # seconds of work between two looks at the stream and at exits
PATIENCE = 0.01  # seconds that news may wait while there is more to start; an idle agent sends at once
VERBS = ("hello", "spawn", "stop", "files", "run", "unrun", "watch", "bye")


class Agent:
    """``stream`` makes the stream to the driver, given the poller that tells of it."""

    def __init__(self, stream):
        self.poller, self.environ = select.poll(), dict(os.environb)
        self.commands = Commands(self.poller, self.environment, self.tell)
        self.jobs, self.batches, self.watches = Jobs(self.commands.ended), Batches(self.tell), Watches(self.tell)
        self.detach_on_eof = self.leaving = self.terminated = False
        self.records, self.flushed = None, 0.0
        self.wake, wake = os.pipe()
        for fd in (self.wake, wake):
            os.set_blocking(fd, False)
        self.poller.register(self.wake, select.POLLIN)
        self.stream = stream(self.poller)
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
        self.jobs.adopts = adopt_orphans()
        while not (self.leaving and self.nothing_left()):
            for fd, _ in self.wait():
                if fd == self.wake:
                    os.read(self.wake, 4096)
                elif fd in self.commands.fds:
                    self.commands.ready(fd)
                elif self.stream and self.stream.ready(fd):
                    self.receive()
            if self.terminated:
                self.terminated = False
                self.leave([])
            if self.stream and self.stream.late(time.monotonic()):
                self.hang_up()
            self.jobs.reap()
            self.jobs.deadlines()
            self.commands.deadlines(time.monotonic())
            self.work(time.monotonic() + SLICE)
            if not self.busy():
                os.chdir("/")  # be in nobody's way
                self.flush()
            elif time.monotonic() > self.flushed + PATIENCE:
                self.flush()
        self.jobs.sweep()
        self.flush()
        if self.stream:
            self.stream.finish()

    def nothing_left(self):
        working = self.jobs.known or self.jobs.stopping or self.commands.live
        return not working and self.batches.next() is None

    def wait(self):
        """Wait for a message, an exit, or what is due. Only here SIGCHLD is let in, so that many exits are one signal."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        try:
            return self.poller.poll(self.timeout())
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])

    def busy(self):
        now = time.monotonic()
        ready = self.jobs.startable(now) or self.commands.startable(now) or self.watches.next(now)
        return ready or self.batches.next() is not None

    def timeout(self):
        """Milliseconds until something is due; None when only a message or an exit can be next."""
        now = time.monotonic()
        if self.busy():
            return 0
        due = self.jobs.due(now) + self.commands.due(now) + self.watches.due()
        due += self.stream.due() if self.stream else []
        if self.records and self.records.unwritten:
            due.append(now + 1.0)
        return max(0, int(min(min(due) - now, 3600.0) * 1000) + 1) if due else None

    def work(self, until):
        """A step of each kind of work in turn, for so long."""
        now = time.monotonic()
        while True:
            batch, watch = self.batches.next(), self.watches.next(now)
            starts = [part for part in (self.jobs, self.commands) if part.startable(now)]
            if batch is not None:
                self.batches.step(batch)
            if watch:
                self.watches.step(watch)
            for part in starts:
                part.start_next()
            now = time.monotonic()
            if now > until or not (batch is not None or watch or starts):
                return

    def tell(self, *message):
        if self.stream:
            self.stream.tell(*message)

    def flush(self, last=False):
        """News to the records file (on a full disk kept, and tried again) and to the driver."""
        self.flushed = time.monotonic()
        if self.jobs.news:
            line, self.jobs.news = dumps(self.jobs.news), []
            self.records.add(line)
            if self.stream:
                self.stream.add(b'["news",' + line + b"]")
        if self.records:
            self.records.write()
        if self.stream:
            self.stream.flush(last)

    # -- messages

    def receive(self):
        try:
            for verb, *rest in self.stream.frames():
                if verb not in VERBS or (verb == "hello") != (self.records is None):
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
        jobs = self.jobs
        jobs.run, jobs.cap, jobs.grace = str(options["run"]), options["cap"], duration(options["grace"])
        if "patience" in options:  # of a link that may be cut
            self.stream.patience = duration(options["patience"])
            self.stream.keepalive = duration(options.get("keepalive", 0))
        self.detach_on_eof, self.records = options["on_eof"] == "detach", Records(raw(options["records"]))

    def on_spawn(self, batch):
        argvs = [attempt(lambda argv=argv: [raw(item) for item in argv]) for argv in batch["argv"]]
        envs = [attempt(lambda changes=changes: self.environment(changes)) for changes in batch["env"]]
        for key, argv, env, cwd, out, err, limit, free, paced in batch["jobs"]:
            if type(key) is not int or key in self.jobs.known or not argvs[argv]:
                raise ProtocolError("job %r: not a number, here already, or without argv" % (key,))
            limit = None if limit is None else duration(limit)
            bad = next((table for table in (argvs[argv], envs[env]) if isinstance(table, ValueError)), None)
            if bad:
                self.jobs.news.append([key, "error", time.time(), "cannot be written as bytes: %s" % bad])
            elif self.leaving:  # too late
                self.jobs.news.append([key, "end", time.time(), None, "stop", None])
            else:
                places = raw(cwd), raw(out), raw(err)
                self.jobs.add(Job(key, argvs[argv], envs[env], *places, limit, bool(free), bool(paced)))

    def environment(self, changes):
        env = dict(self.environ)
        for name, value in changes:
            if value is None:
                env.pop(raw(name), None)
            else:
                env[raw(name)] = raw(value)
        return env

    def on_stop(self, keys, grace):
        known = self.jobs.known
        self.jobs.stop([known[key] for key in keys if key in known], "stop", duration(grace))

    def on_files(self, number, actions, last):
        self.batches.add(number, actions, last)

    def on_run(self, number, what):
        if self.leaving:
            self.tell("ran", number, None, "", "the agent is leaving")
        else:
            self.commands.add(number, what)

    def on_unrun(self, number):
        self.commands.unrun(number)

    def on_watch(self, directory, seconds):
        self.watches.set(directory, 0 if self.leaving else seconds)

    def on_bye(self, keep):
        self.leave(self.jobs.known if keep == "all" else keep)

    def leave(self, keep):
        """Stop all but ``keep``; the loop ends when nothing is left, whether or not anyone still listens."""
        self.leaving, keep = True, set(keep)
        self.watches.known.clear()
        self.commands.leave()
        self.jobs.stop([job for key, job in list(self.jobs.known.items()) if key not in keep], "stop", self.jobs.grace)

    def hang_up(self):
        self.stream.close()
        self.stream = None
        self.batches.forget()
        if not self.leaving:
            self.leave(self.jobs.known if self.detach_on_eof else [])


def main(arguments):
    """``FD``: serve the driver at the other end of that socket. ``rescue RUN GRACE PID...``: see :func:`rescue`.

    ``node ADDRESSES PORT SECRETFILE``: serve a driver that is called; see :mod:`node`.
    ``serve PLACE TOKEN``: become a daemon that serves whoever attaches. ``attach PLACE TOKEN COUNT``: see :mod:`link`.
    ``digests FILE``: see :mod:`digests`.
    """
    if arguments[0] == "rescue":
        rescue(raw(arguments[1]), float(arguments[2]), {int(pid) for pid in arguments[3:]})
        return
    if arguments[0] == "digests":
        import digests

        digests.main(arguments[1])
        return
    gc.disable()  # there are no cycles to speak of, and many long-lived objects to look through in vain
    if arguments[0] in ("serve", "attach"):
        import link

        listener = link.main(*arguments)
        if listener is not None:
            path = listener.getsockname()
            try:
                Agent(lambda poller: link.Link(listener, poller)).loop()
            except Exception:  # in the log before it is seen to be empty, and removed
                sys.excepthook(*sys.exc_info())
                raise SystemExit(1)
            finally:
                link.remove(path)
        return
    if arguments[0] == "node":
        import node

        sock = node.call(*arguments[1:])
        Agent(lambda poller: Stream(sock, poller)).loop()
        return
    os.set_inheritable(int(arguments[0]), False)  # a job that held it would hide the agent's death from the driver
    Agent(lambda poller: Stream(socket.socket(fileno=int(arguments[0])), poller)).loop()
