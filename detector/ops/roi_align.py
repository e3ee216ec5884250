"""Features of regions, from the level of a pyramid that fits their size."""

# R regions, L levels, C channels, S output size

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_align


def pyramid_roi_align(
    features: Sequence[Float[Tensor, "B C _H _W"]],
    strides_px: Sequence[int],
    boxes: Float[Tensor, "R 4"],
    image_index: Int64[Tensor, "R"],
    *,
    output_size: int,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Float[Tensor, "R C S S"]:
    """RoIAlign (He et al. 2017) of xyxy boxes in pixels, each on the level of `pyramid_level`.

    A bin averages sampling_ratio^2 bilinear samples, with 0 one for each cell of the map that it covers.
    `aligned` shifts by half a cell, so that a pixel's middle and not its corner has whole coordinates
    (Detectron2, MMDetection); torchvision's detectors do not.
    """
    level = pyramid_level(boxes, num_levels=len(features), finest_stride_px=strides_px[0])
    regions = torch.cat([image_index[:, None].to(boxes.dtype), boxes], dim=1)
    pooled = [
        roi_align(x, regions[level == i], output_size, 1 / stride, sampling_ratio, aligned)
        for i, (x, stride) in enumerate(zip(features, strides_px, strict=True))
    ]
    order = torch.cat([torch.where(level == i)[0] for i in range(len(features))])
    return torch.cat(pooled)[order.argsort()]


def pyramid_level(
    boxes: Float[Tensor, "R 4"], *, num_levels: int, finest_stride_px: int
) -> Int64[Tensor, "R"]:
    """Position of the level for each box: P4 for 224 x 224 pixels, one finer for half the side (Lin et al.
    2017, eq. 1)."""
    side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    finest = finest_stride_px.bit_length() - 1  # P2 has a stride of 4
    level = torch.floor(4 + torch.log2(side / 224) + 1e-6) - finest
    return level.clamp(min=0, max=num_levels - 1).long()
