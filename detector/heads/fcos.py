"""FCOS (Tian et al. 2019, 2020): each pyramid point predicts classes, distances to box sides, centerness.

Parameter names are torchvision's.
"""

# B images, P points over all levels, C classes, K candidates

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from detector.heads.grid import Grid
from detector.heads.head import Head
from detector.heads.points import Points, assign_points, make_points
from detector.layers.conv import Conv3x3, apply_to_levels
from detector.layers.deform import DeformConv2d
from detector.layers.norms import norm_layer
from detector.layers.towers import DeformableConvs, deformable_count, require_deform_conv
from detector.ops.boxes import clip_boxes, distances_to_boxes
from detector.ops.losses import BoxLoss, ClassificationLoss, DistanceCoder, Focal, GIoU
from detector.ops.nms import suppressed
from detector.ops.ranks import normalizer
from detector.ops.recording import top
from detector.option_types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from detector.structures import Candidates, Detections, FeatureSpec, Targets

Conv = TypeVar("Conv", Conv3x3, DeformConv2d)


@dataclass(frozen=True)
class FCOSOutputs:
    """The raw outputs, levels concatenated; `distances` (left, top, right, bottom) are in strides."""

    logits: Float[Tensor, "B P C"]
    distances: Float[Tensor, "B P 4"]
    centerness: Float[Tensor, "B P"]
    points: Points
    points_per_level: list[int]
    image_sizes: Int64[Tensor, "B 2"]


