"""Statistics that summarize the offsets and the modulation of a deformable convolution."""

# N images, G offset groups, K = kernel height * width taps

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detector.ops.deform_conv.geometry import Geometry

Shift = Float[Tensor, "N G kh kw 2 H W"]


@torch.no_grad()
def sampling_statistics(
    offset: Float[Tensor, "N _DGK H W"],
    mask: Float[Tensor, "N _GK H W"] | None,
    *,
    geometry: Geometry,
    input_size: tuple[int, int],
) -> dict[str, Float[Tensor, ""]]:
    """Return means over images, groups, taps and positions, by log name.

    Offset and mask are laid out as in `deform_conv2d`.

    - `mean_px`: length of the offsets, in pixels of the layer's input, whose (height, width) is `input_size`.
    - `effective_dilation`: distance between the sampling positions of neighboring taps (Dai et al. 2017,
      table 2), in the same pixels; for a plain convolution its dilation. NaN for a kernel of one tap.
    - `outside`: of the samples that a plain convolution takes inside the input, the share, 0 to 1, that the
      offsets move to where they are 0: a pixel or more beyond its border.
    - with a mask, `modulation_mean` and `modulation_entropy`: the entropy of the taps' shares of |mask| at a
      position, divided by that of equal shares. 1 if all taps weigh the same, 0 if one tap has all the weight
      or no tap has any. NaN for one tap.
    """
    shift = offset.float().unflatten(1, (-1, *geometry.kernel, 2))
    statistics = {
        "mean_px": _length(shift).mean(),
        "effective_dilation": _effective_dilation(shift, geometry.dilation),
        "outside": _outside(shift, geometry, input_size),
    }
    if mask is not None:
        statistics |= modulation_statistics(mask.unflatten(1, (-1, geometry.taps)), dim=2)
    return statistics


@torch.no_grad()
def modulation_statistics(mask: Float[Tensor, "*_"], *, dim: int) -> dict[str, Float[Tensor, ""]]:
    """Return the modulation statistics of `sampling_statistics`; the taps are along `dim`."""
    weights = mask.float()
    amounts = weights.abs()  # an unbounded modulation may be negative
    shares = amounts / amounts.sum(dim, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    equal = weights.new_tensor(math.log(weights.shape[dim]))
    entropy = torch.special.entr(shares).sum(dim).mean() / equal
    return {"modulation_mean": weights.mean(), "modulation_entropy": entropy}


def _length(shift: Float[Tensor, "N G kh kw 2 H W"]) -> Float[Tensor, "N G kh kw H W"]:
    return torch.linalg.vector_norm(shift, dim=4)


def _effective_dilation(shift: Shift, dilation: tuple[int, int]) -> Float[Tensor, ""]:
    down = shift.new_tensor([dilation[0], 0]).view(2, 1, 1)
    right = shift.new_tensor([0, dilation[1]]).view(2, 1, 1)
    vertical = _length(shift.diff(dim=2) + down)
    horizontal = _length(shift.diff(dim=3) + right)
    return torch.cat([vertical.flatten(), horizontal.flatten()]).mean()


def _outside(shift: Shift, geometry: Geometry, input_size: tuple[int, int]) -> Float[Tensor, ""]:
    def home(axis: int, positions: int) -> Float[Tensor, "taps positions"]:
        outputs = torch.arange(positions, device=shift.device) * geometry.stride[axis]
        taps = torch.arange(geometry.kernel[axis], device=shift.device)[:, None] * geometry.dilation[axis]
        return (taps + outputs - geometry.padding[axis]).to(shift)

    def inside(y: Float[Tensor, "*_"], x: Float[Tensor, "*_"]) -> Bool[Tensor, "*_"]:
        return (y > -1) & (y < input_size[0]) & (x > -1) & (x < input_size[1])

    y = home(0, shift.shape[-2])[:, None, :, None]
    x = home(1, shift.shape[-1])[:, None, :]
    dy, dx = shift.unbind(4)
    at_home = inside(y, x)
    leaving = at_home & ~inside(y + dy, x + dx)
    return leaving.sum() / (at_home.sum() * len(shift) * shift.shape[1]).clamp(min=1)
