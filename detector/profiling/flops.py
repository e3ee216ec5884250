"""What a detector computes for one image, in floating-point operations."""

# P points over all taps and output positions

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from detector.heads.faster_rcnn import FasterRCNNHead
from detector.layers.deform import DeformConv2d
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import Detector
from detector.structures import FeatureSpec

_SIDE = 7  # of the cells that a region is pooled to
# Per sampled channel: four corners weighted and added, then modulated, and in depth-wise layers added up.
_BILINEAR, _MODULATION, _SUM = 7, 1, 1


@dataclass(frozen=True)
class Flops:
    """Of one image, two for a multiplication and addition. `matrix` are those of convolutions and linear
    layers, offset branches and deformable convolutions included; `sampling` are the interpolations of
    deformable convolution alone. Norms, activations, RoIAlign (also deformable) and NMS are not counted."""

    matrix: int
    sampling: int

    @property
    def total(self) -> int:
        return self.matrix + self.sampling


def count_flops(model: Detector, *, image_size: tuple[int, int]) -> Flops:
    """For an image of (height, width) pixels, padded to multiples of 32; nothing is computed.

    The second stage of Faster R-CNN is counted for as many regions as it gets at most while predicting.
    torch's own counter takes a deformable convolution for nothing.
    """
    height, width = (-(-side // 32) * 32 for side in image_size)
    model = deepcopy(model).to("meta").eval()
    for layer in model.modules():
        if isinstance(layer, DeformConv2d):
            layer.backend = "auto"  # all compute the same; gather's operators would not be counted
    sampled: list[int] = []

    def deformable(
        x: Sequence[int],
        weight: Sequence[int],
        offset: Sequence[int],
        mask: Sequence[int],
        *others: Any,
        out_shape: Sequence[int],
        **options: Any,
    ) -> int:
        modulated = mask[1] > 0 if len(mask) == 4 else False
        positions = out_shape[0] * out_shape[2] * out_shape[3]
        taps = weight[2] * weight[3]
        sampled.append(positions * taps * x[1] * (_BILINEAR + modulated * _MODULATION))
        return 2 * positions * prod(weight)

    def depthwise(*shapes: Any, out_shape: Sequence[int], **options: Any) -> int:
        sampled.append(prod(out_shape) * (_BILINEAR + _MODULATION + _SUM))
        return 0

    formulas = {
        torch.ops.torchvision.deform_conv2d: deformable,
        torch.ops.aten.grid_sampler_2d: depthwise,  # of `deform_sampled_sum`, and of nothing else
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        images = torch.empty(1, 3, height, width, dtype=torch.uint8, device="meta")
        sizes = torch.empty(1, 2, dtype=torch.int64, device="meta")
        model(images, sizes)
        if isinstance(model.head, FasterRCNNHead):
            _second_stage(model.head, model.feature_levels)
    return Flops(matrix=counter.get_total_flops(), sampling=sum(sampled))


def _second_stage(head: FasterRCNNHead, levels: Sequence[FeatureSpec]) -> None:
    regions, roi = head.rpn.limits.after_nms, head.roi_heads
    pooled = torch.empty(regions, levels[-1].channels, _SIDE, _SIDE, device="meta")
    if isinstance(roi.pooling, DeformRoIPool):
        branch, *_ = roi.pooling.offset  # a region takes that of its level, all are alike
        branch(pooled)
    roi.box_predictor(roi.box_head(pooled))
