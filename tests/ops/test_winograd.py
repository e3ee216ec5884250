"""Winograd's convolution against a direct one in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detector.ops.winograd import winograd_conv3x3


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 1), (4, 13)])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_values_and_gradients_equal_a_direct_convolution(
    size: tuple[int, int], channels_last: bool, batch: int
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(batch, 5, *size), torch.randn(7, 5, 3, 3), torch.randn(7)
    if channels_last:
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    grad = torch.randn(batch, 7, *size)
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    exact = F.conv2d(*exact_inputs, padding=1)
    found = winograd_conv3x3(*inputs)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(found, inputs, grad),
        torch.autograd.grad(exact, exact_inputs, grad.double()),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_error_of_a_wide_layer_stays_near_fp32() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 16, 16), torch.randn(256, 256, 3, 3) / 48
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd_conv3x3(x, weight, None) - exact).norm() / exact.norm()
    assert error < 5e-6
