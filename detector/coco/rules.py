"""The rules for usable annotations, shared by training data and the ground truth of an evaluation."""

# N annotations

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np

UNIT = 1.001  # the largest fraction, with rounding
# Thinner boxes show no pixel. Augmentation divides coordinates by the image's sides in float32, whose steps
# are 0.004 px in an image of 65,536 px: a thinner box may come out empty.
MIN_BOX_SIDE_PX = 0.01
# How far an object may reach beyond its image, in sides of the image: by the image's own size.
FAR_BEYOND = 1.0
NOTABLE_OVERHANG = 0.1

_FALSE_TEXTS, _TRUE_TEXTS = {"", "0", "0.0", "false"}, {"1", "1.0", "true"}

THIN = (
    "box {box} has a side below 0.01 pixels inside its {width} x {height} image, where nothing can be seen. "
    "Correct or remove it."
)
FRACTION = (
    "box {box} looks like fractions of the image's size. Write pixels: [x * {width}, y * {height}, "
    "w * {width}, h * {height}]."
)
CROWD_ADVICE = (
    "Some tools export every mask as a crowd (datumaro by default, supervision where a mask has holes or "
    'several parts): write "iscrowd": 0 where an annotation is one object.'
)
FAR = (
    "box {box} reaches far beyond its {width} x {height} image. Is it x, y, width, height in pixels of this "
    "image? Correct or remove it."
)


def read_crowd(value: Any) -> bool | None:
    """Return the meaning of an `iscrowd`, None if it is unreadable; a missing one is no crowd.

    Numbers other than 0 are crowds, as in pycocotools. The strings "0", "1", "true" and "false" mean what
    they say.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float):
        return value != 0 if is_finite_number(value) else None
    if isinstance(value, str):
        text = value.strip().lower()
        return False if text in _FALSE_TEXTS else True if text in _TRUE_TEXTS else None
    return None


def is_odd_crowd(value: Any) -> bool:
    """Return whether a readable `iscrowd` is not written as COCO writes it."""
    return isinstance(value, str) or (value is not None and value not in (0, 1))


def odd_crowds_note(count: int) -> str:
    return (
        f'{_annotations(count)} an "iscrowd" that is a text, or a number other than 0 and 1: "false" and "0" '
        'are read as no crowd, "true", "1" and other numbers as a crowd.'
    )


def is_finite_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number that a float64 can hold; true and false are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_box(value: Any) -> TypeGuard[Sequence[int | float]]:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_finite_number, value))


def fill_areas(areas: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace missing (NaN), zero, negative or infinite areas by width x height; return areas, mask (N,).

    pycocotools ignores objects of negative area and takes all without one for small ones.
    """
    wrong = ~(np.isfinite(areas) & (areas > 0))
    return np.where(wrong, boxes[:, 2] * boxes[:, 3], areas), wrong


def filled_areas_note(count: int, *, with_keypoints: bool) -> str:
    keypoints = ", and 0.53 of it where keypoints are compared, as in CrowdPose" if with_keypoints else ""
    return (
        f'{_annotations(count)} no "area" above 0 (missing, zero, negative or no number): width x height of '
        f"the box is used{keypoints}."
    )


