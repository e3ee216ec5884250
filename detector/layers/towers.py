"""Which convolutions of a tower are deformable."""

from __future__ import annotations

from typing import Literal

from detector.structures import NonNegativeInt

DeformableConvs = NonNegativeInt | Literal["last", "all"]


def deformable_count(chosen: DeformableConvs, *, num_convs: int) -> int:
    """How many of the last of `num_convs` convolutions are deformable. ValueError for more than there are."""
    count = {"last": 1, "all": num_convs}[chosen] if isinstance(chosen, str) else chosen
    if not 0 <= count <= num_convs or (chosen == "all" and num_convs == 0):
        raise ValueError(f"deformable_convs: expected at most num_convs={num_convs}, got {chosen}")
    return count
