"""The region proposal network (Ren et al. 2015) on a pyramid, which proposes objects of any class.

Parameter names are torchvision's.
"""

# B images, A anchors over all levels, P proposals, G ground-truth boxes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detector.heads.anchors import AnchorGenerator
from detector.heads.matching import BACKGROUND, BalancedSampler, match_boxes
from detector.layers.conv import Conv3x3, apply_to_levels
from detector.ops.boxes import CoderWeights, clip_boxes, decode_boxes
from detector.ops.losses import BoxLoss, DeltaCoder, SmoothL1
from detector.ops.nms import batch_class_nms, padded_class_nms
from detector.ops.ranks import normalizer
from detector.ops.recording import is_recorded, top
from detector.option_types import Fraction, PositiveInt
from detector.structures import Candidates, FeatureSpec, Targets

_WEIGHTS: CoderWeights = (1.0, 1.0, 1.0, 1.0)
_SMALLEST_PX = 1e-3


@dataclass(frozen=True)
class RPNOutputs:
    """The raw outputs for the anchors of all levels, concatenated."""

    objectness: Float[Tensor, "B A"]
    deltas: Float[Tensor, "B A 4"]
    anchors: Float[Tensor, "A 4"]
    anchors_per_level: list[int]


@dataclass(frozen=True)
class Proposals:
    """The proposed boxes of each image in pixels, best first, padded to the image with the most."""

    boxes: Float[Tensor, "B P 4"]
    valid: Bool[Tensor, "B P"]


@dataclass(frozen=True, kw_only=True)
class ProposalLimits:
    """The numbers of boxes before NMS, per level, and after NMS, per image, in training and prediction."""

    pre_nms_top_n_train: PositiveInt = 2000
    post_nms_top_n_train: PositiveInt = 2000
    pre_nms_top_n_test: PositiveInt = 1000
    post_nms_top_n_test: PositiveInt = 1000


