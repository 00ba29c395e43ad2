"""asim's goals, each with what was measured here. Alone: ``python benchmarks/goals.py``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import report
from harness import HERE, Bench, Case, Row, bench, chosen, compare, machine, median
from peers import ASIM

SMALL, LARGE = Case(1000, "true", 8), Case(10_000, "true", 8)
HEAVY = ("numpy", "redis", "asyncssh", "psutil", "rich")
BARE = (
    "print('RESULT {\"kb\": %s}' % [line.split()[1] for line in open('/proc/self/status') if line[:6] == 'VmHWM:'][0])"
)

ENTITIES = "from asim import Ensemble, Experiment"
ENTERED = """
import asyncio, asim
async def main():
    async with asim.Experiment("bench"):
        pass
asyncio.run(main())
"""


@dataclass(frozen=True)
class Goal:
    """One goal: what was measured, in the unit of the limit."""

    name: str
    limit: float
    value: float
    unit: str
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit


def measure(place: Bench, rows: Sequence[Row], rounds: int) -> list[Goal]:
    """All goals. ``rows`` of a comparison are used if they have the cases that are needed, else those are run first."""
    needed = [case for case in (SMALL, LARGE) if len(chosen(rows, ASIM.name, case)) < rounds]
    rows = [*rows, *_compared(place, needed, rounds)]
    found = [*_scale(place, rows)]
    for group in (_notice, _first, _lag, _generate, _imports, _cancel):
        print(f"measuring: {group.__name__[1:]}", flush=True)
        found += group(place, rounds)
    return found


def _compared(place: Bench, cases: Sequence[Case], rounds: int) -> Iterator[Row]:
    for row in compare(place, cases, [ASIM], rounds, full=True):
        print(report.progress(row), flush=True)
        yield row


def _probe(place: Bench, name: str, n: int = 1) -> Row:
    command = [sys.executable, str(HERE / "probes.py"), name, "--root", "{root}", "--n", str(n)]
    found = place.call([*command, "--stamp", place.compiled("stamp"), "--launcher", place.launcher])
    if "error" in found:
        raise SystemExit(f"the probe {name} failed: {found['error']}")
    return found


def _scale(place: Bench, rows: Sequence[Row]) -> Iterator[Goal]:
    small, large = chosen(rows, ASIM.name, SMALL), chosen(rows, ASIM.name, LARGE)
    if not small or not large:
        raise SystemExit("asim could not run its ensembles; see above")

    def middle(found: Sequence[Row], key: str) -> float:
        return median(row[key] for row in found)

    ratio, more = middle(small, "ratio"), middle(large, "ratio")
    cold = median(2 * (row["total_s"] + row["bring_up_s"]) / (row["c_before_s"] + row["c_after_s"]) for row in small)
    note = f"{cold:.2f} with imports and bring-up"
    yield Goal("1,000 members, total, multiples of the C loop", 1.25, ratio, "x", note)
    raw = middle(large, "total_s") / middle(small, "total_s") / 10
    note = f"each as multiples of the C loop beside it; by the clock alone {raw:.2f}"
    yield Goal("10,000 members: a member's time beside that with 1,000", 1.10, more / ratio, "x", note)
    helpers = f"the agent's: {middle(small, 'helpers_cpu_s'):.3f}; with 10,000 the driver's: {middle(large, 'driver_cpu_s') / 10:.3f}"
    yield Goal("driver CPU for a member", 0.3, middle(small, "driver_cpu_s"), "ms", helpers)
    bare = median(place.call([sys.executable, "-c", BARE])["kb"] for _ in range(5))
    over = (middle(small, "driver_rss_kb") - bare) / 1024
    note = f"bare interpreter: {bare / 1024:.0f} MB; the agent: {middle(small, 'helpers_rss_kb') / 1024:.0f} MB"
    yield Goal("driver memory over a bare interpreter, 1,000 members", 40, over, "MB", note)
    each = (middle(large, "driver_rss_kb") - middle(small, "driver_rss_kb")) / (LARGE.n - SMALL.n)
    yield Goal("driver memory for each further member", 4, each, "KB")


def _notice(place: Bench, rounds: int) -> Iterator[Goal]:
    from probes import quantile

    found = [_probe(place, "notice", 60) for _ in range(rounds)]
    delays = [delay for one in found for delay in one["delays_ms"]]
    note = f"{len(delays)} single processes, max {max(delays):.2f}"
    yield Goal("end of a single process noticed after, median", 2, median(delays), "ms", note)
    yield Goal("end of a single process noticed after, p99", 10, quantile(delays, 0.99), "ms")
    yield Goal("one no-op model, start(block=True)", 60, median(ms for one in found for ms in one["noop_ms"]), "ms")


def _first(place: Bench, rounds: int) -> Iterator[Goal]:
    found = [_probe(place, "first")["first_ms"] for _ in range(3 * rounds + 1)][1:]
    note = f"{len(found)} fresh processes, max {max(found):.0f}"
    yield Goal("first process runs after start of a new Experiment", 100, median(found), "ms", note)


def _lag(place: Bench, rounds: int) -> Iterator[Goal]:
    from probes import quantile

    found = [_probe(place, "lag", SMALL.n) for _ in range(rounds)]
    busy, idle = ([late for one in found for late in one[key]] for key in ("busy_ms", "idle_ms"))
    over = sum(late > 5 for late in busy)
    note = f"p50 {median(busy):.2f}, max {max(busy):.1f}, {over} of {len(busy)} over 5"
    note += f"; idle: p99 {quantile(idle, 0.99):.2f}, max {max(idle):.1f}"
    yield Goal("event loop late while 1,000 members run, p99", 5, quantile(busy, 0.99), "ms", note)


def _generate(place: Bench, rounds: int) -> Iterator[Goal]:
    found = [_probe(place, "generate", SMALL.n) for _ in range(2 * rounds)]
    ratio = median(2 * one["generate_s"] / sum(one["bare_s"]) for one in found)
    note = f"{median(one['generate_s'] for one in found) * 1e3:.0f} ms"
    yield Goal("generate 1,000 members, multiples of the bare system calls", 2.5, ratio, "x", note)


def _imports(place: Bench, rounds: int) -> Iterator[Goal]:
    codes = ("pass", "import asim", "import asyncio", ENTITIES, ENTERED)
    times = [[_clock(place, code) * 1e3 for code in codes] for _ in range(1 + 5 * rounds)][1:]
    over, asyncio_, entities, entered = (median(row[index] - row[0] for row in times) for index in range(1, 5))
    note = f"asyncio alone {asyncio_:.0f}; with Experiment and Ensemble loaded {entities:.0f}; entered {entered:.0f}"
    yield Goal("import asim over a bare interpreter", 80, over, "ms", note)
    code = f"import sys, asim; print('RESULT ' + repr({{'found': [n for n in {HEAVY!r} if n in sys.modules]}}).replace(chr(39), chr(34)))"
    loaded = place.call([sys.executable, "-c", code])["found"]
    what = f"of {', '.join(HEAVY)}" + (f": {', '.join(loaded)}" if loaded else "")
    yield Goal("heavy modules that import asim loads", 0, len(loaded), "", what)


def _clock(place: Bench, code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=place.fresh())
    return time.perf_counter() - begin


def _cancel(place: Bench, rounds: int) -> Iterator[Goal]:
    found = [_probe(place, "cancel", 200)["cancel_s"] for _ in range(rounds)]
    yield Goal("cancel 200 running process groups, all reaped", 0.3, median(found), "s", f"max {max(found):.2f}")


def table(found: Sequence[Goal]) -> str:
    """The goals, as text."""
    headers = ["goal", "at most", "measured", "", "note"]
    lines = [
        [
            goal.name,
            f"{goal.limit:g} {goal.unit}",
            f"{goal.value:.4g} {goal.unit}",
            "met" if goal.met else "MISSED",
            goal.note,
        ]
        for goal in found
    ]
    return "\n## Goals\n\n" + report.markdown(headers, lines) + "\n"


def write(found: Sequence[Goal], folder: Path) -> None:
    """The goals, one JSON line each."""
    with (folder / "goals.jsonl").open("w") as file:
        for goal in found:
            print(json.dumps({**asdict(goal), "met": goal.met}), file=file)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", help="directory to run in (default: /dev/shm, else for temporary files)")
    parser.add_argument("--output", type=Path, help="directory for goals.jsonl (default: none is written)")
    parser.add_argument("--launcher", default="local", choices=["local"])
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one run")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    args = parser.parse_args(argv)
    with bench(args.root, args.timeout, args.launcher) as place:
        print(json.dumps(machine(place.root)))
        found = measure(place, [], args.rounds)
    print(table(found))
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        write(found, args.output)
    if args.strict and not all(goal.met for goal in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
