"""Reductions over the ranks of a run (processes, one per device); a single process keeps its values."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def num_ranks() -> int:
    return torch.distributed.get_world_size() if _is_distributed() else 1


def total_over_ranks(values: Shaped[Tensor, "*n"]) -> Shaped[Tensor, "*n"]:
    """Return the sum of `values` over all ranks. Each rank must call it, or the others wait."""
    if not _is_distributed():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def mean_over_ranks(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the mean of `values` over all ranks, see `total_over_ranks`."""
    return total_over_ranks(values) / num_ranks()


def all_gathered(value: Any) -> list[Any]:
    """Return the `value` of each rank, in rank order; it must be picklable."""
    if not _is_distributed():
        return [value]
    values = [None] * num_ranks()
    torch.distributed.all_gather_object(values, value)
    return values


def normalizer(count: Shaped[Tensor, ""], *, at_least: float, all_ranks: bool) -> Float[Tensor, ""]:
    """Return the divisor of a sum of losses: their `count`, at least `at_least`.

    With `all_ranks` it is the count of all ranks, divided by their number. As gradients are averaged over
    ranks, they then equal those of one process with all images. Dividing by a rank's own count would weight a
    box by the number of other boxes on its rank.
    """
    if not all_ranks:
        return count.clamp(min=at_least)
    return total_over_ranks(count).clamp(min=at_least) / num_ranks()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
