"""The network: from the cells around a face to what passes it, learned from runs on a finer grid.

What a cell has inside is lost on a coarse grid. The network has seen on the fine one what usually is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from solver import HALO, Array, Flow, Scheme, advance, coarsen, fluxes, limited, smoke, stencils

from asim.ml.onnx import mlp

FINER = 4  # how much finer the grid is that it learns from, in each direction and in time
HIDDEN = 64
SLOPE = 2.0  # how fast the hidden layer varies
RIDGE = 1e-3
SMALL = 1e-6

Evaluate = Callable[[Array], Array]
"""What evaluates the network: inputs, shape (n, 4), to outputs, shape (n, 1)."""


def inputs(cells: Array, courant: Array) -> tuple[Array, Array]:
    """What the network gets, shape (faces, 4), and the scale of the concentrations at each face.

    It sees differences between cells as fractions of the largest one, so that what it learned holds for any amount of
    smoke; and how much passes.
    """
    scale = np.ptp(cells, axis=0)
    differences = (cells[[0, 2, 3]] - cells[1]) / np.maximum(scale, SMALL)
    return np.stack([*differences, np.abs(courant)], axis=1).astype(np.float32), scale


def learned(evaluate: Evaluate) -> Scheme:
    """The scheme that asks the network. What passes is kept between what is in the cells on both sides of the face."""

    def scheme(cells: Array, courant: Array) -> Array:
        questions, scale = inputs(cells, courant)
        value = cells[1] + scale * evaluate(questions)[:, 0]
        kept: Array = np.clip(value, np.minimum(cells[1], cells[2]), np.maximum(cells[1], cells[2]))
        return kept

    return scheme


def examples(flow: Flow, field: Array, steps: int, last: int) -> Iterator[tuple[Array, Array, Array]]:
    """Run on the fine grid; of every third coarse step what the network would get, should answer, and how much it matters.

    :param field: the initial concentration, on the fine grid.
    :param steps: the coarse steps from time 0 to 1.
    :param last: how many of them are run.
    """
    fine = len(field)
    cells = fine // FINER
    for number in range(last):
        before, passed = field, (np.zeros((fine + 1, fine)), np.zeros((fine, fine + 1)))
        for part in range(FINER):
            time = (number + (part + 0.5) / FINER) / steps
            flux = fluxes(
                np.pad(field, HALO, mode="wrap"), flow.courant(slice(0, fine), fine, time, 1 / steps / FINER), limited
            )
            field = advance(np.pad(field, HALO, mode="wrap"), flux)
            passed = passed[0] + flux[0], passed[1] + flux[1]
        if number % 3 == 0:
            courant = flow.courant(slice(0, cells), cells, (number + 0.5) / steps, 1 / steps)
            around, flat = stencils(np.pad(coarsen(before, FINER), HALO, mode="wrap"), courant)
            yield _pairs(around, flat, coarse_flux(passed))


def coarse_flux(passed: tuple[Array, Array]) -> Array:
    """What passed the faces of the coarse grid, of what passed those of the fine one; flat."""
    across_x, across_y = passed[0][::FINER], passed[1][:, ::FINER]
    sums = (
        across_x.reshape(len(across_x), -1, FINER).sum(axis=2),
        across_y.reshape(-1, FINER, across_y.shape[1]).sum(axis=1),
    )
    return np.concatenate([one.ravel() for one in sums]) / FINER**2


def _pairs(cells: Array, courant: Array, flux: Array) -> tuple[Array, Array, Array]:
    questions, scale = inputs(cells, courant)
    weight = np.abs(courant) * scale
    matters = (scale > 1e-3) & (np.abs(courant) > 1e-3)  # elsewhere there is nothing to learn
    answers = (flux[matters] / courant[matters] - cells[1, matters]) / scale[matters]
    return questions[matters], answers, weight[matters]


def fit(pairs: list[tuple[Array, Array, Array]], seed: int = 0) -> bytes:
    """A network for these pairs, as ONNX: its first layer is random, its last one what weighted least squares say."""
    questions, answers, weight = (np.concatenate(column) for column in zip(*pairs, strict=True))
    random = np.random.default_rng(seed)
    weights, biases = random.normal(size=(4, HIDDEN)) * SLOPE, random.uniform(-SLOPE, SLOPE, HIDDEN)
    hidden = np.column_stack([np.tanh(questions @ weights + biases), np.ones(len(questions))])
    matrix = (hidden * weight[:, None]).T @ hidden + RIDGE * np.eye(HIDDEN + 1)
    last = np.linalg.solve(matrix, hidden.T @ (weight * answers))
    return mlp([weights, last[:-1, None]], [biases, last[-1:]], activation="tanh")


def learn(cells: int, steps: int, runs: int = 3) -> bytes:
    """Run some random flows on the fine grid, and fit the network to them.

    :param cells: along each side of the coarse grid.
    :param steps: the coarse steps from time 0 to 1.
    """
    random = np.random.default_rng(2)
    pairs: list[tuple[Array, Array, Array]] = []
    for _ in range(runs):
        waves = [(*random.integers(1, 3, 2), random.uniform(0.05, 0.12), *random.uniform(0, 1, 2)) for _ in range(2)]
        discs = [(*random.uniform(0, 1, 2), random.uniform(0.08, 0.25), random.uniform(0.3, 1)) for _ in range(4)]
        pairs += examples(Flow(tuple(waves)), smoke(cells * FINER, tuple(discs)), steps, steps // 3)
    return fit(pairs)
