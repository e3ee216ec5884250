"""Winograd's convolution against a direct one in float64."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F

from detector.ops.cpu.winograd import winograd_conv3x3


def conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weight, bias, padding=1)


@pytest.mark.parametrize(
    "sizes", [[(8, 8)], [(5, 11)], [(1, 1)], [(4, 13), (2, 7), (1, 1)], [(29, 31), (5, 3)]]
)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("part_bytes", [0, 6000, 8 << 20])  # one line of patches at a time, some, all
def test_values_and_gradients_equal_a_direct_convolution(
    sizes: list[tuple[int, int]],
    channels_last: bool,
    batch: int,
    part_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detector.ops.cpu.winograd._PART_BYTES", part_bytes)
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    weight, bias = torch.randn(7, 5, 3, 3).double().contiguous(memory_format=layout), torch.randn(7).double()
    maps = [torch.randn(batch, 5, *size).double().contiguous(memory_format=layout) for size in sizes]
    grads = [torch.randn(batch, 7, *size).double() for size in sizes]
    inputs = [t.requires_grad_() for t in (weight, bias, *maps)]
    exact = [conv(x, weight, bias) for x in maps]
    actual = winograd_conv3x3(maps, weight, bias)
    expected = torch.autograd.grad(exact, inputs, grads)
    for a, b in zip([*actual, *torch.autograd.grad(actual, inputs, grads)], [*exact, *expected], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_results_may_be_changed_in_place(size: tuple[int, int]) -> None:
    weight, maps = torch.randn(7, 5, 3, 3, requires_grad=True), [torch.randn(2, 5, *size) for _ in range(2)]
    actual = [F.relu(y, inplace=True) for y in winograd_conv3x3(maps, weight, None)]
    cast(torch.Tensor, sum(y.sum() for y in actual)).backward()
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in actual)


def test_gradients_can_be_differentiated_again() -> None:
    torch.manual_seed(0)
    sizes = (3, 2, 3, 3), (3,), (2, 2, 5, 4), (2, 2, 2, 3)
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def function(weight: torch.Tensor, bias: torch.Tensor, *maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(winograd_conv3x3(maps, weight, bias))

    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_frozen_inputs_get_no_gradient() -> None:
    torch.manual_seed(0)
    weight, maps = torch.randn(7, 5, 3, 3, requires_grad=True), [torch.randn(1, 5, 8, 8)]
    (actual,) = winograd_conv3x3(maps, weight, None)
    actual.sum().backward()
    assert weight.grad is not None
    assert maps[0].grad is None


@pytest.mark.parametrize("library", ["mkl", "onednn"])
def test_errors_of_a_wide_layer_stay_near_fp32(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.ops.cpu.products._FASTER", library)
    monkeypatch.setattr("detector.ops.cpu.products._FEWEST_PRODUCTS", 0)
    torch.manual_seed(0)
    inputs = [torch.randn(1, 256, 16, 16), torch.randn(256, 256, 3, 3) / 48]
    grad = torch.randn(1, 256, 16, 16)
    x, weight = (t.requires_grad_() for t in inputs)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    y, exact = winograd_conv3x3([x], weight, None)[0], cast(Any, F.conv2d)(*wide, padding=1)
    actual = [y, *torch.autograd.grad(y, (x, weight), grad)]
    expected = [exact, *torch.autograd.grad(exact, wide, grad.double())]
    for a, b in zip(actual, expected, strict=True):
        assert (a - b).norm() < 5e-6 * b.norm()


@pytest.mark.parametrize("library", ["mkl", "onednn"])
def test_autocast_around_backward_alone_casts_nothing(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.ops.cpu.products._FASTER", library)
    monkeypatch.setattr("detector.ops.cpu.products._FEWEST_PRODUCTS", 1)
    torch.manual_seed(0)
    weight, x = torch.randn(7, 5, 3, 3, requires_grad=True), torch.randn(1, 5, 8, 8, requires_grad=True)
    grad = torch.randn(1, 7, 8, 8)
    expected = torch.autograd.grad(winograd_conv3x3([x], weight, None)[0], (weight, x), grad)
    (y,) = winograd_conv3x3([x], weight, None)
    with torch.autocast("cpu", torch.bfloat16):
        actual = torch.autograd.grad(y, (weight, x), grad)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
