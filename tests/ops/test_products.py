"""Products by either library against torch's in float64."""

from __future__ import annotations

import pytest
import torch

from detector.ops import products
from detector.ops.products import (
    add_kernel_gradient,
    add_kernel_gradients,
    back_to_rows,
    faster_library,
    many_times_kernels,
    times_kernel,
)


@pytest.fixture(params=["mkl", "onednn", None], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(products, "_FASTER", request.param)
    return request.param


def draw(*sizes: tuple[int, ...]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=random) for size in sizes]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m", [1, 17, 48])  # oneDNN gets another shape where they are no multiple of 16
@pytest.mark.parametrize("groups", [1, 3])
def test_a_product_and_its_gradients(m: int, groups: int) -> None:
    rows, kernel, bias, grad = draw((m, 12), (6, 12 // groups), (6,), (m, 6))
    wide = [t.double().requires_grad_() for t in (rows, kernel)]
    parts = zip(wide[0].chunk(groups, dim=1), wide[1].chunk(groups), strict=True)
    expected = torch.cat([part @ of_part.mT for part, of_part in parts], dim=1)
    close(times_kernel(rows, kernel, bias, groups=groups), expected + bias)
    of_rows, of_kernel = torch.autograd.grad(expected, wide, grad.double())
    transposed = kernel.unflatten(0, (groups, -1)).mT.flatten(0, 1)
    close(back_to_rows(grad, transposed, groups=groups), of_rows)
    start = torch.ones(groups, 6 // groups, 12 // groups)
    add_kernel_gradient(grad, rows, into=start)
    close(start.flatten(0, 1), of_kernel + 1)


@pytest.mark.parametrize("fewest", [1, 10**9])
@pytest.mark.parametrize("m", [0, 5, 32])
def test_many_products_and_their_gradients(m: int, fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_FEWEST_PRODUCTS", fewest)
    rows, kernels, grads = draw((2, 3, m, 8), (2, 3, 4, 8), (2, 3, m, 4))
    found = torch.stack([torch.stack(group) for group in many_times_kernels(rows, kernels)])
    close(found, rows.double() @ kernels.double().mT)
    into = torch.ones(2, 3, 4, 8)
    add_kernel_gradients(grads, rows, into=into)
    close(into, grads.double().mT @ rows.double() + 1)


def test_the_library_is_the_one_chosen(library: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel_gradient, mm = products._kernel_gradient, torch.mm
    monkeypatch.setattr(products, "_kernel_gradient", lambda *a: calls.append("dW") or kernel_gradient(*a))
    monkeypatch.setattr(torch, "mm", lambda *a: calls.append("mm") or mm(*a))
    grad, rows, kernel = draw((32, 8), (32, 4), (4, 8))
    back_to_rows(grad, kernel, groups=1)
    add_kernel_gradient(grad, rows, into=torch.zeros(1, 8, 4))
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
    add_kernel_gradient(grad, rows, into=into)
    torch.testing.assert_close(into[0], grad.mT @ rows)
