"""The kernel launches of the backend `triton`, for sampling and its derivatives; imported only when used."""

# n images, R = n * H * W * G rows of pixels, M = n * H' * W' output positions, K taps, G offset groups,
# C channels, d per convolution group of D

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from detector.ops.deform_conv import triton_kernels as kernels
from detector.ops.deform_conv.geometry import Geometry
from detector.ops.deform_conv.triton_kernels import Channels, Problem, Strides

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether triton's interpreter runs the kernels, anywhere and slowly: as TRITON_INTERPRET said at import."""

_CORNERS = 4
_USES = 256  # output positions that a program lists at a time
_TILE = 2048  # values that a program holds at a time: 16 per thread, so that no kernel spills registers
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # fusion rounds a product and sum once


class _Tile(TypedDict):
    """The block that a program holds at a time: positions or rows, and channels, both powers of 2."""

    BLOCK: int
    CHANNELS: int


@dataclass(frozen=True)
class Sampling:
    """The sampling positions and weights, in the form that the kernels take."""

    offset: Tensor
    mask: Tensor | None
    problem: Problem
    channels: Channels

    @staticmethod
    def of(
        pixels: Float[Tensor, "n H W C"], offset: Tensor, mask: Tensor | None, geometry: Geometry
    ) -> Sampling:
        n, height, width, channels = pixels.shape
        out = (offset.shape[2], offset.shape[3])
        pairs = (height, width), out, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation
        problem = Problem(n * out[0] * out[1], *(number for pair in pairs for number in pair))
        of_groups = channels // geometry.offset_groups, channels // geometry.groups
        return Sampling(offset, mask, problem, Channels(channels, *of_groups))

    @property
    def taps(self) -> int:
        """The number of taps of all offset groups."""
        return self.offset.shape[1] // 2

    @property
    def strides(self) -> tuple[Strides, Strides]:
        return _strides(self.offset), _strides(self.mask)

    @property
    def tile(self) -> _Tile:
        channels = min(128, triton.next_power_of_2(self.channels.c))
        return {"BLOCK": _TILE // channels, "CHANNELS": channels}

    @property
    def grid(self) -> tuple[int, int, int]:
        """The grid of programs that compute all taps of their positions."""
        blocks = triton.cdiv(self.problem.positions, self.tile["BLOCK"])
        groups = self.channels.whole // self.channels.c
        return blocks, groups, triton.cdiv(self.channels.c, self.tile["CHANNELS"])


def sample(pixels: Float[Tensor, "n H W C"], to: Sampling) -> Float[Tensor, "D M features"]:
    """Return the columns, with K * d features per convolution group."""
    problem, channels = to.problem, to.channels
    features = problem.kernel_height * problem.kernel_width * channels.d
    columns = pixels.new_empty(channels.whole // channels.d, problem.positions, features)
    with torch.cuda.device_of(pixels):
        kernels.sample[to.grid](
            *(pixels, to.offset, to.mask, columns, problem, channels, *to.strides), **to.tile, **_OPTIONS
        )
    return columns


def differentiate(
    pixels: Float[Tensor, "n H W C"],
    grad_columns: Float[Tensor, "D M features"],
    to: Sampling,
    *,
    into: tuple[Tensor, Tensor | None],
) -> None:
    """Write the gradients of offset and mask into `into`."""
    grid = triton.cdiv(to.problem.positions, to.tile["BLOCK"]), to.taps
    strides = *to.strides, *(_strides(grad) for grad in into)
    with torch.cuda.device_of(pixels):
        kernels.differentiate[grid](
            *(pixels, grad_columns, to.offset, to.mask, *into, to.problem, to.channels, *strides),
            **to.tile,
            **_OPTIONS,
        )


def pixel_gradient(
    pixels: Float[Tensor, "n H W C"], grad_columns: Float[Tensor, "D M features"], to: Sampling
) -> Float[Tensor, "n H W C"]:
    """Return the gradient of pixels, in their dtype or the finer one of offset.

    It is summed in a fixed order under `torch.use_deterministic_algorithms`, otherwise in the order in which
    atomic additions arrive.
    """
    with torch.cuda.device_of(pixels):
        if torch.are_deterministic_algorithms_enabled():
            return _summed(pixels, grad_columns, to)
        return _scattered(pixels, grad_columns, to)


def _scattered(pixels: Tensor, grad_columns: Tensor, to: Sampling) -> Tensor:
    grad = torch.zeros_like(pixels, dtype=to.offset.dtype)
    kernels.scatter[to.grid](
        *(grad_columns, to.offset, to.mask, grad, to.problem, to.channels, *to.strides),
        **to.tile,
        **_OPTIONS,
    )
    return grad


def _summed(pixels: Tensor, grad_columns: Tensor, to: Sampling) -> Tensor:
    """Return the gradient of pixels, with the uses sorted by row so that the order of sums is fixed."""
    num_rows, channels = pixels.numel() // to.channels.c, to.channels
    uses = to.problem.positions * to.taps * _CORNERS
    integers = torch.int32 if num_rows < 2**31 - 1 else torch.int64
    rows, weights = to.offset.new_empty(uses, dtype=integers), to.offset.new_empty(uses)
    kernels.list_uses[triton.cdiv(to.problem.positions, _USES), to.taps](
        *(to.offset, to.mask, rows, weights, to.problem, channels, *to.strides, num_rows),
        BLOCK=_USES,
        **_OPTIONS,
    )
    rows, order = rows.sort(stable=True)
    starts = torch.searchsorted(rows, torch.arange(num_rows + 1, dtype=integers, device=rows.device))
    grad = torch.empty_like(pixels)
    grid = triton.cdiv(num_rows, to.tile["BLOCK"]), triton.cdiv(channels.c, to.tile["CHANNELS"])
    kernels.sum_uses[grid](
        *(grad_columns, order, starts, weights, grad, to.problem, channels, num_rows), **to.tile, **_OPTIONS
    )
    return grad


def _strides(tensor: Tensor | None) -> Strides:
    return Strides(0, 0, 0, 0) if tensor is None else Strides(*tensor.stride())
