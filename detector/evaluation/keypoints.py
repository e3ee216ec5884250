"""Keypoints as a task of the evaluation: object keypoint similarity (OKS), as in pycocotools."""

# D detections, M annotations, K keypoints of a class

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from detector.coco.annotations import Category, CocoAnnotations
from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import Key, id_key, is_id
from detector.coco.person import COCO_SIGMAS, UNIFORM_SIGMA
from detector.coco.ragged import gather, offsets
from detector.coco.rules import is_box, is_finite_number, shown
from detector.evaluation.matching import KEYPOINT_LIMIT, Rows, Shapes
from detector.evaluation.metrics import CurveMetric
from detector.evaluation.result_columns import Resolved
from detector.evaluation.result_ids import NamedResults
from detector.evaluation.result_problems import require_no_problems
from detector.evaluation.tasks import Task

KEYPOINT_METRICS = (  # in the order of COCO's own summary
    CurveMetric("AP", "AP", by_class=True, in_log=True, limit=KEYPOINT_LIMIT),
    CurveMetric("AP50", "AP50", iou=0.5, by_class=True, in_log=True, limit=KEYPOINT_LIMIT),
    CurveMetric("AP75", "AP75", iou=0.75, by_class=True, in_log=True, limit=KEYPOINT_LIMIT),
    CurveMetric("APm", "APm", area="medium", by_class=True, limit=KEYPOINT_LIMIT),
    CurveMetric("APl", "APl", area="large", by_class=True, limit=KEYPOINT_LIMIT),
    CurveMetric("AR", "AR", kind="recall", by_class=True, limit=KEYPOINT_LIMIT),
    CurveMetric("AR50", "AR50", kind="recall", iou=0.5, limit=KEYPOINT_LIMIT),
    CurveMetric("AR75", "AR75", kind="recall", iou=0.75, limit=KEYPOINT_LIMIT),
    CurveMetric("ARm", "ARm", kind="recall", area="medium", limit=KEYPOINT_LIMIT),
    CurveMetric("ARl", "ARl", kind="recall", area="large", limit=KEYPOINT_LIMIT),
)


