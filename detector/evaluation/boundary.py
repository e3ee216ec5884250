"""Boundary AP (Cheng et al. 2021): masks that agree near their edges, where mask IoU hardly looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from pycocotools import mask

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.masks import Masks, RunLengths
from detector.evaluation.matching import ClassMatches, Matched, Rows, match
from detector.evaluation.metrics import COCO_METRICS, UNDEFINED, Metric, MetricSpec
from detector.evaluation.replicates import Replicates
from detector.option_types import Fraction

_OF_MASKS = [spec for spec in COCO_METRICS if spec.kind == "precision"]
_SPECS = {
    spec.name: MetricSpec(
        f"boundary_{spec.name}", f"boundary {spec.label}", by_class=spec.name == "AP", area=spec.area
    )
    for spec in _OF_MASKS
}


class BoundaryAP(Metric):
    """The APs of masks whose overlap is the lower of mask IoU and the IoU of the masks' boundaries.

    A boundary is the part of a mask that lies within `width` times the image's diagonal of its edge, at least
    a pixel; the image's border is an edge. Of crowds mask IoU decides alone. The values are those of the
    Boundary IoU API, whose default `width` this is. For boxes and keypoints they are undefined (-1).
    """

    def __init__(self, width: Fraction = 0.02) -> None:
        if not 0 <= width <= 1:
            raise ValueError(f"BoundaryAP: width={width}, expected a share of the diagonal, from 0 to 1.")
        self._width = width
        self._known: WeakKeyDictionary[Rows, _Flags] = WeakKeyDictionary()
        self._lock = Lock()  # replicates are computed in threads

    def __reduce__(self) -> tuple[type[BoundaryAP], tuple[float]]:
        return BoundaryAP, (self._width,)  # a copy computes what it needs for itself

    @property
    def specs(self) -> Sequence[MetricSpec]:
        return [*_SPECS.values()]

    def compute(self, matched: Matched) -> Mapping[str, float]:
        if not isinstance(matched.rows.shapes, Masks):
            return {spec.name: UNDEFINED for spec in self.specs}
        with self._lock:
            flags = self._known.get(matched.rows)
            if flags is None:  # resampled images have the same rows
                flags = self._known[matched.rows] = _matched_by_boundary(
                    matched.rows, matched.rows.shapes, matched.truth, self._width
                )
        classes = [flags.of(one) for one in matched.classes]
        values = Replicates(classes, specs=_OF_MASKS).metrics(np.ones(classes[0].objects.shape[1]))
        return {spec.name: _mean_of_defined(values[name]) for name, spec in _SPECS.items()}


@dataclass(frozen=True)
class _Flags:
    """Whether each of the rows matched an object, and does not count: (A, T, D)."""

    matched: np.ndarray
    ignored: np.ndarray

    def of(self, one: ClassMatches) -> ClassMatches:
        return replace(one, matched=self.matched[..., one.rows], ignored=self.ignored[..., one.rows])


@dataclass(frozen=True)
class _Boundaries(Masks):
    """Masks that also overlap by their boundaries."""

    detection_boundaries: np.ndarray
    object_boundaries: np.ndarray

    def overlaps(self, detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        of_masks = super().overlaps(detections, objects, crowd)
        boundaries = (self.detection_boundaries[detections], self.object_boundaries[objects])
        of_boundaries = np.asarray(mask.iou(*map(list, boundaries), [0] * len(objects)))
        return np.where(crowd.astype(bool), of_masks, np.minimum(of_masks, of_boundaries))


def _matched_by_boundary(rows: Rows, masks: Masks, truth: GroundTruth, width: float) -> _Flags:
    shapes = _Boundaries(
        masks.detections,
        masks.objects,
        masks.num_classes,
        _boundaries(masks.detections, width),
        _boundaries(masks.objects, width),
    )
    classes = match(replace(rows, shapes=shapes), truth).classes
    matched, ignored = (
        np.zeros((*classes[0].matched.shape[:2], len(rows.images)), dtype=bool) for _ in range(2)
    )
    for one in classes:
        matched[..., one.rows], ignored[..., one.rows] = one.matched, one.ignored
    return _Flags(matched, ignored)


def _boundaries(masks: np.ndarray, width: float) -> np.ndarray:
    """Return the boundary of each mask, an array of `RunLengths` as `masks` is."""
    boundaries = np.empty(len(masks), dtype=object)
    boundaries[:] = [boundary(one, width) for one in masks.tolist()]
    return boundaries


def boundary(of: RunLengths, width: float) -> RunLengths:
    """Return the part of a mask within `width` times the image's diagonal of its edge, at least a pixel."""
    pixels = mask.decode(of)
    distance = max(1, round(width * math.hypot(*of["size"])))
    x, y, w, h = map(int, mask.toBbox(of))
    crop = pixels[y : y + h, x : x + w]
    if crop.size:  # a mask may be empty
        # A border of its own: beyond an image OpenCV would see no edge.
        padded = cv2.copyMakeBorder(crop, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
        crop[inner[1:-1, 1:-1] > 0] = 0
    return mask.encode(pixels)


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else UNDEFINED
