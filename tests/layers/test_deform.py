"""The deformable layer as a drop-in for the plain one, and the choice of where it goes."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Literal, cast

import pytest
import torch
from torch import nn

from detector.layers.deform import DeformableStages, DeformConv2d, Modulation, replace_backends
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.ops.deform_conv.dispatch import Backend
from detector.ops.deform_conv.geometry import pair


def test_takes_the_place_of_a_plain_convolution() -> None:
    assert DeformConv2d(3, 16, (3, 3))(torch.randn(1, 3, 32, 32)).shape == (1, 16, 30, 30)


def test_has_the_parameters_of_conv2d_in_order_with_its_defaults() -> None:
    def leading(layer: type[nn.Module]) -> list[tuple[str, object]]:
        return [(p.name, p.default) for p in inspect.signature(layer).parameters.values()][:8]

    assert leading(DeformConv2d) == leading(nn.Conv2d)


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
@pytest.mark.parametrize("backend", ["gather", "torchvision"])
def test_equals_the_plain_convolution_of_the_same_seed_at_init(
    modulation: Modulation, backend: Backend
) -> None:
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
    assert mask is not None
    assert torch.equal(mask, raw[:, 36:].sigmoid())


def test_keeps_the_names_of_pretrained_weights() -> None:
    plain, deformable = nn.Conv2d(4, 6, 3), DeformConv2d(4, 6, 3)
    loaded = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert loaded.missing_keys == ["offset.weight", "offset.bias"]
    assert loaded.unexpected_keys == []


def test_trains_its_offsets() -> None:
    layer = DeformConv2d(3, 4, 3, padding=1)
    layer(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert layer.offset.weight.grad is not None
    assert layer.offset.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
@pytest.mark.parametrize("backend", ["gather", "torchvision"])
def test_the_gradient_of_its_input_is_also_that_of_the_places(
    modulation: Modulation, backend: Backend
) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(2, 2, 3, padding=1, modulation=modulation, backend=backend).double()
    nn.init.normal_(layer.offset.weight, std=0.3)
    nn.init.normal_(cast(torch.Tensor, layer.offset.bias))
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


@pytest.mark.parametrize(
    ("options", "reach_px"),
    [
        ({"kernel_size": 3}, 1.5),
        ({"kernel_size": 3, "dilation": 2}, 2.5),
        ({"kernel_size": (3, 5), "dilation": (2, 1)}, 2.5),
        ({"kernel_size": (3, 5), "dilation": (1, 3)}, 6.5),
    ],
    ids=str,
)
def test_reach_is_that_of_the_plain_kernel(options: dict, reach_px: float) -> None:
    for make in (DeformConv2d, partial(DepthwiseDeformConv2d, version=3)):
        assert make(4, 4, **options).reach_px == reach_px


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


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 7, 6), r"DeformConv2d: expected x of shape \(N, 4, H, W\), got \(2, 5, 7, 6\)"),
        ((4, 7, 6), r"DeformConv2d: expected x of shape \(N, 4, H, W\), got \(4, 7, 6\)"),
        (
            (2, 4, 4, 9),
            r"DeformConv2d: an input of \(4, 9\) is too small for kernel \(3, 3\), dilation \(2, 2\)",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    shape: tuple[int, ...], message: str, modulation: Modulation
) -> None:
    """Not what a part of the layer, its offset branch, says of itself."""
    with pytest.raises(ValueError, match=message):
        DeformConv2d(4, 6, 3, dilation=2, modulation=modulation)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [("all", [0, 1, 2]), ("last", [2]), ((0,), [0]), ((-1, 0), [0, 2])],
)
def test_blocks_choose_within_the_stages(
    blocks: Literal["all", "last"] | tuple[int, ...], expected: list[int]
) -> None:
    deform = DeformableStages(stages=(4,), blocks=blocks)
    chosen = {
        stage: [
            b for b in range(3) if isinstance(deform.conv3x3(stage, b, 3)(2, 2, 3, padding=1), DeformConv2d)
        ]
        for stage in (2, 3, 4, 5)
    }
    assert chosen == {2: [], 3: [], 4: expected, 5: []}


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3])])
def test_every_so_many_blocks(every: int, expected: list[int]) -> None:
    deform = DeformableStages(stages=(4,), every=every)
    layers = [deform.conv3x3(4, block, 5)(2, 2, 3, padding=1) for block in range(5)]
    assert [i for i, layer in enumerate(layers) if isinstance(layer, DeformConv2d)] == expected


def test_every_needs_all_blocks() -> None:
    with pytest.raises(ValueError, match=r"deform.every=2 goes with deform.blocks=all, got .*=last"):
        DeformableStages(stages=(4,), blocks="last", every=2)


@pytest.mark.parametrize(("stride", "expected"), [(1, DeformConv2d), ((1, 1), DeformConv2d), (2, nn.Conv2d)])
def test_fallback_on_stride_leaves_convolutions_with_a_stride_regular(
    stride: int | tuple[int, int], expected: type[nn.Module]
) -> None:
    build = DeformableStages(stages=(4,), fallback_on_stride=True).conv3x3(4, 0, 2)
    layer = build(2, 2, 3, stride=stride, padding=1, bias=False)
    assert type(layer) is expected
    assert layer(torch.ones(1, 2, 4, 4)).shape[2:] == ((4, 4) if expected is DeformConv2d else (2, 2))


def test_passes_its_options_on() -> None:
    options: dict[str, Any] = {
        "modulation": "none",
        "offset_groups": 2,
        "offset_init": "normal",
        "max_offset_px": 4.0,
        "backend": "torchvision",
    }
    layer = DeformableStages(stages=(5,), **options).conv3x3(5, 0, 1)(
        4, 4, 3, stride=2, padding=1, bias=False
    )
    assert {name: getattr(layer, name) for name in options} == options
    assert layer.bias is None


@pytest.mark.parametrize("version", [3, 4])
def test_a_version_is_depth_wise(version: Literal[3, 4]) -> None:
    layer = DeformableStages(stages=(5,), version=version, offset_groups=2).conv3x3(5, 0, 1)(4, 4, 3)
    assert isinstance(layer, DepthwiseDeformConv2d)
    assert (layer.modulation, layer.offset_groups) == ({3: "softmax", 4: "unbounded"}[version], 2)


@pytest.mark.parametrize(
    "options", [{"modulation": "doubled_sigmoid"}, {"backend": "torchvision"}, {"max_offset_px": 4.0}]
)
def test_a_version_has_no_other_options(options: dict) -> None:
    with pytest.raises(ValueError, match=r"deform\.version=4 sets these itself"):
        DeformableStages(stages=(5,), version=4, **options)


@pytest.mark.parametrize(("version", "expected"), [(None, 1), (3, 4), (4, 4)])
def test_offset_groups_are_as_the_layer_has_them(version: Literal[3, 4] | None, expected: int) -> None:
    layer = DeformableStages(stages=(5,), version=version).conv3x3(5, 0, 1)(8, 8, 3)
    assert layer.offset_groups == expected


def test_no_blocks_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"deform\.blocks: expected all, last, .*got \[\].*deform\.stages=\[\]"
    ):
        DeformableStages(stages=(5,), blocks=())


def test_is_plain_by_default() -> None:
    assert DeformableStages().conv3x3(5, 0, 2) is nn.Conv2d


@pytest.mark.parametrize("block", [2, -3])
def test_a_block_the_stage_does_not_have_is_named(block: int) -> None:
    with pytest.raises(ValueError, match=f"names block {block}, but stage 5 has 2 blocks: -2 to 1"):
        DeformableStages(stages=(5,), blocks=(block,)).conv3x3(5, 0, 2)


def test_stages_must_differ() -> None:
    with pytest.raises(ValueError, match=r"different numbers of 2, 3, 4, 5, got \[3, 3\]"):
        DeformableStages(stages=(3, 3))


# --- the start of the offsets, and their bound ---


def test_normal_offsets_start_small_and_the_mask_at_its_value() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(64, 8, 3, offset_init="normal")
    offsets, logits = layer.offset.weight.split([layer.offset_channels, layer.mask_channels])
    assert offsets.std().item() == pytest.approx(0.01, rel=0.05)
    assert logits.eq(0).all()
    assert layer.offset.bias is not None
    assert layer.offset.bias.eq(0).all()


def test_normal_offsets_draw_nothing_from_the_generator_of_the_network() -> None:
    draws = []
    for offset_init in ("zero", "normal"):
        torch.manual_seed(3)
        layer = DeformConv2d(4, 6, 3, offset_init=offset_init)
        draws.append((layer.weight.detach(), torch.rand(3)))
    assert all(torch.equal(*pair) for pair in zip(*draws, strict=True))


def test_normal_offsets_follow_the_seed_and_differ_between_layers() -> None:
    torch.manual_seed(3)
    first, second = (DeformConv2d(4, 4, 3, offset_init="normal").offset.weight for _ in range(2))
    torch.manual_seed(3)
    again = DeformConv2d(4, 4, 3, offset_init="normal").offset.weight
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_bound_holds_and_changes_small_offsets_little() -> None:
    free, bounded = DeformConv2d(2, 2, 3), DeformConv2d(2, 2, 3, max_offset_px=4.0)
    predicted = torch.linspace(-1e4, 1e4, 27 * 8001).view(1, 27, 8001, 1)
    offset, mask = bounded.decode(predicted)
    assert offset.abs().max() <= 4
    torch.testing.assert_close(mask, free.decode(predicted)[1])
    small = torch.linspace(-0.4, 0.4, 27).view(1, 27, 1, 1)
    torch.testing.assert_close(bounded.decode(small)[0], free.decode(small)[0], rtol=0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_offsets_far_beyond_the_bound_still_have_a_gradient(dtype: torch.dtype) -> None:
    layer = DeformConv2d(2, 2, 3, max_offset_px=4.0)
    predicted = torch.full((1, 27, 1, 1), 4000.0, dtype=dtype, requires_grad=True)
    layer.decode(predicted)[0].sum().backward()
    assert predicted.grad is not None
    assert (predicted.grad[:, :18] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_bounded_layer_runs_in_any_dtype(dtype: torch.dtype) -> None:
    layer = DeformConv2d(2, 4, 3, max_offset_px=4.0, offset_init="normal").to(dtype)
    assert layer(torch.randn(1, 2, 6, 6, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bound_is_a_positive_number(bound: float) -> None:
    for make in (partial(DeformConv2d, 2, 2, 3), DeformableStages):
        with pytest.raises(ValueError, match="max_offset_px must be a number of pixels above 0"):
            make(max_offset_px=bound)


def test_backends_that_cannot_run_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.ops.deform_conv.triton.find_spec", lambda name: None)
    model = nn.Sequential(*(DeformConv2d(2, 2, 3, backend=name) for name in ("gather", "triton")))
    assert replace_backends(model, device=torch.device("cpu")) == 1
    assert [layer.backend for layer in model] == ["gather", "auto"]


@pytest.mark.parametrize("options", [{"groups": 0}, {"offset_groups": 0}], ids=str)
def test_no_groups_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=0 must divide 4"):
        DeformConv2d(4, 4, 3, **options)


@pytest.mark.parametrize("value", ["same", (1, 1, 1)])
def test_a_pair_is_of_two(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a whole number, or two: \(vertical, horizontal\); got"):
        inspect.unwrap(pair)(value)


def test_every_is_at_least_1() -> None:
    with pytest.raises(ValueError, match=r"deform\.every must be at least 1, got 0"):
        DeformableStages(stages=(4,), every=0)
