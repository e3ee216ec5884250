"""The deformable layer as a drop-in for the plain one, and the choice of where it goes."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from torch import nn

from detector.layers import DeformableStages, DeformConv2d, DepthwiseDeformConv2d


def test_takes_the_place_of_a_plain_convolution() -> None:
    assert DeformConv2d(3, 16, (3, 3))(torch.randn(1, 3, 32, 32)).shape == (1, 16, 30, 30)


def test_has_the_parameters_of_conv2d_in_order_with_its_defaults() -> None:
    def leading(layer: type[nn.Module]) -> list[tuple[str, object]]:
        return [(p.name, p.default) for p in inspect.signature(layer).parameters.values()][:8]

    assert leading(DeformConv2d) == leading(nn.Conv2d)


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
@pytest.mark.parametrize("backend", ["gather", "torchvision"])
def test_equals_the_plain_convolution_of_the_same_seed_at_init(modulation: str, backend: str) -> None:
    layers = []
    for kind in (nn.Conv2d, partial(DeformConv2d, offset_groups=2, modulation=modulation, backend=backend)):
        torch.manual_seed(3)
        layers.append(kind(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=2))
    x = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(layers[1](x), layers[0](x))


def test_draws_as_many_random_numbers_as_the_plain_convolution() -> None:
    draws = []
    for kind in (nn.Conv2d, DeformConv2d):
        torch.manual_seed(3)
        kind(4, 6, 3)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_plain_sigmoid_starts_at_half_the_response() -> None:
    layer = DeformConv2d(4, 6, 3, bias=False, modulation="sigmoid")
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.weight) / 2)


def test_offsets_come_first_then_mask_logits() -> None:
    layer = DeformConv2d(4, 6, 3, padding=1, offset_groups=2, modulation="sigmoid")
    assert layer.offset.out_channels == 54
    nn.init.normal_(layer.offset.weight)
    x = torch.randn(1, 4, 5, 5)
    raw = layer.offset(x)
    offset, mask = layer.sampling(x)
    assert torch.equal(offset, raw[:, :36])
    assert torch.equal(mask, raw[:, 36:].sigmoid())


def test_keeps_the_names_of_pretrained_weights() -> None:
    plain, deformable = nn.Conv2d(4, 6, 3), DeformConv2d(4, 6, 3)
    loaded = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert loaded.missing_keys == ["offset.weight", "offset.bias"]
    assert loaded.unexpected_keys == []


def test_trains_its_offsets() -> None:
    layer = DeformConv2d(3, 4, 3, padding=1)
    layer(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert layer.offset.weight.grad.abs().sum() > 0


def test_runs_under_autocast() -> None:
    layer, x = DeformConv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 2}, "groups=2 must divide 3 and 4 channels"),
        ({"offset_groups": 2}, "offset_groups=2 must divide 3 input channels"),
    ],
)
def test_refuses_groups_that_do_not_divide(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeformConv2d(3, 4, 3, **arguments)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [("all", [0, 1, 2]), ("last", [2]), ((0,), [0]), ((-1, 0), [0, 2])],
)
def test_blocks_choose_within_the_stages(blocks: str | tuple[int, ...], expected: list[int]) -> None:
    deform = DeformableStages(stages=(4,), blocks=blocks)
    chosen = {
        stage: [
            b for b in range(3) if isinstance(deform.conv3x3(stage, b, 3)(2, 2, 3, padding=1), DeformConv2d)
        ]
        for stage in (2, 3, 4, 5)
    }
    assert chosen == {2: [], 3: [], 4: expected, 5: []}


def test_passes_its_options_on() -> None:
    deform = DeformableStages(stages=(5,), modulation="none", offset_groups=2, backend="torchvision")
    layer = deform.conv3x3(5, 0, 1)(4, 4, 3, stride=2, padding=1, bias=False)
    assert (layer.modulation, layer.offset_groups, layer.backend) == ("none", 2, "torchvision")
    assert layer.bias is None


@pytest.mark.parametrize("version", [3, 4])
def test_a_version_is_depth_wise(version: int) -> None:
    layer = DeformableStages(stages=(5,), version=version, offset_groups=2).conv3x3(5, 0, 1)(4, 4, 3)
    assert isinstance(layer, DepthwiseDeformConv2d)
    assert (layer.modulation, layer.offset_groups) == ({3: "softmax", 4: "unbounded"}[version], 2)


@pytest.mark.parametrize("options", [{"modulation": "doubled_sigmoid"}, {"backend": "torchvision"}])
def test_a_version_has_no_other_options(options: dict) -> None:
    with pytest.raises(ValueError, match=r"deform\.version=4 has a modulation and backend of its own"):
        DeformableStages(stages=(5,), version=4, **options)


def test_is_plain_by_default() -> None:
    assert DeformableStages().conv3x3(5, 0, 2) is nn.Conv2d


@pytest.mark.parametrize("block", [2, -3])
def test_a_block_the_stage_does_not_have_is_named(block: int) -> None:
    with pytest.raises(ValueError, match=f"names block {block}, but stage 5 has 2 blocks: -2 to 1"):
        DeformableStages(stages=(5,), blocks=(block,)).conv3x3(5, 0, 2)


def test_stages_must_differ() -> None:
    with pytest.raises(ValueError, match=r"different numbers of 2, 3, 4, 5, got \[3, 3\]"):
        DeformableStages(stages=(3, 3))
