"""The depth-wise sum of moved samples against its definition, written as loops, on both of its ways."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detector.ops.deform_conv import depthwise
from detector.ops.deform_conv.depthwise import deform_sampled_sum
from detector.ops.deform_conv.geometry import pair

Options = dict[str, Any]
SMALL = st.integers(1, 3)
PAIRS = st.tuples(SMALL, SMALL)


WAYS = {"gather": 1, "grid_sample": 1000}  # from how many channels a group on one gathers


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "_GATHER_FROM", request.param)


def arguments(
    options: Options, *, batch: int = 2, channels: int = 4, groups: int = 2, size: tuple[int, int] = (5, 6)
) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets up to some pixels, not near the whole ones, where the gradient has a kink."""
    generator = torch.Generator().manual_seed(0)
    kernel, stride, padding, dilation = (
        pair(options.get(name, default))
        for name, default in (("kernel_size", 3), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    out = [(size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)]
    taps = groups * math.prod(kernel)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    offset = 2 * draw(batch, 2 * taps, *out)
    offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
    return draw(batch, channels, *size), offset, draw(batch, taps, *out)


def by_definition(x: Tensor, offset: Tensor, modulation: Tensor, options: Options) -> Tensor:
    (kh, kw), (sy, sx), (py, px), (dy, dx) = (
        pair(options.get(name, default))
        for name, default in (("kernel_size", 3), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    groups = modulation.shape[1] // (kh * kw)
    y = torch.zeros(*x.shape[:2], *offset.shape[2:], dtype=torch.float64)
    for n, c, i, j in ((n, c, i, j) for n, c, i, j in torch.ones_like(y).nonzero().tolist()):
        first = c // (x.shape[1] // groups) * kh * kw
        for k in range(kh * kw):
            column, row = divmod(k, kh)
            right, down = offset[n, 2 * (first + k) : 2 * (first + k) + 2, i, j].tolist()
            h, w = i * sy - py + row * dy + down, j * sx - px + column * dx + right
            y[n, c, i, j] += modulation[n, first + k, i, j] * interpolated(x[n, c], h, w)
    return y


def interpolated(plane: Tensor, h: float, w: float) -> float:
    """Bilinear, with zeros outside."""
    value = 0.0
    for row in (math.floor(h), math.floor(h) + 1):
        for column in (math.floor(w), math.floor(w) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                value += (1 - abs(h - row)) * (1 - abs(w - column)) * plane[row, column].item()
    return value


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": (2, 3), "padding": (0, 2), "stride": (2, 1), "dilation": (2, 1)},
    ],
    ids=str,
)
def test_equals_its_definition(options: Options) -> None:
    inputs = arguments(options)
    torch.testing.assert_close(deform_sampled_sum(*inputs, **options), by_definition(*inputs, options))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    kernel=PAIRS,
    stride=PAIRS,
    padding=PAIRS,
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=SMALL,
    per_group=SMALL,
    batch=st.integers(0, 2),
    size=st.tuples(st.integers(5, 7), st.integers(5, 7)),
)
def test_both_ways_agree_for_all_shapes(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    per_group: int,
    batch: int,
    size: tuple[int, int],
) -> None:
    options: Options = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    inputs = arguments(options, batch=batch, channels=groups * per_group, groups=groups, size=size)
    actual = []
    for gather_from in WAYS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(depthwise, "_GATHER_FROM", gather_from)
            actual.append(deform_sampled_sum(*inputs, **options))
    torch.testing.assert_close(*actual)


@pytest.mark.usefixtures("_way")
def test_gradients() -> None:
    options: Options = {"kernel_size": (2, 3), "padding": 1, "stride": (1, 2)}
    tensors = [t.requires_grad_() for t in arguments(options, batch=1, size=(2, 3))]
    assert torch.autograd.gradcheck(lambda *t: deform_sampled_sum(*t, **options), tensors)


@pytest.mark.usefixtures("_way")
def test_samples_far_outside_are_zero() -> None:
    x, offset, modulation = arguments({"kernel_size": 3, "padding": 1})
    for shift in (-1e9, -100.0, 100.0, 1e9):
        actual = deform_sampled_sum(x, torch.full_like(offset, shift), modulation, kernel_size=3, padding=1)
        assert actual.eq(0).all()


@pytest.mark.usefixtures("_way")
def test_half_precision_is_rounded_at_the_end_only() -> None:
    x, offset, modulation = (t.bfloat16() for t in arguments({"kernel_size": 3, "padding": 1}))
    actual = deform_sampled_sum(x, offset, modulation, kernel_size=3, padding=1)
    exact = deform_sampled_sum(x.float(), offset.float(), modulation.float(), kernel_size=3, padding=1)
    assert torch.equal(actual, exact.bfloat16())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modulation": torch.zeros(2, 10, 5, 6)}, "needs 9 for each offset group"),
        ({"modulation": torch.zeros(2, 0, 5, 6)}, "needs 9 for each offset group"),
        ({"x": torch.zeros(2, 5, 5, 6)}, "must divide the 5 channels of x"),
        (
            {"offset": torch.zeros(2, 18, 5, 6)},
            r"offset must have shape \(2, 36, 5, 6\), got \(2, 18, 5, 6\)",
        ),
        ({"modulation": torch.zeros(2, 18, 5, 5)}, r"modulation must have shape \(2, 18, 5, 6\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: dict[str, Tensor], message: str) -> None:
    fitting: Options = {
        "x": torch.zeros(2, 4, 5, 6),
        "offset": torch.zeros(2, 36, 5, 6),
        "modulation": torch.zeros(2, 18, 5, 6),
    }
    with pytest.raises(ValueError, match=message):
        deform_sampled_sum(**(fitting | change), kernel_size=3, padding=1)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(5, 6), (20, 30)])
def test_a_nan_offset_gives_nan_where_it_is_used_and_in_gradients(
    dtype: torch.dtype, size: tuple[int, int]
) -> None:
    inputs = [t.to(dtype) for t in arguments({"padding": 1}, size=size)]
    inputs[1][0, 21, 2, 3] = math.nan  # the second group's
    leaves = [t.requires_grad_() for t in inputs]
    y = deform_sampled_sum(*inputs, kernel_size=3, padding=1)
    assert {tuple(place) for place in y.isnan().nonzero().tolist()} == {(0, c, 2, 3) for c in (2, 3)}
    of_x, of_offset, of_modulation = torch.autograd.grad(y.sum(), leaves)
    assert of_x.isnan().any()
    assert of_offset[0, 20, 2, 3].isnan()
    assert of_modulation.isnan().nonzero().tolist() == [[0, 10, 2, 3]]


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e30, -1e10])
def test_what_is_far_outside_counts_nothing(value: float, dtype: torch.dtype) -> None:
    actual = []
    for far in (value, math.copysign(1000, value)):
        inputs = [t.to(dtype) for t in arguments({"padding": 1})]
        inputs[1][0, 20:22] = far
        leaves = [t.requires_grad_() for t in inputs]
        y = deform_sampled_sum(*inputs, kernel_size=3, padding=1)
        actual.append([y, *torch.autograd.grad(y.sin().sum(), leaves)])
    torch.testing.assert_close(*actual)
