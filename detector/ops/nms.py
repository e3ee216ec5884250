"""Non-maximum suppression (torchvision's kernel)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms


def class_nms(
    boxes: Float[Tensor, "N 4"],
    *,
    scores: Float[Tensor, "N"],
    labels: Int64[Tensor, "N"],
    iou_threshold: float,
    limit: int,
) -> Int64[Tensor, "K"]:
    """Indices of the boxes kept, best first, at most `limit`; none overlaps a better one of its class."""
    return batched_nms(boxes, scores, labels, iou_threshold)[:limit]


def batch_class_nms(
    boxes: Float[Tensor, "B N 4"],
    *,
    scores: Float[Tensor, "B N"],
    labels: Int64[Tensor, "B N"],
    candidates: Bool[Tensor, "B N"],
    iou_threshold: float,
    limit: int,
) -> list[Int64[Tensor, "_K"]]:
    """`class_nms` of each image among its candidates: indices into its boxes."""
    kept = []
    for i, candidate in enumerate(candidates):
        among = torch.where(candidate)[0]
        keep = class_nms(
            boxes[i, among],
            scores=scores[i, among],
            labels=labels[i, among],
            iou_threshold=iou_threshold,
            limit=limit,
        )
        kept.append(among[keep])
    return kept