@dataclass(frozen=True)
class Poses(Shapes):
    """The keypoints of detections, and the annotations that they are compared with.

    Detection i has the rows `first[i]` to `first[i + 1]` of `points`, x, y and score, and the area
    `extents[i]`. `sigmas` are those of each class.
    """

    task = "keypoints"
    limit = KEYPOINT_LIMIT

    points: np.ndarray
    first: np.ndarray
    extents: np.ndarray
    annotations: CocoAnnotations
    sigmas: tuple[tuple[float, ...], ...]

    @property
    def areas(self) -> np.ndarray:
        return self.extents

    def selected(self, chosen: np.ndarray) -> Poses:
        first, points = gather(self.first, chosen)
        return replace(self, points=self.points[points], first=first, extents=self.extents[chosen])

    def overlaps(self, detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        """Return OKS; 0 between classes with different numbers of keypoints. Crowds are as other objects."""
        annotations = self.annotations
        assert annotations.keypoints is not None
        similarity = np.zeros((len(detections), len(objects)))
        counts = np.diff(self.first)[detections]
        for count in np.unique(counts):
            same = np.flatnonzero(counts == count)
            xy = self.points[self.first[detections[same]][:, None] + np.arange(count), :2]
            for place, row in enumerate(objects.tolist()):
                points = annotations.keypoints.of(row)
                if len(points) == count:
                    similarity[same, place] = keypoint_similarity(
                        xy,
                        points,
                        box_xywh=annotations.boxes_xywh[row],
                        area=float(annotations.areas[row]),
                        sigmas=np.array(self.sigmas[annotations.labels[row]]),
                    )
        return similarity

    def classes_by_schema(self) -> Sequence[tuple[np.ndarray, tuple[float, ...]]]:
        by_sigmas: dict[tuple[float, ...], list[int]] = {}
        for label, sigmas in enumerate(self.sigmas):
            by_sigmas.setdefault(sigmas, []).append(label)
        return [(np.array(labels), sigmas) for sigmas, labels in by_sigmas.items()]

    def engine_detections(self) -> dict[str, list[Any]]:
        return {"keypoints": _flat(self.points, self.first)}

    def engine_objects(self) -> dict[str, list[Any]]:
        keypoints = self.annotations.keypoints
        assert keypoints is not None
        return {
            "keypoints": _flat(keypoints.points, keypoints.first),
            "num_keypoints": keypoints.labeled.tolist(),
        }


def keypoint_similarity(
    xy: np.ndarray, points: np.ndarray, *, box_xywh: np.ndarray, area: float, sigmas: np.ndarray
) -> np.ndarray:
    """Compute OKS of detected keypoints (D, K, 2) with those of an object (K, 3), to pycocotools' last digit.

    Only labeled points of the object count. One without any is its box, enlarged by its sides: points inside
    have no distance to it.
    """
    labeled = points[:, 2] > 0
    x, y = xy[..., 0], xy[..., 1]
    if labeled.any():
        dx, dy = x - points[:, 0], y - points[:, 1]
    else:
        left, top, width, height = box_xywh
        dx = np.maximum(0, (left - width) - x) + np.maximum(0, x - (left + width * 2))
        dy = np.maximum(0, (top - height) - y) + np.maximum(0, y - (top + height * 2))
    error = (dx**2 + dy**2) / (sigmas * 2) ** 2 / (area + np.spacing(1)) / 2
    if labeled.any():
        error = error[:, labeled]
    # In rows of their own, as pycocotools adds them: another order rounds otherwise.
    return np.asarray(np.exp(-np.ascontiguousarray(error)).sum(axis=1) / error.shape[1])


class KeypointTask(Task):
    """Keypoints of the classes that name some.

    The size of a detection is the area of its box where all have one, else of its mask where all have one,
    else of its keypoints' extent, as in pycocotools.
    """

    name = "keypoints"
    limit = KEYPOINT_LIMIT
    specs = KEYPOINT_METRICS

    def __init__(self, sigmas: tuple[float, ...] | None) -> None:
        self._sigmas = sigmas
        self._others: dict[Key, str] = {}  # the names of the categories without keypoints by their ids

    def truth(self, truth: GroundTruth) -> tuple[GroundTruth, tuple[str, ...]]:
        annotations = truth.annotations
        assert annotations.keypoints is not None, "they were not read"
        with_names = [label for label, one in enumerate(annotations.categories) if one.keypoints]
        labels = np.array(with_names, dtype=np.int64)
        self._others = {id_key(one.id): one.name for one in annotations.categories if not one.keypoints}
        if not len(labels):
            raise ValueError(
                f'{annotations.path}: no category names its keypoints. List them as "keypoints" of the '
                "category, or evaluate other tasks: tasks=[bbox]."
            )
        annotations = annotations.of_categories(labels)
        keypoints = annotations.keypoints
        assert keypoints is not None
        of_data = [truth.sigmas[label] if truth.sigmas else () for label in with_names]
        described = [*map(self._described, annotations.categories, of_data)]
        if self._sigmas is not None and not any(one == self._sigmas for one, _ in described):
            counts = ", ".join(f'"{one.name}" has {len(one.keypoints)}' for one in annotations.categories[:5])
            raise ValueError(
                f"evaluation.sigmas has {len(self._sigmas)} numbers, expected one for each keypoint of a "
                f"category of {annotations.path}: {counts}."
            )
        notes = _notes(described)
        if filled := int((keypoints.areas != annotations.areas).sum()):
            notes.append(
                f"{filled} objects without an area are taken for 0.53 of their box, as in CrowdPose."
            )
        annotations = replace(annotations, areas=keypoints.areas)
        sigmas = tuple(sigmas for sigmas, _ in described)
        return (
            replace(truth, annotations=annotations, not_sought=keypoints.labeled == 0, sigmas=sigmas),
            (*notes,),
        )

    def own(self, results: Sequence[Any]) -> tuple[Sequence[Any], tuple[str, ...]]:
        names, named = {*self._others.values()}, isinstance(results, NamedResults)

        def other(result: Any) -> str | None:
            """Return the name of the category of a result if it has no keypoints."""
            if not isinstance(result, Mapping):
                return None
            id_, name = result.get("category_id"), result.get("category_name")
            known = id_ is not None and is_id(id_)
            if isinstance(name, str) and (named or not known):
                return name if name in names else None
            return self._others.get(id_key(id_)) if known else None

        others = [*map(other, results)]
        kept = [result for result, name in zip(results, others, strict=True) if name is None]
        with_keypoints = [
            name
            for result, name in zip(results, others, strict=True)
            if name is not None and result.get("keypoints")
        ]
        if not with_keypoints:
            return (NamedResults(kept) if named else kept), ()
        names_once = [*dict.fromkeys(with_keypoints)]
        shown_names = ", ".join(names_once[:5]) + (", ..." if len(names_once) > 5 else "")
        note = (
            f"{len(with_keypoints)} results are left out, as their categories name no keypoints: "
            f"{shown_names}."
        )
        return (NamedResults(kept) if named else kept), (note,)

    def rows(self, results: Resolved, truth: GroundTruth, *, source: str) -> Rows:
        annotations, entries = truth.annotations, results.results
        _require_sound(entries, truth, source=source)
        numbers = [float(value) for entry in entries for value in entry["keypoints"]]
        points = np.array(numbers).reshape(-1, 3)
        first = offsets([len(entry["keypoints"]) // 3 for entry in entries])
        boxes, areas = _sizes(entries, points[:, :2], first, truth, source=source)
        shapes = Poses(points, first, areas, annotations, truth.sigmas)
        return Rows.of(entries, truth, boxes_xywh=boxes, shapes=shapes)

    def _described(self, category: Category, of_data: tuple[float, ...]) -> tuple[tuple[float, ...], str]:
        """Return the sigmas of a category's keypoints, and in words what they are.

        `of_data` are those that a training set for it, () if none did.
        """
        count = len(category.keypoints)
        if self._sigmas is not None and len(self._sigmas) == count:
            return self._sigmas, "the sigmas of evaluation.sigmas"
        option = "data.keypoint_sigmas" if of_data else "evaluation.sigmas"
        if not of_data:
            of_data = COCO_SIGMAS if count == len(COCO_SIGMAS) else (UNIFORM_SIGMA,) * count
        if of_data == COCO_SIGMAS:
            return of_data, "COCO's sigmas"
        if of_data == (UNIFORM_SIGMA,) * count:
            return of_data, (
                f"the sigma {UNIFORM_SIGMA} each, for COCO has none for them: set {option} to those of "
                "your data"
            )
        return of_data, f"the sigmas of {option}"


def _notes(described: Sequence[tuple[tuple[float, ...], str]]) -> list[str]:
    """Return a note for each of the descriptions of sigmas, with the numbers of keypoints that have them."""
    numbers = dict[str, set[int]]()
    for sigmas, what in described:
        numbers.setdefault(what, set()).add(len(sigmas))
    notes = []
    for what, counts in numbers.items():
        *others, last = map(str, sorted(counts))
        shown_counts = f"{', '.join(others)} and {last}" if others else last
        notes.append(f"{shown_counts} keypoints are compared with {what}.")
    return notes


def _require_sound(results: Sequence[Mapping[str, Any]], truth: GroundTruth, *, source: str) -> None:
    """Raise ValueError, after `source`, if the keypoints of any result are not those of its class."""
    problems = {}
    for row, result in enumerate(results):
        values = result["keypoints"]
        category = truth.annotations.categories[truth.category_numbers[id_key(result["category_id"])] - 1]
        expected = 3 * len(category.keypoints)
        if not isinstance(values, list | tuple) or not all(map(is_finite_number, values)):
            problems[row] = (
                f"keypoints {shown(values)} is no list of finite numbers [x1, y1, score1, x2, ...]"
            )
        elif len(values) != expected:
            problems[row] = (
                f'keypoints has {len(values)} numbers, but "{category.name}" has {expected // 3} keypoints: '
                f"expected {expected}, x, y and score of each"
            )
    require_no_problems(problems, results, source=source, what="keypoints")


def _sizes(
    results: Sequence[Mapping[str, Any]],
    xy: np.ndarray,
    first: np.ndarray,
    truth: GroundTruth,
    *,
    source: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (D, 4), xywh, and the areas (D) of detections."""
    if results and all(is_box(result.get("bbox")) for result in results):
        boxes = np.array([result["bbox"] for result in results], dtype=np.float64)
    elif results and all(result.get("segmentation") for result in results):
        from detector.evaluation.masks import areas_of, boxes_of, results_masks  # seldom needed

        masks = results_masks(results, truth, source=source)
        return boxes_of(masks), areas_of(masks)
    else:
        boxes = _extents(xy, first)
    return boxes, boxes[:, 2] * boxes[:, 3]


def _extents(xy: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the box around the keypoints of each detection (D, 4), xywh."""
    if len(first) == 1:
        return np.zeros((0, 4))
    lowest, highest = (f.reduceat(xy, first[:-1], axis=0) for f in (np.minimum, np.maximum))
    return np.concatenate([lowest, highest - lowest], axis=1)


def _flat(points: np.ndarray, first: np.ndarray) -> list[list[float]]:
    edges = first.tolist()
    return [points[a:b].ravel().tolist() for a, b in pairwise(edges)]
