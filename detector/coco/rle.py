"""COCO's compressed run lengths, for many masks at once.

A mask is scanned column by column; its run lengths alternate between background and object, background first.
From the fourth on each is stored as its difference from the last but one, in groups of five bits, the lowest
first: bit 6 says that another group follows, and 48 is added to make it a printable character.
"""

# N masks, R run lengths of all masks, B bytes of all masks

from __future__ import annotations

from itertools import pairwise

import numpy as np

from detector.coco.ragged import gather, offsets

_OFFSET, _BITS, _MORE, _SIGN = 48, 5, 32, 16
_BLOCK = 1 << 17  # bytes that are looked at together, few enough for a processor's cache
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


def pixel_counts(data: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pixels each mask has, and its object (N,); -1 for bytes that no encoder wrote."""
    total, inside = (np.full(len(first) - 1, -1, dtype=np.int64) for _ in range(2))
    edges = np.unique(np.searchsorted(first, np.arange(0, first[-1] + _BLOCK, _BLOCK)))
    for start, stop in pairwise(edges.clip(max=len(first) - 1).tolist()):
        part = first[start : stop + 1]
        which, runs, run_first = _readable(data[part[0] : part[-1]], part - part[0])
        odd = (np.arange(len(runs)) - np.repeat(run_first[:-1], np.diff(run_first))) % 2
        negative, sums, odd_sums = (
            np.diff(offsets(values)[run_first]) for values in (runs < 0, runs, runs * odd)
        )
        total[start + which] = np.where(negative, -1, sums)
        inside[start + which] = np.where(negative, -1, odd_sums)
    return total, inside


def _readable(data: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which masks are in compressed form, and the run lengths of these with their offsets."""
    good = is_compressed(data, first)
    if good.all():
        return np.arange(len(good)), *decompress(data, first)
    which = np.flatnonzero(good)
    chosen_first, chosen = gather(first, which)
    return which, *decompress(data[chosen], chosen_first)


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
    counts = np.diff(first)
    base, odd = np.repeat(first[:-1], counts), np.repeat(counts // 2, counts)
    place = np.arange(len(values)) - base
    # Sums run over chains: the first number of a mask alone, then its odd places, then its even ones.
    start = base + np.where(place % 2, 1, np.where(place, 1 + odd, 0))
    to = start + np.where(place, (place - 1) // 2, 0)
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    sums[to + 1] = values
    np.cumsum(sums, out=sums)
    return np.asarray(sums[to + 1] - sums[start])
