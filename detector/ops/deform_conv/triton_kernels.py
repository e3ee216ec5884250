"""The kernels of the backend `triton`, imported only when used, as not every machine has triton.

All of them read features channels-last, and offsets and masks by their strides. Positions, weights and sums
are computed in the dtype of the offsets. Element indices are int64, as a batch of columns can exceed 2^31.
"""

# n images, R = n * H * W * G rows of pixels, M = n * H' * W' output positions, K taps, G offset groups,
# C channels, c = C / G per offset group, d per convolution group of D

from __future__ import annotations

from typing import NamedTuple, no_type_check

import triton
import triton.language as tl


# The tuples are flat, as triton 3.6 loses numbers that are 1 in nested ones.
class Problem(NamedTuple):
    """The sizes and the geometry that all kernels take."""

    positions: int  # M
    height: int  # H
    width: int
    out_height: int  # H'
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    padding_y: int
    padding_x: int
    dilation_y: int
    dilation_x: int


class Strides(NamedTuple):
    """The strides of offset or mask, (n, channels, H', W'), in elements."""

    image: int
    channel: int
    row: int
    column: int


class Channels(NamedTuple):
    """The numbers of channels; kernels are specialized for multiples of 16, to read many at once."""

    whole: int  # C
    c: int
    d: int


@triton.jit
@no_type_check  # as in all kernels: triton reads their source, so that nothing may wrap them
def _positions(p, BLOCK: tl.constexpr):
    """Return a block of output positions: index, image, row, column, and whether the position exists."""
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = position // p.out_width, position % p.out_width
    return position, row // p.out_height, row % p.out_height, column, position < p.positions


@triton.jit
@no_type_check
def _element(strides, image, channel, row, column):
    """Return element indices in an (n, channels, H', W') tensor."""
    place = (
        image.to(tl.int64) * strides.image
        + row.to(tl.int64) * strides.row
        + column.to(tl.int64) * strides.column
    )
    return place + channel.to(tl.int64) * strides.channel


@triton.jit
@no_type_check
def _pixel_and_fraction(home, shift, size):
    """Return the last pixel at or before home + shift, and the distance to it: see `geometry.neighbors`.

    A position far outside the image moves near it, where its weights are zero as well. NaN stays NaN in the
    fraction.
    """
    shift = tl.where(shift < -16777216.0, -16777216.0, shift)
    shift = tl.where(shift > 16777216.0, 16777216.0, shift)
    whole = tl.floor(shift)
    pixel = home + whole.to(tl.int32)
    return tl.minimum(tl.maximum(pixel, -2), size), shift - whole


@triton.jit
@no_type_check
def _place(offset, offset_strides, p, image, row, column, exists, group, tap):
    """Return where a tap samples: pixel and fraction, vertically and horizontally."""
    channel = 2 * (group * p.kernel_height * p.kernel_width + tap)
    shift_y = tl.load(offset + _element(offset_strides, image, channel, row, column), exists, other=0)
    shift_x = tl.load(offset + _element(offset_strides, image, channel + 1, row, column), exists, other=0)
    home_y = row * p.stride_y - p.padding_y + tap // p.kernel_width * p.dilation_y
    home_x = column * p.stride_x - p.padding_x + tap % p.kernel_width * p.dilation_x
    y, fraction_y = _pixel_and_fraction(home_y, shift_y, p.height)
    x, fraction_x = _pixel_and_fraction(home_x, shift_x, p.width)
    return y, fraction_y, x, fraction_x


@triton.jit
@no_type_check
def _modulation(mask, mask_strides, p, image, row, column, exists, group, tap):
    element = _element(mask_strides, image, group * p.kernel_height * p.kernel_width + tap, row, column)
    return tl.load(mask + element, exists, other=0)


@triton.jit
@no_type_check
def _corner(p, image, y, fraction_y, x, fraction_x, CORNER: tl.constexpr):
    """Return a corner's pixel index, whether it is inside the image, its vertical and horizontal weight.

    The corners are numbered above left, above right, below left, below right.
    """
    weight_y, weight_x = 1 - fraction_y, 1 - fraction_x
    if CORNER // 2 == 1:
        y, weight_y = y + 1, fraction_y
    if CORNER % 2 == 1:
        x, weight_x = x + 1, fraction_x
    inside = (y >= 0) & (y < p.height) & (x >= 0) & (x < p.width)
    return (image.to(tl.int64) * p.height + y) * p.width + x, inside, weight_y, weight_x


