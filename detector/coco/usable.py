"""The usable annotations of a COCO file: all checks that need no image file, for training and evaluation."""

# N images, M annotations

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from detector.coco.annotation_checks import (
    check_annotations,
    check_shapes,
    describe_annotation,
    lookup,
    repeated_ids,
    sizes_of_annotations,
)
from detector.coco.annotations import Category, CocoAnnotations
from detector.coco.box_format import find_box_format
from detector.coco.columns import RawCoco
from detector.coco.entries import CheckedImages
from detector.coco.findings import Findings, Policy, Problems, settle
from detector.coco.rules import (
    fill_areas,
    filled_areas_note,
    notable_overhangs,
    odd_crowds_note,
    overhang_note,
    oversized_areas_note,
    printable,
    renumbered_note,
    repeated_objects,
    repeats_note,
)
from detector.coco.shapes import KeypointColumns
from detector.coco.strings import StringTable

_log = logging.getLogger(__name__)


def usable_annotations(
    raw: RawCoco,
    ids: np.ndarray,
    *,
    images: CheckedImages,
    images_dir: Path,
    categories: tuple[Category, ...],
    problems: Problems,
    policy: Policy,
) -> CocoAnnotations:
    """Check the annotations of checked images and categories, and return the usable ones.

    Raises one ValueError with all `problems` that `policy` does not forgive. Others and oddities are logged.
    """
    image_of, labels = lookup(raw.annotation_image_ids, ids), _labels(raw, categories)
    bad_row = check_annotations(
        raw,
        image_of=image_of,
        labels=labels,
        images=images,
        skip_bad_images=policy.skip,
        as_pixels=_are_in_pixels(raw, problems.fatal, image_of=image_of, images=images, policy=policy),
        findings=problems.boxes,
    )
    masks = None if raw.masks is None else raw.masks.segmentations()
    bad_row |= check_shapes(
        raw,
        masks,
        bad=bad_row,
        image_of=image_of,
        labels=labels,
        categories=categories,
        sizes=sizes_of_annotations(images, image_of),
        findings=problems.boxes,
    )
    settle(raw.source, problems, policy)
    areas, rows = _note_oddities(
        raw, np.flatnonzero(~bad_row), image_of=image_of, labels=labels, images=images
    )
    annotation_ids, rows = _annotation_ids(raw, rows), rows[np.argsort(image_of[rows], kind="stable")]
    annotations = CocoAnnotations(
        path=Path(raw.source),
        images_dir=images_dir,
        categories=categories,
        image_ids=ids if ids.dtype.kind == "i" else StringTable.from_strings(ids.tolist()),
        file_names=StringTable.from_strings(n if isinstance(n, str) else "" for n in images.names),
        sizes=images.sizes,
        first=np.searchsorted(image_of[rows], np.arange(len(ids) + 1)).astype(np.int64),
        annotation_ids=annotation_ids[rows],
        labels=labels[rows],
        boxes_xywh=raw.boxes_xywh[rows],
        areas=areas[rows],
        crowd=raw.crowd[rows],
        listed_count=len(raw.crowd),
        bad_count=problems.boxes.count,
        deep_values=images.values,
        masks=None if masks is None else masks.select(rows),
        keypoints=_keypoints(raw, rows, labels, categories),
    )
    return _of_usable_images(annotations, images.bad)


def _keypoints(
    raw: RawCoco, rows: np.ndarray, labels: np.ndarray, categories: tuple[Category, ...]
) -> KeypointColumns | None:
    if raw.keypoints is None:
        return None
    return raw.keypoints.columns(
        rows,
        labels=labels[rows],
        categories=categories,
        boxes_xywh=raw.boxes_xywh[rows],
        areas=raw.areas[rows],
    )


def _of_usable_images(annotations: CocoAnnotations, bad: np.ndarray) -> CocoAnnotations:
    if bad.all():
        raise ValueError(f"{annotations.path}: no usable image is left of {len(bad)}.")
    return annotations.select_images(np.flatnonzero(~bad)) if bad.any() else annotations


