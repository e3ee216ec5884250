"""Error analysis of detections: kinds of errors, precision and recall, scores, confusions, images."""

# N images, D detections (of a class), K classes, T IoU thresholds (10)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.backends import hotcoco_run
from detector.evaluation.confusion import confusion
from detector.evaluation.f1 import Counts, f1_by_score, f1_of_class
from detector.evaluation.matching import IOUS, TIDE_IOUS, ClassMatches, Matched, Rows

RECALLS = np.linspace(0.0, 1.0, 101)
# TIDE (Bolya et al. 2020), in the order of its figures, as errors.json names them; hotcoco's names.
KINDS = {
    "classification": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
_PRECISIONS = {"0.50": slice(0, 1), "0.75": slice(5, 6), "0.50:0.95": slice(None)}


@dataclass(frozen=True)
class Lrp:
    """The optimal localization recall precision error (Oksuz et al. 2018), in [0, 1]; lower is better.

    `total` is the mean over classes of the least error that any score threshold gives. Its parts at that
    threshold are 1 - mean IoU of the matched detections, 1 - precision, and 1 - recall. None: there are no
    objects, or none is found.
    """

    total: float | None
    localisation: float | None
    false_positives: float | None
    missed: float | None


@dataclass(frozen=True)
class ErrorAnalysis:
    """The error analysis of one model, at IoU 0.5 unless stated; means over the classes with objects.

    `lost` is the AP50 that fixing all errors of one kind would gain (TIDE), `counts` the number of errors
    among all detections, `counts_at_best` among those with a score of at least `best_score`. `precision`
    holds, for each IoU, the precision at the recalls 0, 0.01 ... 1. `f1` is F1 at each of the thresholds
    `scores`: 0, 0.01 ... 1, or a wider range if scores exceed it; it is highest at `best_score`. `confusion`
    holds the nonzero entries (class of an object, class it was detected as, count), for detections from
    `best_score` on; classes count from 0, and the last number stands for nothing: missed, or background.
    """

    lost: Mapping[str, float]
    counts: Mapping[str, int]
    counts_at_best: Mapping[str, int]
    precision: Mapping[str, tuple[float, ...]]
    scores: tuple[float, ...]
    f1: tuple[float, ...]
    best_score: float
    lrp: Lrp
    confusion: tuple[tuple[int, int, int], ...]

    @property
    def best_f1(self) -> float:
        return max(self.f1)


@dataclass(frozen=True)
class ClassCurve:
    """The curves of one class at IoU 0.5, and its number of objects.

    `precision` is that at `RECALLS`, interpolated, `f1` that at each of the `scores` of an `ErrorAnalysis`.
    `operating_point` is (precision, recall) from its `best_score` on; None without such detections or
    without objects.
    """

    objects: int
    precision: tuple[float, ...]
    f1: tuple[float, ...]
    operating_point: tuple[float, float] | None


def class_curves(matched: Matched, errors: ErrorAnalysis) -> list[ClassCurve]:
    """Return the curves of each class, in the order of the classes."""
    curves = []
    for matches in matched.classes:
        counts = Counts.of(matches)
        if not counts.objects:
            curves.append(ClassCurve(0, (), (), None))
            continue
        num_detections = int(np.searchsorted(-counts.scores, -errors.best_score, side="right"))
        right = int(counts.hits[num_detections])
        curves.append(
            ClassCurve(
                objects=counts.objects,
                precision=tuple(_precision_of_class(matches)[0].tolist()),
                f1=tuple(f1_of_class(counts, np.array(errors.scores)).tolist()),
                operating_point=(right / num_detections, right / counts.objects) if num_detections else None,
            )
        )
    return curves


def analyze_errors(matched: Matched) -> ErrorAnalysis:
    rows, truth = matched.rows, matched.truth
    tide = _tide(rows, truth)
    scores, f1 = f1_by_score(matched)
    best = float(scores[int(f1.argmax())])
    at_best = _tide(rows.selected(rows.scores >= best), truth)
    return ErrorAnalysis(
        lost={kind: float(tide["delta_ap"][key]) for kind, key in KINDS.items()},
        counts={kind: int(tide["counts"][key]) for kind, key in KINDS.items()},
        counts_at_best={kind: int(at_best["counts"][key]) for kind, key in KINDS.items()},
        precision=_precision(matched.classes),
        scores=tuple(scores.tolist()),
        f1=tuple(f1.tolist()),
        best_score=best,
        lrp=_lrp(matched.classes),
        confusion=confusion(matched, score=best),
    )


def _tide(rows: Rows, truth: GroundTruth) -> dict[str, Any]:
    """Run TIDE on a hotcoco run of its own: keeping one takes gigabytes with many classes."""
    if rows.shapes is not None:
        from detector.evaluation.shape_backends import shape_tide  # boxes do without

        return shape_tide(rows, truth)
    tide: dict[str, Any] = hotcoco_run(rows, truth).tide_errors(**TIDE_IOUS)
    return tide


def image_f1(matched: Matched, *, score: float) -> np.ndarray:
    """Compute F1 of each image (N) over all its classes, as the mean over the IoUs 0.50:0.95.

    Detections count from `score` on. F1 is 1 for an image without objects and detections.
    """
    num_images = matched.truth.num_images
    hits, detections = np.zeros((len(IOUS), num_images)), np.zeros((len(IOUS), num_images))
    for of_class in matched.classes:
        chosen = of_class.scores >= score
        for iou in range(len(IOUS)):
            counted = chosen & ~of_class.ignored[0, iou]
            hit = counted & of_class.matched[0, iou]
            detections[iou] += np.bincount(of_class.images[counted], minlength=num_images)
            hits[iou] += np.bincount(of_class.images[hit], minlength=num_images)
    objects = np.sum([of_class.objects[0] for of_class in matched.classes], axis=0)
    total = detections + objects
    return np.asarray(np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0).mean(axis=0))


