"""COCO's compressed run lengths, for many masks at once.

A mask is scanned column by column; its run lengths alternate between background and object, background first.
From the fourth on each is stored as its difference from the last but one, in groups of five bits, the lowest
first: bit 6 says that another group follows, and 48 is added to make it a printable character.
"""

# N masks, R run lengths of all masks, B bytes of all masks

from __future__ import annotations

import numpy as np

from detector.coco.ragged import offsets

_OFFSET, _BITS, _MORE, _SIGN = 48, 5, 32, 16
_MOST_GROUPS = 12  # of five bits, in a number of 64 bits


def compress(runs: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes (B, uint8) and their offsets (N + 1) for run lengths (R) with offsets `first` (N + 1).

    Examples:
        >>> data, first = compress(np.array([6, 1, 40, 4, 5]), np.array([0, 5]))
        >>> data.tobytes(), first.tolist()
        (b'61X13mN', [0, 7])
    """
    values = runs.astype(np.int64)
    place = np.arange(len(values)) - np.repeat(first[:-1], np.diff(first))
    later = np.flatnonzero(place > 2)
    values[later] -= runs[later - 2]
    groups = np.ones(len(values), dtype=np.int64)
    for count in range(1, _MOST_GROUPS):
        limit = 1 << (_BITS * count - 1)
        wider = (values < -limit) | (values >= limit)
        if not wider.any():
            break
        groups += wider
    starts = offsets(groups)
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], groups)
    data = (np.repeat(values, groups) >> (_BITS * within)) & (_MORE - 1)
    data[within < np.repeat(groups, groups) - 1] |= _MORE
    return (data + _OFFSET).astype(np.uint8), starts[first]


def decompress(data: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the run lengths (R, int64) and their offsets (N + 1): the inverse of `compress`.

    The bytes must be `is_compressed`. Run lengths may come out negative, where no encoder wrote the bytes.
    """
    bits = data.astype(np.int64) - _OFFSET
    last = np.flatnonzero((bits & _MORE) == 0)
    starts = np.append(0, last[:-1] + 1) if len(last) else last
    groups = last - starts + 1
    within = np.arange(len(bits)) - np.repeat(starts, groups)
    values = np.add.reduceat((bits & (_MORE - 1)) << (_BITS * within), starts) if len(last) else last
    values = values - np.where(bits[last] & _SIGN, np.int64(1) << (_BITS * groups), 0)
    run_first = np.searchsorted(starts, first)
    return _summed(values, run_first), run_first


def is_compressed(data: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return whether each mask's bytes are groups of bits and end with a number's last (N,)."""
    bits = data.astype(np.int64) - _OFFSET
    bad = (bits < 0) | (bits > _MORE * 2 - 1)
    more = (bits & _MORE) > 0
    length = np.where(more, 0, np.arange(1, len(bits) + 1))
    length = np.arange(1, len(bits) + 1) - np.maximum.accumulate(length) if len(bits) else length
    bad |= length >= _MOST_GROUPS
    bad_before = offsets(bad)
    filled = np.diff(first) > 0
    ends = np.zeros(len(first) - 1, dtype=bool)
    ends[filled] = ~more[first[1:][filled] - 1]
    return np.asarray(filled & ends & (bad_before[first[1:]] == bad_before[first[:-1]]))


def _summed(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Add to each number from the fourth on the last but one of its mask."""
    place = np.arange(len(values)) - np.repeat(first[:-1], np.diff(first))
    mask = np.repeat(np.arange(len(first) - 1), np.diff(first))
    chain = 3 * mask + np.where(place == 0, 0, 2 - place % 2)  # the first alone, odd places, even places
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(values[order])
    begins = np.flatnonzero(np.diff(chain[order], prepend=-1))
    before = np.append(0, sums)[begins]
    runs = np.empty_like(values)
    runs[order] = sums - np.repeat(before, np.diff(np.append(begins, len(sums))))
    return runs
