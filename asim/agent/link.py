"""An agent that outlives its link: a daemon with a socket, and the relay to it. Part of the agent program: standard library only.

Both ends count the bytes of the other's stream and keep their own until they are acknowledged (``["ack", count]``). A
driver that comes back says how much it has (8 bytes, big end first) and is told the same; the streams go on from there.
The driver may promise a sign of life (an ``ack`` is one) every ``keepalive`` seconds. A link that is open and brings
none is as good as cut: its other end may be gone without a word, as after a power failure.
``["eof"]`` from the driver is what the end of a plain stream is; ``["ended"]`` is the last message of an agent.
"""

import errno
import os
import select
import socket
import stat
import struct
import sys
import time

from stream import ProtocolError, Stream, dumps

ACK = 1 << 16  # bytes received that are acknowledged without anything else to say
QUIET = 4  # promised signs of life that must be missing before a short patience ends
UNMET = 60.0  # seconds for the first driver to come
PIECE = 1 << 18
MARK = "\nASIM-LINK "


class Link(Stream):
    """A stream to whichever driver came last. Without a sign of one it is kept for ``patience`` seconds."""

    def __init__(self, listener, poller):
        self.listener, self.newcomer, self.greeting = listener, None, b""
        self.sock, self.fd, self.poller, self.inbox = None, -1, poller, bytearray()
        self.kept, self.base, self.sent = (
            bytearray(),
            0,
            0,
        )  # not acknowledged; where in our stream it begins; handed over
        self.received = self.told = 0  # of the driver's stream; what it knows of that
        self.patience, self.alone, self.urgent, self.finished = UNMET, time.monotonic(), False, False
        self.keepalive, self.heard = 0.0, self.alone  # 0: nothing was promised
        listener.setblocking(False)
        poller.register(listener, select.POLLIN)

    def ready(self, fd):
        if fd == self.listener.fileno():
            self.accept()
        elif self.newcomer is not None and fd == self.newcomer.fileno():
            self.greet()
        return fd == self.fd

    def accept(self):
        try:
            sock = self.listener.accept()[0]
        except OSError:
            return
        self.dismiss()
        self.newcomer, self.greeting = sock, b""
        sock.setblocking(False)
        self.poller.register(sock, select.POLLIN)

    def dismiss(self):
        if self.newcomer is not None:
            self.poller.unregister(self.newcomer)
            self.newcomer.close()
            self.newcomer = None

    def greet(self):
        """A driver says what it has; then it is ours, and one that was here before is not."""
        try:
            data = self.newcomer.recv(8 - len(self.greeting))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self.greeting += data
        if not data:
            self.dismiss()
        elif len(self.greeting) == 8:
            count, sock = struct.unpack("!Q", self.greeting)[0], self.newcomer
            if not 0 <= count - self.base <= len(self.kept):
                self.dismiss()
                return
            self.newcomer = None
            self.drop()
            self.sock, self.fd, self.alone, self.heard = sock, sock.fileno(), None, time.monotonic()
            self.told, self.sent = self.received, 0
            try:
                sock.send(struct.pack("!Q", self.received))  # 8 bytes into an empty socket
            except OSError:  # it has gone again: its link was cut
                self.drop()
                return
            self.acknowledged(count)
            self.flush()

    def drop(self):
        if self.sock is not None:
            self.poller.unregister(self.sock)
            self.sock.close()
            self.sock, self.fd, self.alone = None, -1, time.monotonic()

    def receive(self):
        try:
            data = Stream.receive(self)
        except EOFError:
            self.drop()
            return b""
        self.received += len(data)
        self.heard = time.monotonic() if data else self.heard
        return data

    def frames(self):
        for frame in Stream.frames(self):
            if frame[0] == "ack":
                self.acknowledged(frame[1])
            elif frame[0] == "eof":
                self.urgent = True
                raise EOFError
            else:
                self.urgent = self.urgent or frame[0] == "bye"  # it may wait for nothing else
                yield frame

    def acknowledged(self, count):
        done = count - self.base
        if done <= 0:  # sent again after a cut: more is known by now
            return
        if done > len(self.kept):
            raise ProtocolError("%r bytes acknowledged of %d" % (count, self.base + len(self.kept)))
        del self.kept[:done]
        self.base, self.sent = count, max(0, self.sent - done)

    def add(self, body):
        self.kept += struct.pack("!I", len(body)) + body

    def flush(self, last=False):
        new = self.received - self.told
        if new and not self.finished and (new >= ACK or self.urgent or self.sent < len(self.kept)):
            self.told, self.urgent = self.received, False
            self.add(dumps(["ack", self.received]))
        try:
            while self.sock is not None and self.sent < len(self.kept):
                self.sent += self.sock.send(self.kept[self.sent : self.sent + PIECE])
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.drop()
        if self.sock is not None:
            self.poller.modify(self.sock, select.POLLIN | (select.POLLOUT if self.sent < len(self.kept) else 0))

    def due(self):
        if self.alone is not None:
            return [self.alone + self.patience]
        return [self.heard + max(self.patience, QUIET * self.keepalive)] if self.keepalive else []

    def late(self, now):
        """Whether there has been no sign of a driver for too long."""
        return any(now >= end for end in self.due())

    def finish(self):
        """Before the agent ends: the driver, if it comes back in time, must have all of it."""
        self.add(dumps(["ended"]))
        self.finished = True  # an acknowledgement of ours would have to be acknowledged
        self.flush()
        while self.kept and not self.late(time.monotonic()):
            for fd, _ in self.poller.poll(100):
                if self.ready(fd):
                    try:
                        for _ in self.frames():
                            pass
                    except (EOFError, ProtocolError, ValueError, TypeError, LookupError):
                        return
            self.flush()

    def close(self):
        self.flush()
        self.drop()
        self.dismiss()
        self.poller.unregister(self.listener)
        self.listener.close()


