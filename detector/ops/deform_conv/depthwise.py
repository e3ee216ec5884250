"""The sampling of DCNv3 (Wang et al. 2023) and DCNv4 (Xiong et al. 2024): depth-wise sums of samples."""

# N images, C channels, G offset groups, K = kernel height * width taps

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from detector.ops.cpu import embedding_bag
from detector.ops.deform_conv.geometry import Geometry, IntOrPair, finite_shifts, homes, neighbors, pair
from detector.ops.recording import integers, is_recorded

_GATHER_FROM = 32  # channels per group; with fewer, sorting the uses of rows costs more than reading the rows


def deform_sampled_sum(
    x: Float[Tensor, "N C H W"],
    offset: Float[Tensor, "N _DGK _Y _X"],
    modulation: Float[Tensor, "N _GK _Y _X"],
    *,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
) -> Float[Tensor, "N C _Y _X"]:
    """Return for each channel and output p the sum over the taps k of modulation * sample.

    The sample is x at p * stride - padding + k * dilation + offset, bilinear and 0 outside x. The layout is
    that of the originals: taps column by column, k = column * kernel height + row; offset channel
    `group * 2K + 2k + {0: dx, 1: dy}` in pixels, modulation channel `group * K + k`; a group moves C / G
    consecutive channels. Half precision is computed in float32 and rounded at the end. The result is
    differentiable once.

    Raises:
        ValueError: if shapes do not fit together.

    Examples:
        >>> x, offset, modulation = torch.randn(1, 8, 5, 5), torch.zeros(1, 36, 5, 5), torch.ones(1, 18, 5, 5)
        >>> deform_sampled_sum(x, offset, modulation, kernel_size=3, padding=1).shape
        torch.Size([1, 8, 5, 5])
    """
    kernel = pair(kernel_size)
    groups = modulation.shape[1] // (kernel[0] * kernel[1])
    geometry = Geometry(kernel, pair(stride), pair(padding), pair(dilation), 1, groups)
    _check_shapes(x, offset, modulation, geometry)
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    shifts = offset.to(compute).unflatten(1, (groups, geometry.taps, 2)).permute(0, 4, 5, 1, 2, 3)
    places = _homes_by_column(geometry, offset)
    weight = modulation.to(compute).unflatten(1, (groups, geometry.taps)).permute(0, 3, 4, 1, 2)
    summed = _SAMPLINGS[chosen_sampling(x.device, channels_per_group=x.shape[1] // groups)]
    return summed(x.to(compute), shifts, places, weight).to(x.dtype)


def chosen_sampling(device: torch.device, *, channels_per_group: int) -> Literal["gather", "grid_sample"]:
    """Return the method by which `deform_sampled_sum` samples on this device now."""
    gather_pays = device.type == "cpu" and channels_per_group >= _GATHER_FROM and not is_recorded()
    return "gather" if gather_pays else "grid_sample"


def _check_shapes(x: Tensor, offset: Tensor, modulation: Tensor, geometry: Geometry) -> None:
    groups, taps, (n, channels) = geometry.offset_groups, geometry.taps, x.shape[:2]
    if groups == 0 or modulation.shape[1] % taps or channels % groups:
        raise ValueError(
            f"deform_sampled_sum: modulation has {modulation.shape[1]} channels; a kernel of "
            f"{geometry.kernel} needs {taps} for each offset group, and the groups must divide the "
            f"{channels} channels of x."
        )
    size = geometry.output_size(x.shape[2], x.shape[3])
    for name, tensor, per_tap in (("offset", offset, 2), ("modulation", modulation, 1)):
        shape = (n, per_tap * groups * taps, *size)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"deform_sampled_sum: {name} must have shape {shape}, got {tuple(tensor.shape)}."
            )


def _homes_by_column(geometry: Geometry, offset: Tensor) -> Int[Tensor, "Y X 1 K 2"]:
    """Return where each tap samples without offset, (x, y) in pixels of the input."""
    y, x = homes(geometry, *offset.shape[2:], device=offset.device)  # rows of taps before columns
    places = torch.stack(torch.broadcast_tensors(x, y), dim=-1)
    return places.unflatten(2, geometry.kernel).transpose(2, 3).flatten(2, 3).transpose(2, 3)


def _gathered(
    x: Float[Tensor, "N C H W"],
    shifts: Float[Tensor, "N Y X G K 2"],
    places: Int[Tensor, "Y X 1 K 2"],
    weight: Float[Tensor, "N Y X G K"],
) -> Float[Tensor, "N C Y X"]:
    """Compute each output pixel of a group as a bag, the four corners of all its taps. For CPU."""
    (n, channels, height, width), groups = x.shape, shifts.shape[3]
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels // groups)
    columns, across = (torch.stack(ends, -1) for ends in neighbors(shifts[..., 0], places[..., 0], width))
    lines, down = (torch.stack(ends, -1) for ends in neighbors(shifts[..., 1], places[..., 1], height))
    blend = (down * weight[..., None])[..., :, None] * across[..., None, :]
    image = torch.arange(n, dtype=torch.int32, device=x.device).view(n, 1, 1, 1, 1, 1) * height
    group = torch.arange(groups, dtype=torch.int32, device=x.device).view(groups, 1, 1)
    index = ((image + lines) * (width * groups) + group)[..., :, None] + (columns * groups)[..., None, :]
    starts = torch.arange(0, index.numel(), 4 * shifts.shape[4], dtype=torch.int32, device=x.device)
    y = embedding_bag(rows, index.flatten(), starts, blend.flatten())
    return y.view(*shifts.shape[:3], channels).permute(0, 3, 1, 2)


def _grid_sampled(
    x: Float[Tensor, "N C H W"],
    shifts: Float[Tensor, "N Y X G K 2"],
    places: Int[Tensor, "Y X 1 K 2"],
    weight: Float[Tensor, "N Y X G K"],
) -> Float[Tensor, "N C Y X"]:
    """Compute with `grid_sample`, for any device, for recorded graphs and for few channels per group."""
    n, out_h, out_w, groups, taps, _ = shifts.shape
    if not is_recorded():
        # grid_sample hides NaN, and turns infinity into NaN
        shifts, factor = finite_shifts(shifts, places, dim=-1)
        weight = weight * factor
    size = integers([x.shape[3], x.shape[2]], device=x.device)
    grid = ((2 * (shifts + places) + 1) / size - 1).permute(0, 3, 1, 2, 4, 5)
    images = x.reshape(n * groups, x.shape[1] // groups, *x.shape[2:])
    samples = F.grid_sample(images, grid.reshape(n * groups, out_h * out_w, taps, 2), align_corners=False)
    weight = weight.permute(0, 3, 1, 2, 4).reshape(n * groups, 1, out_h * out_w, taps)
    return (samples * weight).sum(dim=-1).view(n, x.shape[1], out_h, out_w)


_SAMPLINGS = {"gather": _gathered, "grid_sample": _grid_sampled}
