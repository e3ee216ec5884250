"""The sampling positions of a deformable convolution, and the checks that all backends share."""

# N images, C input and O output channels, G offset groups, K = kernel height * width taps

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from detector.ops.autocast import autocasts

IntOrPair = int | tuple[int, int]

_FAR_PX = 1 << 24  # outside any map, and exact in float32


def pair(value: IntOrPair) -> tuple[int, int]:
    """Return (vertical, horizontal) for an option with one value or one per axis."""
    if isinstance(value, Iterable):
        values = tuple(value)
        if len(values) != 2 or isinstance(value, str):
            raise ValueError(f"expected a whole number, or two: (vertical, horizontal); got {value!r}.")
        return int(values[0]), int(values[1])
    return value, value


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, padding and dilation as (vertical, horizontal), and the two kinds of channel groups."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def reach(self) -> float:
        """The distance from the kernel's center to the edge of its last tap, in pixels of the input."""
        return max(d * (k - 1) / 2 + 0.5 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the output for an input of this size, as for `nn.Conv2d`."""
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = self.kernel, self.stride, self.padding, self.dilation
        return (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1

    def require_output(self, height: int, width: int, *, source: str) -> tuple[int, int]:
        """Return `output_size`; raise ValueError, beginning with `source`, if the input is too small."""
        out_height, out_width = self.output_size(height, width)
        if out_height < 1 or out_width < 1:
            raise ValueError(
                f"{source}: an input of {(height, width)} is too small for kernel {self.kernel}, dilation "
                f"{self.dilation} and padding {self.padding}. Enlarge the images, or the padding."
            )
        return out_height, out_width


def homes(
    geometry: Geometry, out_h: int, out_w: int, *, device: torch.device
) -> tuple[Int[Tensor, "Y 1 K 1"], Int[Tensor, "X K 1"]]:
    """Return where a plain convolution samples, y (H', 1, K, 1) and x (W', K, 1), in pixels of the input."""

    def axis(size: int, d: int) -> Tensor:
        outputs = torch.arange(size, dtype=torch.int32, device=device)[:, None] * geometry.stride[d]
        taps = torch.arange(geometry.kernel[d], dtype=torch.int32, device=device) * geometry.dilation[d]
        return outputs - geometry.padding[d] + taps

    y = axis(out_h, 0).repeat_interleave(geometry.kernel[1], dim=1)
    x = axis(out_w, 1).repeat(1, geometry.kernel[0])
    return y[:, None, :, None], x[..., None]


def neighbors(shift: Tensor, home: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the two pixels around home + shift and their weights.

    Pixels outside [0, size) have weight 0 and are replaced by pixels inside. The fraction is computed from
    the shift alone, as adding the home would round its digits off.
    """
    shift = shift.clamp(-_FAR_PX, _FAR_PX)
    whole = shift.detach().floor()
    fraction = shift - whole
    low = whole.int() + home  # clamped below as integers: NaN becomes an arbitrary one
    weights = (1 - fraction) * ((low >= 0) & (low < size)), fraction * ((low >= -1) & (low < size - 1))
    return (low.clamp(0, size - 1), (low + 1).clamp(0, size - 1)), weights


def finite_shifts(shift: Tensor, home: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """Return finite shifts, for kernels that need them, and a factor of each sample.

    Shifts hold (y, x) along `dim`, which the factor lacks. Infinite shifts become finite ones far outside. If
    one is NaN, the factor is NaN instead of 1 and the sample is the first pixel, so that gradients become NaN
    as well.
    """
    unknown = shift.isnan().any(dim, keepdim=True)
    finite = shift.clamp(-_FAR_PX, _FAR_PX).nan_to_num()  # the gradient of NaN is that of the result times 0
    finite = finite + torch.where(unknown, -home - finite.detach(), 0)
    return finite, torch.where(unknown, math.nan, 1.0).to(shift.dtype).squeeze(dim)


def check_shapes(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> None:
    """Raise ValueError for the first shape that does not fit the others, before any kernel sees it."""
    _check_channels(x, weight, bias, geometry)
    _check_sampling(x, offset, mask, geometry)


def check_tensors(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None
) -> None:
    """Raise ValueError if a number of dimensions, a device or a dtype does not fit."""
    by_name = {"x": x, "offset": offset, "weight": weight, "bias": bias, "mask": mask}
    tensors = {name: tensor for name, tensor in by_name.items() if tensor is not None}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"deform_conv2d: {name} must be floating point, got {tensor.dtype}.")
        dims = 1 if name == "bias" else 4
        if tensor.dim() != dims:
            raise ValueError(
                f"deform_conv2d: {name} must have {dims} dimensions, got shape {tuple(tensor.shape)}."
            )
        if tensor.device != x.device:
            raise ValueError(
                f"deform_conv2d: {name} is on {tensor.device} but x is on {x.device}. Move it there."
            )
    if autocasts(x):
        return  # the backends cast
    for name, tensor in tensors.items():
        # float32 coordinates may go with half-precision features: they are computed in float32 anyway
        precise = name in ("offset", "mask") and tensor.dtype == torch.float32 and x.dtype.itemsize == 2
        if tensor.dtype != x.dtype and not precise:
            raise ValueError(
                f"deform_conv2d: {name} is {tensor.dtype} but x is {x.dtype}. "
                "Cast one of them, or run under autocast."
            )


def _check_channels(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> None:
    channels, groups = x.shape[1], geometry.groups
    if min(*geometry.stride, *geometry.dilation, groups) < 1 or min(geometry.padding) < 0:
        raise ValueError(
            "deform_conv2d: stride, dilation and groups must be positive and padding not negative, got "
            f"stride={geometry.stride}, dilation={geometry.dilation}, groups={groups}, "
            f"padding={geometry.padding}."
        )
    if weight.shape[1] * groups != channels:
        raise ValueError(
            f"deform_conv2d: x has {channels} channels, but weight of shape {tuple(weight.shape)} with "
            f"groups={groups} takes {weight.shape[1] * groups}."
        )
    if weight.shape[0] % groups:
        raise ValueError(
            f"deform_conv2d: {weight.shape[0]} output channels cannot be split in {groups} groups."
        )
    if bias is not None and bias.shape[0] != weight.shape[0]:
        raise ValueError(
            f"deform_conv2d: bias has {bias.shape[0]} entries for {weight.shape[0]} output channels."
        )


def _check_sampling(x: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry) -> None:
    taps, channels = geometry.taps, offset.shape[1]
    if channels == 0 or channels % (2 * taps):
        raise ValueError(
            f"deform_conv2d: offset has {channels} channels; a kernel of {geometry.kernel} needs a multiple "
            f"of {2 * taps}: dy and dx for each of {taps} taps and each offset group."
        )
    if x.shape[1] % geometry.offset_groups:
        raise ValueError(
            f"deform_conv2d: {x.shape[1]} input channels cannot be split in the {geometry.offset_groups} "
            f"offset groups of an offset with {channels} channels."
        )
    height, width = geometry.require_output(x.shape[2], x.shape[3], source="deform_conv2d")
    expected = {"offset": 2 * geometry.offset_groups * taps, "mask": geometry.offset_groups * taps}
    for name, tensor in (("offset", offset), ("mask", mask)):
        shape = (x.shape[0], expected[name], height, width)
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"deform_conv2d: {name} must have shape {shape}, got {tuple(tensor.shape)}.")
