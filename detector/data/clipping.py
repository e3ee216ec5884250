"""What of outlines lies inside an image."""

# G objects

from __future__ import annotations

import numpy as np

from detector.coco.rules import MIN_BOX_SIDE_PX
from detector.data.outlines import Outlines


def extents_inside(
    outlines: Outlines, boxes: np.ndarray, *, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the xyxy extents of what lies inside an image of (height, width) `size`, and the rows with any.

    An object without an outline keeps its box (G, 4).
    """
    boxes, limits = boxes.copy(), (size[1], size[0])
    for row in np.flatnonzero(outlines.has_mask).tolist():
        corners = np.concatenate([clip_ring(ring, limits) for ring in outlines.rings(row)])
        boxes[row] = [*corners.min(axis=0), *corners.max(axis=0)] if len(corners) else 0
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_BOX_SIDE_PX).all(axis=1)
    return boxes, np.flatnonzero(kept)


def clip_ring(ring: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Cut a ring (n, 2) to 0 <= x <= limits[0] and 0 <= y <= limits[1], as Sutherland and Hodgman do.

    Examples:
        >>> clip_ring(np.array([[-2.0, 0], [2, 0], [2, 4]]), (9, 9)).tolist()
        [[0.0, 2.0], [0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]
    """
    for axis, limit in enumerate(limits):
        for bound, sign in ((0, 1), (limit, -1)):
            depth = (ring[:, axis] - bound) * sign  # negative: outside
            if (depth >= 0).all():
                continue
            ring = _cut(ring, depth)
            if not len(ring):
                return ring
            outside = (ring[:, axis] - bound) * sign < 0
            ring[outside, axis] = bound  # rounding
    return ring


def _cut(ring: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Keep what has a depth of 0 or more: the corners, and the points where the ring crosses depth 0."""
    before, depth_before = np.roll(ring, 1, axis=0), np.roll(depth, 1)
    crosses = (depth >= 0) != (depth_before >= 0)
    share = np.divide(depth_before, depth_before - depth, out=np.zeros(len(depth)), where=crosses)
    crossings = before + share[:, None] * (ring - before)
    pairs = np.stack([crossings, ring], axis=1).reshape(-1, 2)
    return pairs[np.stack([crosses, depth >= 0], axis=1).reshape(-1)]
