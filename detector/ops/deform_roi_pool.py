"""Deformable RoI pooling (Dai et al. 2017; modulated: Zhu et al. 2019): RoIAlign with bin offsets."""

# R regions, L levels, C channels, S output size, T samples of all bins

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from detector.ops.cpu import embedding_bag
from detector.ops.deform_conv.statistics import modulation_statistics
from detector.ops.recording import is_recorded
from detector.ops.roi_align import Placed, neighbors, place, pyramid_level, pyramid_rows

_SHIFT = 0.1  # of a region's side, for an offset of 1: Dai et al. 2017, section 2.2


def pyramid_deform_roi_pool(
    features: Sequence[Float[Tensor, "B C _H _W"]],
    strides_px: Sequence[int],
    boxes: Float[Tensor, "R 4"],
    image_index: Int64[Tensor, "R"],
    offset: Float[Tensor, "R 2 S S"],
    mask: Float[Tensor, "R S S"] | None = None,
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Float[Tensor, "R C S S"]:
    """Apply `pyramid_roi_align` with the samples of a bin moved by 0.1 * (width, height) of its RoI * offset.

    The first plane of `offset` is along x, the second along y, as in MMDetection, which is always `aligned`.
    `mask` multiplies each bin. With sampling_ratio=0 a bin has one sample for each cell that it covers,
    rounded up along each axis. The result is differentiable once, in features, offset and mask; it has the
    dtype of the features, but is computed in float32 or float64. A graph can be recorded unless
    sampling_ratio is 0.
    """
    dtype, size = features[0].dtype, offset.shape[-1]
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    level = pyramid_level(boxes, num_levels=len(features), finest_stride_px=strides_px[0])
    rows = pyramid_rows(features).to(compute)
    placed = place(boxes.to(compute), features, strides_px, level, image_index, aligned=aligned)
    mask = None if mask is None else mask.to(compute)
    index, starts, weights = _samples(placed, offset.to(compute), mask, sampling_ratio)
    if is_recorded():
        pooled = _recordable_bags(rows, index, weights, bag_size=4 * sampling_ratio**2)
    else:
        pooled = embedding_bag(rows, index, starts, weights)
    return pooled.view(boxes.shape[0], size, size, rows.shape[1]).permute(0, 3, 1, 2).to(dtype)


def _recordable_bags(
    rows: Float[Tensor, "R c"], index: Int[Tensor, " n"], weights: Float[Tensor, " n"], *, bag_size: int
) -> Float[Tensor, "_bags c"]:
    """Compute `embedding_bag` for bags of equal size with operators that every exporter supports."""
    index, weights = index.long().view(-1, bag_size), weights.view(-1, bag_size, 1)
    total = rows.index_select(0, index[:, 0]) * weights[:, 0]
    for i in range(1, bag_size):
        total = total + rows.index_select(0, index[:, i]) * weights[:, i]
    return total


@torch.no_grad()
def roi_sampling_statistics(
    features: Sequence[Float[Tensor, "B C _H _W"]],
    strides_px: Sequence[int],
    boxes: Float[Tensor, "R 4"],
    offset: Float[Tensor, "R 2 S S"],
    mask: Float[Tensor, "R S S"] | None,
    *,
    aligned: bool,
) -> dict[str, Float[Tensor, ""]]:
    """Return the `sampling_statistics` of the bins of at least one region; pixels are cells of their level.

    `outside` is the share of bin centers; there is no `effective_dilation`.
    """
    level = pyramid_level(boxes, num_levels=len(features), finest_stride_px=strides_px[0])
    placed = place(boxes.float(), features, strides_px, level, torch.zeros_like(level), aligned=aligned)
    still, moved = (_bin_corners(placed, x) for x in (torch.zeros_like(offset.float()), offset.float()))
    half = placed.extent.repeat_interleave(offset.shape[-1] ** 2, dim=0) / (2 * offset.shape[-1])
    size = placed.map_size.repeat_interleave(offset.shape[-1] ** 2, dim=0)
    inside, stays = (((x + half > -1) & (x + half < size)).all(dim=1) for x in (still, moved))
    statistics = {
        "mean_px": torch.linalg.vector_norm(moved - still, dim=1).mean(),
        "outside": (inside & ~stays).sum() / inside.sum().clamp(min=1),
    }
    if mask is not None:
        statistics |= modulation_statistics(mask.flatten(1), dim=1)
    return statistics


def _sample_counts(placed: Placed, size: int, sampling_ratio: int) -> Int64[Tensor, "R 2"]:
    """Return the number of samples of each bin of a region, along x and y."""
    if sampling_ratio > 0:
        return torch.full_like(placed.map_size, sampling_ratio)
    return (placed.extent / size).ceil().clamp(min=0).long()


def _samples(
    placed: Placed,
    offset: Float[Tensor, "R 2 S S"],
    mask: Float[Tensor, "R S S"] | None,
    sampling_ratio: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the arguments of `embedding_bag`: row indices, the start of each bin, and weights."""
    size = offset.shape[-1]
    counts = _sample_counts(placed, size, sampling_ratio)
    samples = counts.prod(dim=1).repeat_interleave(size**2)  # of each bin
    first = samples.cumsum(0) - samples
    bin_ = torch.arange(samples.shape[0], device=samples.device)
    bin_ = bin_.repeat_interleave(sampling_ratio**2 if sampling_ratio > 0 else samples)
    region = bin_ // size**2
    number = torch.arange(bin_.shape[0], device=bin_.device) - first[bin_]
    across = counts[region, 0]
    steps = torch.stack([number % across, number // across], dim=1) + 0.5
    step = placed.extent / (size * counts)
    position = _bin_corners(placed, offset).index_select(0, bin_) + steps * step[region]
    cells, weights = neighbors(position, placed.map_size[region])
    rows = placed.first_row[region, None] + cells[:, 1] * placed.map_size[region, :1]
    index = rows[:, :, None] + cells[:, 0, None]
    share = 1 / samples.clamp(min=1).to(weights.dtype)
    if mask is not None:
        share = share * mask.flatten()
    blend = weights[:, 1, :, None] * weights[:, 0, None] * share.index_select(0, bin_)[:, None, None]
    return index.flatten().int(), (4 * first).int(), blend.flatten()


def _bin_corners(placed: Placed, offset: Float[Tensor, "R 2 S S"]) -> Float[Tensor, "_bins 2"]:
    """Return the top left corners of the bins of all regions, in cells as (x, y)."""
    size = offset.shape[-1]
    number = torch.arange(size, dtype=offset.dtype, device=offset.device)
    places = torch.stack([number.expand(size, size), number[:, None].expand(size, size)]) / size
    corners = places + _SHIFT * offset
    corners = placed.corner[:, :, None, None] + placed.extent[:, :, None, None] * corners
    return corners.permute(0, 2, 3, 1).reshape(-1, 2)