class FCOSHead(Head[FCOSOutputs]):
    """A head of two towers shared by all levels; the regression tower also predicts centerness.

    Regression is in strides. `center_sampling_radius` is in strides; 0 trains every point inside a box.
    `point_offset` is the position of a point in its cell: 0 the corner, on which a ResNet's receptive fields
    are centered (torchvision), 0.5 the middle (the paper). `grid` sets the distance between cells, see
    `cell_steps`. `centerness_weighted_boxes` weights each positive's box loss by its centerness target (the
    paper) instead of equally (torchvision). `level_scales` learns a factor for the distances of each level
    (the paper); torchvision has none. `deform`, called like `nn.Conv2d`, builds the `deformable_convs` of
    each tower: the last, all, or this number of the last convolutions.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        num_classes: PositiveInt,
        *,
        num_convs: NonNegativeInt = 4,
        norm: Literal["group", "none"] = "group",
        center_sampling_radius: NonNegativeFloat = 1.5,
        point_offset: Fraction = 0.0,
        grid: Grid = "stride",
        classification_loss: ClassificationLoss = Focal(),  # noqa: B008 (frozen)
        box_loss: BoxLoss = GIoU(),  # noqa: B008 (frozen)
        centerness_weighted_boxes: bool = False,
        score_threshold: Fraction = 0.001,
        topk_candidates: PositiveInt = 1000,
        nms_iou_threshold: Fraction = 0.6,
        detections_per_image: PositiveInt = 100,
        level_scales: bool = False,
        deformable_convs: DeformableConvs = 0,
        deform: Callable[..., DeformConv2d] = DeformConv2d,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
        channels = features[0].channels
        assert all(f.channels == channels for f in features), "the towers are shared by all levels"
        self.num_classes = num_classes
        self.strides_px = [f.stride_px for f in features]
        self.center_sampling_radius = center_sampling_radius
        self.point_offset, self.grid = point_offset, grid
        self.classification_loss, self.box_loss = classification_loss, box_loss
        self.centerness_weighted_boxes = centerness_weighted_boxes
        self.score_threshold = score_threshold
        self.topk_candidates = topk_candidates
        self.nms_iou_threshold = nms_iou_threshold
        self.detections_per_image = detections_per_image
        deformable = deformable_count(deformable_convs, num_convs=num_convs)
        require_deform_conv(deform, option="head.deform", count=deformable)
        tower = partial(_tower, channels, num_convs, norm, deformable, deform)
        self.classification_head = _ClassificationTower(tower(), channels, num_classes)
        self.regression_head = _RegressionTower(
            tower(), channels, num_scales=len(features) if level_scales else 0
        )

    def forward(
        self, features: list[Float[Tensor, "B _C _H _W"]], image_sizes: Int64[Tensor, "B 2"]
    ) -> FCOSOutputs:
        assert len(features) == len(self.strides_px)
        logits = [_flatten(x) for x in self.classification_head(features)]
        boxes = [_flatten(x) for x in self.regression_head(features)]
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        box_outputs = torch.cat(boxes, dim=1).float()
        return FCOSOutputs(
            logits=torch.cat(logits, dim=1).float(),  # losses and decoding stay in fp32 under autocast
            distances=box_outputs[..., :4].relu(),
            centerness=box_outputs[..., 4],
            points=self._points(shapes, features[0].device),
            points_per_level=[rows * columns for rows, columns in shapes],
            image_sizes=image_sizes,
        )

    def _points(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> Points:
        return make_points(shapes, self.strides_px, offset=self.point_offset, grid=self.grid, device=device)

    def loss(self, outputs: FCOSOutputs, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        points = outputs.points
        matched = assign_points(points, targets, center_radius=self.center_sampling_radius)
        foreground = matched >= 0
        labels, boxes = _gather_targets(targets, matched)
        coder = DistanceCoder(points.xy, points.strides)
        centerness = _centerness(coder.encode(boxes)).masked_fill(~foreground, 0)
        # In training all ranks have a batch at the same time; in validation their numbers of batches differ.
        count = normalizer(foreground.sum(), at_least=1.0, all_ranks=self.training)

        box_losses = self.box_loss.of_encoded(outputs.distances, boxes, coder=coder)
        box_losses = box_losses.masked_fill(~foreground, 0)
        if self.centerness_weighted_boxes:
            weight = normalizer(centerness.sum(), at_least=1e-6, all_ranks=self.training)
            loss_box_reg = (box_losses * centerness).sum() / weight
        else:
            loss_box_reg = box_losses.sum() / count
        centerness_losses = F.binary_cross_entropy_with_logits(
            outputs.centerness, centerness, reduction="none"
        )
        return {
            "loss_cls": self.classification_loss(outputs.logits, labels) / count,
            "loss_box_reg": loss_box_reg,
            "loss_centerness": centerness_losses.masked_fill(~foreground, 0).sum() / count,
        }

    @torch.no_grad()
    def predict(self, outputs: FCOSOutputs) -> list[Detections]:
        return suppressed(self.candidates(outputs))

    def candidates(self, outputs: FCOSOutputs) -> Candidates:
        # sqrt(class * centerness): FCOS v2, section 3
        scores = (outputs.logits.sigmoid() * outputs.centerness.sigmoid()[..., None]).sqrt()
        scores, place, labels = self._best(scores, outputs.points_per_level)
        strides = outputs.points.strides[place][..., None]
        distances = outputs.distances.gather(1, place[..., None].expand(-1, -1, 4)) * strides
        boxes = clip_boxes(distances_to_boxes(outputs.points.xy[place], distances), outputs.image_sizes)
        return Candidates(
            boxes,
            scores,
            labels,
            allowed=scores > self.score_threshold,
            num_labels=self.num_classes,
            iou_threshold=self.nms_iou_threshold,
            limit=self.detections_per_image,
        )

    def _best(
        self, scores: Float[Tensor, "B P C"], points_per_level: list[int]
    ) -> tuple[Float[Tensor, "B K"], Int64[Tensor, "B K"], Int64[Tensor, "B K"]]:
        """Return the scores, point indices and labels of the best candidates of each level."""
        parts, start = [], 0
        for level in scores.split(points_per_level, dim=1):
            best, index, _ = top(level.flatten(1), self.topk_candidates, are_logits=False)
            parts.append((best, index + start * self.num_classes))
            start += level.shape[1]
        index = torch.cat([i for _, i in parts], dim=1)
        return torch.cat([s for s, _ in parts], dim=1), index // self.num_classes, index % self.num_classes


def _gather_targets(
    targets: Targets, matched: Int64[Tensor, "B P"]
) -> tuple[Int64[Tensor, "B P"], Float[Tensor, "B P 4"]]:
    """Return the target label (-1: background) and box (arbitrary on background) of each point."""
    if targets.boxes.shape[1] == 0:
        return matched, targets.boxes.new_zeros((*matched.shape, 4))
    index = matched.clamp(min=0)
    labels = targets.labels.gather(1, index).masked_fill(matched < 0, -1)
    return labels, targets.boxes.gather(1, index[..., None].expand(-1, -1, 4))


def _centerness(distances: Float[Tensor, "B P 4"]) -> Float[Tensor, "B P"]:
    """Return the centerness (FCOS eq. 3): 1 in the middle of the box, 0 at its sides, undefined outside."""
    x, y = distances[..., [0, 2]], distances[..., [1, 3]]
    ratios = (x.amin(-1) / x.amax(-1).clamp(min=1e-6)) * (y.amin(-1) / y.amax(-1).clamp(min=1e-6))
    return ratios.clamp(min=0).sqrt()


def _flatten(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P C"]:
    return x.flatten(2).transpose(1, 2)


def _tower(
    channels: int, num_convs: int, norm: str, deformable: int, deform: Callable[..., DeformConv2d]
) -> nn.Sequential:
    """Build a tower; `deform` builds the last `deformable` of its convolutions."""
    layers: list[nn.Module] = []
    for number in range(num_convs):
        if number < num_convs - deformable:
            layers.append(_normal(Conv3x3(channels, channels)))
        else:
            layers.append(_normal(deform(channels, channels, 3, padding=1)))
        if norm == "group":
            layers.append(norm_layer("group")(channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _normal(conv: Conv, bias: float = 0.0) -> Conv:
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)
    return conv


class _ClassificationTower(nn.Module):
    def __init__(self, tower: nn.Sequential, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = tower
        prior = 0.01  # rare positives at the start keep the focal loss small (Lin et al. 2017, section 3.3)
        self.cls_logits = _normal(Conv3x3(channels, num_classes), bias=-math.log((1 - prior) / prior))

    def forward(self, levels: Sequence[Float[Tensor, "B _C _H _W"]]) -> list[Float[Tensor, "B C _H _W"]]:
        return apply_to_levels(self.cls_logits, apply_to_levels(self.conv, levels))


class _RegressionTower(nn.Module):
    """The regression tower: four distances before their ReLU, then the centerness logit."""

    def __init__(self, tower: nn.Sequential, channels: int, *, num_scales: int) -> None:
        super().__init__()
        self.conv = tower
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(num_scales))
        self.bbox_reg = _normal(Conv3x3(channels, 4))
        self.bbox_ctrness = _normal(Conv3x3(channels, 1))

    def forward(self, levels: Sequence[Float[Tensor, "B _C _H _W"]]) -> list[Float[Tensor, "B 5 _H _W"]]:
        # One convolution for both, as their few output channels are not worth a pass each.
        weight = torch.cat([self.bbox_reg.weight, self.bbox_ctrness.weight])
        assert self.bbox_reg.bias is not None
        assert self.bbox_ctrness.bias is not None
        bias = torch.cat([self.bbox_reg.bias, self.bbox_ctrness.bias])
        outputs = [F.conv2d(x, weight, bias, padding=1) for x in apply_to_levels(self.conv, levels)]
        if not self.scales:
            return outputs
        unscaled = torch.ones_like(outputs[0][:1, :1, :1, :1])  # for centerness, the fifth channel
        factors = [torch.cat([scale.expand(1, 4, 1, 1), unscaled], dim=1) for scale in self.scales]
        return [x * factor for x, factor in zip(outputs, factors, strict=True)]
