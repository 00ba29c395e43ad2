"""Commands whose output the driver waits for, and directories watched for new files. Part of the agent program: standard library only."""

import codecs
import collections
import os
import select
import signal
import stat
import time

from jobs import BACK_OFF, GIVE_UP, STARVED
from processes import explain, find, launch, send
from stream import ProtocolError, duration
from text import raw, text

AT_ONCE = 16
PIECE = 1 << 16  # bytes read at once, and about how much text is told at once
LINGER = 1.0  # seconds for which something else may hold the output of a command that has ended
GRACE = 1.0  # seconds between SIGTERM and SIGKILL
CONTENT = 4096  # bytes of a new file that are told
MESSAGE = 8 << 20  # bytes of files in one message


class Command:
    """One command. ``due`` is when it (or what is left of it) is next to be looked at."""

    def __init__(self, number, what, env):
        self.number, self.cwd, self.stdin = number, raw(what["cwd"]), memoryview(raw(what["stdin"]))
        self.argv, self.env = [raw(word) for word in what["argv"]], env
        self.timeout, self.limit = duration(what["timeout"]), int(what["limit"])
        self.lasting = bool(what.get("lasting"))
        if not self.argv:
            raise ProtocolError("command %r has no argv" % (number,))
        self.fds, self.room, self.texts = {}, [0, self.limit, self.limit], ["", "", ""]
        self.decoders = [codecs.getincrementaldecoder("utf-8")("surrogateescape") for _ in range(3)]
        self.pid = self.code = self.due = self.starved_since = None
        self.why, self.ended, self.killed = "", False, False


class Commands:
    """``environment`` makes one from changes; ``tell`` sends a message."""

    def __init__(self, poller, environment, tell):
        self.poller, self.environment, self.tell = poller, environment, tell
        self.queue, self.live, self.fds, self.retry_at = collections.deque(), {}, {}, 0.0

    def add(self, number, what):
        if type(number) is not int or number in self.live or any(number == other.number for other in self.queue):
            raise ProtocolError("command %r: not a number, or here already" % (number,))
        try:
            self.queue.append(Command(number, what, self.environment(what["env"])))
        except UnicodeError as exc:
            self.tell("ran", number, None, "", "cannot be written as bytes: %s" % exc)

    def startable(self, now):
        if not self.queue or now < self.retry_at:
            return False
        return self.queue[0].lasting or sum(not command.lasting for command in self.live.values()) < AT_ONCE

    def due(self, now):
        times = [command.due for command in self.live.values()]
        return times + [self.retry_at] if self.queue and self.retry_at > now else times

    def start_next(self):
        command = self.queue.popleft()
        try:
            command.pid = self.start(command)
        except OSError as exc:
            now = time.monotonic()
            command.starved_since = command.starved_since or now
            if exc.errno in BACK_OFF and now - command.starved_since < STARVED:
                self.queue.appendleft(command)
                self.retry_at = now + 0.05
            else:
                self.tell("ran", command.number, None, "", explain(exc, command.argv[0]))
        except ValueError as exc:
            self.tell("ran", command.number, None, "", str(exc))
        else:
            command.due = time.monotonic() + command.timeout
            self.live[command.number] = command

    def start(self, command):
        try:
            os.chdir(command.cwd)
        except OSError as exc:
            raise OSError(exc.errno, "cannot enter its directory: " + os.strerror(exc.errno), command.cwd)
        pipes = []
        try:
            while len(pipes) < 3:
                pipes.append(os.pipe())
            theirs = {0: pipes[0][0], 1: pipes[1][1], 2: pipes[2][1]}
            pid = launch(find(command.argv[0], command.env), command.argv, command.env, theirs)
            for which, fd in ((0, pipes[0][1]), (1, pipes[1][0]), (2, pipes[2][0])):
                self.open(command, which, os.dup(fd))
            return pid
        finally:
            for fd in [fd for pair in pipes for fd in pair]:
                os.close(fd)

    def open(self, command, which, fd):
        os.set_blocking(fd, False)
        command.fds[fd], self.fds[fd] = which, command
        self.poller.register(fd, select.POLLIN if which else select.POLLOUT)
        if not which and not command.stdin:
            self.close(command, fd)

    def close(self, command, fd):
        self.poller.unregister(fd)
        del self.fds[fd], command.fds[fd]
        os.close(fd)

    def ready(self, fd):
        """One of our ends of the pipes can be read or written."""
        command = self.fds.get(fd)
        if command is None:  # closed in the same turn
            return
        try:
            if command.fds[fd]:
                data = os.read(fd, PIECE)
                if data:
                    self.heard(command, command.fds[fd], data)
                    return
            else:
                command.stdin = command.stdin[os.write(fd, command.stdin[:PIECE]) :]
                if command.stdin:
                    return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it does not want the rest
            pass
        self.close(command, fd)
        self.look(command)

    def heard(self, command, which, data):
        if len(data) > command.room[which]:
            data = data[: command.room[which]]
            self.stop(command, "stopped: it wrote more than %d bytes" % command.limit)
        command.room[which] -= len(data)
        command.texts[which] += command.decoders[which].decode(data)
        if len(command.texts[which]) >= PIECE:
            self.tell("said", command.number, which, command.texts[which])
            command.texts[which] = ""

    def stop(self, command, why):
        if not command.ended and not command.why:
            command.why, command.due = why, time.monotonic() + GRACE
            send(command.pid, signal.SIGTERM, group=True)
            send(command.pid, signal.SIGCONT, group=True)

    def unrun(self, number):
        """Nobody waits for it any longer."""
        self.queue = collections.deque(command for command in self.queue if command.number != number)
        if number in self.live:
            self.stop(self.live[number], "stopped: it was cancelled")

    def leave(self):
        for command in self.queue:
            self.tell("ran", command.number, None, "", "the agent is leaving")
        self.queue.clear()
        for command in self.live.values():
            self.kill(command, "stopped: the agent is leaving")

    def kill(self, command, why):
        command.why, command.killed = command.why or why, True
        command.due = time.monotonic() + GIVE_UP
        send(command.pid, signal.SIGKILL, group=True)

    def ended(self, pid, code):
        """A child that was no job ended."""
        for command in [command for command in self.live.values() if command.pid == pid]:
            command.ended, command.code, command.due = True, code, time.monotonic() + LINGER
            self.look(command)

    def look(self, command):
        if command.ended and not any(command.fds.values()):
            self.finish(command)

    def finish(self, command):
        for fd in list(command.fds):
            self.close(command, fd)
        if command.ended:
            send(command.pid, signal.SIGKILL, group=True)  # what it left behind
        del self.live[command.number]
        out, err = (command.texts[which] + command.decoders[which].decode(b"", True) for which in (1, 2))
        if command.why:
            err += ("\n" if err and not err.endswith("\n") else "") + command.why
        self.tell("ran", command.number, None if command.why else command.code, out, err)

    def deadlines(self, now):
        for command in [command for command in self.live.values() if command.due <= now]:
            if command.ended or command.killed:
                self.finish(command)
            elif command.why:
                self.kill(command, command.why)
            else:
                self.stop(command, "stopped after its time of %g s" % command.timeout)


