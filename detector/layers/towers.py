"""Which convolutions of a tower are deformable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from detector.layers.deform import DeformConv2d
from detector.layers.deformable import warn_of_unused
from detector.option_types import NonNegativeInt

DeformableConvs = NonNegativeInt | Literal["last", "all"]


def deformable_count(chosen: DeformableConvs, *, num_convs: int) -> int:
    """How many of the last of `num_convs` convolutions are deformable. ValueError for more than there are."""
    count = {"last": 1, "all": num_convs}[chosen] if isinstance(chosen, str) else chosen
    if not 0 <= count <= num_convs or (chosen == "all" and num_convs == 0):
        raise ValueError(f"deformable_convs: expected at most num_convs={num_convs}, got {chosen}")
    return count


def require_deform_conv(deform: Callable[..., nn.Module], *, option: str, count: int) -> None:
    """Checks what makes the `count` deformable convolutions of a part, as its `option` says.

    ValueError where it makes another layer than `DeformConv2d`, or says what the part decides itself. Warns
    of what it says where there is none to make.
    """
    made, given = (deform.func, deform.keywords) if isinstance(deform, partial) else (deform, {})
    if inspect.isclass(made) and not issubclass(made, DeformConv2d):
        raise ValueError(
            f"{option}: expected detector.layers.DeformConv2d, got {made.__name__}, which is not initialised "
            "as these convolutions are. Depth-wise layers go into a backbone: model/backbone/deform=v3."
        )
    decided = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "bias")
    require_unset(deform, decided, option=option, why="these convolutions keep the size of their maps")
    if count == 0:
        known = inspect.signature(DeformConv2d).parameters
        chosen = {k: v for k, v in given.items() if k in known and v != known[k].default}
        warn_of_unused(chosen, option=option, why="none of its convolutions is deformable")


def require_unset(make: Callable[..., nn.Module], names: Sequence[str], *, option: str, why: str) -> None:
    """ValueError where the `option` that makes a part sets arguments that its user sets as well."""
    given = make.keywords if isinstance(make, partial) else {}
    if said := [name for name in names if name in given]:
        raise ValueError(f"{option}: {why}, so that {', '.join(said)} cannot be chosen here. Leave it out.")
