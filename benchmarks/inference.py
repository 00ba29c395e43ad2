"""Inference in the database, beside a put of 1 KiB and beside the frameworks called in process. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import inference_inputs
import inference_large
import inference_tiny
import inference_upload
import inference_waiting
from harness import HERE, Row, machine
from inference_models import Store
from inference_table import goals

SECTIONS = {
    "tiny": ("Tiny models", inference_tiny),
    "large": ("A model of ResNet-50's size", inference_large),
    "waiting": ("MINBATCHSIZE and a lone client", inference_waiting),
    "inputs": ("Large inputs of a model that does nothing", inference_inputs),
    "upload": ("Uploads and cold starts", inference_upload),
}


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--rounds", type=int, default=9, help="how often everything is run; medians are shown")
    parser.add_argument("--seconds", type=float, default=0.25, help="how long clients are timed in a round")
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--models", type=Path, help="directory for the models, to be used again (default: a new one)")
    parser.add_argument("--output", type=Path, help="directory for results (default: benchmarks/results/<time>)")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(SECTIONS):
        parser.error(f"--only {unknown}: there are {', '.join(SECTIONS)}")
    if args.quick:
        args.rounds = min(args.rounds, 3)
    args.output = args.output or HERE / "results" / time.strftime("%Y%m%d-%H%M%S-inference")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args, skipped = options(argv), []
    args.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary, (args.output / "runs.jsonl").open("w") as file:
        about = {**machine(Path(temporary)), "rounds": args.rounds}
        print(json.dumps({"machine": about}), file=file)
        store = Store(args.models or Path(temporary))
        try:
            for name in args.only:
                for row in SECTIONS[name][1].measure(args, store, skipped):
                    rows.append({"section": name, **row})
                    print(json.dumps(rows[-1]), file=file, flush=True)
        except KeyboardInterrupt:
            skipped.append("what was to come after Ctrl-C")
    about["load at the end"] = os.getloadavg()[0]
    text = report(about, rows, skipped)
    (args.output / "report.md").write_text(text)
    print(text)
    print(f"results: {args.output}")


def report(about: Row, rows: Sequence[Row], skipped: Sequence[str]) -> str:
    """Everything, as text."""
    parts, lines = ["# asim: inference\n", *(f"- {key}: {value}" for key, value in about.items())], []
    for name, (title, section) in SECTIONS.items():
        mine = [row for row in rows if row["section"] == name]
        if mine:
            text, more = section.report([row for row in mine if "error" not in row])
            parts += [f"\n## {title}\n", text]
            lines += more
    parts += ["\n## Goals\n", goals(lines)]
    failed = sorted({f"- {row.get('case')}, {row.get('contender')}: {row['error']}" for row in rows if "error" in row})
    parts += ["\n## Failed\n", *failed] if failed else []
    parts += ["\n## Skipped\n", *(f"- {reason}" for reason in skipped)] if skipped else []
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
