"""What every contender measures, in the same way. Standard library only: it runs in the environments of the peers too.

A contender makes a :class:`Meter`, brings itself up, does its work inside ``with meter.timed():`` and calls ``emit``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time

TICK = os.sysconf("SC_CLK_TCK")


class Meter:
    """Reads the command line of a contender, times it, and prints what it found."""

    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("--n", type=int, required=True)
        parser.add_argument("--in-flight", type=int, required=True)
        parser.add_argument("--root", required=True)
        parser.add_argument("--launcher", default="local")
        parser.add_argument("argv", nargs="+")
        args = parser.parse_args()
        self.n, self.in_flight, self.root, self.argv = args.n, args.in_flight, args.root, args.argv
        self.launcher = args.launcher
        self.result = {"n": self.n}

    def directory(self, number):
        """The path of one member's directory."""
        return f"{self.root}/t{number}"

    def make(self, number):
        """Make one member's directory."""
        path = self.directory(number)
        os.mkdir(path)
        return path

    @contextlib.contextmanager
    def timed(self):
        """The part that counts: wall time, processor time and memory."""
        self.result["bring_up_s"] = age()
        before, cpu, begin = family(os.getpid()), time.process_time(), time.perf_counter()
        yield
        total, cpu = time.perf_counter() - begin, time.process_time() - cpu
        after = family(os.getpid())
        helpers = [pid for pid in after if pid != os.getpid()]
        self.result.update(
            total_s=total,
            driver_cpu_s=cpu,
            helpers_cpu_s=sum(after[pid][0] - before.get(pid, (0, 0))[0] for pid in helpers),
            tasks_cpu_s=sum(after[pid][1] - before.get(pid, (0, 0))[1] for pid in after),
            driver_rss_kb=peak(os.getpid()),
            helpers_rss_kb=sum(peak(pid) for pid in helpers),
            helpers=len(helpers),
        )

    def check(self, codes, out="t{}/out", err="t{}/err"):
        """Count the members that failed or left no files; ``codes`` are their exit codes."""
        bad = sum(code != 0 for code in codes)
        for number in range(self.n):
            files = (f"{self.root}/{name.format(number)}" for name in (out, err))
            bad += not all(map(os.path.exists, files))
        self.result["bad"] = bad

    def emit(self):
        print("RESULT " + json.dumps(self.result), flush=True)


def age():
    """Seconds since this process began, its interpreter's start and all imports included (to 10 ms)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(_stat("self")[19]) / TICK


def family(pid):
    """pid -> (own processor seconds, those of its children that were waited for), for a process and its descendants."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            row = _stat(name)
            if row is not None:
                table[int(name)] = row
    found, todo = {}, [pid]
    while todo:
        parent = todo.pop()
        if parent in table:
            fields = table[parent]
            found[parent] = (_own_seconds(parent, fields), (int(fields[13]) + int(fields[14])) / TICK)
        todo += [child for child, fields in table.items() if int(fields[1]) == parent and child not in found]
    return found


def _stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _own_seconds(pid, fields):
    """By the scheduler's clock in nanoseconds where the kernel keeps it, else in ticks."""
    seconds = 0.0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                seconds += int(file.read().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        seconds = 0.0
    return max(seconds, (int(fields[11]) + int(fields[12])) / TICK if not seconds else 0.0)


def peak(pid):
    """Peak resident memory of a process in KiB; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0
