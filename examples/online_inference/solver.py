"""Smoke in a flow, on a grid of squares: finite volumes, explicit in time, in as much of the unit square as one rank has.

All lengths are in widths of the (periodic) unit square. The flow is that of a stream function, so that it neither
compresses nor leaves anything behind; ``courant`` numbers say how much of a cell passes through its faces in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Scheme: TypeAlias = Callable[[Array, Array], Array]
"""What gives the concentrations that pass some faces, shape (faces,), from those in the four cells around each face in the
order in which the flow passes them, shape (4, faces), and from the Courant numbers there, shape (faces,)."""
HALO = 2  # cells around those that a rank owns
FINEST = 1024  # points along each side from which the means of the first moment are taken, on every grid


@dataclass(frozen=True)
class Flow:
    """Vortices that turn one way, slow down, and turn back: at time 1 all is again where it was at time 0.

    :ivar waves: of the stream function, each (number along x, number along y, strength, shift along x, shift along y).
    """

    waves: tuple[tuple[int, int, float, float, float], ...]

    def courant(self, rows: slice, cells: int, time: float, step: float) -> tuple[Array, Array]:
        """Courant numbers at the faces of some rows of cells: across x, shape (rows + 1, cells), and across y."""
        x = np.arange(rows.start, rows.stop + 1)[:, None] / cells
        y = np.arange(cells + 1) / cells
        psi = np.zeros((len(x), len(y)))
        for along, across, strength, left, down in self.waves:
            psi += strength * np.sin(2 * np.pi * (along * x + left)) * np.sin(2 * np.pi * (across * y + down))
        psi *= np.cos(np.pi * time) * step * cells**2
        return np.diff(psi, axis=1), -np.diff(psi, axis=0)


def upwind(cells: Array, courant: Array) -> Array:
    """First order: what passes is what is in the cell where it comes from. Robust, and smears everything."""
    value: Array = cells[1]
    return value


def limited(cells: Array, courant: Array) -> Array:
    """Second order, with van Leer's limiter: a slope in the cell where it comes from, but none at extrema."""
    behind, ahead = cells[1] - cells[0], cells[2] - cells[1]
    product, total = behind * ahead, behind + ahead
    slope = np.where(product > 0, 2 * product / np.where(total == 0, 1, total), 0)
    return upwind(cells, courant) + (1 - np.abs(courant)) / 2 * slope


def stencils(padded: Array, courant: tuple[Array, Array]) -> tuple[Array, Array]:
    """The four cells around every face, first of those across x, then of those across y; and the Courant numbers.

    :param padded: the concentration, with a halo on all sides.
    """
    found = []
    for axis, here in enumerate(courant):
        inner, count = slice(HALO, -HALO), here.shape[axis]
        row = [padded[k : k + count, inner] if axis == 0 else padded[inner, k : k + count] for k in range(4)]
        found.append(np.where(here > 0, row, row[::-1]).reshape(4, -1))
    return np.concatenate(found, axis=1), np.concatenate([here.ravel() for here in courant])


def fluxes(padded: Array, courant: tuple[Array, Array], scheme: Scheme) -> tuple[Array, Array]:
    """What passes each face in one step, in units of a cell's content: across x, and across y."""
    cells, flat = stencils(padded, courant)
    across_x, across_y = np.split(scheme(cells, flat) * flat, [courant[0].size])
    return across_x.reshape(courant[0].shape), across_y.reshape(courant[1].shape)


def advance(padded: Array, flux: tuple[Array, Array]) -> Array:
    """The concentration one step later, without halo: what leaves a cell enters its neighbour."""
    return padded[HALO:-HALO, HALO:-HALO] - np.diff(flux[0], axis=0) - np.diff(flux[1], axis=1)


def smoke(cells: int, shapes: tuple[tuple[float, float, float, float], ...]) -> Array:
    """A field of concentrations between 0 and 1: discs with a sharp rim, as means over the cells.

    :param shapes: each (x, y, radius, concentration).
    """
    fine = (np.arange(FINEST) + 0.5) / FINEST
    field = np.zeros((FINEST, FINEST))
    for x, y, radius, value in shapes:
        away = [np.abs((fine - centre + 0.5) % 1 - 0.5) for centre in (x, y)]  # the square is periodic
        field[np.hypot(away[0][:, None], away[1]) < radius] = value
    return coarsen(field, FINEST // cells)


def coarsen(field: Array, factor: int) -> Array:
    """Means over squares of ``factor`` times ``factor`` cells."""
    rows, columns = (size // factor for size in field.shape)
    mean: Array = field.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    return mean
