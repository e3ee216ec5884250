"""Winograd's transforms of F(4x4, 3x3) along one axis: six positions of a patch, four outputs, three taps.

They evaluate polynomials at 0, infinity, 1, -1, 2 and -2. At a point and its negative the even and the odd
powers only differ in sign, so that points come in pairs: 0 stands for 0 and infinity, 1 and 2 for themselves
and their negatives. Functions named `..._at` overwrite their output, those named `add_...` add to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PATCH, STEP, PAIRS = 6, 4, (0, 1, 2)
_PLACES = {0: (0, 5), 1: (1, 2), 2: (3, 4)}  # indices of a pair's two points among the six
_WEIGHT_SCALES = {1: -1 / 6, 2: 1 / 24}


def at(pair: int, places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the values at the two points of the pair."""
    first, second = _PLACES[pair]
    return places[first], places[second]


def weight_at(pair: int, taps: Sequence[Tensor], *, out: Sequence[Tensor]) -> None:
    if not pair:
        torch.mul(taps[0], 1 / 4, out=out[0])
        out[1].copy_(taps[2])
        return
    scale = _WEIGHT_SCALES[pair]
    even = torch.add(taps[0], taps[2], alpha=pair**2).mul_(scale)
    torch.add(even, taps[1], alpha=scale * pair, out=out[0])
    torch.sub(even, taps[1], alpha=scale * pair, out=out[1])


def add_weight(pair: int, first: Tensor, second: Tensor, *, into: Sequence[Tensor]) -> None:
    """Apply the adjoint of `weight_at`."""
    if not pair:
        into[0].add_(first, alpha=1 / 4)
        into[2].add_(second)
        return
    even, odd, scale = first + second, first - second, _WEIGHT_SCALES[pair]
    into[0].add_(even, alpha=scale)
    into[1].add_(odd, alpha=scale * pair)
    into[2].add_(even, alpha=scale * pair**2)


def inputs_at(pair: int, inner: Sequence[Tensor], *, out: Sequence[Tensor]) -> None:
    """Transform the four inner lines of a patch; point 0 lacks 4 times the first line, infinity the last."""
    if not pair:
        torch.sub(inner[3], inner[1], alpha=5, out=out[0])
        torch.mul(inner[0], 4, out=out[1]).sub_(inner[2], alpha=5)
        return
    even = torch.sub(inner[3], inner[1], alpha=4 // pair**2)
    odd = torch.sub(inner[2], inner[0], alpha=4 // pair**2)
    torch.add(even, odd, alpha=pair, out=out[0])
    torch.sub(even, odd, alpha=pair, out=out[1])


def sum_inputs(places: Sequence[Tensor], *, out: Sequence[Tensor]) -> None:
    """Compute the sum of `add_inputs` over all pairs, with the terms that `inputs_at` lacks."""
    even1, odd1 = places[1] + places[2], places[1] - places[2]
    even2, odd2 = places[3] + places[4], places[3] - places[4]
    torch.mul(places[0], 4, out=out[0])
    torch.sub(places[5], odd1, out=out[1]).mul_(2).sub_(odd2).mul_(2)
    torch.add(even2, even1, alpha=4, out=out[2]).add_(places[0], alpha=5).neg_()
    torch.sub(odd1, places[5], alpha=5, out=out[3]).add_(odd2, alpha=2)
    torch.add(even1, even2, out=out[4]).add_(places[0])
    out[5].copy_(places[5])


def add_inputs(pair: int, first: Tensor, second: Tensor, *, into: Sequence[Tensor]) -> None:
    """Apply the adjoint of `inputs_at`."""
    if not pair:
        into[0].add_(second, alpha=4)
        into[1].sub_(first, alpha=5)
        into[2].sub_(second, alpha=5)
        into[3].add_(first)
        return
    even, odd = first + second, first - second
    into[0].sub_(odd, alpha=4 // pair)
    into[1].sub_(even, alpha=4 // pair**2)
    into[2].add_(odd, alpha=pair)
    into[3].add_(even)


def sum_outputs(places: Sequence[Tensor], *, out: Sequence[Tensor]) -> None:
    """Compute the sum of `add_outputs` over all pairs."""
    even1, odd1 = places[1] + places[2], places[1] - places[2]
    even2, odd2 = places[3] + places[4], places[3] - places[4]
    torch.add(even1, even2, out=out[0]).add_(places[0])
    torch.add(odd1, odd2, alpha=2, out=out[1])
    torch.add(even1, even2, alpha=4, out=out[2])
    torch.add(odd1, odd2, alpha=8, out=out[3]).add_(places[5])


def add_outputs(pair: int, first: Tensor, second: Tensor, *, into: Sequence[Tensor]) -> None:
    if not pair:
        into[0].add_(first)
        into[3].add_(second)
        return
    even, odd = first + second, first - second
    for power, line in enumerate(into):
        line.add_(odd if power % 2 else even, alpha=pair**power)


def grads_at(pair: int, lines: Sequence[Tensor], *, out: Sequence[Tensor]) -> None:
    """Apply the adjoint of `add_outputs`."""
    if not pair:
        out[0].copy_(lines[0])
        out[1].copy_(lines[3])
        return
    even = torch.add(lines[0], lines[2], alpha=pair**2)
    odd = torch.add(lines[1], lines[3], alpha=pair**2)
    torch.add(even, odd, alpha=pair, out=out[0])
    torch.sub(even, odd, alpha=pair, out=out[1])
