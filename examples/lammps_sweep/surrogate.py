"""The surrogate: a small network that answers what LAMMPS would find, in a millisecond."""

from typing import Any, TypeAlias

import numpy as np

from asim.ml.onnx import mlp

Array: TypeAlias = np.ndarray[Any, Any]
HIDDEN = 200
SLOPES = 0.7, 0.7, 5.0  # how fast the hidden layer varies with each input; most with time
RIDGE = 0.1  # keeps the last layer from following the noise


def question(temp: float | Array, rho: float | Array, step: float | Array) -> Array:
    """The inputs of the network, one row for each case: initial temperature, density, and the logarithm of the step.

    (The logarithm, as most happens at the beginning.)
    """
    columns = np.broadcast_arrays(temp, rho, np.log1p(np.asarray(step) / 5))
    return np.stack(columns, axis=-1).reshape(-1, 3).astype(np.float32)


def fit(inputs: Array, outputs: Array, seed: int = 1) -> bytes:
    """A network for some cases, as ONNX.

    Its first layer is random, and its last one is what least squares say (an "extreme learning machine"): that takes
    milliseconds, and needs no framework.

    :param inputs: shape (cases, 3), see :func:`question`.
    :param outputs: shape (cases, results).
    """
    random = np.random.default_rng(seed)
    low, high = inputs.min(axis=0), inputs.max(axis=0)
    weights = random.normal(size=(3, HIDDEN)) * np.array(SLOPES)[:, None]
    biases = random.uniform(-1, 1, HIDDEN) * (1 + max(SLOPES))
    # inputs are scaled to -1 ... 1, and outputs to spread 1: both become part of the layers
    weights, biases = weights * (2 / (high - low))[:, None], biases - (high + low) / (high - low) @ weights
    mean, spread = outputs.mean(axis=0), outputs.std(axis=0)

    hidden = np.tanh(inputs @ weights + biases)
    hidden = np.column_stack([hidden, np.ones(len(hidden))])
    matrix = hidden.T @ hidden + RIDGE * np.eye(HIDDEN + 1)
    last = np.linalg.solve(matrix, hidden.T @ ((outputs - mean) / spread)) * spread
    return mlp([weights, last[:-1]], [biases, last[-1] + mean], activation="tanh")
