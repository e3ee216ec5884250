"""Towers of convolutions, and the choice of their deformable ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from detector.factory import target_and_arguments
from detector.layers.conv import Conv3x3
from detector.layers.deform import DeformConv2d
from detector.layers.deformable import warn_of_unused
from detector.layers.norms import NormKind, norm_layer
from detector.option_types import NonNegativeInt

DeformableConvs = NonNegativeInt | Literal["last", "all"]
TowerNorm = NormKind | Literal["none"]


def conv_blocks(
    in_channels: int,
    widths: Sequence[int],
    *,
    norm: TowerNorm,
    deformable_convs: DeformableConvs,
    deform: Callable[..., DeformConv2d],
    option: str,
) -> list[nn.Sequential]:
    """Return a block for each width: a 3x3 convolution, its norm if any, and a ReLU.

    `deform`, which `option` sets, builds the last `deformable_convs` of the convolutions.
    """
    count = deformable_count(deformable_convs, num_convs=len(widths))
    require_deform_conv(deform, option=option, count=count)
    blocks = []
    for number, (channels, width) in enumerate(zip([in_channels, *widths], widths, strict=False)):
        is_deformable, bias = number >= len(widths) - count, norm == "none"
        conv = (
            deform(channels, width, 3, padding=1, bias=bias)
            if is_deformable
            else Conv3x3(channels, width, bias=bias)
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norms = [] if norm == "none" else [norm_layer(norm)(width)]
        blocks.append(nn.Sequential(conv, *norms, nn.ReLU(inplace=True)))
    return blocks


def deformable_count(chosen: DeformableConvs, *, num_convs: int) -> int:
    """Return how many of `num_convs` convolutions are deformable, counted from the last.

    Raises:
        ValueError: if more are chosen than there are.
    """
    count = {"last": 1, "all": num_convs}[chosen] if isinstance(chosen, str) else chosen
    if not 0 <= count <= num_convs or (chosen == "all" and num_convs == 0):
        raise ValueError(f"deformable_convs: expected at most num_convs={num_convs}, got {chosen}")
    return count


def require_deform_conv(deform: Callable[..., nn.Module], *, option: str, count: int) -> None:
    """Check the constructor that `option` sets for the `count` deformable convolutions of a part.

    Warn of its arguments if `count` is 0.

    Raises:
        ValueError: if it builds a layer other than `DeformConv2d`, or sets an argument that the part decides.
    """
    target, arguments = target_and_arguments(deform)
    if inspect.isclass(target) and not issubclass(target, DeformConv2d):
        raise ValueError(
            f"{option}: expected detector.layers.DeformConv2d, got {target.__name__}, which is not "
            "initialized as these convolutions are. Depth-wise layers go into a backbone: "
            "model/backbone/deform=v3."
        )
    decided = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "bias")
    require_unset(deform, decided, option=option, why="these convolutions keep the size of their maps")
    if count == 0:
        known = inspect.signature(DeformConv2d).parameters
        chosen = {k: v for k, v in arguments.items() if k in known and v != known[k].default}
        warn_of_unused(chosen, option=option, why="none of its convolutions is deformable")


def require_unset(make: Callable[..., nn.Module], names: Sequence[str], *, option: str, why: str) -> None:
    """Raise ValueError if `option`, the constructor of a part, sets arguments that its caller sets."""
    _, arguments = target_and_arguments(make)
    if conflicts := [name for name in names if name in arguments]:
        raise ValueError(
            f"{option}: {why}, so that {', '.join(conflicts)} cannot be chosen here. Leave it out."
        )
