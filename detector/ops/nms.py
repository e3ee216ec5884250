"""Non-maximum suppression (torchvision's kernel)."""

from __future__ import annotations

from jaxtyping import Float, Int64
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
