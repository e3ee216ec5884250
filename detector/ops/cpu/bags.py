"""Weighted sums of rows, many at once: sampling a feature map in channels-last, and its backward pass.

A bag is a sum of rows of a matrix, each times a weight. `embedding_bag` adds them vectorised, on all cores.
What the bags give back to the rows is a bag itself, of the gradients of the bags that use a row: sorted by
row, it is summed in a fixed order, where scattering would go row by row.
"""

# R rows of C numbers, B bags of S rows each

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detector.ops.differentiation import once_differentiable

_SUM = 0  # embedding_bag's mode


def weighted_bags(
    rows: Float[Tensor, "R c"],
    index: Int[Tensor, " n"],
    starts: Int[Tensor, " bags"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, "bags c"]:
    """`F.embedding_bag(..., mode="sum")` without the parts that serve its own backward pass."""
    return torch.ops.aten._embedding_bag_forward_only(
        rows, index, starts, False, _SUM, False, weights, False, -1
    )[0]


def embedding_bag(
    rows: Float[Tensor, "R c"],
    index: Int[Tensor, " n"],
    starts: Int[Tensor, " bags"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, "bags c"]:
    """`F.embedding_bag(index, rows, starts, mode="sum", per_sample_weights=weights)`, on any device.

    Bags may be empty. Differentiable once, in rows and weights.
    """
    return _EmbeddingBag.apply(rows, index, starts, weights)


class _EmbeddingBag(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, starts, weights)
        return weighted_bags(rows, index, starts, weights)

    @staticmethod
    @once_differentiable("Pooling of regions or depth-wise deformable convolution")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        rows, index, starts, weights = ctx.saved_tensors
        needs_rows, _, _, needs_weights = ctx.needs_input_grad
        grad, uses = grad.contiguous(), torch.arange(len(index), dtype=index.dtype, device=index.device)
        bag = torch.searchsorted(starts, uses, right=True).to(index.dtype) - 1
        of_rows = of_weights = None
        if needs_rows:
            used, order = index.sort(stable=True)
            row = torch.arange(len(rows), dtype=index.dtype, device=index.device)
            first_use = torch.searchsorted(used, row).to(index.dtype)
            of_rows = weighted_bags(grad, bag[order], first_use, weights[order])
        if needs_weights:
            of_weights = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad, rows, index, starts, bag, _SUM
            )
        return of_rows, None, None, of_weights


@dataclass(frozen=True)
class EmbeddingBags:
    """Bags of `size` rows each, at most `len(starts)` at once."""

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
        """The bags with these rows and weights, one after the other."""
        starts = self.starts[: index.numel() // self.size]
        return weighted_bags(rows, index.flatten(), starts, weights.flatten())

    def weight_gradient(
        self, grad: Float[Tensor, "_b c"], rows: Float[Tensor, "R c"], index: Int[Tensor, "*B"]
    ) -> Float[Tensor, "*B"]:
        """The product of each row with the gradient of its bag."""
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
        """Adds to each row the gradients of the bags that use it, times its weights, in a fixed order."""
        if index.numel() == 0:
            return
        compiling = torch.compiler.is_compiling()  # to read a number of a tensor would cut the graph
        first, last = (0, len(into) - 1) if compiling else (int(row) for row in index.aminmax())
        used = index.flatten() - first
        if not compiling and last - first < 2**15:
            used = used.short()  # fewer digits for a sort by radix
        used, order = used.sort(stable=True)
        touched = torch.arange(last - first + 1, dtype=used.dtype, device=used.device)
        starts = torch.searchsorted(used, touched).to(index.dtype)
        # Picked by index_select, four times as fast as by an index
        bag, weights = self.bag.index_select(0, order), weights.flatten().index_select(0, order)
        into[first : last + 1] += weighted_bags(grad, bag, starts, weights)
