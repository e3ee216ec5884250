"""The detection of boxes in a wrong format, a guess from coordinates, image sizes and areas.

All are pure functions of arrays, for ground truth and results alike.
"""

# N boxes

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.coco.rules import UNIT, look_like_fractions, overhangs

BoxFormat = Literal["xyxy", "cxcywh", "yxhw", "fractions", "percent"]

# An overhang counts from this fraction of the image's side. Rounding, an extra pixel and slightly rotated or
# padded images stay far below; boxes that are read in a wrong format reach half an image beyond.
_NOTABLE = 0.1
_LEAST_SHARE = 0.1  # of the boxes must contradict x, y, width, height
_ALMOST_ALL = 0.99
_LARGE_SHARE = 0.2  # of at least _MANY boxes reach beyond, by however little
_MANY = 10
_ALL_FIT_PX = 2.0  # the overhang that a box in the right format may have

_READINGS: dict[BoxFormat, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "xyxy": ("x1, y1, x2, y2", lambda b: b),
    "cxcywh": (
        "center x, center y, width, height",
        lambda b: np.concatenate([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], axis=1),
    ),
    "yxhw": (
        "y, x, height, width",
        lambda b: np.concatenate([b[:, [1, 0]], b[:, [1, 0]] + b[:, [3, 2]]], axis=1),
    ),
}


@dataclass(frozen=True)
class BoxFormatFinding:
    """A finding that boxes look written in a format other than x, y, width, height in pixels.

    `suspects` marks the boxes that show it: they reach beyond their image, are fractions, or have an area
    that only the other format gives. `reason` is one sentence with counts, without a period.
    """

    format: BoxFormat
    suspects: np.ndarray  # (N,) bool
    total: int
    reason: str

    @property
    def count(self) -> int:
        return int(self.suspects.sum())

    @property
    def fix(self) -> str:
        """An instruction how to write the boxes instead."""
        convert = {
            "xyxy": "[x1, y1, x2 - x1, y2 - y1]",
            "cxcywh": "[x - width / 2, y - height / 2, width, height]",
            "yxhw": "[x, y, width, height]",
            "percent": "[x * W, y * H, width * W, height * H] / 100 for an image of W x H pixels",
            "fractions": "[x * W, y * H, width * W, height * H] for an image of W x H pixels",
        }[self.format]
        return f"COCO boxes are [x, y, width, height] in pixels: write {convert}."


@np.errstate(over="ignore", invalid="ignore")  # of values such as 1e308
def find_box_format(
    boxes: np.ndarray, *, image_sizes: np.ndarray, areas: np.ndarray | None = None
) -> BoxFormatFinding | None:
    """Guess whether boxes that should be xywh in pixels are in another format; None if they look right.

    `boxes` is (N, 4) float64, `image_sizes` (N, 2) the (height, width) of each box's image, 0 if unknown,
    `areas` (N,), NaN if unknown. Boxes that are not finite, or not positive in width and height, are ignored.
    Single odd boxes among many right ones are no finding.
    """
    usable = np.isfinite(boxes).all(axis=1)
    usable &= (np.where(usable[:, None], boxes[:, 2:], 0) > 0).all(axis=1)
    if not usable.any():
        return None
    rows = np.flatnonzero(usable)
    part, sizes = boxes[rows], np.asarray(image_sizes, dtype=np.float64)[rows]
    finding = _fractions(part, sizes) or _reaching(part, sizes, None if areas is None else areas[rows])
    if finding is None and areas is not None:
        finding = _by_area(part, sizes, areas[rows]) or _percent(part, sizes, areas[rows])
    if finding is None:
        return None
    format_, inner, reason = finding
    suspects = np.zeros(len(boxes), dtype=bool)
    suspects[rows[inner]] = True
    return BoxFormatFinding(format_, suspects, len(rows), reason)


_Finding = tuple[BoxFormat, np.ndarray, str]


def _fractions(boxes: np.ndarray, sizes: np.ndarray) -> _Finding | None:
    inside = look_like_fractions(boxes, image_sizes=sizes)
    whole = (boxes == [0, 0, 1, 1]).all(axis=1)  # a whole image, if the others are fractions
    suspects = inside | (whole & bool(inside.any()))
    count, total = int(suspects.sum()), len(boxes)
    if count * 2 < total:
        return None
    which = f"all {total}" if count == total else f"{count} of {total}"
    return "fractions", suspects, f"{which} boxes look normalized: fractions of the image's size, not pixels"


