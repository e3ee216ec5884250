"""Bags of rows of different sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detector.ops.cpu import EmbeddingBags, embedding_bag

STARTS = torch.tensor([0, 0, 2, 2, 5, 6])  # sizes 0, 2, 0, 3, 1, 0


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, dtype=torch.float64, requires_grad=True)
    return rows, torch.tensor([3, 1, 1, 1, 3, 0]), weights


def test_each_bag_is_the_sum_of_its_weighted_rows() -> None:
    rows, index, weights = problem()
    expected = torch.zeros(6, 3, dtype=torch.float64)
    for bag, uses in {1: (0, 1), 3: (2, 3, 4), 4: (5,)}.items():
        expected[bag] = sum(weights[use] * rows[index[use]] for use in uses)
    torch.testing.assert_close(embedding_bag(rows, index, STARTS, weights), expected)


def test_gradients() -> None:
    rows, index, weights = problem()
    assert torch.autograd.gradcheck(lambda r, w: embedding_bag(r, index, STARTS, w), (rows, weights))


def test_no_bags() -> None:
    rows, none = torch.randn(4, 3, requires_grad=True), torch.zeros(0, dtype=torch.int32)
    weights = torch.zeros(0, requires_grad=True)
    actual = embedding_bag(rows, none, none, weights)
    assert actual.shape == (0, 3)
    actual.sum().backward()
    assert rows.grad is not None
    assert rows.grad.eq(0).all()
    assert weights.grad is not None
    assert weights.grad.shape == (0,)


@pytest.mark.parametrize("lowest", [0, 7_231, 7_232, 39_000])  # 2^15 rows up to the last, and one less
def test_gradients_of_bags_of_one_size(lowest: int) -> None:
    torch.manual_seed(0)
    rows = torch.randn(40_000, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(lowest, len(rows), (24,), dtype=torch.int32)
    index[0], index[-1], index[5] = lowest, len(rows) - 1, index[4]
    weights = torch.randn(24, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(6, 3, dtype=torch.float64)
    summed = F.embedding_bag(index.view(6, 4), rows, mode="sum", per_sample_weights=weights.view(6, 4))
    expected = torch.autograd.grad(summed, (rows, weights), grad)

    bags, actual = EmbeddingBags.of(4, most=9, like=index), torch.zeros_like(rows)
    with torch.no_grad():
        bags.add_row_gradient(grad, index, weights, into=actual)
        torch.testing.assert_close((actual, bags.weight_gradient(grad, rows, index)), expected)
