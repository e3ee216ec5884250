"""The outcome of each detection: right, or the kind of error that it is, and the object concerned."""

# D detections, G objects

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import IOUS, Matched, Rows

OUTCOMES = ("right", "classification", "localisation", "both", "duplicate", "background")
RIGHT, CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND = range(len(OUTCOMES))
NOT_COUNTED = -1
_POSITIVE, _BACKGROUND = IOUS[0], 0.1


@dataclass(frozen=True)
class Objects:
    """The boxes of the ground truth in the order of its annotations: `images` and `classes` count from 0.

    Those that are `ignored` need not be found: crowds, and objects without what the task compares.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes_xywh: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(cls, matched: Matched) -> Objects:
        annotations = matched.truth.annotations
        return cls(
            images=annotations.image_of,
            classes=annotations.labels,
            boxes_xywh=annotations.boxes_xywh,
            crowd=annotations.crowd,
            ignored=matched.truth.ignored,
        )


@dataclass(frozen=True)
class Outcomes:
    """What became of each detection of `rows`, at IoU 0.5, as TIDE (Bolya et al. 2020) sees it.

    `kinds` (D) are places in `OUTCOMES`, -1 for a detection that does not count (in a crowd, or beyond the
    100 best of its image and class). `objects` (D) is the annotation concerned, -1 for none: the matched
    object, or the one that the error is about; `overlaps` (D) is the IoU with it. A score threshold changes
    none of it: a detection's match depends only on better ones.
    """

    rows: Rows
    kinds: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


def outcomes(matched: Matched) -> Outcomes:
    rows, truth = matched.rows, Objects.of(matched)
    count = len(rows.scores)
    kinds, objects, overlaps = np.full(count, NOT_COUNTED), np.full(count, -1), np.zeros(count)
    wrong = np.zeros(count, dtype=bool)
    for of_class in matched.classes:
        counted = ~of_class.ignored[0, 0]
        hit = counted & of_class.matched[0, 0]
        right_rows = of_class.rows[hit]
        kinds[right_rows], objects[right_rows] = RIGHT, of_class.matched_object[hit]
        overlaps[right_rows] = of_class.overlaps[hit]
        wrong[of_class.rows[counted & ~of_class.matched[0, 0]]] = True
    by_image = np.argsort(truth.images, kind="stable")
    starts = np.searchsorted(truth.images[by_image], np.arange(matched.truth.num_images + 1))
    first, last = starts[rows.images - 1], starts[rows.images]
    kinds[wrong & (first == last)] = BACKGROUND
    chosen = np.flatnonzero(wrong & (first < last))  # by image, as `rows` are
    for here in np.split(chosen, np.flatnonzero(np.diff(rows.images[chosen])) + 1) if len(chosen) else ():
        image = rows.images[here[0]]
        there = by_image[starts[image - 1] : starts[image]]
        same = rows.categories[here][:, None] - 1 == truth.classes[there]
        crowd = truth.crowd[there]
        ious = rows.overlaps(matched.truth, here, there, crowd)
        ious[~same & crowd] = 0.0  # as hotcoco counts: near a crowd of its own class a box is inexact
        kinds[here], place, overlaps[here] = _errors(ious, same)
        objects[here] = np.where(place >= 0, there[place], -1)
    return Outcomes(rows, kinds, objects, overlaps)


def _errors(ious: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return kind, object and overlap of wrong detections; `ious` and `same` (class) are (D, G)."""
    own, other = np.where(same, ious, 0.0), np.where(same, 0.0, ious)
    best_own, best_other, best = own.max(axis=1), other.max(axis=1), ious.max(axis=1)
    is_inexact = (best_own >= _BACKGROUND) & (best_own < _POSITIVE)
    kinds = np.select(
        [is_inexact, best_other >= _POSITIVE, best_own >= _POSITIVE, best <= _BACKGROUND],
        [LOCALIZATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        default=BOTH,
    )
    place = np.select(
        [np.isin(kinds, (LOCALIZATION, DUPLICATE)), kinds == CLASSIFICATION, kinds == BOTH],
        [own.argmax(axis=1), other.argmax(axis=1), ious.argmax(axis=1)],
        default=-1,
    )
    overlap = np.where(place >= 0, np.take_along_axis(ious, place[:, None], axis=1)[:, 0], 0.0)
    return kinds, place, overlap
