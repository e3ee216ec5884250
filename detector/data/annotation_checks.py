"""Checks of annotations, vectorised: a million take about a second."""

# N images, M annotations

from __future__ import annotations

from typing import Any

import numpy as np

from .coco import xywh_to_xyxy
from .columns import RawCoco
from .findings import Findings
from .image_checks import CheckedImages


def lookup(keys: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Position in `table` of each key, -1 where it is not there. Texts and integers are compared as texts."""
    if keys.dtype.kind != table.dtype.kind:
        keys, table = keys.astype(str), table.astype(str)
    if not len(table):
        return np.full(len(keys), -1, dtype=np.int64)
    order = np.argsort(table, kind="stable")
    at = np.minimum(np.searchsorted(table[order], keys), len(table) - 1)
    found = order[at]
    return np.where(table[found] == keys, found, -1).astype(np.int64)


def check_annotations(
    raw: RawCoco,
    *,
    image_of: np.ndarray,
    labels: np.ndarray,
    images: CheckedImages,
    skip_bad_images: bool,
    found: Findings,
) -> np.ndarray:
    """Which annotations cannot be used (M,), because their image cannot or for what `found` describes.

    What needs no image is checked of bad images, too, unless they are skipped with all their annotations.
    `image_of` and `labels` are positions, -1 where the id is dangling.
    """
    boxes = raw.boxes_xywh
    known = image_of >= 0
    of_bad_image = np.zeros(len(boxes), dtype=bool)
    sizes = np.zeros((len(boxes), 2), dtype=np.int64)
    of_bad_image[known] = images.bad[image_of[known]]
    bad = of_bad_image.copy() if skip_bad_images else np.zeros(len(boxes), dtype=bool)
    sizes[known] = images.sizes[image_of[known]]

    def report(which: Any, why: str) -> None:
        which = which & ~bad

        def describe(i: int) -> str:
            name = f' ("{raw.file_names[image_of[i]]}")' if known[i] else ""
            subject = f"image {raw.annotation_image_ids[i]}{name}, annotation {raw.annotation_ids[i]}: "
            box = "[" + ", ".join(f"{x:g}" for x in boxes[i]) + "]"
            category, (height, width) = raw.annotation_category_ids[i], sizes[i]
            return subject + why.format(box=box, category=category, height=height, width=width)

        found.add(np.flatnonzero(which), describe)
        bad[:] |= which

    report(~known, "no image has this image_id. List the image, or remove the annotation.")
    report(labels < 0, "no category has the id {category}. List the category, or remove the annotation.")
    report(
        ~np.isfinite(boxes).all(axis=1),
        "bbox is missing or not four finite numbers [x, y, width, height]. Correct or remove it.",
    )
    report(boxes[:, 2] <= 0, "box {box} has zero or negative width. Correct or remove it.")
    report(boxes[:, 3] <= 0, "box {box} has zero or negative height. Correct or remove it.")
    before = xywh_to_xyxy(boxes)[:, 2:] <= 0
    after = boxes[:, :2] >= sizes[:, ::-1]
    report(
        (before | after).any(axis=1) & ~of_bad_image,  # whose size is not known
        "box {box} lies outside its image of height {height}, width {width}. Correct or remove it.",
    )
    report(_repeats(raw.annotation_ids, bad), "its id is used by an earlier annotation. Make the ids unique.")
    return bad | of_bad_image


def _repeats(ids: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Which usable ids were seen before in the file; a missing id repeats nothing."""
    usable = np.flatnonzero(~bad)
    repeats = np.zeros(len(ids), dtype=bool)
    repeats[usable] = True
    repeats[usable[np.unique(ids[usable], return_index=True)[1]]] = False
    if ids.dtype.kind != "i":
        repeats &= ids != ""
    return repeats
