"""Tensor traffic: the engine beside plain SET and GET, asim's clients beside redis-py and SmartRedis. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tensor_table
from harness import HERE, Row, machine

sys.path.insert(0, str(HERE.parent))
from tests.servers import RedisServer
from tests.smartredis.caller import interpreter

SIZES = (1 << 10, 1 << 14, 1 << 16, 1 << 20, 1 << 24, 1 << 26)
LARGE = 1 << 24
"""From this size on, only every other round has it: it takes long, and varies less."""
MANY_CLIENTS, MANY_TASKS = 8, 32


@dataclass(frozen=True)
class Way:
    """One contender in one comparison.

    :ivar kind: of the processes, in :mod:`tensor_worker`.
    :ivar processes: how many at the same time.
    :ivar tasks: how many in each.
    """

    name: str
    kind: str
    processes: int = 1
    tasks: int = 1
    native: bool = False


@dataclass(frozen=True)
class Group:
    """What is run right after one another, because it is compared."""

    title: str
    size: int
    verb: str
    by: str
    ways: tuple[Way, ...]

    @property
    def in_flight(self) -> int:
        """How many tensors are on their way at the same time, at most."""
        return max(way.processes * way.tasks for way in self.ways)


ENGINE = [
    (
        f"engine, {n} client{'s'[: n > 1]}",
        (Way("AI.TENSOR*", "raw", n), Way("SET/GET", "raw", n, native=True)),
    )
    for n in (1, MANY_CLIENTS)
]
ONE = (Way("asim", "asim"), Way("asim-sync", "asim-sync"), Way("redis-py", "redis-py"), Way("smartredis", "smartredis"))
MANY = (
    Way("asim", "asim", tasks=MANY_TASKS),
    Way("redis-py", "redis-py", tasks=MANY_TASKS),
    Way("smartredis", "smartredis"),
    Way(f"smartredis x {MANY_CLIENTS}", "smartredis", MANY_CLIENTS),
)
GROUPS = [*ENGINE, ("clients, 1 task", ONE), (f"clients, {MANY_TASKS} tasks", MANY)]


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="bytes of a tensor, separated by commas")
    parser.add_argument(
        "--rounds",
        type=int,
        default=9,
        help=f"how often everything is run (from {LARGE} bytes on half as often); medians are shown",
    )
    parser.add_argument("--seconds", type=float, default=0.12, help="how long a contender is timed in a round")
    parser.add_argument("--quick", action="store_true", help="1 KiB, 64 KiB and 1 MiB, 3 rounds")
    parser.add_argument("--server", help="the server program (default: redis-server in PATH)")
    parser.add_argument("--only", default="", help="groups whose title has this text (engine, clients, 1 task, ...)")
    parser.add_argument("--most", type=int, default=1 << 30, help="skip what has more bytes than this in flight")
    parser.add_argument("--placement", choices=["apart", "together", "free"], default="apart",
        help="the server's core: not those of the clients, the same, or as the system likes; 8 processes: always free",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="directory for results (default: benchmarks/results/<time>)")
    args = parser.parse_args(argv)
    if args.quick:
        args.sizes, args.rounds = "1024,65536,1048576", min(args.rounds, 3)
    args.sizes = [int(word) for word in args.sizes.split(",")]
    if args.output is None:
        args.output = HERE / "results" / time.strftime("%Y%m%d-%H%M%S-tensors")
    return args


class Workers:
    """Processes of every kind, started when they are first needed.

    :param addresses: of the server, by the name of the transport.
    """

    def __init__(self, server: RedisServer, args: argparse.Namespace) -> None:
        self.addresses = {"UDS": f"unix://{server.socket}", "TCP": f"127.0.0.1:{server.port}"}
        self._server, self._args = server, args
        self._running: dict[str, list[subprocess.Popen[str]]] = {}
        self._cores = sorted(os.sched_getaffinity(0))

    def close(self) -> None:
        for process in (one for some in self._running.values() for one in some):
            process.communicate()

    def run(self, group: Group, way: Way) -> Row:
        """Time one contender once."""
        processes = self._of(way.kind, way.processes)
        cores = self._place(way)
        least = 2 if way.processes * way.tasks == 1 else 1
        for number, process in enumerate(processes):
            job = {
                "address": self.addresses[group.by], "size": group.size, "verb": group.verb, "tasks": way.tasks,
                "native": way.native, "key": f"{way.kind}.{way.native}.{number}", "cores": cores, "warm": 0.03,
                "seconds": self._args.seconds, "least": least,
            }  # fmt: skip
            assert process.stdin
            print(json.dumps(job), file=process.stdin, flush=True)
        return _together([self._answer(process) for process in processes])

    def _of(self, kind: str, count: int) -> list[subprocess.Popen[str]]:
        some = self._running.setdefault(kind, [])
        python = str(interpreter()) if kind == "smartredis" else sys.executable
        environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore",
                   "SR_LOG_LEVEL": "QUIET", "SR_LOG_FILE": os.devnull, "SR_SOCKET_TIMEOUT": "60000"}  # fmt: skip
        while len(some) < count:
            process = subprocess.Popen(
                [python, str(HERE / "tensor_worker.py"), kind],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ,
                start_new_session=True,
            )  # fmt: skip
            some.append(process)
        return some[:count]

    def _place(self, way: Way) -> list[int]:
        """Put the server where it belongs; returns the clients' cores."""
        first, *others = self._cores
        placement = self._args.placement if others and way.processes == 1 else "free"
        os.sched_setaffinity(self._server.pid, self._cores if placement == "free" else [first])
        return {"free": self._cores, "together": [first], "apart": others}[placement]

    def _answer(self, process: subprocess.Popen[str]) -> Row:
        assert process.stdout
        return dict(json.loads(process.stdout.readline() or '{"error": "the process has died"}'))


