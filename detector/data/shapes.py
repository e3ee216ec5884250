"""The masks and keypoints of the objects of an image, on their way from annotations to targets."""

# G objects, K keypoints (the most of any class), L classes, S cells of a mask's side

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from detector.coco.annotations import CocoAnnotations
from detector.data.outlines import Outlines, outlines_of
from detector.data.rasterizing import rasterize
from detector.structures import Keypoints, KeypointSchema


@dataclass(frozen=True)
class Shapes:
    """The outlines of G objects, and their keypoints (G, K, 3): x and y in pixels, and visibility.

    Either is None if it is no task. A class with fewer than K keypoints has visibility 0 in the others.
    """

    outlines: Outlines | None
    keypoints: np.ndarray | None

    def select(self, rows: np.ndarray) -> Shapes:
        return Shapes(
            None if self.outlines is None else self.outlines.select(rows),
            None if self.keypoints is None else self.keypoints[rows],
        )

    def points(self) -> np.ndarray:
        """Return the corners of all outlines and all keypoints (P, 2)."""
        corners = [] if self.outlines is None else [self.outlines.corners]
        keypoints = [] if self.keypoints is None else [self.keypoints[..., :2].reshape(-1, 2)]
        return np.concatenate([*corners, *keypoints])

    def with_points(self, points: np.ndarray) -> Shapes:
        """Return the shapes whose points lie at `points` (P, 2), in the order of `points()`."""
        outlines, keypoints = self.outlines, self.keypoints
        if outlines is not None:
            corners, points = np.split(points, [len(outlines.corners)])
            outlines = outlines.moved(corners)
        if keypoints is not None:
            visibility = keypoints[..., 2:]
            keypoints = np.concatenate([points.reshape(*keypoints.shape[:2], 2), visibility], axis=-1)
        return Shapes(outlines, keypoints)

    def with_keypoints_in(self, order: np.ndarray) -> Shapes:
        """Return the shapes whose keypoint k is number `order[i, k]` of object i so far (G, K)."""
        if self.keypoints is None:
            return self
        return replace(self, keypoints=np.take_along_axis(self.keypoints, order[..., None], axis=1))

    def targets(
        self, boxes: np.ndarray, *, from_size: tuple[int, int], to_size: tuple[int, int]
    ) -> tuple[Tensor | None, Keypoints | None]:
        """Return the masks (G, S, S) in the frames of `boxes`, and the keypoints of the resized image.

        Shapes and boxes are those of an image of (height, width) `from_size`. A keypoint outside of it is
        unlabeled.
        """
        masks = None if self.outlines is None else torch.from_numpy(rasterize(self.outlines, boxes))
        if self.keypoints is None:
            return masks, None
        xy, visibility = self.keypoints[..., :2], self.keypoints[..., 2]
        (height, width), (new_height, new_width) = from_size, to_size
        inside = ((xy >= 0) & (xy <= (width, height))).all(axis=-1)
        visibility = np.where(inside, visibility, 0).astype(np.int64)
        scaled = xy * (new_width / width, new_height / height)
        xy = np.where(visibility[..., None] > 0, scaled, 0).astype(np.float32)
        return masks, Keypoints(torch.from_numpy(xy), torch.from_numpy(visibility))


class ShapeReader:
    """The shapes of each image of a split, without crowds, in the order of `training_boxes`.

    `schemas` (L) are the keypoints of each class, None for a class without.
    """

    def __init__(self, annotations: CocoAnnotations, schemas: Sequence[KeypointSchema | None]) -> None:
        self._annotations = annotations
        self._most_keypoints = max((len(one.names) for one in schemas if one is not None), default=0)
        self._mirrored = np.tile(np.arange(self._most_keypoints), (len(annotations.categories), 1))
        for label, schema in enumerate(schemas):
            if schema is not None:
                self._mirrored[label, : len(schema.names)] = schema.flip_permutation()

    def mirrored_order(self, labels: np.ndarray) -> np.ndarray:
        """Return for each object which keypoint replaces which in a mirrored image (G, K)."""
        return self._mirrored[labels]

    def of_image(self, index: int) -> Shapes:
        annotations = self._annotations
        own = annotations.rows(index)
        rows = own.start + np.flatnonzero(~annotations.crowd[own])
        masks, height = annotations.masks, int(annotations.sizes[index, 0])
        return Shapes(
            None if masks is None else outlines_of(masks.select(rows), height=height),
            None if annotations.keypoints is None else self._keypoints(rows),
        )

    def _keypoints(self, rows: np.ndarray) -> np.ndarray:
        assert self._annotations.keypoints is not None
        columns = self._annotations.keypoints.select(rows)
        padded = np.zeros((len(rows), self._most_keypoints, 3))
        padded[np.arange(self._most_keypoints) < np.diff(columns.first)[:, None]] = columns.points
        return padded
