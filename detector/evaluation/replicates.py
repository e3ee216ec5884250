"""COCO metrics of weighted images, which a bootstrap over images needs hundreds of times.

Detections are matched once. An image of weight n counts as n copies of it, so integer weights give to the
last digit what pycocotools gives for a ground truth with that many copies of each image. The exception is a
class whose detections tie in score within an image: there the copies rank differently.
"""

# N images, D detections in a list, L lists, S segments (list x IoU), P true positives of all segments,
# R recall thresholds (101), T IoU thresholds (10)

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import AREAS, IOUS, ClassMatches, Matched
from detector.evaluation.metrics import BY_CLASS, UNDEFINED, CurveMetric, MetricSpec


class Replicates:
    """The metrics of one model's detections under any weights of the images.

    A list holds the detections of one class and area; a segment is a list at one IoU. All arrays that do not
    depend on the weights are built once, so that a replicate is a handful of passes over flat arrays. `areas`
    leaves out the metrics of other areas, and the time and memory that they take. `specs` are metrics, of
    which those with `by_class` are computed; `custom` computes those that are no curves' from the weights.
    """

    def __init__(
        self,
        classes: Iterable[ClassMatches],
        *,
        areas: Sequence[str] = tuple(AREAS),
        specs: Sequence[MetricSpec] = BY_CLASS,
        custom: Callable[[np.ndarray], Mapping[str, float]] = lambda weights: {},
    ) -> None:
        self.areas, self._custom = tuple(areas), custom
        curves = [s for s in specs if isinstance(s, CurveMetric) and s.by_class and s.limit not in (1, 10)]
        # In the order of comparison.json.
        self._curves = sorted(curves, key=lambda spec: (spec.kind, spec.iou is not None))
        chosen = [list(AREAS).index(area) for area in areas]
        objects, self._thresholds, self._num_ious = [], np.linspace(0.0, 1.0, 101), len(IOUS)
        # Detections that count at every IoU, list by list; then those that count at some IoUs, by segment.
        always, some, hits, before_always, before_some = [], [], [], [], []
        ranked_always = ranked_some = 0
        self.num_classes = 0
        for of_class in classes:
            self.num_classes += 1
            objects.append(of_class.objects[chosen])
            for matched, ignored in zip(of_class.matched[chosen], of_class.ignored[chosen], strict=True):
                kept = ~ignored.any(axis=0)
                rank = ranked_always + np.cumsum(kept)  # always-counted detections up to and including each
                always.append(of_class.images[kept])
                for matched_here, ignored_here in zip(matched, ignored, strict=True):
                    counted_here = ~kept & ~ignored_here
                    (hit,) = np.nonzero(matched_here & ~ignored_here)
                    some.append(of_class.images[counted_here])
                    hits.append(of_class.images[hit])
                    before_always.append(rank[hit])
                    before_some.append(ranked_some + np.cumsum(counted_here)[hit])
                    ranked_some += len(some[-1])
                ranked_always += len(always[-1])
        self._objects = np.concatenate(objects).astype(np.float64)
        self.num_images = self._objects.shape[1]
        self._always, self._some = np.concatenate(always), np.concatenate(some)
        self._hits = np.concatenate(hits)
        self._places = np.arange(len(self._hits), dtype=np.int32)
        self._before_always = np.concatenate(before_always)
        self._before_some = np.concatenate(before_some)
        self._hits_of, some_of, always_of = ([len(x) for x in lists] for lists in (hits, some, always))
        self._segment_end = np.cumsum(self._hits_of)
        self._segment_start = self._segment_end - self._hits_of
        self._some_start = np.cumsum(some_of) - some_of
        self._always_start = np.repeat(np.cumsum(always_of) - always_of, self._num_ious)

    def images_with_objects(self) -> tuple[np.ndarray, np.ndarray]:
        """Count the images that hold objects of each class (K), and of each of `areas`."""
        holds = self._objects.reshape(self.num_classes, len(self.areas), -1) > 0
        return holds[:, self.areas.index("all")].sum(axis=-1), holds.any(axis=0).sum(axis=-1)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics in `areas`, for each class; NaN where it has no object.

        `weights` (N) are whole numbers from 0: how often each image counts. Means over the classes that are
        not NaN are COCO's metrics. Custom metrics have one value over all classes.
        """
        assert weights.shape == (self.num_images,)
        objects = self._objects @ weights  # per list
        precision, hits = self._precision_and_hits(weights.astype(np.int32), objects)
        shape = (self.num_classes, len(self.areas), self._num_ious)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = hits.reshape(shape) / objects.reshape(*shape[:2], 1)
        defined = (objects > 0).reshape(*shape[:2], 1)
        recall = np.where(defined, recall, np.nan)
        ap = np.where(defined, precision.reshape(*shape, -1).mean(axis=-1), np.nan)
        curves = {"precision": ap, "recall": recall}
        values = {
            spec.name: curves[spec.kind][:, self.areas.index(spec.area), spec.ious].mean(axis=1)
            for spec in self._curves
            if spec.area in self.areas
        }
        custom = self._custom(weights).items()
        return values | {name: np.array([np.nan if v == UNDEFINED else v]) for name, v in custom}

    def _precision_and_hits(self, weights: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the interpolated precision (S, R) and the weight of the objects found (S)."""
        hit_weights = weights[self._hits]
        hits = _cumulative(hit_weights)
        always, some = _cumulative(weights[self._always]), _cumulative(weights[self._some])
        ranked = always[self._before_always] + some[self._before_some]
        ranked -= np.repeat(always[self._always_start] + some[self._some_start], self._hits_of)
        true = hits[1:] - np.repeat(hits[self._segment_start], self._hits_of)
        precision = true / (ranked + np.spacing(1))
        segment_hits = hits[self._segment_end] - hits[self._segment_start]
        reaching = np.append(np.repeat(self._places, hit_weights), len(self._places))
        first = reaching[np.clip(self._needed(hits, objects), 1, len(reaching)) - 1]
        # No recall is reached before a segment begins: a search for 0 hits may end in the segment before.
        first = np.clip(first, self._segment_start[:, None], self._segment_end[:, None])
        return self._envelope(precision, first), segment_hits

    def _needed(self, hits: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Return how many hits, including those of earlier segments, reach each recall (S, R)."""
        needed = np.ceil(self._thresholds * objects[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):  # the same comparison as in pycocotools
            needed -= (needed - 1) / objects[:, None] >= self._thresholds
            needed += needed / objects[:, None] < self._thresholds
        needed = np.repeat(needed.astype(np.int32), self._num_ious, axis=0)
        return hits[self._segment_start][:, None] + needed

    def _envelope(self, precision: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Return the highest precision from `first` (S, R) to the end of the segment, 0 at its end."""
        padded = np.append(precision, 0.0)
        bounds = np.concatenate([first, self._segment_end[:, None]], axis=1)
        highest = np.maximum.reduceat(padded, bounds.ravel()).reshape(bounds.shape)[:, :-1]
        highest = np.where(bounds[:, :-1] < bounds[:, 1:], highest, 0.0)  # an empty range has no precision
        return np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]


