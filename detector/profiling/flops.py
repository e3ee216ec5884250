"""Floating-point operations of a detector for one image."""

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

_SIDE = 7  # cells on a side of a pooled region
# Per sampled channel: weight and add four corners, then modulate, and sum in depth-wise layers.
_BILINEAR, _MODULATION, _SUM = 7, 1, 1


@dataclass(frozen=True)
class Flops:
    """The FLOPs of one image, where a multiply-add counts as two.

    `matrix` covers convolutions and linear layers, including offset branches and deformable convolutions;
    `sampling` covers only the interpolation of deformable convolution. Norms, activations, RoIAlign (also
    deformable) and NMS are not counted.
    """

    matrix: int
    sampling: int

    @property
    def total(self) -> int:
        return self.matrix + self.sampling


def count_flops(model: Detector, *, image_size: tuple[int, int]) -> Flops:
    """Count FLOPs for an image of (height, width) pixels, padded to multiples of 32, without computing it.

    The second stage of Faster R-CNN is counted for the maximum number of regions in prediction. torch's
    FlopCounterMode counts deformable convolution as zero.
    """
    height, width = (-(-side // 32) * 32 for side in image_size)
    model = deepcopy(model).to("meta").eval()
    for layer in model.modules():
        if isinstance(layer, DeformConv2d):
            layer.backend = "auto"  # all backends compute the same; gather's operators would not be counted
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
        torch.ops.aten.grid_sampler_2d: depthwise,  # only `deform_sampled_sum` uses it
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        images = torch.empty(1, 3, height, width, dtype=torch.uint8, device="meta")
        sizes = torch.empty(1, 2, dtype=torch.int64, device="meta")
        model(images, sizes)
        if isinstance(model.head, FasterRCNNHead):
            _second_stage(model.head, model.feature_levels)
    return Flops(matrix=counter.get_total_flops(), sampling=sum(sampled))


def _second_stage(head: FasterRCNNHead, levels: Sequence[FeatureSpec]) -> None:
    regions, roi = head.rpn.limits.post_nms_top_n_test, head.roi_heads
    pooled = torch.empty(regions, levels[-1].channels, _SIDE, _SIDE, device="meta")
    if isinstance(roi.pooling, DeformRoIPool):
        branch, *_ = roi.pooling.offset  # a region uses the branch of its level; all are alike
        branch(pooled)
    roi.box_predictor(roi.box_head(pooled))
