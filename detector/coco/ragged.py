"""Ragged arrays: one flat array of elements, and where the elements of each row begin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def offsets(counts: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return where each row of a ragged array begins, and where the last one ends (int64)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def gather(first: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select rows of a ragged array whose row i holds the elements `first[i]` to `first[i + 1]`.

    Returns the `first` of the selection and the positions of its elements.
    """
    starts = first[:-1][rows]
    counts = first[1:][rows] - starts
    selected = offsets(counts)
    positions = np.repeat(starts - selected[:-1], counts)
    positions += np.arange(selected[-1])  # in place: they may be millions
    return selected, positions
