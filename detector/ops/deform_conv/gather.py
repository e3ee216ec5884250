"""The backend `gather`, the default on CPU: each tap is a bag of four corner rows, then one matrix product.

In channels-last a corner is one contiguous row, so that `embedding_bag` (vectorized, on all cores) samples a
tap and its weights are computed once per tap instead of once per channel. The columns, K times the size of x,
are computed in chunks of output positions, so that they stay in cache, and recomputed in the backward pass
instead of stored.
"""

# N images, R = N * H * W * G rows of x, M = N * H' * W' output positions, K taps, G offset groups,
# C input and O output channels, D convolution groups

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detector.ops.autocast import without_autocast
from detector.ops.cpu import (
    EmbeddingBags,
    add_grouped_linear_weight_grad,
    grouped_linear,
    grouped_linear_input_grad,
)
from detector.ops.deform_conv.geometry import Geometry, homes, neighbors
from detector.ops.differentiation import once_differentiable

DTYPES = (torch.float32, torch.float64)

_COLUMN_BYTES = 8 << 20  # approximate size of a chunk, if that exceeds the positions below
_MIN_POSITIONS = 2048  # minimum size of a chunk: with fewer the matrix products are slower
_CORNERS = 4
_INT32_ROWS = 2**31  # from this number of rows on, indices need int64


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    """Compute `detector.ops.deform_conv2d`; the result has the memory format of x."""
    index, blend = _corners(offset, mask, geometry, x.shape[2], x.shape[3])
    return _SampledProduct.apply(x, blend, weight, bias, index, geometry)


def _corners(
    offset: Tensor, mask: Tensor | None, geometry: Geometry, height: int, width: int
) -> tuple[Int[Tensor, "N Y X K G 4"], Float[Tensor, "N Y X K G 4"]]:
    """Return row indices, in x as (N * H * W * G, C / G), and weights of the four corners of every tap."""
    n, _, out_h, out_w = offset.shape
    groups = geometry.offset_groups
    shifts = offset.view(n, groups, geometry.taps, 2, out_h, out_w).permute(3, 0, 4, 5, 2, 1)
    homes_y, homes_x = homes(geometry, out_h, out_w, device=offset.device)
    (above, below), (weight_above, weight_below) = neighbors(shifts[0], homes_y, height)
    (left, right), (weight_left, weight_right) = neighbors(shifts[1], homes_x, width)
    if mask is not None:
        modulation = mask.view(n, groups, geometry.taps, out_h, out_w).permute(0, 3, 4, 2, 1)
        weight_above, weight_below = weight_above * modulation, weight_below * modulation
    blend = torch.stack(
        [y * x for y in (weight_above, weight_below) for x in (weight_left, weight_right)], dim=-1
    )
    # int32 halves the traffic of the indices
    integers = torch.int32 if n * height * width * groups < _INT32_ROWS else torch.int64
    image = torch.arange(n, dtype=integers, device=offset.device).view(n, 1, 1, 1, 1) * height
    group = torch.arange(groups, dtype=integers, device=offset.device)
    rows = [(image + y.to(integers)) * (width * groups) + group for y in (above, below)]
    columns = [x.to(integers) * groups for x in (left, right)]
    return torch.stack([y + x for y in rows for x in columns], dim=-1), blend


