"""A member of the ensemble: double pendulums, simulated with numpy. Every step of each is one sample for the trainer.

Before a batch is given away, the network in the database predicts it: it has never seen these samples, so that is a fair
test of how good it is by now.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from asim import SyncClient
from asim.ml import SyncTrainingDataUploader

Array = NDArray[np.float64]
INTERVAL = 0.3  # what the network predicts: how a pendulum moves in this time, in units of sqrt(length / gravity)


def rates(state: Array) -> Array:
    """Time derivatives of the angles and angular velocities of double pendulums with equal arms and masses."""
    a, b, u, v = state
    sine, cosine = np.sin(a - b), np.cos(a - b)
    inertia = 3 - np.cos(2 * (a - b))
    du = -3 * np.sin(a) - np.sin(a - 2 * b) - 2 * sine * (v**2 + u**2 * cosine)
    dv = 2 * sine * (2 * u**2 + 2 * np.cos(a) + v**2 * cosine)
    return np.stack([u, v, du / inertia, dv / inertia])


def advance(state: Array, steps: int = 400) -> Array:
    """The state one interval later, by the method of Runge and Kutta."""
    step = INTERVAL / steps
    for _ in range(steps):
        k1 = rates(state)
        k2 = rates(state + step / 2 * k1)
        k3 = rates(state + step / 2 * k2)
        k4 = rates(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def features(state: Array) -> NDArray[np.float32]:
    """What the network is given of each pendulum: cosines and sines of its angles, and its angular velocities."""
    return np.stack([*np.cos(state[:2]), *np.sin(state[:2]), *state[2:]], axis=1).astype(np.float32)


def main(angle: float, rank: int, batches: int, pendulums: int) -> None:
    """Simulate, and send a batch of samples after each interval."""
    random = np.random.default_rng(rank)
    samples_key, guess_key = f"samples_{rank}", f"guess_{rank}"
    state = np.concatenate([random.uniform(-1, 1, (2, pendulums)) * np.radians(angle), np.zeros((2, pendulums))])
    checks = []
    with SyncClient.from_env() as client, SyncTrainingDataUploader("steps", rank=rank, client=client) as uploader:
        for _ in range(batches):
            later = advance(state)
            samples, targets = features(state), (later - state).T.astype(np.float32)
            client.put_tensor(samples_key, samples)
            client.run_model("surrogate", inputs=[samples_key], outputs=[guess_key])
            wrong = client.get_tensor(guess_key) - targets
            checks.append((time.time(), np.mean(wrong**2) / np.mean(targets**2)))
            uploader.put_batch(samples, targets)
            state = later
        client.put_tensor(f"checks_{rank}", np.array(checks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--angle", type=float, help="largest angle at the beginning, in degrees")
    parser.add_argument("--rank", type=int, help="number of this member, from 0")
    parser.add_argument("--batches", type=int, help="how many intervals are simulated")
    parser.add_argument("--pendulums", type=int, default=150, help="samples in each batch (default: %(default)s)")
    chosen = parser.parse_args()
    main(chosen.angle, chosen.rank, chosen.batches, chosen.pendulums)