def oversized_areas(areas: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of areas that exceed their box by more than rounding, as no object's mask can."""
    return np.asarray(areas > 1.05 * boxes[:, 2] * boxes[:, 3] + 1)


def oversized_areas_note(areas: np.ndarray, boxes: np.ndarray) -> str | None:
    """Return a note if nearly all areas are larger than their boxes, otherwise None."""
    large = oversized_areas(areas, boxes)
    if not large.any() or large.mean() < 0.9:
        return None
    factor = float(np.median(areas[large] / (boxes[large, 2] * boxes[large, 3])))
    return (
        f'{int(large.sum())} of {len(large)} annotations have an "area" that is larger than their box, '
        f"{factor:.3g} times in the median: boxes or areas are of an image of another size, or in another "
        "unit. Check some boxes in their images."
    )


def odd_boxes(boxes: np.ndarray, *, image_sizes: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Yield faults of finite xywh boxes with positive sides that overlap their image: mask (N,), message.

    `image_sizes` is (N, 2) as (height, width), 0 if unknown. Messages contain {box}, {width} and {height}.
    """
    yield ~_is_visible(boxes, image_sizes), THIN
    small = (boxes[:, 2:] < 1).all(axis=1)  # a single box with a side of one whole pixel may be right
    yield small & look_like_fractions(boxes, image_sizes=image_sizes), FRACTION
    yield _is_far_beyond(boxes, image_sizes), FAR


def _is_visible(boxes: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    limits = np.where(image_sizes > 0, image_sizes, np.inf)[:, ::-1]
    starts = np.where(limits < np.inf, np.clip(boxes[:, :2], 0, limits), boxes[:, :2])
    stops = np.minimum(boxes[:, :2] + boxes[:, 2:], limits)
    return np.asarray(((stops - starts) >= MIN_BOX_SIDE_PX - 1e-9).all(axis=1))  # 300.51 - 300.5 is less


def _is_far_beyond(boxes: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of boxes beyond their image by over a side, or larger than it and 10 % beyond it."""
    over = overhangs(boxes, image_sizes=image_sizes)
    known = (image_sizes > 0).all(axis=1)
    larger = known & (boxes[:, 2:] > image_sizes[:, ::-1]).all(axis=1)
    return np.asarray((over > FAR_BEYOND) | (larger & (over > NOTABLE_OVERHANG)))


def notable_overhangs(boxes: np.ndarray, *, image_sizes: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of boxes that reach beyond their image by more than a tenth of its side."""
    return overhangs(boxes, image_sizes=image_sizes) > NOTABLE_OVERHANG


def overhang_note(count: int, total: int, example: str) -> str:
    return (
        f"{count} of {total} boxes reach beyond their image by more than a tenth of its side, which is right "
        f"for objects that its border cuts. Training clips them. The first: {example}."
    )


def repeated_objects(
    images: np.ndarray, categories: np.ndarray, boxes: np.ndarray, areas: np.ndarray, flags: np.ndarray
) -> np.ndarray:
    """Return a mask (N,) of annotations that repeat an earlier image, category, box, area and flags.

    `images` and `categories` are numbers, such as positions; `flags` is a number for `iscrowd` and `ignore`.
    """
    columns = np.column_stack([images, categories, boxes, areas, flags]).astype(np.float64) + 0.0  # no -0.0
    hashes = np.zeros(len(columns), dtype=np.uint64)
    for column in np.ascontiguousarray(columns.T).view(np.uint64):
        hashes = (hashes ^ (column >> np.uint64(29)) ^ column) * np.uint64(0x9E3779B97F4A7C15)
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    repeats = np.zeros(len(columns), dtype=bool)
    seen: set[bytes] = set()
    for row in np.flatnonzero(counts[inverse] > 1):
        key = columns[row].tobytes()
        repeats[row] = key in seen
        seen.add(key)
    return repeats


def repeats_note(count: int, example: str) -> str:
    return (
        f"{count} annotation{'s' * (count != 1)} repeat{'s' * (count == 1)} an earlier one exactly (image, "
        f"category, box, area, crowd): each object is kept once. The first: {example}."
    )


def repeated_files_note(files: int, images: int, example: str) -> str:
    return (
        f"{files} image file{'s are' if files != 1 else ' is'} listed more than once, under {images} ids, "
        f'such as "{example}". Objects that stand under one id are missing under the other, where '
        "finding them counts as wrong. List each file once, with all its objects."
    )


def renumbered_note(count: int) -> str:
    return (
        f"{_annotations(count)} an id that an earlier, different one has: all are read, and numbered anew "
        "from 1."
    )


def no_objects(*, listed: int, crowds: int, dropped: int, option: str, skipped: int = 0) -> str:
    """Explain in sentences why the `listed` annotations of a file hold no object, and what to do.

    `dropped` were left out as bad because of `option`, `skipped` with their images.
    """
    if not listed:
        return 'its list "annotations" is empty. Add the boxes, or give the file that has them.'
    parts = [
        (crowds, "crowds (iscrowd 1), which are regions to ignore"),
        (dropped, f"left out because of {option}"),
        (skipped, "left out with their images"),
    ]
    counted = [f"{n} are {why}" for n, why in parts if n]
    if len(counted) == 1:
        counted = [f"all {listed} annotations are {next(why for n, why in parts if n)}"]
    advice = []
    if crowds:
        advice.append(CROWD_ADVICE)
    if dropped:
        advice.append("Correct the annotations that are listed above.")
    return " ".join([f"{', '.join(counted)}.", *advice])


def shown(value: Any, *, limit: int = 80) -> str:
    """Format any JSON value for a message, short and on one line."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def is_encodable(text: str) -> bool:
    """Return whether a string can be written to a file: JSON may hold half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return the text with unwritable characters escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _annotations(count: int) -> str:
    return "1 annotation has" if count == 1 else f"{count} annotations have"


@np.errstate(over="ignore", invalid="ignore")  # of values such as 1e308
def overhangs(boxes: np.ndarray, *, image_sizes: np.ndarray) -> np.ndarray:
    """Return how far each xywh box reaches beyond its image, in sides of the image (N,); 0 if unknown."""
    height, width = np.asarray(image_sizes, dtype=np.float64).T
    beyond = np.zeros(len(boxes))
    for start, length, side in ((boxes[:, 0], boxes[:, 2], width), (boxes[:, 1], boxes[:, 3], height)):
        known = side > 0
        over = np.maximum(start + length - side, -start)
        beyond = np.maximum(beyond, np.where(known, over / np.where(known, side, 1), 0))
    return beyond


def look_like_fractions(boxes: np.ndarray, *, image_sizes: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of boxes within the unit square with a side below a pixel.

    In pixels such a box would be a speck in the corner of its image.
    """
    inside = ((boxes >= -0.001) & (boxes <= UNIT)).all(axis=1) & (boxes[:, 2:] < 1).any(axis=1)
    tiny_image = (image_sizes > 0) & (image_sizes <= 2)
    return np.asarray(inside & ~tiny_image.any(axis=1))
