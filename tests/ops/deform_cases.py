"""Problems for deformable convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A problem; `kernel`, `stride`, ... are (vertical, horizontal)."""

    batch: int = 2
    size: tuple[int, int] = (7, 6)
    channels: tuple[int, int] = (4, 6)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    offset_groups: int = 1
    modulated: bool = True
    spread_px: float = 2.0
    channels_last: bool = False

    def geometry(self) -> dict:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arguments(self, dtype: torch.dtype = torch.float64) -> list[Any]:  # of Tensor | None
        """x, offset, weight, bias, mask; offsets keep 0.1 px from integers, where the gradient has a kink."""
        random = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random, dtype=torch.float64)

        taps = math.prod(self.kernel)
        out = [
            (self.size[d] + 2 * self.padding[d] - self.dilation[d] * (self.kernel[d] - 1) - 1)
            // self.stride[d]
            + 1
            for d in (0, 1)
        ]
        x = draw(self.batch, self.channels[0], *self.size)
        offset = draw(self.batch, 2 * taps * self.offset_groups, *out) * self.spread_px
        offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
        weight = draw(self.channels[1], self.channels[0] // self.groups, *self.kernel)
        mask = draw(self.batch, taps * self.offset_groups, *out).sigmoid() if self.modulated else None
        tensors = [x, offset, weight, draw(self.channels[1]), mask]
        if self.channels_last:
            tensors = [
                t if t is None or t.dim() < 4 else t.to(memory_format=torch.channels_last) for t in tensors
            ]
        return [None if t is None else t.to(dtype).requires_grad_() for t in tensors]


CASES = {
    "v2": Case(),
    "v1": Case(modulated=False),
    "empty batch": Case(batch=0),
    "batch of 33": Case(batch=33, size=(3, 4), channels=(2, 2)),
    "channels last": Case(channels_last=True, batch=3),
    "rectangular kernel": Case(kernel=(2, 5), padding=(0, 2)),
    "1x1": Case(kernel=(1, 1), padding=(0, 0)),
    "stride": Case(stride=(2, 3)),
    "dilation": Case(dilation=(2, 1), padding=(2, 0)),
    "offset groups": Case(offset_groups=4, modulated=False),
    "groups": Case(groups=2),
    "groups within offset groups": Case(groups=4, offset_groups=2, channels=(8, 4)),
    "offset groups within groups": Case(groups=2, offset_groups=4, channels=(8, 4), channels_last=True),
    "far outside": Case(spread_px=30),
    "one pixel": Case(size=(1, 1)),
    "everything": Case(
        size=(9, 8), kernel=(3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, offset_groups=2
    ),
}
