"""Which convolutions of a tower are deformable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from detector.structures import NonNegativeInt

DeformableConvs = NonNegativeInt | Literal["last", "all"]


def deformable_count(chosen: DeformableConvs, *, num_convs: int) -> int:
    """How many of the last of `num_convs` convolutions are deformable. ValueError for more than there are."""
    count = {"last": 1, "all": num_convs}[chosen] if isinstance(chosen, str) else chosen
    if not 0 <= count <= num_convs or (chosen == "all" and num_convs == 0):
        raise ValueError(f"deformable_convs: expected at most num_convs={num_convs}, got {chosen}")
    return count


def require_own_geometry(deform: Callable[..., nn.Module], *, option: str) -> None:
    """ValueError where what makes the deformable convolutions of a part says what the part decides itself."""
    decided = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "bias")
    require_unset(deform, decided, option=option, why="these convolutions keep the size of their maps")


def require_unset(make: Callable[..., nn.Module], names: Sequence[str], *, option: str, why: str) -> None:
    """ValueError where the `option` that makes a part sets arguments that its user sets as well."""
    given = make.keywords if isinstance(make, partial) else {}
    if said := [name for name in names if name in given]:
        raise ValueError(f"{option}: {why}, so that {', '.join(said)} cannot be chosen here. Leave it out.")
