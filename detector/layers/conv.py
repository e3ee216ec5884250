"""The 3x3 convolution of pyramids and towers, and the application of a tower to all levels of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from detector.ops.cpu import conv3x3
from detector.option_types import PositiveInt


class Conv3x3(nn.Conv2d):
    """An `nn.Conv2d(in_channels, out_channels, 3, padding=1)`, faster for wide layers on large CPU maps.

    Parameters, names and initialization are the same. Float32 on a CPU uses Winograd's algorithm, anything
    else (other devices and types, autocast, export) torch's convolution. Winograd results are channels-last
    and differ from torch's by rounding, 3e-6: a trace, which records torch's, needs `check_tolerance=1e-4`.
    """

    def __init__(self, in_channels: PositiveInt, out_channels: PositiveInt, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        return conv3x3([x], self.weight, self.bias)[0]


def apply_to_levels(
    module: nn.Module, levels: Sequence[Float[Tensor, "B _C _H _W"]]
) -> list[Float[Tensor, "B _D _H _W"]]:
    """Return `[module(x) for x in levels]`, for a module that all levels of a pyramid share.

    A sequence runs layer by layer, as convolving all levels at once is faster than one by one.
    """
    if isinstance(module, nn.Sequential):
        for layer in module:
            levels = apply_to_levels(layer, levels)
        return [*levels]
    if isinstance(module, Conv3x3):
        return conv3x3(levels, module.weight, module.bias)
    return [module(x) for x in levels]
