"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.

Lavin and Gray 2015, arXiv:1509.09308. Every 4x4 patch of the output comes from a 6x6 patch of the input by 36
products per channel pair instead of 144; what remains are matrix products, forward and backward. They are
made by parts, a row of the transformed patches and a band of the map at a time, so that the transforms, 2.25
times the maps together, stay in cache. In fp32 the relative error is up to 4e-6, of values and gradients;
that of torch's direct convolution of channels-last maps is 4e-7 to 1e-6. A CPU's direct kernels are bound by
arithmetic, so wide layers on large maps gain; elsewhere moving the patches costs more than it saves.
"""

# N images, C input and O output channels, T patches of 4x4 outputs.
# A padded map is (N, 4 * rows + 2, 4 * columns + 2, C), the blocks of an output (N, rows, 4, columns, 4, O).

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_PATCH, _STEP = 6, 4
_PART_BYTES = 8 << 20  # of the transforms made at once

Row = tuple[int | float, ...]
Matrix = tuple[Row, ...]
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


_OUTPUT_ADJOINT, _INPUT_ADJOINT, _WEIGHT_ADJOINT = (
    tuple(zip(*matrix, strict=True)) for matrix in (_OUTPUT, _INPUT, _WEIGHT)
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
    """Transforms are made again in the backward pass: the maps and the weight are kept anyway."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        grids = [_Grid.of(x) for x in maps]
        taps, padded = _taps(weight), [_pad(x, grid) for x, grid in zip(maps, grids, strict=True)]
        results = [_start(grid, weight, bias) for grid in grids]
        blocks = [_blocks(y.permute(0, 2, 3, 1)) for y in results]
        for rows in _row_groups(grids, weight):
            kernel = _transform_weight(taps, rows).mT
            for bands in _parts(grids, weight):
                inputs = _transform_inputs([band.of_map(padded) for band in bands], rows)
                products = torch.bmm(inputs, kernel)
                del inputs  # what comes next takes their place, in memory and cache
                _add_outputs(products, rows, into=[band.of_blocks(blocks) for band in bands])
                del products
        return tuple(_cut(y, x.shape) for y, x in zip(results, maps, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        need_weight, need_bias, *need_maps = ctx.needs_input_grad
        grids, taps = [_Grid.of(x) for x in maps], _taps(weight)
        blocks = [_pad_to_blocks(grad, grid) for grad, grid in zip(grads, grids, strict=True)]
        padded = [_pad(x, grid) for x, grid in zip(maps, grids, strict=True) if need_weight]
        grad_padded = [weight.new_zeros(grid.padded(weight.shape[1])) for grid in grids if any(need_maps)]
        grad_taps = torch.zeros_like(taps)
        for rows in _row_groups(grids, weight):
            kernel = _transform_weight(taps, rows)
            grad_kernel = torch.zeros_like(kernel)
            for bands in _parts(grids, weight):
                products = _transform_grads([band.of_blocks(blocks) for band in bands], rows)
                if need_weight:
                    inputs = _transform_inputs([band.of_map(padded) for band in bands], rows)
                    grad_kernel.baddbmm_(products.mT, inputs)
                    del inputs
                if grad_padded:
                    _add_inputs(
                        torch.bmm(products, kernel), rows, into=[band.of_map(grad_padded) for band in bands]
                    )
                del products
            _add_taps(grad_kernel, rows, into=grad_taps)
        grad_maps: list[Tensor | None] = [None for _ in maps]
        if grad_padded:
            grad_maps = [_cut_border(grad, x.shape) for grad, x in zip(grad_padded, maps, strict=True)]
        return (
            grad_taps.permute(2, 3, 0, 1) if need_weight else None,
            torch.stack([grad.sum((0, 2, 3)) for grad in grads]).sum(0) if need_bias else None,
            *grad_maps,
        )


@dataclass(frozen=True)
class _Grid:
    """The patches of a map."""

    images: int
    rows: int
    columns: int

    @staticmethod
    def of(x: Float[Tensor, "N C H W"]) -> _Grid:
        return _Grid(x.shape[0], -(-x.shape[2] // _STEP), -(-x.shape[3] // _STEP))

    def padded(self, channels: int) -> tuple[int, int, int, int]:
        """The shape of the padded map."""
        return self.images, _STEP * self.rows + 2, _STEP * self.columns + 2, channels


@dataclass(frozen=True)
class _Band:
    """Some rows of the patches of one of the maps."""

    number: int
    start: int
    stop: int
    patches: int

    def of_map(self, padded: Sequence[Tensor]) -> Float[Tensor, "N _H _W C"]:
        """Neighbouring bands share two lines."""
        return padded[self.number][:, _STEP * self.start : _STEP * self.stop + 2]

    def of_blocks(self, blocks: Sequence[Tensor]) -> Float[Tensor, "N _rows 4 _columns 4 O"]:
        return blocks[self.number][:, self.start : self.stop]


def _row_groups(grids: Sequence[_Grid], weight: Float[Tensor, "O C 3 3"]) -> list[slice]:
    """Rows of the transformed patches that are made together: of small maps several, to save calls."""
    patches = sum(grid.images * grid.rows * grid.columns for grid in grids)
    fit = _most_patches(weight) // max(1, patches)
    step = max(divisor for divisor in (1, 2, 3, 6) if divisor <= max(1, fit))
    return [slice(row, row + step) for row in range(0, _PATCH, step)]


def _most_patches(weight: Float[Tensor, "O C 3 3"]) -> int:
    """Those of a part, if it is one row of the transformed patches."""
    return max(1, _PART_BYTES // (_PATCH * max(weight.shape[:2]) * weight.itemsize))


def _parts(grids: Sequence[_Grid], weight: Float[Tensor, "O C 3 3"]) -> list[list[_Band]]:
    """Bands that are transformed together: small maps in one part, large ones in several."""
    most = _most_patches(weight)
    parts: list[list[_Band]] = []
    for number, grid in enumerate(grids):
        line = grid.images * grid.columns
        count = min(grid.rows, math.ceil(grid.rows * line / most) or 1)
        edges = [grid.rows * i // count for i in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            band = _Band(number, start, stop, (stop - start) * line)
            if not parts or sum(b.patches for b in parts[-1]) + band.patches > most:
                parts.append([])
            parts[-1].append(band)
    return parts


def _combine(factors: Row, parts: Sequence[Tensor], *, out: Tensor) -> None:
    """The sum of the parts times their factors. As additions: these are small and half of them 0."""
    (factor, first), *rest = [(f, part) for f, part in zip(factors, parts, strict=True) if f]
    torch.mul(first, factor, out=out)
    for factor, part in rest:
        out.add_(part, alpha=factor)


def _spread(part: Tensor, factors: Row, *, into: Sequence[Tensor]) -> None:
    """Adds the part to each place, times its factor."""
    for factor, place in zip(factors, into, strict=True):
        if factor:
            place.add_(part, alpha=factor)


def _taps(weight: Float[Tensor, "O C 3 3"]) -> Float[Tensor, "3 3 O C"]:
    return weight.permute(2, 3, 0, 1).contiguous()


def _transform_weight(taps: Float[Tensor, "3 3 O C"], rows: slice) -> Float[Tensor, "_P O C"]:
    chosen = _WEIGHT[rows]
    lines = taps.new_empty(len(chosen), *taps.shape[1:])
    for factors, line in zip(chosen, lines.unbind(), strict=True):
        _combine(factors, taps.unbind(), out=line)
    kernel = taps.new_empty(len(chosen), _PATCH, *taps.shape[2:])
    for factors, place in zip(_WEIGHT, kernel.unbind(1), strict=True):
        _combine(factors, lines.unbind(1), out=place)
    return kernel.flatten(0, 1)


def _add_taps(grad: Float[Tensor, "_P O C"], rows: slice, *, into: Float[Tensor, "3 3 O C"]) -> None:
    """The adjoint of `_transform_weight`."""
    places = grad.unflatten(0, (-1, _PATCH)).unbind(1)
    lines = grad.new_empty(len(_WEIGHT[rows]), *into.shape[1:])
    for factors, place in zip(_WEIGHT_ADJOINT, lines.unbind(1), strict=True):
        _combine(factors, places, out=place)
    for factors, line in zip(_WEIGHT[rows], lines.unbind(), strict=True):
        _spread(line, factors, into=into.unbind())


def _pad(x: Float[Tensor, "N C H W"], grid: _Grid) -> Float[Tensor, "N _H _W C"]:
    """x with a border of zeros, so that it is whole patches."""
    _, height, width, _ = grid.padded(x.shape[1])
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, width - 1 - x.shape[3], 1, height - 1 - x.shape[2]))


def _cut_border(padded: Float[Tensor, "N _H _W C"], shape: torch.Size) -> Float[Tensor, "N C _h _w"]:
    h, w = shape[2:]
    return padded[:, 1 : h + 1, 1 : w + 1].permute(0, 3, 1, 2)


def _split(
    products: Float[Tensor, "P T c"], grids: Sequence[_Grid]
) -> list[Float[Tensor, "_rows 6 N _r _c c"]]:
    """Those of each grid, views."""
    sizes = [(grid.images, grid.rows, grid.columns) for grid in grids]
    parts = products.split([math.prod(size) for size in sizes], dim=1)
    return [
        part.view(len(part) // _PATCH, _PATCH, *size, part.shape[2])
        for part, size in zip(parts, sizes, strict=True)
    ]


def _grids_of_maps(padded: Sequence[Float[Tensor, "N _H _W C"]]) -> list[_Grid]:
    return [_Grid(x.shape[0], x.shape[1] // _STEP, x.shape[2] // _STEP) for x in padded]


def _grids_of_blocks(blocks: Sequence[Float[Tensor, "N _rows 4 _columns 4 O"]]) -> list[_Grid]:
    return [_Grid(y.shape[0], y.shape[1], y.shape[3]) for y in blocks]


def _new_products(grids: Sequence[_Grid], rows: slice, *, like: Tensor) -> Float[Tensor, "_P _T c"]:
    count = sum(grid.images * grid.rows * grid.columns for grid in grids)
    return like.new_empty((rows.stop - rows.start) * _PATCH, count, like.shape[-1])


def _transform_inputs(padded: Sequence[Tensor], rows: slice) -> Float[Tensor, "_P _T C"]:
    """Of the overlapping 6x6 patches of padded maps."""
    grids = _grids_of_maps(padded)
    transformed = _new_products(grids, rows, like=padded[0])
    for x, part, grid in zip(padded, _split(transformed, grids), grids, strict=True):
        lines = x.new_empty(len(part), grid.images, grid.rows, *x.shape[2:])
        for factors, line in zip(_INPUT[rows], lines.unbind(), strict=True):
            _combine(factors, [x[:, s] for s in _every(grid.rows)], out=line)
        places = [lines[..., s, :] for s in _every(grid.columns)]
        for factors, place in zip(_INPUT, part.unbind(1), strict=True):
            _combine(factors, places, out=place)
    return transformed


def _add_inputs(grad: Float[Tensor, "P T C"], rows: slice, *, into: Sequence[Tensor]) -> None:
    """The adjoint of `_transform_inputs`."""
    grids = _grids_of_maps(into)
    for x, part, grid in zip(into, _split(grad, grids), grids, strict=True):
        lines = x.new_empty(len(part), grid.images, grid.rows, *x.shape[2:])
        lines[..., _STEP * grid.columns :, :] = 0
        total = torch.empty_like(part[:, 0])
        for place, (factors, s) in enumerate(zip(_INPUT_ADJOINT, _every(grid.columns), strict=True)):
            overlaps = place >= _STEP  # with the next patch, whose places are filled by then
            _combine(factors, part.unbind(1), out=total if overlaps else lines[..., s, :])
            if overlaps:
                lines[..., s, :] += total
        for factors, line in zip(_INPUT[rows], lines.unbind(), strict=True):
            _spread(line, factors, into=[x[:, s] for s in _every(grid.rows)])


def _start(grid: _Grid, weight: Float[Tensor, "O C 3 3"], bias: Tensor | None) -> Float[Tensor, "N O _H _W"]:
    """Outputs of the bias alone, channels last.

    Tensors of their own, not views: autograd lets nobody change one of several views in place.
    """
    start = weight.new_zeros(len(weight)) if bias is None else bias
    shape = (grid.images, -1, _STEP * grid.rows, _STEP * grid.columns)
    return start[:, None, None].expand(shape).clone(memory_format=torch.channels_last)


def _blocks(y: Float[Tensor, "N _H _W O"]) -> Float[Tensor, "N _rows 4 _columns 4 O"]:
    n, height, width, channels = y.shape
    return y.view(n, height // _STEP, _STEP, width // _STEP, _STEP, channels)


def _pad_to_blocks(grad: Float[Tensor, "N O H W"], grid: _Grid) -> Float[Tensor, "N _rows 4 _columns 4 O"]:
    below, right = _STEP * grid.rows - grad.shape[2], _STEP * grid.columns - grad.shape[3]
    return _blocks(F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below)).contiguous())


def _cut(y: Tensor, shape: torch.Size) -> Tensor:
    h, w = shape[2:]
    return y if y.shape[2:] == (h, w) else y[:, :, :h, :w].clone()


def _add_outputs(products: Float[Tensor, "P T O"], rows: slice, *, into: Sequence[Tensor]) -> None:
    """What the products add to blocks of the output."""
    for y, part in zip(into, _split(products, _grids_of_blocks(into)), strict=True):
        lines = y.new_empty(len(part), *y[:, :, 0].shape)
        for factors, place in zip(_OUTPUT, lines.unbind(4), strict=True):
            _combine(factors, part.unbind(1), out=place)
        for factors, line in zip(_OUTPUT_ADJOINT[rows], lines.unbind(), strict=True):
            _spread(line, factors, into=y.unbind(2))


def _transform_grads(blocks: Sequence[Tensor], rows: slice) -> Float[Tensor, "_P _T O"]:
    """The adjoint of `_add_outputs`."""
    grids = _grids_of_blocks(blocks)
    transformed = _new_products(grids, rows, like=blocks[0])
    for y, part in zip(blocks, _split(transformed, grids), strict=True):
        lines = y.new_empty(len(part), *y[:, :, 0].shape)
        for factors, line in zip(_OUTPUT_ADJOINT[rows], lines.unbind(), strict=True):
            _combine(factors, y.unbind(2), out=line)
        for factors, place in zip(_OUTPUT_ADJOINT, part.unbind(1), strict=True):
            _combine(factors, lines.unbind(4), out=place)
    return transformed


def _every(patches: int) -> list[slice]:
    """For each of the six places of a patch, where it lies in all patches along an axis."""
    return [slice(place, place + _STEP * patches - (_STEP - 1), _STEP) for place in range(_PATCH)]
