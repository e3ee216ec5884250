"""The feature pyramid network (Lin et al. 2017). Parameter names are torchvision's."""

# C channels

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detector.layers.conv import Conv3x3
from detector.layers.deform import DeformConv2d
from detector.layers.norms import NormKind, norm_layer
from detector.layers.towers import require_deform_conv
from detector.option_types import PositiveInt
from detector.structures import FeatureSpec


class FPN(nn.Module):
    """A top-down pyramid over backbone features, finest first; every level has `out_channels`.

    `extra_levels` go above the coarsest level: "p6p7" adds two stride-2 convolutions on top of P5 (RetinaNet,
    FCOS), "maxpool" one subsampled level (Faster R-CNN), "none" nothing. `norm` follows each convolution of
    the pyramid, except in extra levels. `deform` builds the output convolutions of `deformable_levels` (3 is
    P3) and is called like `nn.Conv2d`.

    Raises:
        ValueError: if `deformable_levels` names a level without a backbone stage.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        *,
        out_channels: PositiveInt = 256,
        extra_levels: Literal["none", "maxpool", "p6p7"] = "p6p7",
        norm: NormKind | Literal["none"] = "none",
        deformable_levels: tuple[Literal[2, 3, 4, 5], ...] = (),
        deform: Callable[..., DeformConv2d] = DeformConv2d,
    ) -> None:
        super().__init__()
        deformable = _check_levels(deformable_levels, [_level(f.stride_px) for f in features])
        require_deform_conv(deform, option="neck.deform", count=len(deformable))
        bias = norm == "none"
        self.inner_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(f.channels, out_channels, 1, bias=bias), *_norms(norm, out_channels))
            for f in features
        )
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(
                deform(out_channels, out_channels, 3, padding=1, bias=bias)
                if _level(f.stride_px) in deformable
                else Conv3x3(out_channels, out_channels, bias=bias),
                *_norms(norm, out_channels),
            )
            for f in features
        )
        _initialize(self)
        self.extra_blocks = _EXTRA[extra_levels](out_channels)
        strides = [f.stride_px for f in features]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(self.extra_blocks.num_levels)]
        self.out_features = tuple(FeatureSpec(f"p{_level(s)}", out_channels, s) for s in strides)

    def forward(self, features: list[Float[Tensor, "B _C _H _W"]]) -> list[Float[Tensor, "B C _h _w"]]:
        """Return the levels of the pyramid, finest first."""
        inner = [block(x) for block, x in zip(self.inner_blocks, features, strict=True)]
        for i in range(len(inner) - 2, -1, -1):
            inner[i] = inner[i] + F.interpolate(inner[i + 1], size=inner[i].shape[-2:], mode="nearest")
        levels = [block(x) for block, x in zip(self.layer_blocks, inner, strict=True)]
        return levels + self.extra_blocks(levels[-1])


def _level(stride_px: int) -> int:
    """Return the number of the level with this stride: 3 (P3) for a stride of 8."""
    return stride_px.bit_length() - 1


def _check_levels(deformable: Sequence[int], levels: Sequence[int]) -> set[int]:
    if set(deformable) - set(levels) or len(set(deformable)) < len(deformable):
        raise ValueError(
            f"neck.deformable_levels: expected different levels of {[*levels]}, those with a backbone stage, "
            f"got {[*deformable]}"
        )
    return set(deformable)


def _norms(kind: NormKind | Literal["none"], channels: int) -> list[nn.Module]:
    return [] if kind == "none" else [norm_layer(kind)(channels)]


def _initialize(module: nn.Module) -> None:
    for name, conv in module.named_modules():
        if not isinstance(conv, nn.Conv2d | DeformConv2d) or name.endswith(".offset"):
            continue
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


class _NoExtra(nn.Module):
    num_levels = 0

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, coarsest: Tensor) -> list[Tensor]:
        return []


class _MaxPool(nn.Module):
    num_levels = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, coarsest: Tensor) -> list[Tensor]:
        return [F.max_pool2d(coarsest, kernel_size=1, stride=2)]


class _P6P7(nn.Module):
    num_levels = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        _initialize(self)

    def forward(self, coarsest: Tensor) -> list[Tensor]:
        p6 = _halved(self.p6, coarsest)
        return [p6, _halved(self.p7, F.relu(p6))]


def _halved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return `conv(x)`, with x padded beforehand.

    In bfloat16 on a CPU, oneDNN leaves the gradient of taps that only touch its own padding uninitialized,
    which happens on a map of one cell.
    """
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), conv.weight, conv.bias, stride=2)


_EXTRA: dict[str, type[_NoExtra] | type[_MaxPool] | type[_P6P7]] = {
    "none": _NoExtra,
    "maxpool": _MaxPool,
    "p6p7": _P6P7,
}
