"""The masks and keypoints of annotations in flat arrays, which forked loader workers share."""

# M annotations, P polygons of all annotations, C corners of all polygons, B bytes, K keypoints of a category

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detector.coco.corners import Corners
from detector.coco.ragged import gather


@dataclass(frozen=True)
class Segmentations:
    """The masks of M annotations: polygons, or run lengths, or neither for an annotation without a mask.

    Annotation i has the polygons `first[i]` to `first[i + 1]` (M + 1), and polygon j the corners
    `corner_first[j]` to `corner_first[j + 1]` (P + 1) of `corners` (C). The bytes
    `rle_first[i]` to `rle_first[i + 1]` (M + 1) of `rle` (B, uint8) are run lengths in COCO's compressed
    form, for an image of the annotation's size.
    """

    corners: Corners
    corner_first: np.ndarray
    first: np.ndarray
    rle: np.ndarray
    rle_first: np.ndarray

    @property
    def has_mask(self) -> np.ndarray:
        """Whether each annotation has a mask (M,)."""
        return np.asarray((np.diff(self.first) > 0) | (np.diff(self.rle_first) > 0))

    def polygons(self, row: int) -> list[np.ndarray]:
        """Return the polygons of an annotation, each of at least three corners in pixels (n, 2), float64."""
        edges = self.corner_first[self.first[row] : self.first[row + 1] + 1].tolist()
        return [self.corners.pixels(slice(a, b)) for a, b in pairwise(edges)]

    def run_lengths(self, row: int) -> bytes:
        """Return the compressed run lengths of an annotation, empty if it has polygons or no mask."""
        return self.rle[self.rle_first[row] : self.rle_first[row + 1]].tobytes()

    def select(self, rows: np.ndarray) -> Segmentations:
        first, polygons = gather(self.first, rows)
        corner_first, corners = gather(self.corner_first, polygons)
        rle_first, rle = gather(self.rle_first, rows)
        return Segmentations(self.corners.select(corners), corner_first, first, self.rle[rle], rle_first)


@dataclass(frozen=True)
class KeypointColumns:
    """The keypoints of M annotations.

    `points` holds x, y and visibility of each keypoint: 0 unlabeled, 1 hidden, 2 visible. Annotation i has
    the rows `first[i]` to `first[i + 1]`, one for each keypoint of its category, all unlabeled if the file
    gives it none. `labeled` (M) is its number of labeled keypoints as in the file, else as counted. `areas`
    (M) are the areas that distances are compared with, in square pixels.
    """

    points: np.ndarray
    first: np.ndarray
    labeled: np.ndarray
    areas: np.ndarray

    def of(self, row: int) -> np.ndarray:
        """Return the keypoints of an annotation (K, 3)."""
        return self.points[self.first[row] : self.first[row + 1]]

    def select(self, rows: np.ndarray) -> KeypointColumns:
        first, points = gather(self.first, rows)
        return KeypointColumns(self.points[points], first, self.labeled[rows], self.areas[rows])
