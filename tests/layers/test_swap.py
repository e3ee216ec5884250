"""Deformable convolutions in networks of others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detector.layers import (
    DeformConv2d,
    DepthwiseDeformConv2d,
    offset_parameters,
    restore_convolutions,
    swap_convolutions,
)


class Block(nn.Module):
    """Convolutions of many geometries, one of them under two names."""

    stages: Any

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding="valid", groups=2), nn.ReLU()),
            nn.Sequential(nn.Conv2d(12, 12, 3, padding="same", dilation=2, groups=4), nn.ReLU()),
        )
        self.head = nn.Conv2d(12, 4, 1)
        self.again = self.stages[2][0]

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.stem(x))
        return torch.as_tensor(self.head(self.again(y)))


def block() -> tuple[Block, Tensor]:
    torch.manual_seed(0)
    return Block().eval(), torch.randn(2, 3, 37, 41)


@pytest.mark.parametrize("modulation", [None, "none", "doubled_sigmoid", "sigmoid"])
@pytest.mark.parametrize("offset_groups", [1, 2])
def test_the_function_stays_and_comes_back(modulation: Any, offset_groups: int) -> None:
    network, x = block()
    before, state = network(x), copy.deepcopy(network.state_dict())
    report = swap_convolutions(network, "stages.**", modulation=modulation, offset_groups=offset_groups)
    assert [one.name for one in report.swapped] == ["stages.0.0", "stages.1.0", "stages.2.0"]
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)

    for parameter in offset_parameters(network):
        parameter.requires_grad_(False)
    assert restore_convolutions(network) == ["stages.0.0", "stages.1.0", "stages.2.0", "again"]
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)
    torch.testing.assert_close(network.state_dict(), state)


def test_a_convolution_with_two_names_stays_one() -> None:
    network, x = block()
    before = network(x)
    report = swap_convolutions(network, lambda name, conv: name in ("again", "stages.2.0"))
    assert len(report.swapped) == 1
    assert network.again is network.stages[2][0]
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)


def test_parameters_are_the_same_objects_and_nothing_is_drawn() -> None:
    network, _ = block()
    weight, random = network.stages[0][0].weight, torch.random.get_rng_state()
    swap_convolutions(network, "stages.0.0")
    assert network.stages[0][0].weight is weight
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_report_counts_what_is_new() -> None:
    network, _ = block()
    count = sum(p.numel() for p in network.parameters())
    report = swap_convolutions(network, ["stem", "stages.*.0"])
    assert report.parameters_added == sum(p.numel() for p in network.parameters()) - count
    assert report.keeps_function
    assert "stem: Conv2d 7x7 -> DeformConv2d 7x7, doubled_sigmoid" in str(report)


def test_the_modulation_that_learned_goes_into_the_weight() -> None:
    network, x = block()
    swap_convolutions(network, "stages.2.0", offset_groups=2)
    layer: Any = network.again
    with torch.no_grad():
        layer.offset.bias[layer.offset_channels :].normal_()
    before = network(x)
    restore_convolutions(network)
    assert not isinstance(network.again, DeformConv2d)
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)


def test_offsets_that_learned_have_no_convolution() -> None:
    network, _ = block()
    swap_convolutions(network, "stages.*.0")
    layer: Any = network.stages[1][0]
    with torch.no_grad():
        layer.offset.weight[0, 0, 0, 0] = 0.1
    with pytest.raises(ValueError, match=r"\n  stages\.1\.0: its offsets have learned$"):
        restore_convolutions(network)
    with torch.no_grad():
        layer.offset.weight.zero_()
        layer.offset.weight[-1] = 0.1
    with pytest.raises(ValueError, match=r"\n  stages\.1\.0: its modulation has learned to depend"):
        restore_convolutions(network)
    with pytest.raises(ValueError, match=r"Put it into a module, such as nn\.Sequential"):
        restore_convolutions(DeformConv2d(3, 3, 3))
    assert isinstance(network.stages[0][0], DeformConv2d)


def test_offsets_are_a_group_of_their_own() -> None:
    network, x = block()
    assert offset_parameters(network) == []
    swap_convolutions(network, "stages.*.0")
    offsets = offset_parameters(network)
    assert len(offsets) == 3 * 2
    network(x).square().sum().backward()
    optimizer = torch.optim.SGD([{"params": offsets}], lr=0.1)
    before = [p.clone() for p in offsets]
    optimizer.step()
    assert all((a != b).any() for a, b in zip(before, offsets, strict=True))


def test_where_is_a_pattern_of_whole_names() -> None:
    def swapped(where: str) -> list[str]:
        return [one.name for one in swap_convolutions(block()[0], where).swapped]

    assert swapped("*") == ["stem", "head", "again"]
    assert swapped("stages.?.0") == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert swapped("**.0") == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert swapped("**.head") == ["head"]
    assert swapped("stages.1.**") == ["stages.1.0"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("stage.*.0", r'where="stage\.\*\.0" matches the name of no nn\.Conv2d \(there are stages\.'),
        (["stem", "x"], 'where="x" matches'),
        (lambda name, conv: conv.kernel_size == (9, 9), "its function chooses none of 6 convolutions"),
        ([], "chooses none of 6"),
    ],
)
def test_where_nothing_matches_the_names_are_shown(where: Any, message: str) -> None:
    network, x = block()
    before = network(x)
    with pytest.raises(ValueError, match=message):
        swap_convolutions(network, where)
    assert torch.equal(network(x), before)


class Standardized(nn.Conv2d):
    """As timm's, which standardizes its weight in each pass."""