class _SampledProduct(torch.autograd.Function):
    """The convolution over sampled columns; differentiable once in x, blend, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        blend: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        index: Tensor,
        geometry: Geometry,
    ) -> Tensor:
        ctx.geometry, ctx.x_shape, ctx.x_is_contiguous = geometry, x.shape, x.is_contiguous()
        ctx.blend_shape = blend.shape
        rows, kernel = _to_rows(x, geometry), _to_kernel(weight)
        index, blend = index.flatten(0, 2).flatten(1), blend.flatten(0, 2).flatten(1)
        ctx.save_for_backward(rows, blend, weight, index)
        n, out_h, out_w = ctx.blend_shape[:3]
        # Not a view, which cannot be modified in place
        shape = (n, len(weight), out_h, out_w)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        y_rows = y.permute(0, 2, 3, 1).view(len(blend), len(weight))
        size = _chunk_size(len(blend), weight, geometry)
        taps = _bags(index, size)
        for part in _chunks(len(blend), size):
            columns = _group(_sample(taps, rows, index[part], blend[part]), geometry)
            y_rows[part] = grouped_linear(columns, kernel, bias, groups=geometry.groups)
            del columns  # so that the next ones reuse their memory and cache
        return _to_contiguous(y) if ctx.x_is_contiguous else y

    @staticmethod
    @once_differentiable("deform_conv2d: backend gather")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(grad.device):  # backward may be called under autocast
            return _SampledProduct._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, blend, weight, index = ctx.saved_tensors
        geometry = ctx.geometry
        size = _chunk_size(len(blend), weight, geometry)
        need_x, need_blend, need_weight, need_bias = ctx.needs_input_grad[:4]
        grad = grad.permute(0, 2, 3, 1).reshape(len(blend), len(weight))
        grad_rows, grad_blend = torch.zeros_like(rows), torch.empty_like(blend)
        kernel = _to_transposed_kernel(weight, geometry)
        grad_kernel = grad.new_zeros(geometry.groups, kernel.shape[1], kernel.shape[0] // geometry.groups)
        taps = _bags(index, size)
        for part in _chunks(len(blend), size):
            if need_weight:
                columns = _group(_sample(taps, rows, index[part], blend[part]), geometry)
                add_grouped_linear_weight_grad(grad[part], columns, into=grad_kernel)
                del columns  # so that their gradient reuses the memory
            if not need_x and not need_blend:
                continue
            of_columns = grouped_linear_input_grad(grad[part], kernel, groups=geometry.groups)
            of_columns = _ungroup(of_columns, geometry).view(-1, rows.shape[1])
            if need_blend:
                grad_blend[part] = taps.weight_gradient(of_columns, rows, index[part])
            if need_x:
                taps.add_row_gradient(of_columns, index[part], blend[part], into=grad_rows)
            del of_columns
        n, c, h, w = ctx.x_shape
        return (
            _to_image(grad_rows.view(n, h, w, c), contiguous=ctx.x_is_contiguous) if need_x else None,
            grad_blend.view(ctx.blend_shape) if need_blend else None,
            _to_weight(grad_kernel, like=weight) if need_weight else None,
            grad.sum(dim=0) if need_bias else None,
            None,
            None,
        )


def _to_rows(x: Float[Tensor, "N C H W"], geometry: Geometry) -> Float[Tensor, "R c"]:
    """Return the pixels of x, one row for the channels of each offset group; a view if x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1] // geometry.offset_groups)


def _to_image(y: Float[Tensor, "N H W C"], *, contiguous: bool) -> Float[Tensor, "N C H W"]:
    y = y.permute(0, 3, 1, 2)
    return _to_contiguous(y) if contiguous else y


def _to_contiguous(y: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Return channels-last y in the contiguous layout.

    The copy goes image by image, as torch transposes matrices four times as fast.
    """
    result = torch.empty_like(y, memory_format=torch.contiguous_format)
    for image, into in zip(y, result, strict=True):
        into.flatten(1).copy_(image.permute(1, 2, 0).flatten(0, 1).T)
    return result


def _to_kernel(weight: Float[Tensor, "O c kh kw"]) -> Float[Tensor, "O k"]:
    """Return the matrix that multiplies columns."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _to_transposed_kernel(weight: Float[Tensor, "O c kh kw"], geometry: Geometry) -> Float[Tensor, "f o"]:
    """Return the matrix that maps gradients of outputs to those of columns."""
    return _to_kernel(weight).unflatten(0, (geometry.groups, -1)).mT.flatten(0, 1)


def _to_weight(kernel: Float[Tensor, "D o k"], *, like: Tensor) -> Float[Tensor, "O c kh kw"]:
    _, channels, height, width = like.shape
    return kernel.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def _group(columns: Float[Tensor, "m features"], geometry: Geometry) -> Float[Tensor, "m features"]:
    """Reorder features from (K, D, C / D) to (D, K, C / D) for grouped convolution; a view if D = 1."""
    channels = columns.shape[1] // (geometry.taps * geometry.groups)
    taps_first = columns.view(len(columns), geometry.taps, geometry.groups, channels)
    return taps_first.transpose(1, 2).reshape(columns.shape)


def _ungroup(columns: Float[Tensor, "m features"], geometry: Geometry) -> Float[Tensor, "m features"]:
    groups_first = columns.view(len(columns), geometry.groups, geometry.taps, -1)
    return groups_first.transpose(1, 2).reshape(columns.shape)


def _chunk_size(positions: int, weight: Float[Tensor, "O c kh kw"], geometry: Geometry) -> int:
    """Return the output positions per chunk, such that no chunk is much smaller than the others."""
    size = max(_MIN_POSITIONS, _COLUMN_BYTES // (weight[0].nbytes * geometry.groups))
    chunks = max(1, math.ceil(positions / size))
    return max(16, math.ceil(positions / chunks / 16) * 16)


def _chunks(positions: int, size: int) -> Iterator[slice]:
    for start in range(0, positions, size):
        yield slice(start, min(start + size, positions))


def _bags(index: Int[Tensor, "M corners"], chunk_size: int) -> EmbeddingBags:
    """Return the bags for the taps of a chunk."""
    most = min(len(index), chunk_size) * index.shape[1] // _CORNERS
    return EmbeddingBags.of(_CORNERS, most=most, like=index)


def _sample(
    taps: EmbeddingBags,
    rows: Float[Tensor, "R c"],
    index: Int[Tensor, "m corners"],
    blend: Float[Tensor, "m corners"],
) -> Float[Tensor, "m features"]:
    """Return the columns of m output positions, (m, K * C)."""
    return taps.sum(rows, index, blend).view(len(index), -1)