class Watch:
    def __init__(self, name, tell):
        self.name, self.path, self.tell, self.every, self.due = name, raw(name), tell, 0.0, 0.0
        self.known, self.scan = set(), None

    def look(self):
        """One look, in steps; every name is told once, when its content could be read.

        What is found goes into one message (of many, if it is much): who puts a second file there after a first one may
        rely on it that nobody hears of the second one alone. A listing may miss what is renamed meanwhile, but not
        what was there before it began: so there is another one.
        """
        found, size, rows = [], 0, []
        yield from self.list(found)
        if found:
            yield from self.list(found)
        for count, name in enumerate(found, 1):
            try:
                content = head(os.path.join(self.path, name))
            except OSError:  # gone again, or not to be read: another time
                continue
            self.known.add(name)
            if content is not None:
                rows.append([text(name), text(content)])
                size += len(content)
            if size > MESSAGE:
                self.report(rows)
                size, rows = 0, []
            if not count % 20:
                yield
        self.report(rows)

    def list(self, found):
        """Add what is new."""
        known = self.known.union(found)
        try:
            with os.scandir(self.path) as entries:
                for count, entry in enumerate(entries, 1):
                    if entry.name not in known and not entry.name.startswith(b"."):
                        found.append(entry.name)
                    if not count % 1000:
                        yield
        except (OSError, ValueError):  # not there, or not now; no name of a directory
            pass

    def report(self, rows):
        if rows:
            self.tell("seen", self.name, rows)


def head(path):
    """The beginning of a file; None for what is no file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, CONTENT) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


class Watches:
    """``tell`` sends a message."""

    def __init__(self, tell):
        self.tell, self.known = tell, {}

    def set(self, name, seconds):
        if not duration(seconds):
            self.known.pop(name, None)
            return
        watch = self.known.setdefault(name, Watch(name, self.tell))
        watch.every, watch.due = float(seconds), time.monotonic()

    def due(self):
        return [watch.due for watch in self.known.values()]

    def next(self, now):
        """A watch that has something to do now."""
        return next((watch for watch in self.known.values() if watch.scan or watch.due <= now), None)

    def step(self, watch):
        watch.scan = watch.scan or watch.look()
        if next(watch.scan, self) is self:
            watch.scan, watch.due = None, time.monotonic() + watch.every
