"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.

Lavin and Gray 2015, arXiv:1509.09308. Every 4x4 patch of the output comes from a 6x6 patch of the input by 36
products per channel pair instead of 144; what remains are three batched matrix products, forward and
backward. In fp32 the result is as good as a direct convolution's to about 2e-6 relative. A CPU's direct
kernels are bound by arithmetic, so wide layers on large maps gain; elsewhere moving the patches costs more
than it saves.
"""

# N images, C input and O output channels, T = N * rows * columns patches of 4x4 outputs

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_PATCH, _STEP = 6, 4

Matrix = tuple[tuple[int | float, ...], ...]
# The transforms along one axis, for the points 0, 1, -1, 2, -2 and infinity.
_INPUT: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT: Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def winograd_conv3x3(
    maps: Sequence[Float[Tensor, "N C _H _W"]],
    weight: Float[Tensor, "O C 3 3"],
    bias: Float[Tensor, "O"] | None,
) -> list[Float[Tensor, "N O _H _W"]]:
    """`[F.conv2d(x, weight, bias, padding=1) for x in maps]` in float32, channels last. Differentiable once.

    All maps go through the same matrix products, so that small ones beside a large one cost little.
    """
    return list(_WinogradConv3x3.apply(weight, bias, *maps))


class _WinogradConv3x3(torch.autograd.Function):
    """Transforms are made again in the backward pass: kept, they take 2.25 times the maps and 4 times the
    weight, and the maps and the weight are kept anyway."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        ctx.patches = [_count(x.shape) for x in maps]
        products = torch.bmm(_transform_inputs(maps, ctx.patches), _transform_weight(weight).transpose(1, 2))
        parts = products.split(ctx.patches, dim=1)
        return tuple(_transform_products(part, x.shape, bias) for part, x in zip(parts, maps, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        grad_products = _transform_grads(grads, ctx.patches)
        grad_weight = grad_bias = None
        grad_maps: list[Tensor | None] = [None for _ in grads]
        if ctx.needs_input_grad[0]:
            inputs = _transform_inputs(maps, ctx.patches)
            grad_weight = _transform_weight_adjoint(torch.bmm(grad_products.transpose(1, 2), inputs))
            del inputs  # 2.25 times the maps, as the products are: no more of that at once than needed
        if ctx.needs_input_grad[1]:
            grad_bias = torch.stack([grad.sum((0, 2, 3)) for grad in grads]).sum(0)
        if any(ctx.needs_input_grad[2:]):
            grad_inputs = torch.bmm(grad_products, _transform_weight(weight)).split(ctx.patches, dim=1)
            del grad_products
            grad_maps = [
                _transform_input_adjoint(part, x.shape) for part, x in zip(grad_inputs, maps, strict=True)
            ]
        return grad_weight, grad_bias, *grad_maps


def _combine(matrix: Matrix, parts: Sequence[Tensor], *, out: Sequence[Tensor]) -> None:
    """The linear combination of `parts` by each row. As additions: the matrices are small and half zeros."""
    for row, total in zip(matrix, out, strict=True):
        (factor, first), *rest = [(f, part) for f, part in zip(row, parts, strict=True) if f]
        torch.mul(first, factor, out=total)
        for factor, part in rest:
            total.add_(part, alpha=factor)


def _scatter(matrix: Matrix, parts: Sequence[Tensor], *, into: Sequence[Tensor]) -> None:
    """Add the linear combination by each row to its place. Places overlap."""
    total = torch.empty_like(parts[0])
    for row, place in zip(matrix, into, strict=True):
        _combine((row,), parts, out=(total,))
        place.add_(total)


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _transform_inputs(maps: Sequence[Tensor], patches: Sequence[int]) -> Tensor:
    """(36, T, C)"""
    transformed = maps[0].new_empty(_PATCH**2, sum(patches), maps[0].shape[1])
    for x, part in zip(maps, transformed.split(list(patches), dim=1), strict=True):
        _transform_input(x, out=part)
    return transformed


def _transform_input(x: Tensor, *, out: Tensor) -> None:
    """Fills (36, T, C) from the overlapping 6x6 patches of x with its border of zeros."""
    n, c, h, w = x.shape
    rows, columns = _grid(x.shape)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, _STEP * columns + 1 - w, 1, _STEP * rows + 1 - h))
    by_place = out.view(_PATCH, _PATCH, n, rows, columns, c)
    line = x.new_empty(n, rows, _STEP * columns + 2, c)  # one at a time: six would be larger than x
    for row, of_row in zip(_INPUT, by_place.unbind(1), strict=True):
        _combine((row,), [padded[:, s] for s in _every(rows)], out=(line,))
        _combine(_INPUT, [line[:, :, s] for s in _every(columns)], out=of_row.unbind())