@triton.jit
@no_type_check
def _block_of(channels, first, group, BLOCK: tl.constexpr):
    """Return a block of channels of an offset group, as indices in x, and which of them exist."""
    channel = first + tl.arange(0, BLOCK)
    return group * channels.c + channel, channel < channels.c


@triton.jit
@no_type_check
def _feature(p, channels, position, tap, channel):
    """Return element indices in columns (D, M, K * d)."""
    line = (channel // channels.d).to(tl.int64) * p.positions + position
    return (line * (p.kernel_height * p.kernel_width) + tap) * channels.d + channel % channels.d


@triton.jit
@no_type_check
def sample(
    pixels,
    offset,
    mask,
    columns,
    p,
    channels,
    offset_strides,
    mask_strides,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the columns (D, M, K * d) of pixels (n, H, W, C).

    A program computes a block of positions and of the channels of an offset group, and all taps, which share
    most of what they read. The grid is M / BLOCK, G, c / CHANNELS.
    """
    position, image, row, column, exists = _positions(p, BLOCK)
    group = tl.program_id(1)
    channel, is_channel = _block_of(channels, tl.program_id(2) * CHANNELS, group, CHANNELS)
    for tap in range(p.kernel_height * p.kernel_width):
        y, fraction_y, x, fraction_x = _place(
            offset, offset_strides, p, image, row, column, exists, group, tap
        )
        total = tl.zeros((BLOCK, CHANNELS), offset.dtype.element_ty)
        for corner in tl.static_range(4):
            pixel, inside, weight_y, weight_x = _corner(p, image, y, fraction_y, x, fraction_x, corner)
            part = tl.load(
                pixels + pixel[:, None] * channels.whole + channel[None, :],
                (inside & exists)[:, None] & is_channel[None, :],
                other=0,
            )
            total += part.to(total.dtype) * (weight_y * weight_x)[:, None]
        if mask is not None:
            total *= _modulation(mask, mask_strides, p, image, row, column, exists, group, tap)[:, None]
        feature = _feature(p, channels, position[:, None], tap, channel[None, :])
        tl.store(columns + feature, total, exists[:, None] & is_channel[None, :])


@triton.jit
@no_type_check
def scatter(
    columns,
    offset,
    mask,
    pixels,
    p,
    channels,
    offset_strides,
    mask_strides,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Add the gradients of columns to those of pixels, in an order that differs from run to run.

    pixels have the dtype of offset. Programs and grid are those of `sample`.
    """
    position, image, row, column, exists = _positions(p, BLOCK)
    group = tl.program_id(1)
    channel, is_channel = _block_of(channels, tl.program_id(2) * CHANNELS, group, CHANNELS)
    for tap in range(p.kernel_height * p.kernel_width):
        y, fraction_y, x, fraction_x = _place(
            offset, offset_strides, p, image, row, column, exists, group, tap
        )
        feature = _feature(p, channels, position[:, None], tap, channel[None, :])
        grad = tl.load(columns + feature, exists[:, None] & is_channel[None, :], other=0)
        grad = grad.to(offset.dtype.element_ty)
        if mask is not None:
            grad *= _modulation(mask, mask_strides, p, image, row, column, exists, group, tap)[:, None]
        for corner in tl.static_range(4):
            pixel, inside, weight_y, weight_x = _corner(p, image, y, fraction_y, x, fraction_x, corner)
            tl.atomic_add(
                pixels + pixel[:, None] * channels.whole + channel[None, :],
                grad * (weight_y * weight_x)[:, None],
                (inside & exists)[:, None] & is_channel[None, :],
                sem="relaxed",
            )


@triton.jit
@no_type_check
def differentiate(
    pixels,
    columns,
    offset,
    mask,
    grad_offset,
    grad_mask,
    p,
    channels,
    offset_strides,
    mask_strides,
    grad_offset_strides,
    grad_mask_strides,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradients of offset and mask, given pixels and the gradients of columns.

    A program computes a block of positions and one tap of an offset group. The grid is M / BLOCK, G * K.
    """
    position, image, row, column, exists = _positions(p, BLOCK)
    taps = p.kernel_height * p.kernel_width
    group, tap = tl.program_id(1) // taps, tl.program_id(1) % taps
    y, fraction_y, x, fraction_x = _place(offset, offset_strides, p, image, row, column, exists, group, tap)
    by_y = tl.zeros((BLOCK,), offset.dtype.element_ty)
    by_x, value = by_y, by_y
    for first in range(0, channels.c, CHANNELS):
        channel, is_channel = _block_of(channels, first, group, CHANNELS)
        feature = _feature(p, channels, position[:, None], tap, channel[None, :])
        grad = tl.load(columns + feature, exists[:, None] & is_channel[None, :], other=0).to(value.dtype)
        for corner in tl.static_range(4):
            pixel, inside, weight_y, weight_x = _corner(p, image, y, fraction_y, x, fraction_x, corner)
            part = tl.load(
                pixels + pixel[:, None] * channels.whole + channel[None, :],
                (inside & exists)[:, None] & is_channel[None, :],
                other=0,
            )
            product = tl.sum(part.to(value.dtype) * grad, axis=1)
            value += weight_y * weight_x * product
            by_y += (corner // 2 * 2 - 1) * weight_x * product
            by_x += (corner % 2 * 2 - 1) * weight_y * product
    if mask is not None:
        tap_number = group * taps + tap
        tl.store(grad_mask + _element(grad_mask_strides, image, tap_number, row, column), value, exists)
        modulation = _modulation(mask, mask_strides, p, image, row, column, exists, group, tap)
        by_y *= modulation
        by_x *= modulation
    channel = 2 * (group * taps + tap)
    tl.store(grad_offset + _element(grad_offset_strides, image, channel, row, column), by_y, exists)
    tl.store(grad_offset + _element(grad_offset_strides, image, channel + 1, row, column), by_x, exists)


@triton.jit
@no_type_check
def list_uses(
    offset, mask, rows, weights, p, channels, offset_strides, mask_strides, num_rows, BLOCK: tl.constexpr
):
    """Write for each (position, tap, offset group, corner) its row, `num_rows` for none, and its weight.

    Programs and grid are those of `differentiate`.
    """
    position, image, row, column, exists = _positions(p, BLOCK)
    taps, groups = p.kernel_height * p.kernel_width, channels.whole // channels.c
    group, tap = tl.program_id(1) // taps, tl.program_id(1) % taps
    y, fraction_y, x, fraction_x = _place(offset, offset_strides, p, image, row, column, exists, group, tap)
    bag = (position.to(tl.int64) * taps + tap) * groups + group
    modulation = tl.full((BLOCK,), 1, offset.dtype.element_ty)
    if mask is not None:
        modulation = _modulation(mask, mask_strides, p, image, row, column, exists, group, tap)
    for corner in tl.static_range(4):
        pixel, inside, weight_y, weight_x = _corner(p, image, y, fraction_y, x, fraction_x, corner)
        tl.store(rows + bag * 4 + corner, tl.where(inside, pixel * groups + group, num_rows), exists)
        tl.store(weights + bag * 4 + corner, weight_y * weight_x * modulation, exists)


@triton.jit
@no_type_check
def sum_uses(
    columns,
    order,
    starts,
    weights,
    pixels,
    p,
    channels,
    num_rows,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradients of pixels: for each row the sum over its uses, order[starts[row]:starts[row + 1]].

    A program computes a block of rows and of channels. The grid is R / BLOCK, c / CHANNELS.
    """
    taps, groups = p.kernel_height * p.kernel_width, channels.whole // channels.c
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = row < num_rows
    channel, is_channel = _block_of(channels, tl.program_id(1) * CHANNELS, 0, CHANNELS)
    in_x = (row % groups * channels.c)[:, None] + channel[None, :]
    start = tl.load(starts + row, exists, other=0)
    count = tl.load(starts + row + 1, exists, other=0) - start
    total = tl.zeros((BLOCK, CHANNELS), weights.dtype.element_ty)
    for number in range(tl.max(count, axis=0)):
        is_used = number < count
        use = tl.load(order + start + number, is_used, other=0)
        weight = tl.load(weights + use, is_used, other=0)
        bag = use // (4 * groups)
        feature = _feature(p, channels, (bag // taps)[:, None], (bag % taps)[:, None], in_x)
        grad = tl.load(columns + feature, is_used[:, None] & is_channel[None, :], other=0)
        total += grad.to(total.dtype) * weight[:, None]
    tl.store(
        pixels + row[:, None] * channels.c + channel[None, :], total, exists[:, None] & is_channel[None, :]
    )
