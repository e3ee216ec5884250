"""Pooling of regions as a part of a head."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from detector.layers.deform import Modulation
from detector.layers.roi_pooling import DeformRoIPool, RoIAlign
from detector.structures import FeatureSpec

LEVELS = [FeatureSpec(f"p{i}", 3, 2**i) for i in (2, 3, 4)]
BOXES = torch.tensor([[0.0, 0, 300, 250], [8, 8, 40, 40], [5, 3, 130, 160], [0, 7, 33, 20]])
LEVEL_OF_BOX = torch.tensor([2, 0, 1, 0])
IMAGE = torch.tensor([0, 1, 0, 0])


def features() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 3, 256 // f.stride_px, 320 // f.stride_px) for f in LEVELS]


def layer(**options: Any) -> DeformRoIPool:
    torch.manual_seed(0)
    return DeformRoIPool(LEVELS, output_size=5, width=8, **options)


@pytest.mark.parametrize(("modulation", "response"), [("none", 1), ("doubled_sigmoid", 1), ("sigmoid", 0.5)])
@pytest.mark.parametrize("sampling", [{"sampling_ratio": 0, "aligned": True}, {}], ids=str)
def test_starts_as_roi_align(modulation: str, response: float, sampling: dict[str, Any]) -> None:
    regular = RoIAlign(LEVELS, output_size=5, **sampling)
    actual = layer(modulation=modulation, **sampling)(features(), BOXES, IMAGE)
    expected = response * regular(features(), BOXES, IMAGE)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_level_has_a_branch_of_its_own(number: int) -> None:
    """What the branch of a level predicts moves and weighs the regions of that level alone."""
    pool: Any = layer()
    with torch.no_grad():
        pool.offset[number].shift[-1].bias.copy_(torch.arange(50.0))
        pool.offset[number].mask[-1].bias.fill_(100.0)
    offset, mask = pool.sampling(features(), BOXES, IMAGE)
    ours = cast(Tensor, number == LEVEL_OF_BOX)
    assert torch.equal(offset[ours], torch.arange(50.0).view(2, 5, 5).expand(int(ours.sum()), -1, -1, -1))
    assert offset[~ours].eq(0).all()
    assert torch.equal(mask, torch.where(ours, 2.0, 1.0)[:, None, None].expand(-1, 5, 5))


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
def test_the_gradient_of_its_input_is_also_that_of_the_places(modulation: Modulation) -> None:
    levels = [FeatureSpec(f"p{i}", 2, 2**i) for i in (2, 3)]
    torch.manual_seed(0)
    pool = DeformRoIPool(levels, output_size=2, width=4, modulation=modulation).double()
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    maps = [torch.randn(1, 2, side, side, dtype=torch.float64, requires_grad=True) for side in (8, 4)]
    boxes = torch.tensor([[3.0, 4, 21, 27], [1, 0, 120, 130]], dtype=torch.float64)  # one of each level
    image = torch.zeros(2, dtype=torch.int64)
    assert torch.autograd.gradcheck(lambda *maps: pool(maps, boxes, image), maps)


def test_reach_is_half_of_a_region_of_its_level() -> None:
    assert layer().reach_px == 7


def test_all_parameters_get_gradients_though_levels_have_no_regions() -> None:
    pool: Any = layer()
    pool(features(), BOXES[1:2], IMAGE[1:2]).square().sum().backward()
    assert all(p.grad is not None for p in pool.parameters())
    assert pool.offset[0].shift[-1].weight.grad.abs().sum() > 0
    assert pool.offset[0].mask[-1].weight.grad.abs().sum() > 0


def test_no_regions() -> None:
    assert layer()(features(), torch.zeros(0, 4), torch.zeros(0).long()).shape == (0, 3, 5, 5)


@pytest.mark.parametrize(
    "arguments", [features()[:2], [x[:, :2] for x in features()], [x[0] for x in features()]]
)
def test_features_that_do_not_fit_are_named(arguments: list[Tensor]) -> None:
    with pytest.raises(
        ValueError, match=r"expected features of 3 levels, each of shape \(B, 3, H, W\), got \["
    ):
        layer()(arguments, BOXES, IMAGE)
