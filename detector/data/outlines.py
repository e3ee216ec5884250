"""The outlines of objects: closed rings of corners, which augmentation moves as it moves points."""

# G objects, R rings of all objects, C corners of all rings

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from detector.coco.ragged import gather, offsets
from detector.coco.rle import decompress
from detector.coco.shapes import Segmentations


@dataclass(frozen=True)
class Outlines:
    """The outlines of G objects, an object without a mask having none.

    Object i has the rings `first[i]` to `first[i + 1]` (G + 1), and ring j the corners `ring_first[j]` to
    `ring_first[j + 1]` (R + 1) of `corners` (C, 2): x and y in pixels of the image, where pixel i covers i to
    i + 1. The rings of an object are parts whose union it is; where `even_odd` (G) is true, it is what an odd
    number of its rings encloses, so that a ring inside another is a hole.
    """

    corners: np.ndarray
    ring_first: np.ndarray
    first: np.ndarray
    even_odd: np.ndarray

    @property
    def has_mask(self) -> np.ndarray:
        """Whether each object has an outline (G,)."""
        return np.asarray(np.diff(self.first) > 0)

    @property
    def object_of(self) -> np.ndarray:
        """The position of each corner's object (C,)."""
        counts = np.diff(self.ring_first[self.first])
        return np.repeat(np.arange(len(counts)), counts)

    def rings(self, row: int) -> list[np.ndarray]:
        """Return the rings of an object, each (n, 2)."""
        return [self.corners[a:b] for a, b in self.ring_edges(row)]

    def ring_edges(self, row: int) -> Iterator[tuple[int, int]]:
        """Yield where each ring of an object begins and ends in `corners`."""
        return pairwise(self.ring_first[self.first[row] : self.first[row + 1] + 1].tolist())

    def select(self, rows: np.ndarray) -> Outlines:
        first, rings = gather(self.first, rows)
        ring_first, corners = gather(self.ring_first, rings)
        return Outlines(self.corners[corners], ring_first, first, self.even_odd[rows])

    def moved(self, corners: np.ndarray) -> Outlines:
        """Return the outlines with other corners (C, 2) in the same order."""
        return replace(self, corners=corners)


def outlines_of(masks: Segmentations, *, height: int) -> Outlines:
    """Return the outlines of the masks of one image: polygons as they are, run lengths along pixel edges."""
    even_odd = np.diff(masks.rle_first) > 0
    if not even_odd.any():
        return Outlines(masks.corners.pixels(), masks.corner_first, masks.first, even_odd)
    runs, run_first = decompress(masks.rle, masks.rle_first)
    rings: list[np.ndarray] = []
    counts = []
    for row, is_rle in enumerate(even_odd.tolist()):
        own = (
            pixel_edges(runs[run_first[row] : run_first[row + 1]], height=height)
            if is_rle
            else masks.polygons(row)
        )
        rings += own
        counts.append(len(own))
    corners = np.concatenate([np.zeros((0, 2)), *rings])
    return Outlines(corners, offsets([*map(len, rings)]), offsets(counts), even_odd)


def pixel_edges(runs: np.ndarray, *, height: int) -> list[np.ndarray]:
    """Return the rings along the pixel edges of a mask, whose run lengths begin with the background.

    They enclose an odd number of times what the mask covers, and holes an even number of times.

    Examples:
        >>> [ring.tolist() for ring in pixel_edges(np.array([5, 2, 2, 2, 1]), height=4)]
        [[[1.0, 1.0], [1.0, 3.0], [3.0, 3.0], [3.0, 1.0]]]
    """
    corners = _edge_corners(runs, height)
    # Along each line of pixel edges, edges run from every corner with an even place to the next one.
    down = np.lexsort((corners[:, 1], corners[:, 0]))
    across = np.lexsort((corners[:, 0], corners[:, 1]))
    below, beside = _neighbors(down), _neighbors(across)
    points, is_open = corners.tolist(), [True] * len(corners)
    rings = []
    for start in range(len(points)):
        ring = []
        here = start
        while is_open[here]:
            there = below[here]
            is_open[here] = is_open[there] = False
            ring += [points[here], points[there]]
            here = beside[there]
        if ring:
            rings.append(np.array(ring, dtype=np.float64))
    return rings


def _edge_corners(runs: np.ndarray, height: int) -> np.ndarray:
    """Return the corners of pixels around which an odd number of the four pixels is set (n, 2)."""
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    columns = (stops - 1) // height - starts // height + 1  # of each run, which is cut at their ends
    first = offsets(columns)
    column = np.repeat(starts // height - first[:-1], columns) + np.arange(first[-1])
    top = np.maximum(np.repeat(starts, columns) - column * height, 0)
    bottom = np.minimum(np.repeat(stops, columns) - column * height, height)
    x = np.concatenate([column, column, column + 1, column + 1])
    places, counts = np.unique(x * (height + 1) + np.concatenate([top, bottom] * 2), return_counts=True)
    places = places[counts % 2 == 1]
    return np.stack([places // (height + 1), places % (height + 1)], axis=1)


def _neighbors(order: np.ndarray) -> list[int]:
    """Return for each corner the other end of its edge, if `order` puts the two ends next to each other."""
    other = np.empty_like(order)
    other[order] = order.reshape(-1, 2)[:, ::-1].reshape(-1)
    ends: list[int] = other.tolist()
    return ends
