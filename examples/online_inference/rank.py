"""One rank: some rows of the grid. It gets the rows next to them from its neighbours, through the database."""

import argparse
import time

import numpy as np
from case import CELLS, FLOW, PUFFS, STEPS
from closure import learned
from solver import HALO, Array, advance, fluxes, limited, smoke, upwind

from asim import SyncClient

WAIT = 60  # seconds, for a neighbour


class Rank:
    """Its place among the ranks, and its client.

    :ivar name: under which it stores what others read, e.g. "network_0"; its key prefix.
    """

    def __init__(self, client: SyncClient, scheme: str, rank: int, ranks: int) -> None:
        self.client, self.name = client, f"{scheme}_{rank}"
        self.before, self.after = f"{scheme}_{(rank - 1) % ranks}", f"{scheme}_{(rank + 1) % ranks}"
        self.rows = slice(CELLS // ranks * rank, CELLS // ranks * (rank + 1))
        self.scheme = {"upwind": upwind, "limited": limited, "network": learned(self.ask)}[scheme]

    def ask(self, questions: Array) -> Array:
        """Evaluate the network in the database, for all faces of this rank at once."""
        self.client.set_data_source(self.name)
        with self.client.pipeline() as pipe:
            pipe.put_tensor("questions", questions)
            pipe.run_model("closure", ["questions"], ["answers"])
            answers = pipe.get_tensor("answers")
        return answers.value

    def surround(self, field: Array, step: int) -> Array:
        """The field with a halo: rows of the neighbours on two sides; its own other end on the other two."""
        self.client.put_tensor(f"first_{step}", field[:HALO])
        self.client.put_tensor(f"last_{step}", field[-HALO:])
        rows = [self.fetch(self.before, f"last_{step}"), field, self.fetch(self.after, f"first_{step}")]
        return np.pad(np.concatenate(rows), ((0, 0), (HALO, HALO)), mode="wrap")

    def fetch(self, source: str, name: str) -> Array:
        """What another rank has put, or will put."""
        self.client.set_data_source(source)
        self.client.wait_for_tensor(name, WAIT)
        return self.client.get_tensor(name)

    def run(self) -> None:
        """All steps. The fields at half time and at the end, and the seconds that it took, stay in the database."""
        field = smoke(CELLS, PUFFS)[self.rows]
        padded = self.surround(field, 0)  # when this is done, all are there
        began = time.perf_counter()
        for step in range(1, STEPS + 1):
            courant = FLOW.courant(self.rows, CELLS, (step - 0.5) / STEPS, 1 / STEPS)
            field = advance(padded, fluxes(padded, courant, self.scheme))
            padded = self.surround(field, step)
            if step in (STEPS // 2, STEPS):
                self.client.put_tensor(f"field_{step}", field)
            self.client.put_tensor("step", np.array([step]))
        self.client.put_tensor("seconds", np.array([time.perf_counter() - began]))


def main() -> None:
    """Read the arguments, which are the parameters of the ensemble."""
    parser = argparse.ArgumentParser()
    for name, kind in {"scheme": str, "rank": int, "ranks": int}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    with SyncClient.from_env() as client:
        Rank(client, given.scheme, given.rank, given.ranks).run()


if __name__ == "__main__":
    main()