class RPN(nn.Module):
    """A network that predicts objectness and box deltas of anchors, with their proposals and losses.

    An anchor is foreground if its IoU with some box is at least `foreground_iou`, or the highest for that
    box, and background below `background_iou`. Training uses `batch_size_per_image` anchors, at most
    `positive_fraction` of them foreground. `box_loss` is smooth L1 in torchvision, L1 in MMDetection.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        *,
        anchor_generator: AnchorGenerator = AnchorGenerator(),  # noqa: B008 (frozen)
        num_convs: PositiveInt = 1,
        foreground_iou: Fraction = 0.7,
        background_iou: Fraction = 0.3,
        batch_size_per_image: PositiveInt = 256,
        positive_fraction: Fraction = 0.5,
        box_loss: BoxLoss = SmoothL1(),  # noqa: B008 (frozen)
        limits: ProposalLimits = ProposalLimits(),
        nms_iou_threshold: Fraction = 0.7,
    ) -> None:
        super().__init__()
        channels = features[0].channels
        assert all(f.channels == channels for f in features), "the convolutions are shared by all levels"
        self.strides_px = [f.stride_px for f in features]
        self.anchor_generator = anchor_generator
        self.foreground_iou, self.background_iou = foreground_iou, background_iou
        self.sampler = BalancedSampler(
            batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction
        )
        self.box_loss = box_loss
        self.limits = limits
        self.nms_iou_threshold = nms_iou_threshold
        self.head = _RPNHead(channels, anchor_generator.per_cell, num_convs)

    def forward(self, features: list[Float[Tensor, "B _C _H _W"]]) -> RPNOutputs:
        objectness, deltas = self.head(features)
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        anchors = self.anchor_generator(shapes, self.strides_px, device=features[0].device)
        return RPNOutputs(
            objectness=torch.cat([_per_anchor(x, 1) for x in objectness], dim=1).squeeze(-1).float(),
            deltas=torch.cat([_per_anchor(x, 4) for x in deltas], dim=1).float(),
            anchors=torch.cat(anchors),
            anchors_per_level=[level.shape[0] for level in anchors],
        )

    def loss(self, outputs: RPNOutputs, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        anchors = outputs.anchors.expand(len(targets.boxes), -1, -1)
        matched = match_boxes(
            anchors,
            targets,
            background_iou=self.background_iou,
            foreground_iou=self.foreground_iou,
            allow_low_quality_matches=True,
        )
        sample = self.sampler(matched >= 0, matched == BACKGROUND)
        count = normalizer(sample.valid.sum(), at_least=1.0, all_ranks=self.training)
        objectness = F.binary_cross_entropy_with_logits(
            outputs.objectness.gather(1, sample.index), sample.positive.float(), reduction="none"
        )
        deltas, sampled, boxes = (
            gather_rows(x, sample.index)
            for x in (outputs.deltas, anchors, _target_boxes(anchors, targets, matched))
        )
        box_losses = self.box_loss.of_encoded(deltas, boxes, coder=DeltaCoder(sampled, _WEIGHTS))
        return {
            "loss_objectness": objectness.masked_fill(~sample.valid, 0).sum() / count,
            "loss_rpn_box_reg": box_losses.masked_fill(~sample.positive, 0).sum() / count,
        }

    @torch.no_grad()
    def proposals(
        self, outputs: RPNOutputs, image_sizes: Int64[Tensor, "B 2"], *, training: bool
    ) -> Proposals:
        """Return the best boxes after NMS, clipped to their images (height, width in pixels)."""
        limits = self.limits
        before, after = (
            (limits.pre_nms_top_n_train, limits.post_nms_top_n_train)
            if training
            else (limits.pre_nms_top_n_test, limits.post_nms_top_n_test)
        )
        scores, best, level, exists = self._best_of_levels(outputs, before)
        boxes = decode_boxes(gather_rows(outputs.deltas, best), outputs.anchors[best], weights=_WEIGHTS)
        boxes = clip_boxes(boxes, image_sizes)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= _SMALLEST_PX).all(dim=-1)
        candidates = Candidates(
            boxes,
            scores,
            level.expand_as(best),
            allowed=large & exists,
            num_labels=len(self.strides_px),
            iou_threshold=self.nms_iou_threshold,
            limit=after,
            are_logits=True,
        )
        if is_recorded():
            index = padded_class_nms(candidates)
            return Proposals(gather_rows(boxes, index.clamp(min=0)), index >= 0)
        indices = batch_class_nms(candidates)
        valid = [torch.ones_like(index, dtype=torch.bool) for index in indices]
        index = pad_sequence(indices, batch_first=True)
        return Proposals(gather_rows(boxes, index), pad_sequence(valid, batch_first=True))

    def _best_of_levels(
        self, outputs: RPNOutputs, count: int
    ) -> tuple[Float[Tensor, "B K"], Int64[Tensor, "B K"], Int64[Tensor, "K"], Bool[Tensor, "B K"]]:
        """Return the highest objectness scores of each level, their anchors, levels and validity."""
        scores, parts, levels, valid, start = [], [], [], [], 0
        for number, objectness in enumerate(outputs.objectness.split(outputs.anchors_per_level, dim=1)):
            best, index, exists = top(objectness, count, are_logits=True)
            scores.append(best)
            valid.append(exists)
            parts.append(index + start)
            levels.append(index.new_full((index.shape[1],), number))
            start += objectness.shape[1]
        return torch.cat(scores, dim=1), torch.cat(parts, dim=1), torch.cat(levels), torch.cat(valid, dim=1)


def _target_boxes(
    anchors: Float[Tensor, "B A 4"], targets: Targets, matched: Int64[Tensor, "B A"]
) -> Float[Tensor, "B A 4"]:
    """Return the box that each anchor learns, or the anchor itself if it learns none."""
    if targets.boxes.shape[1] == 0:
        return anchors
    boxes = gather_rows(targets.boxes, matched.clamp(min=0))
    return torch.where((matched >= 0)[..., None], boxes, anchors)


class _RPNHead(nn.Module):
    def __init__(self, channels: int, anchors_per_cell: int, num_convs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(nn.Sequential(Conv3x3(channels, channels), nn.ReLU(inplace=True)) for _ in range(num_convs))
        )
        self.cls_logits = nn.Conv2d(channels, anchors_per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        levels = apply_to_levels(self.conv, levels)
        return [self.cls_logits(x) for x in levels], [self.bbox_pred(x) for x in levels]


def _per_anchor(x: Float[Tensor, "B _AC H W"], values: int) -> Float[Tensor, "B _A _C"]:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


def gather_rows(x: Float[Tensor, "B N 4"], index: Int64[Tensor, "B K"]) -> Float[Tensor, "B K 4"]:
    """Return the boxes (or deltas) of each image at these indices."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
