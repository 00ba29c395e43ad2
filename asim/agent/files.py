"""File actions: what the agent does to a file system, one batch at a time. Part of the agent program: standard library only."""

import base64
import collections
import errno
import os
import stat

from text import raw

CHUNK = 8 << 20  # bytes copied before the agent looks at its stream and its children again


class Files:
    """One batch of file actions, done a step at a time, so that exits and stops are never kept waiting."""

    def __init__(self):
        self.actions, self.complete, self.failed = collections.deque(), False, False
        self.done, self.verb, self.path, self.current, self.templates = 0, "", "", None, {}

    def add(self, actions, last):
        self.complete = last
        if not self.failed:
            self.actions.extend(actions)

    def idle(self):
        return self.current is None and not self.actions

    def step(self):
        if self.current is None:
            self.verb, *rest = self.actions.popleft()
            self.path = rest[0]
            if self.verb != "template" and not os.path.isabs(self.path):
                raise OSError(errno.EINVAL, "not an absolute path", self.path)
            self.current = getattr(self, "do_" + self.verb)(*rest)
        if self.current is None or next(self.current, self) is self:
            self.current = None
            self.done += 1

    def do_mkdir(self, path):
        os.mkdir(raw(path))

    def do_mkdirs(self, path):
        os.makedirs(raw(path), exist_ok=True)

    def do_write(self, path, content, mode=0o666):
        put(os.open(raw(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), raw(content))

    def do_template(self, _origin, number, parts):
        self.templates[number] = [raw(part) for part in parts]

    def do_render(self, path, number, values, mode):
        parts = list(self.templates[number])
        parts[1::2] = [raw(value) for value in values]
        put(os.open(raw(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), b"".join(parts))

    def do_append(self, path, content):
        put(os.open(raw(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666), raw(content))

    def do_data(self, path, content):
        """Append bytes that came in base 64."""
        put(os.open(raw(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666), base64.b64decode(content))

    def do_sync(self, path):
        """Wait until a file is on the disk."""
        fd = os.open(raw(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def do_symlink(self, path, target):
        os.symlink(raw(target), raw(path))

    def do_swap(self, path, new, old):
        """Put ``new`` at ``path``; what is there goes to ``old`` first ("": nothing is there). Both or neither."""
        if old:
            os.rename(raw(path), raw(old))
        try:
            os.rename(raw(new), raw(path))
        except OSError:
            if old:
                os.rename(raw(old), raw(path))
            raise

    def do_rename(self, path, source):
        os.rename(raw(source), raw(path))

    def do_remove(self, path):
        """Only what asim made for itself, by its name: no message, however broken, can remove anything else."""
        name = os.path.basename(path)
        if not (name.startswith(".") and "asim" in name):
            raise OSError(errno.EPERM, "only temporary files of asim are removed", path)
        return remove(raw(path))

    def do_copy(self, path, source):
        return copy(raw(source), raw(path))


class Batches:
    """Every batch that is not finished, by its number; ``tell`` sends a message."""

    def __init__(self, tell):
        self.tell, self.known = tell, {}

    def add(self, number, actions, last):
        batch = self.known.setdefault(number, Files())
        batch.add(actions, last)
        if batch.idle():  # it failed before this part came, or there was nothing in it
            self.done(number, batch, None)

    def forget(self):
        """Nobody will send the rest: only what is complete is finished."""
        self.known = {number: batch for number, batch in self.known.items() if batch.complete}

    def next(self):
        return next((number for number, batch in self.known.items() if not batch.idle()), None) if self.known else None

    def step(self, number):
        batch, error = self.known[number], None
        try:
            batch.step()
        except OSError as exc:
            error = [exc.errno, exc.strerror or str(exc), batch.path, batch.verb]
        except Exception as exc:  # a broken action, or a tree that is too deep: the batch's error, not all jobs' end
            error = [errno.EINVAL, "%s: %s" % (type(exc).__name__, exc), str(batch.path), batch.verb]
        if error or batch.idle():
            self.done(number, batch, error)

    def done(self, number, batch, error):
        """Tell how a batch ended: at its first error, or when its last part is done. Parts that come after an error are dropped."""
        if error:
            batch.failed, batch.current = True, None
            batch.actions.clear()
        if batch.complete:
            del self.known[number]
        if error or (batch.complete and not batch.failed):
            self.tell("files", number, batch.done, error)


def put(fd, data):
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def remove(path):
    """Remove a file or a whole directory; one that is not there is fine. Links are removed, never followed."""
    stack = [path]
    while stack:
        try:
            if not stat.S_ISDIR(os.lstat(stack[-1]).st_mode):
                os.unlink(stack.pop())
                continue
            inner = [os.path.join(stack[-1], name) for name in os.listdir(stack[-1])]
            if not inner:
                os.rmdir(stack.pop())
            stack += inner
        except FileNotFoundError:
            stack.pop()
        yield


def copy(source, target):
    """A file to a new file with its mode, a link as a link; a directory's contents merged into ``target``."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(mode):
        fresh = not os.path.isdir(target)
        os.makedirs(target, exist_ok=True)
        for name in sorted(os.listdir(source)):
            yield from copy(os.path.join(source, name), os.path.join(target, name))
            yield
        if fresh:
            os.chmod(target, stat.S_IMODE(mode))
    elif stat.S_ISREG(mode):
        yield from copy_bytes(source, target, stat.S_IMODE(mode))
    else:
        raise OSError(errno.EINVAL, "not a file, directory or link", source)


def copy_bytes(source, target, mode):
    """``copy_file_range`` where there is one (a file system that shares blocks then copies nothing), else read and write."""
    src = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        dst = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode | stat.S_IWUSR)
        try:
            kernel = hasattr(os, "copy_file_range")
            while True:
                try:
                    count = os.copy_file_range(src, dst, CHUNK) if kernel else os.write(dst, os.read(src, CHUNK))
                except OSError as exc:
                    if not kernel or exc.errno not in (
                        errno.EXDEV,
                        errno.EINVAL,
                        errno.ENOSYS,
                        errno.EOPNOTSUPP,
                        errno.EBADF,
                    ):
                        raise
                    kernel = False
                    continue
                if not count:
                    break
                yield
            os.fchmod(dst, mode)
        finally:
            os.close(dst)
    finally:
        os.close(src)
