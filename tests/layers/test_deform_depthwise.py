"""Depth-wise deformable layers in the place of plain convolutions."""

from __future__ import annotations

import inspect
import itertools
from typing import Any, Literal, cast

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.ops.deform_conv.depthwise import deform_sampled_sum
from detector.ops.deform_conv.geometry import Geometry
from detector.ops.deform_conv.statistics import sampling_statistics

VERSIONS = pytest.mark.parametrize("version", [3, 4])
Version = Literal[3, 4]


def test_has_the_parameters_of_conv2d_in_order_with_its_defaults() -> None:
    def leading(layer: type[nn.Module]) -> list[tuple[str, object]]:
        return [(p.name, p.default) for p in inspect.signature(layer).parameters.values()][:8]

    assert leading(DepthwiseDeformConv2d) == leading(nn.Conv2d)


@VERSIONS
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2, "bias": False},
        {"padding": (2, 0), "dilation": (2, 1)},
        {"padding": 1, "groups": 2},
    ],
    ids=str,
)
def test_starts_as_the_mean_over_the_taps(version: Version, options: dict[str, Any]) -> None:
    """Between the projections; of the shape of a plain convolution."""
    torch.manual_seed(0)
    layer, x = DepthwiseDeformConv2d(8, 12, 3, **options, version=version), torch.randn(2, 8, 9, 7)
    places = {k: v for k, v in options.items() if k in ("stride", "padding", "dilation")}
    mean = torch.full((8, 1, 3, 3), 1 / 9)
    expected = layer.output_proj(nn.functional.conv2d(layer.input_proj(x), mean, groups=8, **places))
    torch.testing.assert_close(layer(x), expected)
    assert expected.shape == nn.Conv2d(8, 12, 3, **options)(x).shape
    assert (layer.output_proj.bias is None) == (options.get("bias") is False)


def test_modulation_is_a_softmax_over_the_taps_or_what_was_predicted() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    modulations = {}
    for version in (3, 4):
        layer = DepthwiseDeformConv2d(8, 8, 3, padding=1, offset_groups=2, version=version)
        nn.init.normal_(cast(Tensor, layer.offset[-1].weight))
        raw, (offset, modulations[version]) = layer.offset(x), layer.sampling(x)
        assert torch.equal(offset, raw[:, :36])
    assert torch.equal(modulations[4], raw[:, 36:])
    sums = modulations[3].unflatten(1, (2, 9)).sum(dim=2)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert modulations[3].min() >= 0


