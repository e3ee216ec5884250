"""A ResNet (He et al. 2015) with injected 3x3 convolutions, so that any stage can be deformable.

Parameter names are torchvision's; a deformable convolution only adds `conv2.offset.*`, while a depth-wise one
replaces `conv2.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from detector.layers.deform import DeformableStages, DeformConv2d
from detector.layers.deformable import Deformable, warn_of_unused
from detector.layers.norms import NormKind, norm_layer
from detector.option_types import PositiveInt
from detector.structures import FeatureSpec

Conv3x3 = Callable[..., nn.Module]
Norm = Callable[[int], nn.Module]
Stage = Literal[2, 3, 4, 5]


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv1x1(in_channels, out_channels, stride), norm(out_channels))


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions, the second injected (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int, norm: Norm, conv3x3: Conv3x3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, 3, padding=1, bias=False)
        self.bn2 = norm(width)
        self.downsample = _shortcut(in_channels, width, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """A residual block of 1x1, injected 3x3 and 1x1 convolutions (ResNet-50 and deeper).

    The 3x3 carries the stride, or the 1x1 before it as in the original ResNet. ResNeXt sets `groups` and
    `width_per_group`, the channels of a group in C2, which double with each stage.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int,
        norm: Norm,
        conv3x3: Conv3x3,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        width = planes * width_per_group // 64 * groups
        stride1x1, stride3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv1x1(in_channels, width, stride1x1)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, 3, stride=stride3x3, padding=1, groups=groups, bias=False)
        self.bn2 = norm(width)
        self.conv3 = _conv1x1(width, out_channels)
        self.bn3 = norm(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


# depth -> block, blocks in the stages C2..C5
_DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """A ResNet without its classifier, returning the feature maps of `out_stages` (C2..C5, strides 4 to 32).

    Stages above the last of `out_stages` are not built.

    `deform` chooses the stages and blocks with deformable convolution. `frozen_stages` freezes everything up
    to that stage: 0 nothing, 1 the stem, 2 the stem and C2, ... 5 all of it; frozen batch norms also keep
    their statistics. `weights` is a torchvision weight name ("IMAGENET1K_V1", downloaded and hash-checked) or
    a local file. `groups` and `width_per_group` make it a ResNeXt (32 and 4 for 32x4d); `stride_in_1x1` puts
    the strides where the original ResNet had them (Detectron2's and Caffe's weights).
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101],
        *,
        deform: DeformableStages | None = None,
        norm: NormKind = "frozen_batch",
        frozen_stages: Literal[0, 1, 2, 3, 4, 5] = 0,
        out_stages: tuple[Stage, ...] = (3, 4, 5),
        groups: PositiveInt = 1,
        width_per_group: PositiveInt = 64,
        stride_in_1x1: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        _check_stages(depth, out_stages, deform)
        block, counts = _DEPTHS[depth]
        _check_fallback(depth, stride_in_1x1, deform)
        options = _block_options(
            depth, groups=groups, width_per_group=width_per_group, stride_in_1x1=stride_in_1x1
        )
        if deform is not None and not deform.stages:
            regular = "deform.stages=[] is the regular backbone"
            warn_of_unused(deform.chosen_options, option="backbone.deform", why=regular)
        make_norm = norm_layer(norm)
        self.out_stages = tuple(out_stages)
        self.frozen_stages = frozen_stages
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for stage, count in zip(range(2, max(out_stages) + 1), counts, strict=False):
            width = 64 * 2 ** (stage - 2)
            blocks = []
            for i in range(count):
                conv3x3 = nn.Conv2d if deform is None else deform.conv3x3(stage, i, count)
                stride = 2 if i == 0 and stage > 2 else 1
                blocks.append(
                    block(channels, width, stride=stride, norm=make_norm, conv3x3=conv3x3, **options)
                )
                channels = width * block.expansion
            setattr(self, f"layer{stage - 1}", nn.Sequential(*blocks))
        self.out_features = tuple(
            FeatureSpec(f"c{s}", 64 * 2 ** (s - 2) * block.expansion, 2**s) for s in self.out_stages
        )
        self._initialize()
        if weights is not None:
            from detector.weights.backbones import load_backbone_weights  # loads name maps and torchvision

            name = f"resnet{depth}" if groups == 1 else f"resnext{depth}_{groups}x{width_per_group}d"
            load_backbone_weights(self, weights, architecture=name)
        self._freeze()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _C _H _W"]]:
        """Return the feature maps of `out_stages`, finest first. Images are normalized RGB."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = []
        for stage in range(2, max(self.out_stages) + 1):
            x = getattr(self, f"layer{stage - 1}")(x)
            if stage in self.out_stages:
                features.append(x)
        return features

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()  # frozen weights with moving batch statistics would still change the output
        return self

    def _initialize(self) -> None:
        """Draw Kaiming normal weights over fan-out, as torchvision does, except inside deformable layers."""
        parts = {m for x in self.modules() if isinstance(x, Deformable) for m in x.modules() if m is not x}
        for module in self.modules():
            if isinstance(module, nn.Conv2d | DeformConv2d) and module not in parts:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _frozen_parts(self) -> Sequence[nn.Module]:
        frozen = range(2, min(self.frozen_stages, max(self.out_stages)) + 1)
        stages: list[nn.Module] = [getattr(self, f"layer{s - 1}") for s in frozen]
        return [self.conv1, self.bn1, *stages] if self.frozen_stages else []

    def _freeze(self) -> None:
        for part in self._frozen_parts():
            for parameter in part.parameters():
                parameter.requires_grad_(False)


def _check_stages(depth: int, out_stages: tuple[Stage, ...], deform: DeformableStages | None) -> None:
    if depth not in _DEPTHS:
        raise ValueError(f"depth: expected one of {sorted(_DEPTHS)}, got {depth}")
    if not out_stages or list(out_stages) != sorted(set(out_stages) & {2, 3, 4, 5}):
        raise ValueError(f"out_stages: expected ascending stages out of 2..5, got {list(out_stages)}")
    if deform is not None and any(stage > max(out_stages) for stage in deform.stages):
        raise ValueError(
            f"deform.stages: {list(deform.stages)} goes beyond the last of out_stages "
            f"{list(out_stages)}; stages above it are not built. Leave them out, or add them to "
            "model.backbone.out_stages."
        )


def _check_fallback(depth: int, stride_in_1x1: bool, deform: DeformableStages | None) -> None:
    """Raise ValueError if `fallback_on_stride` is set but no convolution to be deformable is strided."""
    if deform is None or not deform.fallback_on_stride or not deform.stages:
        return
    block, counts = _DEPTHS[depth]
    if block is BasicBlock or stride_in_1x1:
        place = (
            "first convolution of a block" if block is BasicBlock else "1x1 convolution (stride_in_1x1=true)"
        )
        why = (
            f"in this ResNet-{depth} the {place} has the stride, and the convolution that may be deformable "
            "has none"
        )
    elif not any(
        stage > 2 and 0 in deform.chosen_blocks(stage, counts[stage - 2]) for stage in deform.stages
    ):
        why = "only the first block of C3, C4 and C5 has a stride, and none of these is to be deformable"
    else:
        return
    raise ValueError(f"deform.fallback_on_stride=true: {why}. Leave it out: all of them stay deformable.")


def _block_options(depth: int, *, groups: int, width_per_group: int, stride_in_1x1: bool) -> dict[str, Any]:
    """Return the options of a bottleneck; raise ValueError if set for a depth without bottlenecks."""
    if _DEPTHS[depth][0] is Bottleneck:
        return {"groups": groups, "width_per_group": width_per_group, "stride_in_1x1": stride_in_1x1}
    if (groups, width_per_group, stride_in_1x1) != (1, 64, False):
        raise ValueError(
            f"groups={groups}, width_per_group={width_per_group}, stride_in_1x1={stride_in_1x1}: "
            f"ResNet-{depth} has no bottlenecks for them. Choose depth 50 or 101."
        )
    return {}
