"""The strict reader of a COCO file and its images: `CocoAnnotations`, or one error with every problem."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detector.coco.annotations import CocoAnnotations
from detector.coco.columns import read_columns
from detector.coco.entries import image_ids, read_categories
from detector.coco.findings import Policy, Problems
from detector.coco.image_checks import ImageChecks, check_images
from detector.coco.images import ReadOptions
from detector.coco.usable import usable_annotations
from detector.option_types import CheckImages, FileNames, OnBadBox, OnBadImage, TaskName


def read_coco(
    path: str | os.PathLike[str],
    images_dir: str | os.PathLike[str],
    *,
    on_bad_box: OnBadBox = "error",
    on_bad_image: OnBadImage = "error",
    check: CheckImages = "headers",
    reading: ReadOptions = ReadOptions(),  # noqa: B008 (frozen)
    file_names: FileNames = "paths",
    folder_option: str = "images_dir",
    tasks: Sequence[TaskName] = (),
) -> CocoAnnotations:
    """Read and check `path`, whose file names are relative to `images_dir`.

    All problems are listed in one ValueError with id and fix. `on_bad_box="drop"` leaves out bad annotations,
    `on_bad_image="skip"` bad images with their annotations; both are logged with their count. See
    `ImageChecks` for `check` and `folder_option`, `locate_files` for `file_names`. Sizes that the file lacks
    are taken from the image files. Masks and keypoints are read if `tasks` need them.
    """
    path, images_dir = Path(path), Path(images_dir)
    raw = read_columns(path, tasks=tasks)
    problems = Problems()
    categories = read_categories(raw.categories, problems.fatal, with_keypoints=raw.keypoints is not None)
    ids = image_ids(raw, problems.fatal)
    checks = ImageChecks(check, reading, file_names, folder_option)
    images = check_images(
        raw,
        ids,
        folder=images_dir,
        findings=problems.images,
        checks=checks,
        near=(path.parent, path.parent.parent),
    )
    return usable_annotations(
        raw,
        ids,
        images=images,
        images_dir=images_dir,
        categories=categories,
        problems=problems,
        policy=Policy(on_bad_image == "skip", on_bad_box == "drop", "data.on_bad_box"),
    )
