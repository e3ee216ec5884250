"""The strict reader: a COCO file and its images to `CocoAnnotations`, or one error with every problem."""

# N images, M annotations

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from .annotation_checks import check_annotations, lookup
from .categories import read_categories
from .coco import CocoAnnotations
from .columns import RawCoco, id_array, read_columns
from .file_names import FileNames
from .findings import Findings, settle
from .image_checks import CheckImages, ImageChecks, check_images
from .images import ReadOptions
from .strings import StringTable

_log = logging.getLogger(__name__)

OnBadBox = Literal["error", "drop"]
OnBadImage = Literal["error", "skip"]


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

    Every problem is found before one ValueError lists them with id and fix. `on_bad_box="drop"` leaves out
    bad annotations, `on_bad_image="skip"` bad images with their annotations; what is left out is logged with
    its count. For `check` and `folder_option` see `ImageChecks`, for `file_names`
    `locate_files`. Sizes that the file lacks are those of the image files.
    """
    raw = read_columns(path)
    fatal, image_findings, box_findings = Findings(), Findings(), Findings()
    categories = read_categories(raw.categories, fatal)
    ids = _image_ids(raw, fatal)
    images = check_images(
        raw,
        ids,
        folder=images_dir,
        found=image_findings,
        checks=ImageChecks(check, reading, file_names, folder_option),
        near=(path.parent, path.parent.parent),
    )
    image_of = lookup(raw.annotation_image_ids, ids)
    labels = lookup(raw.annotation_category_ids, np.array([c.id for c in categories], dtype=np.int64))
    skip = on_bad_image == "skip"
    bad_row = check_annotations(
        raw,
        image_of=image_of,
        labels=labels,
        images=images,
        skip_bad_images=skip,
        found=box_findings,
    )
    settle(
        str(path),
        fatal=fatal,
        images=image_findings,
        boxes=box_findings,
        skip=skip,
        drop=on_bad_box == "drop",
    )
    _note_oddities(path, raw, turned=images.turned)

    rows = np.flatnonzero(~bad_row)
    rows = rows[np.argsort(image_of[rows], kind="stable")]
    counts = np.bincount(image_of[rows], minlength=len(ids))
    annotations = CocoAnnotations(
        path=path,
        images_dir=images_dir,
        categories=categories,
        image_ids=ids if ids.dtype.kind == "i" else StringTable.from_strings(ids.tolist()),
        file_names=StringTable.from_strings(n if isinstance(n, str) else "" for n in images.names),
        sizes=images.sizes,
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        annotation_ids=_annotation_ids(raw)[rows],
        labels=labels[rows],
        boxes_xywh=raw.boxes_xywh[rows],
        areas=_filled_areas(raw)[rows],
        crowd=raw.crowd[rows],
        deep_values=images.values,
    )
    kept = np.flatnonzero(~images.bad)
    if not len(kept):
        raise ValueError(f"{path}: no usable image is left of {len(ids)}.")
    return annotations.select_images(kept) if images.bad.any() else annotations


def _image_ids(raw: RawCoco, fatal: Findings) -> np.ndarray:
    kinds = {type(i) for i in raw.image_ids}
    if str in kinds and len(kinds - {type(None)}) > 1:
        fatal.note("some image ids are texts and some are numbers. Make all of them integers.")
    return id_array(raw.image_ids) if raw.image_ids else np.zeros(0, np.int64)


def _annotation_ids(raw: RawCoco) -> np.ndarray:
    """As in the file; numbered from 1 where any is missing or no integer."""
    ids = raw.annotation_ids
    return ids if ids.dtype.kind == "i" else np.arange(1, len(ids) + 1, dtype=np.int64)


def _filled_areas(raw: RawCoco) -> np.ndarray:
    """As in the file; width times height where missing."""
    computed = raw.boxes_xywh[:, 2] * raw.boxes_xywh[:, 3]
    return np.where(np.isfinite(raw.areas) & (raw.areas >= 0), raw.areas, computed)


def _note_oddities(path: Path, raw: RawCoco, *, turned: int) -> None:
    if raw.annotation_ids.dtype.kind != "i":
        _log.warning("%s: some annotation ids are missing or no integers: all are numbered from 1.", path)
    if raw.ignore_count:
        _log.warning(
            '%s: %d annotations have "ignore" set, which has no effect: COCO evaluation looks at "iscrowd".',
            path,
            raw.ignore_count,
        )
    if turned:
        _log.warning(
            "%s: %d images have an EXIF orientation that their size does not decide on: it is applied, as "
            "viewers do.",
            path,
            turned,
        )