def drawn(version: Version, **options: Any) -> DepthwiseDeformConv2d:
    """A layer whose parameters are all random, in float64."""
    torch.manual_seed(0)
    layer = DepthwiseDeformConv2d(4, 6, 3, version=version, offset_groups=2, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


@VERSIONS
def test_equals_its_definition(version: Version) -> None:
    """What was not projected says where: depth-wise convolution, in 3 a layer norm and GELU, linear layer."""
    layer, x = drawn(version, padding=1, stride=2), torch.randn(2, 4, 6, 7, dtype=torch.float64)
    first, *norm, last = (part for part in cast(Any, layer.offset) if list(part.parameters()))
    y = F.conv2d(x, first.weight, first.bias, stride=2, padding=1, groups=4)
    if version == 3:
        y = F.layer_norm(y.movedim(1, -1), (4,), norm[0].weight, norm[0].bias, eps=1e-6).movedim(-1, 1)
        y = F.gelu(y)
    offset, modulation = F.conv2d(y, last.weight, last.bias).split([36, 18], dim=1)
    if version == 3:
        modulation = modulation.unflatten(1, (2, 9)).softmax(dim=2).flatten(1, 2)
    values = F.conv2d(x, layer.input_proj.weight, layer.input_proj.bias)
    summed = deform_sampled_sum(values, offset, modulation, kernel_size=3, stride=2, padding=1)
    expected = F.conv2d(summed, layer.output_proj.weight, layer.output_proj.bias)
    torch.testing.assert_close(layer(x), expected)


@VERSIONS
def test_the_gradient_of_its_input_is_also_that_of_the_places(version: Version) -> None:
    layer = drawn(version, padding=1)
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


@VERSIONS
def test_all_parameters_learn_behind_a_new_batch_norm_and_relu(version: Version) -> None:
    torch.manual_seed(0)
    layer = DepthwiseDeformConv2d(8, 8, 3, padding=1, bias=False, version=version)
    model = nn.Sequential(layer, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model(torch.randn(2, 8, 6, 6)).square().sum().backward()
    assert layer.input_proj.weight.grad is not None
    assert layer.input_proj.weight.grad.abs().max() > 1e-3
    last = cast(Any, layer.offset[-1]).weight.grad
    assert last[:72].abs().max() > 1e-3
    assert last[72:].abs().max() > 1e-3


@VERSIONS
def test_groups_take_their_values_from_their_own_inputs(version: Version) -> None:
    torch.manual_seed(0)
    layer = DepthwiseDeformConv2d(8, 4, 3, padding=1, groups=2, version=version)
    x = torch.randn(1, 8, 5, 5, requires_grad=True)
    layer(x)[:, :2].sum().backward()
    assert x.grad is not None
    assert x.grad[:, :4].abs().sum() > 0
    assert x.grad[:, 4:].eq(0).all()


@VERSIONS
def test_runs_under_autocast(version: Version) -> None:
    torch.manual_seed(0)
    layer, x = DepthwiseDeformConv2d(8, 4, 3, version=version), torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.03, rtol=0.03)


@VERSIONS
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_is_right_at_other_sizes(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # sizes are tensors there, not int
    torch.manual_seed(0)
    layer = DepthwiseDeformConv2d(8, 4, 3, padding=1, stride=2, version=version)
    nn.init.normal_(cast(Tensor, layer.offset[-1].weight))
    traced = torch.jit.trace(layer, torch.randn(1, 8, 6, 7), check_trace=False)
    x = torch.randn(2, 8, 9, 5)
    torch.testing.assert_close(traced(x), layer(x))


def test_refuses_groups_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="offset_groups=4 must divide 6 input channels"):
        DepthwiseDeformConv2d(6, 4, 3, version=3)


@VERSIONS
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 7, 6), r"DepthwiseDeformConv2d: expected x of shape \(N, 4, H, W\), got \(2, 5, 7, 6\)"),
        ((2, 4, 2, 9), r"DepthwiseDeformConv2d: an input of \(2, 9\) is too small for kernel \(3, 3\)"),
    ],
)
def test_an_input_that_does_not_fit_is_named(shape: tuple[int, ...], message: str, version: Version) -> None:
    with pytest.raises(ValueError, match=message):
        DepthwiseDeformConv2d(4, 6, 3, version=version)(torch.zeros(shape))


@VERSIONS
def test_statistics_are_those_of_the_taps_row_by_row(version: Version) -> None:
    torch.manual_seed(0)
    layer = DepthwiseDeformConv2d(4, 4, (3, 2), stride=2, padding=1, version=version, offset_groups=2)
    x, predicted = torch.randn(2, 4, 9, 8), torch.randn(2, 3 * 12, 5, 5)
    offset, modulation = layer.decode(predicted)
    by_row, weights = torch.empty_like(offset), torch.empty_like(modulation)
    for group, row, column in itertools.product(range(2), range(3), range(2)):
        theirs, ours = group * 6 + column * 3 + row, group * 6 + row * 2 + column
        weights[:, ours] = modulation[:, theirs]
        by_row[:, 2 * ours], by_row[:, 2 * ours + 1] = offset[:, 2 * theirs + 1], offset[:, 2 * theirs]
    geometry = Geometry((3, 2), (2, 2), (1, 1), (1, 1), 1, 2)
    expected = sampling_statistics(by_row, weights, geometry=geometry, input_size=(9, 8))
    torch.testing.assert_close(layer.statistics((x,), predicted), expected)
