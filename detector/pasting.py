"""The masks of detections, pasted as crops or COCO's run lengths: no mask of a whole image is made."""

# N detections of an image, S cells of a mask's side, E edges between background and object

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional

from detector.coco.ragged import offsets
from detector.coco.rle import compress

PADDING = 1  # cells around a mask, so that it fades out beyond its box
_THRESHOLD = 0.5


class MaskCrop(NamedTuple):
    """A part of an image that holds all of a mask: x, y of its first pixel, and its pixels (bool, h x w)."""

    left: int
    top: int
    pixels: np.ndarray


@dataclass(frozen=True)
class _Crops:
    """The parts of N masks inside their image, column by column; each column ends with background.

    `pixels` (bool) holds a background pixel and then all crops, that of mask n from `first[n]` on; `corners`
    (N, 2) are x, y of each one's first pixel in the image, `heights` (N) those of its columns.
    """

    pixels: np.ndarray
    first: np.ndarray
    corners: np.ndarray
    heights: np.ndarray


class _Frames:
    """Where masks lie: the boxes, enlarged as their masks are by padding, and their parts in the image.

    `corners` and `ends` (N, 2) are x, y of the first pixel in the image, and of that after the last.
    """

    def __init__(
        self, coverage: Shaped[Tensor, "N S S"], boxes: Float[Tensor, "N 4"], size: tuple[int, int]
    ) -> None:
        coverage = coverage.detach().cpu()
        values = coverage.float() if coverage.is_floating_point() else coverage.float() / 255
        self._frames = enlarged(boxes.detach().cpu().float(), cells=values.shape[-1]).numpy()
        self._padded = functional.pad(values, (PADDING,) * 4)[:, None, None]
        limits = np.array([size[1], size[0]])
        self.corners = np.clip(self._frames[:, :2], 0, limits)
        self.ends = np.maximum(np.minimum(self._frames[:, 2:] + 1, limits), self.corners)

    def crop(self, number: int) -> MaskCrop:
        """Return the part of a mask that is inside the image."""
        left, top, right, bottom = self._frames[number].tolist()
        (x0, y0), (x1, y1) = self.corners[number].tolist(), self.ends[number].tolist()
        if x0 >= x1 or y0 >= y1:
            return MaskCrop(x0, y0, np.zeros((0, 0), dtype=bool))
        resized = functional.interpolate(
            self._padded[number], size=(max(bottom - top + 1, 1), max(right - left + 1, 1)), mode="bilinear"
        )[0, 0]
        pixels = (resized[y0 - top : y1 - top, x0 - left : x1 - left] > _THRESHOLD).numpy()
        return MaskCrop(x0, y0, pixels)


def mask_crops(
    coverage: Shaped[Tensor, "N S S"], boxes: Float[Tensor, "N 4"], size: tuple[int, int]
) -> Iterator[MaskCrop]:
    """Yield the pixels of each mask in an image of `size`, (height, width) in pixels.

    Coverage is that of S x S cells of `boxes`, xyxy in pixels of the image, in [0, 1], or to 255 in integers.
    The pixels are those of torchvision's `paste_masks_in_image` above 0.5.
    """
    frames = _Frames(coverage, boxes, size)
    return map(frames.crop, range(len(coverage)))


def encoded_masks(
    coverage: Shaped[Tensor, "N S S"], boxes: Float[Tensor, "N 4"], size: tuple[int, int]
) -> list[str]:
    """Return the compressed run lengths of the masks that `mask_crops` yields: pycocotools' texts."""
    data, first = compress(*_run_lengths(_pasted(_Frames(coverage, boxes, size)), size))
    text, edges = data.tobytes().decode("ascii"), first.tolist()
    return [text[a:b] for a, b in pairwise(edges)]


def _pasted(frames: _Frames) -> _Crops:
    widths, heights = (frames.ends - frames.corners).T
    first = offsets(widths * (heights + 1))
    pixels = np.zeros(int(first[-1]) + 1, dtype=bool)
    for number in np.flatnonzero((widths > 0) & (heights > 0)).tolist():
        columns = pixels[1 + first[number] : 1 + first[number + 1]].reshape(widths[number], -1)
        columns[:, :-1] = frames.crop(number).pixels.T
    return _Crops(pixels, first, frames.corners, heights)


def enlarged(boxes: Float[Tensor, "N 4"], *, cells: int) -> Int64[Tensor, "N 4"]:
    """Return the boxes (xyxy), enlarged as their masks are by padding, in whole pixels toward zero."""
    scale = (cells + 2 * PADDING) / cells
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat([center - half, center + half], dim=1).long()


def _run_lengths(crops: _Crops, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the run lengths of the masks in the whole image, and their offsets (N + 1)."""
    height, pixels_of_image = size[0], size[0] * size[1]
    places = np.flatnonzero(crops.pixels[1:] != crops.pixels[:-1])
    mask_of = np.searchsorted(crops.first, places, side="right") - 1
    column, row = np.divmod(places - crops.first[mask_of], crops.heights[mask_of] + 1)
    left, top = crops.corners[mask_of].T
    edges = (left + column) * height + top + row
    # A run that goes on in the next column, from the image's lower border to its upper, is one run.
    goes_on = np.zeros(len(edges) + 1, dtype=bool)
    goes_on[2:-1:2] = (edges[1:-1:2] == edges[2::2]) & (mask_of[1:-1:2] == mask_of[2::2])
    kept = ~(goes_on[:-1] | goes_on[1:]) & (edges < pixels_of_image)
    edges, mask_of = edges[kept], mask_of[kept]
    count = np.bincount(mask_of, minlength=len(crops.heights))
    first = offsets(count + 2)
    bounds = np.zeros(first[-1], dtype=np.int64)
    bounds[first[1:] - 1] = pixels_of_image
    bounds[np.arange(len(edges)) + 2 * mask_of + 1] = edges
    return np.delete(np.diff(bounds), first[1:-1] - 1), offsets(count + 1)