def _together(answers: Sequence[Row]) -> Row:
    """What all processes did from the first's beginning to the last's end."""
    for answer in answers:
        if "error" in answer:
            return {"error": answer["error"]}
    seconds = max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers)
    ops = sum(answer["ops"] for answer in answers)
    return {"ops_s": ops / seconds, "cpu_us": sum(answer["cpu_s"] for answer in answers) / ops * 1e6}


def plan(args: argparse.Namespace, skipped: list[str]) -> list[Group]:
    """Everything of a round, and why something is not in it."""
    python = interpreter()
    if python is None:
        skipped.append("SmartRedis: there is no Python with it (make smartredis, or ASIM_SMARTREDIS_PYTHON)")
    groups = []
    for title, ways in GROUPS:
        able = tuple(way for way in ways if python or way.kind != "smartredis")
        for size in args.sizes if args.only in title else ():
            group = [Group(title, size, verb, by, able) for verb in ("put", "get") for by in ("UDS", "TCP")]
            if group[0].in_flight * size <= args.most:
                groups += group
            else:
                reason = f"more than {args.most >> 20} MiB in flight (--most)"
                skipped.append(f"{title}, {tensor_table.named(size)}: {reason}")
    return groups


def rounds(workers: Workers, groups: Sequence[Group], count: int) -> Iterator[Row]:
    """Every group ``count`` times in shuffled order; its contenders, shuffled too, right after one another."""
    for number in range(count):
        shuffle = random.Random(number).shuffle
        order = [group for group in groups if group.size < LARGE or not number % 2]
        shuffle(order)
        for group in order:
            ways = list(group.ways)
            shuffle(ways)
            for way in ways:
                about = {"round": number, "group": group.title, "size": group.size, "verb": group.verb, "by": group.by}
                yield {**about, "contender": way.name, **workers.run(group, way)}


@contextmanager
def server(program: str | None) -> Iterator[RedisServer]:
    """A server with the engine, or the reason why there is none."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(RedisServer(program))
        except (StopIteration, FileNotFoundError) as exc:
            raise SystemExit(f"skipped: no server with the engine: {exc or 'no redis-server in PATH'}") from exc


def main(argv: Sequence[str] | None = None) -> None:
    args = options(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    skipped: list[str] = []
    groups, rows = plan(args, skipped), []
    with server(args.server) as running, (args.output / "runs.jsonl").open("w") as file:
        about = {**machine(running.directory), "server": running.version().split(" sha")[0].strip()}
        about |= {"placement": args.placement, "rounds": args.rounds}
        print(json.dumps({"machine": about}), file=file)
        workers = Workers(running, args)
        try:
            for row in rounds(workers, groups, args.rounds):
                rows.append(row)
                print(json.dumps(row), file=file, flush=True)
        except KeyboardInterrupt:
            skipped.append("what was to come after Ctrl-C")
        finally:
            workers.close()
    text = tensor_table.report(about, rows, skipped)
    (args.output / "report.md").write_text(text)
    print(text)
    print(f"results: {args.output}")


if __name__ == "__main__":
    main()
