"""Samples in the memory of whoever trains, in the pieces in which they came: nothing is ever joined or copied whole."""

from __future__ import annotations

import numpy as np

from ..client.codec import Array
from ..errors import ConfigError, allowed

Piece = tuple[Array, Array | None]


class Samples:
    """Samples, and targets if there are any, in the order of their arrival."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._ends = np.zeros(0, np.int64)
        self._known = 0

    def __len__(self) -> int:
        return int(self._ends[self._known - 1]) if self._known else 0

    def append(self, samples: Array, targets: Array | None, name: str) -> None:
        """Add a batch, whose arrays are kept as they are.

        :param name: of the batch, for errors.
        :raises ConfigError: it does not fit to those before; nothing is added then.
        """
        if samples.ndim == 0 or (targets is not None and len(targets) != len(samples)):
            shapes = samples.shape, None if targets is None else targets.shape
            raise ConfigError(allowed(f"shapes in {name}", shapes, "samples and targets must be as many"))
        if self._pieces:
            first = self._pieces[0]
            for what, new, old in (("samples", samples, first[0]), ("targets", targets, first[1])):
                _check(f"{what} of {name}", new, old)
        self._pieces.append((samples, targets))
        self._end(len(self) + len(samples))

    def take(self, indices: Array) -> Piece:
        """Some samples and their targets, in the order of the indices, as new arrays."""
        owner = np.searchsorted(self._ends[: self._known], indices, "right")
        local = indices - np.where(owner, self._ends[owner - 1], 0)
        rows = list(zip(owner.tolist(), local.tolist(), strict=True))
        samples, targets = (
            None if like is None else np.empty((len(rows), *like.shape[1:]), like.dtype) for like in self._pieces[0]
        )
        assert samples is not None
        for row, (piece, at) in enumerate(rows):  # row by row: a shuffled batch has hardly two samples of one piece
            samples[row] = self._pieces[piece][0][at]
        if targets is not None:
            for row, (piece, at) in enumerate(rows):
                targets[row] = self._pieces[piece][1][at]
        return samples, targets

    def _end(self, end: int) -> None:
        """One more end, in memory that doubles."""
        if self._known == len(self._ends):
            self._ends = np.concatenate((self._ends, np.zeros(max(16, self._known), np.int64)))
        self._ends[self._known] = end
        self._known += 1


def _check(what: str, new: Array | None, old: Array | None) -> None:
    """Both are samples of the same kind."""
    kinds = [None if one is None else (one.shape[1:], one.dtype.name) for one in (new, old)]
    if kinds[0] != kinds[1]:
        raise ConfigError(allowed(what, kinds[0], f"the shape of a sample and its type must be {kinds[1]} as before"))
