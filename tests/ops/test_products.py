"""Products by either library against torch's in float64."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F

from detector.ops.cpu import products
from detector.ops.cpu.products import (
    add_batched_linear_weight_grads,
    add_grouped_linear_weight_grad,
    batched_linear,
    faster_library,
    grouped_linear,
    grouped_linear_input_grad,
    linear,
    regions_linear,
)


@pytest.fixture(params=["mkl", "onednn", None], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(products, "_FASTER", request.param)
    return request.param


def draw(*sizes: tuple[int, ...]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=random) for size in sizes]


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m", [1, 17, 48])  # oneDNN gets another shape where they are no multiple of 16
@pytest.mark.parametrize("groups", [1, 3])
def test_a_product_and_its_gradients(m: int, groups: int) -> None:
    rows, kernel, bias, grad = draw((m, 12), (6, 12 // groups), (6,), (m, 6))
    wide = [t.double().requires_grad_() for t in (rows, kernel)]
    parts = zip(wide[0].chunk(groups, dim=1), wide[1].chunk(groups), strict=True)
    expected = torch.cat([part @ of_part.mT for part, of_part in parts], dim=1)
    close(grouped_linear(rows, kernel, bias, groups=groups), expected + bias)
    of_rows, of_kernel = torch.autograd.grad(expected, wide, grad.double())
    transposed = kernel.unflatten(0, (groups, -1)).mT.flatten(0, 1)
    close(grouped_linear_input_grad(grad, transposed, groups=groups), of_rows)
    start = torch.ones(groups, 6 // groups, 12 // groups)
    add_grouped_linear_weight_grad(grad, rows, into=start)
    close(start.flatten(0, 1), of_kernel + 1)


@pytest.mark.parametrize("fewest", [1, 10**9])
@pytest.mark.parametrize("m", [0, 5, 32])
def test_many_products_and_their_gradients(m: int, fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", fewest)
    rows, kernels, grads = draw((2, 3, m, 8), (2, 3, 4, 8), (2, 3, m, 4))
    actual = torch.stack([torch.stack(group) for group in batched_linear(rows, kernels)])
    close(actual, rows.double() @ kernels.double().mT)
    into = torch.ones(2, 3, 4, 8)
    add_batched_linear_weight_grads(grads, rows, into=into)
    close(into, grads.double().mT @ rows.double() + 1)


def test_the_library_is_the_one_chosen(library: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Any = []
    kernel_gradient, mm = products._kernel_gradient, torch.mm
    monkeypatch.setattr(products, "_kernel_gradient", lambda *a: calls.append("dW") or kernel_gradient(*a))
    monkeypatch.setattr(torch, "mm", lambda *a: calls.append("mm") or mm(*a))
    grad, rows, kernel = draw((32, 8), (32, 4), (4, 8))
    grouped_linear_input_grad(grad, kernel, groups=1)
    add_grouped_linear_weight_grad(grad, rows, into=torch.zeros(1, 8, 4))
    assert calls == {"mkl": ["mm"], "onednn": ["dW"], None: []}[library]


@pytest.mark.parametrize(
    ("intel", "capability", "expected"),
    [(True, "AVX512", "mkl"), (True, "AVX2", "mkl"), (False, "AVX512", "onednn"), (False, "AVX2", None)],
)
def test_the_faster_library_is_told_by_the_processor(
    intel: bool, capability: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "has_intel_cpu", lambda: intel)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert faster_library() == expected


def test_float64_is_never_onednns() -> None:
    grad, rows = (t.double() for t in draw((32, 8), (32, 4)))
    into = torch.zeros(1, 8, 4).double()
    add_grouped_linear_weight_grad(grad, rows, into=into)
    torch.testing.assert_close(into[0], grad.mT @ rows)


@pytest.mark.parametrize("most_features", [3, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_and_its_gradients(
    bias: bool, most_features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", 1)
    monkeypatch.setattr(products, "_MOST_FEATURES", most_features)
    arguments = draw((17, 8), (5, 8), *([(5,)] if bias else []))
    grad = draw((17, 5))[0]
    inputs, wide = ([t.to(d).requires_grad_() for t in arguments] for d in (torch.float32, torch.float64))
    actual, expected = linear(*inputs, *[None][bias:]), F.linear(*wide)
    close(actual, expected)
    of_inputs = torch.autograd.grad(actual, inputs, grad)
    for a, b in zip(of_inputs, torch.autograd.grad(expected, wide, grad.double()), strict=True):
        close(a, b)


def test_a_linear_layer_is_by_the_chosen_library(
    library: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it pays; small ones, other types and what is recorded are torch's."""
    calls: Any = []
    monkeypatch.setattr(products, "grouped_linear", lambda x, *_: calls.append(x.shape) or x)
    (rows, weight), small = draw((400, 256), (256, 256)), draw((10, 8), (8, 8))
    linear(*cast(tuple[torch.Tensor, torch.Tensor], small), None)
    linear(rows.double(), weight.double(), None)
    with torch.autocast("cpu", torch.bfloat16):
        linear(rows, weight, None)
    torch.jit.trace(lambda x: linear(x, weight, None), rows, check_trace=False)
    assert not calls
    linear(rows, weight, None)
    assert calls == ([rows.shape] if library == "onednn" else [])


