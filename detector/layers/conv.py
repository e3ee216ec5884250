"""The 3x3 convolution of pyramids and towers, by the faster of two ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detector.ops.cpu.winograd import winograd_conv3x3
from detector.ops.recording import is_recorded
from detector.option_types import PositiveInt

# Channels, and positions times channels in and out: below these the direct kernel is as fast or faster,
# measured on 2 cores of an AMD EPYC and an Intel Xeon.
_FEWEST_CHANNELS = 128
_LEAST_WITH_BACKWARD, _LEAST_WITHOUT = 200e6, 300e6


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d(in_channels, out_channels, 3, padding=1)`, faster for wide layers on large maps on a CPU.

    Same parameters, names and initialisation. Winograd's algorithm serves float32 on a CPU; everything else
    (other devices and types, autocast, export) is torch's convolution. Its results are channels
    last and differ from torch's by rounding, 3e-6: a trace, which records torch's, needs
    `check_tolerance=1e-4`.
    """

    def __init__(self, in_channels: PositiveInt, out_channels: PositiveInt, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        return self.each([x])[0]

    def each(self, maps: Sequence[Float[Tensor, "B C _H _W"]]) -> list[Float[Tensor, "B D _H _W"]]:
        """The convolution of each map: at once where that is faster than one by one."""
        if self._winograd_pays(maps):
            return winograd_conv3x3(maps, self.weight, self.bias)
        return [nn.Conv2d.forward(self, x) for x in maps]

    def _winograd_pays(self, maps: Sequence[Tensor]) -> bool:
        """Its gain is largest in the backward pass."""
        if is_recorded() or torch.compiler.is_compiling():
            return False
        if any(x.dim() != 4 or x.shape[1] != self.in_channels for x in maps):
            return False  # torch says what is wrong
        work = self.in_channels * self.out_channels * sum(x.shape[0] * x.shape[2] * x.shape[3] for x in maps)
        return (
            min(self.in_channels, self.out_channels) >= _FEWEST_CHANNELS
            and work >= (_LEAST_WITH_BACKWARD if torch.is_grad_enabled() else _LEAST_WITHOUT)
            and all(x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32 for x in maps)
            and not torch.is_autocast_enabled("cpu")
        )
