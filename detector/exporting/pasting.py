"""Pasting of masks into images with shapes that depend on no value, for recorded graphs."""

# N masks, S cells of a mask's side

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from detector.ops.resampling import linear_weights
from detector.pasting import PADDING, enlarged


def pasted_probabilities(
    masks: Float[Tensor, "N S S"], boxes: Float[Tensor, "N 4"], size: tuple[int, int]
) -> Float[Tensor, "N _H _W"]:
    """Return the probability that a pixel of an image of `size` (height, width) belongs to each object.

    Those above 0.5 are the pixels of `detector.ops.masks.paste`, but for the rounding of equal sums: each
    axis is interpolated by a product with a matrix.
    """
    height, width = size
    padded = F.pad(masks, (PADDING,) * 4)
    corners = enlarged(boxes, cells=masks.shape[-1])
    columns = _axis(corners[:, 0], corners[:, 2], width, padded.shape[-1])
    rows = _axis(corners[:, 1], corners[:, 3], height, padded.shape[-1])
    return rows @ padded @ columns.mT


def _axis(
    first: Int64[Tensor, "N"], last: Int64[Tensor, "N"], length: int, size: int
) -> Float[Tensor, "N _length _size"]:
    """Return the weights of `size` cells, from pixel `first` to `last`, in each pixel of an axis."""
    pixel = torch.arange(length, device=first.device)
    offset, count = pixel - first[:, None], (last - first + 1).clamp(min=1)[:, None]
    inside = (offset >= 0) & (offset < count)
    weights = linear_weights((offset + 0.5) * (size / count) - 0.5, size=size)
    return torch.where(inside[..., None], weights, 0.0)
