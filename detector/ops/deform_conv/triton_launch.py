"""Sampling and its derivatives, by the kernels of the backend `triton`. Imported only when used."""

# n images, R = n * H * W * G rows of pixels, M = n * H' * W' output positions, K taps, G offset groups,
# C channels, d of each of D convolution groups

from __future__ import annotations

from typing import TypedDict

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from detector.ops.deform_conv import triton_kernels as kernels
from detector.ops.deform_conv.geometry import Geometry
from detector.ops.deform_conv.triton_kernels import Problem

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether triton's interpreter runs the kernels, anywhere and slowly: as TRITON_INTERPRET said at import."""

_CORNERS = 4
_USES = 256  # output positions that a program lists at a time
_TILE = 2048  # numbers that a program holds at a time: 16 a thread, so that no kernel spills registers
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # which rounds a product and sum once


class _Tile(TypedDict):
    """What a program holds at a time: positions or rows, and channels. Powers of 2."""

    BLOCK: int
    CHANNELS: int


def sample(
    pixels: Float[Tensor, "n H W C"], offset: Tensor, mask: Tensor | None, geometry: Geometry
) -> Float[Tensor, "D M features"]:
    """The columns, K * d features for each convolution group."""
    problem = _problem(pixels, offset, mask, geometry)
    columns = pixels.new_empty(geometry.groups, problem.positions, geometry.taps * problem.d)
    tile = _tile(problem)
    with torch.cuda.device_of(pixels):
        kernels.sample[_grid(problem, tile)](pixels, offset, mask, columns, problem, **tile, **_OPTIONS)
    return columns


def differentiate(
    pixels: Float[Tensor, "n H W C"],
    grad_columns: Float[Tensor, "D M features"],
    offset: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
    *,
    into: tuple[Tensor, Tensor | None],
) -> None:
    """Writes the gradients of offset and mask."""
    problem = _problem(pixels, offset, mask, geometry)
    tile = _tile(problem)
    grid = triton.cdiv(problem.positions, tile["BLOCK"]), geometry.offset_groups * geometry.taps
    strides = [_strides(grad) for grad in into]
    with torch.cuda.device_of(pixels):
        kernels.differentiate[grid](
            pixels, grad_columns, offset, mask, *into, problem, *strides, **tile, **_OPTIONS
        )


def pixel_gradient(
    pixels: Float[Tensor, "n H W C"],
    grad_columns: Float[Tensor, "D M features"],
    offset: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
) -> Float[Tensor, "n H W C"]:
    """The gradient of pixels, in their dtype or the finer one of offset.

    Summed in a fixed order under `torch.use_deterministic_algorithms`, else as atomic additions arrive.
    """
    problem = _problem(pixels, offset, mask, geometry)
    with torch.cuda.device_of(pixels):
        if torch.are_deterministic_algorithms_enabled():
            return _summed(pixels, grad_columns, offset, mask, problem)
        return _scattered(pixels, grad_columns, offset, mask, problem)


def _scattered(
    pixels: Tensor, grad_columns: Tensor, offset: Tensor, mask: Tensor | None, problem: Problem
) -> Tensor:
    grad, tile = torch.zeros_like(pixels, dtype=offset.dtype), _tile(problem)
    kernels.scatter[_grid(problem, tile)](grad_columns, offset, mask, grad, problem, **tile, **_OPTIONS)
    return grad


def _summed(
    pixels: Tensor, grad_columns: Tensor, offset: Tensor, mask: Tensor | None, problem: Problem
) -> Tensor:
    """Sorted by row, the uses of a row are neighbours, in an order that is always the same."""
    num_rows = pixels.numel() // problem.c
    bags_each = offset.shape[1] // 2  # of a position
    uses = problem.positions * bags_each * _CORNERS
    integers = torch.int32 if num_rows < 2**31 - 1 else torch.int64
    rows, weights = offset.new_empty(uses, dtype=integers), offset.new_empty(uses)
    grid = triton.cdiv(problem.positions, _USES), bags_each
    kernels.list_uses[grid](offset, mask, rows, weights, problem, num_rows, BLOCK=_USES, **_OPTIONS)
    rows, order = rows.sort(stable=True)
    starts = torch.searchsorted(rows, torch.arange(num_rows + 1, dtype=integers, device=rows.device))
    grad, tile = torch.empty_like(pixels), _tile(problem)
    grid = triton.cdiv(num_rows, tile["BLOCK"]), _channel_blocks(problem, tile)
    kernels.sum_uses[grid](grad_columns, order, starts, weights, grad, problem, num_rows, **tile, **_OPTIONS)
    return grad


def _problem(pixels: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry) -> Problem:
    n, height, width, channels = pixels.shape
    out_h, out_w = offset.shape[2:]
    return Problem(
        positions=n * out_h * out_w,
        channels=channels,
        c=channels // geometry.offset_groups,
        d=channels // geometry.groups,
        size=(height, width),
        out=(out_h, out_w),
        kernel=geometry.kernel,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        offset_strides=_strides(offset),
        mask_strides=_strides(mask),
    )


def _strides(tensor: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if tensor is None else tensor.stride()


def _tile(problem: Problem) -> _Tile:
    channels = min(128, triton.next_power_of_2(problem.c))
    return {"BLOCK": _TILE // channels, "CHANNELS": channels}


def _grid(problem: Problem, tile: _Tile) -> tuple[int, int]:
    """Programs that have all taps of their positions."""
    groups = problem.channels // problem.c
    return triton.cdiv(problem.positions, tile["BLOCK"]), groups * _channel_blocks(problem, tile)


def _channel_blocks(problem: Problem, tile: _Tile) -> int:
    return triton.cdiv(problem.c, tile["CHANNELS"])
