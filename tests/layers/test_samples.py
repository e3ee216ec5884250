"""Where layers sample, against what they compute of a ramp, and coordinates by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detector.layers import (
    DeformConv2d,
    DepthwiseDeformConv2d,
    recorded_points,
    sampling_points,
    swap_convolutions,
)

GROUPS, TAPS, SIDE = 2, 6, 24
GEOMETRY: dict[str, Any] = {
    "kernel_size": (3, 2),
    "stride": (2, 1),
    "padding": (1, 0),
    "dilation": (1, 2),
    "offset_groups": GROUPS,
}


def ramp() -> Tensor:
    """A map with x in even channels and y in odd ones, which interpolation leaves as they are."""
    places = torch.arange(SIDE, dtype=torch.float64)
    x, y = places.expand(SIDE, SIDE), places[:, None].expand(SIDE, SIDE)
    return torch.stack([x, y] * GROUPS)[None]


def with_random_offsets(layer: Any, last: Any) -> None:
    """Offsets of up to some pixels, which differ from place to place."""
    with torch.no_grad():
        for parameter in layer.offset.parameters():
            parameter.normal_(0, 0.02)
        last.bias[: 2 * GROUPS * TAPS].uniform_(-2, 2)


def inner(points: Any) -> Tensor:
    """Places whose samples are all inside, where a ramp is exact."""
    xy = points.xy
    return ((xy >= 0) & (xy <= SIDE - 1)).all(dim=-1).all(dim=(0, 1, 2))


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
def test_points_of_a_convolution_are_what_it_reads_of_a_ramp(modulation: Any) -> None:
    torch.manual_seed(0)
    count = 2 * GROUPS
    layer = DeformConv2d(count, count * TAPS, **GEOMETRY, modulation=modulation, bias=False).double()
    with_random_offsets(layer, layer.offset)
    with torch.no_grad():  # output c * K + k is the sample of channel c at tap k
        layer.weight.copy_(torch.eye(count * TAPS).view(-1, count, 3, 2))
    image = ramp()
    points = sampling_points(layer, image)
    read = layer(image).unflatten(1, (GROUPS, 2, TAPS)).transpose(2, 3).movedim(3, -1)
    where = inner(points)
    assert where.sum() > 20
    expected = points.xy * points.weights[..., None]
    torch.testing.assert_close(
        read[..., where, :], expected[..., where, :], rtol=0, atol=1e-4, check_dtype=False
    )
    assert (points.weights != 1).any() == (modulation != "none")


@pytest.mark.parametrize("version", [3, 4])
def test_points_of_depth_wise_versions_are_what_they_read_of_a_ramp(version: Any) -> None:
    torch.manual_seed(0)
    layer = DepthwiseDeformConv2d(2 * GROUPS, 2 * GROUPS, **GEOMETRY, version=version).double()
    last = layer.offset[-1]
    with_random_offsets(layer, last)
    with torch.no_grad():
        for projection in (layer.input_proj, layer.output_proj):
            projection.weight.copy_(torch.eye(2 * GROUPS)[..., None, None])
            projection.bias = None
    image = ramp()
    points = sampling_points(layer, image)
    read = layer(image).unflatten(1, (GROUPS, 2)).movedim(2, -1)
    where = inner(points)
    assert where.sum() > 20
    expected = (points.xy * points.weights[..., None]).sum(dim=2)
    torch.testing.assert_close(
        read[..., where, :], expected[..., where, :], rtol=0, atol=1e-4, check_dtype=False
    )


def test_points_by_hand() -> None:
    """Row 2, column 3 of a layer with stride 2, padding 1 and dilation 2."""
    layer = DeformConv2d(2, 4, 3, stride=2, padding=1, dilation=2)
    with torch.no_grad():
        assert layer.offset.bias is not None
        layer.offset.bias[:2] = torch.tensor([0.5, -1.5])  # y and x of the first tap
    points = sampling_points(layer, torch.randn(1, 2, 16, 16))
    assert points.regular[:, 2, 3].tolist() == [[x, y] for y in (3, 5, 7) for x in (5, 7, 9)]
    assert points.xy[0, 0, 0, 2, 3].tolist() == [3.5, 3.5]
    assert points.offsets[0, 0, 0].unique(dim=1).flatten(0, 1).unique(dim=0).tolist() == [[-1.5, 0.5]]
    assert points.xy[0, 0, 1:].equal(points.regular[1:])
    assert points.input_size == (16, 16)


def test_samples_beyond_the_border_are_outside() -> None:
    layer = DeformConv2d(1, 1, 1, modulation="none")
    image = torch.ones(1, 1, 3, 4)
    with torch.no_grad():
        assert layer.offset.bias is not None
        layer.weight.fill_(1)
        layer.bias = None
        layer.offset.bias[1] = 2.0  # x
    points = sampling_points(layer, image)
    assert points.outside[0, 0, 0].tolist() == [[False, False, True, True]] * 3
    assert ((layer(image) == 0) == points.outside[:, :, 0]).all()


def test_points_are_recorded_in_the_passes_within_alone() -> None:
    model = nn.Sequential(DeformConv2d(3, 4, 3), nn.ReLU(), DepthwiseDeformConv2d(4, 4, 3, version=4))
    images = torch.randn(2, 3, 9, 9)
    with recorded_points(model) as points:
        assert points == {}
        model(images)
    assert {name: layer.xy.shape[:5] for name, layer in points.items()} == {
        "0": (2, 1, 9, 7, 7),
        "2": (2, 4, 9, 5, 5),
    }
    assert points["0"].xy.equal(sampling_points(model[0], images).xy)
    before = points["0"]
    model(images)
    assert points["0"] is before


def test_layers_of_one_block_have_names_of_their_own() -> None:
    model = nn.ModuleDict({"backbone": torchvision.models.resnet18()})
    swap_convolutions(model, ["backbone.layer3.0.conv2", "backbone.layer4.*.conv?"])
    with recorded_points(model) as points:
        model["backbone"](torch.randn(1, 3, 64, 64))
    others = [f"backbone.layer4.{block}.conv{number}" for block in (0, 1) for number in (1, 2)]
    assert [*points] == ["C4.0", *others]


def test_a_map_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected x of shape \(N, 2, H, W\), got \(1, 3, 9, 9\)"):
        sampling_points(DeformConv2d(2, 2, 3), torch.randn(1, 3, 9, 9))
