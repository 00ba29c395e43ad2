"""A sweep of LAMMPS with a database beside it: the members stream what they see, and a network learns from it.

1. Twelve crystals with different temperatures and densities run in LAMMPS. Every few steps each sends its temperature,
   pressure and energy into the database.
2. The driver fits a small network to all that, and uploads it as ONNX.
3. Six more crystals, which the network has not seen, run in LAMMPS. At every step that they send, they ask the network
   what it expects. It is evaluated in the database.

Run it with ``python examples/lammps_sweep/sweep.py``; ``--help`` tells the options. It is the same script on a cluster
(``--launcher slurm``: each member is a task of a batch array) and on another machine (``--host``).
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

from asim import AsimError, BatchSettings, Client, Ensemble, Experiment, RunSettings, SSHOptions

HERE = Path(__file__).resolve().parent
DECK = HERE / "in.melt"
PROGRAM = [HERE / "member.py", HERE / "surrogate.py"]  # copied into the directory of each member, wherever that is
FETCHED = ["*.out", "*.err", "log.lammps"]  # what comes back from another machine

# Lists are expanded: every TEMP with every RHO. Single values go to all members.
TO_LEARN = {"TEMP": [0.75, 1.5, 2.25, 3.0], "RHO": [0.75, 0.85, 0.95]}  # initial temperature and density: 12 members
TO_CHECK = {"TEMP": [1.1, 1.9, 2.6], "RHO": [0.8, 0.9]}  # 6 members in between
FOR_ALL = {"SIZE": 6, "THERMO": 10, "STEPS": 500, "run": 0}  # member.py makes the steps, so that the deck "runs" none
SAMPLES = FOR_ALL["STEPS"] // FOR_ALL["THERMO"] + 1  # that each member sends


async def sweep(options: argparse.Namespace) -> None:
    """Run both ensembles with a database; the results are in the directory ``options.results`` here."""
    results: Path = options.results
    ssh = SSHOptions(python=options.python, fetch=FETCHED) if options.host else None
    async with Experiment(
        "lammps-sweep",
        options.exp_path,
        options.launcher,
        max_concurrent=options.max_concurrent,
        host=options.host,
        ssh=ssh,
    ) as exp:
        database = exp.create_database(port=0, interface=options.interface)
        learn = ensemble(exp, "melt", TO_LEARN, options)
        check = ensemble(exp, "check", TO_CHECK, options)
        await exp.generate(database, learn, check, overwrite=True)  # melt/melt_0/in.melt and so on
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
    report(results, learned, checked, (temp, rho, surface.reshape(*temp.shape, 2)), place(exp, options))


def ensemble(exp: Experiment, name: str, params: dict[str, list[float]], options: argparse.Namespace) -> Ensemble:
    """Members that each run ``python member.py --TEMP=... --RHO=...``, with a run command before it for several ranks."""
    members = exp.create_ensemble(
        name,
        {**params, **FOR_ALL},
        params_as_args=["TEMP", "RHO", "THERMO", "STEPS"],
        run_settings=run_settings(exp, options),
        batch_settings=batch_settings(exp, options.ranks),
        pack="array",
    )
    members.attach_generator_files(to_copy=PROGRAM, to_configure=DECK)
    for member in members:
        member.register_incoming_entity(member)  # it reads its own tensors, too
    return members


def run_settings(exp: Experiment, options: argparse.Namespace) -> RunSettings:
    """What a member runs: this Python, or the one of the other machine; with ``mpiexec -n 2``, say, or ``srun``."""
    command = "" if options.ranks == 1 else "auto" if exp.launcher != "local" else program("mpiexec", options)
    env = {"OMP_NUM_THREADS": 1, "LD_LIBRARY_PATH": libraries(options)}
    settings = exp.create_run_settings(options.python, ["member.py"], run_command=command, env_vars=env)
    if options.ranks > 1:
        settings.set_tasks(options.ranks)
    return settings


def batch_settings(exp: Experiment, ranks: int) -> BatchSettings | None:
    """What a scheduler is asked for on behalf of each member; without one there is nobody to ask."""
    if exp.launcher == "local":
        return None
    return exp.create_batch_settings(batch_args={"ntasks": ranks} if ranks > 1 else None)


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
        sys.exit(await complain(exp, group))
    streams = await asyncio.gather(*map(client.get_datasets_from_list, lists))
    return [Member(record, stream) for record, stream in zip(group.records(), streams, strict=True)]


async def ask(client: Client, questions: Array) -> Array:
    """Evaluate the network in the database, for any number of cases at once."""
    await client.put_tensor("questions", questions)
    await client.run_model("surrogate", ["questions"], ["answers"])
    return await client.get_tensor("answers")


# -- where things are


def program(name: str, options: argparse.Namespace) -> str:
    """The path of a program: beside the Python of the members, where pip puts it, or in PATH."""
    beside = Path(options.python).parent
    if options.host:
        return str(beside / name)
    path = shutil.which(name, path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    if path is None:
        sys.exit(f"The program {name} was not found. Install it with: {options.python} -m pip install mpich")
    return path


def libraries(options: argparse.Namespace) -> str:
    """Where the library of LAMMPS finds that of MPI, which pip puts into ``lib`` of the environment."""
    inherited = None if options.host else os.environ.get("LD_LIBRARY_PATH")
    return os.pathsep.join(filter(None, [inherited, str(Path(options.python).parent.parent / "lib")]))


def place(exp: Experiment, options: argparse.Namespace) -> str:
    """Where the files of the members are, in words; "" if that is with the results."""
    if options.host:
        return f"{exp.exp_path} on {options.host}; their output files and logs also in {exp.local_path}"
    return "" if exp.exp_path == os.path.abspath(options.results) else exp.exp_path


def main() -> None:
    """Read the command line, run the sweep, show what came of it."""
    options = arguments().parse_args()
    options.exp_path = options.exp_path or (None if options.host else options.results)
    wanted = ("onnx",) if options.host else ("lammps", "onnx", "onnxruntime")
    if absent := [name for name in wanted if find_spec(name) is None]:
        names = " ".join(absent).replace("lammps", "lammps mpich")
        sys.exit(f"Not installed: {', '.join(absent)}. Install with: {sys.executable} -m pip install {names}")
    if options.launcher == "local" and not options.host and options.max_concurrent is None:
        options.max_concurrent = max(1, len(os.sched_getaffinity(0)) // options.ranks)
    options.results.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(sweep(options))
    except AsimError as error:
        sys.exit(str(error))


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="A sweep of LAMMPS, run by asim, with a database and a network.")
    add = parser.add_argument
    add("--ranks", type=count, default=1, metavar="N", help="MPI ranks of each member (default: 1)")
    add("--max-concurrent", type=count, metavar="N", help="members at a time (default: cores / ranks; elsewhere all)")
    add("--results", type=Path, default=Path("lammps-sweep"), metavar="DIR", help="default: %(default)s")
    add("--launcher", default="local", metavar="NAME", help="local, slurm, pbs, lsf, sge or auto (default: local)")
    add("--host", metavar="USER@HOST", help="run there, over SSH; a name of ~/.ssh/config will do")
    add("--exp-path", metavar="DIR", help="where members run (default: DIR of --results; with --host: ~/lammps-sweep)")
    add("--python", default=sys.executable, metavar="PATH", help="with asim and LAMMPS, there (default: as here)")
    add("--interface", default="lo", metavar="NAME", help="of the database; on a cluster its network (default: lo)")
    return parser


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
