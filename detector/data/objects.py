"""Checks that a split has objects: any at all, of each class, and once the images are resized."""

from __future__ import annotations

import logging

import numpy as np

from detector.coco.annotations import CocoAnnotations, xywh_to_xyxy
from detector.coco.findings import MAX_LISTED
from detector.coco.layouts import SplitName
from detector.coco.rules import CROWD_ADVICE, MIN_BOX_SIDE_PX, no_objects
from detector.data.transforms import ImageSize

_log = logging.getLogger(__name__)

_PURPOSE = {"train": "train on", "val": "validate on"}


def require_objects(annotations: CocoAnnotations, *, split: SplitName, size: ImageSize) -> None:
    """Raise ValueError if no object of a split, crowds aside, keeps a size once its image is resized.

    Warn if most annotations are crowds, and of boxes that vanish by resizing or get smaller than a pixel.
    """
    purpose = _PURPOSE[split]
    if not annotations.object_count:
        crowds, bad = annotations.crowd_count, annotations.bad_count
        why = no_objects(
            listed=annotations.listed_count,
            crowds=crowds,
            dropped=bad,
            skipped=max(0, annotations.listed_count - crowds - bad),
            option="data.on_bad_box=drop",
        )
        raise ValueError(f"{annotations.path}: no object to {purpose}: {why}")
    if annotations.crowd_count > annotations.object_count:
        _log.warning(
            "%s: %d of %d annotations are crowds (iscrowd 1): regions to ignore, no objects to %s. %s",
            annotations.path,
            annotations.crowd_count,
            len(annotations.crowd),
            purpose,
            CROWD_ADVICE,
        )
    shortest = _shortest_sides(annotations, size)
    vanished, small = int((shortest < MIN_BOX_SIDE_PX).sum()), int((shortest < 1).sum())
    sizes = f"data.image_size (min_size {size.choices[0]}, max_size {size.max_size})"
    if vanished == len(shortest):
        raise ValueError(
            f"{annotations.path}: no object to {purpose}: all {vanished} boxes vanish when images are "
            f"resized to {sizes}. Raise it, or look whether the boxes are in pixels."
        )
    if small:
        _log.warning(
            "%s: of %d boxes %d are less than a pixel wide or high once images are resized to %s, %d of them "
            "vanish and are left out. Raise it to find them.",
            annotations.path,
            len(shortest),
            small,
            sizes,
            vanished,
        )


def note_classes_without_objects(train: CocoAnnotations, val: CocoAnnotations) -> None:
    """Warn of classes without a box in the training split."""
    in_train, in_val = (_objects_by_class(split) for split in (train, val))
    names = train.class_names
    missing = [label for label in range(len(names)) if not in_train[label]]
    if not missing:
        return
    shown = [
        f'"{names[label]}"' + (f" ({in_val[label]} in validation)" if in_val[label] else "")
        for label in missing[:MAX_LISTED]
    ]
    more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
    _log.warning(
        "%s: %d of %d classes have no box to train on: %s%s. The model cannot learn to find them.",
        train.path,
        len(missing),
        len(names),
        ", ".join(shown),
        more,
    )


def _objects_by_class(annotations: CocoAnnotations) -> np.ndarray:
    return np.bincount(annotations.labels[~annotations.crowd], minlength=len(annotations.categories))


def _shortest_sides(annotations: CocoAnnotations, size: ImageSize) -> np.ndarray:
    """Return the shorter side of each clipped box in pixels, with images resized to the smallest choice."""
    distinct, inverse = np.unique(annotations.sizes, axis=0, return_inverse=True)
    fitted = np.array([size.fit((int(h), int(w)), min_size=size.choices[0]) for h, w in distinct])
    ratios = (fitted / distinct)[inverse.reshape(-1)]
    image_of = np.repeat(np.arange(len(annotations)), np.diff(annotations.first))[~annotations.crowd]
    limits = annotations.sizes[image_of][:, [1, 0, 1, 0]]
    boxes = np.clip(xywh_to_xyxy(annotations.boxes_xywh[~annotations.crowd]), 0, limits)
    return np.asarray(((boxes[:, 2:] - boxes[:, :2]) * ratios[image_of][:, ::-1]).min(axis=1))


def with_objects(annotations: CocoAnnotations) -> CocoAnnotations:
    """Select the images with an object, and log how many have none."""
    rows_before = np.concatenate([[0], np.cumsum(~annotations.crowd)])
    counts = rows_before[annotations.first[1:]] - rows_before[annotations.first[:-1]]
    indices = np.flatnonzero(counts > 0)
    if len(indices) < len(annotations):
        _log.info("%s: %d images without boxes left out", annotations.path, len(annotations) - len(indices))
    return annotations.select_images(indices)