def _labels(raw: RawCoco, categories: tuple[Category, ...]) -> np.ndarray:
    """Return the class index of each annotation (M,), -1 for an unknown category.

    If some categories are unreadable, which is an error of its own, no annotation is blamed for it.
    """
    if not categories or len(categories) < len(raw.categories):
        return np.zeros(len(raw.annotation_category_ids), dtype=np.int64)
    return lookup(raw.annotation_category_ids, np.array([c.id for c in categories], dtype=np.int64))


def _are_in_pixels(
    raw: RawCoco, fatal: Findings, *, image_of: np.ndarray, images: CheckedImages, policy: Policy
) -> bool:
    """Return whether the boxes look like x, y, width, height; if not, note their likely format in `fatal`."""
    sizes = sizes_of_annotations(images, image_of)
    format_ = find_box_format(raw.boxes_xywh, image_sizes=sizes, areas=raw.areas)
    if format_ is None:
        return True
    unhelpful = f" {policy.drop_option}=drop is no help: the other boxes are as wrong." if policy.drop else ""
    first = describe_annotation(raw, image_of, int(np.flatnonzero(format_.suspects)[0]))
    fatal.note(f"{format_.reason} (the first: {first}). {format_.fix}{unhelpful}")
    return False


def _annotation_ids(raw: RawCoco, rows: np.ndarray) -> np.ndarray:
    """Return the file's ids, or numbers from 1 if any is missing or no integer, or if `rows` share one."""
    ids = raw.annotation_ids
    numbered = np.arange(1, len(ids) + 1, dtype=np.int64)
    if ids.dtype.kind != "i":
        _log.warning(
            "%s: some annotation ids are missing or no integers: all are numbered from 1.", raw.source
        )
        return numbered
    if repeats := int(repeated_ids(ids[rows]).sum()):
        _log.warning("%s: %s", raw.source, renumbered_note(repeats))
        return numbered
    return ids


def _note_oddities(
    raw: RawCoco, rows: np.ndarray, *, image_of: np.ndarray, labels: np.ndarray, images: CheckedImages
) -> tuple[np.ndarray, np.ndarray]:
    """Log oddities in the usable `rows`; return the areas of all annotations (M,) and the rows to keep."""

    def warn(note: str) -> None:
        _log.warning("%s: %s", raw.source, note)

    def first(which: np.ndarray) -> str:
        return printable(describe_annotation(raw, image_of, int(rows[which][0])))

    areas, wrong = fill_areas(raw.areas, raw.boxes_xywh)
    if filled := int(wrong[rows].sum()):
        warn(filled_areas_note(filled, with_keypoints=raw.keypoints is not None))
    if note := oversized_areas_note(areas[rows], raw.boxes_xywh[rows]):
        warn(note)
    if raw.odd_crowd_count:
        warn(odd_crowds_note(raw.odd_crowd_count))
    flags = raw.crowd + 2 * raw.ignore
    repeats = repeated_objects(image_of[rows], labels[rows], raw.boxes_xywh[rows], areas[rows], flags[rows])
    if repeats.any():
        warn(repeats_note(int(repeats.sum()), first(repeats)))
    sizes = sizes_of_annotations(images, image_of)
    beyond = notable_overhangs(raw.boxes_xywh[rows], image_sizes=sizes[rows])
    if beyond.any():
        warn(overhang_note(int(beyond.sum()), len(rows), first(beyond)))
    if raw.ignore.any():
        warn(
            f'{raw.ignore.sum()} annotations have "ignore" set, which has no effect: COCO evaluation looks '
            'at "iscrowd".'
        )
    if images.turned:
        warn(
            f"{images.turned} images have an EXIF orientation that their size does not decide on: it is "
            "applied, as viewers do."
        )
    return areas, rows[~repeats]
