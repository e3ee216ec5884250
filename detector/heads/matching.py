"""The matcher and the sampler of anchors and proposals."""

# B images, A anchors or proposals, G ground-truth boxes, K sampled anchors or proposals

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from detector.ops.boxes import pairwise_iou
from detector.option_types import Fraction, PositiveInt
from detector.structures import Targets

BACKGROUND, IGNORED = -1, -2

_MOST_PAIRS = 2**24  # anchors x boxes compared at once: bounds the memory


@torch.no_grad()
def match_boxes(
    anchors: Float[Tensor, "B A 4"],
    targets: Targets,
    *,
    background_iou: Fraction,
    foreground_iou: Fraction,
    allow_low_quality_matches: bool,
) -> Int64[Tensor, "B A"]:
    """Return for each anchor the index of its box: BACKGROUND below `background_iou`, IGNORED in between.

    An anchor is matched with the box it overlaps most, from `foreground_iou` on. With
    `allow_low_quality_matches`, the anchors with the highest IoU for some box are matched whatever their IoU
    (Ren et al. 2015, section 3.1.2), so that small boxes are learned.
    """
    if targets.boxes.shape[1] == 0:
        return torch.full(anchors.shape[:2], BACKGROUND, device=anchors.device)
    best = [overlap.max(dim=2) for overlap in _overlaps(anchors, targets)]
    iou, matched = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
    result = matched.masked_fill(iou < foreground_iou, IGNORED).masked_fill(iou < background_iou, BACKGROUND)
    if not allow_low_quality_matches:
        return result
    best_of_box = torch.stack([overlap.amax(dim=1) for overlap in _overlaps(anchors, targets)]).amax(dim=0)
    best_of_box = best_of_box.masked_fill(best_of_box <= 0, torch.inf)[:, None]
    is_best = [(overlap == best_of_box).any(dim=2) for overlap in _overlaps(anchors, targets)]
    return torch.where(torch.cat(is_best, dim=1), matched, result)


def _overlaps(anchors: Float[Tensor, "B A 4"], targets: Targets) -> Iterator[Float[Tensor, "B _A G"]]:
    """Yield the IoU of successive chunks of anchors with all boxes, -1 for padding."""
    at_once = max(1, _MOST_PAIRS // targets.valid.numel())
    for part in anchors.split(at_once, dim=1):
        yield pairwise_iou(part, targets.boxes).masked_fill(~targets.valid[:, None], -1)


@dataclass(frozen=True)
class Sample:
    """The indices of the samples, positives first; where `valid` is false there was none to draw."""

    index: Int64[Tensor, "B K"]
    positive: Bool[Tensor, "B K"]
    valid: Bool[Tensor, "B K"]


@dataclass(frozen=True, kw_only=True)
class BalancedSampler:
    """A sampler that draws `batch_size_per_image` entries of each image at random.

    At most `positive_fraction` of them are positive, the rest negative.
    """

    batch_size_per_image: PositiveInt
    positive_fraction: Fraction

    def __call__(self, positive: Bool[Tensor, "B A"], negative: Bool[Tensor, "B A"]) -> Sample:
        order = self._priorities(positive)
        max_positives = int(self.batch_size_per_image * self.positive_fraction)
        drawn, positives = _highest(order.masked_fill(~positive, -1), max_positives)
        others, negatives = _highest(order.masked_fill(~negative, -1), self.batch_size_per_image)
        room = self.batch_size_per_image - drawn.sum(dim=1, keepdim=True)
        others &= torch.arange(others.shape[1], device=others.device) < room
        return Sample(
            index=torch.cat([positives, negatives], dim=1),
            positive=torch.cat([drawn, torch.zeros_like(others)], dim=1),
            valid=torch.cat([drawn, others], dim=1),
        )

    def _priorities(self, like: Tensor) -> Float[Tensor, "B A"]:
        return torch.rand(like.shape, device=like.device)


def _highest(order: Float[Tensor, "B A"], count: int) -> tuple[Bool[Tensor, "B K"], Int64[Tensor, "B K"]]:
    values, index = order.topk(min(count, order.shape[1]), dim=1)
    return values >= 0, index
