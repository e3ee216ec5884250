"""Masks in the frames of boxes: their parts inside other boxes, and their pixels in an image."""

# R regions, N masks, S cells of a mask's side

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from detector.pasting import PADDING, enlarged


def cropped(
    coverage: UInt8[Tensor, "R S S"],
    boxes: Float[Tensor, "R 4"],
    regions: Float[Tensor, "R 4"],
    *,
    size: int,
) -> Float[Tensor, "R size size"]:
    """Return the coverage of `size` x `size` cells of each region, in [0, 1], zero outside the mask's box.

    Coverage is that of S x S cells of `boxes`; boxes and regions are xyxy in pixels. For boxes of S x S whole
    pixels the result equals torchvision's RoIAlign of the image's mask, for others it approximates that.
    """
    from torchvision.ops import roi_align  # late: predicting does without, and its import takes long

    # RoIAlign reads the value of pixel i, whose center is i + 0.5, at position i.
    scale = coverage.shape[-1] / (boxes[:, 2:] - boxes[:, :2])
    corners = (regions + 0.5).unflatten(1, (2, 2)) - boxes[:, None, :2]
    placed = corners * scale[:, None] - 0.5 + PADDING
    padded = F.pad(coverage.to(regions.dtype) / 255, (PADDING,) * 4)
    index = torch.arange(len(regions), device=regions.device, dtype=regions.dtype)
    return roi_align(padded[:, None], torch.cat([index[:, None], placed.flatten(1)], dim=1), size)[:, 0]


def paste(
    coverage: Shaped[Tensor, "N S S"], boxes: Float[Tensor, "N 4"], size: tuple[int, int]
) -> Bool[Tensor, "N _H _W"]:
    """Return the masks in an image of `size` (height, width): the pixels covered by more than half.

    They equal torchvision's `paste_masks_in_image` above 0.5. Each mask takes the memory of an image.
    """
    height, width = size
    if not coverage.is_floating_point():
        coverage = coverage.to(boxes.dtype) / 255
    side = coverage.shape[-1]
    padded = F.pad(coverage, (PADDING,) * 4)
    pasted = torch.zeros(len(coverage), height, width, dtype=torch.bool, device=coverage.device)
    for image, mask, box in zip(pasted, padded, enlarged(boxes, cells=side).tolist(), strict=True):
        x1, y1, x2, y2 = box
        shape = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        pixels = F.interpolate(mask[None, None], size=shape, mode="bilinear", align_corners=False)[0, 0]
        left, top = max(x1, 0), max(y1, 0)
        right, bottom = min(x2 + 1, width), min(y2 + 1, height)
        image[top:bottom, left:right] = pixels[top - y1 : bottom - y1, left - x1 : right - x1] > 0.5
    return pasted
