"""COCO metrics of weighted images: what a bootstrap over images needs, hundreds of times.

Detections are matched once. An image of weight n counts as n copies of it, so that integer weights give what
pycocotools gives for a ground truth with that many copies of each image, to the last digit (a class whose
detections tie in score within an image aside: there the copies rank differently).
"""

# N images, D detections in a list, L lists, S segments (list x IoU), P true positives of all segments,
# R recall thresholds (101), T IoU thresholds (10)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

AREAS = ("all", "small", "medium", "large")
_LIMIT = 100  # detections of an image and class
_METRICS = {"AP": 0, "APs": 1, "APm": 2, "APl": 3}


@dataclass(frozen=True)
class _List:
    """The detections of one class, best first, as they count for objects of one area.

    `image` (D) numbers images from 0; `matched` and `ignored` are (T, D); `objects` (N) counts the objects to
    find in each image.
    """

    image: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


class Replicates:
    """Metrics of one model's detections under any weights of the images.

    Built from a COCOeval run after `evaluate()`. Lists are those of a class and an area; a segment is a list
    at one IoU. All arrays that do not depend on the weights are made here, so that a replicate is a handful
    of passes over flat arrays.
    """

    def __init__(self, run: COCOeval) -> None:
        lists = [*_lists(run)]
        self.num_images = len(run.params.imgIds)
        self.num_classes = len(run.params.catIds)
        self._thresholds = np.asarray(run.params.recThrs)
        self._num_ious = len(run.params.iouThrs)
        self._objects = np.stack([entry.objects for entry in lists]).astype(np.float64)
        # Detections that count at every IoU, list after list; then those that count at some, by segment.
        always = [~entry.ignored.any(axis=0) for entry in lists]
        self._always = np.concatenate([e.image[kept] for e, kept in zip(lists, always, strict=True)])
        always_end = np.cumsum([kept.sum() for kept in always])
        some, hits, before_always, before_some, hits_of = [], [], [], [], []
        seen = 0
        for number, (entry, kept) in enumerate(zip(lists, always, strict=True)):
            first = always_end[number - 1] if number else 0
            rank = first + np.cumsum(kept)  # of always-counted detections, up to and with each
            for matched, ignored in zip(entry.matched, entry.ignored, strict=True):
                counted_here = ~kept & ~ignored
                (hit,) = np.nonzero(matched & ~ignored)
                some.append(entry.image[counted_here])
                hits.append(entry.image[hit])
                before_always.append(rank[hit])
                before_some.append(seen + np.cumsum(counted_here)[hit])
                seen += int(counted_here.sum())
                hits_of.append(len(hit))
        self._some = np.concatenate(some)
        self._hits = np.concatenate(hits)
        self._places = np.arange(len(self._hits), dtype=np.int32)
        self._before_always = np.concatenate(before_always)
        self._before_some = np.concatenate(before_some)
        self._hits_of = np.asarray(hits_of)
        self._segment_end = np.cumsum(hits_of)
        self._segment_start = self._segment_end - self._hits_of
        some_of = [len(images) for images in some]
        self._some_start = np.cumsum(some_of) - some_of
        self._always_start = np.repeat(always_end - np.diff(always_end, prepend=0), self._num_ious)

    def images_with_objects(self) -> tuple[np.ndarray, np.ndarray]:
        """How many images hold objects of each class (K), and of each area of `AREAS` (4)."""
        holds = self._objects.reshape(self.num_classes, len(AREAS), -1) > 0
        return holds[:, 0].sum(axis=-1), holds.any(axis=0).sum(axis=-1)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """AP, AP50, AP75, APs, APm, APl and AR100 of each class, NaN where it has no object.

        `weights` (N): how often each image counts, whole numbers from 0. Means over the classes that are not
        NaN are COCO's numbers.
        """
        assert weights.shape == (self.num_images,)
        objects = self._objects @ weights  # of each list
        precision, found = self._precision_and_found(weights.astype(np.int32), objects)
        shape = (self.num_classes, len(AREAS), self._num_ious)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = found.reshape(shape) / objects.reshape(*shape[:2], 1)
        defined = (objects > 0).reshape(*shape[:2], 1)
        recall = np.where(defined, recall, np.nan)
        ap = np.where(defined, precision.reshape(*shape, -1).mean(axis=-1), np.nan)
        values = {name: ap[:, area].mean(axis=1) for name, area in _METRICS.items()}
        values["AP50"], values["AP75"] = ap[:, 0, 0], ap[:, 0, 5]
        values["AR100"] = recall[:, 0].mean(axis=1)
        return values

    def _precision_and_found(self, weights: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Interpolated precision (S, R), and the weight of the objects found (S)."""
        hit_weights = weights[self._hits]
        hits = _cumulative(hit_weights)
        always, some = _cumulative(weights[self._always]), _cumulative(weights[self._some])
        ranked = always[self._before_always] + some[self._before_some]
        ranked -= np.repeat(always[self._always_start] + some[self._some_start], self._hits_of)
        true = hits[1:] - np.repeat(hits[self._segment_start], self._hits_of)
        precision = true / (ranked + np.spacing(1))
        found = hits[self._segment_end] - hits[self._segment_start]
        reaching = np.append(np.repeat(self._places, hit_weights), len(self._places))
        first = reaching[np.clip(self._needed(hits, objects), 1, len(reaching)) - 1]
        # No recall is reached before a segment begins: a search for nothing may end in the one before.
        first = np.clip(first, self._segment_start[:, None], self._segment_end[:, None])
        return self._envelope(precision, first), found

    def _needed(self, hits: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """How many hits, those of the segments before included, reach each recall (S, R)."""
        needed = np.ceil(self._thresholds * objects[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):  # the comparison that pycocotools makes
            needed -= (needed - 1) / objects[:, None] >= self._thresholds
            needed += needed / objects[:, None] < self._thresholds
        needed = np.repeat(needed.astype(np.int32), self._num_ious, axis=0)
        return hits[self._segment_start][:, None] + needed

    def _envelope(self, precision: np.ndarray, first: np.ndarray) -> np.ndarray:
        """The highest precision from `first` (S, R) to the end of the segment, 0 at its end."""
        padded = np.append(precision, 0.0)
        bounds = np.concatenate([first, self._segment_end[:, None]], axis=1)
        highest = np.maximum.reduceat(padded, bounds.ravel()).reshape(bounds.shape)[:, :-1]
        highest = np.where(bounds[:, :-1] < bounds[:, 1:], highest, 0.0)  # an empty part has no precision
        return np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]


def _cumulative(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2... values, which 32 bits hold: detections of all classes, copies included."""
    sums = np.empty(len(values) + 1, dtype=np.int32)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return sums


def _lists(run: COCOeval) -> Iterator[_List]:
    """The lists of each class and area, in that order, as `COCOeval.accumulate` orders them."""
    images = len(run.params.imgIds)
    for position in range(len(run.params.catIds) * len(AREAS)):
        yield _list_of(run.evalImgs[position * images : (position + 1) * images], len(run.params.iouThrs))


def _list_of(entries: list[dict[str, Any] | None], num_ious: int) -> _List:
    objects = np.zeros(len(entries))
    scores, image, matched, ignored = [np.zeros(0)], [np.zeros(0, int)], [], []
    for number, entry in enumerate(entries):
        if entry is None:
            continue
        objects[number] = np.count_nonzero(entry["gtIgnore"] == 0)
        scores.append(np.asarray(entry["dtScores"][:_LIMIT]))
        image.append(np.full(len(scores[-1]), number))
        matched.append(entry["dtMatches"][:, :_LIMIT] != 0)
        ignored.append(entry["dtIgnore"][:, :_LIMIT] != 0)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    empty = [np.zeros((num_ious, 0), bool)]
    return _List(
        image=np.concatenate(image)[order],
        matched=np.concatenate(empty + matched, axis=1)[:, order],
        ignored=np.concatenate(empty + ignored, axis=1)[:, order],
        objects=objects,
    )
