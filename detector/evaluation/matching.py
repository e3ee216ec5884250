"""COCO's greedy matching of detections with objects, done once for all analyses that need it.

It makes the same decisions as `COCOeval.evaluate`, in flat arrays: a problem of COCO's size fits in tens of
megabytes and takes seconds.
"""

# N images, D detections (of a class), G objects (of a class and image), A areas (4), T IoU thresholds (10)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import id_key
from detector.evaluation.result_columns import ResultColumns, numbered_by

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
IOUS = np.linspace(0.5, 0.95, 10)
LIMIT = 100  # detections per image and class

_RANGES = np.array([*AREAS.values()])


@dataclass(frozen=True)
class Rows:
    """Detections sorted by image, then best first; equal scores keep their order.

    `images` and `categories` (D) are the numbers of a `GroundTruth`, which count from 1; `boxes_xywh` is
    (D, 4), `scores` (D).
    """

    images: np.ndarray
    categories: np.ndarray
    boxes_xywh: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, results: Sequence[dict[str, Any]], truth: GroundTruth) -> Rows:
        """Convert checked results."""
        images, categories = truth.image_numbers, truth.category_numbers
        count = len(results)
        image = np.fromiter((images[id_key(r["image_id"])] for r in results), np.int64, count)
        category = np.fromiter((categories[id_key(r["category_id"])] for r in results), np.int64, count)
        score = np.fromiter((r["score"] for r in results), np.float64, count)
        box = np.fromiter((v for r in results for v in r["bbox"]), np.float64, 4 * count).reshape(-1, 4)
        return cls(image, category, box, score)._sorted()

    @classmethod
    def of_columns(cls, columns: ResultColumns, truth: GroundTruth) -> Rows:
        """Convert the columns of checked results."""
        image = numbered_by(columns.image_ids, truth.image_numbers)
        category = numbered_by(columns.category_ids, truth.category_numbers)
        return cls(image, category, columns.boxes_xywh, columns.scores)._sorted()

    def _sorted(self) -> Rows:
        return self.selected(np.lexsort((-self.scores, self.images)))

    def selected(self, chosen: np.ndarray) -> Rows:
        columns = (self.images, self.categories, self.boxes_xywh, self.scores)
        return Rows(*(column[chosen] for column in columns))


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class, best first, at most 100 per image.

    `rows` (D) holds their positions in the `Rows`, `images` (D) numbers images from 0, `scores` is (D).
    `matched` and `ignored` (A, T, D) tell whether a detection matched an object, and whether it is left out
    of the count. `objects` (A, N) is the number of objects to find in each image. `matched_object` (D) is the
    object matched at IoU 0.5 among those of all areas, as an index into the annotations of the ground truth,
    -1 for none; `overlaps` (D) is the IoU with it, 0 for none.
    """

    rows: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    matched_object: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True)
class _Objects:
    """The objects of one class, by image: `images` (G) count from 0; `places` (G) index all annotations."""

    places: np.ndarray
    images: np.ndarray
    boxes_xywh: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray  # (A, G)


@dataclass(frozen=True)
class Matched:
    """The detections of one model, matched with the ground truth.

    Errors, confusions, F1, intervals and galleries all take it. `classes` are in the order of their numbers.
    """

    rows: Rows
    truth: GroundTruth
    classes: tuple[ClassMatches, ...]


def match(rows: Rows, truth: GroundTruth) -> Matched:
    classes = [
        _match_class(
            rows,
            np.flatnonzero(rows.categories == number),
            _objects(truth, np.flatnonzero(truth.categories == number)),
            num_images=truth.num_images,
        )
        for number in range(1, len(truth.class_names) + 1)
    ]
    return Matched(rows, truth, tuple(classes))


def _objects(truth: GroundTruth, places: np.ndarray) -> _Objects:
    annotations = truth.annotations
    crowd = annotations.crowd[places]
    return _Objects(
        places=places,
        images=truth.images[places] - 1,
        boxes_xywh=annotations.boxes_xywh[places],
        crowd=crowd,
        ignored=crowd | _outside(annotations.areas[places]),
    )


def _outside(area: np.ndarray) -> np.ndarray:
    """Return whether each area, in square pixels, lies outside each range: (A, number of areas)."""
    return (area < _RANGES[:, :1]) | (area > _RANGES[:, 1:])


def _match_class(all_rows: Rows, chosen: np.ndarray, objects: _Objects, *, num_images: int) -> ClassMatches:
    images = all_rows.images[chosen] - 1
    first = np.searchsorted(images, np.arange(num_images))
    kept = np.arange(len(images)) - first[images] < LIMIT
    rows, images = all_rows.selected(chosen[kept]), images[kept]
    edges = np.arange(num_images + 1)
    starts, object_starts = np.searchsorted(images, edges), np.searchsorted(objects.images, edges)

    shape = (len(AREAS), len(IOUS), len(images))
    matched, ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    matched_object, overlaps = np.full(len(images), -1), np.zeros(len(images))
    for image in np.unique(objects.images):
        here = slice(starts[image], starts[image + 1])
        there = slice(object_starts[image], object_starts[image + 1])
        if here.start == here.stop:
            continue
        crowd = objects.crowd[there]
        ious = mask.iou(rows.boxes_xywh[here], objects.boxes_xywh[there], crowd.astype(np.uint8))
        _match_image(
            ious,
            crowd,
            objects.ignored[:, there],
            matched=matched[..., here],
            ignored=ignored[..., here],
            matched_object=matched_object[here],
            overlaps=overlaps[here],
        )
        hit = matched_object[here] >= 0
        matched_object[here][hit] = objects.places[there][matched_object[here][hit]]
    outside = _outside(rows.boxes_xywh[:, 2] * rows.boxes_xywh[:, 3])
    ignored |= ~matched & outside[:, None]
    order = np.argsort(-rows.scores, kind="stable")
    return ClassMatches(
        rows=chosen[kept][order],
        images=images[order],
        scores=rows.scores[order],
        matched=matched[..., order],
        ignored=ignored[..., order],
        objects=np.stack([np.bincount(objects.images[~i], minlength=num_images) for i in objects.ignored]),
        matched_object=matched_object[order],
        overlaps=overlaps[order],
    )


def _match_image(
    ious: np.ndarray,
    crowd: np.ndarray,
    object_ignored: np.ndarray,
    *,
    matched: np.ndarray,
    ignored: np.ndarray,
    matched_object: np.ndarray,
    overlaps: np.ndarray,
) -> None:
    """Match the detections of one image and class, best first, with its objects.

    Each takes the free object of highest IoU that counts, or else that of highest IoU that does not count; of
    equal IoUs the last. Crowds are always free. Writes to `matched` and `ignored` (A, T, D), `matched_object`
    (D), an index into the objects of the image and class, and `overlaps` (D); `ious` is (D, G).
    """
    free = np.ones((len(AREAS), len(IOUS), len(crowd)), dtype=bool)
    counts = ~object_ignored[:, None]
    for number in np.flatnonzero(ious.max(axis=1) >= IOUS[0]):
        row = ious[number]
        possible = free & (row >= IOUS[:, None])
        counted = possible & counts
        possible = np.where(counted.any(axis=-1, keepdims=True), counted, possible)
        nearest = len(row) - 1 - np.where(possible, row, -1.0)[..., ::-1].argmax(axis=-1)
        hit = possible.any(axis=-1)
        area, iou = np.nonzero(hit)
        chosen = nearest[hit]
        matched[..., number] = hit
        ignored[area, iou, number] = object_ignored[area, chosen]
        free[area, iou, chosen] = crowd[chosen]
        if hit[0, 0]:
            matched_object[number] = nearest[0, 0]
            overlaps[number] = row[nearest[0, 0]]