def _transform_input_adjoint(grad: Tensor, shape: torch.Size) -> Tensor:
    n, c, h, w = shape
    rows, columns = _grid(shape)
    by_place = grad.view(_PATCH, _PATCH, n, rows, columns, c)
    by_row = grad.new_zeros(_PATCH, n, rows, _STEP * columns + 2, c)
    _scatter(_transposed(_INPUT), by_place.unbind(), into=[by_row[:, :, :, s] for s in _every(columns)])
    padded = grad.new_zeros(n, _STEP * rows + 2, _STEP * columns + 2, c)
    _scatter(_transposed(_INPUT), by_row.unbind(), into=[padded[:, s] for s in _every(rows)])
    return padded[:, 1 : h + 1, 1 : w + 1].permute(0, 3, 1, 2)


def _transform_weight(weight: Tensor) -> Tensor:
    """(36, O, C)"""
    o, c = weight.shape[:2]
    by_row = weight.new_empty(_PATCH, 3, o, c)
    _combine(_WEIGHT, weight.permute(2, 3, 0, 1).contiguous().unbind(), out=by_row.unbind())
    by_place = weight.new_empty(_PATCH, _PATCH, o, c)
    _combine(_WEIGHT, by_row.unbind(1), out=by_place.unbind())
    return by_place.view(_PATCH**2, o, c)


def _transform_weight_adjoint(grad: Tensor) -> Tensor:
    o, c = grad.shape[1:]
    by_row = grad.new_empty(3, _PATCH, o, c)
    _combine(_transposed(_WEIGHT), grad.view(_PATCH, _PATCH, o, c).unbind(), out=by_row.unbind())
    by_place = grad.new_empty(3, 3, o, c)
    _combine(_transposed(_WEIGHT), by_row.unbind(1), out=by_place.unbind())
    return by_place.permute(2, 3, 0, 1)


def _transform_products(products: Tensor, shape: torch.Size, bias: Tensor | None) -> Tensor:
    """(N, O, H, W), channels last, from (36, T, O)."""
    n, _, h, w = shape
    o = products.shape[-1]
    rows, columns = _grid(shape)
    by_place = products.view(_PATCH, _PATCH, n, rows, columns, o)
    # A tensor of its own, not a view: autograd lets nobody change one of several views in place.
    y = torch.empty(
        (n, o, _STEP * rows, _STEP * columns),
        dtype=products.dtype,
        device=products.device,
        memory_format=torch.channels_last,
    )
    joined = y.permute(0, 2, 3, 1).view(n, rows, _STEP, columns, _STEP, o)
    line = products.new_empty(_PATCH, n, rows, columns, o)
    for row, column in zip(_OUTPUT, joined.unbind(4), strict=True):
        _combine((row,), by_place.unbind(), out=(line,))
        _combine(_OUTPUT, line.unbind(), out=column.unbind(2))
    if bias is not None:
        joined += bias
    return y if y.shape == (n, o, h, w) else y[:, :, :h, :w].clone()


def _transform_grads(grads: Sequence[Tensor], patches: Sequence[int]) -> Tensor:
    """(36, T, O)"""
    transformed = grads[0].new_empty(_PATCH**2, sum(patches), grads[0].shape[1])
    for grad, part in zip(grads, transformed.split(list(patches), dim=1), strict=True):
        _transform_products_adjoint(grad, out=part)
    return transformed


def _transform_products_adjoint(grad: Tensor, *, out: Tensor) -> None:
    n, o, h, w = grad.shape
    rows, columns = _grid(grad.shape)
    grid = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, _STEP * columns - w, 0, _STEP * rows - h))
    joined = grid.reshape(n, rows, _STEP, columns, _STEP, o)
    by_place = out.view(_PATCH, _PATCH, n, rows, columns, o)
    line = grad.new_empty(n, rows, columns, _STEP, o)
    for row, of_row in zip(_transposed(_OUTPUT), by_place.unbind(1), strict=True):
        _combine((row,), joined.unbind(2), out=(line,))
        _combine(_transposed(_OUTPUT), line.unbind(3), out=of_row.unbind())


def _grid(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of patches on a map."""
    return -(-shape[2] // _STEP), -(-shape[3] // _STEP)


def _count(shape: torch.Size) -> int:
    """Patches of a batch of maps: T."""
    rows, columns = _grid(shape)
    return shape[0] * rows * columns


def _every(patches: int) -> list[slice]:
    """For each of the six places of a patch, where it lies in all patches along an axis."""
    return [slice(place, place + _STEP * patches - (_STEP - 1), _STEP) for place in range(_PATCH)]
