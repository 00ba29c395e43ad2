"""What files contain, in short, so that only what differs is sent. Part of the agent program: standard library only."""

import hashlib
import json
import os
import stat
import sys
import time

from text import raw

PIECE = 1 << 20
KEPT = 20000  # files whose digest is remembered
ALIVE = 5.0  # seconds between two signs of life while it works
FRESH = 3.0  # seconds after which a file that is written again has another time, on any file system


class Pulse:
    """Says now and then, to a driver that waits, that there is progress: a sign for what was done, not for time that passed."""

    def __init__(self):
        self.said = time.monotonic()

    def beat(self):
        if time.monotonic() >= self.said + ALIVE:
            self.said = time.monotonic()
            os.write(1, b"\nASIM-LINK working\n")


def digest(path, size, pulse):
    """Of its first bytes: a file that is being written may grow meanwhile."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            data = file.read(min(PIECE, size))
            pulse.beat()
            if not data:
                return sha.hexdigest()
            size -= len(data)
            sha.update(data)


def load(memory):
    try:
        with open(memory) as file:
            known = json.load(file)
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def save(memory, known):
    for name in list(known)[: max(0, len(known) - KEPT)]:
        del known[name]
    part = "%s.%d" % (memory, os.getpid())
    try:
        with open(part, "w") as file:
            json.dump(known, file)
        os.rename(part, memory)
    except OSError:  # only slower next time
        pass


def main(memory):
    """Paths on the standard input (JSON); on the standard output, for each, [size, digest], null if it is not there, or
    why it cannot be read.
    """
    memory, answers = os.path.expanduser(memory), []
    known, changed, now, pulse = load(memory), False, time.time(), Pulse()
    for path in json.load(sys.stdin):
        pulse.beat()
        file = os.path.expanduser(raw(path))
        try:
            info = os.stat(file)
            if not stat.S_ISREG(info.st_mode):
                raise OSError("it is no file")
            # a file can be given its old time again, but not the time of that change
            mark = [info.st_ctime_ns, info.st_size, int(info.st_mtime * 1e6), info.st_ino]
            row = known.pop(path, None)
            changed = changed or row is None or row[:4] != mark
            row = row if row and row[:4] == mark else mark + [digest(file, info.st_size, pulse)]
            if max(info.st_mtime, info.st_ctime) < now - FRESH:
                known[path] = row  # last: the latest are kept
            answers.append([info.st_size, row[4]])
        except (FileNotFoundError, NotADirectoryError):
            answers.append(None)
        except OSError as exc:
            answers.append(exc.strerror or str(exc))
    if changed:
        save(memory, known)
    os.write(1, ("\nASIM-LINK digests %s\n" % json.dumps(answers)).encode())
