"""FPN against torchvision's, and its levels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, cast

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from detector.backbones.resnet import Stage
from detector.layers.deform import DeformConv2d
from detector.necks.fpn import FPN
from detector.structures import FeatureSpec

SPECS = [FeatureSpec("c3", 8, 8), FeatureSpec("c4", 16, 16), FeatureSpec("c5", 32, 32)]


@pytest.mark.parametrize(
    ("extra", "theirs"), [("p6p7", LastLevelP6P7(24, 24)), ("maxpool", LastLevelMaxPool()), ("none", None)]
)
def test_levels_equal_torchvisions_with_equal_weights(
    extra: Literal["none", "maxpool", "p6p7"], theirs: torch.nn.Module | None
) -> None:
    ours = FPN(SPECS, out_channels=24, extra_levels=extra)
    reference = FeaturePyramidNetwork([8, 16, 32], 24, extra_blocks=theirs)
    reference.load_state_dict(ours.state_dict())
    features = [torch.randn(2, s.channels, 50 // (s.stride_px // 8), 37 // (s.stride_px // 8)) for s in SPECS]
    expected = reference(OrderedDict((s.name, f) for s, f in zip(SPECS, features, strict=True)))
    for a, b in zip(ours(features), expected.values(), strict=True):
        torch.testing.assert_close(a, b)


def test_levels_are_named_by_their_stride() -> None:
    neck = FPN(SPECS, out_channels=24)
    assert [(f.name, f.stride_px) for f in neck.out_features] == [
        ("p3", 8), ("p4", 16), ("p5", 32), ("p6", 64), ("p7", 128),
    ]  # fmt: skip


def test_deformable_levels_have_deformable_output_convolutions_that_start_as_plain_ones() -> None:
    torch.manual_seed(0)
    plain = FPN(SPECS, out_channels=24)
    torch.manual_seed(0)
    deform = partial(DeformConv2d, modulation="none")
    deformable = FPN(SPECS, out_channels=24, deformable_levels=(3, 5), deform=deform)
    kinds = [
        type(block[0]).__name__ for block in cast(Iterable[torch.nn.Sequential], deformable.layer_blocks)
    ]
    assert kinds == ["DeformConv2d", "Conv3x3", "DeformConv2d"]
    features = [torch.randn(1, s.channels, 64 // s.stride_px, 64 // s.stride_px) for s in SPECS]
    for a, b in zip(deformable(features), plain(features), strict=True):
        torch.testing.assert_close(a, b)


def test_what_the_neck_decides_is_no_option_of_its_deformable_convolutions() -> None:
    with pytest.raises(ValueError, match=r"neck\.deform: .* so that padding, dilation cannot be chosen here"):
        FPN(SPECS, deformable_levels=(3,), deform=partial(DeformConv2d, dilation=2, padding=2))


@pytest.mark.parametrize("levels", [(2,), (3, 3)])
def test_deformable_levels_are_levels_with_a_backbone_stage(levels: tuple[Stage, ...]) -> None:
    with pytest.raises(ValueError, match=r"neck.deformable_levels: expected different levels of \[3, 4, 5\]"):
        FPN(SPECS, deformable_levels=levels)


def test_bfloat16_gradients_of_maps_of_one_cell_are_those_of_float32() -> None:
    """oneDNN would leave some unwritten: memory is filled with NaN before, to see it."""
    torch.manual_seed(0)
    neck = FPN([FeatureSpec("c5", 32, 32)], out_channels=32).to(memory_format=torch.channels_last)
    x = torch.randn(4, 32, 2, 2).contiguous(memory_format=torch.channels_last)
    gradients = []
    for enabled in (False, *[True] * 10):
        junk = [torch.full((n,), torch.nan) for n in (64, 256, 1000, 10_000) * 20]
        del junk
        neck.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            total = torch.stack([level.float().square().sum() for level in neck([x])]).sum()
        total.backward()
        gradients.append(cast(Any, neck.extra_blocks).p7.weight.grad.clone())
    for actual in gradients[1:]:
        torch.testing.assert_close(
            actual, gradients[0], rtol=0.1, atol=0.05 * float(gradients[0].abs().max())
        )