def _reaching(boxes: np.ndarray, sizes: np.ndarray, areas: np.ndarray | None) -> _Finding | None:
    """Find the format that fits (nearly) every box into its image, if many reach beyond it as xywh."""
    total = len(boxes)
    beyond = overhangs(boxes, image_sizes=sizes)
    notable = beyond > _NOTABLE
    reaching = _reaches(boxes, sizes)
    slightly = (beyond[:, None] * sizes > _ALL_FIT_PX).any(axis=1)
    if notable.sum() < max(1, _LEAST_SHARE * total):
        # Boxes by their center reach beyond by half a box at most, which is little if boxes are small.
        if (
            total >= _MANY
            and slightly.mean() >= _LARGE_SHARE
            and _fits(_READINGS["cxcywh"][1](boxes), sizes).all()
        ):
            return "cxcywh", reaching, _as_others(reaching, _READINGS["cxcywh"][0], "all would fit")
        return None
    for name, (words, read) in _READINGS.items():
        fits = _fits(read(boxes), sizes)
        all_fit = fits.mean() >= _ALMOST_ALL
        if name != "xyxy" and not (all_fit and total >= 5):
            continue  # a few boxes that reach beyond the right border fit by accident
        if (fits & notable).sum() < _ALMOST_ALL * notable.sum() or not (all_fit or notable.sum() >= 3):
            continue
        if total < 5 and areas is not None and _agree(areas, boxes[:, 2:].prod(axis=1)).all():
            continue  # a few large objects cut by the border, as their areas show
        return name, reaching, _as_others(reaching, words, "all would fit" if all_fit else "these would fit")
    return None


def _as_others(reaching: np.ndarray, words: str, how_many_fit: str) -> str:
    count = f"{int(reaching.sum())} of {len(reaching)} boxes reach beyond their image"
    return f"{count}; read as {words} {how_many_fit}"


def _percent(boxes: np.ndarray, sizes: np.ndarray, areas: np.ndarray) -> _Finding | None:
    """Find boxes in percent of their image, by their `area` in pixels."""
    with_area = np.isfinite(areas) & (areas > 0) & (sizes > 0).all(axis=1)
    inside = ((boxes >= 0) & (boxes <= 100 * UNIT)).all(axis=1)
    products = boxes[:, 2:].prod(axis=1)
    in_pixels = products * sizes.prod(axis=1) / 1e4
    suspects = with_area & _nearly(areas, in_pixels) & ~_nearly(areas, products)
    if not inside.all() or not suspects.any() or suspects.sum() < 0.9 * with_area.sum():
        return None
    reason = (
        f"the area of {int(suspects.sum())} of {int(with_area.sum())} boxes is that of a box in percent of "
        "the image, not in pixels"
    )
    return "percent", suspects, reason


def _nearly(areas: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return whether areas are equal to within 1 %: percentages are often rounded."""
    return np.asarray(np.abs(areas - products) <= np.maximum(0.5, 0.01 * products))


def _by_area(boxes: np.ndarray, sizes: np.ndarray, areas: np.ndarray) -> _Finding | None:
    """Find boxes that are corners by their `area`, even if no box reaches beyond its image."""
    sides = boxes[:, 2:] - boxes[:, :2]
    if not (_fits(boxes, sizes) | (sizes == 0).any(axis=1) & (sides > 0).all(axis=1)).all():
        return None
    with_area = np.isfinite(areas) & (areas > 0)
    as_corners = with_area & _agree(areas, sides.prod(axis=1))
    as_sides = with_area & _agree(areas, boxes[:, 2:].prod(axis=1))
    suspects = as_corners & ~as_sides
    decisive = with_area & ~(as_corners & as_sides)
    count, num_decisive = int(suspects.sum()), int(decisive.sum())
    if not count or count < 0.9 * num_decisive:
        return None
    reason = (
        f"the area of {count} of {int(with_area.sum())} boxes is that of corners x1, y1, x2, y2, not width x "
        "height; read as x1, y1, x2, y2 all would fit"
    )
    return "xyxy", suspects, reason


def _agree(areas: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return whether areas are equal to within half a pixel or 0.1 %: tools truncate areas to integers."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(areas - products) <= np.maximum(0.5, 1e-3 * products))


def _reaches(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    limits = np.where(sizes > 0, sizes, np.inf)[:, ::-1] + 1e-6
    return np.asarray((boxes[:, :2] + boxes[:, 2:] > limits).any(axis=1))


def _fits(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return whether xyxy boxes are valid and, up to rounding, inside their image if its size is known."""
    limits = np.where(sizes > 0, sizes, np.inf)[:, ::-1] + _ALL_FIT_PX
    real = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return np.asarray(
        real & (corners[:, :2] >= -_ALL_FIT_PX).all(axis=1) & (corners[:, 2:] <= limits).all(axis=1)
    )