def listen(places, token):
    """A listening socket (None: there is one already) in the first of these directories that can have it."""
    why = None
    for place in places:
        sock = socket.socket(socket.AF_UNIX)
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            info = os.lstat(place)
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
                raise OSError(errno.EPERM, "not a directory of this user", place)
            os.chmod(place, 0o700)
            sock.bind(address(place, token))
            sock.listen(8)
            return sock, place
        except OSError as exc:
            sock.close()
            if exc.errno == errno.EADDRINUSE:
                return None, place
            why = why or exc
    raise why


def address(place, token):
    return os.path.join(place, token + ".sock")


def say(*words):
    os.write(1, (MARK + " ".join(words) + "\n").encode("utf-8", "surrogateescape"))


def serve(place, token):
    """Become a daemon: returns its listening socket there, and None in the process that was started, after it said so."""
    places = [os.path.expanduser(place), "/tmp/asim-%d" % os.getuid()]
    try:
        listener, place = listen(places, token)
    except OSError as exc:
        say("failed", socket.gethostname(), str(exc))
        return None
    child = os.fork() if listener is not None else None
    if child == 0:
        daemonize(os.path.join(place, token))
        return listener
    if child and os.waitpid(child, 0)[1]:
        say("failed", socket.gethostname(), "cannot write in %s" % place)
        return None
    say("serving", socket.gethostname(), place)
    return None


def daemonize(name):
    """Return in a grandchild of nobody, whose number and log are in files."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(name + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pid = os.fork()
    if pid:
        with open(name + ".pid", "w") as file:
            file.write("%d\n" % pid)
        os._exit(0)
    for target, fd in ((0, null), (1, null), (2, log)):
        os.dup2(fd, target)
    os.close(null)
    os.close(log)


def remove(path):
    """What a daemon leaves: nothing, or a log that has something in it."""
    for name in (path, path[:-5] + ".pid", path[:-5] + ".log"):
        try:
            if not name.endswith(".log") or not os.path.getsize(name):
                os.unlink(name)
        except OSError:
            pass


def attach(place, token, count):
    """Between this process's standard streams and a daemon; first a line says whether there is one."""
    sock, head = socket.socket(socket.AF_UNIX), b""
    try:
        sock.connect(address(place, token))
        sock.sendall(struct.pack("!Q", count))
        while len(head) < 8:
            data = sock.recv(8 - len(head))
            if not data:
                raise OSError(errno.ECONNRESET, "it closes the connection")
            head += data
    except OSError as exc:
        say("gone", socket.gethostname(), "%s: %s" % (address(place, token), exc.strerror or exc))
        return
    say("up", socket.gethostname(), str(struct.unpack("!Q", head)[0]))
    try:
        relay(sock)
    except OSError:  # one of the two ends is gone
        pass


def relay(sock):
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(sock, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            data = os.read(fd, PIECE)
            if not data:
                return
            if fd == 0:
                sock.sendall(data)
            else:
                while data:
                    data = data[os.write(1, data) :]


def main(verb, place, token, count="0"):
    """``serve PLACE TOKEN`` or ``attach PLACE TOKEN COUNT``; returns a listener in the daemon."""
    sys.stdout.flush()
    return serve(place, token) if verb == "serve" else attach(os.path.expanduser(place), token, int(count))
