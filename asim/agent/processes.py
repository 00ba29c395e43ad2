"""Starting, finding and signalling processes. Part of the agent program: standard library only."""

import errno
import os
import signal
import stat
import sys
import time

from text import raw, text

LINUX = sys.platform.startswith("linux")
RESET = [signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT]


class Job:
    """One process: what was asked, and how far it has come. ``end`` is its news row, held back until all of it is gone."""

    __slots__ = (
        "argv", "cwd", "end", "env", "err", "extras", "free", "key", "kill_at", "killed", "limit", "out", "paced", "pid",
        "why",
    )  # fmt: skip

    def __init__(self, key, argv, env, cwd, out, err, limit, free, paced):
        self.key, self.argv, self.env, self.cwd, self.out, self.err, self.limit = key, argv, env, cwd, out, err, limit
        self.free, self.paced = free, paced  # does not count for the cap; is one of few that start at the same time
        self.pid = self.why = self.kill_at = self.end = None
        self.killed, self.extras = False, {}


def open_output(path):
    """A new file; an earlier one that has something in it becomes ``path.1``, ``path.2`` …: output is never lost."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_EXCL, 0o666)
    except FileExistsError:
        info = os.stat(path)
    number = 0
    while stat.S_ISREG(info.st_mode) and info.st_size:
        number += 1
        try:
            os.link(path, path + b".%d" % number, follow_symlinks=False)  # a rename would replace what is there
        except FileExistsError:
            continue
        os.unlink(path)
        break
    fd = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(fd, True)
    return fd


def start(job, env):
    """Start one process: own session, own files, in its directory. ``posix_spawn`` (a vfork), so the cost is the exec's."""
    try:
        os.chdir(job.cwd)
    except OSError as exc:
        raise OSError(exc.errno, "cannot enter its directory: " + os.strerror(exc.errno), job.cwd)
    fds = []
    try:
        try:
            fds.append(open_output(job.out))
            fds.append(fds[0] if job.err == job.out else open_output(job.err))
        except OSError as exc:
            raise OSError(exc.errno, "cannot open its output file: " + os.strerror(exc.errno), exc.filename)
        return launch(find(job.argv[0], env), job.argv, env, {1: fds[0], 2: fds[1]})
    finally:
        for fd in set(fds):
            os.close(fd)


def find(program, env):
    """The file to run: a name without a slash is looked up in the PATH that the command will have."""
    if b"/" in program:
        return program
    for place in env.get(b"PATH", os.defpath.encode()).split(b":"):
        path = os.path.join(place or b".", program)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return program


def launch(program, argv, env, fds):
    """A new session leader; ``fds``: its descriptor -> ours. Signals are as any program expects them."""
    if hasattr(os, "posix_spawn"):
        actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in fds.items()]
        return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=RESET)
    import subprocess  # Python 3.6 and 3.7

    child = subprocess.Popen(
        argv, executable=program, env=env, stdin=fds.get(0), stdout=fds[1], stderr=fds[2], start_new_session=True,
        preexec_fn=reset_signals,
    )  # fmt: skip
    child.returncode = 0  # reaped here, not by Popen
    return child.pid


def reset_signals():
    """In a child before its exec: what ``setsigdef`` and ``setsigmask`` do elsewhere."""
    for number in RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def explain(exc, program):
    """Why a process could not be started, in words."""
    exe = text(program)
    if exc.filename is not None and exc.filename != program:
        return "%s: %s" % (exc.strerror, text(exc.filename) if isinstance(exc.filename, bytes) else exc.filename)
    if exc.errno == errno.ENOENT:
        if os.path.exists(program):
            return "the interpreter that the first line of %s names does not exist" % exe
        return "no such executable: %s" % exe
    if exc.errno == errno.ENOEXEC:
        return "not a program: %s has no executable format and no '#!' first line" % exe
    if exc.errno == errno.EACCES:
        return "not executable (or a directory on the way cannot be entered): %s" % exe
    if exc.errno == errno.E2BIG:
        return "arguments and environment are longer than this system allows: %s" % exe
    return "cannot start %s: %s" % (exe, exc.strerror or exc)


def processes():
    """Pid -> (parent, group, session, start stamp) of every process here (Linux; elsewhere nothing)."""
    table = {}
    for name in os.listdir("/proc") if LINUX else ():
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    row = file.read()
            except OSError:
                continue
            rest = row[row.rindex(b")") + 2 :].split()
            if rest[0] not in b"ZX":
                table[int(name)] = (int(rest[1]), int(rest[2]), int(rest[3]), int(rest[19]))
    return table


def marker(pid):
    """The value of ASIM_JOB_ID in a process's environment, or None."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            for item in file.read().split(b"\0"):
                if item.startswith(b"ASIM_JOB_ID="):
                    return item[12:]
    except OSError:
        pass
    return None


def stamp(pid):
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            row = file.read()
        rest = row[row.rindex(b")") + 2 :].split()
        return None if rest[0] in b"ZX" else int(rest[19])
    except OSError:
        return None


def send(pid, number, group=False):
    try:
        (os.killpg if group else os.kill)(pid, number)
        return True
    except ProcessLookupError:
        return False
    except PermissionError:
        return True


def adopt_orphans():
    """Ask the kernel to make this process the parent of its descendants' orphans. True if it agreed."""
    try:
        import ctypes

        return LINUX and ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def strays(jobs, run):
    """Leader -> {pid: stamp} of the processes that belong to these jobs but are not in the leader's group."""
    table, leaders, found = processes() if jobs else {}, {job.pid: job for job in jobs}, {}
    for pid, (parent, group, session, when) in table.items():
        if group in leaders:
            continue
        owner, above = session if session in leaders else None, parent
        while owner is None and above in table and above != os.getpid():
            owner, above = above if above in leaders else None, table[above][0]
        if owner is None and above == os.getpid():  # an orphan that was handed to us: it still carries its job's mark
            name = marker(pid)
            owner = next((job.pid for job in jobs if name == raw("%s.%d" % (run, job.key))), None)
        if owner is not None:
            found.setdefault(owner, {})[pid] = when
    return found


def rescue(run, grace, leaders):
    """Stop all that an agent which died left behind: what carries its run in the environment, or is in a session of ``leaders``.

    A leader that is younger than this process has only got an old leader's number, and is left alone.
    """
    mine = stamp(os.getpid())
    kill_at, number = time.monotonic() + grace, signal.SIGTERM if grace > 0 else signal.SIGKILL
    while True:
        table = processes()
        sessions = {pid for pid in leaders if pid not in table or table[pid][3] <= mine}
        left = {pid for pid in table if table[pid][2] in sessions or (marker(pid) or b"").startswith(run + b".")}
        more = left
        while more:
            more = {pid for pid in table if table[pid][0] in left} - left
            left |= more
        if not left:
            return
        if number:
            for pid in left:
                send(pid, number)
                send(pid, signal.SIGCONT)
        late = time.monotonic() >= kill_at
        number = signal.SIGKILL if late else None
        time.sleep(0.02)  # they are nobody's children here: there is nothing to wait on
