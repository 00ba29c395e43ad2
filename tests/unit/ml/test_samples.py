"""Samples in pieces, without a database."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim import ConfigError
from asim.ml.samples import Samples


def filled(*sizes: int) -> Samples:
    """Samples 0, 1, 2 …, whose targets are ten times as much, in pieces of these sizes."""
    made, start = Samples(), 0
    for size in sizes:
        numbers = np.arange(start, start + size, dtype="f4")
        made.append(numbers.reshape(-1, 1), 10 * numbers, "batch")
        start += size
    return made


@given(st.lists(st.integers(0, 7), min_size=1, max_size=40), st.randoms())
def test_taking_is_as_from_one_array(sizes: list[int], random: object) -> None:
    """Whatever the pieces, also empty ones, indices find the samples that one long array would have there."""
    made = filled(*sizes)
    indices = np.array(random.choices(range(sum(sizes)), k=20) if sum(sizes) else [], dtype=int)  # type: ignore[attr-defined]
    samples, targets = made.take(indices)
    assert len(made) == sum(sizes)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples[:, 0], indices)
    np.testing.assert_array_equal(targets, 10.0 * indices)


def test_pieces_are_not_copied() -> None:
    """The arrays that came are those that are kept, and what is taken is no part of them."""
    made, piece = Samples(), np.zeros((4, 2))
    made.append(piece, None, "batch")
    taken, targets = made.take(np.array([1, 2]))
    piece[1] = 7
    assert made.take(np.array([1]))[0][0, 0] == 7
    assert taken[0, 0] == 0
    assert targets is None


@pytest.mark.parametrize(
    ("samples", "targets", "text"),
    [
        (np.zeros((2, 3), "f4"), np.zeros(2, "f4"), "samples of one"),
        (np.zeros((2, 1), "f8"), np.zeros(2, "f4"), "float64"),
        (np.zeros((2, 1), "f4"), np.zeros((2, 2), "f4"), "targets of one"),
        (np.zeros((2, 1), "f4"), None, "targets of one = None"),
        (np.zeros((2, 1), "f4"), np.zeros(3, "f4"), "must be as many"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit(samples: np.ndarray, targets: np.ndarray | None, text: str) -> None:
    """A batch of another shape or type is an error that says what it should be, and changes nothing."""
    made = filled(5)
    with pytest.raises(ConfigError, match=text):
        made.append(samples, targets, "one")
    assert len(made) == 5