def test_what_cannot_be_replaced_is_kept_with_a_reason() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 2, padding="same"),
        nn.Conv2d(4, 4, 7, padding=3, groups=4),
        Standardized(4, 4, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        nn.Conv2d(4, 4, 3),
    )
    network[6].register_forward_hook(lambda *_: None)
    report = swap_convolutions(network, "*")
    assert [one.name for one in report.swapped] == ["0"]
    reasons = ["reflect", "not the same on both", "depth-wise", "Standardized", "ParametrizedConv2d", "hooks"]
    assert [*report.kept] == ["1", "2", "3", "4", "5", "6"]
    assert all(reason in why for reason, why in zip(reasons, report.kept.values(), strict=True))
    with pytest.raises(ValueError, match=r"none of the 1 chosen .*\n  3: it is depth-wise"):
        swap_convolutions(network, "3")


def test_a_convolution_alone_has_no_place_to_be_replaced_in() -> None:
    with pytest.raises(ValueError, match=r"Put it into a module, such as nn\.Sequential"):
        swap_convolutions(nn.Conv2d(3, 3, 3), "*")


def test_after_an_error_the_network_is_as_before() -> None:
    network, x = block()
    before = network(x)
    with pytest.raises(ValueError, match="max_offset_px must be a number of pixels above 0"):
        swap_convolutions(network, "stages.*.0", modulation="sigmoid", max_offset_px=-1.0)
    assert torch.equal(network(x), before)
    report = swap_convolutions(network, "*", modulation="sigmoid", offset_groups=2)
    assert report.kept == {"stem": "offset_groups=2 does not divide its 3 input channels"}
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)


def test_a_shared_weight_is_not_doubled() -> None:
    network = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    network[2].weight = network[0].weight
    x = torch.randn(1, 4, 8, 8)
    before = network(x)
    report = swap_convolutions(network, "*", modulation="sigmoid")
    assert ["shared" in why for why in report.kept.values()] == [True, True]
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)
    assert len(swap_convolutions(network, "*").swapped) == 2  # nothing is doubled
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="0: its weight is shared"):
        restore_convolutions(network)


def test_a_network_that_holds_itself_is_walked_once() -> None:
    network, _ = block()
    network.stages[0].add_module("parent", network.stages)
    assert len(swap_convolutions(network, "stages.1.0").swapped) == 1
    assert restore_convolutions(network) == ["stages.1.0"]


def test_layers_that_are_deformable_stay() -> None:
    network = nn.Sequential(DeformConv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    assert [one.name for one in swap_convolutions(network, "**").swapped] == ["1"]


@pytest.mark.parametrize("version", [3, 4])
def test_depth_wise_versions_start_anew(version: Any) -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.Conv2d(8, 8, 1)).double()
    count = sum(p.numel() for p in network.parameters())
    report = swap_convolutions(network, "0", version=version, offset_groups=2)
    assert isinstance(network[0], DepthwiseDeformConv2d)
    assert not report.keeps_function
    assert report.parameters_added == sum(p.numel() for p in network.parameters()) - count
    assert "new weights: train them" in str(report)
    assert network(torch.randn(1, 8, 9, 9, dtype=torch.float64)).shape == (1, 8, 9, 9)
    with pytest.raises(ValueError, match="sets modulation, max_offset_px and backend itself"):
        swap_convolutions(network, "1", version=version, modulation="none")


def test_torchvisions_resnet_computes_the_same_in_any_format_and_under_autocast() -> None:
    torch.manual_seed(0)
    network, x = torchvision.models.resnet18().eval(), torch.randn(1, 3, 64, 64)
    before = network(x)
    report = swap_convolutions(network, ["layer3.*.conv?", "layer4.*.conv?"])
    assert len(report.swapped) == 8
    torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-5)
    last = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), before, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (last(x) - before).abs().max() < 0.1 * before.abs().max()


def test_it_can_be_exported_and_compiled() -> None:
    network, x = block()
    swap_convolutions(network, "stages.*.0")
    exported = torch.export.export(network, (x,))
    torch.testing.assert_close(exported.module()(x), network(x))
    torch.testing.assert_close(torch.compile(network, backend="eager")(x), network(x))


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_residual_networks_of_other_libraries(library: str) -> None:
    package = pytest.importorskip(library)
    torch.manual_seed(0)
    if library == "timm":
        network, where = package.create_model("resnet50"), "layer4.*.conv2"
    else:
        network = package.ResNetModel(package.ResNetConfig())
        where = "encoder.stages.3.layers.*.layer.1.convolution"
    network.eval()
    x = torch.randn(1, 3, 64, 64)

    def output() -> Tensor:
        y = network(x)
        return torch.as_tensor(y if isinstance(y, Tensor) else y.last_hidden_state)

    before = output()
    assert len(swap_convolutions(network, where).swapped) == 3
    assert (output() - before).abs().max() <= 1e-5 * before.abs().max()
