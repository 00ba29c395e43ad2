"""Simulations write samples to a database; meanwhile a network learns from them, and they use what it has learned.

Run it with ``python examples/online_training/train.py``; ``--help`` tells the options.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import torch  # type: ignore[import-not-found, unused-ignore]
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
except ImportError as problem:
    sys.exit(f"{problem.name} is not installed. Install it with: {sys.executable} -m pip install 'asim[demo,torch]'")

from asim import Client, DatabaseTimeout, Experiment, JobGroup, MLModel, Orchestrator
from asim.ml import DataDownloader, DataInfo
from asim.ml.torch import serialize_model

SIMULATION = Path(__file__).with_name("pendulum.py")
ANGLES = [30, 60, 90, 120]  # the ensemble: how far each member deflects its pendulums at most, in degrees
UPLOAD_EVERY = 1.0  # seconds
LAST_EPOCHS = 10  # when all samples are there, with smaller steps
BATCH = 500
STEPS = DataInfo("steps")  # what the simulations call their samples

Array = NDArray[np.float64]
console = Console()


# -- learning


class Trainer:
    """A network, how it is trained, and what happened: seconds, samples and loss of each epoch, seconds of each upload."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        torch.set_num_threads(1)  # the other cores are for the simulations
        layers = [
            torch.nn.Linear(6, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 4),
        ]
        self.network = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=3e-3)
        self.epochs: list[tuple[float, int, float]] = []
        self.uploads: list[float] = []

    def step(self, samples: Any, targets: Any) -> float:
        """Learn from one batch; its loss, relative to the size of what is to be predicted."""
        samples, targets = torch.from_numpy(samples), torch.from_numpy(targets)
        loss = ((self.network(samples) - targets) ** 2).mean() / (targets**2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def model(self) -> MLModel:
        """The network as it is now, for the database."""
        return MLModel(name="surrogate", backend="TORCH", source=serialize_model(self.network))

    async def epoch(self, data: DataDownloader) -> None:
        """Every sample that has come so far, once, in an order of its own."""
        losses = []
        async for samples, targets in data:
            losses.append(self.step(samples, targets))
            await asyncio.sleep(0)  # a turn for everything else that this program does
        self.epochs.append((time.time(), data.num_samples, float(np.mean(losses))))


# -- the experiment: this is all there is to asim


async def study(results: Path, batches: int) -> tuple[Trainer, dict[str, Array]]:
    """Run the simulations and train; returns the trainer, and what each member found: seconds and losses."""
    trainer = Trainer()
    async with Experiment("online-training", results) as exp:
        database = exp.create_database(port=0, intra_op_threads=1)
        settings = exp.create_run_settings(
            sys.executable, [str(SIMULATION), f"--batches={batches}"], env_vars={"OMP_NUM_THREADS": 1}
        )
        pendulums = exp.create_ensemble(
            "pendulum",
            params_as_args={"angle": ANGLES, "rank": range(len(ANGLES))},
            run_settings=settings,
            perm_strategy="step",
        )
        pendulums.disable_key_prefixing()  # names with a rank in them are enough
        pendulums.add_object(trainer.model())  # in the database before the first member starts; it knows nothing yet
        await exp.generate(database, pendulums, overwrite=True)
        await exp.start(database)
        group = await exp.start(pendulums, block=False)

        async with exp.client() as client, DataDownloader(STEPS, BATCH, client=client, seed=1) as data:
            try:
                await data.init_samples(timeout=60)
            except DatabaseTimeout:
                sys.exit(complain(group))
            with console.status("") as status:
                while not group.done:
                    await trainer.epoch(data)
                    status.update(f"{data.num_samples:,} samples, loss {trainer.epochs[-1][2]:.4f}")
                    if time.time() > (trainer.uploads or [0])[-1] + UPLOAD_EVERY:
                        await upload(exp, database, trainer)
                trainer.optimizer.param_groups[0]["lr"] /= 10
                for _ in range(LAST_EPOCHS):
                    await trainer.epoch(data)
            await upload(exp, database, trainer)
            if group.failed:
                sys.exit(complain(group))
            return trainer, await collect(client, group, results)


async def upload(exp: Experiment, database: Orchestrator, trainer: Trainer) -> None:
    """Replace the network in the database: the next run of a member uses this one."""
    await exp.upload(database, trainer.model(), replace=True)
    trainer.uploads.append(time.time())


async def collect(client: Client, group: JobGroup, results: Path) -> dict[str, Array]:
    """What the members found, and the network, out of the database before it ends."""
    (results / "surrogate.pt").write_bytes(await client.get_model("surrogate"))
    return {job.name: await client.get_tensor(f"checks_{rank}") for rank, job in enumerate(group)}


# -- what came of it


def complain(group: JobGroup) -> str:
    """Why there is nothing to learn from."""
    if not group.failed:
        return "The simulations sent no samples in time."
    job = group.failed[0]
    tail = job.stderr.read_text(errors="replace").splitlines()[-10:] if job.stderr.exists() else []
    return "\n".join([f"{job.name}: {job.status}, {job.reason}", *tail])


def show(trainer: Trainer, members: dict[str, Array]) -> None:
    """Print a line for every member, and one for the trainer."""
    table = Table("", "Largest angle", "Samples", "First loss", "Last loss")
    last = trainer.epochs[-1]
    for (name, checks), angle in zip(members.items(), ANGLES, strict=True):
        samples = f"{last[1] * len(checks) // sum(map(len, members.values())):,}"
        table.add_row(name, f"{angle}°", samples, f"{checks[0, 1]:.4f}", f"{np.mean(checks[-5:, 1]):.4f}")
    table.add_row("trainer", "", f"{last[1]:,}", f"{trainer.epochs[0][2]:.4f}", f"{last[2]:.4f}")
    console.print(table)
    console.print(
        f"{len(trainer.epochs)} epochs; {len(trainer.uploads)} times the network in the database was replaced."
    )


def plot(path: Path, trainer: Trainer, members: dict[str, Array]) -> None:
    """The loss, as the trainer and the members see it, and the number of samples, against time."""
    figure = Figure(figsize=(8, 6), layout="constrained")  # without pyplot it needs no display
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    begin = min(checks[0, 0] for checks in members.values())
    seconds, samples, losses = np.array(trainer.epochs).T
    colours = ["#440154", "#31688e", "#35b779", "#e0a800"]
    for colour, angle, checks in zip(colours, ANGLES, members.values(), strict=True):
        above.plot(checks[:, 0] - begin, checks[:, 1], ".", color=colour, alpha=0.7, label=f"in use, up to {angle}°")
    above.plot(seconds - begin, losses, "-", color="black", label="training")
    above.set(yscale="log", ylabel="Loss", title="A network that learns from simulations while they use it")
    above.legend(ncols=2)
    below.step(seconds - begin, samples, where="post", color="black")
    for number, moment in enumerate(trainer.uploads):
        below.axvline(moment - begin, color="#cccccc", zorder=0, label=None if number else "network uploaded")
    below.set(xlabel="Seconds", ylabel="Samples", ylim=(0, None))
    below.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Read the command line, run the study, show what came of it."""
    parser = argparse.ArgumentParser(description="Simulations and a network that learns from them, run by asim.")
    parser.add_argument("--batches", type=int, default=80, metavar="N", help="of each member (default: %(default)s)")
    parser.add_argument(
        "--results", type=Path, default=Path("online-training"), metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    if options.batches < 5:
        parser.error("argument --batches: must be 5 or more")

    trainer, members = asyncio.run(study(options.results, options.batches))
    show(trainer, members)
    plot(options.results / "loss.png", trainer, members)
    (options.results / "trained.pt").write_bytes(serialize_model(trainer.network))
    print(f"The results are in {options.results.resolve()}:")
    print("  loss.png        the loss of the network, in training and in use, and the number of samples")
    print("  surrogate.pt    the network, as it was in the database at the end")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C: the experiment has stopped everything on the way out
        sys.exit("Interrupted. Nothing is left running.")
