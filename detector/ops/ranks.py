"""Sums over the ranks of a run: its processes, one a device. Without others a value stays as it is."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def num_ranks() -> int:
    return torch.distributed.get_world_size() if _is_one_of_several() else 1


def total_over_ranks(values: Shaped[Tensor, "*n"]) -> Shaped[Tensor, "*n"]:
    """Sum of `values` over all ranks. Each of them has to call it, or the others wait."""
    if not _is_one_of_several():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def mean_over_ranks(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Mean of `values` over all ranks, see `total_over_ranks`."""
    return total_over_ranks(values) / num_ranks()


def all_gathered(value: Any) -> list[Any]:
    """The `value` of each rank, in their order; plain containers and objects that pickle."""
    if not _is_one_of_several():
        return [value]
    values = [None] * num_ranks()
    torch.distributed.all_gather_object(values, value)
    return values


def normalizer(count: Shaped[Tensor, ""], *, at_least: float, all_ranks: bool) -> Float[Tensor, ""]:
    """What a sum of losses is divided by: their `count`, at least `at_least`.

    With `all_ranks` it is the count of all ranks, divided by their number. Gradients are averaged over ranks
    afterwards, and are then those of one process that has all images. To divide by a rank's own count would
    weight a box by how many others its rank happens to have.
    """
    if not all_ranks:
        return count.clamp(min=at_least)
    return total_over_ranks(count).clamp(min=at_least) / num_ranks()


def _is_one_of_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
