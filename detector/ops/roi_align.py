"""Features of regions, from the level of a pyramid that fits their size."""

# R regions, L levels, C channels, S output size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align

from detector.ops.bags import Uses, sum_bags


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
    if _gather_pays(features[0], sampling_ratio):
        grid = _Grid(output_size, sampling_ratio, aligned)
        return _gathered(features, strides_px, boxes, image_index * len(features) + level, grid)
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


@dataclass(frozen=True)
class _Grid:
    """How a region is sampled."""

    size: int
    sampling_ratio: int
    aligned: bool


def _gather_pays(x: Tensor, sampling_ratio: int) -> bool:
    """torchvision's CPU kernel runs on one core, and its layout makes the gather of a channel a jump."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and sampling_ratio > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def _gathered(
    features: Sequence[Float[Tensor, "B C _H _W"]],
    strides_px: Sequence[int],
    boxes: Float[Tensor, "R 4"],
    image_and_level: Int64[Tensor, "R"],
    grid: _Grid,
) -> Float[Tensor, "R C S S"]:
    """Every bin is a bag of rows: the corners of its samples. The result is channels-last."""
    channels = features[0].shape[1]
    rows = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels) for x in features])
    with torch.no_grad():
        index, weights = _bins(features, strides_px, boxes.to(rows.dtype), image_and_level, grid)
    pooled = _BagSum.apply(rows, index, weights)
    return pooled.view(len(boxes), grid.size, grid.size, channels).permute(0, 3, 1, 2)


def _bins(
    features: Sequence[Tensor],
    strides_px: Sequence[int],
    boxes: Float[Tensor, "R 4"],
    image_and_level: Int64[Tensor, "R"],
    grid: _Grid,
) -> tuple[Int[Tensor, "_bins _uses"], Float[Tensor, "_bins _uses"]]:
    """Rows and weights of every bin, region by region."""
    level = image_and_level % len(features)
    image = image_and_level // len(features)
    sizes = torch.tensor([x.shape[-2:] for x in features])
    first_rows = torch.tensor([0, *(x.shape[0] * x.shape[2] * x.shape[3] for x in features)]).cumsum(0)
    height, width = sizes[level].unbind(1)
    scaled = boxes / torch.tensor(strides_px, dtype=boxes.dtype)[level, None] - (0.5 if grid.aligned else 0)
    y, y_weights = _axis(scaled[:, 1], scaled[:, 3], height, grid)
    x, x_weights = _axis(scaled[:, 0], scaled[:, 2], width, grid)
    first = first_rows[level] + image * height * width
    row = first[:, None, None] + y * width[:, None, None]
    index = row[:, :, None, :, None] + x[:, None, :, None, :]
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :] / grid.sampling_ratio**2
    return index.flatten(3).flatten(0, 2).int(), weights.flatten(3).flatten(0, 2)


def _axis(
    start: Float[Tensor, "R"], end: Float[Tensor, "R"], size: Int64[Tensor, "R"], grid: _Grid
) -> tuple[Int64[Tensor, "R S _U"], Float[Tensor, "R S _U"]]:
    """Cells and weights along one axis, two for each sample of a bin."""
    length = end - start
    if not grid.aligned:
        length = length.clamp(min=1)  # the first RoIAlign made small regions a cell large
    samples = torch.arange(grid.size * grid.sampling_ratio, dtype=start.dtype) + 0.5
    position = start[:, None] + samples / (grid.size * grid.sampling_ratio) * length[:, None]
    last = (size - 1)[:, None]
    inside = (position >= -1) & (position <= size[:, None])
    position = position.clamp(min=0).minimum(last.to(position.dtype)).nan_to_num()
    low = position.long()
    fraction = position - low
    cells = torch.stack([low, torch.minimum(low + 1, last)], dim=-1)
    weights = torch.stack([1 - fraction, fraction], dim=-1) * inside[..., None]
    bins = (grid.size, grid.sampling_ratio)
    return cells.unflatten(1, bins).flatten(2), weights.unflatten(1, bins).flatten(2)


class _BagSum(torch.autograd.Function):
    """`sum_bags`, differentiable once in the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights)
        ctx.num_rows = len(rows)
        return sum_bags(rows, index, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        index, weights = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None, None
        grad_rows = grad.new_zeros(ctx.num_rows, grad.shape[1])
        if len(index):
            uses = Uses.of(
                index, weights, bag_size=index.shape[1], num_rows=ctx.num_rows, chunk_size=len(index)
            )
            uses.add(grad.contiguous(), part=slice(0, len(index)), into=grad_rows)
        return grad_rows, None, None
