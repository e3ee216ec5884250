"""Drawing outlines into the frames of their boxes."""

# G objects, S cells of a mask's side

from __future__ import annotations

import cv2
import numpy as np

from detector.data.outlines import Outlines

MASK_SIDE = 56  # cells: twice the side of what a mask head predicts
_HALVINGS = 3
_SAMPLES = 2**_HALVINGS  # per cell and axis
_SHIFT = 8  # bits of a fraction of a sample
_FARTHEST = 2.0**16  # samples from the frame, beyond which a corner's distance makes no difference


def rasterize(outlines: Outlines, boxes: np.ndarray, *, side: int = MASK_SIDE) -> np.ndarray:
    """Return the fraction of each cell that an object covers, from 0 to 255 (G, S, S) uint8.

    Each xyxy box (G, 4) is divided into S x S cells; what lies outside of it is cut off. An object without an
    outline covers nothing.
    """
    coverage = np.zeros((len(boxes), side, side), dtype=np.uint8)
    object_of = outlines.object_of
    scales = side * _SAMPLES / (boxes[:, 2:] - boxes[:, :2])
    samples = (outlines.corners - boxes[object_of, :2]) * scales[object_of] - 0.5  # centers are whole numbers
    fixed_point = np.rint(np.clip(samples, -_FARTHEST, _FARTHEST) * 2**_SHIFT).astype(np.int32)
    for row in np.flatnonzero(outlines.has_mask).tolist():
        rings = [fixed_point[a:b] for a, b in outlines.ring_edges(row)]
        parts = [rings] if outlines.even_odd[row] else [[ring] for ring in rings]
        canvas = _filled(parts[0], side)
        for part in parts[1:]:
            np.maximum(canvas, _filled(part, side), out=canvas)
        for halving in range(_HALVINGS - 1, -1, -1):  # OpenCV averages fast by a factor of two alone
            canvas = cv2.resize(canvas, (side << halving, side << halving), interpolation=cv2.INTER_AREA)
        coverage[row] = canvas
    return coverage


def _filled(rings: list[np.ndarray], side: int) -> np.ndarray:
    """Return the samples inside rings as 255, and those on their edges, which fillPoly sets too, as half."""
    canvas = np.zeros((side * _SAMPLES, side * _SAMPLES), dtype=np.uint8)
    cv2.fillPoly(canvas, rings, (255,), shift=_SHIFT)
    edges = [(ring + (1 << (_SHIFT - 1))) >> _SHIFT for ring in rings]
    cv2.polylines(canvas, edges, isClosed=True, color=(128,))
    return canvas
