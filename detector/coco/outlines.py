"""The outlines of masks that are given as run lengths, along the edges of their pixels."""

# C corners of an outline

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from detector.coco.ragged import offsets
from detector.coco.rle import decompress

_MOST_RINGS = 8  # of a simplified outline: those of the largest area


@dataclass(frozen=True)
class Outline:
    """The outer ring of a connected part of a mask, and those of its holes, each x, y of corners (C, 2).

    Corners are whole numbers of pixels: the first pixel of the image has those from (0, 0) to (1, 1). Parts
    that touch at a corner are connected.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...]


def outlines(counts: bytes, *, height: int) -> list[Outline]:
    """Return the outlines of a mask from its compressed run lengths in an image of `height` pixels."""
    left, top, pixels = _crop(counts, height)
    if not pixels.size:
        return []
    # OpenCV's contours are pixels inside. Of doubled pixels, 2i and 2i + 1 are at the edges i and i + 1.
    doubled = pixels.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, (tree,) = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [_distinct((contour[:, 0] + 1) // 2) + np.array([left, top]) for contour in contours]
    parents = tree[:, 3].tolist()
    return [
        Outline(ring, tuple(hole for hole, parent in zip(rings, parents, strict=True) if parent == number))
        for number, ring in enumerate(rings)
        if parents[number] < 0
    ]


def polygons(counts: bytes, *, height: int) -> list[list[int]]:
    """Return the polygons of a mask, [x1, y1, x2, y2, ...] each, as COCO's annotations have them.

    pycocotools draws exactly the pixels of the mask from them. A hole is joined to its part's outer ring by a
    line that runs to it and back, as the format has no holes.
    """
    parts = outlines(counts, height=height)
    return [_with_holes(part).ravel().tolist() for part in parts]


def svg_path(counts: bytes, *, height: int, tolerance_px: float) -> str:
    """Return the outlines of a mask as an SVG path that leaves their corners out by at most a tolerance.

    Tiny parts and holes are left out, and all but the largest where there are many.
    """
    rings = [ring for part in outlines(counts, height=height) for ring in (part.outer, *part.holes)]
    sized = sorted(((cv2.contourArea(ring), number) for number, ring in enumerate(rings)), reverse=True)
    chosen = [rings[n] for i, (area, n) in enumerate(sized[:_MOST_RINGS]) if i == 0 or area > tolerance_px**2]
    return "".join(_relative(_simplified(ring, tolerance_px)) for ring in chosen)


def _crop(counts: bytes, height: int) -> tuple[int, int, np.ndarray]:
    """Return x and y of the first pixel of the smallest crop that holds a mask, and the crop (bool)."""
    data = np.frombuffer(counts, dtype=np.uint8)
    runs, _ = decompress(data, np.array([0, len(data)]))
    edges = offsets(runs)[1:]
    ends = edges[1::2]
    starts = edges[::2][: len(ends)]
    filled = starts < ends
    starts, ends = starts[filled], ends[filled]
    if not len(starts):
        return 0, 0, np.zeros((0, 0), dtype=bool)
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    steps = np.zeros((right - left) * height + 1, dtype=np.int8)
    steps[starts - left * height] += 1  # starts differ from each other, and so do ends
    steps[ends - left * height] -= 1
    pixels = np.cumsum(steps[:-1], dtype=np.int8).view(bool).reshape(right - left, height).T
    rows = np.flatnonzero(pixels.any(axis=1))
    return left, int(rows[0]), pixels[rows[0] : rows[-1] + 1]


def _distinct(ring: np.ndarray) -> np.ndarray:
    """Leave out corners that equal the one before."""
    return np.asarray(ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)])


def _with_holes(part: Outline) -> np.ndarray:
    ring = part.outer
    for hole in part.holes:
        corner = hole[0]
        nearest = int(((ring - corner) ** 2).sum(axis=1).argmin())
        ring = np.concatenate([ring[: nearest + 1], hole, hole[:1], ring[nearest:]])
    return ring


def _simplified(ring: np.ndarray, tolerance_px: float) -> np.ndarray:
    simple = cv2.approxPolyDP(ring.astype(np.int32)[:, None], tolerance_px, closed=True)[:, 0]
    return simple if len(simple) > 2 else ring


def _relative(ring: np.ndarray) -> str:
    """Return a closed SVG path: its first corner, and the steps from each corner to the next."""
    numbers = " ".join(map(str, np.diff(ring, axis=0).ravel().tolist()))
    return f"M{ring[0, 0]} {ring[0, 1]}l{numbers.replace(' -', '-')}z"
