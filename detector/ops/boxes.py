"""Functions of boxes. xyxy is (x1, y1, x2, y2) in pixels, continuous: no pixel is added to a width."""

# ... any leading dimensions, P points

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CoderWeights = tuple[float, float, float, float]

_LOG_LARGEST_GROWTH = math.log(1000 / 16)  # the authors' guard against overflow


def box_area(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the areas of xyxy boxes in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(a: Float[Tensor, "*b N 4"], b: Float[Tensor, "*b M 4"]) -> Float[Tensor, "*b N M"]:
    """Return the IoU of every xyxy box of `a` with every one of `b`, in [0, 1]; 0 if both have no area."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - intersection
    return torch.where(union > 0, intersection / union, 0.0)


def generalized_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the generalized IoU of each xyxy box of `a` with its counterpart in `b`, in (-1, 1].

    Source: Rezatofighi et al. 2019, with torchvision's epsilon of 1e-7 in both divisions.
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
    """Return xyxy boxes from points (x, y) and their distances to the left, top, right and bottom side."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def boxes_to_distances(points: Float[Tensor, "*#n 2"], boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Invert `distances_to_boxes`; distances are negative for points outside their box."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def encode_boxes(
    boxes: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*#n 4"], *, weights: CoderWeights
) -> Float[Tensor, "*n 4"]:
    """Return the deltas from anchors to boxes (all xyxy), times `weights`.

    They are the shift of the center in anchor sizes and the logarithm of the ratio of the sizes (Ren et al.
    2015, section 3.1.2).
    """
    size, anchor_size = (b[..., 2:] - b[..., :2] for b in (boxes, anchors))
    shift = (boxes[..., :2] + size / 2 - anchors[..., :2] - anchor_size / 2) / anchor_size
    return torch.cat([shift, (size / anchor_size).log()], dim=-1) * boxes.new_tensor(weights)


def decode_boxes(
    deltas: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*#n 4"], *, weights: CoderWeights
) -> Float[Tensor, "*n 4"]:
    """Invert `encode_boxes`, for boxes of up to 62.5 times the anchor's width and height."""
    shift, growth = (deltas / deltas.new_tensor(weights)).split(2, dim=-1)
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    center = anchors[..., :2] + anchor_size / 2 + shift * anchor_size
    half = growth.clamp(max=_LOG_LARGEST_GROWTH).exp() * anchor_size / 2
    return torch.cat([center - half, center + half], dim=-1)


def clip_boxes(boxes: Float[Tensor, "B N 4"], sizes: Int64[Tensor, "B 2"]) -> Float[Tensor, "B N 4"]:
    """Return the boxes clipped to images of the sizes (height, width) in pixels."""
    limits = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
    return boxes.clamp(min=0).minimum(limits[:, None, :])
