"""Large ensembles: asim beside a C loop, stock asyncio and other launchers, on your own machine. See README.md here."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import goals
import report
from harness import Bench, Case, Contender, Row, bench, compare, machine
from peers import ASIM, ASYNCIO, installed, selected

SIZES = (200, 1000, 10_000)
DEFAULT = [*(Case(n, "true", 8) for n in SIZES), Case(200, "sleep:0.2", 16)]


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", help="numbers of members, separated by commas (default: the standard set of cases)")
    parser.add_argument("--task", help="what a member is: true, sleep:SECONDS, or a command line")
    parser.add_argument("--in-flight", type=int, help="how many members run at once")
    parser.add_argument("--launcher", default="local", choices=["local"], help="asim's launcher")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run; medians are shown")
    parser.add_argument("--peers", default="", help="all, or of executorlib,libensemble,parsl,psij-python,smartsim")
    parser.add_argument("--full-peers", action="store_true", help="slow peers, too, get all members and rounds")
    parser.add_argument(
        "--venvs", type=Path, default=Path.home() / ".cache/asim-bench", help="where peers are installed"
    )
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter for new environments of peers")
    parser.add_argument("--root", help="directory for the members (default: /dev/shm, else for temporary files)")
    parser.add_argument("--output", type=Path, help="directory for results (default: benchmarks/results/<time>)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one run of one contender")
    parser.add_argument("--no-goals", action="store_true", help="only the comparison")
    args = parser.parse_args(argv)
    if args.output is None:
        args.output = Path(__file__).parent / "results" / time.strftime("%Y%m%d-%H%M%S")
    return args


def cases(args: argparse.Namespace) -> list[Case]:
    """What to compare: the standard set, or what the options say."""
    if args.sizes is None and args.task is None and args.in_flight is None:
        return DEFAULT
    sizes = SIZES if args.sizes is None else [int(word) for word in args.sizes.split(",")]
    return [Case(n, args.task or "true", args.in_flight or 8) for n in sizes]


def run(place: Bench, wanted: Sequence[Case], contenders: Sequence[Contender], args: argparse.Namespace) -> list[Row]:
    """The comparison; every row is written as soon as it is there."""
    rows = []
    with (args.output / "runs.jsonl").open("w") as file:
        print(json.dumps({"machine": machine(place.root)}), file=file)
        for row in compare(place, wanted, contenders, args.rounds, args.full_peers):
            rows.append(row)
            print(json.dumps(row), file=file, flush=True)
            print(report.progress(row), flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    args = options(argv)
    wanted = cases(args)
    contenders = [ASIM, ASYNCIO, *installed(selected(args.peers), args.venvs.expanduser(), args.peer_python)]
    args.output.mkdir(parents=True, exist_ok=True)
    with bench(args.root, args.timeout, args.launcher) as place:
        rows = run(place, wanted, contenders, args)
        text = report.tables(machine(place.root), wanted, contenders, rows, args.full_peers)
        print(text)
        if not args.no_goals:
            found = goals.measure(place, rows, args.rounds)
            text += "\n" + goals.table(found)
            print(goals.table(found))
            goals.write(found, args.output)
    (args.output / "report.md").write_text(text)
    report.write_csv(rows, args.output / "runs.csv")
    plotted = report.plot(wanted, contenders, rows, args.output / "ensembles.png")
    print(f"results: {args.output}" + ("" if plotted else " (no plot: matplotlib is not installed)"))


if __name__ == "__main__":
    main()
