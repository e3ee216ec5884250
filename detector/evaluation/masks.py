"""Masks as a task of the evaluation: IoU of run lengths, as in pycocotools."""

# D detections, M annotations

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
from pycocotools import mask

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import id_key
from detector.coco.json_files import no_garbage_collection
from detector.coco.raw_masks import RawMasks
from detector.coco.shapes import Segmentations
from detector.evaluation.matching import Rows, Shapes
from detector.evaluation.result_columns import Resolved
from detector.evaluation.result_problems import require_no_problems
from detector.evaluation.tasks import Task

_MOST_AREAS = 255  # that pycocotools returns at once: it keeps their number in eight bits


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
        return areas_of(self.detections)

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
        return {"segmentation": self.detections.tolist()}

    def engine_objects(self) -> dict[str, list[Any]]:
        return {"segmentation": self.objects.tolist()}


class MaskTask(Task):
    """Masks of detections; their own area decides their size, whether or not they have a box."""

    name = "segm"

    def __init__(self) -> None:
        self._objects: tuple[GroundTruth, np.ndarray] | None = None  # those of the last ground truth

    def truth(self, truth: GroundTruth) -> tuple[GroundTruth, tuple[str, ...]]:
        annotations, masks = truth.annotations, truth.annotations.masks
        assert masks is not None, "they were not read"
        without = ~masks.has_mask
        if not without.any():
            return truth, ()
        count = f"{np.count_nonzero(without)} of {len(without)} annotations have no mask"
        if truth.ignore_unmasked:
            note = f"{count}: their boxes are ignored regions, as crowds are, in which no mask counts."
            ignored = replace(annotations, crowd=annotations.crowd | without)
            return replace(truth, annotations=ignored), (note,)
        row = int(without.argmax())
        raise ValueError(
            f"{annotations.path}: {count} (segmentation). The first is annotation "
            f"{annotations.annotation_ids[row]} of image "
            f"{annotations.image_id(int(annotations.image_of[row]))!r}. Add the masks, or evaluate boxes "
            "alone: tasks=[bbox]."
        )

    @no_garbage_collection()
    def rows(self, results: Resolved, truth: GroundTruth, *, source: str) -> Rows:
        detections = results_masks(results.results, truth, source=source)
        if self._objects is None or self._objects[0] is not truth:
            masks = truth.annotations.masks
            assert masks is not None, "they were not read"
            sizes = truth.annotations.sizes[truth.annotations.image_of]
            objects = _run_lengths(masks, sizes)
            for row in np.flatnonzero(~masks.has_mask).tolist():  # an ignored region
                box = truth.annotations.boxes_xywh[row : row + 1]
                [objects[row]] = mask.frPyObjects(box, *sizes[row].tolist())
            self._objects = (truth, objects)
        shapes = Masks(detections, self._objects[1], len(truth.class_names))
        return Rows.of(results.results, truth, boxes_xywh=boxes_of(detections), shapes=shapes)


def results_masks(results: Sequence[Any], truth: GroundTruth, *, source: str) -> np.ndarray:
    """Return the `RunLengths` of results with checked ids (D).

    Raises:
        ValueError: after `source`, if any mask is missing, no mask, or of another size than its image.
    """
    numbers = truth.image_numbers
    images = [numbers[id_key(result["image_id"])] - 1 for result in results]
    sizes = truth.annotations.sizes[images].reshape(-1, 2)
    raw = RawMasks()
    raw.add([result["segmentation"] for result in results])
    masks = raw.segmentations()
    problems = dict(raw.faults)
    for row in np.flatnonzero(~masks.has_mask).tolist():
        problems.setdefault(
            row, "its segmentation is empty. Write the run lengths of its mask, or leave it out"
        )
    for which, why in raw.problems(masks, sizes):
        for row in np.flatnonzero(which).tolist():
            height, width = sizes[row].tolist()
            problems.setdefault(row, why.format(height=height, width=width))
    require_no_problems(problems, results, source=source, what="mask")
    return _run_lengths(masks, sizes)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Return the boxes around masks (D, 4), xywh."""
    return np.asarray(mask.toBbox([*masks]), dtype=np.float64).reshape(-1, 4)


def areas_of(masks: np.ndarray) -> np.ndarray:
    """Return the areas of masks (D), in square pixels."""
    parts = [masks[i : i + _MOST_AREAS].tolist() for i in range(0, len(masks), _MOST_AREAS)]
    return np.concatenate([np.zeros(0), *map(mask.area, parts)])


def _run_lengths(masks: Segmentations, sizes: np.ndarray) -> np.ndarray:
    """Return the `RunLengths` of each mask, whose image has the (height, width) `sizes` (N, 2), or None."""
    encoded = np.empty(len(sizes), dtype=object)
    data, edges = masks.rle.tobytes(), masks.rle_first.tolist()
    for row, size in enumerate(sizes.tolist()):
        if edges[row + 1] > edges[row]:
            encoded[row] = RunLengths(size=size, counts=data[edges[row] : edges[row + 1]])
        elif polygons := [corners.ravel().tolist() for corners in masks.polygons(row)]:
            shapes = mask.frPyObjects(polygons, *size)
            encoded[row] = shapes[0] if len(shapes) == 1 else mask.merge(shapes)
    return encoded