def test_a_linear_layer_is_differentiable_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", 1)
    rows, weight = (t.requires_grad_() for t in draw((17, 8), (5, 8)))
    seconds = []
    for function in (linear, F.linear):
        (first,) = torch.autograd.grad(function(rows, weight, None).square().sum(), rows, create_graph=True)
        seconds.append(torch.autograd.grad(first.sin().sum(), (rows, weight)))
    for a, b in zip(*seconds, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(8,), (2, 3, 8)])
def test_other_shapes_are_torchs(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", 1)
    rows, weight = draw(shape, (5, 8))
    assert torch.equal(linear(rows, weight, None), F.linear(rows, weight))


def test_the_result_of_a_linear_layer_can_be_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", 1)
    rows, weight = (t.requires_grad_() for t in draw((32, 8), (5, 8)))
    linear(rows, weight, None).relu_().sum().backward()
    assert rows.grad is not None


@pytest.mark.parametrize("fewest", [1, 10**9])
@pytest.mark.parametrize("most_features", [1, 8, 100])  # parts of one cell, of two, all
def test_a_linear_layer_of_regions_and_its_gradients(
    most_features: int, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", fewest)
    monkeypatch.setattr(products, "_MOST_FEATURES", most_features)
    arguments, (grad,) = draw((17, 4, 3, 3), (5, 36), (5,)), draw((17, 5))
    inputs, wide = ([t.to(d).requires_grad_() for t in arguments] for d in (torch.float32, torch.float64))
    regions, *parameters = inputs
    actual = regions_linear(regions.contiguous(memory_format=torch.channels_last), *parameters)
    expected = F.linear(wide[0].flatten(1), *wide[1:])
    close(actual, expected)
    kept = torch.autograd.grad(actual, inputs, grad, retain_graph=True)
    wanted = torch.autograd.grad(expected, wide, grad.double())
    for once, again, right in zip(kept, torch.autograd.grad(actual, inputs, grad), wanted, strict=True):
        close(once, right)
        assert torch.equal(once, again)
    with pytest.raises(RuntimeError, match="second time"):  # the regions are freed
        torch.autograd.grad(actual, inputs, grad)


def test_a_linear_layer_of_regions_is_differentiable_twice() -> None:
    sizes = (7, 4, 2, 2), (5, 16), (5,)
    regions, weight, bias = (t.double().requires_grad_() for t in draw(*sizes))
    seconds = []
    for function in (regions_linear, lambda r, w, b: F.linear(r.flatten(1), w, b)):
        y = function(regions, weight, bias).square().sum()
        first = torch.autograd.grad(y, (regions, weight), create_graph=True)
        seconds.append(torch.autograd.grad(first[0].sin().sum() + first[1].sin().sum(), (regions, weight)))
    for a, b in zip(*seconds, strict=True):
        torch.testing.assert_close(a, b)
