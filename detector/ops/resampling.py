"""Interpolation as products of matrices, whose shapes depend on no value: for recorded graphs."""

# N maps, P places along an axis, S cells of a map's side

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_CUBIC = -0.75  # the coefficient of torch's bicubic interpolation


def cubic_weights(position: Float[Tensor, "*P"], *, size: int) -> Float[Tensor, "*P _cells"]:
    """Return the weights of `size` cells in the cubic interpolation at each position.

    Positions count cells from the center of the first. There are two more cells at both ends, copies of the
    last ones. The result times a padded map equals `F.interpolate` along one axis.
    """
    # Far cells weigh 0, like those at 2; their large polynomials would leave int8 no steps for the others
    distance = _distances(position, -2, size + 2).clamp(max=2)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
    return torch.where(distance <= 1, near, far)


def linear_weights(position: Float[Tensor, "*P"], *, size: int) -> Float[Tensor, "*P _cells"]:
    """Return the weights of `size` cells in the linear interpolation at each position.

    Positions count cells from the center of the first; those before it or after the last are moved there.
    """
    return (1 - _distances(position.clamp(0, size - 1), 0, size)).clamp(min=0)


def _distances(position: Float[Tensor, "*P"], first: int, end: int) -> Float[Tensor, "*P _cells"]:
    cells = torch.arange(first, end, dtype=position.dtype, device=position.device)
    return (position[..., None] - cells).abs()
