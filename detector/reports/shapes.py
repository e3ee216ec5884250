"""Masks and keypoints in a gallery: outlines and joints as short texts that the page's script draws."""

# D detections, G objects, K keypoints

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.coco.ground_truth import GroundTruth
from detector.coco.outlines import svg_path
from detector.evaluation.keypoints import Poses
from detector.evaluation.masks import Masks
from detector.evaluation.matching import Rows

TaskShapes = tuple[Rows, GroundTruth]  # the detections of a task with `shapes`, and what it evaluates

_BUDGET_BYTES = 2_000_000  # of the texts of objects, and of those of detections; what is beyond is a box
_DETAIL = 500  # parts of an image's longer side that an outline shows
_LEAST_TOLERANCE_PX = 0.7  # smooths the steps of pixels
_FINE_PX = 400  # points in smaller images have a decimal

Columns = dict[str, Any]


@dataclass(frozen=True)
class DrawnShapes:
    """What a gallery draws beside the boxes of one model.

    `shapes` are those of one task. Detection i of the gallery is its detection `rows[i]` (D), object j its
    annotation `objects[j]` (G), -1 for one that it has not.
    """

    shapes: Masks | Poses
    rows: np.ndarray
    objects: np.ndarray
    truth: GroundTruth

    @classmethod
    def of(cls, rows: Rows, truth: GroundTruth, task: TaskShapes) -> DrawnShapes | None:
        """Find the shapes of the detections and objects of a gallery; None if they are of other ones."""
        of_task, truth_of_task = task
        if not isinstance(of_task.shapes, Masks | Poses):
            return None
        ids, ids_of_task = truth.annotations.category_ids, truth_of_task.annotations.category_ids
        has_shape = np.isin(ids, ids_of_task)[rows.categories - 1]
        same = rows.selected(np.flatnonzero(has_shape))
        if not (np.array_equal(same.images, of_task.images) and np.array_equal(same.scores, of_task.scores)):
            return None
        places = np.full(len(rows.scores), -1)
        places[has_shape] = np.arange(len(of_task.scores))
        return cls(of_task.shapes, places, _objects(truth, truth_of_task), truth_of_task)


def bones(drawn: Iterable[DrawnShapes], class_names: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return for each class the pairs of keypoints, from 0, that a line joins; empty without keypoints."""
    of_class: dict[str, list[tuple[int, int]]] = {}
    for one in drawn:
        if isinstance(one.shapes, Poses):
            for name, category in zip(one.truth.class_names, one.truth.annotations.categories, strict=True):
                known = range(1, len(category.keypoints) + 1)
                pairs = [(a, b) for a, b in category.skeleton if a in known and b in known]
                of_class[name] = [(a - 1, b - 1) for a, b in pairs]
    return [of_class.get(name, []) for name in class_names] if of_class else []


def object_columns(drawn: Sequence[DrawnShapes], objects: np.ndarray, images: np.ndarray) -> Columns:
    """Return the columns of objects, whose images have those numbers, as long as the budget lasts."""
    columns: Columns = {}
    for one in drawn:
        name, text = _writer(one, of_objects=True)
        columns[name], _ = _texts(text, one.objects[objects], images, _BUDGET_BYTES // len(drawn))
    return columns


def detection_columns(drawn: Sequence[DrawnShapes], rows: Rows, shown: np.ndarray, *, models: int) -> Columns:
    """Return the columns of the `shown` rows, as long as the share of one of `models` lasts, best first.

    "plain_below" is the score below which detections have their boxes alone, 0 if none has.
    """
    columns: Columns = {"plain_below": 0.0}
    best_first = np.argsort(-rows.scores[shown], kind="stable")
    order = shown[best_first]
    for one in drawn:
        name, text = _writer(one, of_objects=False)
        budget = _BUDGET_BYTES // (models * len(drawn))
        texts, count = _texts(text, one.rows[order], rows.images[order] - 1, budget)
        columns[name] = [texts[place] for place in np.argsort(best_first).tolist()]
        if count < len(order):
            columns["plain_below"] = max(columns["plain_below"], round(float(rows.scores[order[count]]), 3))
    return columns


def _texts(
    text: Callable[[int, int], str], places: np.ndarray, images: np.ndarray, budget: int
) -> tuple[list[str], int]:
    """Return the texts of shapes, "" for the place -1 and beyond the budget, and how many fit."""
    texts: list[str] = []
    for place, image in zip(places.tolist(), images.tolist(), strict=True):
        texts.append(text(place, image) if place >= 0 else "")
        budget -= len(texts[-1])
        if budget < 0:
            break
    return texts + [""] * (len(places) - len(texts)), len(texts)


def _objects(truth: GroundTruth, of_task: GroundTruth) -> np.ndarray:
    """Return the annotation of a task for each annotation of a gallery's ground truth (G), -1 for none."""
    a, b = truth.annotations, of_task.annotations
    keys = (zip(x.image_of.tolist(), x.annotation_ids.tolist(), strict=True) for x in (b, a))
    place = {key: number for number, key in enumerate(next(keys))}
    return np.array([place.get(key, -1) for key in next(keys)], dtype=np.int64)


def _writer(drawn: DrawnShapes, *, of_objects: bool) -> tuple[str, Callable[[int, int], str]]:
    """Return the name of the column, and what writes the shape of one detection or object of an image."""
    shapes, sizes = drawn.shapes, drawn.truth.annotations.sizes
    if isinstance(shapes, Masks):
        masks = shapes.objects if of_objects else shapes.detections

        def outline(place: int, image: int) -> str:
            tolerance = max(_LEAST_TOLERANCE_PX, sizes[image].max() / _DETAIL)
            return svg_path(masks[place]["counts"], height=int(sizes[image, 0]), tolerance_px=tolerance)

        return "outline", outline
    keypoints = drawn.truth.annotations.keypoints

    def joints(place: int, image: int) -> str:
        if of_objects:
            assert keypoints is not None, "the task has read them"
            points = keypoints.of(place)
            is_seen = points[:, 2] > 0
        else:
            points = shapes.points[shapes.first[place] : shapes.first[place + 1]]
            is_seen = points[:, 2] >= 0
        decimals = 1 if sizes[image].max() < _FINE_PX else 0
        xy = zip(*np.round(points[:, :2], decimals).T.tolist(), is_seen.tolist(), strict=True)
        return " ".join(f"{x:g},{y:g}" if seen else "-" for x, y, seen in xy)

    return "joints", joints
