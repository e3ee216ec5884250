"""COCO's greedy matching of detections with objects, done once for all analyses that need it.

It makes the same decisions as `COCOeval.evaluate`, in flat arrays: a problem of COCO's size fits in tens of
megabytes and takes seconds.
"""

# N images, D detections (of a class), G objects (of a class and image), A areas (4), T IoU thresholds (10)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pycocotools import mask

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import id_key
from detector.evaluation.result_columns import ResultColumns, numbered_by
from detector.option_types import TaskName

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
IOUS = np.linspace(0.5, 0.95, 10)
LIMIT = 100  # detections per image and class
KEYPOINT_LIMIT: Literal[20] = 20  # the same for keypoints
TIDE_IOUS = {"pos_thr": 0.5, "bg_thr": 0.1}  # of its kinds of errors

_RANGES = np.array([*AREAS.values()])


class Shapes(ABC):
    """The masks or keypoints of detections, with those of the objects that they are compared with.

    Detections are numbered as the `Rows`, objects as the annotations of the ground truth. At most `limit`
    detections per image and class count.
    """

    task: ClassVar[TaskName]
    limit: ClassVar[int] = LIMIT

    @property
    @abstractmethod
    def areas(self) -> np.ndarray:
        """The area that decides the size of each detection (D), in square pixels."""

    @abstractmethod
    def selected(self, chosen: np.ndarray) -> Shapes:
        """Select detections; the objects stay."""

    @abstractmethod
    def classes_by_schema(self) -> Sequence[tuple[np.ndarray, tuple[float, ...] | None]]:
        """Return the classes (from 0) that an engine scores in one run, and the sigmas of their keypoints."""

    @abstractmethod
    def engine_detections(self) -> dict[str, list[Any]]:
        """Return the columns that an engine needs of detections besides image, class, box, score and area."""

    @abstractmethod
    def engine_objects(self) -> dict[str, list[Any]]:
        """Return the columns that an engine needs of objects besides image, class, box, area and crowd."""

    @abstractmethod
    def overlaps(self, detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        """Return how well chosen detections and objects of one image agree, from 0 to 1 (D, G).

        Of `crowd` (0 or 1 for each object) a detection may cover any part.
        """


@dataclass(frozen=True, eq=False)  # equal to nothing but itself, as what is computed of it is kept by it
class Rows:
    """Detections sorted by image, then best first; equal scores keep their order.

    `images` and `categories` (D) are the numbers of a `GroundTruth`, which count from 1; `boxes_xywh` is
    (D, 4), `scores` (D). With `shapes` these are compared with the objects, not the boxes.
    """

    images: np.ndarray
    categories: np.ndarray
    boxes_xywh: np.ndarray
    scores: np.ndarray
    shapes: Shapes | None = None

    @property
    def limit(self) -> int:
        """The number of detections per image and class that count."""
        return LIMIT if self.shapes is None else self.shapes.limit

    @property
    def areas(self) -> np.ndarray:
        """The area of each detection (D), in square pixels."""
        return self.boxes_xywh[:, 2] * self.boxes_xywh[:, 3] if self.shapes is None else self.shapes.areas

    def overlaps(
        self, truth: GroundTruth, detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray
    ) -> np.ndarray:
        """Return the overlaps of some of these with annotations of their image, as `Shapes.overlaps`."""
        if self.shapes is not None:
            return self.shapes.overlaps(detections, objects, crowd)
        boxes = truth.annotations.boxes_xywh
        return np.asarray(mask.iou(self.boxes_xywh[detections], boxes[objects], crowd.astype(np.uint8)))

    @classmethod
    def of(
        cls,
        results: Sequence[dict[str, Any]],
        truth: GroundTruth,
        *,
        boxes_xywh: np.ndarray | None = None,
        shapes: Shapes | None = None,
    ) -> Rows:
        """Convert checked results; their boxes are `boxes_xywh`, or else those that they have."""
        images, categories = truth.image_numbers, truth.category_numbers
        count = len(results)
        image = np.fromiter((images[id_key(r["image_id"])] for r in results), np.int64, count)
        category = np.fromiter((categories[id_key(r["category_id"])] for r in results), np.int64, count)
        score = np.fromiter((r["score"] for r in results), np.float64, count)
        if boxes_xywh is None:
            numbers = np.fromiter((v for r in results for v in r["bbox"]), np.float64, 4 * count)
            boxes_xywh = numbers.reshape(-1, 4)
        return cls(image, category, boxes_xywh, score, shapes)._sorted()

    @classmethod
    def of_columns(cls, columns: ResultColumns, truth: GroundTruth) -> Rows:
        """Convert the columns of checked results."""
        image = numbered_by(columns.image_ids, truth.image_numbers)
        category = numbered_by(columns.category_ids, truth.category_numbers)
        return cls(image, category, columns.boxes_xywh, columns.scores)._sorted()

    def _sorted(self) -> Rows:
        return self.selected(np.lexsort((-self.scores, self.images)))

    def selected(self, chosen: np.ndarray) -> Rows:
        return Rows(
            self.images[chosen],
            self.categories[chosen],
            self.boxes_xywh[chosen],
            self.scores[chosen],
            None if self.shapes is None else self.shapes.selected(chosen),
        )


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class, best first, at most `limit` per image.

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
    areas = rows.areas
    classes = [
        _match_class(
            rows,
            areas,
            truth,
            np.flatnonzero(rows.categories == number),
            _objects(truth, np.flatnonzero(truth.categories == number)),
        )
        for number in range(1, len(truth.class_names) + 1)
    ]
    return Matched(rows, truth, tuple(classes))


def _objects(truth: GroundTruth, places: np.ndarray) -> _Objects:
    return _Objects(
        places=places,
        images=truth.images[places] - 1,
        crowd=truth.annotations.crowd[places],
        ignored=truth.ignored[places] | _outside(truth.annotations.areas[places]),
    )


def _outside(area: np.ndarray) -> np.ndarray:
    """Return whether each area, in square pixels, lies outside each range: (A, number of areas)."""
    return (area < _RANGES[:, :1]) | (area > _RANGES[:, 1:])


def _match_class(
    rows: Rows, areas: np.ndarray, truth: GroundTruth, chosen: np.ndarray, objects: _Objects
) -> ClassMatches:
    num_images = truth.num_images
    images = rows.images[chosen] - 1
    first = np.searchsorted(images, np.arange(num_images))
    kept = np.arange(len(images)) - first[images] < rows.limit
    chosen, images = chosen[kept], images[kept]
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
        overlap = rows.overlaps(truth, chosen[here], objects.places[there], crowd)
        _match_image(
            overlap,
            crowd,
            objects.ignored[:, there],
            matched=matched[..., here],
            ignored=ignored[..., here],
            matched_object=matched_object[here],
            overlaps=overlaps[here],
        )
        hit = matched_object[here] >= 0
        matched_object[here][hit] = objects.places[there][matched_object[here][hit]]
    ignored |= ~matched & _outside(areas[chosen])[:, None]
    scores = rows.scores[chosen]
    order = np.argsort(-scores, kind="stable")
    return ClassMatches(
        rows=chosen[order],
        images=images[order],
        scores=scores[order],
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
