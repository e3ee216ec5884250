"""The strict reader of a COCO file and its images: `CocoAnnotations`, or one error with every problem."""

# N images, M annotations

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.coco.annotation_checks import (
    check_annotations,
    describe_annotation,
    lookup,
    repeated_ids,
    sizes_of_annotations,
)
from detector.coco.annotations import Category, CocoAnnotations
from detector.coco.box_format import find_box_format
from detector.coco.categories import read_categories
from detector.coco.columns import RawCoco, id_array, read_columns
from detector.coco.findings import Findings, settle
from detector.coco.image_checks import CheckedImages, ImageChecks, check_images
from detector.coco.images import ReadOptions
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
from detector.coco.strings import StringTable
from detector.option_types import CheckImages, FileNames, OnBadBox, OnBadImage

_log = logging.getLogger(__name__)


def read_coco(
    path: Path,
    *,
    images_dir: Path,
    on_bad_box: OnBadBox = "error",
    on_bad_image: OnBadImage = "error",
    check: CheckImages = "headers",
    reading: ReadOptions = ReadOptions(),  # noqa: B008 (frozen)
    file_names: FileNames = "paths",
    folder_option: str = "images_dir",
) -> CocoAnnotations:
    """Read and check `path`, whose file names are relative to `images_dir`.

    All problems are listed in one ValueError with id and fix. `on_bad_box="drop"` leaves out bad annotations,
    `on_bad_image="skip"` bad images with their annotations; both are logged with their count. See
    `ImageChecks` for `check` and `folder_option`, `locate_files` for `file_names`. Sizes that the file lacks
    are taken from the image files.
    """
    raw = read_columns(path)
    fatal, image_findings, box_findings = Findings(), Findings(), Findings()
    categories = read_categories(raw.categories, fatal)
    ids = _image_ids(raw, fatal)
    checks, near = ImageChecks(check, reading, file_names, folder_option), (path.parent, path.parent.parent)
    images = check_images(raw, ids, folder=images_dir, found=image_findings, checks=checks, near=near)
    image_of = lookup(raw.annotation_image_ids, ids)
    labels = _labels(raw, categories)
    skip, drop = on_bad_image == "skip", on_bad_box == "drop"
    bad_row = check_annotations(
        raw,
        image_of=image_of,
        labels=labels,
        images=images,
        skip_bad_images=skip,
        as_pixels=_are_in_pixels(raw, fatal, image_of=image_of, images=images, drop=drop),
        found=box_findings,
    )
    settle(str(path), fatal=fatal, images=image_findings, boxes=box_findings, skip=skip, drop=drop)
    rows = np.flatnonzero(~bad_row)
    areas, rows = _note_oddities(path, raw, rows, image_of=image_of, labels=labels, images=images)
    annotation_ids = _annotation_ids(path, raw, rows)
    rows = rows[np.argsort(image_of[rows], kind="stable")]
    annotations = CocoAnnotations(
        path=path,
        images_dir=images_dir,
        categories=categories,
        image_ids=ids if ids.dtype.kind == "i" else StringTable.from_strings(ids.tolist()),
        file_names=StringTable.from_strings(n if isinstance(n, str) else "" for n in images.names),
        sizes=images.sizes,
        first=_starts(image_of[rows], len(ids)),
        annotation_ids=annotation_ids[rows],
        labels=labels[rows],
        boxes_xywh=raw.boxes_xywh[rows],
        areas=areas[rows],
        crowd=raw.crowd[rows],
        listed_count=len(raw.crowd),
        bad_count=box_findings.count,
        deep_values=images.values,
    )
    return _of_usable_images(annotations, images.bad)


def _of_usable_images(annotations: CocoAnnotations, bad: np.ndarray) -> CocoAnnotations:
    if bad.all():
        raise ValueError(f"{annotations.path}: no usable image is left of {len(bad)}.")
    return annotations.select_images(np.flatnonzero(~bad)) if bad.any() else annotations


def _image_ids(raw: RawCoco, fatal: Findings) -> np.ndarray:
    kinds = {type(i) for i in raw.image_ids}
    if str in kinds and len(kinds - {type(None)}) > 1:
        fatal.note("some image ids are texts and some are numbers. Make all of them integers.")
    return id_array(raw.image_ids) if raw.image_ids else np.zeros(0, np.int64)


def _labels(raw: RawCoco, categories: Sequence[Category]) -> np.ndarray:
    """Return the class index of each annotation (M,), -1 for an unknown category.

    If some categories are unreadable, which is an error of its own, no annotation is blamed for it.
    """
    if not categories or len(categories) < len(raw.categories):
        return np.zeros(len(raw.annotation_category_ids), dtype=np.int64)
    return lookup(raw.annotation_category_ids, np.array([c.id for c in categories], dtype=np.int64))


def _starts(image_of: np.ndarray, count: int) -> np.ndarray:
    """Return where the annotations of each of `count` images start, and where the last end: (count + 1,)."""
    return np.searchsorted(image_of, np.arange(count + 1)).astype(np.int64)


def _are_in_pixels(
    raw: RawCoco, fatal: Findings, *, image_of: np.ndarray, images: CheckedImages, drop: bool
) -> bool:
    """Return whether the boxes look like x, y, width, height; if not, note their likely format in `fatal`."""
    sizes = sizes_of_annotations(images, image_of)
    format_ = find_box_format(raw.boxes_xywh, image_sizes=sizes, areas=raw.areas)
    if format_ is None:
        return True
    unhelpful = " data.on_bad_box=drop is no help: the other boxes are as wrong." if drop else ""
    first = describe_annotation(raw, image_of, int(np.flatnonzero(format_.suspects)[0]))
    fatal.note(f"{format_.reason} (the first: {first}). {format_.fix}{unhelpful}")
    return False


def _annotation_ids(path: Path, raw: RawCoco, rows: np.ndarray) -> np.ndarray:
    """Return the file's ids, or numbers from 1 if any is missing or no integer, or if `rows` share one."""
    ids = raw.annotation_ids
    numbered = np.arange(1, len(ids) + 1, dtype=np.int64)
    if ids.dtype.kind != "i":
        _log.warning("%s: some annotation ids are missing or no integers: all are numbered from 1.", path)
        return numbered
    if repeats := int(repeated_ids(ids[rows]).sum()):
        _log.warning("%s: %s", path, renumbered_note(repeats))
        return numbered
    return ids


def _note_oddities(
    path: Path,
    raw: RawCoco,
    rows: np.ndarray,
    *,
    image_of: np.ndarray,
    labels: np.ndarray,
    images: CheckedImages,
) -> tuple[np.ndarray, np.ndarray]:
    """Log oddities in the usable `rows`; return the areas of all annotations (M,) and the rows to keep."""

    def warn(note: str) -> None:
        _log.warning("%s: %s", path, note)

    def first(which: np.ndarray) -> str:
        return printable(describe_annotation(raw, image_of, int(rows[which][0])))

    areas, wrong = fill_areas(raw.areas, raw.boxes_xywh)
    if filled := int(wrong[rows].sum()):
        warn(filled_areas_note(filled))
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
