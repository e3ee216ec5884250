"""What masks cost: drawing polygons for training against pycocotools, on real or drawn objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask

from detector.coco.annotations import CocoAnnotations
from detector.coco.truth_reader import read_ground_truth
from detector.data.outlines import outlines_of
from detector.data.rasterizing import MASK_SIDE, rasterize

from .timing import markdown_row

_LEAST_SIDE_PX = 16  # of the objects whose masks are compared
_FINE = 8  # cells of pycocotools in a cell of ours and axis: it takes a cell whole or not at all


def rasterizing_table(annotations: Path, *, repeats: int) -> str:
    """Time for the masks of an object, and IoU of the masks, for the polygons of a COCO file."""
    split = read_ground_truth(annotations, tasks=("segm",)).annotations
    images = [index for index in range(len(split)) if len(split.training_boxes(index)[0])]
    ours = _fastest_ms(lambda: [_rasterized(split, index) for index in images], repeats)
    theirs = _fastest_ms(lambda: [_decoded(split, index) for index in images], repeats)
    objects = sum(len(split.training_boxes(index)[0]) for index in images)
    ious = np.array([iou for index in images for iou in _ious(split, index)])
    rows: Sequence[Sequence[str]] = (
        ["", "pycocotools", "ours"],
        ["---", "---:", "---:"],
        [f"ms for an object, of {objects}", f"{theirs / objects:.3f}", f"{ours / objects:.3f}"],
    )
    table = "\n".join(map(markdown_row, rows))
    return (
        f"{table}\n\nDrawing into {MASK_SIDE} x {MASK_SIDE} cells of the box is {theirs / ours:.1f} times "
        "as fast as frPyObjects and decode into the image. "
        f"IoU of the masks of {len(ious)} objects above {_LEAST_SIDE_PX} x {_LEAST_SIDE_PX}, both at "
        f"{MASK_SIDE} x {MASK_SIDE}: mean {ious.mean():.4f}, least {ious.min():.3f}, "
        f"{(ious >= 0.99).mean():.0%} of them 0.99 or more."
    )


def _fastest_ms(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def _objects(split: CocoAnnotations, index: int) -> np.ndarray:
    rows = split.rows(index)
    return rows.start + np.flatnonzero(~split.crowd[rows])


def _rasterized(split: CocoAnnotations, index: int) -> np.ndarray:
    assert split.masks is not None
    masks = split.masks.select(_objects(split, index))
    outlines = outlines_of(masks, height=int(split.sizes[index, 0]))
    return rasterize(outlines, split.training_boxes(index)[0])


def _decoded(split: CocoAnnotations, index: int) -> list[np.ndarray]:
    """Return the masks of an image by pycocotools, in the whole image."""
    assert split.masks is not None
    height, width = split.sizes[index].tolist()
    parts = [
        [one.ravel().tolist() for one in split.masks.polygons(row)] for row in _objects(split, index).tolist()
    ]
    return [mask.decode(mask.merge(mask.frPyObjects(one, height, width))) for one in parts if one]


def _ious(split: CocoAnnotations, index: int) -> list[float]:
    assert split.masks is not None
    coverage, (boxes, _) = _rasterized(split, index), split.training_boxes(index)
    side, ious = MASK_SIDE * _FINE, []
    for ours, box, row in zip(coverage, boxes, _objects(split, index).tolist(), strict=True):
        polygons = [
            ((one - box[:2]) * side / (box[2:] - box[:2])).ravel() for one in split.masks.polygons(row)
        ]
        if not polygons or min(box[2:] - box[:2]) <= _LEAST_SIDE_PX:
            continue
        fine = mask.decode(mask.merge(mask.frPyObjects([one.tolist() for one in polygons], side, side)))
        theirs = fine.reshape(MASK_SIDE, _FINE, MASK_SIDE, _FINE).mean(axis=(1, 3)) >= 0.5
        ious.append(float(((ours >= 128) & theirs).sum() / ((ours >= 128) | theirs).sum()))
    return ious
