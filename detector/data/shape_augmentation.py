"""Augmentation of masks and keypoints: albumentations moves outlines and keypoints as points."""

# G objects, P points of all objects

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import albumentations
import numpy as np
from albumentations.augmentations.dropout.transforms import BaseDropout
from albumentations.augmentations.geometric.distortion import BaseDistortion

from detector.data.clipping import extents_inside
from detector.data.shapes import ShapeReader, Shapes
from detector.data.transforms import Augmentation

# They scale the coordinates of points from the corner of the image, and all others from the center of its
# first pixel.
_SCALING = (
    albumentations.CropAndPad,
    albumentations.LongestMaxSize,
    albumentations.RandomResizedCrop,
    albumentations.RandomScale,
    albumentations.RandomSizedBBoxSafeCrop,
    albumentations.RandomSizedCrop,
    albumentations.Resize,
    albumentations.SmallestMaxSize,
)
# They move points elsewhere than pixels, or an object in parts.
_REFUSED = (albumentations.ThinPlateSpline, albumentations.RandomGridShuffle)
_HALF_PIXEL = np.array([0.5, 0.5])


class ShapeAugmentation:
    """The transforms of an `Augmentation`, which also move the shapes of the objects.

    Objects whose box is dropped lose their shapes. Where the image is mirrored, left and right keypoints are
    swapped. With `boxes_from_masks`, an object with a mask gets the box of its moved outline inside the
    image, and is dropped if none of it is left there.
    """

    def __init__(self, augmentation: Augmentation, reader: ShapeReader, *, boxes_from_masks: bool) -> None:
        self._augmentation = augmentation
        self._reader = reader
        self._boxes_from_masks = boxes_from_masks
        transforms = copy.deepcopy(augmentation.transforms)  # a transform belongs to one Compose
        for leaf in _leaves(transforms):
            if isinstance(leaf, _REFUSED):
                raise ValueError(
                    f"data.augmentation has {type(leaf).__name__}, which does not move masks and keypoints "
                    "with the image. Leave it out, or train boxes alone."
                )
            _correct(leaf)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got processor for")  # color transforms alone move nothing
            self._compose = albumentations.Compose(
                transforms,
                bbox_params=augmentation.box_params(),
                keypoint_params=albumentations.KeypointParams(
                    format="xy", remove_invisible=False, label_fields=["places"]
                ),
            )

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, shapes: Shapes, *, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Shapes]:
        probes = _probes(image)
        points = np.concatenate([shapes.points(), probes])
        self._compose.set_random_seed(seed)
        result = self._compose(
            image=image,
            bboxes=boxes,
            rows=np.arange(len(boxes)),
            keypoints=points - _HALF_PIXEL,
            places=np.arange(len(points)),
        )
        augmented, boxes, rows = self._augmentation.checked(result)
        moved = np.asarray(result["keypoints"], dtype=np.float64).reshape(-1, 2) + _HALF_PIXEL
        self._require_all_points(np.asarray(result["places"]), len(points))
        shapes, labels = shapes.with_points(moved[:-3]).select(rows), labels[rows]
        if _turns_over(probes, moved[-3:]):
            shapes = shapes.with_keypoints_in(self._reader.mirrored_order(labels))
        if self._boxes_from_masks and shapes.outlines is not None:
            boxes, kept = extents_inside(shapes.outlines, boxes, size=augmented.shape[:2])
            return augmented, boxes[kept], labels[kept], shapes.select(kept)
        return augmented, boxes, labels, shapes

    def _require_all_points(self, places: np.ndarray, count: int) -> None:
        if not np.array_equal(places, np.arange(count)):
            raise ValueError(
                f"data.augmentation ({', '.join(self._augmentation.names)}) gives {len(places)} points for "
                f"the {count} of outlines and keypoints. Leave out transforms that remove or repeat "
                "points, as those do that repeat the image at its border (border_mode 2 or 4)."
            )


def _leaves(transforms: list[Any]) -> Iterator[Any]:
    for transform in transforms:
        if isinstance(transform, albumentations.BaseCompose):
            yield from _leaves(transform.transforms)
        else:
            yield transform


def _correct(leaf: Any) -> None:
    """Make a transform move points as its pixels, where albumentations 2.0 does not."""
    if isinstance(leaf, _SCALING):
        leaf.apply_to_keypoints = partial(_from_corner, leaf.apply_to_keypoints)
    elif isinstance(leaf, BaseDropout):
        leaf.apply_to_keypoints = _unmoved
    elif isinstance(leaf, BaseDistortion):
        leaf.keypoint_remapping_method = "direct"  # the other one draws points, and loses those that overlap
        leaf.apply_to_keypoints = partial(_by_pixel, leaf.apply_to_keypoints)
    else:
        return
    leaf._set_keys()  # it keeps the bound methods


def _from_corner(move: Callable[..., np.ndarray], keypoints: np.ndarray, **options: Any) -> np.ndarray:
    """Move points that a transform scales from the corner of the image."""
    return _shifted(move(_shifted(keypoints, 0.5), **options), -0.5)


def _by_pixel(move: Callable[..., np.ndarray], keypoints: np.ndarray, **options: Any) -> np.ndarray:
    """Move points by a transform that moves the centers of pixels alone: each with the pixel it is in."""
    height, width = options["shape"][:2]
    centers = keypoints.copy()
    centers[:, :2] = np.clip(np.round(keypoints[:, :2]), 0, (width - 1, height - 1))
    return _shifted(move(centers, **options), keypoints[:, :2] - centers[:, :2])


def _unmoved(keypoints: np.ndarray, **_: Any) -> np.ndarray:
    """Leave points alone that a transform removes with what it hides: the object stays the same."""
    return keypoints


def _shifted(keypoints: np.ndarray, offset: Any) -> np.ndarray:
    moved = keypoints.copy()
    moved[:, :2] += offset
    return moved


def _probes(image: np.ndarray) -> np.ndarray:
    """Return the corners of a triangle well inside the image (3, 2), whose orientation tells of mirroring."""
    height, width = image.shape[:2]
    return np.array([[0.4, 0.4], [0.6, 0.4], [0.4, 0.6]]) * [width, height]


def _turns_over(before: np.ndarray, after: np.ndarray) -> bool:
    return bool(np.linalg.det(before[1:] - before[0]) * np.linalg.det(after[1:] - after[0]) < 0)