def replicates_of(matched: Matched, evaluator: CocoEvaluator) -> Replicates:
    """Return the replicates of all metrics of the evaluator with `by_class`."""
    return Replicates(
        matched.classes,
        specs=evaluator.specs,
        custom=lambda weights: evaluator.custom(resampled(matched, weights), by_class=True),
    )


def resampled(matched: Matched, weights: np.ndarray) -> Matched:
    """Return the matches with n copies of each image of weight n, every copy an image of its own."""
    counts = weights.astype(np.int64)
    return replace(matched, classes=tuple(_resampled(one, counts) for one in matched.classes))


def _resampled(one: ClassMatches, counts: np.ndarray) -> ClassMatches:
    repeats = counts[one.images]
    chosen = np.repeat(np.arange(len(repeats)), repeats)
    copy = np.arange(len(chosen)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return ClassMatches(
        rows=one.rows[chosen],
        images=(np.cumsum(counts) - counts)[one.images[chosen]] + copy,
        scores=one.scores[chosen],
        matched=one.matched[..., chosen],
        ignored=one.ignored[..., chosen],
        objects=np.repeat(one.objects, counts, axis=1),
        matched_object=one.matched_object[chosen],
        overlaps=one.overlaps[chosen],
    )


def _cumulative(values: np.ndarray) -> np.ndarray:
    """Sum the first 0, 1, 2... values; 32 bits hold the detections of all classes, copies included."""
    sums = np.empty(len(values) + 1, dtype=np.int32)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return sums
