"""Checks for results whose boxes are not x, y, width, height in pixels of their image."""

from __future__ import annotations

import numpy as np

from detector.coco.box_format import find_box_format
from detector.coco.ground_truth import GroundTruth
from detector.coco.rules import overhangs
from detector.evaluation.matching import Rows

_FEW = 5  # boxes that may reach beyond their image by accident
_FAR = 1.0  # in sides of an image: unclipped boxes of a detector do not reach so far beyond it
_MANY = 0.1  # share of all boxes
_SURELY_MANY = 20  # so many boxes do not share a corner by accident
_CORNER = 0.6  # share of the image's width and height


def check_boxes(rows: Rows, truth: GroundTruth, *, source: str) -> tuple[str, ...]:
    """Return notes on boxes that reach far beyond their images; some overhang is usual without clipping.

    Raises:
        ValueError: so many boxes reach beyond that they must be in another format, or belong to images of
            another size.
    """
    if not len(rows.scores):
        return ()
    sizes = truth.annotations.sizes[rows.images - 1]
    finding = find_box_format(rows.boxes_xywh, image_sizes=sizes)
    certain = finding is not None and (finding.format == "fractions" or finding.total >= _FEW)
    if finding is not None and certain:
        raise ValueError(
            f"{source}: {finding.reason}. {_example(rows, finding.suspects, truth)} {finding.fix}"
        )
    if finding is not None:
        return (f"{source}: {finding.reason}. {finding.fix}",)
    return _far_beyond(rows, sizes, truth, source=source)


def _far_beyond(rows: Rows, sizes: np.ndarray, truth: GroundTruth, *, source: str) -> tuple[str, ...]:
    far = overhangs(rows.boxes_xywh, image_sizes=sizes) > _FAR
    far |= _outside(rows.boxes_xywh, sizes)
    count, total = int(far.sum()), len(far)
    if not count:
        return _in_a_corner(rows.boxes_xywh, sizes, source=source)
    note = (
        f"{source}: {count} of {total} boxes lie outside of their image, or reach beyond it by more than its "
        f"side. {_example(rows, far, truth)}"
    )
    if count < _MANY * total:
        return (note,)
    raise ValueError(
        f"{note} Write [x, y, width, height] in pixels of the image file, not of a resized image, with the "
        "image_id of its image."
    )


def _in_a_corner(boxes: np.ndarray, sizes: np.ndarray, *, source: str) -> tuple[str, ...]:
    """Return a note if many boxes all lie in one corner: perhaps in percent, or of resized images."""
    if len(boxes) < _SURELY_MANY or not (sizes > 0).all():
        return ()
    ends = boxes[:, :2] + boxes[:, 2:]
    if sizes.min() >= 200 and 80 < ends.max() <= 100.1:
        return (
            f"{source}: all {len(boxes)} boxes lie in the first 100 x 100 pixels of larger images: are they "
            "in percent? Write pixels: [x * W, y * H, width * W, height * H] / 100.",
        )
    reach = float((ends / sizes[:, ::-1]).max())
    if reach > _CORNER:
        return ()
    return (
        f"{source}: all {len(boxes)} boxes lie in the upper left {reach:.0%} of the width and height of "
        "their images: are they in pixels of resized images? Write pixels of the image file.",
    )


@np.errstate(over="ignore", invalid="ignore")  # boxes may hold 1e308
def _outside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    limits = np.where(sizes > 0, sizes, np.inf)[:, ::-1]
    return np.asarray(
        ((boxes[:, :2] > limits) | ((boxes[:, :2] + boxes[:, 2:] < 0) & np.isfinite(limits))).any(axis=1)
    )


def _example(rows: Rows, marked: np.ndarray, truth: GroundTruth) -> str:
    place = int(np.flatnonzero(marked)[0])
    number = int(rows.images[place]) - 1
    image, name = [*truth.image_numbers][number][1], truth.file_names[number]
    height, width = truth.annotations.sizes[number].tolist()
    of = f"{width:g} x {height:g} image {image!r}" + (f' ("{name}")' if name else "")
    box = ", ".join(f"{value:g}" for value in rows.boxes_xywh[place].tolist())
    return f"One is [{box}] in the {of}."
