"""Masks as a task of the evaluation: IoU of run lengths, as in pycocotools."""

# D detections, M annotations

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
from pycocotools import mask

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import id_key
from detector.coco.raw_masks import RawMasks
from detector.coco.shapes import Segmentations
from detector.evaluation.matching import Rows, Shapes
from detector.evaluation.result_columns import Resolved
from detector.evaluation.tasks import Task


class RunLengths(TypedDict):
    """A mask as pycocotools takes it: (height, width), and compressed run lengths."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True)
class Masks(Shapes):
    """The masks of detections (D) and of annotations (M), arrays of `RunLengths`."""

    task = "segm"

    detections: np.ndarray
    objects: np.ndarray
    num_classes: int

    @cached_property
    def areas(self) -> np.ndarray:
        return np.array([float(mask.area(one)) for one in self.detections])

    def selected(self, chosen: np.ndarray) -> Masks:
        return Masks(self.detections[chosen], self.objects, self.num_classes)

    def overlaps(self, detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        ious = mask.iou(
            [*self.detections[detections]], [*self.objects[objects]], crowd.astype(np.uint8).tolist()
        )
        return np.asarray(ious)

    def classes_by_schema(self) -> Sequence[tuple[np.ndarray, None]]:
        return [(np.arange(self.num_classes), None)]

    def engine_detections(self) -> dict[str, list[Any]]:
        return {"segmentation": [*map(_as_text, self.detections)]}

    def engine_objects(self) -> dict[str, list[Any]]:
        return {"segmentation": [*map(_as_text, self.objects)]}


class MaskTask(Task):
    """Masks of detections; their own area decides their size, whether or not they have a box."""

    name = "segm"

    def truth(self, truth: GroundTruth) -> tuple[GroundTruth, tuple[str, ...]]:
        annotations, masks = truth.annotations, truth.annotations.masks
        assert masks is not None, "they were not read"
        without = np.flatnonzero(~masks.has_mask)
        if len(without):
            row = int(without[0])
            image = int(annotations.image_of[row])
            raise ValueError(
                f"{annotations.path}: {len(without)} of {len(annotations.crowd)} annotations have no mask "
                f"(segmentation). The first is annotation {annotations.annotation_ids[row]} of image "
                f"{annotations.image_id(image)!r}. Add the masks, or evaluate boxes alone: tasks=[bbox]."
            )
        return truth, ()

    def rows(self, results: Resolved, truth: GroundTruth, *, source: str) -> Rows:
        numbers = truth.image_numbers
        images = [numbers[id_key(result["image_id"])] - 1 for result in results.results]
        sizes = truth.annotations.sizes[images].reshape(-1, 2)
        raw = RawMasks()
        raw.add([result["segmentation"] for result in results.results])
        masks = raw.segmentations()
        _require_sound(raw, masks, sizes, results.results, source=source)
        assert truth.annotations.masks is not None, "they were not read"
        image_of = truth.annotations.image_of
        detections = _run_lengths(masks, sizes)
        objects = _run_lengths(truth.annotations.masks, truth.annotations.sizes[image_of])
        boxes = np.asarray(mask.toBbox([*detections]), dtype=np.float64).reshape(-1, 4)
        shapes = Masks(detections, objects, len(truth.class_names))
        return Rows.of(results.results, truth, boxes_xywh=boxes, shapes=shapes)


def _require_sound(
    raw: RawMasks, masks: Segmentations, sizes: np.ndarray, results: Sequence[Any], *, source: str
) -> None:
    problems = dict(raw.faults)
    for row in np.flatnonzero(~masks.has_mask).tolist():
        problems.setdefault(
            row, "its segmentation is empty. Write the run lengths of its mask, or leave it out"
        )
    for which, why in raw.problems(masks, sizes):
        for row in np.flatnonzero(which).tolist():
            height, width = sizes[row].tolist()
            problems.setdefault(row, why.format(height=height, width=width))
    if problems:
        first = min(problems)
        raise ValueError(
            f"{source}: {len(problems)} of {len(results)} results have no valid mask. The first is number "
            f"{first} (counted from 0), of image {results[first]['image_id']!r}: {problems[first]}."
        )


def _run_lengths(masks: Segmentations, sizes: np.ndarray) -> np.ndarray:
    """Return the `RunLengths` of each mask, whose image has the (height, width) `sizes` (N, 2)."""
    encoded = np.empty(len(sizes), dtype=object)
    for row, (height, width) in enumerate(sizes.tolist()):
        if counts := masks.run_lengths(row):
            encoded[row] = RunLengths(size=[height, width], counts=counts)
        else:
            polygons = [corners.ravel().tolist() for corners in masks.polygons(row)]
            encoded[row] = mask.merge(mask.frPyObjects(polygons, height, width))
    return encoded


def _as_text(one: RunLengths) -> dict[str, Any]:
    return {"size": one["size"], "counts": one["counts"].decode("ascii")}
