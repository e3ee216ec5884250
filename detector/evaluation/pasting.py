"""The masks of detections as COCO's run lengths, pasted crop by crop: no mask of a whole image is made."""

# N detections of an image, S cells of a mask's side, E edges between background and object

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from detector.coco.ragged import offsets
from detector.coco.rle import compress
from detector.structures import BoxMasks

_PADDING = 1  # cells around a mask, so that it fades out beyond its box
_THRESHOLD = 0.5


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


def encoded_masks(masks: BoxMasks, boxes: Float[Tensor, "N 4"], size: tuple[int, int]) -> list[str]:
    """Return the compressed run lengths of each mask in an image of `size`, (height, width) in pixels.

    Boxes are xyxy in pixels of the image. The pixels are those of torchvision's `paste_masks_in_image` above
    0.5, the texts those of pycocotools.
    """
    crops = _pasted(masks, boxes, size)
    data, first = compress(*_run_lengths(crops, size))
    text, edges = data.tobytes().decode("ascii"), first.tolist()
    return [text[a:b] for a, b in pairwise(edges)]


def _pasted(masks: BoxMasks, boxes: Float[Tensor, "N 4"], size: tuple[int, int]) -> _Crops:
    coverage = masks.coverage.detach().cpu()
    values = coverage.float() if coverage.is_floating_point() else coverage.float() / 255
    frames = _frames(boxes.detach().cpu().float(), cells=values.shape[-1])
    limits = np.array([size[1], size[0]])
    corners = np.clip(frames[:, :2], 0, limits)
    ends = np.maximum(np.minimum(frames[:, 2:] + 1, limits), corners)
    widths, heights = (ends - corners).T
    first = offsets(widths * (heights + 1))
    pixels = np.zeros(int(first[-1]) + 1, dtype=bool)
    padded = functional.pad(values, (_PADDING,) * 4)[:, None, None]
    for number in np.flatnonzero((widths > 0) & (heights > 0)).tolist():
        left, top, right, bottom = frames[number].tolist()
        resized = functional.interpolate(
            padded[number], size=(max(bottom - top + 1, 1), max(right - left + 1, 1)), mode="bilinear"
        )[0, 0]
        (x0, y0), (x1, y1) = corners[number].tolist(), ends[number].tolist()
        columns = pixels[1 + first[number] : 1 + first[number + 1]].reshape(x1 - x0, y1 - y0 + 1)
        columns[:, :-1] = (resized[y0 - top : y1 - top, x0 - left : x1 - left] > _THRESHOLD).numpy().T
    return _Crops(pixels, first, corners, heights)


def _frames(boxes: Float[Tensor, "N 4"], *, cells: int) -> np.ndarray:
    """Return the boxes, enlarged as their masks are by padding, in whole pixels (N, 4), xyxy."""
    scale = (cells + 2 * _PADDING) / cells
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat([center - half, center + half], dim=1).to(torch.int64).numpy()


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
