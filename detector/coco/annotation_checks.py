"""Vectorized checks of annotations: a million take about a second."""

# N images, M annotations

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.coco.annotations import Category, xywh_to_xyxy
from detector.coco.columns import RawCoco
from detector.coco.entries import CheckedImages, describe_image
from detector.coco.findings import Findings
from detector.coco.rules import odd_boxes
from detector.coco.shapes import Segmentations


def lookup(keys: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the position of each key in `table`, -1 if missing. Strings and integers compare as strings."""
    if keys.dtype.kind != table.dtype.kind:
        keys, table = keys.astype(str), table.astype(str)
    if not len(table):
        return np.full(len(keys), -1, dtype=np.int64)
    order = np.argsort(table, kind="stable")
    at = np.minimum(np.searchsorted(table[order], keys), len(table) - 1)
    positions = order[at]
    return np.where(table[positions] == keys, positions, -1).astype(np.int64)


def check_annotations(
    raw: RawCoco,
    *,
    image_of: np.ndarray,
    labels: np.ndarray,
    images: CheckedImages,
    skip_bad_images: bool,
    as_pixels: bool,
    findings: Findings,
) -> np.ndarray:
    """Return a mask of unusable annotations (M,): their image is bad, or `findings` describes the problem.

    Checks that need no image include the annotations of bad images, unless `skip_bad_images` skips those.
    `image_of` and `labels` are positions, -1 if the id is dangling. Without `as_pixels`, when all boxes are
    in another format, single boxes are not reported as odd in pixels.
    """
    boxes = raw.boxes_xywh
    known = image_of >= 0
    of_bad_image = np.zeros(len(boxes), dtype=bool)
    of_bad_image[known] = images.bad[image_of[known]]
    bad = of_bad_image.copy() if skip_bad_images else np.zeros(len(boxes), dtype=bool)
    sizes = sizes_of_annotations(images, image_of)

    def report(which: Any, why: str) -> None:
        which = which & ~bad

        findings.add(
            np.flatnonzero(which),
            lambda i: f"{describe_annotation(raw, image_of, i)}: {_filled(why, raw, i, sizes[i])}",
        )
        bad[:] |= which

    no_image, no_category = (ids == "" for ids in (raw.annotation_image_ids, raw.annotation_category_ids))
    report(no_image & ~known, "it has no image_id (null or missing). Give it one, or remove the annotation.")
    report(~known, "no image has this image_id. List the image, or remove the annotation.")
    report(
        no_category & (labels < 0),
        "it has no category_id (null or missing). Give it the id of its category, or remove the annotation.",
    )
    report(labels < 0, "no category has the id {category}. List the category, or remove the annotation.")
    unreadable = np.zeros(len(boxes), dtype=bool)
    unreadable[list(raw.bad_crowds)] = True
    report(unreadable, "iscrowd {iscrowd} is neither 0 nor 1. Write 0 for an object, 1 for a crowd.")
    report(~np.isfinite(boxes).all(axis=1), "{no_box}.")
    report(boxes[:, 2] <= 0, "box {box} has zero or negative width. Correct or remove it.")
    report(boxes[:, 3] <= 0, "box {box} has zero or negative height. Correct or remove it.")
    before = xywh_to_xyxy(boxes)[:, 2:] <= 0
    after = boxes[:, :2] >= sizes[:, ::-1]
    report(
        ((before | after) & (sizes[:, ::-1] > 0)).any(axis=1),  # 0 is unknown
        "box {box} lies outside its image of height {height}, width {width}. Correct or remove it.",
    )
    if as_pixels:
        rows = np.flatnonzero(~bad)  # comparisons of NaN would warn
        for which, why in list(odd_boxes(boxes[rows], image_sizes=sizes[rows])):
            odd = np.zeros(len(boxes), dtype=bool)
            odd[rows] = which
            report(odd, why)
    return bad | of_bad_image


def check_shapes(
    raw: RawCoco,
    masks: Segmentations | None,
    *,
    bad: np.ndarray,
    image_of: np.ndarray,
    labels: np.ndarray,
    categories: Sequence[Category],
    sizes: np.ndarray,
    findings: Findings,
) -> np.ndarray:
    """Return a mask of annotations (M,) whose mask or keypoints, if they were read, are unusable.

    `findings` describes the problems of those that are not `bad` already; `sizes` is `sizes_of_annotations`.
    """
    problems: dict[int, str] = {}
    if raw.masks is not None and masks is not None:
        problems |= raw.masks.faults
        for which, why in (*raw.masks.problems(masks, sizes), *raw.masks.empty(masks)):
            for row in np.flatnonzero(which).tolist():
                height, width = sizes[row].tolist()
                problems.setdefault(row, why.format(height=height, width=width))
    if raw.keypoints is not None:
        for row, why in (*raw.keypoints.faults.items(), *raw.keypoints.problems(labels, categories)):
            problems.setdefault(row, why)
    rows = np.array([row for row in sorted(problems) if not bad[row]], dtype=np.int64)
    findings.add(rows, lambda row: f"{describe_annotation(raw, image_of, row)}: {problems[row]}.")
    unusable = np.zeros(len(bad), dtype=bool)
    unusable[rows] = True
    return unusable


def _filled(why: str, raw: RawCoco, row: int, size: np.ndarray) -> str:
    """Fill in the values of an annotation in a message; `size` is the (height, width) of its image."""
    height, width = size
    return why.format(
        box=f"[{', '.join(repr(float(x)).removesuffix('.0') for x in raw.boxes_xywh[row])}]",
        no_box=raw.bad_boxes.get(row),
        iscrowd=raw.bad_crowds.get(row),
        category=raw.annotation_category_ids[row],
        height=height,
        width=width,
    )


def sizes_of_annotations(images: CheckedImages, image_of: np.ndarray) -> np.ndarray:
    """Return the (height, width) of each annotation's image (M, 2), 0 if unknown."""
    sizes = np.zeros((len(image_of), 2), dtype=np.int64)
    known = image_of >= 0
    sizes[known] = images.sizes[image_of[known]]
    return sizes


def describe_annotation(raw: RawCoco, image_of: np.ndarray, row: int) -> str:
    """Return the ids and the file name of an annotation for a message."""
    image_id, id_ = (str(ids[row]) or "null" for ids in (raw.annotation_image_ids, raw.annotation_ids))
    if image_of[row] < 0:
        return f"image {image_id}, annotation {id_}"
    return f"{describe_image(raw, int(image_of[row]))}, annotation {id_}"


def repeated_ids(ids: np.ndarray) -> np.ndarray:
    """Return a mask of the ids that occurred before (M,); a missing id repeats nothing."""
    repeats = np.ones(len(ids), dtype=bool)
    repeats[np.unique(ids, return_index=True)[1]] = False
    return repeats if ids.dtype.kind == "i" else repeats & (ids != "")
