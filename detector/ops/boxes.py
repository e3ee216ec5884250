"""Boxes as tensors. xyxy is (x1, y1, x2, y2) in pixels, continuous: no pixel is added to a width."""

# ... any leading dimensions, P points

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def box_area(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Areas of xyxy boxes in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def generalized_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Generalised IoU of each xyxy box of `a` with the box of `b` at the same place, in (-1, 1].

    Source: Rezatofighi et al. 2019, with the epsilon of 1e-7 in both divisions that torchvision has.
    """
    eps = 1e-7
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    intersection = overlap.prod(dim=-1)
    union = box_area(a) + box_area(b) - intersection
    hull_area = hull.prod(dim=-1)
    return intersection / (union + eps) - (hull_area - union) / (hull_area + eps)


def distances_to_boxes(
    points: Float[Tensor, "*#n 2"], distances: Float[Tensor, "*n 4"]
) -> Float[Tensor, "*n 4"]:
    """Boxes xyxy from points (x, y) and their distances to the left, top, right and bottom side."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def boxes_to_distances(points: Float[Tensor, "*#n 2"], boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """The inverse of `distances_to_boxes`; negative where a point lies outside its box."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def clip_boxes(boxes: Float[Tensor, "B N 4"], sizes: Int64[Tensor, "B 2"]) -> Float[Tensor, "B N 4"]:
    """Boxes cut to images of the sizes (height, width) in pixels."""
    limits = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
    return boxes.clamp(min=0).minimum(limits[:, None, :])
