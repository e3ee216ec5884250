"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3), with a quarter of the multiplications.

Source: Lavin and Gray 2015, arXiv:1509.09308. Each 4x4 patch of the output takes 36 products per channel pair
with a 6x6 patch of the input, instead of 144; they are computed as matrix products, forward and backward. The
computation goes part by part, two rows of the transformed patches and a band of the map at a time, so that
the transforms, 2.25 times the size of the maps in all, stay in cache. In fp32 the relative error of values
and gradients is up to 4e-6; that of torch's direct convolution of channels-last maps is 4e-7 to 1e-6. Direct
kernels of a CPU are bound by arithmetic, so wide layers on large maps gain; for others, moving the patches
costs more than it saves.
"""

# N images, C input and O output channels, T patches of 4x4 outputs; vertically the 2 points of a pair.
# The pixels of a map are (N, y, 4, x, 4, C), with y and x counting patches.

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from detector.ops.autocast import without_autocast
from detector.ops.cpu.products import add_batched_linear_weight_grads, batched_linear
from detector.ops.cpu.winograd_transforms import (
    PAIRS,
    PATCH,
    STEP,
    add_inputs,
    add_outputs,
    add_weight,
    at,
    grads_at,
    inputs_at,
    sum_inputs,
    sum_outputs,
    weight_at,
)
from detector.ops.recording import is_eager_on_cpu

# Limits of the channels, and of positions times input and output channels, below which the direct kernel is
# as fast or faster; measured on 2 cores of an AMD EPYC and an Intel Xeon.
_FEWEST_CHANNELS = 128
_LEAST_WITH_BACKWARD, _LEAST_WITHOUT = 200e6, 300e6
_PART_BYTES = 16 << 20  # of the transforms computed at once


def conv3x3(
    maps: Sequence[Float[Tensor, "*N _C _H _W"]],
    weight: Float[Tensor, "O C 3 3"],
    bias: Float[Tensor, "O"] | None,
) -> list[Float[Tensor, "*N O _H _W"]]:
    """Compute `[F.conv2d(x, weight, bias, padding=1) for x in maps]`, by Winograd if that is faster."""
    if _winograd_pays(maps, weight):
        return winograd_conv3x3(maps, weight, bias)
    return [F.conv2d(x, weight, bias, padding=1) for x in maps]


def _winograd_pays(maps: Sequence[Tensor], weight: Tensor) -> bool:
    """Return whether the layer and maps are large enough; the gain is largest in the backward pass."""
    if not is_eager_on_cpu(weight) or any(x.dim() != 4 or x.shape[1] != weight.shape[1] for x in maps):
        return False  # torch computes it or raises the error
    work = weight.shape[:2].numel() * sum(x.shape[0] * x.shape[2] * x.shape[3] for x in maps)
    return (
        min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and work >= (_LEAST_WITH_BACKWARD if torch.is_grad_enabled() else _LEAST_WITHOUT)
        and all(x.device == weight.device and x.dtype == weight.dtype == torch.float32 for x in maps)
    )


def winograd_conv3x3(
    maps: Sequence[Float[Tensor, "N C _H _W"]],
    weight: Float[Tensor, "O C 3 3"],
    bias: Float[Tensor, "O"] | None,
) -> list[Float[Tensor, "N O _H _W"]]:
    """Compute `[F.conv2d(x, weight, bias, padding=1) for x in maps]` in float32, channels-last.

    For second derivatives, the gradients are those of a direct convolution. All maps share the same matrix
    products, so that small maps cost little beside a large one.
    """
    return list(_WinogradConv3x3.apply(weight, bias, *maps))


class _WinogradConv3x3(torch.autograd.Function):
    """The convolution; its backward pass recomputes the transforms, as maps and weight are kept anyway."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        grids, taps = [_Grid.of(x) for x in maps], _taps(weight)
        pixels = [grid.pixels(x) for x, grid in zip(maps, grids, strict=True)]
        results = [_start(grid, weight, bias) for grid in grids]
        into = [grid.pixels(y) for y, grid in zip(results, grids, strict=True)]  # views
        for pair in PAIRS:
            kernels = _transform_weight(taps, pair)
            for bands in _parts(grids, weight):
                inputs = _transform_inputs(pixels, bands, pair)
                products = batched_linear(inputs, kernels)
                del inputs  # so that what follows reuses their memory and cache
                _add_outputs(products, bands, pair, into=into)
                del products
        return tuple(_cut(y, x.shape) for y, x in zip(results, maps, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        with without_autocast(weight.device):  # backward may be called under autocast
            if torch.is_grad_enabled():
                return _differentiable_gradients(ctx.needs_input_grad, weight, maps, grads)
            return _WinogradConv3x3._backward(ctx.needs_input_grad, weight, maps, grads)

    @staticmethod
    def _backward(
        needed: Sequence[bool], weight: Tensor, maps: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        need_weight, need_bias, *need_maps = needed
        grids, transposed = [_Grid.of(x) for x in maps], _taps(weight.transpose(0, 1))
        outputs = [grid.pixels(grad) for grad, grid in zip(grads, grids, strict=True)]
        pixels = [grid.pixels(x) for x, grid in zip(maps, grids, strict=True) if need_weight]
        into = [grid.new_pixels(weight.shape[1], like=weight) for grid in grids if any(need_maps)]
        grad_taps = weight.new_zeros(3, 3, *weight.shape[:2])
        for pair in PAIRS:
            kernels = _transform_weight(transposed, pair)
            grad_kernels = weight.new_zeros(*kernels.shape[:2], *weight.shape[:2])
            for bands in _parts(grids, weight):
                transformed = _transform_grads(outputs, bands, pair)
                if need_weight:
                    inputs = _transform_inputs(pixels, bands, pair)
                    add_batched_linear_weight_grads(transformed, inputs, into=grad_kernels)
                    del inputs
                products = batched_linear(transformed, kernels) if into else []
                del transformed
                if into:
                    _add_inputs(products, bands, pair, into=into)
                del products
            _add_taps(grad_kernels, pair, into=grad_taps)
        grad_maps: list[Tensor | None] = [None for _ in maps]
        if into:
            grad_maps = [_to_map(grad, x.shape) for grad, x in zip(into, maps, strict=True)]
        return (
            grad_taps.permute(2, 3, 0, 1) if need_weight else None,
            torch.stack([grad.sum((0, 2, 3)) for grad in grads]).sum(0) if need_bias else None,
            *grad_maps,
        )


def _differentiable_gradients(
    needed: Sequence[bool], weight: Tensor, maps: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a direct convolution, which torch can differentiate again."""
    need_weight, need_bias, *need_maps = needed
    pairs = list(zip(maps, grads, strict=True))
    of_weights = [conv2d_weight(x, weight.shape, grad, padding=1) for x, grad in pairs if need_weight]
    return (
        torch.stack(of_weights).sum(0) if need_weight else None,
        torch.stack([grad.sum((0, 2, 3)) for grad in grads]).sum(0) if need_bias else None,
        *(
            conv2d_input(x.shape, weight, grad, padding=1) if need else None
            for (x, grad), need in zip(pairs, need_maps, strict=True)
        ),
    )


@dataclass(frozen=True)
class _Grid:
    """The patches of a map, which is padded with zeros to whole patches."""

    images: int
    rows: int
    columns: int

    @staticmethod
    def of(x: Float[Tensor, "N C H W"]) -> _Grid:
        return _Grid(x.shape[0], -(-x.shape[2] // STEP), -(-x.shape[3] // STEP))

    @property
    def width(self) -> int:
        return STEP * self.columns

    def pixels(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N _y 4 _W C"]:
        """Return the padded pixels, as a view if the patches fit a channels-last map."""
        below, right = STEP * self.rows - x.shape[2], self.width - x.shape[3]
        pixels = x.permute(0, 2, 3, 1)
        if below or right:
            pixels = F.pad(pixels, (0, 0, 0, right, 0, below))
        return pixels.contiguous().unflatten(1, (self.rows, STEP))

    def new_pixels(self, channels: int, *, like: Tensor) -> Float[Tensor, "N _y 4 _W C"]:
        """Return pixels that are zero."""
        return like.new_zeros(self.images, self.rows, STEP, self.width, channels)


@dataclass(frozen=True)
class _Band:
    """A range of rows of the patches of one map."""

    number: int
    grid: _Grid
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of images, rows and columns of the patches."""
        return self.grid.images, self.stop - self.start, self.grid.columns

    @property
    def patches(self) -> int:
        return math.prod(self.shape)

    def lines(self, pixels: Sequence[Tensor]) -> tuple[Float[Tensor, "N y _W C"], ...]:
        """Return the four lines of each row, which are the inner ones of the six of an input patch."""
        return pixels[self.number][:, self.start : self.stop].unbind(2)

    def above(self, pixels: Sequence[Tensor]) -> tuple[slice, Float[Tensor, "N _y _W C"]]:
        """Return the rows with a line above them, all but the first of the map, and these lines."""
        first = max(self.start, 1)
        return slice(first - self.start, None), pixels[self.number][:, first - 1 : self.stop - 1, -1]

    def below(self, pixels: Sequence[Tensor]) -> tuple[slice, Float[Tensor, "N _y _W C"]]:
        """Return the rows with a line below them, all but the last of the map, and these lines."""
        last = min(self.stop, self.grid.rows - 1)
        return slice(0, last - self.start), pixels[self.number][:, self.start + 1 : last + 1, 0]


def _parts(grids: Sequence[_Grid], weight: Float[Tensor, "O C 3 3"]) -> list[list[_Band]]:
    """Return the bands of each part, transformed together; small maps share a part, large ones are split."""
    most = max(1, _PART_BYTES // (2 * PATCH * max(weight.shape[:2]) * weight.itemsize))
    parts: list[list[_Band]] = []
    for number, grid in enumerate(grids):
        line = grid.images * grid.columns
        count = min(grid.rows, math.ceil(grid.rows * line / most) or 1)
        edges = [grid.rows * i // count for i in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            band = _Band(number, grid, start, stop)
            if not parts or sum(b.patches for b in parts[-1]) + band.patches > most:
                parts.append([])
            parts[-1].append(band)
    return parts


def _taps(weight: Float[Tensor, "O C 3 3"]) -> Float[Tensor, "3 3 O C"]:
    return weight.permute(2, 3, 0, 1).contiguous()


def _start(grid: _Grid, weight: Float[Tensor, "O C 3 3"], bias: Tensor | None) -> Float[Tensor, "N O _H _W"]:
    """Return the output of the bias alone, channels-last.

    It is a tensor of its own, as autograd forbids modifying one of several views in place.
    """
    start = weight.new_zeros(len(weight)) if bias is None else bias
    shape = (grid.images, -1, STEP * grid.rows, grid.width)
    return start[:, None, None].expand(shape).clone(memory_format=torch.channels_last)


def _cut(y: Tensor, shape: torch.Size) -> Tensor:
    h, w = shape[2:]
    return y if y.shape[2:] == (h, w) else y[:, :, :h, :w].clone()


def _to_map(pixels: Float[Tensor, "N y 4 W C"], shape: torch.Size) -> Float[Tensor, "N C _h _w"]:
    h, w = shape[2:]
    return pixels.flatten(1, 2)[:, :h, :w].permute(0, 3, 1, 2)


def _new_patches(bands: Sequence[_Band], *, like: Sequence[Tensor]) -> Float[Tensor, "2 6 _T c"]:
    patches, channels = sum(band.patches for band in bands), like[0].shape[-1]
    return like[0].new_empty(2, PATCH, patches, channels)


def _split(
    patches: Sequence[Float[Tensor, "2 T *rest"]], bands: Sequence[_Band]
) -> Iterator[tuple[_Band, list[Float[Tensor, "2 N _y _x *rest"]]]]:
    """Yield each band with views of its patches."""
    parts = [part.split([band.patches for band in bands], dim=1) for part in patches]
    for number, band in enumerate(bands):
        yield band, [part[number].unflatten(1, band.shape) for part in parts]


def _columns(lines: Float[Tensor, "2 N y W C"]) -> list[Float[Tensor, "2 N y _x C"]]:
    """Return for each of the six columns of a patch that of all patches, from lines with a border."""
    last = lines.shape[3] - PATCH
    return [lines[..., place : place + last + 1 : STEP, :] for place in range(PATCH)]


def _transform_weight(taps: Float[Tensor, "3 3 O C"], pair: int) -> Float[Tensor, "2 6 O C"]:
    lines = taps.new_empty(2, *taps.shape[1:])
    weight_at(pair, taps.unbind(), out=lines.unbind())
    kernels = taps.new_empty(2, PATCH, *taps.shape[2:])
    for across in PAIRS:
        weight_at(across, lines.unbind(1), out=at(across, kernels.unbind(1)))
    return kernels


def _add_taps(grad: Float[Tensor, "2 6 O C"], pair: int, *, into: Float[Tensor, "3 3 O C"]) -> None:
    """Apply the adjoint of `_transform_weight`."""
    lines = grad.new_zeros(2, *into.shape[1:])
    for across in PAIRS:
        add_weight(across, *at(across, grad.unbind(1)), into=lines.unbind(1))
    add_weight(pair, *lines, into=into.unbind())


def _transform_inputs(
    pixels: Sequence[Float[Tensor, "N _y 4 _W C"]], bands: Sequence[_Band], pair: int
) -> Float[Tensor, "2 6 _T C"]:
    """Transform the overlapping 6x6 patches of maps with a border of zeros."""
    transformed = _new_patches(bands, like=pixels)
    for band, places in _split(transformed.unbind(1), bands):
        lines = _lines(places, band)
        lines[..., :: lines.shape[3] - 1, :] = 0  # the border
        rows = lines[..., 1:-1, :].unbind()
        inputs_at(pair, band.lines(pixels), out=rows)
        if not pair:
            (upper, above), (lower, below) = band.above(pixels), band.below(pixels)
            rows[0][:, upper].add_(above, alpha=4)
            rows[1][:, lower].add_(below)
        first, *inner, last = _columns(lines)
        for across in PAIRS:
            inputs_at(across, inner, out=at(across, places))
        places[0].add_(first, alpha=4)
        places[-1].add_(last)
    return transformed


def _lines(places: Sequence[Float[Tensor, "2 N y x C"]], band: _Band) -> Float[Tensor, "2 N y _W C"]:
    """Return new, uninitialized lines for these patches, with a border."""
    return places[0].new_empty(*places[0].shape[:3], band.grid.width + 2, places[0].shape[-1])


def _add_inputs(
    grad: Sequence[Sequence[Float[Tensor, "T C"]]],
    bands: Sequence[_Band],
    pair: int,
    *,
    into: Sequence[Float[Tensor, "N _y 4 _W C"]],
) -> None:
    """Apply the adjoint of `_transform_inputs`."""
    columns = grad[0][0].new_empty(PATCH, len(grad), *grad[0][0].shape)
    for row, places in enumerate(grad):
        sum_inputs(places, out=columns[:, row].unbind())
    for band, places in _split(columns.unbind(), bands):
        lines = _lines(places, band).zero_()
        for column, place in zip(_columns(lines), places, strict=True):
            column += place
        rows = lines[..., 1:-1, :].unbind()
        add_inputs(pair, *rows, into=band.lines(into))
        if not pair:
            (upper, above), (lower, below) = band.above(into), band.below(into)
            above.add_(rows[0][:, upper], alpha=4)
            below.add_(rows[1][:, lower])


def _add_outputs(
    products: Sequence[Sequence[Float[Tensor, "T O"]]],
    bands: Sequence[_Band],
    pair: int,
    *,
    into: Sequence[Float[Tensor, "N _y 4 _W O"]],
) -> None:
    """Add the transformed products to the pixels of the output."""
    patches, channels = products[0][0].shape
    lines = products[0][0].new_empty(len(products), patches, STEP, channels)
    for places, line in zip(products, lines, strict=True):
        sum_outputs(places, out=line.unbind(1))
    for band, (part,) in _split([lines], bands):
        add_outputs(pair, *part.flatten(3, 4), into=band.lines(into))


def _transform_grads(
    outputs: Sequence[Float[Tensor, "N _y 4 _W O"]], bands: Sequence[_Band], pair: int
) -> Float[Tensor, "2 6 _T O"]:
    """Apply the adjoint of `_add_outputs`."""
    transformed = _new_patches(bands, like=outputs)
    *_, patches, channels = transformed.shape
    lines = transformed.new_empty(2, patches, STEP, channels)
    for band, (part,) in _split([lines], bands):
        grads_at(pair, band.lines(outputs), out=part.flatten(3, 4).unbind())
    for across in PAIRS:
        grads_at(across, lines.unbind(2), out=at(across, transformed.unbind(1)))
    return transformed
