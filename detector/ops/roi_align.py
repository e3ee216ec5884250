"""RoIAlign on a pyramid, which pools each region from the level that fits its size."""

# R regions, L levels, C channels, S output size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from detector.ops.cpu import embedding_bag
from detector.ops.differentiation import refuse_forward_mode
from detector.ops.recording import integers, is_eager_on_cpu


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
    """Apply RoIAlign (He et al. 2017) to xyxy boxes in pixels, each on its level (`pyramid_level`).

    A bin averages sampling_ratio^2 bilinear samples, or with 0 one for each cell of the map that it covers.
    `aligned` shifts by half a cell, so that integer coordinates are at pixel centers instead of corners
    (Detectron2, MMDetection); torchvision's detectors do not.
    """
    level = pyramid_level(boxes, num_levels=len(features), finest_stride_px=strides_px[0])
    if _gather_pays(features[0], sampling_ratio):
        grid = _Grid(output_size, sampling_ratio, aligned)
        return _gathered(features, strides_px, boxes, image_index * len(features) + level, grid)
    from torchvision.ops import roi_align  # late: its import takes longer than torch's

    refuse_forward_mode("RoIAlign", boxes, *features)
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
    """Return the index of each box's level: P4 for 224 x 224 pixels, one finer for half the side.

    Source: Lin et al. 2017, eq. 1.
    """
    # Smaller boxes are on the finest level anyway, and the logarithm for an empty box would be infinite.
    side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().clamp(min=1)
    finest = finest_stride_px.bit_length() - 1  # P2 has a stride of 4
    level = torch.floor(4 + torch.log2(side / 224) + 1e-6) - finest
    return level.clamp(min=0, max=num_levels - 1).long()


@dataclass(frozen=True)
class _Grid:
    """The sampling grid of a region."""

    size: int
    sampling_ratio: int
    aligned: bool


def _gather_pays(x: Tensor, sampling_ratio: int) -> bool:
    """Return whether `_gathered` applies, which is faster than torchvision's CPU kernel.

    That kernel runs on one core, and in its layout reading the next channel is a jump.
    """
    return is_eager_on_cpu(x) and x.dtype in (torch.float32, torch.float64) and sampling_ratio > 0


def _gathered(
    features: Sequence[Float[Tensor, "B C _H _W"]],
    strides_px: Sequence[int],
    boxes: Float[Tensor, "R 4"],
    image_and_level: Int64[Tensor, "R"],
    grid: _Grid,
) -> Float[Tensor, "R C S S"]:
    """Compute each bin as a bag of rows, the corners of its samples; the result is channels-last."""
    rows = pyramid_rows(features)
    with torch.no_grad():
        level, image = image_and_level % len(features), image_and_level // len(features)
        placed = place(boxes.to(rows.dtype), features, strides_px, level, image, aligned=grid.aligned)
        index, weights = _bins(placed, grid)
    starts = torch.arange(0, index.numel(), index.shape[1], dtype=index.dtype)
    pooled = embedding_bag(rows, index.flatten(), starts, weights.flatten())
    return pooled.view(len(boxes), grid.size, grid.size, rows.shape[1]).permute(0, 3, 1, 2)


def pyramid_rows(features: Sequence[Float[Tensor, "B C _H _W"]]) -> Float[Tensor, "_cells C"]:
    """Return the cells of all maps, level by level and image by image."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in features])


@dataclass(frozen=True)
class Placed:
    """Regions in cells of the maps that they are pooled from. Pairs are (x, y)."""

    corner: Float[Tensor, "R 2"]
    extent: Float[Tensor, "R 2"]
    map_size: Int64[Tensor, "R 2"]
    first_row: Int64[Tensor, "R"]  # index in `pyramid_rows` of the map's first cell


def place(
    boxes: Float[Tensor, "R 4"],
    features: Sequence[Float[Tensor, "B C _H _W"]],
    strides_px: Sequence[int],
    level: Int64[Tensor, "R"],
    image: Int64[Tensor, "R"],
    *,
    aligned: bool,
) -> Placed:
    """Place boxes, in pixels, on the maps of their level and image."""
    device = boxes.device
    sizes = integers([side for x in features for side in (x.shape[3], x.shape[2])], device=device).view(-1, 2)
    counts = integers([0, *(x.shape[0] * x.shape[2] * x.shape[3] for x in features)], device=device)
    strides = torch.tensor(strides_px, dtype=boxes.dtype, device=device)
    scaled = boxes / strides[level, None] - (0.5 if aligned else 0)
    extent = scaled[:, 2:] - scaled[:, :2]
    if not aligned:
        extent = extent.clamp(min=1)  # the original RoIAlign enlarged small regions to one cell
    map_size = sizes[level]
    return Placed(scaled[:, :2], extent, map_size, counts.cumsum(0)[level] + image * map_size.prod(1))


def neighbors(
    position: Float[Tensor, "*P"], size: Int64[Tensor, "*P"]
) -> tuple[Int64[Tensor, "*P 2"], Float[Tensor, "*P 2"]]:
    """Return the two cells around a position on an axis of `size` cells, and their weights.

    A position up to one cell outside is moved to the border; beyond that its weights are 0. For NaN they are
    NaN.
    """
    last = size - 1
    outside = (position < -1) | (position > size)
    position = position.clamp(min=0).minimum(last.to(position.dtype))
    low = position.nan_to_num().long()
    fraction = position - low
    cells = torch.stack([low, torch.minimum(low + 1, last)], dim=-1)
    return cells, torch.stack([1 - fraction, fraction], dim=-1) * ~outside[..., None]


def _bins(placed: Placed, grid: _Grid) -> tuple[Int[Tensor, "_bins _uses"], Float[Tensor, "_bins _uses"]]:
    """Return the row indices and weights of every bin, region by region."""
    x, x_weights = _axis(placed, 0, grid)
    y, y_weights = _axis(placed, 1, grid)
    row = placed.first_row[:, None, None] + y * placed.map_size[:, 0, None, None]
    index = row[:, :, None, :, None] + x[:, None, :, None, :]
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :] / grid.sampling_ratio**2
    return index.flatten(3).flatten(0, 2).int(), weights.flatten(3).flatten(0, 2)


def _axis(placed: Placed, axis: int, grid: _Grid) -> tuple[Int64[Tensor, "R S _U"], Float[Tensor, "R S _U"]]:
    """Return the cells and weights along one axis, two for each sample of a bin."""
    start, length, size = (pair[:, axis, None] for pair in (placed.corner, placed.extent, placed.map_size))
    samples = torch.arange(grid.size * grid.sampling_ratio, dtype=start.dtype) + 0.5
    position = start + samples / (grid.size * grid.sampling_ratio) * length
    cells, weights = neighbors(position, size.expand(position.shape))
    bins = (grid.size, grid.sampling_ratio)
    return cells.unflatten(1, bins).flatten(2), weights.unflatten(1, bins).flatten(2)
