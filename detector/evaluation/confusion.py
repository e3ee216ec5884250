"""Confusion of classes, consistent with the matches that AP counts."""

# D detections, G objects, K classes

from __future__ import annotations

import numpy as np

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.matching import AREAS, IOUS, Matched, Rows


def confusion(matched: Matched, *, score: float) -> tuple[tuple[int, int, int], ...]:
    """Return the nonzero entries (class of an object, class it was detected as, count) at IoU 0.5.

    Only detections from `score` on count. Classes count from 0; the last number stands for nothing: missed,
    or background. Detections that match an object of their own class are those that AP counts as right. The
    others, best first, each take the free object of highest IoU, whatever its class. Detections that lie in
    a crowd do not count.
    """
    rows, truth = matched.rows, matched.truth
    num_classes = len(truth.class_names)
    table = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    is_detected = np.zeros(len(truth.images), dtype=bool)
    others = []
    for number, of_class in enumerate(matched.classes):
        counted = (of_class.scores >= score) & ~of_class.ignored[0, 0]
        hit = counted & of_class.matched[0, 0]
        table[number, number] = np.count_nonzero(hit)
        is_detected[of_class.matched_object[hit]] = True
        others.append(of_class.rows[counted & ~of_class.matched[0, 0]])
    detections = np.sort(np.concatenate(others))  # by image, best first
    objects = np.flatnonzero(~is_detected & _counts(truth))
    class_of = truth.annotations.labels
    overlapped = _overlapped_objects(  # (D), -1 for none
        rows, truth, detections, objects
    )
    wrong = overlapped >= 0
    is_class = np.full(len(detections), num_classes)
    is_class[wrong] = class_of[objects[overlapped[wrong]]]
    np.add.at(table, (is_class, rows.categories[detections] - 1), 1)
    missed = np.delete(objects, overlapped[wrong])
    table[:num_classes, num_classes] = np.bincount(class_of[missed], minlength=num_classes)
    return tuple((int(i), int(j), int(table[i, j])) for i, j in np.argwhere(table))


def _counts(truth: GroundTruth) -> np.ndarray:
    """Return whether each annotation is an object to find (G)."""
    area = truth.annotations.areas
    lowest, highest = AREAS["all"]
    return ~truth.ignored & (area >= lowest) & (area <= highest)


def _overlapped_objects(
    rows: Rows, truth: GroundTruth, detections: np.ndarray, objects: np.ndarray
) -> np.ndarray:
    """Return the place in `objects` that each detection overlaps, whatever its class (D); -1 for none.

    Detections and objects are ordered by image; each object is taken at most once.
    """
    own, images = rows.images[detections], truth.images[objects]
    overlapped = np.full(len(detections), -1)
    for image in np.intersect1d(own, images):
        here = slice(*np.searchsorted(own, [image, image + 1]))
        there = slice(*np.searchsorted(images, [image, image + 1]))
        none = np.zeros(there.stop - there.start, dtype=bool)  # no object is a crowd
        ious = rows.overlaps(truth, detections[here], objects[there], none)
        for number in np.flatnonzero(ious.max(axis=1) >= IOUS[0]):
            best = int(ious[number].argmax())
            if ious[number, best] >= IOUS[0]:
                overlapped[here.start + number] = there.start + best
                ious[:, best] = 0.0
    return overlapped