def _precision(classes: Sequence[ClassMatches]) -> dict[str, tuple[float, ...]]:
    of_classes = [_precision_of_class(c) for c in classes if c.objects[0].any()]
    if not of_classes:
        return dict.fromkeys(_PRECISIONS, (0.0,) * len(RECALLS))
    precision = np.stack(of_classes).transpose(1, 2, 0)
    return {name: tuple(precision[ious].mean(axis=(0, 2)).tolist()) for name, ious in _PRECISIONS.items()}


def _precision_of_class(matches: ClassMatches) -> np.ndarray:
    """Interpolate precision at `RECALLS` (T, R), equal to pycocotools' to the last digit."""
    kept = ~matches.ignored[0]
    hits = np.cumsum(matches.matched[0] & kept, axis=1)
    false = np.cumsum(~matches.matched[0] & kept, axis=1)
    precision = hits / (hits + false + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    highest = np.append(highest, np.zeros((len(IOUS), 1)), axis=1)  # for recalls that are not reached
    recall = hits / matches.objects[0].sum()
    return np.stack([one[np.searchsorted(at, RECALLS)] for one, at in zip(highest, recall, strict=True)])


def _lrp(matches: Sequence[ClassMatches]) -> Lrp:
    parts = np.array([_lrp_of_class(c) for c in map(Counts.of, matches) if c.objects]).reshape(-1, 4)
    defined = [part[~np.isnan(part)] for part in parts.T]
    return Lrp(*(float(part.mean()) if part.size else None for part in defined))


def _lrp_of_class(counts: Counts) -> tuple[float, float, float, float]:
    last = np.append(counts.scores[1:] != counts.scores[:-1], True)  # equal scores count together
    num_detections = np.append(0, np.flatnonzero(last) + 1) if counts.scores.size else np.array([0])
    hits, misplaced = counts.hits[num_detections], counts.misplaced[num_detections]
    false, missed = num_detections - hits, counts.objects - hits
    error = (misplaced / (1 - IOUS[0]) + false + missed) / (hits + false + missed)
    best = int(error.argmin())
    if not hits[best]:
        return float(error[best]), np.nan, np.nan, 1.0
    return (
        float(error[best]),
        float(misplaced[best] / hits[best]),
        float(false[best] / num_detections[best]),
        float(missed[best] / counts.objects),
    )
