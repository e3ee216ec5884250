"""Non-maximum suppression (torchvision's kernel)."""

# B images, N boxes per image, K of them kept

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from detector.ops.torchvision_nms import batched_nms, nms
from detector.structures import Candidates, Detections

_by_torchvision = ContextVar("_by_torchvision", default=False)


def class_nms(
    boxes: Float[Tensor, "N 4"],
    *,
    scores: Float[Tensor, "N"],
    labels: Int64[Tensor, "N"],
    iou_threshold: float,
    limit: int,
) -> Int64[Tensor, "K"]:
    """Return the indices of at most `limit` boxes, best first; none overlaps a better one of its class."""
    return batched_nms(boxes, scores, labels, iou_threshold)[:limit]


def batch_class_nms(candidates: Candidates) -> list[Int64[Tensor, "_K"]]:
    """Apply `class_nms` to the allowed boxes of each image, and return indices into all its boxes."""
    kept = []
    for i, allowed in enumerate(candidates.allowed):
        among = torch.where(allowed)[0]
        keep = class_nms(
            candidates.boxes[i, among],
            scores=candidates.scores[i, among],
            labels=candidates.labels[i, among],
            iou_threshold=candidates.iou_threshold,
            limit=candidates.limit,
        )
        kept.append(among[keep])
    return kept


def suppressed(candidates: Candidates) -> list[Detections]:
    """Return the detections of each image, the candidates that `batch_class_nms` keeps, best first."""
    return [
        Detections(candidates.boxes[i, kept], candidates.scores[i, kept], candidates.labels[i, kept])
        for i, kept in enumerate(batch_class_nms(candidates))
    ]


@contextmanager
def recording_torchvision_nms() -> Iterator[None]:
    """Make `padded_class_nms` use operators of torch and torchvision only, inside this context.

    A graph that is recorded here runs without this package.
    """
    token = _by_torchvision.set(True)
    try:
        yield
    finally:
        _by_torchvision.reset(token)


def padded_class_nms(candidates: Candidates) -> Int64[Tensor, "B limit"]:
    """Return `batch_class_nms` as one tensor padded with -1, a single node in a recorded graph."""
    if _by_torchvision.get():
        return torchvision_class_nms(candidates)
    return torch.ops.detector.padded_class_nms(
        candidates.boxes,
        candidates.scores,
        candidates.labels,
        candidates.allowed,
        candidates.num_labels,
        candidates.iou_threshold,
        candidates.limit,
        candidates.labels_alternate,
        candidates.are_logits,
    )


@torch.library.custom_op(
    "detector::padded_class_nms",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor labels, Tensor allowed, int num_labels, "
    "float iou_threshold, int limit, bool labels_alternate, bool are_logits) -> Tensor",
)
def _padded_class_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    allowed: Tensor,
    num_labels: int,
    iou_threshold: float,
    limit: int,
    labels_alternate: bool,
    are_logits: bool,
) -> Tensor:
    candidates = Candidates(
        boxes, scores, labels, allowed, num_labels, iou_threshold, limit, labels_alternate, are_logits
    )
    padded = labels.new_full((len(boxes), limit), -1)
    for row, kept in zip(padded, batch_class_nms(candidates), strict=True):
        row[: len(kept)] = kept
    return padded


@_padded_class_nms.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    allowed: Tensor,
    num_labels: int,
    iou_threshold: float,
    limit: int,
    labels_alternate: bool,
    are_logits: bool,
) -> Tensor:
    return labels.new_empty((boxes.shape[0], limit))


def torchvision_class_nms(candidates: Candidates) -> Int64[Tensor, "B limit"]:
    """Compute `padded_class_nms` with operators of torchvision and torch.

    All images share one suppression: boxes are shifted so that those of different images and labels do not
    overlap, in float64, which preserves their coordinates.
    """
    batch, places = candidates.scores.shape
    image = torch.arange(batch, device=candidates.boxes.device)[:, None]
    boxes = candidates.boxes.double()
    extent = boxes.amax() - boxes.amin() + 1
    separated = boxes + ((image * candidates.num_labels + candidates.labels) * extent)[..., None]
    among = candidates.allowed.flatten().nonzero().squeeze(1)
    scores = candidates.scores.flatten()
    kept = among[nms(separated.flatten(0, 1)[among], scores[among].double(), candidates.iou_threshold)]
    chosen = torch.zeros_like(scores, dtype=torch.bool).index_fill(0, kept, True).view(batch, places)
    lowest = candidates.scores.amin() - 1  # below all scores
    ranked = torch.where(chosen, candidates.scores, lowest)
    best, index = torch.cat([ranked, lowest.expand(batch, candidates.limit)], dim=1).topk(
        candidates.limit, dim=1
    )
    return torch.where(best > lowest, index, -1)
