"""The 3x3 convolution that chooses its algorithm."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detector.layers.conv import Conv3x3, apply_to_levels
from detector.ops.cpu import conv3x3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Sizes of the maps that Winograd's convolution gets."""
    seen: list[torch.Size] = []

    def spy(maps: list[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor | None) -> list[torch.Tensor]:
        seen.extend(x.shape for x in maps)
        return [F.conv2d(x, weight, bias, padding=1) for x in maps]

    monkeypatch.setattr("detector.ops.cpu.winograd.winograd_conv3x3", spy)
    return seen


def test_names_and_initial_values_are_those_of_a_convolution() -> None:
    torch.manual_seed(0)
    ours = Conv3x3(3, 4)
    torch.manual_seed(0)
    theirs = nn.Conv2d(3, 4, 3, padding=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_wide_layers_train_by_winograd_and_give_the_same(calls: list[torch.Size]) -> None:
    layer, x = Conv3x3(256, 256), torch.randn(1, 256, 64, 48)
    layer(x[..., :47])
    assert not calls
    layer(x)
    assert calls == [x.shape]


def test_small_maps_go_along_with_a_large_one(calls: list[torch.Size]) -> None:
    layer = Conv3x3(256, 256)
    maps = [torch.randn(1, 256, size, size) for size in (56, 4)]
    for actual, x in zip(apply_to_levels(layer, maps), maps, strict=True):
        torch.testing.assert_close(actual, nn.Conv2d.forward(layer, x))
    assert calls == [x.shape for x in maps]


def test_a_tower_takes_all_levels_layer_by_layer(calls: list[torch.Size]) -> None:
    """However its layers are nested, with the parameters of each level's own pass."""
    layers = [nn.Sequential(Conv3x3(256, 256), nn.ReLU(inplace=True)), nn.GroupNorm(32, 256)]
    tower, maps = nn.Sequential(*layers), [torch.randn(1, 256, size, size) for size in (56, 4)]
    actual = apply_to_levels(tower, maps)
    assert calls == [x.shape for x in maps]
    torch.testing.assert_close(actual, [tower(x) for x in maps])


def test_wide_layers_infer_by_winograd_on_larger_maps(calls: list[torch.Size]) -> None:
    layer, narrow, x = Conv3x3(256, 256), Conv3x3(127, 256), torch.randn(1, 256, 64, 72)
    with torch.no_grad():
        layer(x[..., :71])
        narrow(x[:, :127].repeat(3, 1, 1, 1))
        assert not calls
        layer(x)
    assert calls == [x.shape]


def test_wrong_channels_are_told_by_torch(calls: list[torch.Size]) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="to have 256 channels, but got 255 channels"):
        Conv3x3(256, 256)(torch.randn(1, 255, 64, 64))
    assert not calls


def test_a_single_image_without_batch_is_left_to_torch(calls: list[torch.Size]) -> None:
    layer, x = Conv3x3(256, 256), torch.randn(256, 64, 64)
    assert conv3x3([x], layer.weight, layer.bias)[0].shape == x.shape
    assert not calls


@pytest.mark.parametrize("case", ["narrow", "small", "no gradient", "double", "autocast", "traced"])
def test_the_rest_is_torchs_convolution(case: str, calls: list[torch.Size]) -> None:
    layer, x = Conv3x3(256, 256), torch.randn(1, 256, 64, 64)
    if case == "narrow":
        layer, x = Conv3x3(127, 256), x[:, :127].repeat(2, 1, 1, 1)
    elif case == "small":
        x = x[..., :8, :8]
    elif case == "double":
        layer, x = layer.double(), x.double()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"),
        torch.set_grad_enabled(case != "no gradient"),
    ):
        (partial(torch.jit.trace, layer) if case == "traced" else layer)(x)
    assert not calls
