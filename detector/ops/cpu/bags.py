"""Batched weighted sums of rows: sampling of a channels-last feature map, and its backward pass.

A bag is a weighted sum of rows of a matrix. `embedding_bag` computes bags vectorized, on all cores. The
gradient of a row is a bag as well, over the gradients of the bags that use the row: with the uses sorted by
row it is summed in a fixed order, while scattering would go row by row.
"""

# R rows of C values, B bags of S rows each

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detector.ops.differentiation import once_differentiable

_SUM = 0  # mode of embedding_bag


def weighted_bags(
    rows: Float[Tensor, "R c"],
    index: Int[Tensor, " n"],
    starts: Int[Tensor, " bags"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, "bags c"]:
    """Compute `F.embedding_bag(..., mode="sum")` without the outputs for its own backward pass."""
    return torch.ops.aten._embedding_bag_forward_only(
        rows, index, starts, False, _SUM, False, weights, False, -1
    )[0]


def embedding_bag(
    rows: Float[Tensor, "R c"],
    index: Int[Tensor, " n"],
    starts: Int[Tensor, " bags"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, "bags c"]:
    """Compute `F.embedding_bag(index, rows, starts, mode="sum", per_sample_weights=weights)` on any device.

    Bags may be empty. The result is differentiable once, in rows and weights.
    """
    return _EmbeddingBag.apply(rows, index, starts, weights)


class _EmbeddingBag(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
        needs_weights = ctx.needs_input_grad[3]  # their gradient alone depends on the values of the rows
        ctx.save_for_backward(rows if needs_weights else rows.new_empty(0), index, starts, weights)
        ctx.num_rows = len(rows)
        return weighted_bags(rows, index, starts, weights)

    @staticmethod
    @once_differentiable("Pooling of regions or depth-wise deformable convolution")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        rows, index, starts, weights = ctx.saved_tensors
        needs_rows, _, _, needs_weights = ctx.needs_input_grad
        grad, uses = grad.contiguous(), torch.arange(len(index), dtype=index.dtype, device=index.device)
        bag = torch.searchsorted(starts, uses, right=True).to(index.dtype) - 1
        grad_rows = grad_weights = None
        if needs_rows:
            used, order = index.sort(stable=True)
            row = torch.arange(ctx.num_rows, dtype=index.dtype, device=index.device)
            first_use = torch.searchsorted(used, row).to(index.dtype)
            grad_rows = weighted_bags(grad, bag[order], first_use, weights[order])
        if needs_weights:
            grad_weights = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad, rows, index, starts, bag, _SUM
            )
        return grad_rows, None, None, grad_weights


@dataclass(frozen=True)
class EmbeddingBags:
    """An operator on bags of `size` rows each, at most `len(starts)` at once."""

    size: int
    starts: Int[Tensor, " bags"]
    bag: Int[Tensor, " uses"]  # of each row

    @staticmethod
    def of(size: int, *, most: int, like: Int[Tensor, "*_"]) -> EmbeddingBags:
        starts = torch.arange(0, most * size, size, dtype=like.dtype, device=like.device)
        bag = torch.arange(most, dtype=like.dtype, device=like.device).repeat_interleave(size)
        return EmbeddingBags(size, starts, bag)

    def sum(
        self, rows: Float[Tensor, "R c"], index: Int[Tensor, "*B"], weights: Float[Tensor, "*B"]
    ) -> Float[Tensor, "_b c"]:
        """Return the bags with these rows and weights, in order."""
        starts = self.starts[: index.numel() // self.size]
        return weighted_bags(rows, index.flatten(), starts, weights.flatten())

    def weight_gradient(
        self, grad: Float[Tensor, "_b c"], rows: Float[Tensor, "R c"], index: Int[Tensor, "*B"]
    ) -> Float[Tensor, "*B"]:
        """Return the product of each row with the gradient of its bag."""
        starts, bag = self.starts[: len(grad)], self.bag[: index.numel()]
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            grad, rows, index.flatten(), starts, bag, _SUM
        ).view(index.shape)

    def add_row_gradient(
        self,
        grad: Float[Tensor, "_b c"],
        index: Int[Tensor, "*B"],
        weights: Float[Tensor, "*B"],
        *,
        into: Float[Tensor, "R c"],
    ) -> None:
        """Add to each row the gradients of the bags that use it, times its weights, in a fixed order."""
        if index.numel() == 0:
            return
        compiling = torch.compiler.is_compiling()  # reading a tensor's value would break the graph
        first, last = (0, len(into) - 1) if compiling else (int(row) for row in index.aminmax())
        used = index.flatten() - first
        if not compiling and last - first < 2**15:
            used = used.short()  # fewer digits for the radix sort
        used, order = used.sort(stable=True)
        touched = torch.arange(last - first + 1, dtype=used.dtype, device=used.device)
        starts = torch.searchsorted(used, touched).to(index.dtype)
        # index_select is four times as fast as indexing
        bag, weights = self.bag.index_select(0, order), weights.flatten().index_select(0, order)
        into[first : last + 1] += weighted_bags(grad, bag, starts, weights)
